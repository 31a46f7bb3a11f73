"""The kind `classic`: answers without a language model, learnt from the train rows, as a yardstick for prompts.

For one output that is a choice (largest class, classifier, vote of the nearest rows) or a number (mean, ridge
regression, mean of the nearest rows). It makes no call and costs nothing.
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
from agent.prompt.render import label_text
from agent.types import NO_MODEL, Call, Candidate, Example, Message, Prediction, Shown, Task

ABOUT = {
    "largest class": "always the most frequent label of train",
    "classifier": "TF-IDF of words (1-2) and characters (2-5), logistic regression",
    "mean": "always the mean of train",
    "ridge": "TF-IDF of words (1-2) and characters (2-5), ridge regression",
    "nearest": f"the {NEIGHBOURS} nearest train rows by TF-IDF, weighted by similarity",
}
METHODS = {"choice": ("largest class", "classifier", "nearest"), "number": ("mean", "ridge", "nearest")}
"""By the type of the output; the first is the constant answer."""


@dataclass(frozen=True, slots=True)
class ClassicCandidate(Candidate):
    """A way to answer, by its name in METHODS; `rows` is the hash of what it learns from, "" for the whole of train."""

    kind: ClassVar[str] = "classic"

    method: str
    rows: str = ""

    def parts(self) -> dict[str, Any]:
        return {"method": self.method, **({"rows": self.rows} if self.rows else {})}


class ClassicProgram:
    """The methods that suit a task, trained on its train rows.

    Args:
        task: with the rows.
        rows: their hash, where they are only some of the train rows.
    """

    kind = ClassicCandidate.kind

    def __init__(self, task: Task, rows: str = "") -> None:
        self._task = task
        self._rows = rows
        self._field = task.signature.outputs[0]
        self._answers: Mapping[str, Mapping[str, Any]] = {}
        """By method and text of a row."""

    @staticmethod
    def suits(task: Task) -> bool:
        """Whether the answer is one choice or number, scored without a judge, and train has words and two answers."""
        outputs = task.signature.outputs
        if len(outputs) != 1 or outputs[0].type not in METHODS or task.is_judged:
            return False
        answers = {label_text(row.labels[outputs[0].name]) for row in task.train}
        return len(answers) > 1 and any(" ".join(row.inputs.values()).strip() for row in task.train)

    @property
    def rows(self) -> int:
        """How many rows it is trained on."""
        return len(self._task.train)

    def candidates(self) -> list[ClassicCandidate]:
        """One for each method, the constant answer first."""
        return [ClassicCandidate(method, self._rows) for method in METHODS[self._field.type]]

    async def fit(self, rows: Sequence[Example]) -> None:
        """Trains every method and has each answer all `rows` at once, in a thread of its own."""
        train, texts = self._task.train, [self._text(row) for row in rows]

        def answers() -> dict[str, dict[str, Any]]:
            labels = [row.labels[self._field.name] for row in train]
            fitted = fit(self._field.type, [self._text(row) for row in train], labels)
            return {name: dict(zip(texts, method(texts), strict=True)) for name, method in fitted.items()}

        self._answers = await asyncio.to_thread(answers)

    async def run(self, candidate: Candidate, example: Example, call: Call, repeat: int = 0) -> Prediction:
        """The answer of a method to one of the rows of `fit`."""
        assert isinstance(candidate, ClassicCandidate)
        answer = self._answers[candidate.method][self._text(example)]
        return Prediction({self._field.name: answer}, label_text(answer))

    def shown(self, candidate: Candidate) -> Shown:
        assert isinstance(candidate, ClassicCandidate)
        return Shown(candidate.id, self.kind, NO_MODEL, f"{candidate.method}: {ABOUT[candidate.method]}")

    def template(self, candidate: Candidate) -> tuple[Message, ...]:
        return ()

    def _text(self, row: Example) -> str:
        return text_of([row.inputs[field.name] for field in self._task.signature.inputs])

    def exported(self, method: str) -> dict[str, str]:
        """The files of an export, by name: the code that learns, its rows, and the model's description."""
        names = [field.name for field in self._task.signature.inputs]
        model = {"method": method, "field": self._field.name, "type": self._field.type, "inputs": names}
        rows = [
            {"inputs": {name: row.inputs[name] for name in names}, "answer": row.labels[self._field.name]}
            for row in self._task.train
        ]
        return {
            "classifier.py": Path(learnt.__file__).read_text("utf-8"),
            "model.json": json.dumps(model, indent=2, ensure_ascii=True) + "\n",
            "rows.jsonl": "".join(f"{json.dumps(row, ensure_ascii=True)}\n" for row in rows),
        }
