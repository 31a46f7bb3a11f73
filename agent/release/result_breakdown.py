"""What explains a run's result: the score taken apart, the judges behind it, and what the search was worth. Pure.

Units as in `result_parts.py`: scores in [0, 1], differences in [-1, 1], intervals as (low, high) at 95 %.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from agent.release.json_part import IF_SET, JsonPart, if_set
from agent.release.result_parts import Interval, SideName

_S = TypeVar("_S")


class TwoSided(JsonPart, Generic[_S]):
    """A part with something of each of the two prompts."""

    __slots__ = ()

    def side(self, name: SideName) -> _S:
        found: _S = getattr(self, name)
        return found


@dataclass(frozen=True, slots=True)
class Side(JsonPart):
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
    signature: str = if_set()


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
class Slice(JsonPart):
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
class Steadiness(JsonPart):
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
class TextVariety(JsonPart):
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
class LookedUp(JsonPart):
    """What one prompt's passages hold and what it makes of them, shares in [0, 1], None where it cannot be said:
    `recall`, of the rows that name their documents those with one of them shown, `recall_all` with all of them;
    `unanswerable_right`, of the rows that no document answers those answered so; `answerable_wrong`, of the others."""

    recall: float | None = None
    recall_all: float | None = None
    unanswerable_right: float | None = None
    answerable_wrong: float | None = None


@dataclass(frozen=True, slots=True)
class Retrieval(TwoSided[LookedUp]):
    """How passages of documents were looked up on the sealed test: `rows` name their documents, `unanswerable_rows`
    have no answer in any, `answerable_rows` have one."""

    rows: int
    unanswerable_rows: int
    answerable_rows: int
    winner: LookedUp = LookedUp()
    baseline: LookedUp = LookedUp()


@dataclass(frozen=True, slots=True)
class JudgeTrust(JsonPart):
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


@dataclass(frozen=True, slots=True)
class ReliabilityBin(JsonPart):
    """The `n` sealed rows whose confidence is in (`low`, `high`]: its mean, and the part of them that is right."""

    low: float
    high: float
    n: int
    confidence: float
    right: float


@dataclass(frozen=True, slots=True)
class Abstain(JsonPart):
    """What is left where answers with a confidence lower than `below` are not given. `below` was chosen on dev for the
    wanted `precision` (None: no threshold reaches it there); on the sealed test the part `answered` of the rows is, and
    `reached` of these answers are right (None without any). All in [0, 1]."""

    precision: float
    below: float | None = None
    answered: float = 0.0
    reached: float | None = None
    reached_ci95: Interval | None = None


@dataclass(frozen=True, slots=True)
class PriorVote(JsonPart):
    """A classifier of the train `rows` (their hash) that votes next to the model: the weights of their
    log-probabilities, and whether that of the model is negligible."""

    weight: float
    rows: str
    model_weight: float
    model_adds_nothing: bool


@dataclass(frozen=True, slots=True)
class Calibration(JsonPart):
    """The winner's label weights (`method` none: it has no weights), and how far the confidences of its answers can be
    trusted on the sealed `rows` that have one. `ece`: the expected calibration error, in [0, 1], 0 is perfect;
    `neighbours`: `k` rows that vote, and the `weight` of their votes; `prior`: a classifier that votes."""

    method: Literal["none", "label-free", "fitted", "neighbours", "prior"]
    rows: int
    ece: float
    bias: Mapping[str, float] = field(default_factory=dict)
    temperature: float = 1.0
    bins: tuple[ReliabilityBin, ...] = ()
    abstain: Abstain | None = None
    neighbours: Mapping[str, float] | None = field(default=None, metadata=IF_SET)
    prior: PriorVote | None = field(default=None, metadata=IF_SET)

    @property
    def is_weighted(self) -> bool:
        """Whether the winner has label weights."""
        return self.method != "none"


# -- the search -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Preflight(JsonPart):
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
class Carried(JsonPart):
    """What one part of the winner carries, in points (hundredths of score, -100 to 100), with its interval, and how it
    is known. `rows`: on which it was measured, 0 where it was not."""

    part: str
    points: float
    ci95: Interval
    how: Literal["measured", "estimated", "unknown"]
    rows: int = 0


@dataclass(frozen=True, slots=True)
class ParetoRow(JsonPart):
    """A candidate that nothing beats in score, `prompt_tokens` and US dollars per 1,000 calls, with its seconds a call;
    None: unknown. `tokens_a_call`: measured, prompt and reply."""

    candidate_id: str
    dev: float
    prompt_tokens: int
    usd_per_1000: float | None = None
    latency_s: float | None = None
    chosen: bool = False
    tokens_a_call: int = field(default=0, metadata=IF_SET)
