"""`optimize history --search` on a real run: what people and programs are told, and what a terminal is spared."""

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.cli.world import LINE, compatible, files, good, good_json, learner, optimize, refused
from tests.ledger import ledgers
from tests.ledger.test_fulltext import say
from tests.wire import WireServer


@pytest.fixture
def db() -> Path:
    """Two small runs, and replies that nobody should see as they are."""
    Path("runs").mkdir()
    path = ledgers.make(Path("runs/ledger.db"))
    asyncio.run(say(path, "\x1b[31m parcel\x1b[0m\nin two lines\tand a tab", "a parcel " * 400, run_id="run-2"))
    return path


def test_a_run_is_looked_through_as_its_ledger_has_it() -> None:
    command = files(120)
    with WireServer(learner) as server:
        run = good_json(*command, "-m", compatible(server), "--max-calls", "300", "--price", "1,2")["run_id"]
    found = good_json("history", "--search", "billing", run[:12], "--limit", "10000")
    assert found["run_id"] == run
    assert len(found["hits"]) == found["matches"]
    trials = {trial["number"]: trial for trial in good_json("history")["trials"]}
    replies = [hit for hit in found["hits"] if hit["what"] == "reply"]
    assert len(replies) > 20
    for hit in replies:
        assert "**billing**" in hit["snippet"]
        assert hit["candidate_id"] == trials[hit["trial"]]["candidate_id"]
    number = replies[0]["trial"]
    outcomes = good_json("history", "--trial", str(number))["outcomes"]
    told = {(split, row["example_id"], row["value"]) for split, rows in outcomes.items() for row in rows}
    said = {(split, row["example_id"]) for split, rows in outcomes.items() for row in rows if row["reply"] == "billing"}
    mine = [hit for hit in replies if hit["trial"] == number]
    assert {(hit["split"], hit["row"], hit["score"]) for hit in mine} <= told
    assert {(hit["split"], hit["row"]) for hit in mine} == said
    prompts = {hit["trial"] for hit in found["hits"] if hit["what"] == "prompt"}
    assert 0 in prompts
    (only,) = good_json("history", "--search", "read the message", "--limit", "1")["hits"]
    assert (only["what"], only["trial"]) == ("prompt", 0)
    assert "**Read** **the** **message**." in only["snippet"]


def test_what_is_printed_holds_nothing_that_steers_a_terminal(db: Path) -> None:
    said = good("history", "--search", "parcel")
    head, *rows, last = said.splitlines()
    assert head == "what\trun\ttrial\trow\tsplit\tscore\ttext"
    assert {tuple(row.split("\t")[:6]) for row in rows} == {
        ("reply", "run-2", "0", f"said-{number}", "test", "25.0") for number in range(2)
    }
    assert all(LINE.fullmatch(line.replace("\t", "")) for line in said.splitlines())
    assert any("\\x1b[31m **parcel**\\x1b[0m in two lines and a tab" in row for row in rows)
    assert max(map(len, rows)) < 400
    assert last.startswith("2 of ")
    as_json = optimize("history", "--search", "parcel", "--json").stdout
    assert "\x1b" not in as_json


def test_how_many_there_are_is_told_where_not_all_are_shown(db: Path) -> None:
    *_, last = good("history", "--search", "refunds", "--limit", "2").splitlines()
    assert last.startswith("6 of ")
    assert last.endswith("texts hold it; the best 2 of them above; --limit shows more")
    (none,) = good("history", "--search", "elephant").splitlines()
    assert none.startswith("0 of ")


def test_a_search_that_cannot_be_made_is_told_in_one_line(db: Path) -> None:
    (line,) = refused(2, "history", "--search", "don't")
    assert 'as plain words it is "don\'t"' in line
    (line,) = refused(2, "history", "--search", "x", "--trial", "0")
    assert "leave out --trial" in line
    (line,) = refused(2, "history", "--search", "x", "nothere")
    assert "no run nothere" in line


def test_a_ledger_that_cannot_be_written_is_looked_through_and_left_alone(db: Path) -> None:
    shutil.copytree("runs", "kept")
    good("history", "--search", "refunds")
    for file in Path("kept").glob("ledger.db*"):
        if not file.name.endswith(("-shm", "-wal")):
            assert (Path("runs") / file.name).read_bytes() == file.read_bytes()
    assert good_json("audit", "verify")["whole"]
