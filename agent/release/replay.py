"""A released prompt on rows, as production uses it: its own messages, parameters and reading. Knows no search.

What is sent is what `load_prompt(...).render(...)` gives; nothing is laid out anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agent.gateway.gateway import Gateway
from agent.release.completion import parameters_of
from agent.release.runtime import Prompt
from agent.scoring.evaluate import Evaluator
from agent.types import LM, Candidate, Example, Message, Metric, Outcome, Request, Task


class ReleaseEvaluator(Evaluator):
    """`ask` gives one outcome per row; nothing is written into the ledger but the calls."""

    def __init__(self, prompt: Prompt, task: Task, gateway: Gateway, lm: LM, metrics: Sequence[Metric]) -> None:
        release = prompt.release
        technique = "chain-of-thought" if release.reasoning else "zero-shot"
        self.stand_in = Candidate(technique, "turns", prompt.version)  # type: ignore[arg-type]
        super().__init__(task, gateway, lm, metrics, lambda split, outcome: None, baseline_id=self.stand_in.id)
        self._prompt = prompt
        self._parameters = parameters_of(release)
        self._more = 0 if lm.name == release.model else task.thinking  # the released cap holds that of its own model

    async def ask(self, rows: Sequence[Example], repeat: int) -> list[Outcome]:
        """Raises what `outcomes` raises."""
        return await self.outcomes(self.stand_in, rows, "dev", repeat)

    def template(self, candidate: Candidate) -> tuple[Message, ...]:
        return self._prompt.release.messages

    def max_tokens(self, candidate: Candidate) -> int:
        return int(self._parameters["max_tokens"]) + self._more

    def request(self, candidate: Candidate, example: Example, repeat: int = 0) -> Request:
        asked = super().request(candidate, example, repeat)
        return replace(asked, **{name: self._parameters[name] for name in ("temperature", "stop", "seed")})
