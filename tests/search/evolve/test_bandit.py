"""An operator that yields nothing is used ever less, one that yields something ever more, and the seed decides."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from agent.search.evolve.decisions import Bandit

NAMES = ("fresh", "swapped", "proposed")


def used(bandit: Bandit, draws: int = 600, seed: int = 1) -> Counter[str]:
    rng = random.Random(seed)
    return Counter(bandit.draw(NAMES, rng) for _ in range(draws))


def told(**results: tuple[int, int]) -> Bandit:
    bandit = Bandit()
    for name, (wins, losses) in results.items():
        for won in [True] * wins + [False] * losses:
            bandit.update(name, won)
    return bandit


def test_with_nothing_known_all_are_used_alike() -> None:
    counts = used(Bandit())
    assert min(counts[name] for name in NAMES) > 600 / 3 * 0.75


def test_an_operator_that_never_wins_is_used_ever_less() -> None:
    shares = [used(told(swapped=(0, losses)))["swapped"] for losses in (0, 5, 20, 80)]
    assert shares == sorted(shares, reverse=True)
    assert len(set(shares)) == 4
    assert shares[-1] < 0.05 * 600


def test_one_that_wins_is_used_most_and_the_others_are_not_given_up() -> None:
    counts = used(told(fresh=(1, 4), swapped=(8, 4), proposed=(1, 4)))
    assert counts.most_common(1)[0][0] == "swapped"
    assert min(counts[name] for name in NAMES) > 0


@given(st.lists(st.sampled_from(NAMES), min_size=1, unique=True), st.integers(0, 1000))
def test_only_what_can_be_used_is_drawn_and_the_seed_decides(names: list[str], seed: int) -> None:
    bandit = told(fresh=(3, 0))
    drawn = [bandit.draw(names, random.Random(seed)) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert drawn[0] in names
