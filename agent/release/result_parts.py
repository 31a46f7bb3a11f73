"""The parts of a run's result: frozen, typed, read from JSON and written to it. Pure.

Scores and their means lie in [0, 1], differences of scores in [-1, 1]; an interval is (low, high) at 95 %. What an
older version of the tool did not write has its default.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, cast, get_args, get_origin, get_type_hints

from agent.errors import InputError

if TYPE_CHECKING:
    from agent.release.runtime import Prompt

Interval = tuple[float, float]
SideName = Literal["baseline", "winner"]
BlockCode = Literal[
    "gain_not_shown", "gain_from_lost_rows", "no_better_than_constant", "metric_worse", "slice_worse", "judge_untrusted"
]
"""What can stand between a winner and production (`gate.py`)."""
_S = TypeVar("_S")
_IF_SET: Any = field(default="", metadata={"if_set": True})


class Part:
    """A dataclass whose fields are the keys of a JSON object, in their order."""

    __slots__ = ()

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Keys that are not known are left out. Raises InputError where one is missing that every version writes."""
        return cls(**read(cls, found))

    def to_json(self) -> dict[str, Any]:
        return write(self)


def read(part: Any, found: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a part out of a JSON object. Raises as `Part.from_json`."""
    given = typed(part, found)
    always = (name for name, (each, _) in _fields(part).items() if each.default is each.default_factory is MISSING)
    require(given, always)
    return given


def typed(part: Any, found: Mapping[str, Any]) -> dict[str, Any]:
    """Those fields of a part that a JSON object has."""
    return {
        name: _typed(found[name], hint)
        for name, (_, hint) in _fields(part).items()
        if name in found and (found[name] is not None or _may_be_none(hint))
    }


def write(part: Part) -> dict[str, Any]:
    """A part as a JSON object: tuples are lists, and a field that is `if_set` and empty is left out."""
    found, kind = {}, cast(Any, type(part))
    for name, (each, _) in _fields(kind).items():
        value = getattr(part, name)
        if each.metadata.get("json", True) and (value or not each.metadata.get("if_set")):
            found[name] = _plain(value)
    return found


def require(found: Mapping[str, Any], names: Iterable[str]) -> None:
    """Raises InputError where a name is missing."""
    if lost := [name for name in names if name not in found]:
        raise InputError(f"a result without {', '.join(lost)}: it was not written by this tool")


class TwoSided(Part, Generic[_S]):
    """A part with something of each of the two prompts."""

    __slots__ = ()

    def side(self, name: SideName) -> _S:
        found: _S = getattr(self, name)
        return found


@cache
def _fields(part: Any) -> Mapping[str, tuple[Field[Any], Any]]:
    """The fields of a part that JSON has, by name, each with its type."""
    hints = get_type_hints(part)
    return {each.name: (each, hints[each.name]) for each in fields(part) if each.init}


def _may_be_none(hint: Any) -> bool:
    return type(None) in get_args(hint)


def _typed(value: Any, hint: Any) -> Any:
    if value is None:
        return None
    if _may_be_none(hint):
        hint = get_args(hint)[0]
    if get_origin(hint) is tuple:
        return tuple(_typed(each, get_args(hint)[0]) for each in value)
    return hint.from_json(value) if isinstance(hint, type) and issubclass(hint, Part) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Part):
        return value.to_json()
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Release):
        return str(value.path)
    return dict(value) if isinstance(value, Mapping) else value


# -- the two prompts and what lies between them -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Winner(Part):
    """The best found. None where nothing was scored; `dev_corrected` is `dev` without what choosing the best of many
    adds to it. `prompt_tokens`: at least 0, without the row and the chat template."""

    candidate_id: str
    technique: str
    format: str
    n_demos: int
    instruction: str
    dev: float | None
    dev_corrected: float | None
    test: float | None
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Baseline(Part):
    """The user's own prompt: its scores, None where nothing was scored."""

    dev: float | None
    test: float | None


@dataclass(frozen=True, slots=True)
class Lift(Part):
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
class Yardstick(Part):
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
class Cost(Part):
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
            limited=found.get("limited", 0),
            overspent=found.get("overspent", ""),
            usd=found["cost_usd"],
            lost_usd=found.get("lost_usd", 0.0),
            unpriced=tuple(found.get("unpriced", ())),
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

    def load(self) -> Prompt:
        """The prompt, as `load_prompt` has it. Raises ReleaseError where the file is no prompt or is damaged."""
        from agent.release.runtime import load_prompt

        return load_prompt(self.path)


# -- the score taken apart --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Side(Part):
    """What one prompt scores: mean and interval over the `n` rows with a score (None without any); `unscored` rows."""

    mean: float | None = None
    ci95: Interval | None = None
    n: int = 0
    unscored: int = 0


@dataclass(frozen=True, slots=True)
class MetricPart(TwoSided[Side]):
    """One metric on the sealed test, `weight` in [0, 1]; the metric `readable` is the part of the replies that parsed
    and kept their limits. `diff` and p-value are of winner minus baseline, None where no row has both. `signature`:
    how sacrebleu counts, "" where it does not."""

    metric: str
    field: str
    weight: float = 0.0
    winner: Side = Side()
    baseline: Side = Side()
    diff: float | None = None
    diff_ci95: Interval | None = None
    p_value: float | None = None
    signature: str = _IF_SET


@dataclass(frozen=True, slots=True)
class Group(TwoSided[Side]):
    """The rows of one value of a slice, as in `MetricPart`; no difference where too few rows have both scores."""

    value: str
    winner: Side = Side()
    baseline: Side = Side()
    diff: float | None = None
    diff_ci95: Interval | None = None
    p_value: float | None = None


@dataclass(frozen=True, slots=True)
class Slice(Part):
    """The groups of one slice. By side the largest distance between two groups (None for a single one), and the p-value
    of "all groups are alike" (None: an older version did not test it)."""

    slice: str
    groups: tuple[Group, ...]
    winner_gap: float | None = None
    winner_gap_p: float | None = None
    baseline_gap: float | None = None
    baseline_gap_p: float | None = None

    def gap(self, name: SideName) -> tuple[float | None, float | None]:
        """The distance, and its p-value."""
        if name == "winner":
            return self.winner_gap, self.winner_gap_p
        return self.baseline_gap, self.baseline_gap_p


@dataclass(frozen=True, slots=True)
class Steadiness(Part):
    """How alike `k` answers to each of `rows` rows are: `agreement` in [0, 1], `entropy` in bits, `pass_at_k` and
    `pass_hat_k` the parts of the rows that some and that all answers get right, `spread` the mean standard deviation of
    a row's scores."""

    k: int
    rows: int
    agreement: float
    entropy: float
    pass_at_k: float | None
    pass_hat_k: float | None
    spread: float | None


@dataclass(frozen=True, slots=True)
class Consistency(TwoSided["Steadiness | None"]):
    """How steady the answers of both prompts are; None where no row was answered each time."""

    winner: Steadiness | None = None
    baseline: Steadiness | None = None


@dataclass(frozen=True, slots=True)
class TextVariety(Part):
    """How varied `n` texts are: `distinct_2` is the part of all word pairs that are different ones, `openings` the part
    of the texts whose first three words no other has. In [0, 1]."""

    field: str = ""
    n: int = 0
    distinct_2: float | None = None
    openings: float = 0.0


@dataclass(frozen=True, slots=True)
class Variety(TwoSided["TextVariety | None"]):
    """How varied the texts of a field are; None for a prompt with fewer than two."""

    field: str
    winner: TextVariety | None = None
    baseline: TextVariety | None = None


@dataclass(frozen=True, slots=True)
class JudgeTrust(Part):
    """A judge of a metric with what its latest calibration said: Cohen's `kappa` in [-1, 1] with its interval, and
    `why` it is not trusted. Of a pairwise judge `turned` of `compared` verdicts changed with the order."""

    metric: str
    judge_id: str = ""
    models: tuple[str, ...] = ()
    mode: str = ""
    trusted: bool = False
    why: str = ""
    kappa: float | None = None
    ci95: Interval | None = None
    compared: int = 0
    turned: int = 0


# -- the search -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Preflight(Part):
    """What was said before the search, as of `search/preflight.py`: `noise`, the part of the `noise_rows` asked twice
    whose score changed; `headroom` above the baseline; `detectable`, the smallest gain that the test rows show. None
    where it is not known, and where no gain can be shown."""

    noise: float | None = None
    noise_rows: int | None = None
    headroom: float | None = None
    headroom_ci95: Interval | None = None
    detectable: float | None = None
    worth: bool = True
    why: str = ""


@dataclass(frozen=True, slots=True)
class Carried(Part):
    """What one part of the winner carries, in points (hundredths of score, -100 to 100), with its interval, and how it
    is known. `rows`: on which it was measured, 0 where it was not."""

    part: str
    points: float
    ci95: Interval
    how: Literal["measured", "estimated", "unknown"]
    rows: int = 0


@dataclass(frozen=True, slots=True)
class ParetoRow(Part):
    """A candidate that nothing beats in score, tokens, US dollars per 1,000 calls and seconds a call; None: unknown."""

    candidate_id: str
    dev: float
    prompt_tokens: int
    usd_per_1000: float | None = None
    latency_s: float | None = None
    chosen: bool = False
