"""The kind `classic`: answers without a language model, learnt from the train rows, as a yardstick for prompts.

The best constant answer, a classifier where the answer is made of few values, and the nearest rows. It makes no call
and costs nothing; a task whose score rests on a judge has none, as each score would be a call.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from agent.programs import classifiers as learnt
from agent.programs.classifiers import NEIGHBOURS, fit, text_of
from agent.programs.constants import Constant, Scorer, answers, best_constant, predicted, reads_labels, separator_of
from agent.types import NO_MODEL, Call, Candidate, Example, Message, Prediction, Shown, Task

CONSTANT = "the one answer for every row that scores best on train and dev"
FEATURES = "TF-IDF of words (1-2) and characters (2-5)"
VOTE = f"the {NEIGHBOURS} nearest train rows by TF-IDF, weighted by similarity"
ABOUT = {
    ("choice", "classifier"): f"{FEATURES}, logistic regression",
    ("choice", "nearest"): VOTE,
    ("number", "ridge"): f"{FEATURES}, ridge regression",
    ("number", "nearest"): VOTE,
    ("set", "classifier"): f"{FEATURES}, a ridge regression for each label",
    ("list", "classifier"): f"{FEATURES}, a ridge regression for each item",
    ("record", "classifier"): f"{FEATURES}, a ridge regression for each field of few values",
}
COPIED = "the answer of the nearest train row by TF-IDF"


@dataclass(frozen=True, slots=True)
class ClassicCandidate(Candidate):
    """A way to answer, by its name; `rows` is the hash of what it learns from, "" for the whole of train."""

    kind: ClassVar[str] = "classic"

    method: str
    rows: str = ""

    def parts(self) -> dict[str, Any]:
        return {"method": self.method, **({"rows": self.rows} if self.rows else {})}


class ClassicProgram:
    """The methods that suit a task, trained on its train rows; `rows` is their hash where they are only some."""

    kind = ClassicCandidate.kind

    def __init__(self, task: Task, rows: str = "") -> None:
        self._task = task
        self._rows = rows
        self._outputs = [field.name for field in task.signature.outputs]
        self._known = answers(task, task.train)
        self._kind = _kind(task, [answer for _, answer in self._known])
        self._constant: Constant
        self._answers: Mapping[str, Mapping[str, Any]] = {}
        """By method and text of a row."""

    @staticmethod
    def suits(task: Task) -> bool:
        """Whether train has answers, and scoring one makes no call and compares it with something of its row."""
        return not task.is_judged and task.user is None and reads_labels(task) and bool(answers(task, task.train))

    def rows(self, candidate: ClassicCandidate) -> int:
        """How many rows a method is trained on."""
        return len(self._task.train) + len(self._task.dev) * self._is_constant(candidate)

    def _is_constant(self, candidate: ClassicCandidate) -> bool:
        return candidate.method == self._constant.name

    def candidates(self) -> list[ClassicCandidate]:
        """One for each method that could be fitted, the constant answer first."""
        return [ClassicCandidate(method, self._rows) for method in (self._constant.name, *self._answers)]

    async def fit(self, rows: Sequence[Example], score: Scorer) -> None:
        """Train every method and have each answer all `rows` at once, in a thread; `score` chooses the constant."""
        texts = [self._text(row) for row in rows]
        self._constant = await best_constant(self._task, score)

        def answered() -> dict[str, dict[str, Any]]:
            return {name: dict(zip(texts, method(texts), strict=True)) for name, method in self._fitted().items()}

        self._answers = await asyncio.to_thread(answered) if self._is_learnable() else {}

    def _is_learnable(self) -> bool:
        different = {predicted(answer).raw for _, answer in self._known}
        return len(different) > 1 and any(self._text(row).strip() for row, _ in self._known)

    def _fitted(self) -> dict[str, learnt.Fitted]:
        texts = [self._text(row) for row, _ in self._known]
        return fit(self._kind, texts, [self._plain(answer) for _, answer in self._known], self._separator())

    def _separator(self) -> str:
        return separator_of(self._task, self._task.signature.outputs[0]) if self._kind == "set" else ""

    def _plain(self, fields: Mapping[str, Any]) -> Any:
        return fields[self._outputs[0]] if len(self._outputs) == 1 else dict(fields)

    def fields(self, plain: Any) -> dict[str, Any]:
        """The outputs of an answer as an export gives it."""
        return {self._outputs[0]: plain} if len(self._outputs) == 1 else dict(plain)

    async def run(self, candidate: Candidate, example: Example, call: Call, repeat: int = 0) -> Prediction:
        assert isinstance(candidate, ClassicCandidate)
        if self._is_constant(candidate):
            return self._constant.prediction
        return predicted(self.fields(self._answers[candidate.method][self._text(example)]))

    def shown(self, candidate: Candidate) -> Shown:
        assert isinstance(candidate, ClassicCandidate)
        learnt_by = ABOUT.get((self._kind, candidate.method), COPIED)
        about = CONSTANT if self._is_constant(candidate) else learnt_by
        return Shown(candidate.id, self.kind, NO_MODEL, f"{candidate.method}: {about}")

    def template(self, candidate: Candidate) -> tuple[Message, ...]:
        return ()

    def _text(self, row: Example) -> str:
        return text_of([row.inputs[field.name] for field in self._task.signature.inputs])

    def exported(self, method: str) -> dict[str, str]:
        """The files of an export, by name: the code that learns, its rows, and the model's description."""
        names = [field.name for field in self._task.signature.inputs]
        model = {"method": method, "field": ", ".join(self._outputs), "type": self._kind, "inputs": names}
        if separator := self._separator():
            model["separator"] = separator
        rows = [
            {"inputs": {name: row.inputs[name] for name in names}, "answer": self._plain(answer)}
            for row, answer in self._known
        ]
        return {
            "classifier.py": Path(learnt.__file__).read_text("utf-8"),
            "model.json": json.dumps(model, indent=2, ensure_ascii=True) + "\n",
            "rows.jsonl": "".join(f"{json.dumps(row, ensure_ascii=True)}\n" for row in rows),
        }


def _kind(task: Task, known: Sequence[Mapping[str, Any]]) -> str:
    if len(task.signature.outputs) > 1:
        return "record"
    (field,) = task.signature.outputs
    if field.type in ("choice", "number"):
        return field.type
    if separator_of(task, field):
        return "set"
    values = [answer[field.name] for answer in known]
    if all(isinstance(value, list) for value in values):
        return "list"
    return "record" if all(isinstance(value, Mapping) for value in values) else "other"
