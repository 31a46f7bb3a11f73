"""SECURITY.md names no test and no row of the fault campaign that is not there, and its tables are whole."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.chaos.__main__ import SCENARIOS

ROOT = Path(__file__).resolve().parents[1]
HEAD = ["promise", "bound", "held by", "not promised"]
TEST = re.compile(r"`(tests/[\w/]+\.py)?(?:::(\w+))?`")
CHAOS = re.compile(r"chaos (`[\w-]+`(?:, `[\w-]+`)*)")


def rows() -> Iterator[list[str]]:
    """The cells of each line of a table."""
    for line in (ROOT / "SECURITY.md").read_text("utf-8").splitlines():
        if line.startswith("|"):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def promises() -> list[list[str]]:
    return [row for row in rows() if row != HEAD and set(row) != {"---"}]


@cache
def functions(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_each_promise_has_a_bound_and_something_that_holds_it() -> None:
    found = promises()
    assert len(found) > 40
    for row in found:
        assert len(row) == len(HEAD), row
        assert all(row[:3]), row
        assert TEST.search(row[2]) or CHAOS.search(row[2]) or "no test" in row[2], row


def test_every_test_that_is_named_is_there() -> None:
    for row in promises():
        file = ""
        for named, function in TEST.findall(" ".join(row)):
            file = named or file
            assert (ROOT / file).is_file(), file
            assert Path(file).name.startswith("test_"), file
            assert not function or function.startswith("test_"), function
            assert not function or function in functions(file), f"{file}::{function}"


def test_every_row_of_the_campaign_that_is_named_is_there() -> None:
    named = {
        name for row in promises() for names in CHAOS.findall(row[2]) for name in names.replace("`", "").split(", ")
    }
    assert len(named) > 5
    assert sorted(named - SCENARIOS.keys()) == []


def test_nothing_in_a_cell_of_holders_is_passed_over() -> None:
    """Whatever is in backticks there is a test or a row of the campaign, so that a slip of the pen is seen."""
    for row in promises():
        left = CHAOS.sub("", TEST.sub("", row[2]))
        assert "`" not in left, left
