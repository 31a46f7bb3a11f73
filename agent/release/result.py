"""The result of a search: typed, frozen, and shown in a line or, in a notebook, as a cell."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field, RootModel

from agent.results.base import CostedResult, SideName
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
    ParetoRow,
    Preflight,
    ProposerUse,
    ToShow,
    Untested,
    Winner,
    Yardstick,
)

if TYPE_CHECKING:
    from agent.release.runtime import Prompt


class Release(RootModel[Path]):
    """What the run wrote for production: the winner, or the user's own prompt where no gain was shown."""

    model_config = ConfigDict(frozen=True)

    @property
    def path(self) -> Path:
        """The file."""
        return self.root

    def __fspath__(self) -> str:
        return str(self.root)

    def load(self) -> Prompt:
        """The prompt, as `load_prompt` has it. Raises ReleaseError where the file is no prompt or is damaged."""
        from agent.release.runtime import load_prompt

        return load_prompt(self.path)


class RunResult(CostedResult):
    """What a run found. `decision` is `promote` where the gain was shown and no gate is against it; `blocked` says
    what is, a sentence each, and `blocked_codes` the same in words for programs.

    Args:
        status: `budget` when the search ran into a cap.
        trials: how many ended as complete, pruned, failed and incomplete (a cap came first).
        search_ended: why the search ended before its plan did; "" when it did not.
        failed_because: the most frequent reason of trials that failed; "" where none did.
        uncorrected: why the winner's dev score was not corrected; "" when it was.
        yardsticks: what is reached without a language model, the constant answer first.
        metrics: the score by metric, `readable` first; `slices`, by slice of the rows.
        consistency: of answers to rows that were asked again; None without `repeats`.
        variety: of each field that is a text.
        retrieval: how passages were looked up; None for a task without documents.
        judges: those that the score rests on.
        preflight: None where the budget ended before it.
        attribution: what carried the gain; empty when the user's own prompt won.
        pareto: the candidates that nothing beats; the best dev score first.
        parameters: what the released prompt was scored with.
        answers: how many rows of the sealed test are right, wrong and unreadable.
        labels: precision, recall and confusions by label, for each field that is a choice.
        tools: the same by tool, of the calls of a task with tools: a "row" of it is a call.
        change: what differs from the user's own prompt; None when that one won.
        proposer: how the model that writes instructions was used.
        to_show: sample size that would show the gain; None where it was shown, or nothing was gained.
        human_score: what people reach on such rows, in (0, 1], where the task says so.
        calibration: the winner's calibration and how far its confidences can be trusted; None without
            log-probabilities.
        cheaper: the winner against the best on dev, where `--prefer cheap` took another one.
        untested: the prompt that led the user's own on dev and was not tested.
        migration: where a migrated prompt comes from, and the test that it is not worse; `baseline` and `lift` are then
            of the old model with the prompt that it had. None of a search.
        ledger: the ledger file that the run is in; not in JSON.
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
        """Whether the best found is the user's own prompt: nothing was compared."""
        return self.decision == "keep_baseline" and not self.blocked

    @property
    def by_answer(self) -> tuple[LabelReport, ...]:
        """The answers by label and by tool."""
        return (*self.labels, *self.tools)

    def dev(self, side: SideName) -> tuple[float | None, float | None]:
        """A prompt's mean on dev, and corrected for having been chosen on it; None without one."""
        return (self.baseline.dev, None) if side == "baseline" else (self.winner.dev, self.winner.dev_corrected)

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
    """A run's result as the ledger has it; None for a run without one, or of another command."""
    return None if stored is None or stored.get("kind") else RunResult.from_json({**stored, "ledger": ledger})
