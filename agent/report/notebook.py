"""A run in a notebook: tables as pandas frames, its chart, and a short representation. Read-only.

The only importer of pandas, of the extra `notebook`.
"""

from __future__ import annotations

from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import InputError
from agent.extras import require
from agent.ledger.connect import is_there
from agent.ledger.query import history_of
from agent.report import charts, html
from agent.report.blocks import PageSection, shown_on
from agent.report.prompt_texts import prompt_text
from agent.report.run_blocks import run_sections
from agent.report.view import RowPair, RunView
from agent.report.wording import certainty, decision, verdict
from agent.results.recorded import RecordedTrial
from agent.safe_text import plain
from agent.types import SplitName

if TYPE_CHECKING:
    from pandas import DataFrame

DTYPES: dict[Any, str] = {int: "int64", str: "string", str | None: "string", float: "float64", float | None: "float64"}
TRIALS = {
    name: DTYPES[field.annotation] for name, field in RecordedTrial.model_fields.items() if field.annotation in DTYPES
} | {"used": "int64"}
"""Columns of `LoadedRun.trials_df` and their types."""
SIDES = ("baseline", "winner")


def load_run(run_id: str = "", db: str | Path = "runs/ledger.db") -> LoadedRun:
    """Load a run of a ledger into a notebook.

    Args:
        run_id: its id or a unique prefix; "" is the latest.
        db: the ledger file.

    Raises:
        InputError: there is no ledger, or no such run.
    """
    return LoadedRun(Path(db), run_id)


class LoadedRun:
    """A snapshot of one run; load it again to see its progress."""

    def __init__(self, db: Path, run_id: str = "") -> None:
        if not is_there(db):
            raise InputError(f"{db}: no ledger here; name it with db=")
        self._db = db
        with closing(history_of(db)) as history:
            self._view = RunView(history, run_id)
            self._gathered = (self._view.trials, self._view.baseline, self._view.winner)  # while it is open

    @property
    def id(self) -> str:
        return self._view.id

    @property
    def task(self) -> str:
        return str(self._view.run["task"])

    @property
    def result(self) -> dict[str, Any] | None:
        """What `optimize run --json` printed; None for unfinished runs and other kinds of runs."""
        return None if self._view.result is None else self._view.result.to_json()

    @property
    def verdict(self) -> str:
        """Whether the prompt improved, in one sentence."""
        if self._view.result is not None:
            return verdict(self._view.result)
        return decision(self._view.run["result"] or {}) or f"No result: the run is {self._view.run['status']}"

    @property
    def prompt(self) -> str | None:
        """The best prompt found as text, with the number of its examples. None without a result."""
        return None if self._view.winner is None else prompt_text(self._view.winner)

    def trials_df(self) -> DataFrame:
        """Return one row per trial, with the columns of `TRIALS`.

        `mean` is the dev score (0 to 1, missing if nothing was scored) with its interval `low` to `high` over `n` rows;
        `used` are the calls of the run up to then.
        """
        frame = _pandas().DataFrame(self._view.trials, columns=list(TRIALS))
        return frame.astype(TRIALS)

    def outcomes_df(self, split: SplitName = "test") -> DataFrame:
        """Return one row per example of the split, with the answers of baseline and winner.

        Columns: `example_id`, its fields as `input.NAME` and `label.NAME` (omitted if the task's files have changed),
        and for
        both prompts `..._reply` (string) and `..._score` (float64, 0 to 1).

        Raises InputError for a run without a result.
        """
        pandas = _pandas()
        if self._view.winner is None or self._view.baseline is None:
            raise InputError(f"{self.id}: {self.verdict}; only trials_df() has something to show")
        with closing(history_of(self._db)) as history:
            view = RunView(history, self.id)
            pairs = view.pairs(split, self._view.baseline["id"], self._view.winner["id"])
        types = {f"{name}_{what}": of for name in SIDES for what, of in (("reply", "string"), ("score", "float64"))}
        rows = [_row(pair) for pair in pairs]
        heads = dict.fromkeys([*(head for row in rows for head in row if head not in types), *types])
        return pandas.DataFrame(rows, columns=list(heads)).astype({"example_id": "string", **types} if rows else types)

    def plot(self) -> Any:
        """Return a matplotlib Figure. Dev score against paid calls, with the best so far, on white."""
        figure: Any = charts.progress(self._view)
        figure.set_facecolor("white")
        figure._repr_svg_ = lambda: _picture(figure)  # so that it shows itself without pyplot
        return figure

    def _repr_html_(self) -> str:
        result, title = self._view.result, f"run {self.id}: dev score against paid calls"
        (scores,) = run_sections(result, names=["result"]) if result else [PageSection("result", "", ())]
        return html.render(
            "run_cell.html",
            run=self._view.run,
            blocks=shown_on("page", scores.blocks),
            trials=self._view.trials,
            verdict=self.verdict,
            certainty=certainty(result) if result else "",
            chart=charts.svg(charts.progress(self._view), f"run-{self.id}", title) if self._view.trials else "",
        )

    def __repr__(self) -> str:
        return plain(f"<Run {self.id} of {self.task}: {self.verdict}>")


def _picture(figure: Any) -> str:
    target = StringIO()
    figure.savefig(target, format="svg")
    return target.getvalue()


def _row(pair: RowPair) -> dict[str, Any]:
    row: dict[str, Any] = {"example_id": pair.example_id}
    row |= {f"input.{name}": value for name, value in pair.inputs.items()}
    row |= {f"label.{name}": value for name, value in pair.labels.items()}
    for name, side in zip(SIDES, (pair.one, pair.two), strict=True):
        row |= {f"{name}_reply": side["reply"], f"{name}_score": side["value"]} if side is not None else {}
    return row


def _pandas() -> Any:
    require("notebook", "a table")
    import pandas

    return pandas
