"""Tables that people have: what the dry run says of each, and that a run ends with a sensible verdict.

`python -m tests.cli.test_tables_of_people` writes the golden texts again; read each as somebody who never saw the tool.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.cli.world import compatible, good_json, optimize
from tests.task.tables import TABLES, Table
from tests.wire import WireServer

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "tables"
EACH = pytest.mark.parametrize("table", TABLES, ids=lambda table: Path(table.file).stem)
IN_EVERY_GATE = ("two_targets.jsonl", "tags.csv", "survey.csv")
"""Tables that are also run by `make test`; `make long` runs all."""
RUN = pytest.mark.parametrize(
    "table",
    [
        pytest.param(table, marks=() if table.file in IN_EVERY_GATE else pytest.mark.long, id=Path(table.file).stem)
        for table in TABLES
    ],
)
NOWHERE = "openai-compatible/x@http://127.0.0.1:9/v1"


def reading(table: Table) -> str:
    """What the dry run says of the file, without the line on the model."""
    result = optimize(*table.write(), "--dry-run", "-m", NOWHERE)
    assert result.exit_code == 0, result.output
    assert "nothing was called" in result.stdout
    return "".join(f"{line}\n" for line in result.stderr.splitlines() if NOWHERE not in line)


@EACH
def test_the_dry_run_says_how_the_file_is_read(here: Path, table: Table) -> None:
    assert reading(table) == (GOLDEN / f"{table.file}.txt").read_text("utf-8")


def answers(table: Table) -> dict[str, str]:
    """By the longest text of a row, the right reply."""
    found = {}
    for row in table.rows():
        right = {name: str(row[name]) for name in table.targets}
        lines = "\n".join(f"{name}: {value}" for name, value in right.items())
        text = max((str(value) for name, value in row.items() if name not in right), key=len)
        found[text] = lines if len(right) > 1 else right[table.targets[0]]
    return found


@RUN
def test_a_model_that_learns_from_examples_is_better(here: Path, table: Table) -> None:
    right = answers(table)

    def shown(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        """Right once the prompt holds another row, and of no use before."""
        asked = messages[-1]["content"]
        row = max(right, key=asked.rfind)
        before = "\n".join(message["content"] for message in messages)[: -len(row)]
        return right[row] if any(text != row and text in before for text in right) else "I am not sure"

    with WireServer(shown) as server:
        command = [*table.write(), "-m", compatible(server), "--proposer", "none", "--max-calls", "300", "-q"]
        result = good_json(*command)
    assert result["decision"] == "promote"
    assert result["winner"]["test"] == 1.0
    assert Path(result["release"]).is_file()


@pytest.mark.parametrize("name", ["imbalanced.csv", "tags.csv", "survey.csv", "two_targets.jsonl"])
def test_a_model_that_says_the_same_of_every_row_changes_nothing(here: Path, name: str) -> None:
    (table,) = (table for table in TABLES if table.file == name)
    replies = list(answers(table).values())
    usual = max(replies, key=replies.count)
    with WireServer(lambda messages, body: usual) as server:
        command = [*table.write(), "-m", compatible(server), "--proposer", "none", "--max-calls", "300", "-q"]
        result = good_json(*command)
    assert result["decision"] == "keep_baseline"


def main() -> None:
    """Write the golden texts."""
    GOLDEN.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for table in TABLES:
            (GOLDEN / f"{table.file}.txt").write_text(reading(table), "utf-8")


if __name__ == "__main__":
    main()
