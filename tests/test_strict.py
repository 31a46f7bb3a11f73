"""What is read strictly is read as the standard library reads it, and the rest is refused in linear time."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ProblemsError
from agent.safe_data import MAX_TOML, MAX_TOML_DEPTH, parse_json, parse_toml
from agent.safe_file import read_file
from tests.cases import each_case

DEEP = (
    "a" + ".a" * MAX_TOML_DEPTH + " = 1",
    "[a" + ".a" * MAX_TOML_DEPTH + "]",
    "[['a'" + ' . "b.c"' * MAX_TOML_DEPTH + "]]",
    "x = {a" + ".a" * MAX_TOML_DEPTH + " = 1}",
    "x = " + "[" * (MAX_TOML_DEPTH + 1) + "]" * (MAX_TOML_DEPTH + 1),
    "x = " + "{a=[" * MAX_TOML_DEPTH + "]}" * MAX_TOML_DEPTH,
    "x = '''\n'''\ny" + ".a" * MAX_TOML_DEPTH + " = 1",
    'x = """a\\""""\ny' + ".a" * MAX_TOML_DEPTH + " = 1",
    'x = """""""\ny' + ".a" * MAX_TOML_DEPTH + " = 1",
)
FLAT = (
    "a" + ".a" * (MAX_TOML_DEPTH - 2) + " = 1",
    "x = " + "[" * (MAX_TOML_DEPTH - 2) + "]" * (MAX_TOML_DEPTH - 2),
    "x = '" + "a." * 1000 + "'",
    'x = """' + "[{a.b" * 1000 + '"""',
    "x = '''" + "[{a.'" * 1000 + " '''",
    "x = 1 # " + "[a." * 1000,
    "x = [" + "1.5," * 1000 + "]",
    "x.y = 1.5\n" + "[x.z]\n" + "".join(f"a{at}.b = {at}.5\n" for at in range(1000)),
    'x = "\\"[[" \ny = """\\"""[[[" """',
)


@each_case("text", DEEP)
def test_deep_toml_is_refused_at_its_line(text: str) -> None:
    with pytest.raises(ProblemsError, match=f"nested deeper than {MAX_TOML_DEPTH} levels") as caught:
        parse_toml("\n" + text, "t.toml")
    assert caught.value.problems[0].where == f"t.toml:{text.count(chr(10)) + 2}"


@each_case("text", FLAT)
def test_flat_toml_is_what_the_parser_makes_of_it(text: str) -> None:
    assert parse_toml(text, "t.toml") == tomllib.loads(text)


_TOML = st.lists(st.sampled_from([*"ab.=[]{}'\"#\n\\ ,1", '"""', "'''", "a = ", "\r\n"]), max_size=40).map("".join)


@given(_TOML)
def test_any_toml_that_parses_comes_out_the_same(text: str) -> None:
    try:
        expected = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        with pytest.raises(ProblemsError):
            parse_toml(text, "t.toml")
    else:
        assert parse_toml(text, "t.toml") == expected


SLOW = (
    'x = """' + '"\\' * 300_000,
    "'''" * 300_000,
    "x='''" + "''a" * 300_000,
    '"""\\' * 200_000,
    "a=0x" + "f" * 900_000,
    "".join(f"a{at}.{'.'.join('b' * 49)} = 1\n" for at in range(9000)),
    "." * 900_000,
    "a=" + "9" * 900_000,
)


def test_no_text_within_the_limits_keeps_the_parser_long(tmp_path: Path) -> None:
    """In a child, which is stopped where it takes minutes."""
    for number, text in enumerate(SLOW):
        (tmp_path / f"{number}.toml").write_text(text)
    code = (
        "import sys; from agent.safe_data import parse_toml; from agent.safe_file import read_file\n"
        "for name in sys.argv[1:]:\n"
        "    try: parse_toml(read_file(name, 10**6).decode(), 't')\n"
        "    except Exception: pass"
    )
    root = Path(__file__).resolve().parents[1]
    names = map(str, sorted(tmp_path.iterdir()))
    subprocess.run([sys.executable, "-c", code, *names], check=True, timeout=60, cwd=root)


def test_a_long_toml_is_refused_and_what_the_parser_says_keeps_its_line() -> None:
    with pytest.raises(ProblemsError, match="longer than 1,000,000 characters"):
        parse_toml("#" * (MAX_TOML + 1), "t.toml")
    for text, line in (("a = 1\nb = \n", 2), ("a = 1\nb = [\n\n", 2), ("a = 1\na = 2", 2), ("a = " + "9" * 5000, 1)):
        with pytest.raises(ProblemsError) as caught:
            parse_toml(text, "t.toml")
        assert caught.value.problems[0].where == f"t.toml:{line}"
        assert "at line" not in str(caught.value)


_DATA: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(_DATA)
def test_json_is_read_as_it_was_written(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value


@each_case("text", ['{"a": 1, "a": 1}', '[{"b": {"a": 1, "\\u0061": 2}}]', '{"": 1, "b": 2, "": 3}'])
def test_a_key_that_stands_twice_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="stands twice"):
        parse_json(text)


@each_case("text", ["[" * 100_000, '{"a":' * 501 + "1" + "}" * 501, b"[" * 501 + b"]" * 501])
def test_deep_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json(text)


def test_depth_is_counted_outside_strings() -> None:
    deepest = "[" * 500 + "]" * 500
    assert json.dumps(parse_json(deepest)) == deepest
    flat = [{"a": [n]} for n in range(500)] + ['\\"' + "[" * 1_000, "{" * 1_000]
    assert parse_json(json.dumps(flat)) == flat


def test_a_file_is_read_up_to_a_limit(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_file(tmp_path / "file", 5) == b"12345"
    with pytest.raises(ValueError, match="larger than 4 bytes"):
        read_file(tmp_path / "file", 4)
    with pytest.raises(ValueError, match="no regular file"):
        read_file("/dev/zero", 5)
    with pytest.raises(IsADirectoryError):
        read_file(tmp_path, 5)
