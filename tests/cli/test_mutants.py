"""Damaged task folders through the command: refused line by line with file and line, and the model is never called."""

import random
import re
from pathlib import Path
from typing import Any

import pytest

from tests.cli.world import LINE, compatible, optimize
from tests.task.folders import make
from tests.task.test_mutations import DAMAGES
from tests.wire import WireServer

WHERE = re.compile(r"error: \S.*:\d+: .+")


def never(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
    raise AssertionError("a damaged task called the model")


@pytest.mark.parametrize("part", range(3))
def test_a_damaged_folder_is_refused_before_any_call(here: Path, part: int) -> None:
    refusals = 0
    with WireServer(never) as server:
        for seed in range(20 * part, 20 * part + 20):
            rng = random.Random(f"cli/{seed}")
            folder = make(here / f"t{seed}", metric__py="def metric(example, prediction):\n    return 1\n")
            file = folder / rng.choice(
                ["task.toml", "task.toml", "train.jsonl", "dev.jsonl", "test.jsonl", "metric.py"]
            )
            data = file.read_bytes()
            for _ in range(rng.choice([1, 2, 4])):
                data = rng.choice(DAMAGES)(data, rng) or b"\n"
            file.write_bytes(data)
            command = ["run", str(folder), "-m", compatible(server), "--price", "1,1", "--quiet"]
            planned = optimize(*command, "--dry-run")
            assert planned.exit_code in (0, 2, 3), planned.output
            lines = planned.stderr.splitlines()
            assert all(LINE.fullmatch(line) for line in lines)
            if planned.exit_code == 2:
                refusals += 1
                assert lines
                assert planned.stdout == ""
                assert all(WHERE.fullmatch(line) for line in lines), lines
                for again in (command, ["tasks", str(folder)]):
                    result = optimize(*again)
                    assert (result.exit_code, result.stderr) == (2, planned.stderr)
        assert server.requests == []
    assert refusals >= 5
    assert not Path("runs").exists()
