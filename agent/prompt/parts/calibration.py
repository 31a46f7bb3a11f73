"""The calibration of label scores, optionally combined with kNN votes or a classifier."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from agent.prompt.calibration import LabelCalibration, Method, Neighbours, Prior, calibrated, label_calibration
from agent.prompt.parts.kind import FileHead, PartKind, TaskParts, WrongPart
from agent.prompt.parts.kinds import part
from agent.prompt.parts.part import PromptPart, Row
from agent.retrieval.votes import NEIGHBOURS, log_shares
from agent.shipped import Field, Prediction

if TYPE_CHECKING:
    from agent.prompt.bound import BoundPrompt
    from agent.prompt.parts.picks import PickedDemos
    from agent.prompt.prompt_candidate import PromptCandidate
    from agent.retrieval.linear import LabelClassifier
    from agent.types import Example, Task


@dataclass(frozen=True, slots=True)
class Calibrating(PromptPart):
    """A calibration with the pool or classifier that it combines the model with."""

    name = "calibration"
    reads_tokens = True

    weights: LabelCalibration
    field: Field
    classifier: LabelClassifier | None
    picks: PickedDemos | None

    @property
    def reads_input(self) -> str:
        if not self.weights.reads_input:
            return ""
        return "the labels of the nearest rows decide" if self.weights.neighbours else "a classifier decides"

    def votes(self, row: Row | None) -> tuple[float, ...]:
        """Return each label's votes by the nearest rows, or its log-probability by the classifier.

        () if the model decides alone.
        """
        if row is None:
            return ()
        if self.classifier is not None:
            return self.classifier.log_probabilities(row.text)
        near = self.weights.neighbours
        if near is None or self.picks is None:
            return ()
        return self.picks.pool.votes(row.text, self.field.choices, near.k, row.id, row.own)

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
        """None if the task has no single choice, or too few train rows to tell labels apart."""
        from agent.prompt.label_training import MOST_ROWS, trained

        outputs = self._task.signature.outputs
        if len(outputs) != 1 or len(outputs[0].choices) < 2:
            return None
        field = outputs[0]
        rows = [row for row in self._task.train if row.labels[field.name] in field.choices][:MOST_ROWS]
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


def trained_opinions(shared: TaskParts) -> list[Opinion]:
    """Return the opinion of a classifier of the train rows, if one can be trained."""
    prior = shared.of(TrainedPrior)
    return [Opinion("prior", prior.log_probabilities, prior.rows)] if prior.rows else []


def calibrated_by(prompt: PromptCandidate, calibration: LabelCalibration) -> PromptCandidate | None:
    """Return the candidate with this calibration; None if it has one."""
    return replace(prompt, calibration=calibration) if prompt.calibration is None else None


@part
class LabelReading(PartKind):
    name = "calibration"
    headings: ClassVar[Mapping[str, str]] = {"classifier": "classifier"}
    only_reads = True

    def learnt_from(self, settings: LabelCalibration, task: Task) -> Iterable[str]:
        return (row.id for row in task.dev) if settings.method != "label-free" else ()

    def features(self, settings: LabelCalibration) -> dict[tuple[str, str], float]:
        return {("calibration", settings.method): 1.0}

    def why_other(self, prompt: PromptCandidate, shared: TaskParts) -> str:
        how = prompt.calibration
        if how and how.neighbours and prompt.picks is None:
            return "its calibration uses neighbours, but it picks no examples"
        return shared.of(TrainedPrior).why_other(how.prior.rows) if how and how.prior else ""

    def bind(self, prompt: PromptCandidate, shared: TaskParts) -> dict[str, Any]:
        how = prompt.calibration
        if how is None:
            return {}
        return {"calibration": how, **({"classifier": shared.of(TrainedPrior).trained} if how.prior else {})}

    def load(self, head: FileHead) -> dict[str, Any]:
        outputs = head.data["outputs"]
        labels = outputs[0].choices if len(outputs) == 1 else ()
        how = label_calibration(head.table(self.name)[0], labels) if self.name in head.data else None
        if how and how.neighbours and "picks" not in head.data:
            why = "the calibration uses neighbours, but there is no pool (picks)"
            raise WrongPart(self.name, why)
        prior = how.prior if how else None
        if (prior is None) != ("classifier" not in head.data):
            why = "a classifier needs a calibration with a prior, and the reverse; one is missing"
            raise WrongPart(self.name, why)
        if prior is None:
            return {"calibration": how}
        from agent.retrieval.linear import label_classifier

        try:
            found = label_classifier(*head.table("classifier"), labels)
        except ValueError as error:
            raise WrongPart("classifier", str(error)) from None
        if found.trained_on != prior.rows:
            why = f"was trained on {found.trained_on!r:.40}, but the calibration names {prior.rows!r:.40}"
            raise WrongPart("classifier", why)
        return {"calibration": how, "classifier": found}

    def parts(self, prompt: BoundPrompt) -> Iterable[PromptPart]:
        how = prompt.calibration
        return (Calibrating(how, prompt.outputs[0], prompt.classifier, prompt.picks),) if how else ()
