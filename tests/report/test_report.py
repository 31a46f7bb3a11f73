"""`optimize report`: what it says is what the ledger holds, for a run in any state, and it is one file or none."""

from __future__ import annotations

import asyncio
import os
import re
import stat
import subprocess
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from agent.ledger.query import History
from agent.ledger.store import Ledger, NewCandidate, NewRun
from agent.prompt.prompt_candidate import PromptCandidate
from agent.report.html import report_html
from agent.report.prompt_texts import whole_prompt
from agent.report.view import RunView
from agent.report.wording import duration
from agent.stats.figures import points
from agent.types import Message, Trial
from tests.bench.report_size import LIMIT, build_finished, report_of
from tests.cli.world import INSTRUCTION, good, good_json, optimize, refused
from tests.report.pages import Page, assert_harmless
from tests.report.web_world import DB, browsing
from tests.toys import make_task

Runs = Mapping[str, str]
SIZE = re.compile(r"(?:[Aa]bout )?[\d,]+ (?:prompt tokens|tokens a call)")
FRONT = "The Pareto front: no other prompt beats these in score, length and cost at once"


def page_of(run_id: str = "", db: Path = DB) -> Page:
    with closing(History(db)) as history:
        return assert_harmless(report_html(RunView(history, run_id)))


def cells(page: Page, caption: str) -> dict[str, list[str]]:
    """The rows of a table by their first cell."""
    return {row[0]: row[1:] for row in page.tables[caption]}


def test_the_numbers_of_a_report_are_those_of_result_and_ledger(runs: Runs) -> None:
    result, page = good_json("show", runs["search"])["result"], page_of(runs["search"])
    lift, winner = result["lift"], result["winner"]
    assert f"Better: {100 * lift['diff']:+.1f} points on {lift['n']} sealed test rows." in page.text
    assert f"Path: {result['release']}." in page.text
    table = cells(page, "Scores, 0 to 100")
    for side, name in (("baseline", "your prompt"), ("winner", "best found")):
        assert (table[name][0], table[name][2]) == (points(result[side]["test"]), points(result[side]["dev"]))
    low, high = (f"{100 * end:+.1f}" for end in lift["ci95"])
    assert table["difference"][:2] == [f"{100 * lift['diff']:+.1f}", f"{low} to {high}"]
    with closing(History(DB)) as history:
        view, trials = RunView(history, runs["search"]), cells(page, f"{sum(result['trials'].values())} trials")
        for trial in history.trials(runs["search"]):
            score, rows_seen, state = trials[str(trial["number"])][:3]
            assert (score.split()[0], rows_seen) == (points(trial["mean"]), str(trial["n"]))
            assert state.split()[0] == trial["state"]
            assert ("your prompt" in state) == (trial["number"] == 0)
            assert ("best found" in state) == (trial["candidate_id"] == winner["candidate_id"])
        assert view.winner is not None
        assert whole_prompt(view.winner) in page.text
        rows = view.examples["test"]
        better = cells(page, f"{lift['wins']} sealed rows got better")
        assert len(better) - 1 == lift["wins"] > 0
        for example_id, row in [*better.items()][1:]:
            assert row[0].strip() == rows[example_id].inputs["text"]
            assert (row[1].strip(), row[3].split()[0]) == (rows[example_id].labels["label"], "100.0")
    spend, paid = (
        cells(page, "Calls, tokens and dollars")["all"],
        result["calls"]["model"] + result["calls"]["proposer"],
    )
    assert spend[2].replace(",", "") == str(paid + result["calls"]["cached"])
    assert float(spend[6]) == pytest.approx(result["cost_usd"], abs=1e-4)
    assert f"{paid:,} calls, {duration(result['seconds'])}" in page.text
    assert [*cells(page, "What carried the gain")][1:] == [row["part"] for row in result["attribution"]]


def test_every_surface_gives_one_figure_for_the_size_of_a_prompt(runs: Runs) -> None:
    def sizes(html: str) -> set[str]:
        shown = Page(re.sub("<svg.*?</svg>", "", html, flags=re.DOTALL)).words
        return {found.replace("About", "about") for found in SIZE.findall(shown)}

    result = good_json("show", runs["search"])["result"]
    measured = result["winner"]["tokens_a_call"]
    said = {f"{measured:,} tokens a call"}
    assert measured not in (0, result["winner"]["prompt_tokens"])
    good("report", runs["search"], "-o", "page.html")
    assert set(SIZE.findall(good("show", runs["search"]))) == sizes(Path("page.html").read_text("utf-8")) == said
    with browsing() as client:
        for address in (f"/run/{runs['search']}", f"/run/{runs['search']}/report"):
            assert sizes(client.get(address).text) == said
    front = page_of(runs["search"]).tables[FRONT]
    place = front[0].index("tokens a call")
    assert [line[place] for line in front[1:]] == [f"{row['tokens_a_call']:,}" for row in result["pareto"]]


def test_rows_of_changed_files_and_erased_texts_are_named_alone(runs: Runs) -> None:
    good("report", runs["search"])
    Path("rows.csv").write_text(Path("rows.csv").read_text("utf-8").replace("billing\n", "delivery\n", 1), "utf-8")
    page = page_of(runs["search"])
    assert "rows are named by their id alone" in page.text
    better = next(rows for name, rows in page.tables.items() if name.endswith("sealed rows got better"))
    assert better[0] == ["row", "your prompt", "best found"]
    erased = optimize("audit", "erase", "--containing", INSTRUCTION, "--actor", "jo", "--reason", "asked to", "--yes")
    assert f"runs/{runs['search']}/report.html: holds the text" in erased.output
    page = page_of(runs["search"])
    assert INSTRUCTION not in page.text
    for said in ("The result of this run was erased.", "(erased)"):
        assert said in page.text


def test_a_kept_prompt_has_no_interval_of_a_difference_and_no_second_row(runs: Runs) -> None:
    page = page_of(runs["kept"])
    assert list(cells(page, "Scores, 0 to 100")) == ["prompt", "your prompt"]
    for text in (page.text, good("show", runs["kept"])):
        assert "Keep your prompt" in text
        assert not re.search(r"best found +\d|test rows: |\bp = |\b0 won|difference|Rows that |got better", text), text


def test_an_unfinished_run_says_so_and_shows_what_there_is() -> None:
    db = Path("ledger.db")
    with closing(Ledger(db)) as ledger:
        ledger.begin_run(NewRun("run-a", make_task(4), "m"))
        asyncio.run(ledger.commit())
        assert "No trial yet." in page_of(db=db).text
        for number, mean in enumerate((0.25, 0.75)):
            candidate = PromptCandidate("zero-shot", "turns", f"wording {number}")
            ledger.add_candidate("run-a", NewCandidate(0, candidate.shown(), (Message("system", "x"),), "instruction"))
            ledger.put_trial("run-a", Trial(number, 0, candidate.id, "complete", 4, mean, (0.1, 0.9), "saw all"))
        asyncio.run(ledger.commit())
        page = page_of(db=db)
        assert "This run is running: there is no result." in page.text
        assert [row[0] for row in page.tables["2 trials"][1:]] == ["0", "1"]
        ledger.end_run("run-a", "interrupted", 1.0)
    words = page_of(db=db).words
    assert "This run is interrupted: there is no result." in words
    assert "Continue it with `optimize resume run-a`" in words


def test_a_long_search_keeps_the_file_small_and_says_what_is_left_out(tmp_path: Path) -> None:
    """The whole size, 1,000 trials on 200 rows each, is measured by tests/bench/report_size.py."""
    build_finished(tmp_path / "ledger.db", trials=200, rows=1, sealed=200)
    html = report_of(tmp_path / "ledger.db", sealed=200)
    page = assert_harmless(html)
    assert len(html.encode()) < LIMIT / 6
    shown = [row[0] for row in page.tables["200 trials"][1:]]
    assert (shown[0], shown[-20:]) == ("0", [str(number) for number in range(180, 200)])
    assert f"{200 - len(shown)} are left out, `optimize history big` lists all" in page.text
    assert "The 50 largest changes; 150 rows are left out." in page.text
    assert "more characters)" in page.text


def test_the_file_is_written_whole_or_not_at_all(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs["interrupted"]
    path = Path("runs", run, "report.html")
    assert good_json("report", run) == {"run_id": run, "file": str(path), "bytes": path.stat().st_size}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    assert good("report", runs["kept"], "-o", "new/a.html") == ""
    good("report", run, "-o", "new")
    assert Path("new/report.html").read_bytes() == before
    assert "new/a.html/b.html: cannot be written" in refused(2, "report", run, "-o", "new/a.html/b.html")[0]
    (line,) = refused(2, "report", runs["calibrated"])
    assert f"`optimize show {runs['calibrated']}`" in line

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("agent.safe_file.os.replace", fail)
        assert "No space left on device" in refused(2, "report", runs["kept"], "-o", str(path))[0]
    assert path.read_bytes() == before
    assert not [entry.name for entry in path.parent.iterdir() if entry.name.startswith(".report")]
    Path("link.html").symlink_to("new/a.html")
    os.mkfifo("pipe")
    good("report", run, "-o", "link.html")
    assert (Path("link.html").is_symlink(), Path("new/a.html").read_bytes()) == (True, before)
    with Path("read").open("wb") as read, subprocess.Popen(["cat", "pipe"], stdout=read) as reader:
        try:
            good("report", run, "-o", "pipe")
            assert reader.wait(20) == 0
        finally:
            reader.kill()
    assert (Path("pipe").is_fifo(), Path("read").read_bytes()) == (True, before)
