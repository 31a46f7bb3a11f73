"""A candidate on rows: bought once, in order, and a failure is never turned into a number."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from agent.errors import (
    BadResponse,
    BudgetExhausted,
    InputError,
    ModelError,
    RowRefused,
    RunRefused,
    TransportUnknown,
)
from agent.evaluate.evaluator import SILENT, Evaluator, values
from agent.gateway.budget import Account, Spend
from agent.gateway.gateway import Gateway
from agent.ledger.store import Ledger
from agent.observer import Observer
from agent.programs.prompt import HOSTED_SLACK, REASONING_TOKENS, REPLY_SLACK, PromptProgram, ReplyCap
from agent.prompt.prompt_candidate import PromptCandidate, baseline
from agent.prompt.render import render
from agent.scoring.task_metrics import build_metrics
from agent.types import (
    Budget,
    Completion,
    Demo,
    Example,
    Field,
    Outcome,
    Prediction,
    Request,
    Score,
    Signature,
    SplitName,
    Task,
    Usage,
)
from tests.gateway.doors import Calm, settings
from tests.toys import FakeModel, GatedModel, make_task, turns_beside, until

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


async def test_outcomes_come_in_the_order_of_the_rows_with_value_and_call(ledger: Ledger) -> None:
    bench = Bench(ledger, FakeModel(right))
    made = baseline(TASK)
    outcomes = await bench.evaluator.outcomes(made, TASK.dev, "dev")
    assert [outcome.example_id for outcome in outcomes] == [row.id for row in TASK.dev]
    assert [outcome.value for outcome in outcomes] == [1.0] * 6
    assert {outcome.candidate_id for outcome in outcomes} == {made.id}
    keys = {key for (key,) in ledger.db.execute("SELECT call_key FROM calls")}
    assert {outcome.call_key for outcome in outcomes} == keys


async def test_a_row_is_bought_and_written_down_once(ledger: Ledger) -> None:
    bench = Bench(ledger, FakeModel(right))
    first = await bench.evaluator.outcomes(baseline(TASK), TASK.dev[:3], "dev")
    more = await bench.evaluator.outcomes(baseline(TASK), TASK.dev, "dev")
    assert more[:3] == first
    assert len(bench.lm.seen) == 6
    assert sorted(bench.written) == sorted(("dev", row.id) for row in TASK.dev)
    assert bench.gateway.account.total_used.calls == 6


async def test_a_repeat_is_a_call_of_its_own_and_is_not_written_down(ledger: Ledger) -> None:
    bench = Bench(ledger, FakeModel(right))
    await bench.evaluator.outcomes(baseline(TASK), TASK.dev[:2], "dev")
    await bench.evaluator.outcomes(baseline(TASK), TASK.dev[:2], "dev", repeat=1)
    assert len(bench.lm.seen) == 4
    assert len(bench.written) == 2


async def test_what_is_sent_is_the_rendered_prompt(ledger: Ledger) -> None:
    bench = Bench(ledger, FakeModel(right))
    made = PromptCandidate("chain-of-thought", "labelled-turns", "Say it.")
    await bench.evaluator.outcomes(made, TASK.dev[:1], "dev")
    (sent,) = bench.lm.seen
    assert sent.messages == render(made, TASK.signature, TASK.dev[0].inputs)
    assert sent.temperature == 0.0


async def test_a_reply_that_does_not_parse_scores_0_with_its_error(ledger: Ledger) -> None:
    outcomes = await Bench(ledger, FakeModel(lambda r: "I do not know")).evaluator.outcomes(
        baseline(TASK), TASK.dev, "dev"
    )
    assert values(outcomes) == [0.0] * 6
    assert all(outcome.prediction.error and outcome.scores[0].reason for outcome in outcomes)
    assert {outcome.prediction.raw for outcome in outcomes} == {"I do not know"}


@pytest.mark.parametrize("kind", [TASK.signature.outputs[0], Field("team")])
async def test_a_prompt_of_the_users_own_that_asks_for_reasons_is_read_and_given_room_as_the_technique_is(
    ledger: Ledger, kind: Field
) -> None:
    """The same replies to both: reasoning that names other teams, then the answer's line."""
    asking = "Weigh each team in a sentence. Then write it on the last line, after 'Answer:'."
    task = make_task(6, signature=Signature((Field("message"),), (kind,)), instruction=asking)
    bench = Bench(ledger, FakeModel(lambda r: f"Billing or refunds? No.\nAnswer: {right(r)}"), task)
    own, worked = baseline(task), PromptCandidate("chain-of-thought", "turns", asking)
    for candidate in (own, worked):
        assert values(await bench.evaluator.outcomes(candidate, task.dev, "dev")) == [1.0] * 6
    assert bench.program.max_tokens(own) == bench.program.max_tokens(worked)
    assert not bench.program.request(own, task.dev[0]).logprobs


async def test_a_refusal_has_no_score_which_is_not_zero(ledger: Ledger) -> None:
    class Refuses(FakeModel):
        async def complete(self, request: Request) -> Completion:
            return replace(await super().complete(request), finish="refusal")

    bench = Bench(ledger, Refuses(lambda request: "I cannot help with that."))
    outcomes = await bench.evaluator.outcomes(baseline(TASK), TASK.dev, "dev")
    assert {outcome.value for outcome in outcomes} == {None}
    assert all("refused" in outcome.scores[0].reason and outcome.call_key for outcome in outcomes)


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


async def test_a_provider_that_fails_raises_and_makes_up_no_number(ledger: Ledger) -> None:
    bench = Bench(ledger, FakeModel(refusing(RunRefused)))
    with pytest.raises(RunRefused):
        await bench.evaluator.outcomes(baseline(TASK), TASK.dev, "dev")
    assert ("dev", "dev-2") not in bench.written
    assert ("dev", "dev-0") in bench.written


async def test_rows_that_were_scored_before_the_budget_ended_stay(ledger: Ledger) -> None:
    bench = Bench(ledger, FakeModel(right), budget=Budget(max_calls=4), max_concurrency=1)
    with pytest.raises(BudgetExhausted):
        await bench.evaluator.outcomes(baseline(TASK), TASK.dev, "dev")
    assert len(bench.lm.seen) == 4
    assert [example_id for _, example_id in bench.written] == ["dev-0", "dev-1", "dev-2", "dev-3"]
    assert len(await bench.evaluator.outcomes(baseline(TASK), TASK.dev[:4], "dev")) == 4


async def test_after_a_failure_nobody_waits_any_more_and_what_was_sent_lands(ledger: Ledger) -> None:
    class Slow(GatedModel):
        async def complete(self, request: Request) -> Any:
            if "note 0" in request.messages[-1].content:
                await until(lambda: self.arrived == len(TASK.dev) - 1)
                raise RunRefused("no")
            return await super().complete(request)

    bench = Bench(ledger, Slow(right))
    before = asyncio.all_tasks()
    with pytest.raises(RunRefused):
        await asyncio.wait_for(bench.evaluator.outcomes(baseline(TASK), TASK.dev, "dev"), 5)
    assert bench.written == []
    assert bench.gateway.in_flight() == len(TASK.dev) - 1
    bench.lm.open.set()
    await bench.gateway.drain()
    assert asyncio.all_tasks() == before
    assert bench.gateway.account.total_used.calls == len(TASK.dev) - 1, "paid for, so there when the run is resumed"


async def test_a_caller_that_is_cancelled_leaves_nobody_waiting(ledger: Ledger) -> None:
    bench = Bench(ledger, GatedModel(right), max_concurrency=2)
    before = asyncio.all_tasks()
    job = asyncio.ensure_future(bench.evaluator.outcomes(baseline(TASK), TASK.dev, "dev"))
    await until(lambda: bench.lm.arrived == 2)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    bench.lm.open.set()
    await bench.gateway.drain()
    assert asyncio.all_tasks() == before
    assert bench.lm.arrived == 2


async def test_a_second_run_makes_the_same_outcomes_without_paying(ledger: Ledger) -> None:
    first, second = Bench(ledger, FakeModel(right)), Bench(ledger, FakeModel(right))
    one = await first.evaluator.outcomes(baseline(TASK), TASK.dev, "dev")
    two = await second.evaluator.outcomes(baseline(TASK), TASK.dev, "dev")
    assert one == two
    assert second.lm.seen == []
    assert second.gateway.account.total_paid == Spend()
    assert second.gateway.account.total_used == first.gateway.account.total_used


# -- how long a reply may get ------------------------------------------------------------------------------------------


def cap(task: Task) -> ReplyCap:
    return ReplyCap.of(task, FakeModel(lambda r: ""))


def test_every_right_answer_fits_its_reply() -> None:
    lm = FakeModel(lambda r: "")
    texts = ["one", "a b c d e f g h i j k l", "wordwordwordwordwordwordwordword"]
    task = make_task(
        signature=Signature((Field("m"),), (Field("answer"),)),
        train=tuple(Example(f"t{n}", {"m": ""}, {"answer": text}) for n, text in enumerate(texts)),
    )
    assert cap(task).answer >= max(lm.count_tokens(text) for text in texts)


def test_a_number_in_the_task_file_wins() -> None:
    assert cap(make_task(max_tokens=77)).answer == 77


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


async def test_one_that_has_spoken_once_may_be_cut_before_its_answer_and_scores_0(ledger: Ledger) -> None:
    first = TASK.dev[0].inputs["message"]
    bench = Bench(ledger, Cut(lambda r: right(r) if r.messages[-1].content == first else ""), max_concurrency=1)
    assert values(await bench.evaluator.outcomes(baseline(TASK), TASK.dev, "dev")) == [1.0] + [0.0] * 5


def test_reasoning_and_markers_get_room_of_their_own() -> None:
    found = cap(TASK)
    plain, thinking = PromptCandidate("zero-shot", "turns", "i"), PromptCandidate("chain-of-thought", "turns", "i")
    marked = PromptCandidate("zero-shot", "dspy-chat", "i")
    assert found.tokens(plain, 1) == found.answer
    assert found.tokens(thinking, 1) == found.answer + REASONING_TOKENS
    assert found.answer < found.tokens(marked, 1) < found.tokens(marked, 2)


async def test_a_long_reply_is_read_beside_the_loop(ledger: Ledger) -> None:
    bench = Bench(ledger, FakeModel(right))
    completion = Completion("to be or not to be " * 20_000, "stop", Usage(), "m")
    assert await turns_beside(bench.evaluator.adopt(baseline(TASK), TASK.dev[0], "dev", completion)) > 1
    (outcome,) = await bench.evaluator.outcomes(baseline(TASK), TASK.dev[:1], "dev")
    assert "names none of the choices" in outcome.prediction.error
    assert not bench.lm.seen
