"""What explains a run's result: the score by metric, slice, label and repeat, and the judges behind it.

Scores are in [0, 1], differences in [-1, 1], intervals (low, high) at 95 %. Rows are those of the sealed test.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from agent.results.base import Interval, Result, SideName, TwoSided


class Side(Result):
    """What one prompt scores: mean and interval over the `n` rows with a score (None without any); `unscored` rows."""

    mean: float | None = None
    ci95: Interval | None = None
    n: int = 0
    unscored: int = 0


class Gain(Result):
    """One prompt minus another, paired by row; None where no row has both scores."""

    diff: float | None = None
    diff_ci95: Interval | None = None
    p_value: float | None = None


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
    signature: str = ""


class Group(TwoSided[Side]):
    """The rows of one value of a slice, as in `MetricPart`; no difference where too few rows have both scores."""

    value: str
    winner: Side = Side()
    baseline: Side = Side()
    diff: float | None = None
    diff_ci95: Interval | None = None
    p_value: float | None = None


class Slice(Result):
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


class RowCount(Result):
    """How one prompt's rows were scored: full marks, some, none, or no score. `unreadable` of those with a score had a
    reply that did not parse or broke the limits of its fields; `unreadable_rows` are the ids of the first of them.
    `different` answers were given to the `readable` rows, which have `different_right` right ones (0: not counted)."""

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
        """Rows with a score."""
        return self.right + self.partly + self.wrong


class Answers(TwoSided[RowCount]):
    """The rows of both prompts, counted."""

    winner: RowCount = RowCount()
    baseline: RowCount = RowCount()


class LabelScore(Result):
    """One label: `support`, the rows whose right answer it is; `said`, the rows that were answered with it; `right`,
    those that are both. `precision` and `recall` in [0, 1]; None where no row was answered with it, or it has none."""

    label: str
    support: int
    said: int
    right: int
    precision: float | None
    recall: float | None


class ConfusionCell(Result):
    """How many rows of `label`, 1 or more, were answered with `said`; None: the reply named no label that there is."""

    label: str
    said: str | None
    rows: int


class LabelSide(Result):
    """One prompt's answers by label. `cells` are the cells of the confusion matrix that are not 0."""

    scores: tuple[LabelScore, ...] = ()
    cells: tuple[ConfusionCell, ...] = ()

    @property
    def rows(self) -> int:
        """Rows that were answered, readably or not."""
        return sum(cell.rows for cell in self.cells)

    def count(self, label: str, said: str | None) -> int:
        """One cell of the matrix, 0 or more."""
        return sum(cell.rows for cell in self.cells if cell.label == label and cell.said == said)

    def confused(self) -> list[ConfusionCell]:
        """The cells off the diagonal, unreadable replies left out, the largest first."""
        wrong = [cell for cell in self.cells if cell.said is not None and cell.said != cell.label]
        return sorted(wrong, key=lambda cell: (-cell.rows, cell.label, cell.said))


class LabelReport(TwoSided[LabelSide]):
    """The answers of a field that is a choice; `labels` are its choices in the task's order."""

    field: str
    labels: tuple[str, ...]
    winner: LabelSide = LabelSide()
    baseline: LabelSide = LabelSide()


class Steadiness(Result):
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


class Consistency(TwoSided["Steadiness | None"]):
    """How steady the answers of both prompts are; None where no row was answered each time."""

    winner: Steadiness | None = None
    baseline: Steadiness | None = None


class TextVariety(Result):
    """How varied `n` texts are: `distinct_2` is the part of all word pairs that are different ones, `openings` the part
    of the texts whose first three words no other has. In [0, 1]."""

    field: str = ""
    n: int = 0
    distinct_2: float | None = None
    openings: float = 0.0


class Variety(TwoSided["TextVariety | None"]):
    """How varied the texts of a field are; None for a prompt with fewer than two."""

    field: str
    winner: TextVariety | None = None
    baseline: TextVariety | None = None


class LookedUp(Result):
    """What one prompt's passages hold and what it makes of them, shares in [0, 1], None where it cannot be said:
    `recall`, of the rows that name their documents those with one of them shown, `recall_all` with all of them;
    `unanswerable_right`, of the rows that no document answers those answered so; `answerable_wrong`, of the others."""

    recall: float | None = None
    recall_all: float | None = None
    unanswerable_right: float | None = None
    answerable_wrong: float | None = None


class Retrieval(TwoSided[LookedUp]):
    """How passages of documents were looked up on the sealed test: `rows` name their documents, `unanswerable_rows`
    have no answer in any, `answerable_rows` have one."""

    rows: int
    unanswerable_rows: int
    answerable_rows: int
    winner: LookedUp = LookedUp()
    baseline: LookedUp = LookedUp()


class JudgeTrust(Result):
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


class ReliabilityBin(Result):
    """The `n` sealed rows whose confidence is in (`low`, `high`]: its mean, and the part of them that is right."""

    low: float
    high: float
    n: int
    confidence: float
    right: float


class Abstain(Result):
    """What is left where answers with a confidence lower than `below` are not given. `below` was chosen on dev for the
    wanted `precision` (None: no threshold reaches it there); on the sealed test the part `answered` of the rows is, and
    `reached` of these answers are right (None without any). All in [0, 1]."""

    precision: float
    below: float | None = None
    answered: float = 0.0
    reached: float | None = None
    reached_ci95: Interval | None = None


class PriorVote(Result):
    """A classifier of the train `rows` (their hash) that votes next to the model: the weights of their
    log-probabilities, and whether that of the model is negligible."""

    weight: float
    rows: str
    model_weight: float
    model_adds_nothing: bool


class Calibration(Result):
    """The winner's calibration (`method` none: it has no weights), and how far the confidences of its answers can be
    trusted on the sealed `rows` that have one. `ece`: the expected calibration error, in [0, 1], 0 is perfect;
    `neighbours`: `k` rows that vote, and the `weight` of their votes; `prior`: a classifier that votes."""

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
        """Whether the winner's labels are calibrated."""
        return self.method != "none"
