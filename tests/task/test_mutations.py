"""A campaign of seeded damage: every mutant of a good folder loads or is refused line by line; nothing else."""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.task.folders import TEAMS, TOML, jsonl, make, problems, rows

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


@pytest.mark.parametrize("seed", range(400))
def test_a_damaged_file_loads_or_is_refused_line_by_line(here: Path, seed: int) -> None:
    rng = random.Random(seed)
    folder = make(here / "t", metric__py="def metric(example, prediction):\n    return 1\n")
    (folder / "dev.jsonl").unlink()
    (folder / "dev.csv").write_bytes(_csv(rows("dev")))
    assert problems(folder) == []
    name = ("task.toml", "task.toml", "train.jsonl", "dev.csv", "metric.py")[seed % 5]
    data = (folder / name).read_bytes()
    for _ in range(rng.choice([1, 1, 2, 4])):
        data = rng.choice(DAMAGES)(data, rng) or b"\n"
    (folder / name).write_bytes(data)
    problems(folder)  # holds the form of every line; any other exception fails the test


@pytest.mark.parametrize("seed", range(60))
def test_damaged_rows_are_refused_for_their_own_reason(here: Path, seed: int) -> None:
    rng = random.Random(seed)
    names = ("dev", "test", "train")
    splits = {name: [row | {"id": f"{name}{n}"} for n, row in enumerate(rows(name))] for name in names}
    name, other = rng.sample(names, 2)
    at = rng.randrange(6)
    row = splits[name][at]
    kind = ("label", "id", "copy", "key", "extra", "type", "contradiction")[seed % 7]
    if kind == "label":
        row["team"] = row["team"][::-1]
    elif kind == "id":
        row["id"] = splits[other][at]["id"]
    elif kind == "copy":
        row["message"] = splits[other][at]["message"].upper()
    elif kind == "key":
        row["mesage"] = row.pop("message")
    elif kind == "extra":
        row["note"] = 1
    elif kind == "type":
        row["team"] = rng.choice([1, None, True, [], {}, 10**300])
    else:
        twin = {"message": row["message"], "team": TEAMS[(at + 1) % 3], "id": "twin"}
        splits[name].append(twin)
    found = problems(make(here / "t", **{split: jsonl(table) for split, table in splits.items()}))
    words = {"label": "choices", "id": "is that of", "copy": "same inputs", "key": "unknown column 'mesage'",
             "extra": "unknown column 'note'", "type": "not a text", "contradiction": "another label"}  # fmt: skip
    assert any(words[kind] in line for line in found), found


@pytest.mark.parametrize(
    "value", ["nan", "-inf", "true", "1979-05-27", "[]", "{}", "99999999999999999999", '""', "0x0"]
)
def test_every_key_takes_every_wrong_value_without_failing(here: Path, value: str) -> None:
    lines = TOML.split("\n")
    for at, line in enumerate(lines):
        if " = " in line and '"""' not in line:
            toml = "\n".join([*lines[:at], f"{line.split(' = ')[0]} = {value}", *lines[at + 1 :]])
            found = problems(make(here / "t", toml))
            where = [int(json.loads(text.split(":")[1])) for text in found]
            assert at + 1 in where or not found, (line, value, found)
