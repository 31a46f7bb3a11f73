"""A run in a notebook: its frames and words are those of the ledger and the commands; its cell is harmless."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import pandas
import pytest

import agent
from agent.errors import AgentError, InputError
from agent.report.notebook import TRIALS
from tests.cli.test_untrusted import CONTROL
from tests.cli.world import good, good_json
from tests.report.hostile import add_runs
from tests.report.web_world import DB

ROOT = Path(__file__).resolve().parents[2]
Runs = Mapping[str, str]


def test_a_run_and_its_trials_are_those_of_the_commands(runs: Runs) -> None:
    run, result = agent.load_run(runs["search"]), good_json("show", runs["search"])["result"]
    assert (run.id, run.task, run.result) == (runs["search"], "rows", result)
    assert run.verdict in good("show", run.id)
    assert repr(run) == f"<Run {run.id} of rows: {run.verdict}>"
    assert result["winner"]["instruction"] in (run.prompt or "")
    assert agent.load_run(runs["search"][:-1], db=str(DB)).id == run.id
    assert agent.load_run().id == good_json("runs")["runs"][0]["id"]
    frame, trials = run.trials_df(), good_json("history", run.id)["trials"]
    assert {name: str(of) for name, of in frame.dtypes.items()} == TRIALS
    for row, trial in zip(frame.to_dict("records"), trials, strict=True):
        told = {name: None if pandas.isna(value) else value for name, value in row.items()}
        assert told.pop("used") >= 0
        assert told == {name: trial[name] for name in told}


def test_outcomes_have_each_row_with_both_replies_and_without_inputs_of_changed_files(runs: Runs) -> None:
    run = agent.load_run(runs["search"])
    frame = run.outcomes_df()
    if Path("/proc/self/fd").is_dir():  # the ledger is not held open
        links = [Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd")]
        assert DB.resolve() not in [link.resolve() for link in links if link.is_symlink()]
    result = good_json("show", runs["search"])["result"]
    replies = ["baseline_reply", "baseline_score", "winner_reply", "winner_score"]
    assert list(frame.columns) == ["example_id", "input.text", "label.label", *replies]
    assert len(frame) == result["lift"]["n"] == frame.example_id.nunique()
    assert frame.winner_score.mean() == pytest.approx(result["winner"]["test"], abs=1e-4)
    change = frame.winner_score - frame.baseline_score
    assert [(change > 0).sum(), (change < 0).sum()] == [result["lift"]["wins"], result["lift"]["losses"]]
    right = frame[frame.winner_score == 1]
    assert (right.winner_reply == right["label.label"]).all()
    assert len(run.outcomes_df("dev")) == max(each["n"] for each in good_json("history", run.id)["trials"])
    Path("rows.csv").write_text(Path("rows.csv").read_text("utf-8").replace("invoice", "bill"), "utf-8")
    assert run.outcomes_df().equals(frame[["example_id", *replies]])
    with pytest.raises(InputError, match="No result"):
        agent.load_run(runs["interrupted"]).outcomes_df()


def test_the_chart_has_a_mark_for_each_scored_trial_and_shows_itself(runs: Runs) -> None:
    run = agent.load_run(runs["search"])
    figure, frame = run.plot(), run.trials_df()
    (axes,) = figure.axes
    marks = [line for line in axes.lines if line.get_linestyle() == "None"]
    drawn = [[*point] for line in marks for point in line.get_xydata().tolist()]
    assert sorted(drawn) == sorted([spent, 100 * mean] for spent, mean in zip(frame.used, frame["mean"], strict=True))
    assert figure.get_facecolor() == (1.0, 1.0, 1.0, 1.0)
    axes.set_title("a title of mine")
    assert ElementTree.fromstring(figure._repr_svg_()).tag.endswith("svg")
    assert "a title of mine" in figure._repr_svg_(), "what was changed after plot()"


@pytest.mark.parametrize("name", ["search", "evil", "evil-2", "interrupted"])
def test_a_cell_is_one_harmless_piece_of_html(runs: Runs, name: str) -> None:
    add_runs(DB)
    run = agent.load_run(runs.get(name, name))
    cell = run._repr_html_()
    root = ElementTree.fromstring(cell)
    tags = {node.tag.rpartition("}")[2] for node in root.iter()}
    assert (root.tag, tags & {"script", "link", "iframe", "html", "body", "img", "style"}) == ("div", set())
    assert not CONTROL.search(cell)
    assert not re.search(r"(?:src|href)=.https?:", cell)
    words = " ".join("".join(root.itertext()).split())
    assert run.id in words
    if run.result is None:
        assert run.prompt is None
    if name == "interrupted":
        assert run.verdict == "No result: the run is interrupted"


def test_what_is_missing_is_named(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"nowhere\.db: no ledger here; name it with db="):
        agent.load_run(db="nowhere.db")
    with pytest.raises(InputError, match="no run nothing"):
        agent.load_run("nothing")
    code = "import sys, agent; agent.load_run(); print({'pandas', 'matplotlib.pyplot'} & set(sys.modules))"
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "set()"
    run = agent.load_run(runs["search"])
    monkeypatch.setitem(sys.modules, "pandas", None)
    for frame in (run.trials_df, run.outcomes_df):
        with pytest.raises(AgentError, match=r'pip install "promptassay\[notebook\]"'):
            frame()
