"""The kind `released`: a released prompt on rows, as production uses it: its own messages, parameters and reading.

It sends what `load_prompt(...).render(...)` gives.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from agent.errors import RowRefused
from agent.gateway.embedding import Embedder
from agent.prompt.calibration import read_reply
from agent.release.completion import parameters_of
from agent.release.runtime import Prompt
from agent.retrieval.passages import bare_passages
from agent.retrieval.pool import text_of
from agent.types import LM, Call, Candidate, Example, Prediction, Request, Task
from agent.worker import run_aside


@dataclass(frozen=True, slots=True)
class ReleasedCandidate(Candidate):
    """A released prompt by the hash of its content."""

    kind: ClassVar[str] = "released"

    version: str

    def parts(self) -> dict[str, Any]:
        return {"version": self.version}


class ReleasedProgram:
    """Runs one released prompt on a model, its own or another.

    `embedder`: makes the vectors of rows, for a prompt that picks its examples by those of a provider.
    """

    kind = ReleasedCandidate.kind

    def __init__(self, prompt: Prompt, task: Task, lm: LM, embedder: Embedder | None = None) -> None:
        self._embedder = embedder
        self.candidate = ReleasedCandidate(prompt.version)
        self._release = prompt.release
        self._parameters = parameters_of(prompt.release)
        self._more = 0 if lm.name == prompt.model else task.thinking  # the released cap holds its own model's

    async def run(self, candidate: Candidate, example: Example, call: Call, repeat: int = 0) -> Prediction:
        parameters, release, vector = self._parameters, self._release, None
        if self._embedder is not None:
            vector = await self._embedder.vector(text_of(example.inputs, release.compared))
        completion = await call(
            Request(
                messages=release.fill(example.inputs, vector=vector),
                max_tokens=int(parameters["max_tokens"]) + self._more,
                repeat=repeat,
                tools=release.tools,
                **{name: parameters[name] for name in ("temperature", "stop", "seed", "logprobs", "labels")},
            )
        )
        if completion.finish == "refusal":
            raise RowRefused.by_provider(completion.text)
        votes, exact = release.votes(example.inputs), completion.label_logprobs
        how = (release.outputs, release.reasoning, release.calibration, votes, exact)
        read = partial(read_reply, completion.text, completion.logprobs, *how)
        prediction = await run_aside(len(completion.text), read)
        if release.passages is None:
            return prediction
        block = release.passages.for_inputs(example.inputs, release.compared)
        return replace(prediction, passages=bare_passages(block))
