"""The parts of a run's result: the two prompts, what lies between them, and what the run cost and wrote. Pure.

Scores and their means lie in [0, 1], differences of scores in [-1, 1]; an interval is (low, high) at 95 %. What an
older version of the tool did not write has its default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from agent.release.json_part import IF_SET, JsonPart, require

if TYPE_CHECKING:
    from agent.release.runtime import Prompt

Interval = tuple[float, float]
SideName = Literal["baseline", "winner"]
BlockCode = Literal[
    "gain_not_shown",
    "loss_not_ruled_out",
    "gain_from_lost_rows",
    "no_better_than_constant",
    "metric_worse",
    "slice_worse",
    "judge_untrusted",
]
"""What can stand between a winner and production (`gate.py`)."""


@dataclass(frozen=True, slots=True)
class Winner(JsonPart):
    """The best found. None where nothing was scored; `dev_corrected` is `dev` without what choosing the best of many
    adds to it. `prompt_tokens`: at least 0, without the row and the chat template. `n_demos`: fixed and picked;
    `picks`: how those are picked that differ from input to input, and `passages`, how passages are looked up; in JSON
    only where there are some. `tokens_a_call`: as in `PromptSize`."""

    candidate_id: str
    technique: str
    format: str
    n_demos: int
    instruction: str
    dev: float | None
    dev_corrected: float | None
    test: float | None
    prompt_tokens: int
    picks: Mapping[str, Any] | None = field(default=None, metadata=IF_SET)
    passages: Mapping[str, Any] | None = field(default=None, metadata=IF_SET)
    tokens_a_call: int = field(default=0, metadata=IF_SET)


@dataclass(frozen=True, slots=True)
class Baseline(JsonPart):
    """The user's own prompt: its scores, None where nothing was scored. `dev_rows`: of how many dev rows, where it was
    told from the best on a part of them; None, and not in JSON: of all."""

    dev: float | None
    test: float | None
    dev_rows: int | None = field(default=None, metadata=IF_SET)


@dataclass(frozen=True, slots=True)
class Lift(JsonPart):
    """What the winner gains on the sealed test, over the `n` rows that both got a score on: the mean difference, its
    interval, and the p-value of the paired test. `lost` rows got no score with the winner alone; `diff_if_wrong` is the
    difference with these counted as wrong. `baseline` and `winner`: their means over the `n` rows."""

    diff: float
    ci95: Interval
    p_value: float
    wins: int
    losses: int
    ties: int
    lost: int = field(default=0, kw_only=True)
    diff_if_wrong: float | None = field(default=None, kw_only=True)
    n: int
    baseline: float | None = None
    winner: float | None = None


@dataclass(frozen=True, slots=True)
class Yardstick(JsonPart):
    """What a method without a language model, trained on `trained_on` rows, reaches on the same rows, with the interval
    of its `test`. `diff`: how much better the winner is; None where no row has a score on both sides."""

    name: str
    candidate_id: str
    trained_on: int
    dev: float | None
    test: float | None
    ci95: Interval | None
    diff: float | None
    diff_ci95: Interval | None
    p_value: float | None


@dataclass(frozen=True, slots=True)
class Cost(JsonPart):
    """What the run paid: calls by role (target, proposer, judge; requests refused as too many, `limited`, are none),
    calls answered from the ledger, tokens, US dollars (of `unpriced` models nothing is known; at most `lost_usd` of
    them brought nothing), seconds of wall time. `overspent`: by how much it passes a cap, and why; "" for by nothing.

    In JSON these are keys of the result itself.
    """

    calls: Mapping[str, int]
    cached: int
    prompt_tokens: int
    cached_prompt_tokens: int
    completion_tokens: int
    limited: int
    overspent: str
    usd: float
    lost_usd: float
    unpriced: tuple[str, ...]
    seconds: float

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Cost:
        require(found, ("calls", "tokens", "cost_usd", "seconds"))
        tokens = found["tokens"]
        return cls(
            calls={role: count for role, count in found["calls"].items() if role != "cached"},
            cached=found["calls"].get("cached", 0),
            prompt_tokens=tokens["prompt"],
            cached_prompt_tokens=tokens.get("cached_prompt", 0),
            completion_tokens=tokens["completion"],
            limited=found.get("limited") or 0,
            overspent=found.get("overspent") or "",
            usd=found["cost_usd"],
            lost_usd=found.get("lost_usd") or 0.0,
            unpriced=tuple(found.get("unpriced") or ()),
            seconds=found["seconds"],
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "calls": {**self.calls, "cached": self.cached},
            "tokens": self.tokens(),
            "limited": self.limited,
            "overspent": self.overspent,
            "cost_usd": self.usd,
            "lost_usd": self.lost_usd,
            "unpriced": list(self.unpriced),
            "seconds": self.seconds,
        }

    def tokens(self) -> dict[str, int]:
        """By kind: `prompt`, of these `cached_prompt`, and `completion`."""
        return {
            "prompt": self.prompt_tokens,
            "cached_prompt": self.cached_prompt_tokens,
            "completion": self.completion_tokens,
        }


@dataclass(frozen=True, slots=True)
class Release:
    """What the run wrote for production: the winner, or the user's own prompt where no gain was shown."""

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    def load(self) -> Prompt:
        """The prompt, as `load_prompt` has it. Raises ReleaseError where the file is no prompt or is damaged."""
        from agent.release.runtime import load_prompt

        return load_prompt(self.path)
