"""The result of a run as an object: typed, frozen, and shown in a line or, in a notebook, as a cell."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from agent.report.facts import certainty, verdict

if TYPE_CHECKING:
    from agent.release.runtime import Prompt


@dataclass(frozen=True, slots=True)
class Winner:
    """The best found. Scores lie in [0, 1], None where nothing was scored; `dev_corrected` is `dev` without what
    choosing the best of many adds to it."""

    candidate_id: str
    technique: str
    format: str
    n_demos: int
    instruction: str
    prompt_tokens: int
    dev: float | None
    dev_corrected: float | None
    test: float | None


@dataclass(frozen=True, slots=True)
class Baseline:
    """The user's own prompt: its scores in [0, 1], None where nothing was scored."""

    dev: float | None
    test: float | None


@dataclass(frozen=True, slots=True)
class Lift:
    """What the winner gains on the sealed test, over the `n` rows that both got a score on: the mean difference in
    [-1, 1], its 95 % interval, and the p-value of the paired test. `lost` rows got no score with the winner alone."""

    diff: float
    ci95: tuple[float, float]
    p_value: float
    n: int
    wins: int
    losses: int
    ties: int
    lost: int


@dataclass(frozen=True, slots=True)
class Yardstick:
    """What a method without a language model reaches on the same rows. `diff`: how much better the winner is."""

    name: str
    dev: float | None
    test: float | None
    diff: float | None
    diff_ci95: tuple[float, float] | None
    p_value: float | None


@dataclass(frozen=True, slots=True)
class Cost:
    """What the run paid: calls by role, calls answered from the ledger, tokens, US dollars (of `unpriced` models
    nothing is known), seconds of wall time."""

    calls: Mapping[str, int]
    cached: int
    prompt_tokens: int
    completion_tokens: int
    usd: float
    unpriced: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Release:
    """What the run wrote for production: the winner, or the user's own prompt where no gain was shown."""

    path: Path

    def load(self) -> Prompt:
        """The prompt, as `load_prompt` has it. Raises ReleaseError where the file is no prompt or is damaged."""
        from agent.release.runtime import load_prompt

        return load_prompt(self.path)


@dataclass(frozen=True, slots=True, repr=False)
class RunResult:
    """What came of a run. `decision` is `promote` where the gain was shown and no gate is against it; `blocked` says
    what is. `to_json` has all of it, as `optimize run --json` prints it."""

    run_id: str
    task: str
    model: str
    seed: int
    status: Literal["complete", "budget"]
    decision: Literal["promote", "keep_baseline"]
    winner: Winner
    baseline: Baseline
    lift: Lift
    yardsticks: tuple[Yardstick, ...]
    blocked: tuple[str, ...]
    release: Release
    cost: Cost
    ledger: Path
    _told: Mapping[str, Any] = field(compare=False)

    @classmethod
    def of(cls, told: Mapping[str, Any], ledger: Path) -> RunResult:
        """From the object that --json prints and the ledger keeps."""
        winner, lift, tokens = told["winner"], told["lift"], told["tokens"]
        return cls(
            run_id=told["run_id"],
            task=told["task"],
            model=told["model"],
            seed=told["seed"],
            status=told["status"],
            decision=told["decision"],
            winner=Winner(**{name: winner[name] for name in Winner.__slots__}),
            baseline=Baseline(told["baseline"]["dev"], told["baseline"]["test"]),
            lift=Lift(
                lift["diff"],
                _pair(lift["ci95"]),
                lift["p_value"],
                *(lift[name] for name in ("n", "wins", "losses", "ties", "lost")),
            ),
            yardsticks=tuple(
                Yardstick(
                    each["name"],
                    each["dev"],
                    each["test"],
                    each["diff"],
                    _pair(each["diff_ci95"]) if each["diff_ci95"] else None,
                    each["p_value"],
                )
                for each in told.get("yardsticks") or ()
            ),
            blocked=tuple(told["blocked"]),
            release=Release(Path(told["release"])),
            cost=Cost(
                {role: count for role, count in told["calls"].items() if role != "cached"},
                told["calls"]["cached"],
                tokens["prompt"],
                tokens["completion"],
                told["cost_usd"],
                tuple(told["unpriced"]),
                told["seconds"],
            ),
            ledger=ledger,
            _told=told,
        )

    def to_json(self) -> dict[str, Any]:
        """The object of `optimize run --json`: JSON-ready, a copy."""
        return copy.deepcopy(dict(self._told))

    def __repr__(self) -> str:
        sure = certainty(self._told)
        said = f"{verdict(self._told)}{f' ({sure})' if sure else ''}"
        return f"<RunResult {self.run_id} of {self.task}: {said}; {self.decision}, {self.release.path}>"

    def _repr_html_(self) -> str:
        from agent.report.notebook import load_run

        return load_run(self.run_id, self.ledger)._repr_html_()


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
    _told: Mapping[str, Any] = field(compare=False, repr=False)

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> CheckResult:
        """From the object of `optimize check --json`."""
        score = told["score"]
        return cls(
            told["name"],
            told["version"],
            told["model"],
            told["gate"] == "passed",
            tuple(told["why"]),
            score["was"]["mean"],
            score["now"]["mean"],
            tuple(flip["row"] for flip in told["flips"]),
            told,
        )

    def to_json(self) -> dict[str, Any]:
        """The object of `optimize check --json`: JSON-ready, a copy."""
        return copy.deepcopy(dict(self._told))


def _pair(values: Any) -> tuple[float, float]:
    low, high = values
    return float(low), float(high)
