"""A judge that is a released prompt: its answer is a rating, or which of two answers is better.

Its last inputs are what is judged: one answer, or two. Texts of rows and models are defused as in `prompt/fence.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.errors import InputError
from agent.prompt.bound import BoundPrompt
from agent.prompt.fence import defused
from agent.scoring.judge_reply import REASON_CHARACTERS, Judgement
from agent.task.judge_files import RATING, VERDICT, VERDICTS
from agent.types import Completion, Request

TAG = {"judge": "tune"}  # of a search for a judge, which is promoted once it was measured


@dataclass(frozen=True, slots=True)
class TunedPrompt:
    """A prompt that judges, its version and the parameters of its calls."""

    prompt: BoundPrompt
    version: str
    parameters: Mapping[str, Any]

    def __post_init__(self) -> None:
        output, name = self.prompt.outputs[0], self.prompt.name
        known = {RATING: len(output.choices) > 1, VERDICT: set(output.choices) == set(VERDICTS)}
        if len(self.prompt.outputs) > 1 or not known.get(output.name) or len(self.prompt.inputs) < self.judged:
            raise InputError(f"{name} {self.version} is no judge; name a release of `optimize judge tune`")

    @property
    def mode(self) -> str:
        return "pairwise" if self.prompt.outputs[0].name == VERDICT else "rubric"

    @property
    def judged(self) -> int:
        """The number of answers that it sees."""
        return 2 if self.mode == "pairwise" else 1

    @property
    def values(self) -> Mapping[str, float]:
        """The value of each verdict for the (first) answer, in [0, 1]."""
        if self.mode == "pairwise":
            return VERDICTS
        levels = [float(choice) for choice in self.prompt.outputs[0].choices]
        low, high = min(levels), max(levels)
        return {choice: (float(choice) - low) / (high - low) for choice in self.prompt.outputs[0].choices}

    def asked(
        self, inputs: Mapping[str, str], answers: Sequence[str], repeat: int
    ) -> tuple[Request, Callable[[Completion], Judgement]]:
        """Return the request about one answer or two, and the reader of its reply."""
        names = self.prompt.inputs
        shown = {name: inputs.get(name, "") for name in names} | dict(zip(names[-self.judged :], answers, strict=True))
        row = self.prompt.row({name: defused(text) for name, text in shown.items()})

        def read(reply: Completion) -> Judgement:
            found = self.prompt.read(reply.text, reply.logprobs, row, reply.label_logprobs)
            if found.error:
                return Judgement(None, f"the judge's answer has no readable verdict: {found.error}")
            verdict = str(found.fields[self.prompt.outputs[0].name])
            value, why = self.values[verdict], " ".join(reply.text.split())[:REASON_CHARACTERS]
            if self.mode == "rubric" and (shares := self.prompt.shares(reply, row)):  # the expected rating says more
                value = math.fsum(share * each for share, each in zip(shares, self.values.values(), strict=True))
            return Judgement(value, why if why == verdict else f"{verdict}: {why}")

        return self.prompt.request(row, repeat=repeat, **self.parameters), read
