"""No cap is passed, whatever is reserved, released and charged in which order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BudgetExhausted
from agent.gateway.budget import Account, HeldBack, Spend
from agent.ledger.resume_state import ResumeState
from agent.types import Budget, Usage

SPENDS = st.builds(Spend, st.just(1), st.integers(0, 50), st.floats(0, 1))
CAPS = st.builds(
    Budget,
    st.none() | st.integers(0, 20),
    st.none() | st.integers(0, 300),
    st.none() | st.floats(0, 5),
)


class Books:
    """What an account must add up to: its reservations that are open, and what was charged."""

    def __init__(self, budget):
        self.account = Account(budget)
        self.open, self.paid = [], Spend()

    def holds(self):
        """Whether everything paid and everything still open stays under the caps."""
        budget, total = self.account.budget, sum(self.open, self.paid)
        assert budget.max_calls is None or total.calls <= budget.max_calls
        assert budget.max_tokens is None or total.tokens <= budget.max_tokens
        assert budget.max_cost is None or total.usd <= budget.max_cost + 1e-9
        assert self.account.total_paid.calls == self.paid.calls
        assert self.account.total_paid.tokens == self.paid.tokens
        assert self.account.total_paid.usd == pytest.approx(self.paid.usd)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), SPENDS, st.floats(0, 1)),
        st.tuples(st.sampled_from(["charge", "charge whole", "release"]), st.integers(0, 99), st.floats(0, 1)),
    ),
    max_size=60,
)


@given(CAPS, STEPS, st.sampled_from(["model", "proposer", "judge"]))
def test_paid_and_reserved_together_never_pass_a_cap_in_whatever_order(budget, steps, role):
    books = Books(budget)
    for verb, what, share in steps:
        if verb == "reserve":
            try:
                books.account.reserve(what)
                books.open.append(what)
            except BudgetExhausted:
                books.holds()
        elif books.open:
            held = books.open.pop(what % len(books.open))
            books.account.release(held)
            if verb != "release":
                part = 1.0 if verb == "charge whole" else share
                spend = Spend(1, int(held.tokens * part), held.usd * part)
                books.account.charge(role, spend)
                books.paid += spend
        books.holds()


@given(CAPS, st.lists(SPENDS, max_size=20))
def test_what_is_released_can_be_reserved_again(budget, worsts):
    account, fitted = Account(budget), []
    for worst in worsts:
        try:
            account.reserve(worst)
            fitted.append(worst)
        except BudgetExhausted:
            break
    for worst in fitted:
        account.release(worst)
    for worst in fitted:
        account.reserve(worst)  # fits again


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_a_resumed_account_starts_from_what_was_paid(paid, cap, more):
    account = Account(Budget(max_calls=cap), ResumeState(paid={"model": Spend(paid, 0, 0.0)}))
    assert account.total_paid == Spend(paid)
    fitted = 0
    for _ in range(more):
        try:
            account.reserve(Spend(1))
            fitted += 1
        except BudgetExhausted:
            pass
    assert fitted == max(0, min(more, cap - paid))


def test_a_resumed_account_goes_on_in_time():
    with pytest.raises(BudgetExhausted, match="time_limit = 60"):
        Account(Budget(time_limit=60.0), ResumeState(seconds=61.0)).reserve(Spend(1))
    account = Account(Budget(time_limit=60.0), ResumeState(seconds=30.0))
    account.reserve(Spend(1))
    assert 30.0 <= account.seconds < 60.0


# -- what the end of the run needs -------------------------------------------------------------------------------------


def test_what_is_kept_is_there_at_the_end():
    account = Account(Budget(max_calls=10, max_tokens=1000, max_cost=1.0))
    account.hold_back(HeldBack(4, 0.5))
    for _ in range(6):
        account.reserve(Spend(1, 10, 0.01))
    with pytest.raises(BudgetExhausted, match="max_calls = 10"):
        account.reserve(Spend(1))
    account.hold_back(HeldBack())
    for _ in range(4):
        account.reserve(Spend(1, 10, 0.01))
    with pytest.raises(BudgetExhausted, match="max_calls = 10"):
        account.reserve(Spend(1))


@given(st.integers(0, 200), st.integers(0, 60), st.integers(0, 60), st.integers(0, 40))
def test_what_is_payable_can_be_bought_if_as_many_are_lost_as_so_far(cap, home, lost, kept):
    account = Account(Budget(max_calls=cap))
    for _ in range(home):
        account.charge("model", Spend(1))
        account.use("model", Usage(), 0.0, cached=False)
    for _ in range(lost):
        account.lose("model", Spend(1))
        account.failed += 1
    account.hold_back(HeldBack(kept))
    payable, rate = account.payable(), min(0.25, lost / max(1, home))
    assert payable <= max(0, cap - home - lost - kept)
    for _ in range(int(payable * (1 + rate) + 2 * (payable * rate) ** 0.5)):
        account.reserve(Spend(1))  # never refused


def test_without_losses_all_that_is_not_kept_is_payable():
    bought = {str(number): [number] for number in range(30)}
    account = Account(Budget(max_calls=100), ResumeState(bought, paid={"model": Spend(90)}))
    account.hold_back(HeldBack(20))
    for _ in range(30):  # of which a resumed run has come to these, without a failure
        account.use("model", Usage(), 0.0, cached=True)
    assert account.payable() == 50
    assert Account(Budget()).payable() == float("inf")


@pytest.mark.parametrize(
    ("budget", "spend"),
    [
        (Budget(max_tokens=1000), Spend(1, 501, 0.0)),
        (Budget(max_cost=1.0), Spend(1, 0, 0.501)),
        (Budget(time_limit=100.0), Spend(1)),
    ],
)
def test_a_share_of_every_cap_is_kept(budget, spend):
    account = Account(budget, ResumeState(seconds=51.0))
    account.reserve(spend)
    account.release(spend)
    account.hold_back(HeldBack(0, 0.5))
    with pytest.raises(BudgetExhausted):
        account.reserve(spend)
    account.hold_back(HeldBack())
    account.reserve(spend)


def test_a_cap_that_is_not_set_keeps_nothing():
    account = Account(Budget())
    account.hold_back(HeldBack(1000, 0.9))
    account.reserve(Spend(1, 10**9, 1e6))


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_a_reservation_that_is_refused_leaves_nothing_behind():
    account = Account(Budget(max_calls=1))
    account.reserve(Spend(1))
    for _ in range(3):
        with pytest.raises(BudgetExhausted, match="max_calls = 1"):
            account.reserve(Spend(1))
    account.release(Spend(1))
    account.reserve(Spend(1))


@pytest.mark.parametrize(
    ("budget", "name"),
    [
        (Budget(max_calls=0), "max_calls = 0"),
        (Budget(max_calls=5, max_tokens=9, max_cost=0.5), "max_tokens = 9"),
        (Budget(max_cost=0.5), "max_cost = 0.5"),
        (Budget(time_limit=0.0), "time_limit = 0"),
    ],
)
def test_the_refusal_names_the_cap_that_would_be_passed_in_one_line(budget, name):
    with pytest.raises(BudgetExhausted) as caught:
        Account(budget).reserve(Spend(1, 10, 0.75))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("budget", [Budget(max_calls=0), Budget(max_tokens=0), Budget(max_cost=0.0)])
def test_a_cap_of_zero_lets_nothing_through(budget):
    with pytest.raises(BudgetExhausted):
        Account(budget).reserve(Spend(1, 1, 0.01))


def test_roles_share_one_cap():
    account = Account(Budget(max_calls=2))
    account.charge("model", Spend(1))
    account.charge("proposer", Spend(1))
    with pytest.raises(BudgetExhausted):
        account.reserve(Spend(1))
    assert account.total_paid == Spend(2)


def test_used_counts_cached_calls_and_paid_does_not():
    account = Account(Budget())
    account.use("model", Usage(3, 2, 1), 0.25, cached=True)
    account.use("model", Usage(3, 2, 0), 0.25, cached=False)
    assert account.total_used == Spend(2, 10, 0.5)
    assert account.total_paid == Spend()
    assert account.cached == 1
    assert account.usage == Usage(6, 4, 1)
