"""A released prompt on rows without right answers: the task that they make, and a metric that says what can be read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agent.release.runtime import Prompt
from agent.types import Budget, Constraints, Example, Field, MetricSpec, Prediction, Score, SearchSpace, Signature, Task


class Readable:
    """The metric of rows without right answers: 1 for a reply that could be read."""

    name = "readable"

    async def score(self, example: Example, prediction: Prediction) -> Score:
        return Score(self.name, 0.0 if prediction.error else 1.0, prediction.error)


def rows_task(prompt: Prompt, folder: Path, about: str, rows: Sequence[Example], digest: str) -> Task:
    """The rows as the dev rows of a task.

    Args:
        prompt: names the task, its inputs and outputs.
        folder: where the ledger says that the task is.
        about: a sentence for people.
        rows: their inputs are those of the prompt; they have no labels.
        digest: the SHA-256 of what holds them, in hex.
    """
    return Task(
        name=prompt.name,
        description=about,
        signature=Signature(tuple(Field(name) for name in prompt.release.inputs), prompt.release.outputs),
        instruction="",
        metrics=(MetricSpec(Readable.name, ""),),
        space=SearchSpace((), (), ()),
        constraints=Constraints(),
        budget=Budget(),
        train=(),
        dev=tuple(rows),
        test=(),
        folder=str(folder),
        model=prompt.model,
        max_tokens=1,
        hashes={"rows": digest},
    )
