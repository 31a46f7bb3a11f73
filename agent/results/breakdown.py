"""Breakdown of a run's result by metric, slice, label and repeat, with the judges behind it.

Scores are in [0, 1], differences in [-1, 1], intervals (low, high) at 95 %. All rows are test rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from agent.results.base import Interval, Mean, Result, TwoSided


class Side(Mean):
    """The scores of one prompt; `unscored` rows are not among the `n`."""

    unscored: int = 0


class Gain(Result):
    """Paired difference of two prompts; None if no row has both scores."""

    diff: float | None = None
    diff_ci95: Interval | None = None
    p_value: float | None = None


class MetricPart(TwoSided[Side]):
    """One metric on the test rows; `readable` is the share of replies that parsed and respected the limits of their
    fields.

    `diff` and `p_value` compare winner and baseline, paired; None if no row has both scores. `signature`: of sacrebleu,
    or "".
    """

    metric: str
    field: str
    weight: float = 0.0
    winner: Side = Side()
    baseline: Side = Side()
    diff: float | None = None
    diff_ci95: Interval | None = None
    p_value: float | None = None
    signature: str = ""


class Group(TwoSided[Side]):
    """The rows with one value of a slice; fields as in `MetricPart`, no difference if too few rows have both scores."""

    value: str
    winner: Side = Side()
    baseline: Side = Side()
    diff: float | None = None
    diff_ci95: Interval | None = None
    p_value: float | None = None


class Slice(Result):
    """The groups of one slice: for each prompt the largest gap (None: one group) and the p-value of "all groups are
    equal".
    """

    slice: str
    groups: tuple[Group, ...]
    winner_gap: float | None = None
    winner_gap_p: float | None = None
    baseline_gap: float | None = None
    baseline_gap_p: float | None = None


class RowCount(Result):
    """Rows of one prompt by score: full, partial, zero, or unscored.

    `unreadable` scored rows had a reply that did not parse or broke the limits of its fields; `unreadable_rows` holds
    the first ids. The `readable` rows received `different` distinct answers and have `different_right` distinct labels.
    """

    right: int = 0
    partly: int = 0
    wrong: int = 0
    unscored: int = 0
    unreadable: int = 0
    unreadable_rows: tuple[str, ...] = ()
    readable: int = 0
    different: int = 0
    different_right: int = 0

    @property
    def scored(self) -> int:
        return self.right + self.partly + self.wrong


class Answers(TwoSided[RowCount]):
    """Row counts of both prompts."""

    winner: RowCount = RowCount()
    baseline: RowCount = RowCount()


class LabelScore(Result):
    """`support` rows have this label, `said` rows were answered with it, `right` rows both; a ratio is None if
    undefined.
    """

    label: str
    support: int
    said: int
    right: int
    precision: float | None
    recall: float | None


class ConfusionCell(Result):
    """Rows with `label` that were answered with `said`; None: the reply named no known label."""

    label: str
    said: str | None
    rows: int


class LabelSide(Result):
    """The answers of one prompt by label; `cells` are the non-zero cells of the confusion matrix."""

    scores: tuple[LabelScore, ...] = ()
    cells: tuple[ConfusionCell, ...] = ()

    def confused(self) -> list[ConfusionCell]:
        """Return the off-diagonal cells without unreadable replies, largest first."""
        wrong = [cell for cell in self.cells if cell.said is not None and cell.said != cell.label]
        return sorted(wrong, key=lambda cell: (-cell.rows, cell.label, cell.said))


class LabelReport(TwoSided[LabelSide]):
    """The answers for a choice field; `labels` are its choices in the task's order."""

    field: str
    labels: tuple[str, ...]
    winner: LabelSide = LabelSide()
    baseline: LabelSide = LabelSide()


class Steadiness(Result):
    """Agreement of `k` repeated answers on each of `rows` rows, in [0, 1]; `entropy` in bits.

    `pass_at_k` and `pass_hat_k`: the shares of rows with at least one and with only right answers. `spread`: the mean
    standard deviation of a row's scores.
    """

    k: int
    rows: int
    agreement: float
    entropy: float
    pass_at_k: float | None
    pass_hat_k: float | None
    spread: float | None


class Consistency(TwoSided["Steadiness | None"]):
    """Repeated answers of both prompts; None if no row was answered every time."""

    winner: Steadiness | None = None
    baseline: Steadiness | None = None


class TextVariety(Result):
    """Shares of distinct word pairs (`distinct_2`) and of texts with unique first three words (`openings`) in `n`
    texts.
    """

    field: str = ""
    n: int = 0
    distinct_2: float | None = None
    openings: float = 0.0


class Variety(TwoSided["TextVariety | None"]):
    """Variety of one text field for both prompts; None for a prompt with fewer than two texts."""

    field: str
    winner: TextVariety | None = None
    baseline: TextVariety | None = None


class RetrievalSide(Result):
    """Retrieval quality of one prompt, as shares in [0, 1]; None where undefined.

    `recall` and `recall_all`: rows with at least one, and with all, of their documents retrieved. `unanswerable_right`
    and `answerable_wrong`: rows without and with an answer in the documents that were answered with "not in the
    documents".
    """

    recall: float | None = None
    recall_all: float | None = None
    unanswerable_right: float | None = None
    answerable_wrong: float | None = None


class Retrieval(TwoSided[RetrievalSide]):
    """Retrieval on the test rows; `rows` name their documents."""

    rows: int
    unanswerable_rows: int
    answerable_rows: int
    winner: RetrievalSide = RetrievalSide()
    baseline: RetrievalSide = RetrievalSide()


class JudgeTrust(Result):
    """A judge of a metric and its latest calibration: Cohen's `kappa`, and `why` it is not trusted.

    `turned` of `compared` verdicts of a pairwise judge changed with the order.
    """

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


class ReliabilityBin(Result):
    """The `n` test rows with a confidence in (`low`, `high`]: mean confidence and share of right answers."""

    low: float
    high: float
    n: int
    confidence: float
    right: float


class Abstain(Result):
    """The answers that remain when those with a confidence below `below` are withheld; all in [0, 1].

    `below` was chosen on dev for the wanted `precision` (None: no threshold reaches it). On the test rows the share
    `answered` remains, of which `reached` are right.
    """

    precision: float
    below: float | None = None
    answered: float = 0.0
    reached: float | None = None
    reached_ci95: Interval | None = None


class PriorVote(Result):
    """A classifier of the train `rows` (their hash) that votes; `model_adds_nothing`: the model's weight is near 0."""

    weight: float
    rows: str
    model_weight: float
    model_adds_nothing: bool


class Calibration(Result):
    """The winner's calibration, and how reliable its confidences are on `rows` test rows.

    `ece`: expected calibration error in [0, 1]; 0 is perfect. `neighbours`: `k` nearest rows vote with `weight`. Method
    `none`: not calibrated.
    """

    method: Literal["none", "label-free", "fitted", "neighbours", "prior"]
    rows: int
    ece: float
    bias: Mapping[str, float] = {}
    temperature: float = 1.0
    bins: tuple[ReliabilityBin, ...] = ()
    abstain: Abstain | None = None
    neighbours: Mapping[str, float] | None = None
    prior: PriorVote | None = None

    @property
    def is_calibrated(self) -> bool:
        return self.method != "none"
