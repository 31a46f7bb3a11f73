"""The gateway with OpenAI's SDK and a real server: what reaches the server stays under the caps, and no key is kept."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from agent.errors import BadResponse, BudgetExhausted, RowRefused, RunRefused, Transient
from agent.gateway.prices import fixed_price
from agent.ledger.store import Ledger
from agent.models.model_registry import create_model
from agent.types import Budget
from tests.gateway.doors import burst, classes, gateway, model
from tests.ledger.ledgers import read
from tests.toys import ask, open_ledger
from tests.wire import Fault, WireServer


def flaky(seed: int) -> Any:
    """A server that fails four times in ten: 500, a reset, and a body that is no reply."""
    rng, lock = random.Random(seed), threading.Lock()

    def reply(messages: list[dict[str, Any]], body: dict[str, Any]) -> Fault:
        with lock:
            draw = rng.random()
        faults = ((0.2, Fault(status=500)), (0.3, Fault(raw=b"")), (0.4, Fault(body="<html>busy</html>")))
        return next((fault for most, fault in faults if draw < most), Fault(text="one two three"))

    return reply


@pytest.mark.parametrize(
    "budget", [Budget(max_calls=25), Budget(max_tokens=300, max_cost=0.001)], ids=["calls", "tokens and dollars"]
)
async def test_what_a_failing_server_can_have_charged_stays_under_the_caps(ledger: Ledger, budget: Budget) -> None:
    """Broken replies count in full, as if the provider had done the work."""
    with WireServer(flaky(1)) as server:
        lm = model(server)
        door = gateway(ledger, budget, max_concurrency=8, prices={lm.name: fixed_price(1.0, 5.0)})
        results = await burst(door, lm, 60)
        await lm.close()
    paid = door.account.total_paid
    assert any(isinstance(result, BudgetExhausted) for result in results)
    assert len(server.requests) == paid.calls == sum(name != "not_sent" for name in classes(ledger))
    if budget.max_calls:
        assert paid.calls == 25
    else:
        assert 0 < paid.tokens <= 300
        assert 0 < paid.usd <= 0.001
    assert read(ledger.path, "SELECT SUM(cost_usd) FROM calls")[0][0] == pytest.approx(paid.usd)


@pytest.mark.parametrize(
    ("name", "variable", "path"),
    [("anthropic/m", "ANTHROPIC_BASE_URL", ""), ("openai/m", "OPENAI_BASE_URL", "/v1"),
     ("openai-compatible/m", "OPENAI_BASE_URL", "/v1")],
)  # fmt: skip
async def test_an_address_from_the_environment_is_part_of_a_call(
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


async def test_no_key_gets_into_the_ledger_but_a_reply_keeps_a_password_that_is_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "sk-planted-0123456789abcdef"
    monkeypatch.setenv("OPENAI_COMPATIBLE_API_KEY", key)
    monkeypatch.setenv("MYSQL_ROOT_PASSWORD", "password")
    ledger = open_ledger(tmp_path / "own" / "ledger.db")
    faults = [
        Fault(text=f"password_reset {key}"),
        Fault(status=401, body={"error": {"message": f"Incorrect API key provided: {key}"}}),
        Fault(status=500, body=f"<html>Authorization: Bearer {key}</html>"),
        Fault(status=400, body={"error": {"message": f"bad header {key}"}}),
        Fault(body={"error": key}),
        Fault(body={"choices": [{"message": {"content": None, "key": key}}]}),
    ]
    with WireServer(lambda messages, body: faults[int(messages[0]["content"])]) as server:
        lm = model(server)
        for _ in range(2):
            said = (await gateway(ledger).complete("model", lm, ask("0"))).text
            assert "password_reset" in said
            assert key not in said
        assert len(server.requests) == 1
        for number in range(1, len(faults)):
            with pytest.raises((Transient, BadResponse, RowRefused, RunRefused)) as caught:
                await asyncio.wait_for(gateway(ledger, max_wait=1e-6).complete("model", lm, ask(str(number))), 60)
            assert key not in str(caught.value)
        await lm.close()
    ledger.close()
    assert server.requests[0].headers["authorization"] == f"Bearer {key}"
    for file in (tmp_path / "own").iterdir():
        assert key.encode() not in file.read_bytes(), file.name
