"""How fast calls go out, side by side: the bare SDK, DSPy, and our whole path with its durable log.

    python -m tests.bench.throughput [--json] [--calls 2000] [--concurrency 64] [--latency 0.2] [--only ours,bare_sdk]

One local server answers everybody after a fixed latency; each contender runs alone in a fresh process, and its imports
and warm-up are not measured. The ideal is calls / concurrency * latency. Exits with 1 when a contender fails, and so
when our ledger lacks a call or an outcome. Asserts no time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.contenders import ANSWER, CONTENDERS, WARM_UP
from tests.chaos.server import ChaosServer

FAST_SERVER = 0.4  # CPU milliseconds a request; a slower one would be what is measured
GROUPS = {"dspy": ("dspy", "dspy_default_cache")}
OFFLINE = ("LITELLM_LOCAL_MODEL_COST_MAP", "LITELLM_OFFLINE_MODE")


def environment(folder: str) -> dict[str, str]:
    """Ours without proxies, keys and addresses of others; nothing looks for a price list online or caches elsewhere."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith(("OPENAI_", "LANGSMITH_", "LANGCHAIN_", "DSPY_"))
    }
    return {**kept, **dict.fromkeys(OFFLINE, "True"), "DSPY_CACHEDIR": folder}


def measure(name: str, server: ChaosServer, calls: int, concurrency: int, disk: Path) -> dict[str, float]:
    """What the contender's process printed. Ends this process with 1 when that one failed or sent too much."""
    server.reset()
    with tempfile.TemporaryDirectory(dir=disk) as folder:
        command = [sys.executable, "-m", "tests.bench.contenders", name, server.url, str(calls), str(concurrency)]
        done = subprocess.run([*command, folder], env=environment(folder), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} failed ({done.returncode}):\n{done.stderr[-4000:]}")
    if (came := server.bill()["requests"]) != calls + WARM_UP:
        sys.exit(f"{name} sent {came} requests, not {calls} and {WARM_UP} to warm up")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def children_cpu() -> float:
    """CPU seconds of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def fsync_seconds(disk: Path, times: int = 20) -> float:
    """The median time to add 4 KB to a file on `disk` and wait for them: near 0 where that is no real disk."""
    taken = []
    with tempfile.TemporaryFile(dir=disk) as file:
        for _ in range(times):
            file.write(bytes(4096))
            started = time.perf_counter()
            file.flush()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - started)
    return median(taken)


def bench(names: list[str], calls: int, concurrency: int, latency: float, disk: Path) -> dict[str, Any]:
    """The object that --json prints."""
    ideal = calls / concurrency * latency
    result: dict[str, Any] = {
        "calls": calls,
        "concurrency": concurrency,
        "latency": latency,
        "ideal_s": ideal,
        "fsync_ms": round(1000 * fsync_seconds(disk), 3),
    }
    with ChaosServer(answer=ANSWER):
        before = children_cpu()
    start_up = children_cpu() - before
    with ChaosServer(answer=ANSWER, latency=latency) as server:
        found = {name: measure(name, server, calls, concurrency, disk) for name in names}
        before = children_cpu()
    server_cpu = children_cpu() - before - start_up
    result["server_cpu_per_call"] = round(1000 * server_cpu / (len(names) * (calls + WARM_UP)), 3)
    bare = found.get("bare_sdk")
    for name, seen in found.items():
        result[name] = {
            "wall_over_ideal": round(seen["wall"] / ideal, 3),
            "cpu_per_call": round(1000 * seen["cpu"] / calls, 3),
            "wall_s": round(seen["wall"], 3),
            "rss_mb": round(seen["peak"] / 1e6, 1),
            "connections": seen["connections"],
            "cpu_over_bare": round(seen["cpu"] / bare["cpu"], 3) if bare else None,
        }
    return result


def show(result: Mapping[str, Any], names: list[str]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"{result['calls']} calls, {result['concurrency']} at once, {result['latency']:g} s each: "
        f"at best {result['ideal_s']:.2f} s",
        box=SIMPLE,
    )
    headings = ("wall s", "x ideal", "CPU ms", "x bare", "sockets", "peak MB")
    table.add_column("", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right")
    for name in names:
        seen = result[name]
        over = "" if seen["cpu_over_bare"] is None else f"{seen['cpu_over_bare']:.2f}"
        table.add_row(
            name,
            f"{seen['wall_s']:.2f}",
            f"{seen['wall_over_ideal']:.3f}",
            f"{seen['cpu_per_call']:.2f}",
            over,
            str(seen["connections"]),
            f"{seen['rss_mb']:.0f}",
        )
    console = Console()
    console.print(table)
    console.print(f"server: {result['server_cpu_per_call']} ms of CPU a call; fsync of 4 KB: {result['fsync_ms']} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="one object on standard output")
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.2, help="seconds")
    parser.add_argument(
        "--only", default="bare_sdk,dspy,ours", help="of bare_sdk, dspy (both lines), ours, with commas"
    )
    parser.add_argument("--disk", type=Path, default=Path("/var/tmp"), help="a folder on a real disk")
    given = parser.parse_args()
    names = list(dict.fromkeys(name for word in given.only.split(",") for name in GROUPS.get(word, (word,))))
    if unknown := [name for name in names if name not in CONTENDERS]:
        parser.error(f"{unknown[0]}: not one of {', '.join(CONTENDERS)}")
    result = bench(names, given.calls, given.concurrency, given.latency, given.disk)
    print(json.dumps(result)) if given.json else show(result, names)
    if result["server_cpu_per_call"] > FAST_SERVER:
        print(f"the server took more than {FAST_SERVER} ms of CPU a call: the machine was busy", file=sys.stderr)


if __name__ == "__main__":
    main()
