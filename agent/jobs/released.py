"""Run a released prompt on rows, and make tasks of rows without right answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.evaluate.evaluator import Evaluator
from agent.gateway.embedding import Embedder
from agent.jobs.embeddings import embedder_of
from agent.jobs.session import Session
from agent.programs.variants import ReleasedCandidate, ReleasedProgram
from agent.release.runtime import Prompt
from agent.release.suite import Suite
from agent.types import (
    LM,
    Budget,
    Constraints,
    Example,
    Field,
    Metric,
    MetricSpec,
    Prediction,
    Rubric,
    Score,
    SearchSpace,
    Signature,
    Task,
)


class Readable:
    """The metric of rows without right answers: 1 for a reply that can be read."""

    name = "readable"

    async def score(self, example: Example, prediction: Prediction) -> Score:
        return Score(self.name, 0.0 if prediction.error else 1.0, prediction.error)


def bare_task(name: str, about: str, signature: Signature, folder: Path, hashes: dict[str, str], **more: Any) -> Task:
    """Make a task for the ledger that is not searched; `more` are other fields."""
    nothing, space = Constraints(), SearchSpace((), (), ())
    task = Task(name, about, signature, "", (), space, nothing, Budget(), (), (), (), str(folder), hashes=hashes)
    return replace(task, **more)


def task_of_suite(suite: Suite, prompt: Prompt, folder: Path, rubrics: Mapping[str, Rubric]) -> Task:
    """Make a task whose dev rows are those of a suite; `folder` may hold metric.py."""
    task = rows_task(prompt, folder, suite.description, suite.rows, "")
    own: dict[str, Any] = {"name": suite.name, "metrics": suite.metrics, "model": suite.model, "judges": suite.judges}
    return replace(task, **own, rubrics=rubrics, hashes={"suite": suite.id})


def rows_task(prompt: Prompt, folder: Path, about: str, rows: Sequence[Example], digest: str) -> Task:
    """Make a task with unlabelled rows as its dev rows; `digest` is the SHA-256 of their file."""
    signature = Signature(tuple(Field(name) for name in prompt.release.inputs), prompt.release.outputs)
    metrics = (MetricSpec(Readable.name, ""),)
    more = {"metrics": metrics, "dev": tuple(rows), "model": prompt.model, "max_tokens": 1}
    return bare_task(prompt.name, about, signature, folder, {"rows": digest}, **more)


async def released(
    asking: Session[Any],
    prompt: Prompt,
    lm: LM,
    embedding: LM | None,
    rows: Sequence[Example],
    metrics: Sequence[Metric] = (Readable(),),
) -> tuple[Evaluator, ReleasedCandidate, Embedder | None]:
    """Return the evaluator of a released prompt, the prompt as a candidate, and its embedder.

    Args:
        asking: the session of the job.
        prompt: the prompt.
        lm: the model.
        embedding: the provider's model by whose vectors the prompt picks examples.
        rows: whose vectors are requested at once.
        metrics: score the answers.
    """
    embedder = await embedder_of(prompt, asking.gateway, embedding, rows)
    program = ReleasedProgram(prompt, asking.task, lm, embedder)
    candidate = program.candidate
    made = Evaluator(asking.task, asking.gateway, lm, metrics, [program], baseline_id=candidate.id)
    return made, candidate, embedder


def head(asking: Session[Any], prompt: Prompt) -> dict[str, Any]:
    """Return the first fields of a result about a released prompt."""
    return {"run_id": asking.id, "name": prompt.name, "version": prompt.version, "model": asking.model}
