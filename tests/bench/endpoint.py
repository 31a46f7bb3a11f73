"""What the endpoint of agents adds to a call: CPU time over asking the gateway, and time over asking the provider.

    python -m tests.bench.endpoint [--json] [--calls 640] [--concurrency 32] [--latency 0.2] [--rounds 3]

One child process holds endpoint and gateway, another the scripted provider, so that neither the client's nor the
provider's work is counted. In each round the same SDK asks the provider directly and through the endpoint, and the
child asks its gateway without the endpoint. Asserts no time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

from tests.chaos.server import ChaosServer
from tests.child import ChildServer

WARM_UP = 64
CONTEXT = "Our shop sells tea, milk and cups. " * 60  # as long as the instruction of an agent
Ask = Callable[[str], Awaitable[object]]


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def ask_all(ask: Ask, name: str, calls: int, concurrency: int) -> float:
    """Ask that many different questions; return the seconds that it took."""
    left, started = iter(range(calls)), time.perf_counter()

    async def worker() -> None:
        for number in left:
            await ask(f"{name} {number}: please look into it")

    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return time.perf_counter() - started


# -- the child ---------------------------------------------------------------------------------------------------------


async def hold(url: str, concurrency: int, folder: Path) -> None:
    """Answer `cpu`, or a number of calls to make without the endpoint, with the CPU seconds of this process."""
    from agent.gateway.budget import Account
    from agent.gateway.endpoint import Endpoint
    from agent.gateway.gateway import CallSettings, Gateway
    from agent.ledger.store import Ledger
    from agent.models.openai import OpenAIModel
    from agent.options.shared import AskingOptions
    from agent.types import Budget, Completion, Message, Request
    from tests.toys import open_ledger

    ledger: Ledger = open_ledger(folder / "ledger.db")
    lm = OpenAIModel(f"openai-compatible/x@{url}", "x", base_url=url)
    settings = CallSettings(AskingOptions(max_concurrency=concurrency))
    door = Gateway(ledger, "run-1", Account(Budget()), {}, settings)
    names = count()

    class Rollout:
        models = ("x",)

        async def answer(self, model: str, request: Request) -> Completion:
            return await door.complete("model", lm, request, "c1")

    async def ask(text: str) -> None:
        await door.complete("model", lm, Request((Message("system", CONTEXT), Message("user", text)), 16, 1.0), "c1")

    endpoint = Endpoint()
    await ask_all(ask, "warm-up", WARM_UP, concurrency)
    print(json.dumps({"url": await endpoint.open(Rollout())}), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        before, wall = cpu(), 0.0
        if line.strip() != "cpu":
            wall = await ask_all(ask, f"direct {next(names)}", int(line), concurrency)
        print(json.dumps({"before": before, "cpu": cpu(), "wall": wall}), flush=True)
    await endpoint.close()
    await lm.close()
    ledger.close()


# -- the client --------------------------------------------------------------------------------------------------------


def told(child: ChildServer, line: str) -> dict[str, float]:
    assert child.process.stdin is not None
    assert child.process.stdout is not None
    child.process.stdin.write(f"{line}\n")
    child.process.stdin.flush()
    found: dict[str, float] = json.loads(child.process.stdout.readline())
    return found


async def measure(server: str, child: ChildServer, calls: int, concurrency: int, rounds: int) -> dict[str, float]:
    from openai import AsyncOpenAI

    clients = [AsyncOpenAI(base_url=url, api_key="none", max_retries=0) for url in (server, f"{child.root}/v1")]

    def asked(client: AsyncOpenAI) -> Ask:
        async def ask(text: str) -> None:
            messages: list[Any] = [{"role": "system", "content": CONTEXT}, {"role": "user", "content": text}]
            await client.chat.completions.create(model="x", messages=messages, max_tokens=16)

        return ask

    bare, through = map(asked, clients)
    seen: dict[str, list[float]] = {name: [] for name in ("bare", "wall", "cpu", "gateway", "gateway_wall")}
    for name, ask in (("b", bare), ("t", through)):
        await ask_all(ask, f"warm-up {name}", WARM_UP, concurrency)
    for number in range(rounds):
        seen["bare"].append(await ask_all(bare, f"bare {number}", calls, concurrency))
        before = told(child, "cpu")["cpu"]
        seen["wall"].append(await ask_all(through, f"through {number}", calls, concurrency))
        seen["cpu"].append(told(child, "cpu")["cpu"] - before)
        alone = await asyncio.to_thread(told, child, str(calls))
        seen["gateway"].append(alone["cpu"] - alone["before"])
        seen["gateway_wall"].append(alone["wall"])
    for client in clients:
        await client.close()
    milliseconds = {name: 1000 * median(seen[name]) / calls for name in ("cpu", "gateway")}
    return {
        "calls": calls,
        "concurrency": concurrency,
        "cpu_ms_per_call": round(milliseconds["cpu"], 2),
        "gateway_cpu_ms_per_call": round(milliseconds["gateway"], 2),
        "endpoint_cpu_ms_per_call": round(milliseconds["cpu"] - milliseconds["gateway"], 2),
        "wall_s": round(median(seen["wall"]), 2),
        "gateway_wall_s": round(median(seen["gateway_wall"]), 2),
        "bare_wall_s": round(median(seen["bare"]), 2),
        "wall_over_bare": round(median(w / b for w, b in zip(seen["wall"], seen["bare"], strict=True)), 3),
    }


def main() -> None:
    if sys.argv[1:2] == ["hold"]:
        asyncio.run(hold(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="one object on standard output")
    parser.add_argument("--calls", type=int, default=640)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--latency", type=float, default=0.2, help="seconds")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--disk", type=Path, default=Path("/var/tmp"), help="a folder on a real disk")
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=given.disk) as folder,
        ChaosServer(answer="ok", latency=given.latency) as server,
        ChildServer("tests.bench.endpoint", "hold", server.url, str(given.concurrency), folder) as child,
    ):
        found = asyncio.run(measure(server.url, child, given.calls, given.concurrency, given.rounds))
    if given.json:
        print(json.dumps(found))
        return
    print(f"{given.calls} calls, {given.concurrency} at once, {given.latency:g} s each")
    print(f"CPU of a call: {found['cpu_ms_per_call']} ms, of which the endpoint {found['endpoint_cpu_ms_per_call']} ms")
    print(f"wall: {found['wall_s']} s, {found['wall_over_bare']} x the provider asked directly", end="; ")
    print(f"gateway alone {found['gateway_wall_s']} s, provider alone {found['bare_wall_s']} s")


if __name__ == "__main__":
    main()
