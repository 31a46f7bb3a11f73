"""The tables of docs/examples.md: each is read as the page says, and runs to a result with that metric."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from agent.task.copies import near_duplicates
from tests.cli.world import compatible, good_json, optimize
from tests.docs.pages import DOCS, blocks, commands
from tests.wire import WireServer

PAGE = DOCS / "examples.md"
METRICS = {"replies": "rougeL", "ratings": "ordinal", "tags": "set_f1", "spans": "token_f1", "measures": "quantity"}
EACH = pytest.mark.parametrize("name", METRICS)


def words(name: str) -> list[list[str]]:
    """The commands of the page about one table: the dry run and the run."""
    lines = [line for block in blocks(PAGE) for line in commands(block)]
    return [line for line in lines if line[1] == f"docs/examples/{name}.csv"]


def table(name: str) -> list[list[str]]:
    with (DOCS / "examples" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        _, *rows = csv.reader(file)
    return rows


@pytest.fixture(autouse=True)
def copied() -> None:
    shutil.copytree(DOCS / "examples", "docs/examples")


def test_every_table_has_a_prompt_its_commands_and_a_row_of_the_list() -> None:
    assert {path.stem for path in (DOCS / "examples").iterdir()} == set(METRICS)
    listed = dict(re.findall(r"\| \[(\w+)\.csv\]\(examples/\w+\.csv\) \| (\d+) ", PAGE.read_text("utf-8")))
    assert listed == {name: str(len(table(name))) for name in METRICS}
    for name in METRICS:
        dry, run = words(name)
        assert dry[:-1] == run[:-2]
        assert (dry[-1], run[-2]) == ("--dry-run", "--max-calls")


@EACH
def test_the_rows_are_many_and_no_two_are_alike(name: str) -> None:
    rows = table(name)
    assert 120 <= len(rows) <= 240
    assert all(len(row) == 2 and all(cell == cell.strip() and cell for cell in row) for row in rows)
    assert near_duplicates([text for text, _ in rows], 0.6) == []
    if name == "spans":
        assert [row for row in rows if row[1] not in row[0]] == []


@EACH
def test_the_dry_run_says_the_metric_and_why_as_the_page_does(name: str) -> None:
    dry, _ = words(name)
    result = optimize(*dry)
    assert result.exit_code == 0, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("metric: ")]
    assert line.startswith(f"metric: {METRICS[name]}")
    assert f"\n{line}\n" in PAGE.read_text("utf-8")
    assert f"{len(table(name))} rows; dropped: none" in result.stderr
    assert "beyond the split sizes): 0" in result.stderr
    assert "warning" not in result.stderr


@EACH
def test_a_run_ends_with_a_score_of_that_metric(name: str) -> None:
    answers = dict(table(name))

    def shown(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        """Right once the prompt holds an answer of another row, and of no use before."""
        asked = messages[-1]["content"]
        row = max(answers, key=asked.rfind)
        before = "\n".join(message["content"] for message in messages)[: -len(row)]
        has_demos = any(text != row and text in before for text in answers)
        return answers[row] if has_demos else "I am not sure"

    with WireServer(shown) as server:
        result = good_json(*words(name)[1], "-m", compatible(server), "--proposer", "none", "-n", "4", "-q")
    assert [each["metric"] for each in result["metrics"]] == ["readable", METRICS[name]]
    assert result["decision"] == "promote"
    assert (result["winner"]["test"], result["baseline"]["test"] < 0.2) == (1.0, True)
    assert Path(result["release"]).is_file()
