"""What each part of an instruction adds: columns of the model of the parts, as single demos have them."""

from __future__ import annotations

from collections import Counter

from agent.programs.moves.pool import as_prompt
from agent.programs.moves.proposals.parts import Book
from agent.search.analysis.effects import PartsModel, ScoredCandidate
from agent.search.context import SearchContext

PART = "part of the instruction"
FEWEST = 2  # candidates that have a part, before anything is said of it


def part_effects(context: SearchContext, book: Book) -> dict[str, float]:
    """By its text, the points that a part of an instruction is believed to add; only parts of several candidates, and
    only where others are without."""
    table, counts = list[ScoredCandidate](), Counter[str]()
    for candidate_id, outcomes in context.board.outcomes.items():
        candidate = context.board.candidate(candidate_id)
        texts = {part.text for part in book.of(as_prompt(candidate).instruction).parts if part.text}
        counts.update(texts)
        columns = {**context.program.features(candidate), **{(PART, text): 1.0 for text in texts}}
        table.append(ScoredCandidate(candidate_id, columns, [outcome.value for outcome in outcomes]))
    known = {text for text, count in counts.items() if FEWEST <= count < len(table)}
    return {e.name: e.points for e in PartsModel(table).effects(PART) if e.name in known} if known else {}
