"""The result of a search: typed, frozen, shown as a line or a notebook cell."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, RootModel

from agent.release.prompt_file import HELD, holds_prompt
from agent.release.runtime import Prompt, load_prompt
from agent.results.base import CostedResult, SideName, absent
from agent.results.breakdown import (
    Answers,
    Calibration,
    Consistency,
    JudgeTrust,
    LabelReport,
    MetricPart,
    Retrieval,
    Slice,
    Variety,
)
from agent.results.run_parts import (
    Baseline,
    BlockCode,
    Carried,
    Change,
    Cheaper,
    Lift,
    Migrated,
    OtherBaseline,
    ParetoRow,
    Preflight,
    ProposerUse,
    ToShow,
    Untested,
    Winner,
    Yardstick,
)
from agent.stats.power import shown


class Release(RootModel[Path]):
    """The production file of the run: the winner, or the user's own prompt without a significant gain."""

    model_config = ConfigDict(frozen=True)

    @property
    def path(self) -> Path:
        return self.root

    def __fspath__(self) -> str:
        return str(self.root)

    def load(self) -> Prompt:
        """Load the prompt with `load_prompt`. Raises ReleaseError if the file is no prompt or is damaged."""
        return load_prompt(self.path)


class RunResult(CostedResult):
    """The result of a run.

    `decision` is `promote` if the gain is significant and every gate passed; `blocked` gives the reasons against it as
    sentences, `blocked_codes` as codes.

    Args:
        status: `budget` when the search reached a cap.
        trials: numbers of complete, pruned, failed and incomplete (a cap came first) trials.
        search_ended: why the search ended before its plan did; "" when it did not.
        failed_because: the most frequent error of failed trials; "" without failures.
        uncorrected: why the winner's dev score was not corrected; "" when it was.
        references: further baselines on the sealed test, such as no file; None without one.
        yardsticks: scores without a language model, the constant answer first.
        metrics: the score by metric, `readable` first; `slices`, by slice of the rows.
        consistency: of repeated answers; None without `repeats`.
        variety: of each text field.
        retrieval: quality of the passages; None for a task without documents.
        judges: those behind the score.
        preflight: None when the budget ended before it.
        attribution: the parts that carried the gain; empty when the user's own prompt won.
        pareto: the non-dominated candidates; the best dev score first.
        parameters: those that the released prompt was scored with.
        answers: counts of right, wrong and unreadable rows of the sealed test.
        labels: precision, recall and confusions by label, for each choice field.
        tools: the same by tool; a "row" is a call.
        fields: the score by field of a JSON answer, for the metric `json_fields`.
        change: difference to the user's own prompt; None when that one won.
        proposer: calls and accepted replies of the model that writes instructions.
        to_show: sample size needed to confirm the gain; None if it was confirmed, or without a gain.
        human_score: human accuracy on such rows, in (0, 1], if the task declares it.
        calibration: the winner's calibration and the reliability of its confidences; None without log-probabilities.
        cheaper: the winner against the best on dev, when a cheaper one was chosen.
        untested: the prompt that led the user's own on dev and was not tested.
        migration: the source of a migrated prompt and the non-inferiority test; `baseline` and `lift` are then of the
            old model with its old prompt. None for a search.
        ledger: the ledger file of the run; not in JSON.
    """

    run_id: str
    task: str
    status: Literal["complete", "budget"]
    model: str
    seed: int
    baseline: Baseline
    winner: Winner
    lift: Lift
    decision: Literal["promote", "keep_baseline"]
    trials: Mapping[str, int]
    release: Release
    search_ended: str = ""
    failed_because: str = ""
    references: tuple[OtherBaseline, ...] | None = absent()
    yardsticks: tuple[Yardstick, ...] = ()
    uncorrected: str = ""
    metrics: tuple[MetricPart, ...] = ()
    slices: tuple[Slice, ...] = ()
    consistency: Consistency | None = None
    variety: tuple[Variety, ...] = ()
    retrieval: Retrieval | None = None
    judges: tuple[JudgeTrust, ...] = ()
    blocked: tuple[str, ...] = ()
    blocked_codes: tuple[BlockCode, ...] = ()
    preflight: Preflight | None = None
    attribution: tuple[Carried, ...] = ()
    pareto: tuple[ParetoRow, ...] = ()
    parameters: Mapping[str, Any] = {}
    answers: Answers | None = None
    labels: tuple[LabelReport, ...] = ()
    tools: tuple[LabelReport, ...] = ()
    fields: tuple[MetricPart, ...] = ()
    change: Change | None = None
    proposer: ProposerUse | None = None
    to_show: ToShow | None = None
    human_score: float | None = None
    calibration: Calibration | None = None
    cheaper: Cheaper | None = None
    untested: Untested | None = None
    migration: Migrated | None = None
    ledger: Path = Field(default=Path(), exclude=True)

    @property
    def is_own(self) -> bool:
        """Whether the winner is the user's own prompt, so nothing was compared."""
        return self.decision == "keep_baseline" and not self.blocked

    @property
    def reference_won(self) -> str:
        """The name of the further baseline that won; "" if none did."""
        won = (each.name for each in self.references or () if each.candidate_id == self.winner.candidate_id)
        return next(won, "")

    @property
    def ships_prompt(self) -> bool:
        """Whether the run released a prompt, not the state of a custom program."""
        return holds_prompt(self.release.path)

    @property
    def stopped_before_search(self) -> bool:
        """Whether the preflight ended the run because no gain could be shown."""
        return self.preflight is not None and not self.preflight.worth and sum(self.trials.values()) == 1

    @property
    def held_back(self) -> tuple[str, ...]:
        """The reasons against releasing a winner with a significant gain; empty otherwise."""
        moved, lift = self.migration, self.lift
        is_shown = moved.test.shown if moved is not None else shown(lift.ci95, lift.p_value) > 0
        return self.blocked if is_shown else ()

    @property
    def held_folder(self) -> Path | None:
        """The folder of the winner when the baseline was released. None if it is gone."""
        folder = self.release.path.parent / HELD
        return folder if self.decision != "promote" and not self.is_own and folder.is_dir() else None

    @property
    def by_answer(self) -> tuple[LabelReport, ...]:
        return (*self.labels, *self.tools)

    def dev(self, side: SideName) -> tuple[float | None, float | None]:
        """Return a prompt's mean on dev, and that mean corrected for selection; None if missing."""
        return (self.baseline.dev, None) if side == "baseline" else (self.winner.dev, self.winner.dev_corrected)

    def sealed(self, side: SideName) -> float | None:
        """Return a prompt's mean over the test rows with scores of both."""
        both, whole = (self.lift.baseline, self.baseline) if side == "baseline" else (self.lift.winner, self.winner)
        return whole.test if both is None else both

    def __repr__(self) -> str:
        wording = import_module("agent.report.wording")  # the report is a layer above
        sure = wording.certainty(self)
        said = f"{wording.verdict(self)}{f' ({sure})' if sure else ''}"
        return f"<RunResult {self.run_id} of {self.task}: {said}; {self.decision}, {self.release.path}>"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        shown: str = import_module("agent.report.notebook").load_run(self.run_id, self.ledger)._repr_html_()
        return shown


def search_result(stored: Mapping[str, Any] | None, ledger: Path = Path()) -> RunResult | None:
    """Read a search result, with its release next to the ledger; None for other commands."""
    if stored is None or stored.get("kind"):
        return None
    result = RunResult.from_json({**stored, "ledger": ledger})
    path = ledger.parent / result.run_id / result.release.path.name
    return result.model_copy(update={"release": Release(path)})
