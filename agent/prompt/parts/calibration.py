"""The calibration of label scores, optionally combined with kNN votes or a classifier."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from agent.prompt.label_calibration import (
    MOST_NEIGHBOURS,
    NEIGHBOURS,
    LabelCalibration,
    Method,
    Neighbours,
    Prior,
    calibrated,
    log_shares,
)
from agent.prompt.parts.kinds import PARTS, FileHead, PartKind, TaskParts, WrongPart, part
from agent.prompt.parts.part import PromptPart, Row
from agent.retrieval.linear import LabelClassifier, label_classifier
from agent.safe_data import REAL, Rule, matching, read_as
from agent.shipped import Field, Prediction

if TYPE_CHECKING:
    from agent.prompt.parts.picks import PickedDemos
    from agent.prompt.prompt_candidate import PromptCandidate
    from agent.types import Example, Task

MOST_TRAINED = 10_000
"""Train rows that a classifier learns from."""


@dataclass(frozen=True, slots=True)
class Calibrating(PromptPart):
    """A calibration with the pool or classifier that it combines the model with."""

    name = "calibration"
    reads_tokens = True

    weights: LabelCalibration
    field: Field
    classifier: LabelClassifier | None = None
    picks: PickedDemos | None = None

    @property
    def reads_input(self) -> str:
        if not self.weights.reads_input:
            return ""
        return "the labels of the nearest rows decide" if self.weights.neighbours else "a classifier decides"

    def votes(self, row: Row | None) -> tuple[float, ...]:
        """Return each label's votes or log-probability; () if the model decides alone."""
        if row is None:
            return ()
        if self.classifier is not None:
            return self.classifier.log_probabilities(row.text)
        near = self.weights.neighbours
        if near is None or self.picks is None:
            return ()
        return self.picks.pool.votes(row.text, self.field.choices, near.k, row.id, row.own)

    def weighed(self, logs: Sequence[float], row: Row) -> Sequence[float]:
        return self.weights.scores(logs, self.votes(row))

    def read(self, logs: Sequence[float] | None, row: Row | None, prediction: Prediction) -> Prediction:
        return prediction if logs is None else calibrated(prediction, logs, self.field, self.weights, self.votes(row))

    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = {"calibration": self.weights.as_dict()}
        if self.classifier is not None:
            lines = self.classifier.lines(self.field.choices)
            found["classifier"] = {**self.classifier.settings(), "rows": lines}
        return found


@dataclass(frozen=True)
class Opinion:
    """A second vote on a label. `rows`: the hash of a classifier's train rows."""

    method: Method
    said: Callable[[Example], tuple[float, ...]]
    """For each label its votes, or its log-probability."""
    rows: str = ""

    def logs(self, said: Sequence[Sequence[float]]) -> Sequence[Sequence[float]]:
        """Return votes as logs of shares; a classifier's log-probabilities stay."""
        return [log_shares(votes) for votes in said] if self.method == "neighbours" else said

    def weighed(self, weight: float) -> dict[str, Any]:
        """Return the fields of `LabelCalibration` with this weight."""
        if self.method == "neighbours":
            return {"neighbours": Neighbours(NEIGHBOURS, weight)}
        return {"prior": Prior(weight, self.rows)}


class TrainedPrior:
    """The classifier of a task's train rows; trained when first needed."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._names = task.signature.compared
        self._known: dict[str, tuple[float, ...]] = {}

    @cached_property
    def trained(self) -> LabelClassifier | None:
        """Return the trained classifier. None: no single choice, or too few train rows to tell labels apart."""
        from agent.retrieval.linear_training import trained  # here, as a loaded prompt trains nothing

        outputs = self._task.signature.outputs
        if len(outputs) != 1 or len(outputs[0].choices) < 2:
            return None
        field = outputs[0]
        rows = [row for row in self._task.train if row.labels[field.name] in field.choices][:MOST_TRAINED]
        texts = [Row(row.inputs, self._names).text for row in rows]
        return trained(texts, [field.choices.index(row.labels[field.name]) for row in rows], len(field.choices))

    @property
    def rows(self) -> str:
        return self.trained.trained_on if self.trained else ""

    def log_probabilities(self, row: Example) -> tuple[float, ...]:
        """Return the log-probability of each label for a row, in nats."""
        assert self.trained is not None
        text = Row(row.inputs, self._names).text
        if text not in self._known:  # a search reads each dev row again for every finalist
            self._known[text] = self.trained.log_probabilities(text)
        return self._known[text]

    def why_other(self, rows: str) -> str:
        own = self.rows or "too few to train one"
        return "" if rows == own else f"its classifier was trained on {rows}, and the train rows of the task are {own}"


def label_calibration(data: Any, labels: Sequence[str]) -> LabelCalibration:
    """Restore the output of `LabelCalibration.as_dict`, with the labels in this order. Raises ValueError."""
    found: LabelCalibration = read_as(LabelCalibration, data, "calibration")
    if not labels or set(found.bias) != set(labels):
        raise ValueError("calibration.bias must be a number for each choice of the one output, and for no other")
    for name in ("neighbours", "prior"):
        opinion = getattr(found, name)
        if (opinion is not None) != (found.method == name):
            raise ValueError(f"calibration.{name} must be there with the method {name}, and with no other")
        if opinion is not None and opinion.weight < 0:
            raise ValueError(f"calibration.{name}.weight must be a number of at least 0, not {opinion.weight}")
    if found.temperature <= 0:
        raise ValueError(f"calibration.temperature must be a number above 0, not {found.temperature}")
    if found.neighbours and not 1 <= found.neighbours.k <= MOST_NEIGHBOURS:
        raise ValueError(f"calibration.neighbours.k must be a whole number from 1 to {MOST_NEIGHBOURS:,}")
    return replace(found, bias={label: found.bias[label] for label in labels})


_BYTES = Annotated[str, matching(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", "bytes in base64")]
_SCALE = Rule("a number above 0", lambda value: REAL.holds(value) and 0 < value <= 1e6)
_START = Rule("a number", lambda value: REAL.holds(value) and abs(value) <= 1e6)
_CLASSIFIER = {"trained_on": str, "scale": Annotated[float, _SCALE]}
_TERMS = {"terms": _BYTES, "rarity": _BYTES}
_LABEL = {"label": str, "intercept": Annotated[float, _START], "weights": _BYTES}


def released_classifier(settings: Any, lines: Any, labels: Sequence[str]) -> LabelClassifier:
    """Restore the classifier of a released file. Raises WrongPart."""
    try:
        about = read_as(_CLASSIFIER, settings, "classifier")
        rows = read_as(tuple[Any, ...], lines, "classifier.rows")
        if not rows:
            raise ValueError("classifier.rows is empty")
        read = [read_as(_LABEL if at else _TERMS, row, f"classifier.rows[{at}]") for at, row in enumerate(rows)]
        return label_classifier(about, read, labels)
    except ValueError as error:
        raise WrongPart("classifier", str(error)) from None


def trained_opinions(shared: TaskParts) -> list[Opinion]:
    """Return the opinion of a classifier of the train rows, if one can be trained."""
    prior = shared.of(TrainedPrior)
    return [Opinion("prior", prior.log_probabilities, prior.rows)] if prior.rows else []


def calibrated_by(prompt: PromptCandidate, calibration: LabelCalibration) -> PromptCandidate | None:
    """Return the candidate with this calibration; None if it has one."""
    return prompt.having(calibration=calibration) if prompt.part("calibration") is None else None


@part
class LabelReading(PartKind):
    name, settings = "calibration", LabelCalibration
    headings: ClassVar[Mapping[str, str]] = {"classifier": "classifier"}
    only_reads = True

    def learnt_from(self, settings: LabelCalibration, task: Task) -> Iterable[str]:
        return (row.id for row in task.dev) if settings.method != "label-free" else ()

    def features(self, settings: LabelCalibration) -> dict[tuple[str, str], float]:
        return {("calibration", settings.method): 1.0}

    def why_other(self, settings: LabelCalibration, prompt: PromptCandidate, shared: TaskParts) -> str:
        if settings.neighbours and prompt.part("picks") is None:
            return "its calibration uses neighbours, but it picks no examples"
        return shared.of(TrainedPrior).why_other(settings.prior.rows) if settings.prior else ""

    def bind(self, settings: LabelCalibration, prompt: PromptCandidate, shared: TaskParts) -> Calibrating:
        classifier = shared.of(TrainedPrior).trained if settings.prior else None
        picks: Any = PARTS.get("picks").bind(prompt.part("picks"), prompt, shared) if settings.neighbours else None
        return Calibrating(settings, shared.task.signature.outputs[0], classifier, picks)

    def load(self, head: FileHead) -> Calibrating:
        outputs = head.data["outputs"]
        labels = outputs[0].choices if len(outputs) == 1 else ()
        how = label_calibration(head.table(self.name)[0], labels) if self.name in head.data else None
        if how and how.neighbours and "picks" not in head.data:
            raise WrongPart(self.name, "the calibration uses neighbours, but there is no pool (picks)")
        if how is None or (how.prior is None) != ("classifier" not in head.data):
            raise WrongPart(self.name, "a classifier needs a calibration with a prior, and the reverse; one is missing")
        found = released_classifier(*head.table("classifier"), labels) if how.prior else None
        if how.prior and found and found.trained_on != how.prior.rows:
            why = f"was trained on {found.trained_on!r:.40}, but the calibration names {how.prior.rows!r:.40}"
            raise WrongPart("classifier", why)
        picks: Any = head.part("picks") if how.neighbours else None
        return Calibrating(how, outputs[0], found, picks)
