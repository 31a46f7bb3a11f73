"""A run in a notebook: its frames and its words are what the ledger and the commands say; its cell is harmless."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas
import pytest

import agent
from agent.errors import AgentError, InputError
from agent.ledger.store import Ledger, NewCandidate, NewRun
from agent.prompt.prompt_candidate import PromptCandidate
from agent.report.notebook import TRIALS
from agent.types import Trial
from tests.cli.test_untrusted import CONTROL, EVIL
from tests.cli.world import compatible, files, good, good_json, learner
from tests.conftest import Made
from tests.toys import make_task
from tests.wire import WireServer

DB = Path("runs/ledger.db")
HOSTILE = f"<script>alert(1)</script><img src=x onerror=alert(2)> $x^2$ {EVIL}"


@pytest.fixture
def result(here: Path) -> dict[str, Any]:
    """The result of a run of a task folder: its rows can be read again."""
    files(120)
    good("init", "mine", "--from", "rows.csv", "--target", "label", "--prompt", "p.txt")
    with WireServer(learner) as server:
        return good_json("run", "mine", "-m", compatible(server), "--max-calls", "300")


def test_a_run_says_what_its_result_says(two_runs: Made) -> None:
    for result in two_runs:
        run = agent.load_run(result["run_id"])
        assert (run.id, run.task, run.result) == (result["run_id"], result["task"], result)
        assert run.verdict in good("show", run.id)
        assert repr(run) == f"<Run {run.id} of {run.task}: {run.verdict}>"
        assert run.prompt is not None
        assert result["winner"]["instruction"] in run.prompt
    assert agent.load_run().id == agent.load_run(two_runs[1]["run_id"][:-1], db=str(DB)).id == two_runs[1]["run_id"]


def test_the_frame_of_trials_is_the_table_of_trials(two_runs: Made) -> None:
    run_id = two_runs[0]["run_id"]
    frame = agent.load_run(run_id).trials_df()
    assert {name: str(of) for name, of in frame.dtypes.items()} == TRIALS
    trials = good_json("history", run_id)["trials"]
    assert len(frame) == len(trials) > 5
    for row, trial in zip(frame.to_dict("records"), trials, strict=True):
        told = {name: None if pandas.isna(value) else value for name, value in row.items()}
        assert told.pop("used") >= 0
        assert told == {name: trial[name] for name in told}
    best = frame[frame.state == "complete"]["mean"].max()
    assert best >= two_runs[0]["winner"]["dev"]


def test_the_frame_of_outcomes_has_each_sealed_row_with_both_replies(result: dict[str, Any]) -> None:
    run = agent.load_run(result["run_id"])
    frame = run.outcomes_df()
    assert list(frame.columns) == [
        "example_id", "input.text", "label.label", "baseline_reply", "baseline_score", "winner_reply", "winner_score",
    ]  # fmt: skip
    assert len(frame) == result["lift"]["n"] == frame.example_id.nunique()
    assert frame.baseline_score.mean() == pytest.approx(result["baseline"]["test"], abs=1e-4)
    assert frame.winner_score.mean() == pytest.approx(result["winner"]["test"], abs=1e-4)
    change = frame.winner_score - frame.baseline_score
    assert [(change > 0).sum(), (change < 0).sum()] == [result["lift"]["wins"], result["lift"]["losses"]]
    right = frame[frame.winner_score == 1]
    assert (right.winner_reply == right["label.label"]).all()
    assert len(run.outcomes_df("dev")) == max(each["n"] for each in good_json("history", run.id)["trials"])


def test_rows_of_a_file_that_changed_since_are_left_out(result: dict[str, Any]) -> None:
    run = agent.load_run()
    before = run.outcomes_df()
    (file,) = Path("tasks/mine").glob("test.*")
    file.write_text(file.read_text("utf-8").replace("invoice", "bill"), "utf-8")
    frame = run.outcomes_df()
    assert [name for name in before.columns if name not in frame.columns] == ["input.text", "label.label"]
    assert frame.equals(before[list(frame.columns)])


def test_the_chart_shows_itself_and_has_a_mark_for_each_scored_trial(two_runs: Made) -> None:
    run = agent.load_run(two_runs[0]["run_id"])
    figure = run.plot()
    frame = run.trials_df()
    (axes,) = figure.axes
    drawn = [
        [*point] for marks in axes.lines if marks.get_linestyle() == "None" for point in marks.get_xydata().tolist()
    ]
    assert sorted(drawn) == sorted([spent, 100 * mean] for spent, mean in zip(frame.used, frame["mean"], strict=True))
    assert figure.get_facecolor() == (1.0, 1.0, 1.0, 1.0)
    assert ElementTree.fromstring(figure._repr_svg_()).tag.endswith("svg")


def test_a_cell_is_one_piece_of_html_without_style_or_script_of_its_own(two_runs: Made) -> None:
    run = agent.load_run(two_runs[0]["run_id"])
    cell = run._repr_html_()
    root = ElementTree.fromstring(cell)
    assert root.tag == "div"
    tags = {node.tag.rpartition("}")[2] for node in root.iter()}
    assert "svg" in tags
    assert not tags & {"script", "link", "iframe", "html", "body"}
    assert not list(root.iter("style"))
    words = " ".join("".join(root.itertext()).split())
    for told in (run.verdict, run.id, run.task, f"{100 * two_runs[0]['winner']['test']:.1f}"):
        assert told in words
    assert cell == run._repr_html_()
    assert not re.search(r"(?:src|href)=.https?:", cell)


def test_a_run_with_hostile_words_and_no_result_shows_what_there_is(here: Path) -> None:
    ledger = Ledger(Path("odd.db"))
    ledger.begin_run(NewRun("run-1", make_task(), HOSTILE, "none", 7, {}, {}, options={}))
    candidate = PromptCandidate("zero-shot", "turns", HOSTILE)
    ledger.add_candidate("run-1", NewCandidate(0, candidate.shown(), (), HOSTILE, None, HOSTILE))
    ledger.put_trial("run-1", Trial(0, 0, candidate.id, "incomplete", 0, None, None, HOSTILE))
    ledger.close()
    run = agent.load_run(db="odd.db")
    assert (run.result, run.prompt) == (None, None)
    assert run.verdict == "No result: the run is killed"
    cell = run._repr_html_()
    ElementTree.fromstring(cell)
    assert "<script" not in cell
    assert "<img" not in cell
    assert "&lt;script&gt;" in cell
    assert not CONTROL.search(cell)
    assert run.trials_df().instruction.tolist() == [HOSTILE]
    assert pandas.isna(run.trials_df()["mean"][0])
    run.plot()
    with pytest.raises(InputError, match="No result"):
        run.outcomes_df()


def test_what_is_not_there_is_named(two_runs: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"nowhere\.db: no ledger here; name it with db="):
        agent.load_run(db="nowhere.db")
    with pytest.raises(InputError, match="no run nothing"):
        agent.load_run("nothing")
    run = agent.load_run()
    monkeypatch.setitem(sys.modules, "pandas", None)
    for frame in (run.trials_df, run.outcomes_df):
        with pytest.raises(AgentError, match=r'pip install "promptassay\[notebook\]"'):
            frame()
    assert run._repr_html_()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="asks Linux which files are open")
def test_a_loaded_run_keeps_no_hold_of_the_ledger(two_runs: Made) -> None:
    run = agent.load_run()
    run.outcomes_df()
    assert run.trials_df().shape[0] > 0
    links = [Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd")]
    assert DB.resolve() not in [link.resolve() for link in links if link.is_symlink()]


def test_a_run_loads_neither_pandas_nor_a_window_system(two_runs: Made) -> None:
    code = (
        "import sys, agent; agent.load_run()._repr_html_(); print({'pandas', 'matplotlib.pyplot'} & set(sys.modules))"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(root), "PATH": ""},
    )
    assert done.stdout.strip() == "set()"
