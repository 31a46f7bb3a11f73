"""A training that a cap has ended stays as it is when the same command goes on, and goes on itself without the cap."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.world import good_json
from tests.customize.test_customize import WORDS, events
from tests.customize.test_killed import CHILD, ROOT, steps
from tests.customize.world import write_world


def child(*more: str) -> subprocess.CompletedProcess[str]:
    """The comparison in a process of its own, which says each step of a training."""
    words = ["customize", *WORDS, "--arms", "lora", "-q", "--json", *more]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(ROOT), "-1", *words], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.long
def test_the_same_command_does_not_give_it_the_time_again(here: Path) -> None:
    good_json("run", *write_world(), "-n", "1", "-q")
    first, again = child("--train-time", "0.001"), child("--train-time", "0.001")
    assert steps(first)
    assert steps(again) == []  # else each kill after the training would cost the cap once more
    trained, once_more = (events(json.loads(done.stdout)["run_id"], "trained") for done in (first, again))
    assert once_more == trained
    assert {each["ended"] for each in trained} == {"seconds"}
    longer = child("--train-time", "1h")
    assert len(steps(longer)) > len(steps(first))
    assert {each["ended"] for each in events(json.loads(longer.stdout)["run_id"], "trained")} <= {
        "epochs",
        "early stop",
    }
