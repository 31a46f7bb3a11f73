"""What importing the run-time costs over a bare interpreter, and a load and a first render with it. Asserts nothing.

python -m tests.bench.import_runtime [ROUNDS]
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from agent.release.aliases import AliasChange, hash_of, line_of
from agent.release.export import write_release
from agent.release.prompt_file import PromptRelease
from agent.types import Field, Message

ROUNDS = 30
ROOT = Path(__file__).resolve().parents[2]
LINES = 1000  # of the history of aliases that is read


def world(root: Path) -> None:
    """One version under an alias whose history is long."""
    release = PromptRelease(
        name="x",
        messages=(Message("system", "Route the message."), Message("user", "{{message}}")),
        inputs=("message",),
        outputs=(Field("team", "choice", choices=("billing", "account")),),
        format="turns",
        reasoning=False,
        model="openai/NAME",
        parameters={"max_tokens": 8},
        provenance={},
    )
    write_release(release, root / "x" / release.version)
    prev, lines = "0" * 64, []
    for seq in range(1, LINES + 1):
        told = ("x", seq, "2026-01-01T00:00:00+00:00", "jo", "promote", "production", release.version, "", None)
        change = AliasChange(*told, "", {"lift": {"diff": 0.1}}, prev, "")
        change = AliasChange(*told, "", {"lift": {"diff": 0.1}}, prev, hash_of(change.as_dict()))
        lines.append(line_of(change))
        prev = change.hash
    (root / "x" / "aliases.jsonl").write_bytes(b"".join(lines))


def milliseconds(code: str, folder: Path) -> tuple[float, float]:
    """Wall and CPU time of one process; the second hardly minds what else the machine does."""
    command = [sys.executable, "-c", code, str(folder)]
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return 1000 * (time.perf_counter() - started), 1000 * cpu


def main(rounds: int = ROUNDS) -> None:
    load = "from agent.release.runtime import load_prompt; import sys"
    codes = {
        "bare interpreter": "pass",
        "import the run-time": load,
        "load @production and render": f"{load}; load_prompt('x@production', root=sys.argv[1]).render(message='m')",
    }
    with tempfile.TemporaryDirectory() as folder:
        world(Path(folder))
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in codes}
        for number in range(rounds + 1):
            for name, code in codes.items():  # side by side, so that all meet the same machine
                taken = milliseconds(code, Path(folder))
                if number:  # the first round only warms the caches
                    times[name].append(taken)
    bare = [median(each) for each in zip(*times["bare interpreter"], strict=True)]
    for name, taken_all in times.items():
        wall, cpu = (median(each) for each in zip(*taken_all, strict=True))
        print(
            f"{name:<28} wall {wall:6.1f} ms, {wall - bare[0]:5.1f} over bare; "
            f"CPU {cpu:6.1f} ms, {cpu - bare[1]:5.1f} over bare"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
