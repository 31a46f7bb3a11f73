"""One of our own prompt candidates as what can be scored: with the demos that it picks for each row, and with its
replies read through its calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from agent.prompt.label_calibration import logprobs_for, read_reply
from agent.prompt.parts.calibration import TrainedPrior
from agent.prompt.parts.part import Row
from agent.prompt.parts.picks import PickedRows
from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.render import template
from agent.prompt.techniques import answers_last
from agent.prompt.template import PICKED, fill_messages
from agent.types import Completion, Example, Message, Request, Task
from tests.bench.arena.client import completions
from tests.bench.arena.data import label_field, scorer
from tests.bench.arena.systems.base import REPLY_TOKENS

PATIENCE_S = 600.0
"""Seconds that a call may wait for one engine on one busy core."""


@dataclass(frozen=True, eq=False)
class CandidatePrompt:
    """A candidate of `task`. `pool` has its train rows; `known` holds answers that were bought before, by row id."""

    task: Task
    pool: PickedRows
    candidate: PromptCandidate
    max_tokens: int = REPLY_TOKENS
    known: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def _classifier(self) -> TrainedPrior:
        return TrainedPrior(self.task)

    @property
    def key(self) -> str:
        return self.candidate.id

    def replies(self, url: str, role: str, rows: Sequence[Example]) -> list[str]:
        new = [row for row in rows if row.id not in self.known]
        bought = dict(zip((row.id for row in new), self.completions(url, role, new), strict=True))
        return [self.known[row.id] if row.id in self.known else self.answer(bought[row.id], row) for row in rows]

    def completions(
        self, url: str, role: str, rows: Sequence[Example], logprobs: bool = False
    ) -> list[Completion | None]:
        """The reply on each row. `logprobs`: with log-probabilities also where this candidate has no calibration."""
        labels = label_field(self.task).choices
        how: dict[str, Any] = {"timeout": PATIENCE_S}
        if logprobs or self.candidate.part("calibration"):
            how |= {"logprobs": logprobs_for(labels), "labels": labels}
        asked = [Request(self.messages(row), self.max_tokens, **how) for row in rows]
        return completions(url, role, asked)

    def messages(self, row: Example) -> tuple[Message, ...]:
        """What is sent for a row."""
        shape = template(self.candidate, self.task.signature)
        if self.candidate.part("picks") is None:
            return fill_messages(shape, row.inputs)
        picked = self.pool.bound(self.candidate).values(Row(row.inputs, self.task.signature.compared, row.id))
        return fill_messages(shape, row.inputs, picked[PICKED])

    def answer(self, reply: Completion | None, row: Example) -> str:
        """The text that the arena's scorer reads: of a candidate with calibration the label that they decide on."""
        if reply is None:
            return ""
        calibration, outputs = self.candidate.part("calibration"), self.task.signature.outputs
        if calibration is None and scorer(self.task).answers == "label":
            return reply.text
        votes = self.pool.votes(row, calibration.neighbours.k) if calibration and calibration.neighbours else ()
        votes = self._classifier.log_probabilities(row) if calibration and calibration.prior else votes
        how = (answers_last(self.candidate), calibration, votes, reply.label_logprobs)
        read = read_reply(reply.text, reply.logprobs, outputs, *how)
        return str(read.fields.get(label_field(self.task).name, ""))
