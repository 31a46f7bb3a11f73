"""A pool of engines on Ray compared with the same number in this process: calls a second, and runs under kills.

    python -m tests.bench.engine_pool [--json] [--model local/smollm2-135m] [--engines 2] [--calls 96] [--rounds 3]
    python -m tests.bench.engine_pool --kill-every 10 --seconds 120 [--json] [--task NAME] [--run-calls 700]

Without --kill-every both answer the same calls, block by block of one prompt, in turns, each round with new ones;
engines are started and warm before the clock runs. Exits with 1 where a reply differs in a byte or a log-probability.

With --kill-every runs of a task go on with the pool, one after the other, until --seconds have passed
and the last one has ended; each time one actor is killed (SIGKILL). Exits with 1 where a run does not complete, none
was killed, the ledger does not verify, or more calls are unknown than actors were killed.

Asserts no time. `--model tiny` is a random model of 40 kB, for a try (it scores no labels: `--task word_problems`).
Needs the extra `ray` and a CPU for each engine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import promptassay as pa
from agent.cluster import ADDRESS, LOCAL, join_cluster, leave_cluster
from agent.ledger.connect import reader
from agent.ledger.verify import verify
from agent.models.local import embedded
from agent.models.model_registry import create_model
from agent.types import LM, Completion, Message, Request
from tests.models.engine_actors import engine_pids
from tests.training.tiny import speaking

TASKS = Path(__file__).resolve().parents[2] / "tasks"
BLOCK = 12  # calls with one prompt
DEMOS = " ".join(f"Message {number}: the parcel of order {number}7 is late. Team: delivery." for number in range(16))


def calls(count: int, number: int) -> list[Request]:
    """Those of a round: blocks of rows that share a prompt of about 400 tokens."""
    found = []
    for at in range(count):
        prompt = f"Prompt {number}.{at // BLOCK}: sort messages by team. {DEMOS}"
        row = f"Message: my order {at} of round {number} is {'broken' if at % 2 else 'late'}. Team:"
        found.append(Request((Message("system", prompt), Message("user", row)), 8, logprobs=2))
    return found


async def answered(model: LM, requests: list[Request]) -> tuple[list[Completion], float]:
    """The replies, and the seconds that they took."""
    started = time.perf_counter()
    found = await asyncio.gather(*[model.complete(request) for request in requests])
    took = time.perf_counter() - started
    return [replace(each, usage=replace(each.usage, cached_prompt_tokens=0)) for each in found], took


async def compared(model: str, engines: int, count: int, rounds: int) -> dict[str, Any]:
    """The object that --json prints."""
    contenders: dict[str, LM] = {
        "in_process": embedded(model, model.removeprefix("local/"), engines),
        "ray": create_model(f"ray/{model}?engines={engines}"),
    }
    result: dict[str, Any] = {"model": model, "engines": engines, "calls": count, "rounds": []}
    for name, lm in contenders.items():
        _, result[f"{name}_start_s"] = await answered(lm, calls(4 * engines, -1))
    same = True
    for number in range(rounds):
        replies: dict[str, list[Completion]] = {}
        rates: dict[str, float] = {}
        for name in sorted(contenders, reverse=bool(number % 2)):
            replies[name], took = await answered(contenders[name], calls(count, number))
            rates[name] = count / took
        same &= replies["in_process"] == replies["ray"]
        result["rounds"].append(rates)
        print(
            f"round {number + 1}: {rates['in_process']:.2f} calls/s in this process, {rates['ray']:.2f} on Ray",
            file=sys.stderr,
        )
    for lm in contenders.values():
        await lm.close()
    for name in contenders:
        result[f"{name}_calls_per_s"] = median(rates[name] for rates in result["rounds"])
    result["ratio"] = median(rates["ray"] / rates["in_process"] for rates in result["rounds"])
    return {**result, "same_replies": same}


@contextlib.contextmanager
def killing(every: float, killed: list[int]) -> Iterator[None]:
    """Each `every` seconds one actor of the pool is killed; its process is added to `killed`."""
    ended = threading.Event()

    def kill() -> None:
        while not ended.wait(every):
            if pids := [pid for pid in engine_pids() if pid not in killed]:
                victim = pids[len(killed) % len(pids)]
                os.kill(victim, signal.SIGKILL)
                killed.append(victim)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def under_kills(model: str, task: str, engines: int, every: float, seconds: float, run_calls: int) -> dict[str, Any]:
    """The object that --json prints."""
    ledger, killed, runs = Path("ledger.db"), list[int](), list[str]()
    started = time.perf_counter()
    with killing(every, killed):
        while not runs or time.perf_counter() - started < seconds:
            name = f"ray/{model}?engines={engines}"
            found = pa.optimize(TASKS / task, model=name, max_calls=run_calls, seed=len(runs), ledger=ledger)
            runs.append(found.status)
            print(f"run {len(runs)}: {found.status}, {len(killed)} killed so far", file=sys.stderr)
    took = time.perf_counter() - started
    with closing(reader(ledger)) as db:
        states = dict(db.execute("SELECT state, COUNT(*) FROM calls GROUP BY state").fetchall())
        findings = [str(finding) for finding in verify(db)]
    return {
        "model": model,
        "engines": engines,
        "seconds": took,
        "runs": runs,
        "killed": len(killed),
        "calls": states,
        "ledger": findings or "verified",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one object on standard output")
    parser.add_argument("--model", default="local/smollm2-135m", help="local/NAME, local/PATH.gguf, or tiny")
    parser.add_argument("--engines", type=int, default=2)
    parser.add_argument("--calls", type=int, default=96, help="of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kill-every", type=float, metavar="SECONDS")
    parser.add_argument("--seconds", type=float, default=120.0, help="after which no run is started any more")
    parser.add_argument("--task", default="support_triage", help="of the runs; word_problems for a tiny model")
    parser.add_argument("--run-calls", type=int, default=700, help="of each run")
    given = parser.parse_args()
    ray = join_cluster(os.environ.get(ADDRESS) or LOCAL, ADDRESS)  # held, so that each pool finds it
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            model = f"local/{speaking(Path(folder) / 'tiny.gguf')}" if given.model == "tiny" else given.model
            if given.kill_every is None:
                result = asyncio.run(compared(model, given.engines, given.calls, given.rounds))
                failed = not result["same_replies"]
            else:
                result = under_kills(model, given.task, given.engines, given.kill_every, given.seconds, given.run_calls)
                killed, unknown = result["killed"], result["calls"].get("unknown", 0)
                failed = not killed or unknown > killed or result["ledger"] != "verified"
    finally:
        leave_cluster(ray)
    if given.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name}: {value:.3f}" if isinstance(value, float) else f"{name}: {value}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
