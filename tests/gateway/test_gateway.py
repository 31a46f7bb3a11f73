"""One door: bought once, on the disk before it is sent, capped at the server, and no key in the file."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from agent.errors import BadResponse, BudgetExhausted, LedgerError, RowRefused, RunRefused, Transient
from agent.gateway.budget import Spend
from agent.gateway.gateway import call_key, endpoint_of, key_of
from agent.gateway.prices import fixed_price
from agent.ledger.store import Ledger
from agent.models.langchain import LangChainModel
from agent.models.model_registry import create_model
from agent.observer import Observer
from agent.types import Budget, Request
from tests.gateway.doors import burst, classes, gateway, model, states
from tests.ledger.ledgers import read
from tests.toys import FakeModel, GatedModel, ask, open_ledger, until
from tests.wire import Fault, WireServer

# -- bought once -------------------------------------------------------------------------------------------------------


async def test_an_identical_call_is_bought_once_by_any_run(ledger: Ledger) -> None:
    lm = FakeModel(lambda request: "billing")
    first, second = gateway(ledger), gateway(ledger)
    one = await first.complete("model", lm, ask("a"))
    two = await second.complete("model", lm, ask("a"))
    assert (one.text, one.finish, one.usage) == (two.text, two.finish, two.usage)
    assert len(lm.seen) == 1
    assert first.account.total_paid == first.account.total_used == second.account.total_used
    assert second.account.total_paid == Spend()
    assert (first.account.cached, second.account.cached) == (0, 1)


@pytest.mark.parametrize(
    "other",
    [
        ask("b"),
        ask("a", max_tokens=9),
        ask("a", temperature=0.5),
        ask("a", seed=1),
        ask("a", repeat=1),
        ask("a", stop=("x",)),
    ],
)
async def test_what_differs_in_anything_that_is_sent_is_another_call(ledger: Ledger, other: Request) -> None:
    lm, door = FakeModel(lambda request: "ok"), gateway(ledger)
    await door.complete("model", lm, ask("a"))
    await door.complete("model", lm, other)
    assert len(lm.seen) == 2


async def test_the_timeout_and_the_role_are_not_part_of_a_call(ledger: Ledger) -> None:
    lm, door = FakeModel(lambda request: "ok"), gateway(ledger)
    await door.complete("model", lm, ask("a"))
    await door.complete("judge", lm, ask("a", timeout=1.0))
    assert len(lm.seen) == 1


async def test_only_proposer_and_judges_get_room_to_think_here(ledger: Ledger) -> None:
    lm = FakeModel(lambda request: "yes")
    door = gateway(ledger, thinking=500)
    for role in ("model", "proposer", "judge"):
        await door.complete(role, lm, ask(role, max_tokens=8))  # type: ignore[arg-type]
    assert [request.max_tokens for request in lm.seen] == [8, 508, 508]


async def test_two_models_never_share_a_reply(ledger: Ledger) -> None:
    one, two, door = FakeModel(lambda r: "one", "m/1"), FakeModel(lambda r: "two", "m/2"), gateway(ledger)
    assert (await door.complete("model", one, ask("a"))).text == "one"
    assert (await door.complete("model", two, ask("a"))).text == "two"


@pytest.mark.parametrize(
    ("name", "variable", "path"),
    [
        ("anthropic/m", "ANTHROPIC_BASE_URL", ""),
        ("openai/m", "OPENAI_BASE_URL", "/v1"),
        ("openai-compatible/m", "OPENAI_BASE_URL", "/v1"),
    ],
)
async def test_an_address_of_the_environment_is_part_of_a_call_and_its_login_is_not(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, name: str, variable: str, path: str
) -> None:
    for key in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(key, "secret-0123456789")
    with WireServer(lambda messages, body: "one") as first, WireServer(lambda messages, body: "two") as second:
        for server, said in ((first, "one"), (second, "two"), (first, "one")):
            monkeypatch.setenv(variable, f"{server.root}{path}/")
            lm = create_model(name)
            assert (await gateway(ledger).complete("model", lm, ask("a"))).text == said
            await lm.close()
    assert [len(server.requests) for server in (first, second)] == [1, 1]
    asked = [json.loads(body) for (body,) in read(ledger.path, "SELECT body FROM blobs")]
    addresses = [f"{server.root}{path}" for server in (first, second)]
    assert [each["endpoint"] for each in asked if "endpoint" in each] == addresses


async def test_a_model_where_its_name_says_has_the_key_that_it_always_had() -> None:
    request = ask("a")
    compatible = "openai-compatible/m@http://127.0.0.1:9/v1"
    for lm in map(create_model, ("anthropic/m", "openai/m", "langchain/openai:m", compatible)):
        assert call_key(lm, request) == key_of(lm.name, request.identity())
    assert "endpoint" not in request.identity()


@pytest.mark.parametrize(
    ("provider", "variables", "endpoint"),
    [
        ("azure_openai", {"AZURE_OPENAI_ENDPOINT": "https://x.y/", "OPENAI_API_VERSION": "1-2"}, "https://x.y 1-2"),
        ("anthropic", {"ANTHROPIC_API_URL": "http://user:pass-word1@h:1/v1?key=a#b"}, "http://h:1/v1"),
        ("openai", {"OPENAI_BASE_URL": "http://h/v1", "OPENAI_API_BASE": "http://i/v1"}, "http://i/v1"),
        ("openai", {"OPENAI_BASE_URL": "http://h/v1"}, "http://h/v1"),
        ("openai", {"OPENAI_BASE_URL": "https://api.openai.com/v1"}, ""),
    ],
)
def test_where_langchain_finds_a_provider_is_told_without_secrets(
    monkeypatch: pytest.MonkeyPatch, provider: str, variables: dict[str, str], endpoint: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert endpoint_of(LangChainModel("langchain/x", provider, "m")) == endpoint


async def test_without_the_cache_every_call_is_bought(ledger: Ledger) -> None:
    lm, door = FakeModel(lambda request: "ok"), gateway(ledger, use_cache=False)
    for _ in range(3):
        await door.complete("model", lm, ask("a"))
    assert len(lm.seen) == 3
    assert door.account.cached == 0


async def test_an_error_is_never_served_from_the_cache(ledger: Ledger) -> None:
    failing = [True]

    def answer(request: Request) -> str:
        if failing[0]:
            raise RowRefused("not today")
        return "billing"

    lm, door = FakeModel(answer), gateway(ledger)
    with pytest.raises(RowRefused):
        await door.complete("model", lm, ask("a"))
    failing[0] = False
    assert (await door.complete("model", lm, ask("a"))).text == "billing"
    assert (await door.complete("model", lm, ask("a"))).text == "billing"
    assert len(lm.seen) == 2, "an error before it does not hide the settled reply"


async def test_every_use_of_a_reply_is_observed(ledger: Ledger) -> None:
    class Calls(Observer):
        def on_call_settled(self) -> None:
            used.append(door.account.total_used.calls)

    used: list[int] = []
    door = gateway(ledger, observer=Calls())
    lm = FakeModel(lambda request: "ok")
    await door.complete("model", lm, ask("a"))
    await door.complete("model", lm, ask("a"))
    assert used == [1, 2]


# -- on the disk -------------------------------------------------------------------------------------------------------


async def test_an_attempt_is_on_the_disk_before_it_is_sent_and_its_reply_before_it_is_returned(ledger: Ledger) -> None:
    def answer(request: Request) -> str:
        found.append(dict(states(ledger)))
        return "ok"

    found: list[dict[str, int]] = []
    await gateway(ledger).complete("model", FakeModel(answer), ask("a"))
    assert found in ([{"reserved": 1}], [{"sent": 1}])
    assert states(ledger) == {"ok": 1}


async def test_many_at_once_are_each_on_the_disk_before_they_are_sent(ledger: Ledger) -> None:
    """However many share a commit, none is sent before its own."""
    missing: list[str] = []

    def answer(request: Request) -> str:
        said = request.messages[-1].content
        row = read(ledger.path, "SELECT COUNT(*) FROM calls k JOIN blobs b ON b.hash = k.request_hash "
                   "WHERE b.body LIKE ?", f'%"{said}"%')  # fmt: skip
        if row != [(1,)]:
            missing.append(said)
        return "ok"

    results = await burst(gateway(ledger, max_concurrency=16), FakeModel(answer), 60)
    assert missing == []
    assert len(results) == 60
    assert states(ledger) == {"ok": 60}


async def test_a_disk_that_refuses_the_reservation_lets_nothing_out(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, door = FakeModel(lambda request: "ok"), gateway(ledger)

    async def refuse(*args: Any) -> int:
        raise LedgerError("the disk is full")

    monkeypatch.setattr(ledger, "reserve", refuse)
    with pytest.raises(LedgerError):
        await door.complete("model", lm, ask("a"))
    assert lm.seen == []
    assert door.account.total_paid == Spend()


async def test_a_disk_that_refuses_the_record_ends_the_call_with_that_error_and_the_call_is_paid(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, door = FakeModel(lambda request: "ok"), gateway(ledger)

    async def refuse(*args: Any) -> None:
        raise LedgerError("the disk is full")

    monkeypatch.setattr(ledger, "settle", refuse)
    with pytest.raises(LedgerError):
        await door.complete("model", lm, ask("a"))
    assert door.account.total_paid.calls == 1
    assert door.account.total_used == Spend()


# -- caps --------------------------------------------------------------------------------------------------------------


def flaky(seed: int) -> Any:
    """A server that fails about four times in ten: 500, a reset, and a body that is no reply."""
    rng, lock = random.Random(seed), threading.Lock()

    def reply(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
        with lock:
            draw = rng.random()
        if draw < 0.2:
            return Fault(status=500)
        if draw < 0.3:
            return Fault(raw=b"")
        if draw < 0.4:
            return Fault(body="<html>busy</html>")
        return Fault(delay=rng.random() / 100, text="one two three")

    return reply


@pytest.mark.parametrize("seed", range(3))
async def test_the_server_never_sees_more_calls_than_the_cap(ledger: Ledger, seed: int) -> None:
    with WireServer(flaky(seed)) as server:
        lm, door = model(server), gateway(ledger, Budget(max_calls=25), max_concurrency=8)
        results = await burst(door, lm, 40)
        await lm.close()
    assert len(server.requests) == door.account.total_paid.calls == 25
    assert any(isinstance(result, BudgetExhausted) for result in results)
    assert sum(name != "not_sent" for name in classes(ledger)) == 25


@pytest.mark.parametrize("seed", range(3))
async def test_the_worst_that_the_server_can_have_charged_stays_under_the_caps(ledger: Ledger, seed: int) -> None:
    """Whatever came back broken counts in full, as if the provider had done all the work."""
    budget = Budget(max_tokens=300, max_cost=0.001)
    with WireServer(flaky(seed)) as server:
        lm = model(server)
        door = gateway(ledger, budget, max_concurrency=8, prices={lm.name: fixed_price(1.0, 5.0)})
        results = await burst(door, lm, 60)
        await lm.close()
    paid = door.account.total_paid
    assert any(isinstance(result, BudgetExhausted) for result in results)
    assert 0 < paid.tokens <= 300
    assert 0 < paid.usd <= 0.001
    assert read(ledger.path, "SELECT SUM(cost_usd) FROM calls")[0][0] == pytest.approx(paid.usd)


async def test_calls_in_flight_count_at_their_worst_before_any_has_come_back(ledger: Ledger) -> None:
    with WireServer(lambda messages, body: Fault(delay=0.2)) as server:
        lm = model(server)
        door = gateway(ledger, Budget(max_cost=3.5), prices={lm.name: fixed_price(0.0, 1e6)})
        jobs = [asyncio.ensure_future(door.complete("model", lm, ask(str(n), max_tokens=1))) for n in range(8)]
        results = await asyncio.gather(*jobs, return_exceptions=True)
        await lm.close()
    assert len(server.requests) == 3
    assert sum(isinstance(result, BudgetExhausted) for result in results) == 5


async def test_tokens_that_cost_less_when_they_are_written_to_a_cache_are_reserved_as_if_none_were(
    ledger: Ledger,
) -> None:
    lm = GatedModel(lambda request: "ok")
    prices = {lm.name: lambda usage: float(usage.prompt_tokens - usage.written_prompt_tokens)}
    door = gateway(ledger, Budget(max_cost=20.0), prices=prices)
    door._limiter(lm).width = 8  # as after some replies
    jobs = [asyncio.ensure_future(door.complete("model", lm, ask(str(n)))) for n in range(4)]
    await until(lambda: lm.arrived == 2)  # at $9 each
    await asyncio.sleep(0.05)
    assert lm.arrived == 2
    lm.open.set()
    await asyncio.gather(*jobs)


async def test_what_the_worst_case_of_others_crowds_out_waits_for_what_they_cost(ledger: Ledger) -> None:
    """Ten calls of at most 100 tokens under a cap of 250: two fly at once, and all are paid, as each takes a few."""
    lm = GatedModel(lambda request: "ok")
    door = gateway(ledger, Budget(max_tokens=250), max_concurrency=8)
    door._limiter(lm).width = 8  # as after some replies
    jobs = [asyncio.ensure_future(door.complete("model", lm, ask(str(n), max_tokens=90))) for n in range(10)]
    await until(lambda: lm.arrived == 2)
    await asyncio.sleep(0.05)
    assert lm.arrived == 2
    lm.open.set()
    assert [completion.text for completion in await asyncio.gather(*jobs)] == ["ok"] * 10
    with pytest.raises(BudgetExhausted, match="max_tokens = 250"):
        await door.complete("model", lm, ask("long", max_tokens=250))


async def test_a_refused_reservation_sends_nothing_and_writes_nothing(ledger: Ledger) -> None:
    lm, door = FakeModel(lambda request: "ok"), gateway(ledger, Budget(max_calls=0))
    with pytest.raises(BudgetExhausted, match="max_calls = 0"):
        await door.complete("model", lm, ask("a"))
    assert lm.seen == []
    assert not states(ledger)


async def test_what_is_in_the_cache_needs_no_budget(ledger: Ledger) -> None:
    lm = FakeModel(lambda request: "ok")
    await gateway(ledger).complete("model", lm, ask("a"))
    assert (await gateway(ledger, Budget(max_calls=0)).complete("model", lm, ask("a"))).text == "ok"


async def test_no_more_calls_run_at_once_than_allowed(ledger: Ledger) -> None:
    running, most, lock = [0], [0], threading.Lock()

    def reply(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.02)
        with lock:
            running[0] -= 1
        return "ok"

    with WireServer(reply) as server:
        lm, door = model(server), gateway(ledger, max_concurrency=3)
        await burst(door, lm, 15)
        await lm.close()
    assert most[0] == 3


# -- secrets -----------------------------------------------------------------------------------------------------------


async def test_no_key_lands_in_the_ledger_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "sk-planted-0123456789abcdef"
    monkeypatch.setenv("OPENAI_COMPATIBLE_API_KEY", key)
    ledger = open_ledger(tmp_path / "own" / "ledger.db")
    faults = [
        Fault(text=f"your key is {key}"),
        Fault(status=401, body={"error": {"message": f"Incorrect API key provided: {key}"}}),
        Fault(status=500, body=f"<html>Authorization: Bearer {key}</html>"),
        Fault(status=400, body={"error": {"message": f"bad header {key}"}}),
        Fault(body={"error": key}),
        Fault(body={"choices": [{"message": {"content": None, "key": key}}]}),
    ]
    with WireServer(lambda messages, body: faults[int(messages[0]["content"])]) as server:
        lm = model(server)
        assert key not in (await gateway(ledger).complete("model", lm, ask("0"))).text
        for number in range(1, len(faults)):
            with pytest.raises((Transient, BadResponse, RowRefused, RunRefused)) as caught:
                await gateway(ledger, max_wait=1e-6).complete("model", lm, ask(str(number)))
            assert key not in str(caught.value)
        await lm.close()
    ledger.close()
    assert server.requests[0].headers["authorization"] == f"Bearer {key}"
    for file in (tmp_path / "own").iterdir():
        assert key.encode() not in file.read_bytes(), file.name


async def test_the_ledger_gives_a_reply_back_that_holds_a_password_which_is_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MYSQL_ROOT_PASSWORD", "password")
    ledger = open_ledger(tmp_path / "own" / "ledger.db")
    with WireServer(lambda messages, body: "password_reset") as server:
        lm = model(server)
        said = [(await gateway(ledger).complete("model", lm, ask("0"))).text for _ in range(2)]
        await lm.close()
    ledger.close()
    assert said == ["password_reset"] * 2
    assert len(server.requests) == 1
