"""A campaign of seeded damage: every mutant of a good folder loads or is refused line by line; nothing else."""

import random
import re
from collections.abc import Callable
from typing import Any

from tests.cases import each_case
from tests.task.folders import make, problems, rows

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


def _csv(table: list[dict[str, Any]]) -> bytes:
    cells = "".join(f'{n},"{row["message"]}, ""so""",{row["team"]}\n' for n, row in enumerate(table, start=100))
    return f"id,message,team\n{cells}".encode()


@each_case("seed", range(60))
def test_a_damaged_file_loads_or_is_refused_line_by_line(tmp_path_factory: Any, seed: int) -> None:
    rng = random.Random(seed)
    folder = make(tmp_path_factory.mktemp("t"), metric__py="def metric(example, prediction):\n    return 1\n")
    (folder / "dev.jsonl").unlink()
    (folder / "dev.csv").write_bytes(_csv(rows("dev")))
    name = ("task.toml", "task.toml", "train.jsonl", "dev.csv", "metric.py")[seed % 5]
    data = (folder / name).read_bytes()
    for _ in range(rng.choice([1, 1, 2, 4])):
        data = rng.choice(DAMAGES)(data, rng) or b"\n"
    (folder / name).write_bytes(data)
    problems(folder)  # holds the form of every line; any other exception fails the test
