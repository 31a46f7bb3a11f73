"""Operator `whole`: a new instruction, from the history and the failures; several in one call of a strong proposer.

Source: reflection over a minibatch of failures (GEPA, arXiv 2507.19457); instructions with their scores (OPRO, arXiv
2309.03409).
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.programs.moves.proposals.asking import FREE, Asks, Draft, Question, Read
from agent.programs.moves.proposals.checks import why_labels_lost
from agent.programs.moves.proposals.evidence import Evidence
from agent.programs.moves.proposals.parts import Assembled
from agent.programs.moves.propose import (
    FAILURES,
    HISTORY,
    STYLES,
    failures_of,
    read_proposals,
    request_messages,
    why_not_whole,
    why_refused,
)
from agent.search.call_costs import SEVERAL, proposal_tokens
from agent.types import Completion


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole instruction. A proposer whose latest one passed the checks is strong: it reflects and writes several."""

    name: str = "whole"

    def applies(self, evidence: Evidence) -> bool:
        return True

    async def make(self, evidence: Evidence, ask: Asks) -> list[Draft]:
        task, number = evidence.task, evidence.asked.get(self.name, 0)
        several = SEVERAL if evidence.is_strong else 1
        wrong = [outcome for outcome in evidence.best.outcomes if outcome.value is not None]
        start = FAILURES * number % max(1, len(evidence.wrong()))
        failures = failures_of(list(evidence.dev.values()), wrong, len(wrong))
        batch = [*failures[start:], *failures[:start]][:FAILURES]
        style = STYLES[number % len(STYLES)]
        messages = request_messages(task, evidence.tried[-HISTORY:], batch, style, evidence.rng, several)

        def read(reply: Completion) -> Read:
            texts, reasons = list[str](), [why_not_whole(reply)]
            for text in read_proposals(reply, several):
                refused = why_refused(text, task) or why_labels_lost(text, task)
                reasons.append(refused)
                if not refused:
                    texts.append(text)
            return (
                (tuple(texts), "") if texts and not reasons[0] else ((), next(filter(None, reasons), "no instruction"))
            )

        question = Question(messages, read, proposal_tokens(task, several), FREE)
        return [
            Draft(Assembled(text), f"the proposer was asked: {style}", alone=True)
            for texts in await ask([question])
            for text in texts
        ]
