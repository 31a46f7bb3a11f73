"""A run of `pa.optimize` that is stopped by a Ctrl-C, a cancellation or a kill, and continues to the same end."""

import asyncio
import itertools
import json
import linecache
import os
import runpy
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import promptassay as pa
from agent.jobs.interrupts import StopSignal, run_blocking
from tests.api.test_optimize import SMALL, table
from tests.cli.test_interrupt import slow, states, told, wait_for
from tests.cli.world import INSTRUCTION, compatible, good_json, learner, refused
from tests.scripted import Toys
from tests.wire import Fault, WireServer

SCRIPT = """
import asyncio, json, sys
import promptassay as pa
from own import same
rows = json.load(open("rows.json"))
async def cell():
    return pa.optimize(rows, target="label", prompt={prompt!r}, metric=same, model=sys.argv[1], max_calls=200)
try:
    asyncio.run(cell())
except pa.Interrupted as error:
    print(json.dumps([error.run_id, error.__notes__]))
"""


def own(body: str) -> Any:
    """A function `same` in a file of the user's own, and as that file has it."""
    Path("own.py").write_text(f"def same(row, answer):\n    return {body}\n", "utf-8")
    linecache.checkcache()
    return runpy.run_path("own.py")["same"]


SAME = "float(answer == row['label'])"


def script(server: WireServer) -> subprocess.Popen[str]:
    own(SAME)
    Path("rows.json").write_text(json.dumps(table()), "utf-8")
    Path("script.py").write_text(SCRIPT.format(prompt=INSTRUCTION), "utf-8")
    argv = [sys.executable, "script.py", compatible(server)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_ctrl_c_lands_what_flies_and_the_run_resumes_to_the_same_end() -> None:
    """In a running loop, as in a notebook; tests/cli/test_interrupt.py has runs without one."""
    with WireServer(slow) as server:
        process = script(server)
        wait_for(server, 60)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        (run_id, notes) = json.loads(out)
        assert states() == {"ok": len(server.requests)}
        assert "calls in flight are being finished" in err
        assert notes == [f"to continue: promptassay.resume({run_id!r}), or optimize resume {run_id}"]
        assert "rows: its metric same is a Python function" in refused(2, "resume", run_id)[-1]
        with pytest.raises(pa.InputError, match=f"{run_id}: the metric same changed"):
            pa.resume(run_id, metric=own("0.5"))
        with pytest.raises(pa.InputError, match="max_calls"):
            pa.resume(run_id, max_calls=0)
        same = own(SAME)
        result = pa.resume(metric=same)
        assert result.run_id == run_id
        assert len(server.requests) == sum(states().values())
        whole = pa.optimize(
            table(), target="label", prompt=INSTRUCTION, metric=same, model=compatible(server), max_calls=200,
            cache=False, db="whole/ledger.db",
        )  # fmt: skip
    assert told(result.to_json()) == told(whole.to_json())
    with pytest.raises(pa.InputError, match="this run is complete"):
        pa.resume(run_id)


def test_a_second_ctrl_c_does_not_wait() -> None:
    numbers = itertools.count(1)

    def stuck(messages: list[dict[str, Any]], body: dict[str, Any]) -> Fault:
        return Fault(text="billing", delay=0.0 if next(numbers) <= 30 else 30.0)

    with WireServer(stuck) as server:
        process = script(server)
        wait_for(server, 31)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        said = ""
        while "Ctrl-C again" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        run_id, _ = json.loads(out)
        assert "left at once" in err
    assert [(run["id"], run["status"]) for run in good_json("runs")["runs"]] == [(run_id, "interrupted")]


def test_a_ctrl_c_that_the_kernel_hands_to_another_thread_is_heard() -> None:
    """Any thread may get the signal of a process; the main one, which waits, is not woken by it then."""

    async def landed(stop: StopSignal) -> bool:
        pressed = asyncio.Event()
        stop.attach(pressed.set, pressed.set)
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        await asyncio.wait_for(pressed.wait(), 20)
        return True

    def work(stop: StopSignal | None) -> bool:
        assert stop is not None
        return asyncio.run(landed(stop))

    async def cell() -> bool:
        return run_blocking(work)

    assert asyncio.run(cell())


def test_the_process_can_end_while_a_run_in_a_thread_waits() -> None:
    async def cell() -> bool:
        return run_blocking(lambda stop: threading.current_thread().daemon)

    assert asyncio.run(cell())


def test_a_cancelled_wait_lands_what_flies() -> None:
    async def program(server: WireServer) -> None:
        waits = asyncio.create_task(
            pa.aoptimize(table(), target="label", prompt=INSTRUCTION, model=compatible(server), **SMALL)
        )
        await asyncio.to_thread(wait_for, server, 40)
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits

    with WireServer(slow) as server:
        asyncio.run(program(server))
        assert states() == {"ok": len(server.requests)}
        assert [run["status"] for run in good_json("runs")["runs"]] == ["interrupted"]
        assert pa.resume().status == "complete"


def test_signals_of_the_program_mean_afterwards_what_they_meant(toys: Toys) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        pa.evaluate(table(), target="label", prompt=INSTRUCTION, model=toys(learner).name, max_calls=100)
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [signal.SIGINT]
