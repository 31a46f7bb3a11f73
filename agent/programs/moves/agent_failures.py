"""Where the failures of an agent show, and the gain of each change of one of its texts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from agent.programs.agent import AgentProgram, as_agent
from agent.programs.moves.evidence import PERFECT, Wrong, inputs_of, labels_of, line_of, wrong_rows
from agent.search.context import SearchContext
from agent.search.program import Parent
from agent.types import Outcome

MOST_OF_A_TRACE = 1000  # letters
PRIOR_ROWS = 2  # rows without a gain that each change is given


@dataclass(frozen=True, slots=True)
class ScoredChange:
    """A change of one text; `gain`: the shrunk mean over the rows that the text took part in."""

    name: str
    before: str
    after: str
    gain: float = 0.0

    @property
    def is_lost(self) -> bool:
        return self.gain < 0 or (self.gain == 0 and len(self.after) >= len(self.before))


class Failures:
    """The rollouts of a search's candidates, by the texts that took part in them."""

    def __init__(self, context: SearchContext, program: AgentProgram) -> None:
        self._context, self._program = context, program

    def _took_part(self, candidate_id: str, row_id: str, name: str) -> bool:
        trace = self._program.trace(candidate_id, row_id)
        return trace is None or not trace.took_part or name in trace.took_part

    def rollouts(self, parent: Parent, name: str) -> list[tuple[Outcome, bool]]:
        """Return the scored rollouts that a text took part in, and whether a step of it went wrong."""
        found, candidate_id = [], parent.proposal.candidate.id
        for outcome in parent.outcomes:
            if outcome.value is not None and self._took_part(candidate_id, outcome.example_id, name):
                trace = self._program.trace(candidate_id, outcome.example_id)
                at = None if trace is None else trace.went_wrong
                found.append((outcome, trace is not None and at is not None and name in trace.steps[at].texts))
        return found

    def weight(self, parent: Parent, name: str) -> float:
        """Weigh a text by the score lost in its rollouts, twice in a step that went wrong, and the share lost."""
        known = [(outcome.value or 0.0, erred) for outcome, erred in self.rollouts(parent, name)]
        lost = math.fsum((1.0 - value) * (1 + erred) for value, erred in known)
        return lost * lost / (lost + math.fsum(value for value, _ in known)) if lost else 0.0

    def wrong(self, parent: Parent, name: str) -> list[Wrong]:
        """Return the wrong rows that a text took part in; first those where a step of it went wrong.

        All are returned for a text that was never seen: agents may write a text in another way.
        """
        ordered = sorted(self.rollouts(parent, name), key=lambda rollout: not rollout[1])
        return wrong_rows(self._context.dev, [outcome for outcome, _ in ordered] or parent.outcomes)

    def right(self, parent: Parent, name: str) -> list[str]:
        return [outcome.example_id for outcome, _ in self.rollouts(parent, name) if (outcome.value or 0.0) >= PERFECT]

    def shown(self, parent: Parent, wrong: Wrong) -> str:
        """Show what the agent did on a row, the right answer, and what the metrics say."""
        trace, said = self._program.trace(parent.proposal.candidate.id, wrong.row.id), wrong.outcome.prediction
        did, third = inputs_of(wrong.row) if trace is None else trace.text, MOST_OF_A_TRACE // 3
        if len(did) > MOST_OF_A_TRACE:  # of a long one the beginning is shown, and more of the end
            did = f"{did[:third]} [...] {did[-2 * third :]}"
        reasons = dict.fromkeys(score.reason for score in wrong.outcome.scores if (score.value or 0.0) < PERFECT)
        why = "; ".join(filter(None, reasons)) or said.error
        told = {"answer": said.raw, "right answer": labels_of(wrong.row), "why": why}
        return "\n".join([did, *(f"{name}: {line_of(text)}" for name, text in told.items() if text)])

    def changes(self) -> Iterator[ScoredChange]:
        """Compare each candidate that differs from its parent in one text, on the rows of both."""
        trials, baseline = self._context.trials, self._context.baseline.id
        for candidate_id, outcomes in trials.outcomes.items():
            parent_id = trials.proposals[candidate_id].parent_id or baseline
            old, new = as_agent(trials.candidate(parent_id)).named, as_agent(trials.candidate(candidate_id)).named
            names = [name for name in new if new[name] != old[name]]
            if len(names) == 1:
                gains = [
                    after.value - before.value
                    for before, after in zip(trials.outcomes.get(parent_id, ()), outcomes, strict=False)
                    if before.value is not None and after.value is not None
                    if any(self._took_part(each, after.example_id, names[0]) for each in (parent_id, candidate_id))
                ]
                gain = math.fsum(gains) / (len(gains) + PRIOR_ROWS)
                yield ScoredChange(names[0], old[names[0]], new[names[0]], gain)
