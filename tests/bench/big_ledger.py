"""How long a big ledger keeps people waiting: `optimize history --json` on one run of 100,000 outcomes, and the first
call of another run in the same file that was interrupted, or killed, and is resumed.

    python -m tests.bench.big_ledger [--json] [--trials 500] [--rows 200] [--times 5]

The ledger is built by our own writer, each call reserved, sent and settled as the gateway does it. Exits with 1 when
the history does not name every trial and call. Asserts no time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from agent.ledger.store import Ledger, NewCandidate, NewRun, Reservation
from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.render import template
from agent.prompt.template import fill_messages
from agent.types import (
    Completion,
    Demo,
    Example,
    Message,
    Outcome,
    Prediction,
    Request,
    Score,
    Task,
    Trial,
    Usage,
    content_id,
)
from tests.chaos.server import ChaosServer
from tests.cli.world import INSTRUCTION, write_csv
from tests.toys import TEAMS, make_task

RUN, MODEL = "big", "openai-compatible/x@http://127.0.0.1:1/v1"
DEMOS = 8
TRIALS_PER_ROUND = 20
COMMAND = """
import time
started = time.perf_counter()
import sys
from agent.cli import main
try:
    main()
finally:
    print(time.perf_counter() - started, file=sys.stderr)
"""


def candidate_of(task: Task, number: int) -> PromptCandidate:
    demos = tuple(Demo(row.id, row.inputs, {"team": row.labels["team"]}) for row in task.train[:DEMOS])
    return PromptCandidate("few-shot", "turns", f"Answer with one team. This is wording {number}.", demos=demos)


async def build(path: Path, trials: int, rows: int, task: Task | None = None) -> None:
    """One finished run of `trials` candidates on `rows` rows each, of the toy task or one like it."""
    task, ledger, started = task or make_task(rows), Ledger(path), time.perf_counter()
    ledger.begin_run(NewRun(RUN, task, MODEL))
    for number in range(trials):
        candidate, round_ = candidate_of(task, number), number // TRIALS_PER_ROUND
        laid_out = template(candidate, task.signature)
        ledger.add_candidate(
            RUN, NewCandidate(round_, candidate.shown(), laid_out, "instruction", None, f"wording {number}")
        )
        right = sum(await asyncio.gather(*(buy(ledger, candidate, laid_out, row, number) for row in task.dev)))
        mean = right / rows
        ledger.put_trial(RUN, Trial(number, round_, candidate.id, "complete", rows, mean, (mean, mean), "saw all rows"))
    ledger.end_run(RUN, "complete", time.perf_counter() - started)
    await ledger.commit()
    ledger.close()


async def buy(
    ledger: Ledger, candidate: PromptCandidate, laid_out: tuple[Message, ...], row: Example, trial: int
) -> bool:
    """Records one call and its outcome; whether the reply was right."""
    request = Request(fill_messages(laid_out, row.inputs), max_tokens=8)
    key = content_id("k", request.identity())
    reply, label = TEAMS[(len(row.id) + trial) % len(TEAMS)], row.labels["team"]
    call_id = await ledger.reserve(Reservation(RUN, "model", MODEL, key, candidate.id, 1, request, 0.0, 300))
    ledger.sent(call_id)
    await ledger.settle(RUN, call_id, Completion(reply, "stop", Usage(290, 3), MODEL), 0.0, 0.2)
    value = float(reply == label)
    score = Score("exact_match", value, "" if value else f"expected {label!r}, got {reply!r}")
    ledger.put_outcome(
        RUN, "dev", Outcome(candidate.id, row.id, Prediction({"team": reply}, reply), (score,), value, key)
    )
    return bool(value)


def history(path: Path, trials: int, calls: int) -> tuple[float, float]:
    """Seconds that the command takes, and how many of them are ours (without the interpreter's start)."""
    command = [sys.executable, "-c", COMMAND, "history", "--db", str(path), "--json"]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    taken = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"history failed ({done.returncode}):\n{done.stderr}")
    found = json.loads(done.stdout)["trials"]
    if (len(found), sum(trial["calls"] for trial in found)) != (trials, calls):
        sys.exit(f"history names {len(found)} trials of {trials}, and not every one of their {calls} calls")
    return taken, float(done.stderr.splitlines()[-1])


def resume_to_first_call(path: Path, how: signal.Signals) -> float:
    """Seconds from the start of `optimize resume` to its first request, for a run in this ledger that `how` cut off."""
    write_csv(path.with_name("rows.csv"))
    prompt = path.with_name("prompt.txt")
    prompt.write_text(INSTRUCTION, "utf-8")
    with ChaosServer(latency=0.05) as server:
        command = ["run", str(path.with_name("rows.csv")), "--target", "label", "--prompt", str(prompt)]
        command += ["-m", f"openai-compatible/x@{server.url}", "--max-calls", "1000", "-q", "--db", str(path)]
        cut = subprocess.Popen([sys.executable, "-c", COMMAND, *command], stderr=subprocess.DEVNULL)
        while server.bill()["requests"] < 400:
            time.sleep(0.02)
        cut.send_signal(how)
        cut.wait()
        before = server.bill()["requests"]
        started = time.perf_counter()
        command = [sys.executable, "-c", COMMAND, "resume", "-q", "--db", str(path)]
        resumed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while server.bill()["requests"] == before:
            time.sleep(0.01)
        taken = time.perf_counter() - started
        if resumed.wait():
            sys.exit(f"the resumed run ended with {resumed.returncode}")
    return taken


def bench(trials: int, rows: int, times: int, disk: Path) -> dict[str, Any]:
    """The object that --json prints."""
    with tempfile.TemporaryDirectory(dir=disk) as folder:
        path = Path(folder) / "ledger.db"
        started = time.perf_counter()
        asyncio.run(build(path, trials, rows))
        built = time.perf_counter() - started
        history(path, trials, trials * rows)  # warms the caches
        taken = [history(path, trials, trials * rows) for _ in range(times)]
        resumed = {how: resume_to_first_call(path, how) for how in (signal.SIGINT, signal.SIGKILL)}
        return {
            "outcomes": trials * rows,
            "trials": trials,
            "ledger_mb": round(path.stat().st_size / 1e6, 1),
            "build_s": round(built, 2),
            "history_s": round(median(whole for whole, _ in taken), 3),
            "history_inside_s": round(median(inside for _, inside in taken), 3),
            "resume_after_interrupt_s": round(resumed[signal.SIGINT], 3),
            "resume_after_kill_s": round(resumed[signal.SIGKILL], 3),
        }


def show(result: Mapping[str, Any]) -> None:
    from rich.console import Console

    console = Console()
    for name, value in result.items():
        console.print(f"{name:<24}{value}", highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(description="What people wait for on a big ledger.")
    parser.add_argument("--json", action="store_true", help="one object on standard output")
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--rows", type=int, default=200, help="of each trial")
    parser.add_argument("--times", type=int, default=5, help="how often history is asked; the median is told")
    parser.add_argument("--disk", type=Path, default=Path("/var/tmp"), help="a folder on a real disk")
    given = parser.parse_args()
    result = bench(given.trials, given.rows, given.times, given.disk)
    print(json.dumps(result)) if given.json else show(result)


if __name__ == "__main__":
    main()
