"""A comparison that is killed in a training, or has a cap on it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.cli.world import good_json
from tests.customize.test_customize import WORDS, by_name, events
from tests.customize.world import write_world

ROOT = Path(__file__).resolve().parents[2]
CHILD = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from agent.cli import main
from agent.tuning.adam import Adam

step, killed_at = Adam.update, int(sys.argv[2])

def counted(self, *arguments):
    print("step", self.step, file=sys.stderr, flush=True)
    if self.step == killed_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *arguments)

Adam.update = counted
main(sys.argv[3:])
"""


def child(killed_at: int) -> subprocess.CompletedProcess[str]:
    words = ["customize", *WORDS, "--arms", "lora", "-q", "--json"]
    command = [sys.executable, "-c", CHILD, str(ROOT), str(killed_at), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


def steps(done: subprocess.CompletedProcess[str]) -> list[int]:
    return [int(line.split()[1]) for line in done.stderr.splitlines() if line.startswith("step ")]


def trained(made: dict[str, Any]) -> dict[str, Any]:
    (found,) = events(made["run_id"], "trained")
    return found


def test_killed_in_an_epoch_the_same_command_ends_with_the_same_adapter(here: Path) -> None:
    good_json("run", *write_world(), "-n", "1", "-q")
    train = child(7)
    assert train.returncode == -signal.SIGKILL
    assert steps(train) == list(range(8))  # 5 steps an epoch, so it was in the second
    again = child(-1)
    assert again.returncode == 0, again.stderr
    made = json.loads(again.stdout)
    assert steps(again)[0] == 5  # the first epoch is not paid twice
    losses = trained(made)["losses"]
    assert steps(again) == list(range(5, len(losses)))
    for file in Path("runs/adapters").iterdir():
        file.unlink()
    whole = good_json("customize", *WORDS, "--arms", "lora", "-q")
    assert trained(whole)["adapter"] == trained(made)["adapter"]
    assert trained(whole)["losses"] == losses
    assert by_name(whole)["lora"]["test"] == by_name(made)["lora"]["test"]


def test_a_cap_of_seconds_ends_a_training(here: Path) -> None:
    good_json("run", *write_world(), "-n", "1", "-q")
    made = good_json("customize", *WORDS, "--arms", "lora", "--train-time", "0.001", "-q")
    found = trained(made)
    assert (found["ended"], len(found["losses"])) == ("seconds", 1)
    assert found["settings"]["max_seconds"] == 0.001
    assert Path(by_name(made)["lora"]["path"]).is_file()
