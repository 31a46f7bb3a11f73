"""A rollout: which calls an agent may make, which texts took part in them, and where the trace says it went wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from openai import AsyncOpenAI

from agent.errors import BudgetExhausted, InputError, RowRefused
from agent.gateway.endpoint import Endpoint
from agent.programs.agent_call import AgentFault, AgentModel
from agent.programs.agent_hosts import InProcess
from agent.programs.rollout import RolloutCalls, RolloutTrace, is_error, marks_of
from agent.turns import calls_text
from agent.types import LM, Completion, Message, Request, Tool, Usage
from tests.cases import each_case

TEXTS = {
    "planner": "You plan the work of a small shop.",
    "writer": "Dear {customer}, you answer in one friendly sentence.",
    "tool:stock": "Tells how many pieces of an item are left.",
}
STOCK = Tool(
    "stock",
    TEXTS["tool:stock"],
    json.dumps({"type": "object", "properties": {"item": {"type": "string", "description": "its name"}}}),
)


class ScriptedCall:
    """A row's call that answers by a function of the request, or raises what it returns."""

    logprobs = 0

    def __init__(self, reply: Callable[[Request], str | Exception]) -> None:
        self.stopped: Exception | None = None
        self.seen: list[Request] = []
        self._reply = reply

    async def __call__(self, request: Request, lm: LM | None = None) -> Completion:
        self.seen.append(request)
        said = self._reply(request)
        if isinstance(said, Exception):
            raise said
        return Completion(said, "stop", Usage(1, 1), "m")

    async def aside(self, request: Request, lm: LM) -> Completion:
        raise NotImplementedError


def rollout(reply: Callable[[Request], str | Exception], most: int = 5) -> tuple[RolloutCalls, ScriptedCall]:
    call = ScriptedCall(reply)
    return RolloutCalls(call, Request((), 99, repeat=3), TEXTS, ("m", "p/m"), most), call


def asked(*messages: tuple[Any, str], tools: tuple[Tool, ...] = (), **more: Any) -> Request:
    return Request(
        tuple(Message(*each) for each in messages), 0, tools=tools, tool_choice="auto" if tools else "", **more
    )


FIRST = asked(("system", TEXTS["planner"]), ("user", "nails?"), tools=(STOCK,))
CALLED = calls_text([("stock", {"item": "nails"})])
SECOND = asked(
    ("system", "Dear Ann, you answer in one friendly sentence."),
    ("user", "nails?"),
    ("assistant", CALLED),
    ("tool", "Error: no such item"),
    tools=(STOCK,),
)


async def test_the_trace_names_the_texts_of_each_call_its_tools_and_where_it_went_wrong() -> None:
    calls, _ = rollout(lambda request: CALLED if len(request.messages) == 2 else calls_text([], "None are left."))
    await calls.answer("m", FIRST)
    await calls.answer("p/m", SECOND)
    trace = calls.trace({"question": "nails?"}, notes="looked once")
    assert [step.texts for step in trace.steps] == [{"planner", "tool:stock"}, {"writer", "tool:stock"}]
    assert trace.took_part == {"planner", "writer", "tool:stock"}
    assert (trace.went_wrong, trace.steps[1].results) == (0, (("stock", "Error: no such item"),))
    assert trace.text.split("\n") == [
        "question: nails?",
        "1. call [planner, tool:stock] (went wrong here)",
        '   stock({"item": "nails"})',
        "     gives: Error: no such item",
        "2. call [tool:stock, writer]",
        "   says: None are left.",
        "notes: looked once",
    ]


async def test_what_a_request_leaves_open_is_filled_in_and_equal_requests_are_samples() -> None:
    calls, call = rollout(lambda request: "yes")
    await asyncio.gather(*(calls.answer("m", asked(("user", "x"))) for _ in range(3)))
    await calls.answer("m", asked(("user", "y"), temperature=0.5))
    assert [(one.max_tokens, one.repeat % 2**32) for one in call.seen] == [(99, 3)] * 4
    assert [one.repeat // 2**32 for one in call.seen] == [0, 1, 2, 0]


async def test_an_agent_may_ask_its_own_model_alone_and_only_so_often() -> None:
    calls, call = rollout(lambda request: "yes", most=2)
    with pytest.raises(InputError, match="asked for the model 'gpt-x', and may ask m, p/m"):
        await calls.answer("gpt-x", FIRST)
    await calls.answer("m", FIRST)
    with pytest.raises(InputError, match=r"made more than 2 model calls \(most_calls\)"):
        await calls.answer("m", FIRST)
    assert len(call.seen) == 1
    assert calls.error() is None, "its own failure is scored"
    assert calls.fault.startswith("asked for the model")
    assert calls.trace({}, calls.fault).went_wrong == 0


@pytest.mark.parametrize("error", [BudgetExhausted("no calls left"), RowRefused("too long")])
async def test_a_call_that_the_budget_or_the_provider_refuses_ends_the_rollout_whatever_the_agent_does(
    error: Exception,
) -> None:
    calls, call = rollout(lambda request: error)
    for _ in range(2):
        with pytest.raises(type(error)):
            await calls.answer("m", FIRST)
    assert (len(call.seen), calls.error()) == (1, error), "the second is not sent"
    call.stopped = RuntimeError("the run stops")
    assert calls.error() is call.stopped


async def test_an_error_of_the_users_input_ends_the_run_and_is_no_failure_of_the_agent() -> None:
    calls, _ = rollout(lambda request: InputError("the model spent all tokens on reasoning; give it more room"))
    with pytest.raises(InputError, match="more room"):
        await calls.answer("m", FIRST)
    assert (str(calls.error()), calls.fault) == ("the model spent all tokens on reasoning; give it more room", "")


class SilentCall(ScriptedCall):
    """A row's call that answers no first sample."""

    async def __call__(self, request: Request, lm: LM | None = None) -> Completion:
        completion = await super().__call__(request)
        if len(self.seen) == 1:
            await asyncio.Event().wait()
        return completion


async def test_a_call_that_the_agent_left_and_makes_again_is_the_same_sample() -> None:
    call = SilentCall(lambda request: "yes")
    calls = RolloutCalls(call, Request((), 99), TEXTS, ["m"], 5)
    first = asyncio.create_task(calls.answer("m", FIRST))
    while not call.seen:
        await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    assert calls.is_waiting, "an agent that is ended while it waits for the model is not at fault"
    for _ in range(2):
        await calls.answer("m", FIRST)
    assert [one.repeat // 2**32 for one in call.seen] == [0, 0, 1]
    assert (calls.is_waiting, calls.error()) == (False, None)
    assert "fails: the agent did not wait for the answer" in calls.trace({}).text


async def test_an_agent_of_this_process_that_waits_for_a_silent_model_is_not_at_fault() -> None:
    async def run(texts: Any, row: Any, model: AgentModel) -> Any:
        async with AsyncOpenAI(base_url=model.url, api_key=model.key) as client:
            return await client.chat.completions.create(model=model.name, messages=[{"role": "user", "content": "hi"}])

    calls = RolloutCalls(SilentCall(lambda request: ""), Request((), 99), {}, ["m"], 5)
    host, endpoint = InProcess(run), Endpoint()
    address = await endpoint.open(calls)
    with pytest.raises(AgentFault, match="took longer than 3 s"):
        await host.run({}, {}, AgentModel(f"{address}/v1", "key", "m"), 3)
    assert calls.is_waiting
    await host.close()
    await endpoint.close()


def test_a_text_is_recognised_by_its_parts_between_placeholders() -> None:
    assert marks_of("Short") == ["Short"]
    assert marks_of("Hi {name}, you answer {{question}} in one sentence.") == [", you answer", "in one sentence."]
    assert marks_of("{a}{b}") == []


@each_case(
    "text, is_one",
    [("ERROR 404", True), ('{"error": "x"}', True), ("Traceback (most recent call last)", True), ("no errors", False)],
)
def test_a_result_that_begins_with_an_error_is_one(text: str, is_one: bool) -> None:
    assert is_error(text) is is_one


def test_a_trace_without_calls_shows_the_row_and_the_fault() -> None:
    trace = RolloutTrace({"a": "b"}, (), "raised ValueError: x")
    assert (trace.text, trace.went_wrong, trace.took_part) == (
        "a: b\nthe agent raised ValueError: x",
        None,
        frozenset(),
    )
