"""Optuna's pruner in the place of our race: what is clearly worse goes, the best never does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.search.study import behind_by_wilcoxon

RUNGS = (8, 22, 62)
score = st.one_of(st.none(), st.sampled_from([0.0, 0.5, 1.0]))


def test_what_is_clearly_worse_on_the_same_rows_goes_and_what_is_close_stays() -> None:
    scores = {"best": [1.0] * 22, "close": [1.0] * 20 + [0.0] * 2, "worse": [0.0] * 22, "short": [0.0] * 8}
    reasons = behind_by_wilcoxon(scores, RUNGS)
    assert set(reasons) == {"worse", "short"}
    assert reasons["worse"] == "behind after 22 paired rows by a signed-rank test: 0.00, the best of them has 1.00"
    assert reasons["short"].startswith("behind after 8 paired rows")


def test_a_lucky_start_on_few_rows_is_not_what_others_are_compared_with() -> None:
    scores = {"lucky": [1.0] * 8, "best": [0.75] * 22, "near": [0.5, 1.0] * 11}
    assert behind_by_wilcoxon(scores, RUNGS) == {}


@given(st.lists(st.lists(score, max_size=22), max_size=5))
def test_never_the_best_of_the_highest_rung_and_nothing_before_the_first(rows: list[list[float | None]]) -> None:
    scores = {str(number): row for number, row in enumerate(rows)}
    reasons = behind_by_wilcoxon(scores, RUNGS)
    given_ = {name: [v for v in row if v is not None] for name, row in scores.items()}
    highest = max((sum(len(scores[n]) >= rung for rung in RUNGS) for n, v in given_.items() if v), default=0)
    top = [n for n, v in given_.items() if v and sum(len(scores[n]) >= rung for rung in RUNGS) == highest]
    if top:
        assert max(top, key=lambda n: sum(given_[n]) / len(given_[n])) not in reasons
    for name in reasons:
        assert len(given_[name]) >= RUNGS[0]
    assert behind_by_wilcoxon(scores, RUNGS) == reasons
