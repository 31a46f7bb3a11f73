"""DSPy programs through the gateway: every request a row of the ledger, no cap passed, no stop turned into a score."""

from __future__ import annotations

import asyncio
import copy
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any

import dspy
import pytest

from agent.errors import BudgetExhausted, InputError, Interrupted, LedgerError, RowRefused, RunRefused
from agent.gateway.budget import Account
from agent.gateway.gateway import Gateway
from agent.ledger.store import Ledger
from agent.models.openai import OpenAIModel
from agent.search.dspy.bridge import ROLLOUTS, Bridge
from agent.types import Budget
from tests.gateway.doors import settings
from tests.toys import TEAMS, open_ledger
from tests.wire import Fault, WireServer

SIGNATURE = dspy.Signature("message -> team: str", "Answer with one team.")
THREADS = 6
Open = Callable[..., "World"]


class World:
    """A server, a model that calls it, a ledger with an open run, and a bridge to the gateway between them."""

    def __init__(self, ledger: Ledger, server: WireServer, budget: Budget | None = None, **more: Any) -> None:
        self.ledger = ledger
        self.model = OpenAIModel("openai-compatible/x", "x", base_url=server.url)
        self.gateway = Gateway(ledger, "run-1", Account(budget or Budget()), {}, settings(more), **more)
        self.bridge = Bridge(self.gateway)
        self.lm = self.bridge.lm(self.model, "model", max_tokens=50)

    def calls(self) -> list[dict[str, Any]]:
        self.ledger.flush()
        cursor = self.ledger.db.execute("SELECT * FROM calls ORDER BY id")
        return [dict(zip([column[0] for column in cursor.description], row, strict=True)) for row in cursor]

    def states(self) -> Counter[str]:
        return Counter(call["state"] for call in self.calls())

    async def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with dspy.context(lm=self.lm):
            return await self.bridge.run(function, *args, **kwargs)


@pytest.fixture
async def open_world(tmp_path: Path) -> AsyncIterator[Callable[..., World]]:
    """`open_world(server, budget)`: all on one ledger, closed at the end of the test."""
    ledger = open_ledger(tmp_path / "ledger.db")
    opened: list[World] = []

    def make(server: WireServer, budget: Budget | None = None, **more: Any) -> World:
        opened.append(World(ledger, server, budget, **more))
        return opened[-1]

    yield make
    for world in opened:
        await world.gateway.drain()
        await world.model.close()
    ledger.close()


def said(**values: str) -> str:
    """A reply in DSPy's chat layout."""
    return "".join(f"[[ ## {name} ## ]]\n{value}\n\n" for name, value in values.items()) + "[[ ## completed ## ]]"


def right(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
    """The team that the last message names, in the layout that the prompt asks for."""
    team = next(team for team in TEAMS if team in messages[-1]["content"])
    if "response_format" in body:
        return json.dumps({"team": team})
    return said(reasoning="It says so.", team=team) if "reasoning" in messages[0]["content"] else said(team=team)


def rows(number: int) -> list[Any]:
    return [
        dspy.Example(message=f"note {i} on {TEAMS[i % 3]}", team=TEAMS[i % 3]).with_inputs("message")
        for i in range(number)
    ]


def is_right(row: Any, prediction: Any, trace: Any = None) -> bool:
    return bool(row.team == prediction.team)


def evaluation(number: int, threads: int = THREADS) -> Any:
    return dspy.Evaluate(devset=rows(number), metric=is_right, num_threads=threads)


# -- through the one door ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", [dspy.Predict(SIGNATURE), dspy.ChainOfThought(SIGNATURE)], ids=["predict", "cot"])
async def test_every_request_of_an_evaluation_is_a_settled_call_of_its_role(open_world: Open, program: Any) -> None:
    with WireServer(right) as server:
        world = open_world(server)
        made = world.bridge.lm(world.model, "judge", max_tokens=50, candidate_id="c_1")
        world.lm = copy.deepcopy(made)  # as optimizers copy programs with their model
        assert (await world.run(evaluation(12), program)).score == 100.0
    assert len(server.requests) == len(world.calls()) == 12
    assert {(c["role"], c["state"], c["attempt"], c["candidate_id"]) for c in world.calls()} == {
        ("judge", "ok", 1, "c_1")
    }
    assert world.gateway.account.total_paid.calls == 12
    assert world.bridge.stopped is None
    assert world.bridge.failures == []


async def test_a_coroutine_of_dspy_is_awaited_on_the_gateways_loop_and_on_another(open_world: Open) -> None:
    program = dspy.Predict(SIGNATURE)

    def on_another_loop() -> Any:
        return asyncio.run(program.acall(message="on refunds"))

    with WireServer(right) as server:
        world = open_world(server)
        with dspy.context(lm=world.lm):
            assert (await program.acall(message="on billing")).team == "billing"
        assert (await world.run(on_another_loop)).team == "refunds"
    assert world.states() == {"ok": 2}


# -- what is carried ---------------------------------------------------------------------------------------------------


async def test_each_rollout_and_each_sample_is_a_call_of_its_own_once(open_world: Open) -> None:
    answers = iter(range(100))
    with WireServer(lambda messages, body: said(team=str(next(answers)))) as server:
        world = open_world(server)

        async def teams(**config: Any) -> list[str]:
            found = await world.run(
                dspy.Predict(SIGNATURE), message="on billing", config={"temperature": 1.0, **config}
            )
            return list(found.completions.team)

        one = await teams()
        assert await teams(rollout_id=0) == one == ["0"]
        assert await teams(rollout_id=1) == ["1"]
        assert await teams(n=3) == ["0", "2", "3"]
        assert await teams(n=3, rollout_id=1) == ["1", "4", "5"]
        world.lm = world.lm.copy(rollout_id=7)
        assert await teams() == ["6"]
        sent = len(server.requests)
        assert await teams(n=3, rollout_id=1) == ["1", "4", "5"]
        assert len(server.requests) == sent == 7


@pytest.mark.parametrize("rollout", [-1, ROLLOUTS, 1.5, "a"])
async def test_a_rollout_that_is_no_repeat_is_refused(open_world: Open, rollout: Any) -> None:
    with WireServer(right) as server:
        world = open_world(server)
        with pytest.raises(InputError, match="rollout_id"):
            await world.run(dspy.Predict(SIGNATURE, rollout_id=rollout), message="on billing")
    assert server.requests == []


def picture() -> Any:
    return dspy.lm15.Message.user((dspy.lm15.ImagePart(url="http://127.0.0.1/a.png"),))


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("tools", {"tools": ({"name": "f", "parameters": {"type": "object", "properties": {}}},)}),
        ("image", {"messages": picture}),
        ("top_p, logprobs", {"config": {"top_p": 0.5, "logprobs": 2}}),
        ("reasoning", {"config": {"reasoning": {"effort": "low"}}}),
    ],
)
async def test_what_cannot_be_carried_is_refused_and_stops(
    open_world: Open, what: str, changes: dict[str, Any]
) -> None:
    lm15 = dspy.lm15
    given = dict(changes)
    messages = given["messages"]() if "messages" in given else lm15.Message.user("a")
    tools = tuple(lm15.FunctionTool(**tool) for tool in given.get("tools", ()))
    config = dict(given.get("config", {}))
    if "reasoning" in config:
        config["reasoning"] = lm15.Reasoning(**config["reasoning"])
    request = lm15.Request("openai-compatible/x", (messages,), tools=tools, config=lm15.Config(**config))
    with WireServer(right) as server:
        world = open_world(server)
        with pytest.raises(InputError, match=f"cannot carry {what}"):
            await world.run(world.lm, request)
        assert isinstance(world.bridge.stopped, InputError)
    assert server.requests == []


async def test_streaming_is_refused(open_world: Open) -> None:
    with WireServer(right) as server:
        world = open_world(server)
        with dspy.context(lm=world.lm), pytest.raises(InputError, match="streaming"):
            async for _ in dspy.streamify(dspy.Predict(SIGNATURE))(message="on billing"):
                pass
    assert server.requests == []


# -- stops and failures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cap", "threads"), [(1, 1), (7, 1), (1, THREADS), (7, THREADS)])
async def test_a_cap_is_never_passed_and_the_stop_comes_out(open_world: Open, cap: int, threads: int) -> None:
    with WireServer(right) as server:
        world = open_world(server, Budget(max_calls=cap))
        with pytest.raises(BudgetExhausted, match=f"max_calls = {cap}"):
            await world.run(evaluation(12, threads), dspy.Predict(SIGNATURE))
        with pytest.raises(BudgetExhausted):
            await world.run(dspy.Predict(SIGNATURE), message="on billing")
        await world.gateway.drain()  # calls off what was not sent, so several threads may leave a call unused
    assert len(server.requests) == world.states()["ok"] <= cap
    assert threads > 1 or len(server.requests) == cap
    assert isinstance(world.bridge.stopped, BudgetExhausted)
    assert world.bridge.failures == []


@pytest.mark.parametrize("width", [1, THREADS])
@pytest.mark.parametrize("error", [Interrupted(), LedgerError("the disk is full"), RunRefused("no quota")], ids=repr)
async def test_what_the_gateway_was_stopped_with_comes_out_as_it_is(
    open_world: Open, error: Exception, width: int
) -> None:
    async def stop() -> None:
        while len(server.requests) < 3:
            await asyncio.sleep(0.001)
        world.gateway.stop(error)

    def slow(messages: list[dict[str, Any]], body: dict[str, Any]) -> Fault:
        return Fault(delay=0.02, text=right(messages, body))

    with WireServer(slow) as server:
        world = open_world(server, max_concurrency=width)
        stopping = asyncio.create_task(stop())
        with pytest.raises(type(error)) as caught:
            await world.run(evaluation(40), dspy.Predict(SIGNATURE))
        await stopping
        await world.gateway.drain()
        sent = len(server.requests)
        with pytest.raises(type(error)), dspy.context(lm=world.lm):
            await dspy.Predict(SIGNATURE).acall(message="on billing")
    assert caught.value is world.bridge.stopped is error
    assert 3 <= sent == len(server.requests) < 3 + width


async def test_a_row_that_is_refused_comes_out_as_it_is_and_stops_nothing(open_world: Open) -> None:
    with WireServer(lambda messages, body: Fault(400)) as server:
        world = open_world(server)
        with pytest.raises(RowRefused) as caught:
            await world.run(dspy.Predict(SIGNATURE), message="on billing")
    assert world.bridge.failures == [caught.value]
    assert world.bridge.stopped is None
    assert len(server.requests) == 1


async def test_a_cancelled_run_sends_nothing_more(open_world: Open) -> None:
    def slow(messages: list[dict[str, Any]], body: dict[str, Any]) -> Fault:
        return Fault(delay=0.02, text=right(messages, body))

    with WireServer(slow) as server:
        world = open_world(server)
        running = asyncio.create_task(world.run(evaluation(40, threads=2), dspy.Predict(SIGNATURE)))
        while len(server.requests) < 2:
            await asyncio.sleep(0.001)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await world.gateway.drain()
        sent = len(server.requests)
        await asyncio.sleep(0.1)
    assert len(server.requests) == sent <= 4
    assert isinstance(world.bridge.stopped, Interrupted)


async def test_what_ends_a_run_stops_dspy_also_where_it_comes_out_of_a_metric(open_world: Open) -> None:
    """DSPy takes any error of a metric for a score of 0, and would go on buying calls."""

    async def judged() -> float:
        raise RunRefused("the judge's key was refused")

    def metric(example: Any, prediction: Any, trace: Any = None) -> float:
        return world.bridge.fetch(judged)

    rows = [dspy.Example(message=f"on {team}", team=team).with_inputs("message") for team in TEAMS] * 8
    with WireServer(right) as server:
        world = open_world(server)
        evaluate = dspy.Evaluate(devset=rows, metric=metric, num_threads=1, max_errors=999)
        with pytest.raises(RunRefused, match="the judge's key"):
            await world.run(evaluate, dspy.Predict(SIGNATURE))
        assert len(server.requests) <= 2
        assert isinstance(world.bridge.stopped, RunRefused)


async def test_a_program_on_the_gateways_loop_is_refused_rather_than_waited_for_ever(open_world: Open) -> None:
    with WireServer(right) as server:
        world = open_world(server)
        with dspy.context(lm=world.lm), pytest.raises(InputError, match=r"blocks the loop that would answer it"):
            dspy.Predict(SIGNATURE)(message="on billing")
        assert (await world.run(dspy.Predict(SIGNATURE), message="on billing")).team == "billing"


@pytest.mark.filterwarnings("ignore:coroutine 'Bridge._guarded' was never awaited:RuntimeWarning")
@pytest.mark.parametrize("pause", [0.0, 0.2], ids=["before", "with-a-call-in-its-queue"])
def test_a_thread_that_outlives_the_loop_gets_an_error_and_does_not_hang(tmp_path: Path, pause: float) -> None:
    async def main() -> World:
        return World(ledger, server)

    ledger = open_ledger(tmp_path / "ledger.db")
    loop = asyncio.new_event_loop()
    with WireServer(right) as server, ThreadPoolExecutor(1) as pool:
        with dspy.context(lm=loop.run_until_complete(main()).lm):
            called = copy_context()
        if not pause:
            loop.close()
        late = pool.submit(called.run, partial(dspy.Predict(SIGNATURE), message="on billing"))
        time.sleep(pause)
        loop.close()
        with pytest.raises(Interrupted):
            late.result(timeout=10)
    ledger.close()
    assert server.requests == []
