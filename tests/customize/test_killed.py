"""A comparison that is killed in a training, or has a cap on it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.child import ROOT
from tests.cli.world import good_json, refused
from tests.customize.test_customize import WORDS, by_name, events
from tests.customize.world import write_world
from tests.training.tiny import speaking

pytestmark = pytest.mark.long
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


def child(*more: str, killed_at: int = -1) -> tuple[dict[str, Any], list[int]]:
    """The comparison in a child process: its result ({}: it was killed), and the steps of its trainings."""
    words = ["customize", *WORDS, "--arms", "lora", "-q", "--json", *more]
    command = [sys.executable, "-c", CHILD, str(ROOT), str(killed_at), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == (0 if killed_at < 0 else -signal.SIGKILL), done.stderr
    steps = [int(line.split()[1]) for line in done.stderr.splitlines() if line.startswith("step ")]
    return json.loads(done.stdout or "{}"), steps


def trained(made: dict[str, Any]) -> dict[str, Any]:
    (found,) = events(made["run_id"], "trained")
    return found


def test_killed_in_an_epoch_the_same_command_ends_with_the_same_adapter(here: Path) -> None:
    good_json("run", *write_world(), "-n", "1", "-q")
    _, killed = child("--settings", "2", killed_at=22)
    epoch = killed.index(0, 1)
    assert killed == [*range(epoch), *range(epoch), *range(epoch, 23)], "both settings, then one continues"
    made, steps = child("--settings", "2")
    losses = trained(made)["losses"]
    assert steps == list(range(epoch, len(losses))), "no first epoch is paid twice"
    for file in Path("runs/adapters").iterdir():
        file.unlink()
    whole = good_json("customize", *WORDS, "--arms", "lora", "--settings", "2", "-q")
    for one in (*whole["settings"][0]["tried"], *made["settings"][0]["tried"]):
        del one["seconds"]
    assert whole["settings"] == made["settings"]
    for key in ("adapter", "losses"):
        assert trained(whole)[key] == trained(made)[key]
    assert by_name(whole)["lora"]["test"] == by_name(made)["lora"]["test"]


def test_a_cap_of_seconds_ends_a_training_which_is_repeated_at_that_step_and_not_given_the_time_again(
    here: Path,
) -> None:
    good_json("run", *write_world(), "-n", "1", "-q")
    first, steps = child("--train-time", "0.001", "--settings", "1")
    found = trained(first)
    assert (found["ended"], len(found["losses"]), len(steps)) == ("seconds", 1, 1)
    assert found["settings"]["max_seconds"] == 0.001
    assert Path(by_name(first)["lora"]["path"]).is_file()
    again, none = child("--train-time", "0.001", "--settings", "1")
    assert none == []
    assert trained(again) == found
    repeated = good_json("reproduce", first["run_id"])  # ends at that very step
    (line,) = repeated["trainings"]
    assert (repeated["same"], line["same"], repeated["requests"]) == (True, True, 0)
    assert line["adapter"] == found["adapter"]
    longer, more = child("--train-time", "1h", "--settings", "1")
    assert len(more) > 1
    assert trained(longer)["ended"] in ("epochs", "early stop")
    speaking(Path("tiny.gguf"), seed=5)
    assert any("the file behind local/tiny.gguf changed" in line for line in refused(2, "reproduce", first["run_id"]))
