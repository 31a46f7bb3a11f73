"""One contender of the throughput bench in a fresh process: warms up, makes the calls, prints what they took as JSON.

    python -m tests.bench.contenders NAME URL CALLS CONCURRENCY FOLDER

Every contender asks the same questions and checks every answer. The warm-up also lets our gateway, which starts with
few calls at once, reach 64. What each needs is imported inside its function, so that no process carries another's
weight. Only 127.0.0.1 may be reached: anything else is refused and fails the process.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sqlite3
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TEAMS = ("billing", "delivery", "refunds")
INSTRUCTION = "Answer with one team."
TEAM = TEAMS[0]
ANSWER = f"[[ ## team ## ]]\n{TEAM}\n\n[[ ## completed ## ]]"
"""Read by DSPy's default adapter at the first try; ours and the bare client do not mind it."""
WARM_UP = 64


@dataclass(frozen=True, slots=True)
class Job:
    """`calls` measured calls, at most `concurrency` at once, to the server at `url`; `folder` is on a real disk."""

    url: str
    calls: int
    concurrency: int
    folder: Path


class Meter:
    """Wall and CPU seconds (all threads, user and system) of this process between `start` and `stop`."""

    def start(self) -> None:
        self._cpu, self._wall = _cpu(), time.perf_counter()

    def stop(self) -> None:
        self.wall, self.cpu = time.perf_counter() - self._wall, _cpu() - self._cpu


@dataclass(slots=True)
class Door:
    """Sees every address that this process connects to: counts those on 127.0.0.1 and refuses all others."""

    opened: int = 0
    strangers: set[str] = field(default_factory=set)

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "socket.connect" and isinstance(args[1], tuple):
            self._admit(args[1][0])
            self.opened += 1
        elif event == "socket.getaddrinfo":
            self._admit(args[0])

    def _admit(self, host: object) -> None:
        if host not in ("127.0.0.1", b"127.0.0.1", None):
            self.strangers.add(str(host))
            raise OSError(f"{host}: the bench reaches nothing but 127.0.0.1")


def question(number: int) -> str:
    return f"note {number} on {TEAMS[number % len(TEAMS)]}: please look into it"


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def bare_sdk(job: Job, meter: Meter) -> None:
    """The SDK and a semaphore, nothing kept."""
    from openai import AsyncOpenAI

    async def ask_all(client: AsyncOpenAI, numbers: range) -> None:
        slots = asyncio.Semaphore(job.concurrency)

        async def ask(number: int) -> str | None:
            async with slots:
                reply = await client.chat.completions.create(
                    model="x",
                    messages=[
                        {"role": "system", "content": INSTRUCTION},
                        {"role": "user", "content": question(number)},
                    ],
                    temperature=0.0,
                    max_tokens=16,
                )
            return reply.choices[0].message.content

        assert set(await asyncio.gather(*map(ask, numbers))) == {ANSWER}

    async def main() -> None:
        async with AsyncOpenAI(api_key="no-key", base_url=job.url, max_retries=0) as client:
            await ask_all(client, range(-WARM_UP, 0))
            meter.start()
            await ask_all(client, range(job.calls))
            meter.stop()

    asyncio.run(main())


def dspy(job: Job, meter: Meter, cache: bool = False) -> None:
    """`dspy.Evaluate` in threads, as its documentation shows it."""
    import dspy

    signature = dspy.Signature(f"message -> team: Literal{list(TEAMS)}", INSTRUCTION)
    lm = dspy.LM("openai/x", api_base=job.url, api_key="no-key", cache=cache, num_retries=0, max_tokens=64)
    dspy.configure(lm=lm)
    program = dspy.Predict(signature)

    def evaluate(numbers: range) -> None:
        rows = [dspy.Example(message=question(number), team=TEAM).with_inputs("message") for number in numbers]
        result = dspy.Evaluate(
            devset=rows,
            metric=lambda example, prediction, trace=None: prediction.team == example.team,
            num_threads=job.concurrency,
            display_progress=False,
        )(program)
        assert result.score == 100.0, result.score

    evaluate(range(-WARM_UP, 0))
    meter.start()
    evaluate(range(job.calls))
    meter.stop()


def dspy_default_cache(job: Job, meter: Meter) -> None:
    """The same with the cache that DSPy has by default, which writes every reply to the disk."""
    dspy(job, meter, cache=True)


def ours(job: Job, meter: Meter) -> None:
    """The whole path: render, look up, account, log, call, parse, score, log again, until all is on the disk."""
    from agent.models.openai import OpenAIModel
    from agent.prompt.prompt_candidate import baseline
    from agent.types import Example
    from tests.toys import make_task

    def rows(numbers: range) -> tuple[Example, ...]:
        return tuple(Example(f"row-{number}", {"message": question(number)}, {"team": TEAM}) for number in numbers)

    task = make_task(0, train=rows(range(-WARM_UP, 0)), dev=rows(range(job.calls)), instruction=INSTRUCTION)
    candidate = baseline(task)

    async def main() -> None:
        lm = OpenAIModel(f"openai-compatible/x@{job.url}", "x", base_url=job.url)
        evaluator, ledger = assemble(job, task, candidate, lm)
        await evaluator.outcomes(candidate, task.train, "train")
        meter.start()
        outcomes = await evaluator.outcomes(candidate, task.dev, "dev")
        ledger.end_run("bench", "complete", 0.0)
        await ledger.commit()
        meter.stop()
        ledger.close()
        await lm.close()
        assert [outcome.value for outcome in outcomes] == [1.0] * job.calls

    asyncio.run(main())
    check_ledger(job)


def assemble(job: Job, task: Any, candidate: Any, lm: Any) -> tuple[Any, Any]:
    """Evaluator and ledger with one open run, put together as `run/optimize.py` does it."""
    from dataclasses import asdict

    from agent.evaluate.evaluator import Evaluator
    from agent.gateway.budget import Account
    from agent.gateway.gateway import CallSettings, Gateway
    from agent.jobs.observers import LedgerObserver
    from agent.ledger.store import Ledger, NewCandidate, NewRun
    from agent.options.shared import AskingOptions
    from agent.programs.prompt import PromptProgram
    from agent.prompt.render import template
    from agent.scoring.task_metrics import build_metrics
    from agent.types import Budget

    budget = Budget(max_calls=job.calls + WARM_UP)
    ledger = Ledger(job.folder / "ledger.db")
    ledger.begin_run(NewRun("bench", task, lm.name, "", 0, asdict(budget), {}))
    ledger.add_candidate("bench", NewCandidate(0, candidate.shown(), template(candidate, task.signature), "baseline"))
    gateway = Gateway(
        ledger, "bench", Account(budget), {}, CallSettings(AskingOptions(max_concurrency=job.concurrency))
    )
    observer = LedgerObserver(ledger, "bench")
    return Evaluator(task, gateway, lm, build_metrics(task), [PromptProgram(task, lm)], observer), ledger


def check_ledger(job: Job) -> None:
    """Ends the process with 1 unless the file holds each measured call, settled, and its outcome."""
    ledger = sqlite3.connect(f"{(job.folder / 'ledger.db').as_uri()}?mode=ro", uri=True)
    (outcomes,) = ledger.execute("SELECT COUNT(*) FROM outcomes WHERE split = 'dev' AND value = 1.0").fetchone()
    (calls,) = ledger.execute(
        "SELECT COUNT(DISTINCT c.id) FROM outcomes o JOIN calls c ON c.call_key = o.call_key "
        "WHERE o.split = 'dev' AND c.state = 'ok'"
    ).fetchone()
    if (calls, outcomes) != (job.calls, job.calls):
        sys.exit(f"the ledger holds {calls} settled calls and {outcomes} outcomes of {job.calls}")


CONTENDERS: dict[str, Callable[[Job, Meter], None]] = {
    "bare_sdk": bare_sdk,
    "dspy": dspy,
    "dspy_default_cache": dspy_default_cache,
    "ours": ours,
}


def main(name: str, url: str, calls: str, concurrency: str, folder: str) -> None:
    door, meter = Door(), Meter()
    sys.addaudithook(door)
    CONTENDERS[name](Job(url, int(calls), int(concurrency), Path(folder)), meter)
    if door.strangers:
        sys.exit(f"tried to reach {', '.join(sorted(door.strangers))}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({"wall": meter.wall, "cpu": meter.cpu, "connections": door.opened, "peak": peak}))


if __name__ == "__main__":
    main(*sys.argv[1:])
