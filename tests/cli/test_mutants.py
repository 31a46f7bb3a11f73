"""Damaged task folders through the command: refused line by line with file and line, and the model is never called."""

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.world import LINE, compatible, optimize
from tests.task.folders import make, rows
from tests.wire import WireServer

WHERE = re.compile(r"error: \S.*:\d+: .+")
Damage = Callable[[bytes, random.Random], bytes]


def _lines(change: Callable[[list[bytes], int, random.Random], None]) -> Damage:
    def damage(data: bytes, rng: random.Random) -> bytes:
        lines = data.split(b"\n")
        change(lines, rng.randrange(len(lines)), rng)
        return b"\n".join(lines)

    return damage


def _delete(lines: list[bytes], at: int, rng: random.Random) -> None:
    del lines[at]


def _double(lines: list[bytes], at: int, rng: random.Random) -> None:
    lines.insert(rng.randrange(len(lines)), lines[at])


def _swap(lines: list[bytes], at: int, rng: random.Random) -> None:
    other = rng.randrange(len(lines))
    lines[at], lines[other] = lines[other], lines[at]


def _rename(lines: list[bytes], at: int, rng: random.Random) -> None:
    words = list(re.finditer(rb"\w+", lines[at]))
    if words:
        start = rng.choice(words).start()
        lines[at] = lines[at][:start] + b"z" + lines[at][start + 1 :]


def _value(lines: list[bytes], at: int, rng: random.Random) -> None:
    value = rng.choice([b"nan", b"NaN", b"-1", b"true", b"9" * 400, b"9" * 9000, b"1e999", b"0x" + b"f" * 5000, b'""',
                        b"null", b"[" * 40 + b"]" * 40, b"[" * 5000, b"{}", b"1979-05-27", b'"\\ud800"', b'"\\u0000"',
                        b"'''a\n\n'''", b"[1, 'a', {b = 1}]", b"inf", b'"../../x"', b'"(a+"'])  # fmt: skip
    lines[at] = re.sub(rb"([=:] *)[^=:]*$", lambda found: found[1] + value, lines[at])


def _truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def _noise(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + rng.randbytes(rng.choice([1, 2, 8])) + data[at + rng.choice([0, 1, 4]) :]


def _token(data: bytes, rng: random.Random) -> bytes:
    token = rng.choice([b"\x00", b"\xef\xbb\xbf", b"\r", b"\r\n", b'"', b'"""', b"'", b"\\", b"\xed\xa0\x80",
                        b"\xc2\x85", b"\xe2\x80\xa8", b"{{x}}", b"[[", b"]]", b"#", b",", b"{" * 3000])  # fmt: skip
    at = rng.randrange(len(data))
    return data[:at] + token + data[at:]


def _bom(data: bytes, rng: random.Random) -> bytes:
    return rng.choice([b"\xef\xbb\xbf", b"\xff\xfe", b"\xef\xbb\xbf\xef\xbb\xbf"]) + data


def _crlf(data: bytes, rng: random.Random) -> bytes:
    return data.replace(b"\n", rng.choice([b"\r\n", b"\r", b"\n\n"]))


DAMAGES: list[Damage] = [_lines(c) for c in (_delete, _double, _swap, _rename, _value)]
DAMAGES += [_truncate, _noise, _token, _bom, _crlf]


def never(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
    raise AssertionError("a damaged task called the model")


@pytest.mark.parametrize("part", range(3))
def test_a_damaged_folder_is_refused_before_any_call(here: Path, part: int) -> None:
    refusals = 0
    with WireServer(never) as server:
        for seed in range(20 * part, 20 * part + 20):
            rng = random.Random(f"cli/{seed}")
            folder = make(here / f"t{seed}", metric__py="def metric(example, prediction):\n    return 1\n")
            if seed % 2:
                (folder / "dev.jsonl").unlink()
                cells = "".join(f'{n},"{row["message"]}, ""so""",{row["team"]}\n' for n, row in enumerate(rows("dev")))
                (folder / "dev.csv").write_text(f"id,message,team\n{cells}")
            dev = "dev.csv" if seed % 2 else "dev.jsonl"
            file = folder / rng.choice(["task.toml", "task.toml", "train.jsonl", dev, "test.jsonl", "metric.py"])
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
