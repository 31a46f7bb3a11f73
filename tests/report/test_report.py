"""`optimize report`: what it says is what the ledger holds, for a run in any state, and it is one file or none."""

import asyncio
import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agent.ledger.query import History
from agent.ledger.store import Ledger, NewCandidate, NewRun
from agent.prompt.prompt_candidate import PromptCandidate
from agent.report.html import report_html
from agent.report.prompt_texts import whole_prompt
from agent.report.run_tables import FLIPS
from agent.report.view import RunView
from agent.report.wording import duration, points
from agent.types import Message, Trial
from tests.bench.report_size import LIMIT, build_finished, report_of
from tests.cli.test_judge_run import CAP, Boats, labels, task
from tests.cli.world import (
    INSTRUCTION,
    compatible,
    files,
    good,
    good_json,
    knowing,
    learner,
    optimize,
    refused,
    stubborn,
)
from tests.conftest import Made
from tests.report.pages import Page, assert_harmless
from tests.toys import make_task
from tests.wire import WireServer

LEDGER = Path("runs/ledger.db")


def page_of(run_id: str = "") -> Page:
    return assert_harmless(report_html(RunView(History(LEDGER), run_id)))


def cells(page: Page, caption: str) -> dict[str, list[str]]:
    """The rows of a table by their first cell."""
    return {row[0]: row[1:] for row in page.tables[caption]}


def run_with(model: Any, *more: str, count: int = 120) -> dict[str, Any]:
    with WireServer(model) as server:
        return good_json(*files(count), "-m", compatible(server), "--max-calls", "300", "-q", *more)


# -- a promoted winner ------------------------------------------------------------------------------------------------


def test_the_numbers_of_a_report_are_those_of_the_result(two_runs: Made) -> None:
    result = two_runs[0]
    page, history = page_of(result["run_id"]), History(LEDGER)
    lift, winner = result["lift"], result["winner"]
    assert result["decision"] == "promote"
    assert f"Better: {100 * lift['diff']:+.1f} points on {lift['n']} sealed test rows." in page.text
    assert f"Path: {result['release']}." in page.text
    table = cells(page, "Scores, 0 to 100")
    for side, name in (("baseline", "your prompt"), ("winner", "best found")):
        assert table[name][0] == points(result[side]["test"])
        assert table[name][2] == points(result[side]["dev"])
    assert table["best found"][3] == points(winner["dev_corrected"])
    low, high = (f"{100 * end:+.1f}" for end in lift["ci95"])
    assert table["difference"][:2] == [f"{100 * lift['diff']:+.1f}", f"{low} to {high}"]
    assert f"{lift['wins']} won, {lift['losses']} lost, {lift['ties']} tied" in page.text

    trials = cells(page, f"{sum(result['trials'].values())} trials")
    for trial in history.trials(result["run_id"]):
        row = trials[str(trial["number"])]
        assert row[:2] == [trial["state"], points(trial["mean"])]
        assert row[3] == str(trial["n"])
        is_best = trial["candidate_id"] == winner["candidate_id"]
        assert row[4] == ("your prompt" if trial["number"] == 0 else "best found" if is_best else "")
    assert len(trials) == 1 + sum(result["trials"].values())

    spend = cells(page, "Calls, tokens and dollars")["all"]
    paid = result["calls"]["model"] + result["calls"]["proposer"] + result["calls"]["judge"]
    assert spend[2].replace(",", "") == str(paid + result["calls"]["cached"])
    assert float(spend[6]) == pytest.approx(result["cost_usd"], abs=1e-4)
    assert f"{paid:,} calls, {duration(result['seconds'])}" in page.text
    origin = cells(page, "What ran")
    assert origin["ledger head of the result"] == [result["ledger_head"]]
    for name, digest in history.run(result["run_id"])["hashes"].items():
        assert origin[f"SHA-256 of {name}"] == [digest]


def test_rows_that_changed_are_shown_with_what_both_prompts_made_of_them(two_runs: Made) -> None:
    result = two_runs[0]
    view = RunView(History(LEDGER), result["run_id"])
    page = page_of(result["run_id"])
    better = cells(page, "Sealed rows that got better")
    assert result["lift"]["wins"] > FLIPS == len(better) - 1
    assert f"{result['lift']['wins'] - FLIPS} rows are left out" in page.text
    rows = view.examples["test"]
    for example_id, row in better.items():
        if example_id != "row":
            text, label = rows[example_id].inputs["text"], rows[example_id].labels["label"]
            assert row[0].strip() == text
            assert row[1].strip() == label
            assert row[3].split() == ["100.0", label]
            assert row[2].split()[0] == "0.0"


def test_the_prompt_is_compared_word_by_word_and_its_demos_are_there(two_runs: Made) -> None:
    result = two_runs[0]
    html = report_html(RunView(History(LEDGER), result["run_id"]))
    page = Page(html)
    assert INSTRUCTION in page.text
    view = RunView(History(LEDGER), result["run_id"])
    for candidate in (view.baseline, view.winner):
        assert candidate is not None
        assert whole_prompt(candidate) in page.text
    assert page.structure.count("ins") > 1
    demos = cells(page, "Worked examples in the prompt, in their order")
    assert len(demos) - 1 == result["winner"]["n_examples"] > 0
    carried = cells(page, "What carried the gain")
    assert [*carried][1:] == [row["part"] for row in result["attribution"]]
    front = page.tables["The Pareto front: nothing beats these in score, prompt length and cost"]
    assert len(front) - 1 == len(result["pareto"]) > 0


def test_rows_of_files_that_changed_since_are_named_by_id_alone(two_runs: Made) -> None:
    result = two_runs[0]
    path = Path("rows.csv")
    text = RunView(History(LEDGER), result["run_id"]).examples["test"].popitem()[1].inputs["text"]  # type: ignore[attr-defined]
    path.write_text(path.read_text("utf-8").replace("billing\n", "delivery\n", 1), "utf-8")
    page = page_of(result["run_id"])
    assert "rows are named by their id alone" in page.text
    assert page.tables["Sealed rows that got better"][0] == ["row", "your prompt", "best found"]
    assert text not in page.text


# -- other endings ----------------------------------------------------------------------------------------------------


def test_a_kept_prompt_and_a_search_that_was_left_out_say_so() -> None:
    kept = run_with(stubborn, "--proposer", "none")
    page = page_of()
    assert kept["decision"] == "keep_baseline"
    assert "Keep your prompt" in page.text
    assert "Your own prompt stays." in page.text
    assert_compares_nothing(kept, page)
    run_with(knowing)
    page = page_of()
    assert "Keep your prompt: no gain could be shown, so nothing was searched." in page.text
    assert "The best found is your own prompt." in page.text
    assert_compares_nothing(good_json("show")["result"], page)


def assert_compares_nothing(result: dict[str, Any], page: Page) -> None:
    """A prompt that was not compared with another has no interval of a difference, no p-value and no second row."""
    assert result["lift"]["ties"] == result["lift"]["n"] > 0
    assert list(cells(page, "Scores, 0 to 100")) == ["prompt", "your prompt"]
    for text in (page.text, good("show")):
        assert not re.search(r"best found +\d|test rows: |\bp = |\b0 won|difference|Rows that |got better", text), text


def test_an_unfinished_run_says_so_and_shows_what_there_is() -> None:
    ledger, toy = Ledger(Path("ledger.db")), make_task(4)
    ledger.begin_run(NewRun("run-a", toy, "m"))
    asyncio.run(ledger.commit())
    view = RunView(History(Path("ledger.db")))
    assert "No trial yet." in Page(report_html(view)).text
    for number, mean in enumerate((0.25, 0.75)):
        candidate = PromptCandidate("zero-shot", "turns", f"wording {number}")
        ledger.add_candidate("run-a", NewCandidate(0, candidate.shown(), (Message("system", "x"),), "instruction"))
        ledger.put_trial("run-a", Trial(number, 0, candidate.id, "complete", 4, mean, (0.1, 0.9), "saw all"))
    asyncio.run(ledger.commit())
    page = assert_harmless(report_html(RunView(History(Path("ledger.db")))))
    assert "Still running: there is no result yet." in page.text
    assert [row[0] for row in page.tables["2 trials"][1:]] == ["0", "1"]
    ledger.end_run("run-a", "interrupted", 1.0)
    ledger.close()
    page = assert_harmless(report_html(RunView(History(Path("ledger.db")))))
    assert "No result: this run is interrupted." in page.text
    assert "optimize resume run-a" in page.text


def test_a_judged_run_is_held_back_with_its_reasons_and_what_is_against_its_judge() -> None:
    folder = task()
    with WireServer(Boats()) as server:
        result = good_json("run", folder, "-m", compatible(server), *CAP)
        page = page_of()
        assert "Held back: " in page.text
        assert all(why[1:] in page.text for why in result["blocked"])
        assert "Your own prompt is released." in page.text
        (judge,) = page.tables["Judges behind the score"][1:]
        assert judge[3].startswith("NOT TRUSTED")
        flips = page.tables["Sealed rows that got better"][1:]
        assert all("as it reads" in row[3] and "as it reads" in row[4] for row in flips)
        assert [row[0] for row in page.tables["By harbour"][1:]] == ["north", "south"]
        told = good_json(
            "judge",
            "calibrate",
            folder,
            "--labels",
            labels(Path("l.jsonl")),
            "--judge",
            compatible(server),
            "--price",
            "1,2",
        )
    (line,) = refused(2, "report", told["run_id"])
    assert f"`optimize show {told['run_id']}`" in line


def test_erased_texts_are_said_to_be_erased_and_older_reports_are_named(two_runs: Made) -> None:
    result = two_runs[0]
    good("report", result["run_id"])
    why = ("--actor", "jo", "--reason", "asked to", "--yes")
    erased = optimize("audit", "erase", "--containing", INSTRUCTION, *why)
    assert erased.exit_code == 0
    assert f"runs/{result['run_id']}/report.html: holds the text" in erased.output
    page = page_of(result["run_id"])
    assert INSTRUCTION not in page.text
    assert "The result of this run was erased." in page.text
    assert "(erased)" in page.text


def test_a_long_search_keeps_the_file_small_and_says_what_is_left_out(tmp_path: Path) -> None:
    """The whole size, 1,000 trials on 200 rows each, is measured by tests/bench/report_size.py."""
    build_finished(tmp_path / "ledger.db", trials=200, rows=1, sealed=200)
    html = report_of(tmp_path / "ledger.db", sealed=200)
    page = assert_harmless(html)
    assert len(html.encode()) < LIMIT / 6
    shown = [row[0] for row in page.tables["200 trials"][1:]]
    assert shown[0] == "0"
    assert shown[-20:] == [str(number) for number in range(180, 200)]
    assert f"{200 - len(shown)} are left out, `optimize history big` lists all" in page.text
    assert "The 50 largest changes; 150 rows are left out." in page.text
    assert "more characters)" in page.text


def test_a_program_is_reported_by_what_its_predictors_are_told() -> None:
    from tests.cli.test_program import folder, helper

    with WireServer(helper) as server:
        result = good_json(
            *("run", folder(), "--max-calls", "700", "--strategy", "dspy-bootstrap", "-m", compatible(server), "-q")
        )
    page = page_of()
    assert f"program, dspy, {result['winner']['n_examples']} examples" in page.text
    assert "gist: Say what it is about." in page.text
    assert "ins" in page.structure
    assert len(page.tables["Sealed rows that got better"]) - 1 == min(result["lift"]["wins"], FLIPS) > 0


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_file_is_written_whole_or_not_at_all(two_runs: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    latest = two_runs[1]["run_id"]
    told = good_json("report")
    path = Path("runs", latest, "report.html")
    assert told == {"run_id": latest, "file": str(path), "bytes": path.stat().st_size}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    assert good("report", two_runs[0]["run_id"], "-o", "new/a.html") == ""
    assert Page(Path("new/a.html").read_text("utf-8")).text
    good("report", "-o", "new")
    assert Path("new/report.html").read_bytes() == before
    (line,) = refused(2, "report", "-o", "new/a.html/b.html")
    assert "new/a.html/b.html: cannot be written" in line

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("agent.safe_file.os.replace", fail)
    (line,) = refused(2, "report", two_runs[0]["run_id"], "-o", str(path))
    assert "No space left on device" in line
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir() if entry.name.startswith(".report")] == []


def test_a_link_and_a_pipe_stay_what_they_are(two_runs: Made) -> None:
    Path("page.html").write_text("old")
    Path("link.html").symlink_to("page.html")
    os.mkfifo("pipe")
    good("report", "-o", "link.html")
    page = Path("page.html").read_bytes()
    assert Path("link.html").is_symlink()
    with Path("read").open("wb") as read, subprocess.Popen(["cat", "pipe"], stdout=read) as reader:
        try:
            good("report", "-o", "pipe")
            assert reader.wait(20) == 0
        finally:
            reader.kill()
    assert Path("pipe").is_fifo()
    assert Path("read").read_bytes() == page


def test_a_run_answered_from_the_ledger_has_the_same_curve() -> None:
    with WireServer(learner) as server:
        first = good_json(*files(200), "-m", compatible(server), "--price", "1,2", "-q", "--max-calls", "800")
        again = good_json(*files(200), "-m", compatible(server), "--price", "1,2", "-q", "--max-calls", "800")
    assert again["calls"]["model"] == 0
    one, two = (
        [(trial["number"], trial["used"]) for trial in RunView(History(LEDGER), run["run_id"]).best]
        for run in (first, again)
    )
    assert one == two
    assert one[-1][1] > 0
