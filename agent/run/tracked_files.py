"""What of a finished run a tracker keeps beside its figures: report, prompt, tables. Rows only where they may go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from agent.files import new_file
from agent.ledger.query import run_folder
from agent.release.prompt_file import holds_prompt
from agent.release.result import search_result
from agent.run.locations import open_history

FOLDER = "tracked"
ARM_COLUMNS = ("arm", "family", "test", "diff", "labels", "train_s", "tokens_per_call", "usd_per_1000", "latency_s")

Table = tuple[str, Sequence[str], Sequence[Sequence[Any]]]


def tracked_files(run_id: str, result: Mapping[str, Any], db: Path, texts: bool) -> tuple[list[Table], list[Path]]:
    """The tables and the files of a run that has ended.

    Args:
        run_id: the run.
        result: the object of its --json.
        db: the ledger, which no one writes to now.
        texts: whether rows may be in them; without it a prompt with examples is its instruction alone.

    Raises:
        InputError: a run of a kind that has no report, or a file cannot be written.
    """
    from agent.report.html import report_html
    from agent.report.view import RunView, RunWithoutRows, holds_rows

    if arms := result.get("arms"):
        tables: list[Table] = [("arms", ARM_COLUMNS, [[arm[name] for name in ARM_COLUMNS] for arm in arms])]
    else:
        tables = []
    folder, files = run_folder(db.parent, run_id) / FOLDER, []
    with closing(open_history(db)) as history:
        view = RunView(history, run_id)
        found = search_result(view.run["result"], db)
        if found is not None and not texts and not holds_prompt(found.release.path):
            return tables, []  # what a program of the user's own shows of rows is not known
        if found is None:
            html, prompt = report_html(view), None
        else:
            html = report_html(view if texts else RunWithoutRows(history, view.id))
            prompt = view.winner if found.decision == "promote" else view.baseline
            if prompt is not None and (texts or not holds_rows(prompt)):
                files.append(found.release.path)
            elif prompt is not None:
                files.append(_written(folder / "instruction.txt", prompt["instruction"]))
    files.append(_written(folder / "report.html", html))
    return tables, [path for path in files if path.is_file()]


def _written(path: Path, text: str) -> Path:
    with new_file(path, private=True) as file:
        file.write(text.encode("utf-8"))
    return path
