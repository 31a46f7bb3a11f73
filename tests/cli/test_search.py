"""`optimize history --search` on a real run: what people and programs are told, and what a terminal is spared."""

import asyncio
from pathlib import Path

import pytest

from tests.cli.world import LINE, good, optimize, refused
from tests.ledger import ledgers
from tests.ledger.test_fulltext import say


@pytest.fixture
def db() -> Path:
    """Two small runs, and replies that nobody should see as they are."""
    Path("runs").mkdir()
    path = ledgers.make(Path("runs/ledger.db"))
    asyncio.run(say(path, "\x1b[31m parcel\x1b[0m\nin two lines\tand a tab", "a parcel " * 400, run_id="run-2"))
    return path


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
    assert 'plain words use "don\'t"' in line
    (line,) = refused(2, "history", "--search", "x", "--trial", "0")
    assert "leave out --trial" in line
    (line,) = refused(2, "history", "--search", "x", "nothere")
    assert "no run nothere" in line
