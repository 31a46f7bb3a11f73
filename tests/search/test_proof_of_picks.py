"""A candidate whose examples are picked for each row is chosen only where it beats the best of the others on dev."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from agent.ledger.store import Ledger
from agent.prompt.prompt_candidate import PromptCandidate
from agent.retrieval.pick import Picks
from agent.search import selection
from agent.search.context import SearchContext
from agent.search.evolve.evolve import rival_placed
from agent.search.selection import Finalist, Prefer
from agent.types import Demo, Proposal
from tests.search.worlds import TASK, made_search
from tests.toys import FakeModel

ROWS = 40
DEMOS = tuple(Demo(row.id, row.inputs, {"team": str(row.labels["team"])}) for row in TASK.train[:3])
FIXED = PromptCandidate("few-shot", "inline", "Pick the team.", demos=DEMOS)
SHORT = PromptCandidate("few-shot", "inline", "Team?", demos=DEMOS[:1])


def scores(right: int, first: int = 0) -> list[float | None]:
    """So many rows right, from row `first` on."""
    return [1.0 if (row - first) % ROWS < right else 0.0 for row in range(ROWS)]


def begun(ledger: Ledger) -> tuple[SearchContext, PromptCandidate, list[tuple[str, object]]]:
    """A context with two candidates that do not pick and one that does; and its events."""
    found = made_search(ledger, FakeModel(lambda request: "billing"))
    context = found.context
    context.adopt(Proposal(context.baseline, {}, "baseline", None, ""))
    pool = context.program.pool.id  # type: ignore[attr-defined]
    picked = replace(FIXED, demos=(), picks=Picks("bm25", 4, pool=pool))
    context.admit([Proposal(made, {}, "op", None, "why") for made in (FIXED, SHORT, picked)])
    return context, picked, found.written.events


def choice(context: SearchContext, how: Prefer, **given: tuple[str, Sequence[float | None]]) -> str:
    offers = [Finalist(candidate_id, values, 100, None) for candidate_id, values in given.values()]
    return selection.chosen(context, offers, how).id


@pytest.mark.parametrize(("right", "proved"), [(20, False), (21, False), (23, False), (26, True), (40, True)])
async def test_picks_must_beat_the_best_of_the_others_row_by_row(ledger: Ledger, right: int, proved: bool) -> None:
    """Of 40 rows the fixed prompt has 20 right, and the other all of these and more: 5 more are one in 20 by chance."""
    context, picked, events = begun(ledger)
    own = (context.baseline.id, scores(8))
    found = choice(context, "best", own=own, fixed=(FIXED.id, scores(20)), picked=(picked.id, scores(right)))
    assert found == (picked.id if proved else FIXED.id)
    refused = [body for kind, body in events if kind == "picks_not_proved"]
    assert refused == ([] if proved or right == 20 else [{"candidate_id": picked.id, "against": FIXED.id}])


async def test_the_best_of_many_that_pick_must_be_better_than_the_best_of_many_is_by_luck(ledger: Ledger) -> None:
    """6 rows won and none lost are enough for the only prompt that picks, not for one of ten that vary."""
    context, picked, events = begun(ledger)
    many = [replace(picked, instruction=f"Wording {number}.") for number in range(9)]
    context.admit([Proposal(made, {}, "op", None, "why") for made in many])
    own, fixed = (context.baseline.id, scores(8)), (FIXED.id, scores(20))
    best, clear = (picked.id, scores(26)), (picked.id, scores(34))
    others = {f"other{number}": (made.id, scores(21, first=8 + number)) for number, made in enumerate(many)}
    assert choice(context, "best", own=own, fixed=fixed, picked=best) == picked.id
    assert choice(context, "best", own=own, fixed=fixed, picked=best, **others) == FIXED.id
    assert [kind for kind, _ in events if kind == "picks_not_proved"] == ["picks_not_proved"]
    assert choice(context, "best", own=own, fixed=fixed, picked=clear, **others) == picked.id


async def test_the_users_own_prompt_is_no_rival_as_the_sealed_test_compares_with_it(ledger: Ledger) -> None:
    context, picked, events = begun(ledger)
    own = (context.baseline.id, scores(20))
    assert choice(context, "best", own=own, picked=(picked.id, scores(20))) == context.baseline.id
    assert choice(context, "best", own=own, picked=(picked.id, scores(22))) == picked.id
    part = (context.baseline.id, scores(20)[:22])
    assert choice(context, "best", own=part, picked=(picked.id, scores(28))) == picked.id
    assert choice(context, "best", own=own, fixed=(FIXED.id, scores(18)), picked=(picked.id, scores(22))) == picked.id
    assert events == []


async def test_where_the_preferred_of_all_is_no_better_on_the_rows_of_the_users_own_another_that_is_goes_to_the_test(
    ledger: Ledger,
) -> None:
    context, _, _ = begun(ledger)
    own = (context.baseline.id, scores(11)[:22])
    late, early = (FIXED.id, scores(30, first=10)), (SHORT.id, scores(22))
    assert choice(context, "best", own=own, late=late) == FIXED.id
    later = (FIXED.id, scores(29, first=11))
    assert choice(context, "best", own=own, late=later) == context.baseline.id
    assert choice(context, "best", own=own, late=later, early=early) == SHORT.id


async def test_the_users_own_prompt_is_not_the_one_that_finalists_with_picks_are_compared_with(ledger: Ledger) -> None:
    """It may lack what any examples bring."""
    context, picked, _ = begun(ledger)
    others = [replace(picked, instruction=f"Wording {number}.") for number in range(3)]
    context.admit([Proposal(made, {}, "op", None, "why") for made in others])
    first = [made.id for made in others]
    own = context.baseline.id
    await context.see([own], context.plan.dev_rows)
    assert rival_placed(context, [own, *first, SHORT.id]) == [first[0], SHORT.id, *first[1:]]
    assert rival_placed(context, [*first, own, SHORT.id]) == [first[0], SHORT.id, *first[1:]]
    assert rival_placed(context, [own, *first]) == first
