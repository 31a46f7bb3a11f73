"""A comparison that is killed in a training, or has a cap on it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.jobs.customize.retrain import Retrained
from tests.cli.world import good_json, refused
from tests.customize.test_customize import WORDS, by_name, events
from tests.customize.world import write_world
from tests.training.tiny import speaking

ROOT = Path(__file__).resolve().parents[2]
CHILD = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from agent.cli import main
from agent.training.loop import Adam

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
    words = ["customize", *WORDS, "--arms", "lora", "--settings", "2", "-q", "--json"]
    command = [sys.executable, "-c", CHILD, str(ROOT), str(killed_at), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


def steps(done: subprocess.CompletedProcess[str]) -> list[int]:
    return [int(line.split()[1]) for line in done.stderr.splitlines() if line.startswith("step ")]


def tried(made: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What was chosen, and what of, without the seconds."""
    (line,) = made["settings"]
    return line["chosen"], [{name: each[name] for name in each if name != "seconds"} for each in line["tried"]]


def trained(made: dict[str, Any]) -> dict[str, Any]:
    (found,) = events(made["run_id"], "trained")
    return found


@pytest.mark.long
def test_killed_in_an_epoch_the_same_command_ends_with_the_same_adapter(here: Path) -> None:
    good_json("run", *write_world(), "-n", "1", "-q")
    train = child(22)
    assert train.returncode == -signal.SIGKILL
    epoch = steps(train).index(0, 1)
    assert epoch < 22
    assert steps(train) == [*range(epoch), *range(epoch), *range(epoch, 23)]  # of both settings, then on with one
    again = child(-1)
    assert again.returncode == 0, again.stderr
    made = json.loads(again.stdout)
    assert steps(again)[0] == epoch  # no first epoch is paid twice
    losses = trained(made)["losses"]
    assert steps(again) == list(range(epoch, len(losses)))
    for file in Path("runs/adapters").iterdir():
        file.unlink()
    whole = good_json("customize", *WORDS, "--arms", "lora", "--settings", "2", "-q")
    assert tried(whole) == tried(made)
    assert trained(whole)["adapter"] == trained(made)["adapter"]
    assert trained(whole)["losses"] == losses
    assert by_name(whole)["lora"]["test"] == by_name(made)["lora"]["test"]


@pytest.mark.long
def test_a_cap_of_seconds_ends_a_training(here: Path) -> None:
    good_json("run", *write_world(), "-n", "1", "-q")
    made = good_json("customize", *WORDS, "--arms", "lora", "--train-time", "0.001", "-q")
    found = trained(made)
    assert (found["ended"], len(found["losses"])) == ("seconds", 1)
    assert found["settings"]["max_seconds"] == 0.001
    assert Path(by_name(made)["lora"]["path"]).is_file()
    again = good_json("reproduce", made["run_id"])  # ends at that very step
    (line,) = again["trainings"]
    assert (again["same"], line["same"], again["requests"], line["adapter"]) == (True, True, 0, found["adapter"])
    speaking(Path("tiny.gguf"), seed=5)
    assert any("the file behind local/tiny.gguf changed" in line for line in refused(2, "reproduce", made["run_id"]))


def test_an_adapter_that_came_out_otherwise_is_said_with_what_differs() -> None:
    made = Retrained("lora", 36, 0, "a" * 64, "b" * 64, 0.51, 0.5, 0.002, "2.1", "2.0")
    assert not made.is_same
    assert made.drift == (
        "lora on 36 rows, seed 0: the adapter is aaaaaaaaaaaaaaaa, it was bbbbbbbbbbbbbbbb; dev loss 0.51000, it was "
        "0.50000 (+0.01000); weights differ by at most 0.002; numpy 2.1, it was 2.0"
    )
    assert replace(made, adapter="b" * 64).is_same
    bare = replace(made, dev_loss=None, weights=None, numpy="2.0")
    assert bare.drift == "lora on 36 rows, seed 0: the adapter is aaaaaaaaaaaaaaaa, it was bbbbbbbbbbbbbbbb"
