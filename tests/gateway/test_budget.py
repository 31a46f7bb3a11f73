"""No cap is passed, whatever is reserved, released and charged in which order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BudgetExhausted
from agent.gateway.budget import Account, Spend
from agent.types import Budget, Usage

SPENDS = st.builds(Spend, st.just(1), st.integers(0, 50), st.floats(0, 1))
CAPS = st.builds(
    Budget,
    st.none() | st.integers(0, 20),
    st.none() | st.integers(0, 300),
    st.none() | st.floats(0, 5),
)


@given(CAPS, st.lists(st.tuples(SPENDS, st.floats(0, 1), st.booleans()), max_size=40))
def test_paid_and_reserved_together_never_pass_a_cap(budget, steps):
    account, open_ = Account(budget), []
    for worst, share, settle in steps:
        try:
            account.reserve(worst)
            open_.append((worst, share))
        except BudgetExhausted:
            pass
        if settle and open_:
            held, part = open_.pop(0)
            account.release(held)
            account.charge("target", Spend(1, int(held.tokens * part), held.usd * part))
        paid = account.total_paid
        assert budget.max_calls is None or paid.calls + len(open_) <= budget.max_calls
        assert budget.max_tokens is None or paid.tokens + sum(w.tokens for w, _ in open_) <= budget.max_tokens
        assert budget.max_cost is None or paid.usd + sum(w.usd for w, _ in open_) <= budget.max_cost + 1e-9


def test_a_reservation_that_is_refused_leaves_nothing_behind():
    account = Account(Budget(max_calls=1))
    account.reserve(Spend(1))
    for _ in range(3):
        with pytest.raises(BudgetExhausted, match="max_calls = 1"):
            account.reserve(Spend(1))
    account.release(Spend(1))
    account.reserve(Spend(1))


def test_the_refusal_names_each_cap_and_is_one_line():
    with pytest.raises(BudgetExhausted) as caught:
        Account(Budget(max_calls=5, max_tokens=9, max_cost=0.5)).reserve(Spend(1, 10))
    assert "max_calls = 5, max_tokens = 9, max_cost = 0.5" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_roles_share_one_cap():
    account = Account(Budget(max_calls=2))
    account.charge("target", Spend(1))
    account.charge("proposer", Spend(1))
    with pytest.raises(BudgetExhausted):
        account.reserve(Spend(1))
    assert account.total_paid == Spend(2)


def test_used_counts_cached_calls_and_paid_does_not():
    account = Account(Budget())
    account.use("target", Usage(3, 2, 1), 0.25, cached=True)
    account.use("target", Usage(3, 2, 0), 0.25, cached=False)
    assert account.total_used == Spend(2, 10, 0.5)
    assert account.total_paid == Spend()
    assert account.cached == 1
    assert account.usage == Usage(6, 4, 1)


def test_a_time_limit_of_zero_is_over_at_once_and_none_never_is():
    assert Account(Budget(time_limit=0.0)).out_of_time()
    assert not Account(Budget()).out_of_time()
