"""Rows are read strictly, and each problem of the data stands at the line where its row starts."""

import csv
import datetime
import decimal
import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from agent.errors import InputError
from agent.safe_file import prompt_text
from agent.task.tables import read_rows
from tests.task.folders import WHERE, changed, jsonl, make, problems, rows

GOOD = jsonl(rows("dev"))
NUMBERS = changed('type = "choice"\nchoices = ["billing", "delivery", "refunds"]', 'type = "number"')
NUMBERS = NUMBERS.replace('name = "choice"', 'name = "numeric"')


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"message": "caf\xe9", "team": "billing"}', "byte 0xe9 is not UTF-8"),
        (b'{"message": "a\x00b", "team": "billing"}', "NUL"),
        (b'{"message": "a\\u0000b", "team": "billing"}', "NUL"),
        (b'{"message": "a\\ud800b", "team": "billing"}', "half a character"),
        (b'{"message": "a", "team": ', "not valid JSON"),
        (b'{"message": "a", "team": NaN}', "NaN is not JSON"),
        (b'{"message": "a", "team": -Infinity}', "-Infinity is not JSON"),
        (b'{"message": "a", "team": 1e999}', "too large"),
        (b'{"message": "a", "team": ' + b"9" * 5000 + b"}", "too large"),
        (b'["a", "billing"]', "not an object"),
        (b'{"message": "a", "team": ' + b"[" * 60 + b"]" * 60 + b"}", "nested deeper than 50"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"message": "a", "message": "b", "team": "billing"}', "stands twice"),
        (b'{"message": "a"}', "'team' is missing"),
        (b'{"message": "a", "team": "billing", "tem": 1}', "did you mean 'team'"),
        (b'{"message": "a", "team": 3}', "not a text"),
        (b'{"message": ["a"], "team": "billing"}', "not a text"),
        (b'{"message": "a", "team": "biling"}', "did you mean 'billing'? Known: billing, delivery, refunds"),
        (b'{"message": " \\t", "team": "billing"}', "message: is empty"),
        (b'{"message": null, "team": "billing"}', "message: is empty"),
        (b'{"message": "a", "team": "billing", "id": ""}', "id ''"),
        (b'{"message": "a", "team": "billing", "id": true}', "id True"),
        (b'{"message": "DEV message  number 0 about billing", "team": "refunds"}', "with another label"),
        (b'{"message": "dev message number 0 about billing", "team": "billing"}', "keep a repeated row once"),
        (b'{"message": "train Message number 0 about billing", "team": "billing"}', "same inputs as t/train.jsonl:1"),
    ],
)
def test_each_bad_row_is_named_at_its_line(here: Path, line: bytes, words: str) -> None:
    found = problems(make(here / "t", dev=GOOD.encode() + b"\n" + line + b"\r\n"))
    assert [text.startswith("t/dev.jsonl:8: ") and words in text for text in found] == [True], found


@pytest.mark.parametrize(
    ("label", "good"),
    [("3", True), ("-0.5", True), ("1e3", True), ("true", False), ('"3"', False), ("null", False), ("[1]", False)],
)
def test_a_number_label_is_a_finite_number(here: Path, label: str, good: bool) -> None:
    data = {split: f'{{"message": "{split}", "team": {label}}}' for split in ("train", "dev", "test")}
    toml = NUMBERS.replace('name = "exact_match"', 'name = "numeric"').replace("ignore_case = true", "tolerance = 1")
    found = problems(make(here / "t", toml, **data))
    assert (found == []) is good
    assert all("team:" in line for line in found)


@pytest.mark.parametrize(
    ("cell", "value"),
    [("3", 3), (" -0.5 ", -0.5), ("1e3", 1000.0), (".5", 0.5), ("1_000", None), ("nan", None), ("", None)],
)
def test_number_cells_of_a_csv_are_parsed(here: Path, cell: str, value: float | None) -> None:
    toml = NUMBERS.replace('name = "exact_match"', 'name = "numeric"').replace("ignore_case = true", "tolerance = 1")
    data = {split: f'{{"message": "{split}", "team": 1}}' for split in ("train", "test")}
    folder = make(here / "t", toml, **data)
    (folder / "dev.jsonl").unlink()
    (folder / "dev.csv").write_text(f'message,team\nx,"{cell}"\n')
    found = problems(folder)
    assert (found == []) is (value is not None)
    assert all(line.startswith("t/dev.csv:2: team: ") for line in found)


def test_problems_of_a_file_stand_in_the_order_of_its_lines(here: Path) -> None:
    found = problems(make(here / "t", dev=GOOD + '{"message": 1, "team": 2}\n{oops\n{"message": ""}\n'))
    assert [line.split(": ")[0] for line in found] == [f"t/dev.jsonl:{n}" for n in (7, 7, 8, 9, 9)]


def test_ids_are_unique_within_and_across_splits(here: Path) -> None:
    train = [row | {"id": f"r{n}"} for n, row in enumerate(rows("train"))]
    dev = [row | {"id": f"d{n}"} for n, row in enumerate(rows("dev"))]
    assert problems(make(here / "a", train=jsonl(train), dev=jsonl(dev))) == []
    dev[2]["id"], dev[4]["id"] = "r1", "d3"
    found = problems(make(here / "b", train=jsonl(train), dev=jsonl(dev)))
    assert [line.split(";")[0] for line in found] == [
        "b/dev.jsonl:3: the id 'r1' is that of b/train.jsonl:2",
        "b/dev.jsonl:5: the id 'd3' is that of b/dev.jsonl:4",
    ]


def csv_rows(text: str) -> tuple[list[tuple[int, dict[str, Any]]], list[str]]:
    found, wrong = read_rows(Path("x.csv"), text.encode())
    assert all(WHERE.fullmatch(str(problem)) for problem in wrong)
    return found, [str(problem) for problem in wrong]


def test_a_quoted_cell_over_lines_has_the_line_where_its_row_starts() -> None:
    found, wrong = csv_rows('a,b\n"one\ntwo\r\nthree",x\n\n"say ""hi""",y\n')
    assert found == [(2, {"a": "one\ntwo\nthree", "b": "x"}), (6, {"a": 'say "hi"', "b": "y"})]
    assert wrong == []


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a,b\n1,2\n1,2,3\n", 3, "3 cells, the header has 2"),
        ("a,b\n1\n", 2, "1 cells"),
        ('a,b\n"x"y,2\n', 2, "not valid CSV"),
        ('a,b\n1,2\n"open,2\n3,4\n', 3, "not valid CSV"),
        ("a,b\r1,2\r", 1, r"(\r) outside of quotes; save the file with line ends \n"),
        ("a,a\n1,2\n", 1, "two columns are called 'a'"),
        ("a,b\n" + "x" * 1_000_001 + ",2\n", 2, "characters in a cell"),
    ],
)
def test_a_broken_csv_is_named_at_its_line(text: str, line: int, words: str) -> None:
    _, wrong = csv_rows(text)
    assert len(wrong) == 1
    assert wrong[0].startswith(f"x.csv:{line}: ")
    assert words in wrong[0]


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ('id;b, net\n1;"x;y"\n2;u, v\n', 2),
        ('"id";"b, net"\n1;"x;y"\n2;u, v\n', 2),
        ("id\tb, net\n1\tx;y\n2\tu, v\n", 2),
        ('sep=,\nid,"b, net"\n1,x;y\n2,"u, v"\n', 3),
        ('sep=;\r\nid;b, net\r\n1;"x;y"\r\n2;u, v\r\n', 3),
        ('"sep=\t"\nid\tb, net\n1\tx;y\n2\tu, v\n', 3),
    ],
)
def test_columns_stand_apart_by_commas_semicolons_or_tabs(text: str, start: int) -> None:
    rows = [(start, {"id": "1", "b, net": "x;y"}), (start + 1, {"id": "2", "b, net": "u, v"})]
    assert csv_rows(text) == (rows, [])


@pytest.mark.parametrize(
    "text", ["a,b (x;y;z)\n1,2\n3,4;5\n", "reply\nyes; no\n1\t2\n", 'a,"b\tc\td"\n1,2\n', "a\nb;c\n"]
)
def test_another_mark_in_a_file_with_commas_changes_nothing(text: str) -> None:
    assert csv_rows(text) == (
        [(n, row) for n, row in enumerate(csv.DictReader(text.splitlines()), start=2)],
        [],
    )


def test_rows_that_do_not_fit_the_header_are_one_problem_at_the_first_of_them() -> None:
    found, wrong = csv_rows("a,b\n1,2\n" + "1,2,3\n" * 161 + '"x"y,2\n1\n')
    assert len(found) == 1
    assert [line.split(";")[0] for line in wrong] == [
        "x.csv:3: the row has 3 cells, the header has 2, and so in 161 more rows",
        """x.csv:164: not valid CSV: ',' expected after '"'""",
    ]
    assert csv_rows("a;b\n1;2\n1;2;3\n")[1] == [
        "x.csv:3: the row has 3 cells, the header has 2; quote cells that hold a semicolon"
    ]


def test_a_wrong_csv_header_is_one_problem_not_one_per_row(here: Path) -> None:
    folder = make(here / "t")
    (folder / "dev.jsonl").unlink()
    (folder / "dev.csv").write_text("mesage,team\n" + "x,billing\n" * 9)
    found = problems(folder)
    assert all(line.startswith("t/dev.csv:1: ") for line in found)
    assert "did you mean 'message'" in found[0]
    assert len(found) == 2


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_what_is_wrong_with_the_bytes_of_many_lines_is_told_once(here: Path, name: str) -> None:
    (here / name).write_bytes(b"text\n" + b"caf\xe9\n" * 160 + b"a\0b\n" * 2)
    wrong = [str(each) for each in read_rows(here / name)[1] if "not valid JSON" not in str(each)]
    assert wrong == [
        f"{name}:2: byte 0xe9 is not UTF-8, and so in 159 more lines; save the file as UTF-8",
        f"{name}:162: holds a NUL character, and so in 1 more line; remove it",
    ]


def test_other_encodings_and_kinds_of_file_are_refused(here: Path) -> None:
    (here / "a.jsonl").write_bytes('{"a": 1}'.encode("utf-16"))
    (here / "a.ods").write_bytes(b"PK")
    for name, words in (("a.jsonl", "UTF-16"), ("a.ods", "save it as CSV UTF-8"), ("b.csv", "no such file")):
        found, wrong = read_rows(here / name)
        assert found == []
        assert words in str(wrong[0])


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists)))
def test_whatever_json_writes_is_read_back_or_refused_with_a_reason(row: dict[str, Any]) -> None:
    found, wrong = read_rows(Path("x.jsonl"), (json.dumps(row) + "\n").encode())
    if wrong:
        assert "\\u0000" in json.dumps(row) or "\\ud" in json.dumps(row)
    else:
        assert found == [(1, row)]


@given(st.binary(max_size=200))
def test_no_bytes_make_the_reader_fail(data: bytes) -> None:
    for name in ("x.jsonl", "x.csv"):
        _, wrong = read_rows(Path(name), data)
        assert all(WHERE.fullmatch(str(problem)) and str(problem).isprintable() for problem in wrong)


def test_an_array_of_objects_is_read_with_the_lines_where_they_start(here: Path) -> None:
    (here / "t.json").write_text('[{"a": 1},\n\n {"a":\n [2]}, {"a": "x, {"},\n 7]', "utf-8")
    rows, problems = read_rows(here / "t.json")
    assert rows == [(1, {"a": 1}), (3, {"a": [2]}), (4, {"a": "x, {"})]
    assert [str(each) for each in problems] == ['t.json:5: the row 7 is not an object; write {"field": value}']


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1}', "t.json:1: is not an array; write [{"),
        ('[{"a": 1},\n{oops}]', "t.json:2: not valid JSON: Expecting property name"),
        ('[{"a": NaN}]', "NaN is not JSON"),
        ('[{"a": 1, "a": 2}]', "stands twice"),
        ("", "t.json:1: not valid JSON"),
    ],
)
def test_a_json_file_that_is_no_array_of_objects_is_refused(here: Path, text: str, says: str) -> None:
    (here / "t.json").write_text(text, "utf-8")
    rows, problems = read_rows(here / "t.json")
    assert rows == []
    assert says in str(problems[0])


@pytest.mark.parametrize(("suffix", "library"), [(".xlsx", "openpyxl"), (".parquet", "pyarrow")])
def test_a_table_whose_library_is_not_here_names_the_extra(
    here: Path, suffix: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    path = here / f"t{suffix}"
    path.write_bytes(packed())
    what = f'needs {library}, which is not installed; pip install "promptassay[tables]"'
    assert [str(each) for each in read_rows(path)[1]] == [f"t{suffix}:1: {suffix} {what}"]


def packed() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr("x", "")
    return made.getvalue()


def workbook(path: Path, *rows: list[Any]) -> None:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.create_sheet("notes").append(["not", "read"])
    book.save(path)


def test_a_workbook_gives_the_rows_of_its_first_sheet(here: Path) -> None:
    day = datetime.datetime(2026, 11, 1)
    header = ["text", "n", "day", None]
    workbook(here / "t.xlsx", header, ["a", 3.0, day, None], [None] * 4, ["b", 0.5, None, "beyond the header"])
    wanted = [(2, {"text": "a", "n": 3, "day": "2026-11-01"}), (4, {"text": "b", "n": 0.5, "day": ""})]
    assert read_rows(here / "t.xlsx") == (wanted, [])
    workbook(here / "t.xlsx", ["text", "text"], ["a", "b"])
    assert "two columns are called 'text'" in str(read_rows(here / "t.xlsx")[1][0])
    workbook(here / "t.xlsx")
    assert read_rows(here / "t.xlsx") == ([], [])
    (here / "t.xlsx").write_bytes(b"oops")
    assert "t.xlsx:1: cannot be read as .xlsx (BadZipFile" in str(read_rows(here / "t.xlsx")[1][0])


def test_a_parquet_file_gives_its_cells_as_json_has_them(here: Path) -> None:
    moment = datetime.datetime(2026, 11, 1, 8, 30, tzinfo=datetime.UTC)
    cells: dict[str, list[Any]] = {
        "text": ["a", None],
        "n": [1.0, float("nan")],
        "exact": [decimal.Decimal("1.50")] * 2,
        "at": [moment] * 2,
        "tags": [["x", "y"], []],
        "object": [{"k": 1}] * 2,
        "bytes": ["café".encode(), b"\xff"],
        "flag": [True, False],
    }
    parquet.write_table(pyarrow.table(cells), here / "t.parquet")
    same = {"exact": "1.50", "at": "2026-11-01T08:30:00+00:00", "object": {"k": 1}}
    first = {"text": "a", "n": 1, "tags": ["x", "y"], "bytes": "café", "flag": True} | same
    second = {"text": "", "n": "", "tags": [], "bytes": "\\xff", "flag": False} | same
    assert read_rows(here / "t.parquet") == ([(2, first), (3, second)], [])


@pytest.mark.parametrize(
    ("names", "cells", "says"),
    [
        (["text", "n"], [["a", "b\0"], [1, 2]], "t.parquet:3: holds a NUL character"),
        (["x", "x"], [["a"], ["b"]], "t.parquet:1: two columns are called 'x'"),
    ],
)
def test_a_parquet_file_with_odd_cells_or_names_is_refused(
    here: Path, names: list[str], cells: list[list[Any]], says: str
) -> None:
    parquet.write_table(pyarrow.table([pyarrow.array(each) for each in cells], names=names), here / "t.parquet")
    assert says in str(read_rows(here / "t.parquet")[1][0])
    (here / "t.parquet").write_bytes(b"PAR1oops")
    assert "t.parquet:1: cannot be read as .parquet (Arrow" in str(read_rows(here / "t.parquet")[1][0])


def test_a_prompt_is_a_file_or_where_there_is_none_a_text_with_a_blank(here: Path) -> None:
    (here / "my prompt").write_text("from the file", "utf-8")
    assert prompt_text("my prompt") == "from the file"
    assert prompt_text("Which team, {{text}}?\nAnswer.") == "Which team, {{text}}?\nAnswer."
    assert prompt_text(f"Which team? {'x' * 5000}").startswith("Which")
    for name in ("prompt", "our prompt.txt", "none.md"):
        with pytest.raises(InputError, match="the prompt cannot be read"):
            prompt_text(name)
