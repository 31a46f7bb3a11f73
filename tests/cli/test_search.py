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


def test_a_search_that_finds_nothing_or_cannot_be_made_is_told_in_one_line(db: Path) -> None:
    (none,) = good("history", "--search", "elephant").splitlines()
    assert none.startswith("0 of ")
    for words, says in (
        (("don't",), 'plain words use "don\'t"'),
        (("x", "--trial", "0"), "leave out --trial"),
        (("x", "nothere"), "no run nothere"),
    ):
        (line,) = refused(2, "history", "--search", *words)
        assert says in line
