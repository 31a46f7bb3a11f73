"""How long `optimize --help` takes compared with a bare click program of as many commands. Asserts nothing.

python -m tests.bench.bench_help [ROUNDS]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from agent.cli import HELP

ROUNDS = 15
OURS = "from agent.cli import main\nmain()\n"
BARE = """import click


@click.group()
def main():
    "A bare program."

"""


def bare() -> str:
    """A click program with as many commands, all in one file."""
    commands = "".join(
        f'\n@main.command("{name}")\n@click.option("--value", help="A value.")\ndef command_{number}(value):\n'
        f'    "Does {name}."\n'
        for number, name in enumerate(HELP)
    )
    return f"{BARE}{commands}\n\nmain()\n"


def seconds(script: Path) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, script, "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main(rounds: int = ROUNDS) -> None:
    with tempfile.TemporaryDirectory() as folder:
        scripts = {"optimize": Path(folder, "ours.py"), "bare click": Path(folder, "bare.py")}
        scripts["optimize"].write_text(f"import sys\nsys.path.insert(0, {str(Path.cwd())!r})\n{OURS}")
        scripts["bare click"].write_text(bare())
        times: dict[str, list[float]] = {name: [] for name in scripts}
        for number in range(rounds + 1):
            for name, script in scripts.items():  # side by side, so that both meet the same machine
                taken = seconds(script)
                if number:  # the first round only warms the caches
                    times[name].append(taken)
    for name, taken_all in times.items():
        print(f"{name + ' --help':<18} median {1000 * median(taken_all):6.1f} ms  best {1000 * min(taken_all):6.1f} ms")
    print(f"ratio of medians   {median(times['optimize']) / median(times['bare click']):.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
