"""Scores of arms on the same rows, and comparisons of arms. Knows no model and no kind of arm."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from agent.errors import BudgetExhausted
from agent.evaluate.breakdown import summary
from agent.results.breakdown import Side
from agent.results.run_parts import PairedResult
from agent.stats.intervals import scored_difference
from agent.types import Candidate, Example, Outcome, SplitName

if TYPE_CHECKING:
    from agent.gateway.gateway import Gateway

Scores = Mapping[tuple[str, Hashable], float | None]
"""Scores in [0, 1] by row and repeat; None: the row could not be scored."""


class Answering(Protocol):
    """A source of an arm's outcomes, as `Evaluator` is one: recorded answers, or a judge."""

    async def outcomes(
        self, candidate: Candidate, examples: Sequence[Example], split: SplitName, repeat: int = 0
    ) -> list[Outcome]: ...


@dataclass(frozen=True, slots=True)
class NamedCandidate(Candidate):
    """An arm that is no prompt: recorded answers, or a judge."""

    kind: ClassVar[str] = "named"
    name: str

    def parts(self) -> dict[str, Any]:
        return {"name": self.name}


@dataclass(frozen=True, slots=True)
class Arm:
    """A candidate, and what scores its answers. `rows` and `repeats` replace those of the other arms."""

    name: str
    candidate: Candidate
    evaluator: Answering
    rows: Sequence[Example] | None = None
    repeats: int | None = None


class ScoreTable:
    """Scores by arm, row and repeat. A row counts with the mean of its repeats that have a score."""

    def __init__(
        self,
        scores: Mapping[str, Scores],
        outcomes: Mapping[str, Sequence[Sequence[Outcome]]] | None = None,
        rows: Sequence[Example] = (),
    ) -> None:
        self.rows, self._scores, self._outcomes = rows, scores, outcomes or {}

    @classmethod
    def of(cls, outcomes: Mapping[str, Sequence[Sequence[Outcome]]], rows: Sequence[Example] = ()) -> ScoreTable:
        """Build a table from the passes of each arm over the rows, in row order."""
        scores: dict[str, Scores] = {
            arm: {(one.example_id, repeat): one.value for repeat, each in enumerate(passes) for one in each}
            for arm, passes in outcomes.items()
        }
        return cls(scores, outcomes, rows)

    def values(self, arm: str) -> list[float | None]:
        """Return an arm's scores in row order; [] if the budget left it out."""
        return list(_by_row(self._scores.get(arm, {})).values())

    def passes(self, arm: str) -> list[list[Outcome]]:
        """Return the answers of an arm by repeat, in row order."""
        return [list(each) for each in self._outcomes.get(arm, ())]

    def first(self, arm: str) -> list[Outcome]:
        """Return the first answers of an arm; [] if the budget left it out."""
        return list(next(iter(self._outcomes.get(arm, ())), ()))

    def answers(self, arm: str) -> dict[str, list[Outcome]]:
        """Return all answers of an arm by row id."""
        found: dict[str, list[Outcome]] = {}
        for outcome in (each for outcomes in self.passes(arm) for each in outcomes):
            found.setdefault(outcome.example_id, []).append(outcome)
        return found

    def mean(self, arm: str) -> Side:
        return summary(self.values(arm))

    def paired(self, arm: str, other: str, seed: int) -> PairedResult | None:
        """Compare two arms, first minus other, over the rows and repeats that both answered."""
        first, second = self._scores.get(arm, {}), self._scores.get(other, {})
        shared = [key for key, score in first.items() if score is not None and second.get(key) is not None]
        ours, theirs = (list(_by_row({key: side[key] for key in shared}).values()) for side in (first, second))
        return scored_difference(ours, theirs, seed)


def _by_row(scores: Scores) -> dict[str, float | None]:
    known: dict[str, list[float]] = {}
    for (row, _), score in scores.items():
        known.setdefault(row, []).extend([] if score is None else [score])
    return {row: sum(values) / len(values) if values else None for row, values in known.items()}


class Asking(Protocol):
    """The part of a session that scores arms. `stopped`: why the budget ended the calls."""

    stopped: str

    @property
    def gateway(self) -> Gateway: ...

    async def ahead(self, sets: Sequence[Callable[[], Awaitable[object]]]) -> None: ...


async def score(
    session: Asking,
    arms: Sequence[Arm],
    rows: Sequence[Example],
    split: SplitName = "dev",
    repeats: int = 1,
    is_partial: bool = False,
) -> ScoreTable:
    """Score arms on the same rows, or as one provider batch. `is_partial`: leave out what the budget does not pay."""
    asked: list[tuple[str, Callable[[], Awaitable[list[Outcome]]]]] = []
    ahead, begun = [], defaultdict[tuple[int, str, int], set[str]](set)
    for arm in arms:
        own = rows if arm.rows is None else arm.rows
        for repeat in range(repeats if arm.repeats is None else arm.repeats):
            asked.append((arm.name, partial(arm.evaluator.outcomes, arm.candidate, own, split, repeat)))
            known, ids = begun[id(arm.evaluator), arm.candidate.id, repeat], {row.id for row in own}
            if not ids <= known:  # what another arm asks as well is known in its turn
                ahead.append(asked[-1][1])
            known |= ids
    await session.ahead(ahead)
    found: dict[str, list[list[Outcome]]] = defaultdict(list)
    for name, ask in asked:
        try:
            found[name].append(await ask())
        except BudgetExhausted as stop:
            if not is_partial:
                raise
            session.stopped = str(stop)
            await session.gateway.drain()
    return ScoreTable.of(found, rows)
