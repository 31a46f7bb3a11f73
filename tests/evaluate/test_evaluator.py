"""A candidate on rows: bought once, in order, and a failure is never turned into a number."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BadResponse, BudgetExhausted, InputError, ModelError, RowRefused, TransportUnknown
from agent.evaluate.evaluator import SILENT, Evaluator, evidence, label_signal, values
from agent.evaluate.score_table import Arm, ScoreTable, score
from agent.gateway.budget import Account
from agent.gateway.gateway import Gateway
from agent.ledger.store import Ledger
from agent.observer import Observer
from agent.programs.prompt import HOSTED_SLACK, REASONING_TOKENS, REPLY_SLACK, PromptProgram, ReplyCap
from agent.prompt.prompt_candidate import PromptCandidate, baseline
from agent.scoring.task_metrics import build_metrics
from agent.types import Budget, Completion, Demo, Example, Outcome, Prediction, Request, Score, SplitName, Task
from tests.gateway.doors import Calm, settings
from tests.prompt.test_label_calibration import LABELS, place
from tests.toys import FakeModel, make_task

TASK = make_task(6)


class Bench(Observer):
    """An evaluator with the outcomes that it handed to its observer."""

    def __init__(self, ledger: Ledger, lm: Any, task: Task = TASK, budget: Budget | None = None, **more: Any) -> None:
        self.written: list[tuple[str, str]] = []
        self.lm = lm
        self.gateway = Gateway(ledger, "run-1", Account(budget or Budget()), {}, settings(more), **more)
        self.metrics = build_metrics(task)
        self.program = PromptProgram(task, lm)
        self.evaluator = Evaluator(task, self.gateway, lm, self.metrics, [self.program], self)

    def on_outcome_recorded(self, split: SplitName, outcome: Outcome) -> None:
        self.written.append((split, outcome.example_id))


def right(request: Request) -> str:
    """The team that the message names."""
    return request.messages[-1].content.split(" on ")[1].split()[0]


async def test_a_row_is_bought_and_written_down_once(ledger: Ledger) -> None:
    bench = Bench(ledger, FakeModel(right))
    first = await bench.evaluator.outcomes(baseline(TASK), TASK.dev[:3], "dev")
    more = await bench.evaluator.outcomes(baseline(TASK), TASK.dev, "dev")
    assert more[:3] == first
    assert len(bench.lm.seen) == 6
    assert sorted(bench.written) == sorted(("dev", row.id) for row in TASK.dev)
    assert bench.gateway.account.total_used.calls == 6


async def test_a_repeat_is_bought_for_itself_and_not_written_down(ledger: Ledger) -> None:
    bench = Bench(ledger, FakeModel(right))
    for repeat in (0, 1, 1):
        await bench.evaluator.outcomes(baseline(TASK), TASK.dev[:3], "dev", repeat)
    assert len(bench.lm.seen) == 6
    assert len(bench.written) == 3


async def test_what_a_metric_cannot_score_is_none_and_left_out_of_the_values(ledger: Ledger) -> None:
    class Half:
        name = "exact_match"

        async def score(self, example: Example, prediction: Prediction) -> Score:
            return Score(self.name, None if example.id == "dev-1" else 0.5, "")

    bench = Bench(ledger, FakeModel(right))
    evaluator = Evaluator(TASK, bench.gateway, bench.lm, [Half()], [bench.program])
    outcomes = await evaluator.outcomes(baseline(TASK), TASK.dev[:3], "dev")
    assert [outcome.value for outcome in outcomes] == [0.5, None, 0.5]
    assert values(outcomes) == [0.5, 0.5]


def refusing(error: type[ModelError]) -> Any:
    def answer(request: Request) -> str:
        if "note 2" in request.messages[-1].content:
            raise error("no")
        return right(request)

    return answer


@pytest.mark.parametrize("error", [RowRefused, BadResponse, TransportUnknown])
async def test_a_row_that_never_gets_an_answer_has_no_score_which_is_not_zero(
    ledger: Ledger, error: type[ModelError]
) -> None:
    """The row is to blame: the others are answered."""
    bench = Bench(ledger, FakeModel(refusing(error)), jitter=Calm())
    outcomes = await bench.evaluator.outcomes(baseline(TASK), TASK.dev, "dev")
    refused = [outcome for outcome in outcomes if outcome.value is None]
    assert [outcome.example_id for outcome in refused] == ["dev-2"]
    assert [score.reason for score in refused[0].scores] == ["no"] * len(bench.metrics)
    assert len(values(outcomes)) == len(outcomes) - 1
    assert refused[0].call_key == "", "no call answered it"
    assert ("dev", "dev-2") in bench.written
    again = await bench.evaluator.outcomes(baseline(TASK), TASK.dev, "dev")
    assert again == outcomes, "it is not asked again in the same run"


async def test_rows_that_were_scored_before_the_budget_ended_stay(ledger: Ledger) -> None:
    bench = Bench(ledger, FakeModel(right), budget=Budget(max_calls=4), max_concurrency=1)
    with pytest.raises(BudgetExhausted):
        await bench.evaluator.outcomes(baseline(TASK), TASK.dev, "dev")
    assert len(bench.lm.seen) == 4
    assert [example_id for _, example_id in bench.written] == ["dev-0", "dev-1", "dev-2", "dev-3"]
    assert len(await bench.evaluator.outcomes(baseline(TASK), TASK.dev[:4], "dev")) == 4


# -- how long a reply may get ------------------------------------------------------------------------------------------


def cap(task: Task) -> ReplyCap:
    return ReplyCap.of(task, FakeModel(lambda r: ""))


def test_a_hosted_model_may_say_a_sentence_around_the_answer_and_one_in_this_process_only_the_answer() -> None:
    own = ReplyCap.of(TASK, FakeModel(lambda r: "", concurrency=2))
    assert cap(TASK).answer - own.answer == HOSTED_SLACK - REPLY_SLACK


def test_reasons_that_a_prompt_asks_for_itself_get_the_room_of_the_technique() -> None:
    found = cap(TASK)
    asking = "Weigh each team. Then write it on the last line, after 'Answer:'."
    shown = PromptCandidate("few-shot", "turns", asking, "", (Demo("t0", {"message": "a"}, {"team": "billing"}),))
    assert found.tokens(PromptCandidate("zero-shot", "turns", asking), 1) == found.answer + REASONING_TOKENS
    assert found.tokens(PromptCandidate("chain-of-thought", "turns", asking), 1) == found.answer + REASONING_TOKENS
    assert found.tokens(shown, 1) == found.answer


def test_thinking_comes_on_top_of_any_cap() -> None:
    plain = PromptCandidate("zero-shot", "turns", "i")
    assert cap(make_task(thinking=500)).tokens(plain, 1) == cap(TASK).tokens(plain, 1) + 500
    assert cap(make_task(max_tokens=77, thinking=500)).tokens(plain, 1) == 577


class Cut(FakeModel):
    """Its replies end at their cap."""

    async def complete(self, request: Request) -> Completion:
        return replace(await super().complete(request), finish="length")


async def test_a_hosted_model_whose_first_replies_are_all_empty_has_no_room_to_think(ledger: Ledger) -> None:
    bench = Bench(ledger, Cut(lambda request: ""), max_concurrency=1)
    with pytest.raises(InputError, match=r"fake/m: .* reasoning; give it more room, such as --thinking 2000"):
        await bench.evaluator.outcomes(baseline(TASK), TASK.dev, "dev")
    assert len(bench.lm.seen) <= SILENT + 1
    in_process = Bench(ledger, Cut(lambda request: "", "fake/local", concurrency=2))
    assert values(await in_process.evaluator.outcomes(baseline(TASK), TASK.dev, "dev")) == [0.0] * 6


approx = pytest.approx


def test_a_label_has_its_share_of_the_labels_weight():
    reply = [place(billing=0.3, sales=0.1, Hello=0.6)]
    found = [label_signal(reply, LABELS, right) for right in ("billing", "sales", "card_arrival")]
    assert found == approx([0.75, 0.25, 0.0])
    reply = [place(card=0.8, sales=0.2), place(_arr=0.9, _link=0.1)]
    assert label_signal(reply, LABELS, "card_arrival") == approx(0.8 * 0.9), "told apart by the token that differs"
    assert label_signal(reply, LABELS, "card_linking") == approx(0.8 * 0.1)
    blank = [(" ", -0.001), ("Hello", -7.0)]
    assert label_signal([blank, place(billing=0.9, sales=0.1)], LABELS, "billing") == approx(0.9), "it spells nothing"
    reply = [place(sad=0.9, cheerful=0.1), [("", -0.01)]]
    assert label_signal(reply, ("sad", "saddle", "cheerful"), "sad") == approx(0.9)
    assert label_signal([blank, [("", -0.01)]], LABELS, "billing") == 0.0
    assert label_signal([], LABELS, "billing") is label_signal([place(billing=1.0)], LABELS, "other") is None


TOKENS = st.sampled_from(["billing", "card", "_arr", "ival", "_link", "sales", "s", " ", "", "Hello"])
REPLIES = st.lists(st.lists(st.tuples(TOKENS, st.floats(-20, 0.5)), max_size=6), max_size=5)


@given(REPLIES, st.sampled_from(LABELS))
def test_any_reply_gives_a_number_between_0_and_1_or_none(reply, right):
    found = label_signal(reply, LABELS, right)
    assert found is None or 0.0 <= found <= 1.0


@given(st.floats(0, 1), st.none() | st.floats(0, 1))
def test_evidence_lies_between_score_and_signal_and_is_the_score_without_one(value, signal):
    found = evidence(value, signal)
    if signal is None:
        assert found == value
    else:
        assert min(value, signal) - 1e-9 <= found <= max(value, signal) + 1e-9


class Asking:
    """A session of two models."""

    def __init__(self, ledger: Ledger, budget: Budget | None = None) -> None:
        self.stopped = ""
        self.gateway = Gateway(ledger, "run-1", Account(budget or Budget()), {})
        models = {"knows": FakeModel(right), "guesses": FakeModel(lambda request: "billing", "fake/guesses")}
        self.arms = [Arm(name, baseline(TASK), self._evaluator(lm)) for name, lm in models.items()]

    def _evaluator(self, lm: FakeModel) -> Evaluator:
        return Evaluator(TASK, self.gateway, lm, build_metrics(TASK), [PromptProgram(TASK, lm)])

    async def ahead(self, sets: Sequence[Callable[[], Awaitable[object]]]) -> None:
        """Calls are asked live here."""


async def test_arms_are_compared_on_the_same_rows(ledger: Ledger) -> None:
    asking = Asking(ledger)
    table = await score(asking, asking.arms, TASK.dev, repeats=2)
    assert table.values("knows") == [1.0] * 6
    assert table.mean("guesses").mean == pytest.approx(2 / 6)
    paired = table.paired("knows", "guesses", seed=0)
    assert paired is not None
    assert (paired.diff, paired.n) == (pytest.approx(4 / 6), 6)
    answers = table.answers("guesses")
    assert [[one.example_id for one in row] for row in answers.values()] == [[row.id, row.id] for row in TASK.dev]


async def test_an_arm_that_the_budget_does_not_pay_is_left_out(ledger: Ledger) -> None:
    asking = Asking(ledger, Budget(max_calls=8))
    table = await score(asking, asking.arms, TASK.dev, is_partial=True)
    assert table.values("knows") == [1.0] * 6
    assert table.values("guesses") == table.first("guesses") == []
    assert table.answers("guesses") == {}
    assert table.paired("knows", "guesses", seed=0) is None
    assert "max_calls = 8" in asking.stopped
    with pytest.raises(BudgetExhausted):
        await score(asking, asking.arms, TASK.dev)


def test_a_row_counts_with_the_mean_of_its_scored_repeats() -> None:
    table = ScoreTable({"a": {("1", 0): 1.0, ("1", 1): 0.0, ("2", 0): None, ("2", 1): None}})
    assert table.values("a") == [0.5, None]
    assert (table.mean("a").mean, table.mean("a").unscored) == (0.5, 1)


async def test_what_two_arms_ask_alike_goes_into_a_batch_once(ledger: Ledger) -> None:
    asking = Asking(ledger)
    knows = asking.arms[0]
    begun: list[int] = []

    async def ahead(sets: Sequence[Callable[[], Awaitable[object]]]) -> None:
        begun.append(len(sets))
        await asyncio.gather(*(each() for each in sets))

    asking.ahead = ahead  # type: ignore[method-assign]
    again = Arm("again", knows.candidate, knows.evaluator, TASK.dev[:2], 2)
    table = await score(asking, [knows, again], TASK.dev)
    assert begun == [2], "all rows, and the second time of the first two"
    assert asking.gateway.account.total_used.calls == 6 + 2
    assert [len(each) for each in table.passes("again")] == [2, 2]
