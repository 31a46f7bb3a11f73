"""The kind `released`: a released prompt on rows, as production uses it: its own messages, parameters and reading.

It sends what `load_prompt(...).render(...)` gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from agent.errors import RowRefused
from agent.prompt.weighted_reply import read_reply
from agent.release.completion import parameters_of
from agent.release.runtime import Prompt
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
    """Runs one released prompt on a model, its own or another."""

    kind = ReleasedCandidate.kind

    def __init__(self, prompt: Prompt, task: Task, lm: LM) -> None:
        self.candidate = ReleasedCandidate(prompt.version)
        self._release = prompt.release
        self._parameters = parameters_of(prompt.release)
        self._more = 0 if lm.name == prompt.release.model else task.thinking  # the released cap holds its own model's

    async def run(self, candidate: Candidate, example: Example, call: Call, repeat: int = 0) -> Prediction:
        parameters = self._parameters
        completion = await call(
            Request(
                messages=self._release.fill(example.inputs),
                max_tokens=int(parameters["max_tokens"]) + self._more,
                repeat=repeat,
                **{name: parameters[name] for name in ("temperature", "stop", "seed", "logprobs", "labels")},
            )
        )
        if completion.finish == "refusal":
            raise RowRefused(f"the provider refused this row: {completion.text[:200]}")
        release = self._release
        how = (release.outputs, release.reasoning, release.weights, completion.label_logprobs)
        return await run_aside(len(completion.text), partial(read_reply, completion.text, completion.logprobs, *how))
