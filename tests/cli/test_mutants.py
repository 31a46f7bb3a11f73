"""Damaged task folders: refused line by line with file and line, before a model is called."""

from __future__ import annotations

import random
import re
from pathlib import Path

from agent.errors import ProblemsError
from agent.task.load import load_task
from tests.cli.world import LINE, optimize, refused
from tests.task.folders import make, rows

WHERE = re.compile(r"error: \S.*:\d+: .+")
METRIC = "def metric(example, prediction):\n    return 1\n"
VALUES = [b"nan", b"-1", b"true", b"9" * 400, b"9" * 9000, b"1e999", b"0x" + b"f" * 5000, b'""', b"null", b"{}", b"inf",
          b"[" * 40 + b"]" * 40, b"[" * 5000, b"1979-05-27", b'"\\ud800"', b'"\\u0000"', b"'''a\n\n'''", b'"../../x"',
          b"[1, 'a', {b = 1}]", b'"(a+"']  # fmt: skip
TOKENS = [b"\x00", b"\xef\xbb\xbf", b"\xff\xfe", b"\r", b"\r\n", b"\n\n", b'"', b'"""', b"'", b"\\", b"\xed\xa0\x80",
          b"#", b"\xc2\x85", b"\xe2\x80\xa8", b"{{x}}", b"[[", b"]]", b",", b"{" * 3000, b"z", b""]  # fmt: skip


def damage(data: bytes, rng: random.Random) -> bytes:
    """A value, a piece, or the rest of the data becomes something else, or a piece stands twice."""
    if rng.random() < 0.3 and (places := [found.end() for found in re.finditer(rb"[=:] *", data)]):
        at = rng.choice(places)
        return data[:at] + rng.choice(VALUES) + data[at:].partition(b"\n")[2]
    at, size = rng.randrange(len(data)), rng.choice([0, 0, 1, 4, 80, len(data)])
    copied = data[(start := rng.randrange(len(data))) : start + 80]
    return data[:at] + rng.choice([*TOKENS, rng.randbytes(4), copied, copied, copied]) + data[at + size :]


def damaged(folder: Path, rng: random.Random, dev: str) -> Path:
    """A task folder whose dev rows are in a file of this name, with one file damaged; returns that file."""
    make(folder, metric__py=METRIC)
    if dev == "dev.csv":
        (folder / "dev.jsonl").unlink()
        cells = "".join(f'{n},"{row["message"]}, ""so""",{row["team"]}\n' for n, row in enumerate(rows("dev")))
        (folder / dev).write_text(f"id,message,team\n{cells}")
    file = folder / rng.choice(["task.toml", "task.toml", "train.jsonl", dev, "test.jsonl", "metric.py"])
    data = file.read_bytes()
    for _ in range(rng.choice([1, 2, 4])):
        data = damage(data, rng) or b"\n"
    file.write_bytes(data)
    return file


def problems_of(folder: Path) -> list[str]:
    try:
        load_task(folder)
    except ProblemsError as error:
        return [f"error: {line}" for line in str(error).splitlines()]
    return []


def test_a_damaged_folder_is_refused_line_by_line_and_every_command_says_the_same(here: Path) -> None:
    refusals: list[tuple[Path, list[str]]] = []
    for seed in range(60):
        folder = here / f"t{seed}"
        file = damaged(folder, random.Random(f"cli/{seed}"), "dev.csv" if seed % 2 else "dev.jsonl")
        lines = problems_of(folder)
        if file.name == "metric.py" and not lines:  # a run tries it, too
            planned = optimize("run", str(folder), "--dry-run", "-q")
            assert planned.exit_code in (0, 2, 3), planned.output
            lines = planned.stderr.splitlines() if planned.exit_code == 2 else []
        elif lines:
            refusals.append((folder, lines))
        assert all(WHERE.fullmatch(line) and LINE.fullmatch(line) for line in lines), lines
    assert len(refusals) >= 15
    for folder, lines in refusals[::8]:
        for command in (["run", folder, "-q"], ["run", folder, "--dry-run"], ["tasks", folder]):
            assert refused(2, *command) == lines
    assert not Path("runs").exists()
