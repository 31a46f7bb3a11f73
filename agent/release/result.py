"""The result of a run, and that of a check: typed, frozen, and shown in a line or, in a notebook, as a cell."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from agent.release.json_part import IF_SET, NOT_IN_JSON, JsonPart, if_set, read, require, write
from agent.release.result_breakdown import (
    Calibration,
    Carried,
    Consistency,
    JudgeTrust,
    MetricPart,
    ParetoRow,
    Preflight,
    Retrieval,
    Slice,
    Variety,
)
from agent.release.result_details import (
    Answers,
    Change,
    Cheaper,
    LabelReport,
    Migrated,
    ProposerUse,
    ToShow,
    Untested,
)
from agent.release.result_parts import Baseline, BlockCode, Cost, Lift, Release, SideName, Winner, Yardstick


@dataclass(frozen=True, slots=True, repr=False, kw_only=True)
class RunResult(JsonPart):
    """What came of a run. `decision` is `promote` where the gain was shown and no gate is against it; `blocked` says
    what is, a sentence each, and `blocked_codes` the same in words for programs. `to_json` has all of it, as `optimize
    run --json` prints it.

    Args:
        status: `budget` when the search ran into a cap.
        is_own: whether the best found is the user's own prompt: nothing was compared. Not known of results of a version
            that did not write `blocked`: False.
        trials: how many ended as complete, pruned, failed and incomplete (a cap came first).
        ledger: the ledger file that the run is in.
        ledger_head: the hash of the ledger's last event, when the result was made.
        search_ended: why the search ended before its plan did; "" when it did not.
        failed_because: the most frequent reason of trials that failed; "", and not in JSON, where none did.
        uncorrected: why the winner's dev score was not corrected; "" when it was.
        yardsticks: what is reached without a language model, the constant answer first.
        metrics: the score by metric, `readable` first; `slices`, by slice of the rows.
        consistency: of answers to rows that were asked again; None without `repeats`.
        variety: of each field that is a text.
        retrieval: how passages were looked up; None, and not in JSON, for a task without documents.
        judges: those that the score rests on.
        preflight: None where the budget ended before it.
        attribution: what carried the gain; empty when the user's own prompt won.
        pareto: the candidates that nothing beats; the best dev score first.
        parameters: what the released prompt was scored with.
        answers: how many rows of the sealed test are right, wrong and unreadable; None of an older version, as below.
        labels: precision, recall and confusions by label, for each field that is a choice.
        tools: the same by tool, of the calls of a task with tools: a "row" of it is a call; not in JSON without.
        change: what differs from the user's own prompt; None when that one won.
        proposer: what came of the model that writes instructions.
        human_score: what people reach on such rows, in (0, 1], where the task says so.
        to_show: what would show the gain; None where it was shown, or nothing was gained.
        calibration: the winner's label weights and how far its confidences can be trusted; None without
            log-probabilities, and then not in JSON.
        cheaper: the winner beside the best on dev, where `--prefer cheap` took another one; else None, and not in JSON.
        untested: the prompt that led the user's own on dev and was not tested; None, and not in JSON, without one.
        migration: where a migrated prompt comes from, and the test that it is not worse; `baseline` and `lift` are then
            of the old model with the prompt that it had. None, and not in JSON, of a search.
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
    cost: Cost
    release: Release
    ledger_head: str
    search_ended: str = ""
    failed_because: str = if_set()
    yardsticks: tuple[Yardstick, ...] = ()
    uncorrected: str = ""
    metrics: tuple[MetricPart, ...] = ()
    slices: tuple[Slice, ...] = ()
    consistency: Consistency | None = None
    variety: tuple[Variety, ...] = ()
    retrieval: Retrieval | None = field(default=None, metadata=IF_SET)
    judges: tuple[JudgeTrust, ...] = ()
    blocked: tuple[str, ...] = ()
    blocked_codes: tuple[BlockCode, ...] = ()
    preflight: Preflight | None = None
    attribution: tuple[Carried, ...] = ()
    pareto: tuple[ParetoRow, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    answers: Answers | None = None
    labels: tuple[LabelReport, ...] = ()
    tools: tuple[LabelReport, ...] = field(default=(), metadata=IF_SET)
    change: Change | None = None
    proposer: ProposerUse | None = None
    to_show: ToShow | None = None
    human_score: float | None = None
    calibration: Calibration | None = field(default=None, metadata=IF_SET)
    cheaper: Cheaper | None = field(default=None, metadata=IF_SET)
    untested: Untested | None = field(default=None, metadata=IF_SET)
    migration: Migrated | None = field(default=None, metadata=IF_SET)
    is_own: bool = field(metadata=NOT_IN_JSON)
    ledger: Path = field(metadata=NOT_IN_JSON)
    _stored: Mapping[str, Any] | None = field(init=False, default=None, compare=False)

    @classmethod
    def from_json(cls, found: Mapping[str, Any], ledger: Path = Path()) -> RunResult:
        """From the object that --json prints and the ledger keeps, of this version or an older one.

        Args:
            found: the object; `to_json` gives it back as it is.
            ledger: the ledger file that it is from.

        Raises:
            InputError: it lacks what every version writes.
        """
        require(found, ("decision", "release"))
        is_own = found["decision"] != "promote" and found.get("blocked") == []
        beside = {"cost": found, "release": Release(Path(found["release"])), "is_own": is_own, "ledger": ledger}
        result = cls(**read(cls, {**found, **beside}))
        object.__setattr__(result, "_stored", found)
        return result

    def to_json(self) -> dict[str, Any]:
        """The object of `optimize run --json`: JSON-ready, a copy. Of a result that was read, what was read."""
        if self._stored is not None:
            return copy.deepcopy(dict(self._stored))
        found: dict[str, Any] = {}
        for name, value in write(self).items():
            found |= value if name == "cost" else {name: value}
        return found

    @property
    def by_answer(self) -> tuple[LabelReport, ...]:
        """The answers by label and by tool."""
        return (*self.labels, *self.tools)

    def dev(self, side: SideName) -> tuple[float | None, float | None]:
        """A prompt's mean on dev, and corrected for having been chosen on it; None where there is none."""
        return (self.baseline.dev, None) if side == "baseline" else (self.winner.dev, self.winner.dev_corrected)

    def __repr__(self) -> str:
        facts = import_module("agent.report.facts")  # how a run is shown stands above what it is
        sure = facts.certainty(self)
        said = f"{facts.verdict(self)}{f' ({sure})' if sure else ''}"
        return f"<RunResult {self.run_id} of {self.task}: {said}; {self.decision}, {self.release.path}>"

    def _repr_html_(self) -> str:
        shown: str = import_module("agent.report.notebook").load_run(self.run_id, self.ledger)._repr_html_()
        return shown


def search_result(stored: Mapping[str, Any] | None, ledger: Path = Path()) -> RunResult | None:
    """A run's result as the ledger has it; None where there is none, and for a run that was no search."""
    return None if stored is None or stored.get("kind") else RunResult.from_json(stored, ledger)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What came of a check of a released prompt. `passed` is what the gate says, and `why` what is against it; `was`
    and `now` are mean scores in [0, 1] over the rows that both got a score on, None where there is none; `flips` are
    the rows whose answers changed. `to_json` has all of it."""

    name: str
    version: str
    model: str
    passed: bool
    why: tuple[str, ...]
    was: float | None
    now: float | None
    flips: tuple[str, ...]
    _stored: Mapping[str, Any] = field(compare=False, repr=False)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> CheckResult:
        """From the object of `optimize check --json`."""
        score = found["score"]
        return cls(
            found["name"],
            found["version"],
            found["model"],
            found["gate"] == "passed",
            tuple(found["why"]),
            score["was"]["mean"],
            score["now"]["mean"],
            tuple(flip["row"] for flip in found["flips"]),
            found,
        )

    def to_json(self) -> dict[str, Any]:
        """The object of `optimize check --json`: JSON-ready, a copy."""
        return copy.deepcopy(dict(self._stored))
