"""One run as one HTML file that opens anywhere: no script, no request to any host. Words come from `facts`, numbers
from `tables`, pictures from `charts`, markup from templates/; here they are put together and kept within limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import InputError
from agent.files import new_file
from agent.ledger.query import run_folder
from agent.report import facts, tables
from agent.report.page import render, style
from agent.report.view import RowPair, RunView

if TYPE_CHECKING:
    from agent.report.tables import Table

REPORT_FILE = "report.html"
FLIPS, DEMOS = 50, 40
"""Rows that are shown of those that got better and of those that got worse; demos."""
PROMPT_LETTERS = 12_000
"""Letters of a prompt that are compared and shown."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A chart as SVG, and the table with its numbers."""

    svg: Any
    table: Table


@dataclass(frozen=True, slots=True)
class Flips:
    """Rows whose score differs between the two prompts, the largest change first; `total` counts those left out."""

    title: str
    rows: Sequence[RowPair]
    total: int


def report_html(view: RunView) -> str:
    """The report of a search, finished or not. Raises InputError for a run of another kind."""
    kind = (view.run["result"] or {}).get("kind")
    if kind:
        what = str(kind).replace("_", " ")
        raise InputError(f"{view.id}: this run is no search ({what}); `optimize show {view.id}` shows what it found")
    result = view.result
    return render(
        "report.html",
        view=view,
        run=view.run,
        result=result,
        is_erased=result is None and view.run["result_hash"] is not None,
        own_letters=PROMPT_LETTERS,
        facts=facts,
        style=style(),
        progress=_picture("progress", view, "Dev score against calls", tables.best),
        trials=tables.trials(view),
        rejected=view.history.rejected(view.id),
        spend=tables.spend(view),
        provenance=tables.provenance(view),
        **({} if result is None else _of_result(view)),
    )


def write_report(view: RunView, output: Path | None) -> tuple[Path, int]:
    """Writes the report of a run to a file that only this user can read.

    Args:
        view: the run.
        output: the file, or a folder for it. None: report.html in the folder of the run.

    Returns:
        The file, and its size in bytes.

    Raises:
        InputError: the run is of another kind, or the disk refuses.
    """
    path = output or run_folder(view.history.path.parent, view.id) / REPORT_FILE
    if path.is_dir():
        path = path / REPORT_FILE
    data = report_html(view).encode("utf-8")
    try:
        with new_file(path, private=True) as file:
            file.write(data)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); name another file with -o") from error
    return path, len(data)


def _of_result(view: RunView) -> dict[str, Any]:
    result, winner, baseline = view.result, view.winner, view.baseline
    assert result is not None
    assert winner is not None
    assert baseline is not None
    own, found = (facts.cut(facts.prompt_text(candidate), PROMPT_LETTERS) for candidate in (baseline, winner))
    both = "Both prompts on the sealed test, and their difference"
    sealed = "Your prompt on the sealed test" if result.is_own else both
    return {
        "sealed": _picture("sealed", view, sealed, tables.scores),
        "attribution": _picture("attribution", view, "What each part carries", tables.attribution),
        "pareto": _picture("pareto", view, "Dev score against cost", tables.pareto),
        "yardsticks": tables.yardsticks(view),
        "metrics": tables.metrics(view),
        "slices": tables.slices(view),
        "judges": tables.judges(view),
        "is_own": winner["id"] == baseline["id"],
        "changes": facts.changes(own, found),
        "baseline_text": own,
        "winner_text": found,
        "demos": winner["demos"][:DEMOS],
        "demos_total": len(winner["demos"]),
        "flips": flips(view.pairs("test", baseline["id"], winner["id"])),
        "rows_known": "test" in view.examples,
    }


def flips(pairs: Sequence[RowPair]) -> list[Flips]:
    """Those that got better, and those that got worse."""
    changed = [(pair, change) for pair in pairs if (change := pair.change)]
    changed.sort(key=lambda found: -abs(found[1]))
    better, worse = ([p for p, change in changed if change * sign > 1e-12] for sign in (1, -1))
    return [Flips("got better", better[:FLIPS], len(better)), Flips("got worse", worse[:FLIPS], len(worse))]


def _picture(name: str, view: RunView, title: str, table: Callable[[RunView], Table]) -> Picture:
    from markupsafe import Markup

    from agent.report import charts

    draw = getattr(charts, name)
    return Picture(Markup(charts.svg(draw(view), name, title)), table(view))
