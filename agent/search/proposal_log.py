"""What the proposer was asked for in a search and what became of it: kept by the moves, read at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from agent.results.run_parts import OperatorUse, ProposalFate
from agent.search.board import Board

Became = Literal["refused", "dropped", "waiting", "tried", "finalist", "winner"]


@dataclass(slots=True)
class ProposalLog:
    """The proposals of a search in their order; `calls` of the proposer that were made for them, failed ones too."""

    calls: int = 0
    records: list[ProposalFate] = field(default_factory=list)

    def open(self, operator: str, **values: Any) -> ProposalFate:
        self.records.append(ProposalFate(number=len(self.records) + 1, operator=operator, **values))
        return self.records[-1]

    def change(self, number: int, **changes: Any) -> None:
        self.records[number - 1] = self.records[number - 1].model_copy(update=changes)

    def became(self, record: ProposalFate, board: Board, winner_id: str = "") -> Became:
        """How far the proposal came."""
        if record.refused:
            return "refused"
        if record.became == "dropped":
            return "dropped"
        tried = _tried(record, board)
        if not tried:
            return "waiting"
        if winner_id in tried:
            return "winner"
        return "finalist" if any(board.trials[i].state == "complete" for i in tried) else "tried"

    def climbed(self, record: ProposalFate, board: Board, first: int) -> bool:
        """Whether one of its candidates came further than the `first` rows."""
        return any(len(board.outcomes[i]) > first or board.trials[i].state == "complete" for i in _tried(record, board))

    def fates(self, board: Board, winner_id: str) -> list[ProposalFate]:
        """The records with what became of each."""
        found = []
        for record in self.records:
            compared = _compared(record, board) if record.before is None else {}
            became = self.became(record, board, winner_id)
            found.append(record.model_copy(update={**compared, "became": became}))
        return found


def _tried(record: ProposalFate, board: Board) -> list[str]:
    proposals = board.proposals
    return [i for i in board.outcomes if record.instruction and record.instruction in proposals[i].place.values()]


def _compared(record: ProposalFate, board: Board) -> dict[str, float | None]:
    """The best of its candidates against the one that it changes, on the dev rows that both have a score for."""
    tried = _tried(record, board)
    if tried and record.parent_id:
        best = max(tried, key=lambda i: (len(board.outcomes[i]), board.mean(i) or 0.0))
        pairs = zip(board.outcomes.get(record.parent_id, ()), board.outcomes[best], strict=False)
        scored = [(one.value, two.value) for one, two in pairs if one.value is not None and two.value is not None]
        if scored:
            before, after = zip(*scored, strict=True)
            return {"before": sum(before) / len(scored), "after": sum(after) / len(scored)}
    return {"before": None, "after": None}


def by_operator(proposals: Sequence[ProposalFate]) -> list[OperatorUse]:
    """Sum up `ProposalLog.fates` by operator, in the order in which they were first used.

    `points` is the mean change of the score over those that were compared; None without any.
    """
    found = []
    for name in dict.fromkeys(each.operator for each in proposals):
        mine = [each for each in proposals if each.operator == name]
        states = [each.became for each in mine]
        changes = [each.after - each.before for each in mine if each.before is not None and each.after is not None]
        found.append(
            OperatorUse(
                operator=name,
                asked=len(mine),
                refused=states.count("refused"),
                dropped=states.count("dropped"),
                tried=sum(state in ("tried", "finalist", "winner") for state in states),
                finalists=sum(state in ("finalist", "winner") for state in states),
                points=100 * sum(changes) / len(changes) if changes else None,
            )
        )
    return found
