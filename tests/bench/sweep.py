"""How long a cell of a sweep takes compared with a plain run, here and on Ray. Prints ratios; asserts nothing.

    python -m tests.bench.sweep [--cells 3] [--delay 1.0]

The model answers over HTTP after `delay` seconds, one call at a time, so that a cell takes about a minute and little of
it is work of this machine. Plain runs, a sweep of processes and, where Ray is installed, one on a cluster of this
machine take turns; the start of the cluster is measured apart.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from agent.cluster import LOCAL
from agent.jobs.observers import Watcher
from agent.jobs.sweep.executors import RayTasks
from agent.jobs.sweep.prepare import prepare_sweep
from agent.jobs.sweep.sweep import run_sweep
from tests.cli.sweeps import write_sweep
from tests.cli.world import compatible, knowing
from tests.wire import Fault, WireServer

WORDS = ("--target", "label", "--prompt", "p.txt", "--price", "1,2", "--no-retrieval", "-n", "1", "-j", "1")
OPTIONS = "trials = 1\nmax_concurrency = 1\n"


def cpu() -> float:
    """Seconds of CPU that this process and its ended children took; the model's server is in it, the same for all."""
    return sum(sum(resource.getrusage(of)[:2]) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def plain(model: str, seed: int) -> None:
    """Run one search as a process."""
    command = [sys.executable, "-m", "promptassay", "run", "rows.csv", *WORDS, "-m", model, "--max-calls", "150"]
    command += ["--seed", str(seed), "-q", "--json", "--db", f"plain-{seed}.db"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def sweep(path: Path, folder: str, ray: str | None) -> None:
    """One sweep of one cell at a time."""
    found = run_sweep(prepare_sweep(path, Path(folder)), Watcher(), ray=ray, jobs=None if ray else 1)
    if found.unfinished:
        raise SystemExit(f"{found.unfinished}: no result: {found.cells}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=3)
    parser.add_argument("--delay", type=float, default=1.0)
    asked = parser.parse_args()

    def reply(messages: list[dict[str, Any]], body: dict[str, Any]) -> Fault:
        return Fault(text=knowing(messages, body), delay=asked.delay)

    took: dict[str, list[float]] = {"plain": [], "sweep": []}
    worked: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, WireServer(reply) as server:
        os.chdir(folder)
        cluster = None
        if find_spec("ray") is not None:
            started = time.perf_counter()
            cluster = RayTasks(LOCAL, 1, 0)
            print(f"a Ray cluster of this machine starts in {time.perf_counter() - started:.1f} s", flush=True)
            took["ray"] = []
        for number in range(asked.cells + 1):
            path = write_sweep([compatible(server)], (number,), f"{OPTIONS}[resources]\nnum_cpus = 1\n")
            for name, times in took.items():
                started, before = time.perf_counter(), cpu()
                if name == "plain":
                    plain(compatible(server), number)
                else:
                    sweep(path, f"{name}-{number}", LOCAL if name == "ray" else None)
                seconds = time.perf_counter() - started
                note = "" if number else " (first, not counted)"
                print(f"{name:<6} {seconds:6.1f} s, {cpu() - before:5.2f} s of CPU{note}", flush=True)
                if number:
                    times.append(seconds)
                    worked[name] = worked.get(name, 0.0) + cpu() - before
        if cluster is not None:
            cluster.close()
        os.chdir("/")
    for name in [name for name in took if name != "plain"]:
        ratio, more = sum(took[name]) / sum(took["plain"]), (worked[name] - worked["plain"]) / asked.cells
        print(f"{name}: {ratio:.3f} of the time of a plain run; {more:+.2f} s of CPU a cell (on Ray: of this process)")


if __name__ == "__main__":
    main()
