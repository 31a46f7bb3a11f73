"""Rows are read strictly, and each problem of the data is named at the line where its row starts."""

import csv
import datetime
import decimal
import io
import json
import re
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
from agent.safe_data import parse_data
from agent.safe_file import prompt_text
from agent.task.examples import MAX_NUMBER
from agent.task.load import load_task
from agent.task.tables import read_rows
from tests.cases import each_case
from tests.task.folders import TOML, WHERE, jsonl, make, problems, rows

GOOD = jsonl(rows("dev"))
HEAD = TOML.split("[fields.message]")[0]


@each_case(
    ("line", "words"),
    [
        (b'{"message": "caf\xe9", "team": "billing"}', "byte 0xe9 is not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        *((b'{"message": "a' + nul + b'b", "team": "billing"}', "NUL") for nul in (b"\x00", b"\\u0000")),
        *((b'{"message": "a\\ud800b", "team": "billing"}', "half a character"), (b'["a", "billing"]', "not an object")),
        *((b'{"message": "a", "team": ', "not valid JSON"), (b'{"message": "a", "team": NaN}', "not finite")),
        *((b'{"message": "a", "team": 1e999}', "too large"), (b'{"message": ["a"], "team": "billing"}', "not a text")),
        (b'{"message": "a", "team": ' + b"9" * 5000 + b"}", "too large"),
        (b'{"message": "a", "team": ' + b"[" * 60 + b"]" * 60 + b"}", "nested deeper than 50"),
        (b'{"message": "a", "message": "b", "team": "billing"}', "twice"),
        *((b'{"message": "a"}', "'team' is missing"), (b'{"message": "a", "team": 3}', "not a text")),
        (b'{"message": "a", "team": "billing", "tem": 1}', "did you mean 'team'"),
        (b'{"message": "a", "team": "biling"}', "did you mean 'billing'? Known: billing, delivery, refunds"),
        *((b'{"message": ' + empty + b', "team": "billing"}', "message: is empty") for empty in (b'" \\t"', b"null")),
        *((b'{"message": "a", "team": "billing", "id": ' + wrong + b"}", "id ") for wrong in (b'""', b"true")),
        (b'{"message": "DEV message  number 0 about billing", "team": "refunds"}', "with another label"),
        (b'{"message": "dev message number 0 about billing", "team": "billing"}', "write another"),
        (b'{"message": "train Message number 0 about billing", "team": "billing"}', "same inputs as "),
    ],
)  # fmt: skip
def test_each_bad_row_is_named_at_its_line(tmp_path_factory: Any, line: bytes, words: str) -> None:
    found = problems(make(tmp_path_factory.mktemp("t"), dev=GOOD.encode() + b"\n" + line + b"\r\n"))
    assert ["/dev.jsonl:8: " in text and words in text for text in found] == [True], found


def test_a_mistake_of_many_rows_is_told_once_and_many_mistakes_are_counted(here: Path) -> None:
    table = [{"message": f"message {n}", "team": f"Billing{n % 2 or ''}"} for n in range(9)]
    found = problems(make(here / "t", train=jsonl(table), dev=GOOD + '{"message": 1, "team": 2}\n{oops\n'))
    lines = ["t/train.jsonl:1", "t/train.jsonl:2", "t/dev.jsonl:7", "t/dev.jsonl:7", "t/dev.jsonl:8"]
    assert [line.split(": ")[0] for line in found] == lines
    assert found[0].endswith("(so in 5 rows, this is the first)")
    table = [{"message": f"message {n}", "team": f"team {n}"} for n in range(100)]
    found = problems(make(here / "u", train=jsonl(table)))
    assert [line.partition(": ")[0] for line in found] == [f"u/train.jsonl:{line}" for line in range(1, 22)]
    assert found[-1].endswith(": team: wrong in 80 more rows from here on; correct those above first")


BEYOND = str(int(MAX_NUMBER) + 1)


@each_case(
    ("suffix", "label", "value"),
    [
        *(("jsonl", "3", 3), ("jsonl", "-0.5", -0.5), ("jsonl", str(int(MAX_NUMBER)), MAX_NUMBER)),
        *(("jsonl", wrong, None) for wrong in ("true", '"3"', "null", "[1]", BEYOND)),
        *(("csv", "3", 3), ("csv", " -0.5 ", -0.5), ("csv", "1e3", 1000.0), ("csv", ".5", 0.5)),
        *(("csv", wrong, None) for wrong in ("1_000", "nan", "", BEYOND)),
    ],
)
def test_a_number_label_is_a_finite_number_that_a_reply_can_give(
    tmp_path_factory: Any, suffix: str, label: str, value: float | None
) -> None:
    data = {split: f'{{"message": "{split}", "team": 1}}' for split in ("train", "dev", "test")}
    folder = make(tmp_path_factory.mktemp("t"), f'{HEAD}[fields.team]\ntype = "number"\n', **data)
    if suffix == "csv":
        (folder / "dev.jsonl").unlink()
        (folder / "dev.csv").write_text(f'message,team\nx,"{label}"\n')
    else:
        (folder / "dev.jsonl").write_text(f'{{"message": "x", "team": {label}}}')
    if value is None:
        (line,) = problems(folder)
        assert f"dev.{suffix}:{1 + (suffix == 'csv')}: team: " in line
        assert (label != BEYOND) or 'is beyond 1e15, and no reply is read as such a number; set type = "text"' in line
    else:
        assert load_task(folder).dev[0].labels["team"] == value


def test_ids_are_unique_within_and_across_splits_and_numbers_count_as_text(here: Path) -> None:
    splits = {
        name: [row | {"id": f"{name}{n}"} for n, row in enumerate(rows(name))] for name in ("train", "dev", "test")
    }
    assert problems(make(here / "a", **{name: jsonl(table) for name, table in splits.items()})) == []
    splits["dev"][2]["id"], splits["dev"][4]["id"], splits["dev"][5]["id"], splits["test"][0]["id"] = (
        "train1",
        "dev3",
        5,
        "5",
    )
    found = problems(make(here / "b", **{name: jsonl(table) for name, table in splits.items()}))
    assert [line.split(";")[0] for line in found] == [
        "b/dev.jsonl:3: the id 'train1' is that of b/train.jsonl:2",
        "b/dev.jsonl:5: the id 'dev3' is that of b/dev.jsonl:4",
        "b/test.jsonl:1: the id '5' is that of b/dev.jsonl:6",
    ]


# -- tables ------------------------------------------------------------------------------------------------------------


def csv_rows(text: str, name: str = "x.csv") -> tuple[list[tuple[int, dict[str, Any]]], list[str]]:
    found, wrong = read_rows(Path(name), text.encode())
    assert all(WHERE.fullmatch(str(problem)) for problem in wrong)
    return found, [str(problem) for problem in wrong]


@each_case(
    ("text", "line", "words"),
    [
        ("a,b\n1,2\n1,2,3\n1\n", 3, "3 cells, the header has 2, and so in 1 more row; quote cells that hold a comma"),
        ("a;b\n1;2;3\n", 2, "3 cells, the header has 2; quote cells that hold a semicolon"),
        *(('a,b\n"x"y,2\n', 2, "not valid CSV"), ('a,b\n1,2\n"open,2\n3,4\n', 3, "not valid CSV")),
        ("a,b\r1,2\r", 1, r"(\r) outside of quotes; save the file with line ends \n"),
        *(("a,a\n1,2\n", 1, "two columns are called 'a'"), ("a|b\n1|2\n", 1, "separated by '|'; save it with commas")),
        ("a,b\n" + "x" * 1_000_001 + ",2\n", 2, "characters in a cell"),
    ],
)
def test_a_broken_csv_is_named_at_its_line(text: str, line: int, words: str) -> None:
    (wrong,) = csv_rows(text)[1]
    assert wrong.startswith(f"x.csv:{line}: ")
    assert words in wrong


@each_case(
    ("text", "start"),
    [
        *(('id;b, net\n1;"x;y"\n2;u, v\n', 2), ("id\tb, net\n1\tx;y\n2\tu, v\n", 2)),
        ('sep=,\nid,"b, net"\n1,x;y\n2,"u, v"\n', 3),
        *(('sep=;\r\nid;b, net\r\n1;"x;y"\r\n2;u, v\r\n', 3), ('"sep=\t"\nid\tb, net\n1\tx;y\n2\tu, v\n', 3)),
    ],
)
def test_columns_are_separated_by_commas_semicolons_or_tabs(text: str, start: int) -> None:
    rows = [(start, {"id": "1", "b, net": "x;y"}), (start + 1, {"id": "2", "b, net": "u, v"})]
    assert csv_rows(text) == (rows, [])


@each_case("text", ["a,b (x;y;z)\n1,2\n3,4;5\n", "reply\nyes; no\n1\t2\n", 'a,"b\tc\td"\n1,2\n', "a\nb;c\n"])
def test_another_mark_in_a_file_with_commas_changes_nothing(text: str) -> None:
    assert csv_rows(text) == ([(n, row) for n, row in enumerate(csv.DictReader(text.splitlines()), start=2)], [])


def test_a_quoted_cell_over_lines_has_the_line_where_its_row_starts() -> None:
    found = csv_rows('a,b\n"one\ntwo\r\nthree",x\n\n"say ""hi""",y\n')
    assert found == ([(2, {"a": "one\ntwo\nthree", "b": "x"}), (6, {"a": 'say "hi"', "b": "y"})], [])
    assert csv_rows("a\tb\n1, 2; 3\tx\n", "t.tsv") == ([(2, {"a": "1, 2; 3", "b": "x"})], [])
    before = csv.field_size_limit()
    assert len(csv_rows("a\n" + "x" * 999_999 + "\n")[0]) == 1
    assert csv.field_size_limit() == before


def test_a_wrong_csv_header_is_one_problem_not_one_per_row_and_json_cells_are_parsed(here: Path) -> None:
    folder = make(here / "t")
    (folder / "dev.jsonl").unlink()
    (folder / "dev.csv").write_text("mesage,team\n" + "x,billing\n" * 9)
    found = problems(folder)
    assert [line.startswith("t/dev.csv:1: ") for line in found] == [True, True]
    assert "did you mean 'message'" in found[0]
    table = {f"{split}__csv": f'message,team\n{split},"{{""a"": [1, null]}}"\n' for split in ("train", "dev", "test")}
    folder = make(here / "j", f'{HEAD}[fields.team]\ntype = "json"\n', **table)
    for split in ("train", "dev", "test"):
        (folder / f"{split}.jsonl").unlink()
    assert load_task(folder).dev[0].labels == {"team": {"a": [1, None]}}
    (folder / "dev.csv").write_text("message,team\ndev,{oops\n")
    assert [line.startswith("j/dev.csv:2: team: '{oops' is not JSON") for line in problems(folder)] == [True]


def test_wrong_bytes_encodings_and_kinds_of_file_are_refused(here: Path) -> None:
    (here / "b.csv").write_bytes(b"text\n" + b"caf\xe9\n" * 160 + b"a\0b\n" * 2)
    assert [str(each) for each in read_rows(Path("b.csv"))[1]] == [
        "b.csv:2: byte 0xe9 is not UTF-8, and so in 159 more lines; save the file as UTF-8",
        "b.csv:162: holds a NUL character, and so in 1 more line; remove it",
    ]
    (here / "a.jsonl").write_bytes('{"a": 1}'.encode("utf-16"))
    (here / "a.ods").write_bytes(b"PK")
    for name, words in (("a.jsonl", "UTF-16"), ("a.ods", "save it as CSV UTF-8"), ("c.csv", "no such file")):
        found, (wrong, *_) = read_rows(here / name)
        assert found == []
        assert words in str(wrong)


@each_case(
    ("text", "rows", "says"),
    [
        ('[{"a": 1},\n\n {"a":\n [2]}, {"a": "x, {"},\n 7]', [1, 3, 4], "t.json:5: the row 7 is not an object"),
        *(('{"a": 1}', [], "t.json:1: is not an array; write [{"), ("", [], "t.json:1: not valid JSON")),
        ('[{"a": 1},\n{oops}]', [], "t.json:2: not valid JSON: Expecting property name"),
        *(('[{"a": NaN}]', [], "not finite"), ('[{"a": 1, "a": 2}]', [], "twice")),
    ],
)
def test_an_array_of_objects_is_read_with_the_lines_where_they_start(text: str, rows: list[int], says: str) -> None:
    found, (problem,) = read_rows(Path("t.json"), text.encode())
    assert [line for line, _ in found] == rows
    assert says in str(problem)


ANY = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=9)


@given(st.binary(max_size=200), st.dictionaries(st.text(), ANY))
def test_no_bytes_make_the_reader_fail_and_what_json_writes_is_read_back(data: bytes, row: dict[str, Any]) -> None:
    for name in ("x.jsonl", "x.csv", "x.json"):
        _, wrong = read_rows(Path(name), data)
        assert all(WHERE.fullmatch(str(problem)) and str(problem).isprintable() for problem in wrong)
    found, wrong = read_rows(Path("x.jsonl"), (json.dumps(row) + "\n").encode())
    if wrong:
        assert "\\u0000" in json.dumps(row) or "\\ud" in json.dumps(row)
    else:
        assert found == [(1, row)]


# -- workbooks and Parquet files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "library"), [(".xlsx", "openpyxl"), (".parquet", "pyarrow")])
def test_a_table_whose_library_is_missing_names_the_extra(
    here: Path, suffix: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = here / f"t{suffix}"
    path.write_bytes(b"PAR1oops")
    assert f"t{suffix}:1: cannot be read as {suffix} (" in str(read_rows(path)[1][0])
    monkeypatch.setitem(sys.modules, library, None)
    what = f'needs {library}, which is not installed; pip install "promptassay[tables]"'
    assert [str(each) for each in read_rows(path)[1]] == [f"t{suffix}:1: {suffix} {what}"]


def workbook(*rows: list[Any]) -> bytes:
    """A workbook of two sheets that states a wrong size of the first."""
    book, made, wrong = openpyxl.Workbook(), io.BytesIO(), io.BytesIO()
    for row in rows:
        book.active.append(row)
    book.create_sheet("notes").append(["not", "read"])
    book.save(made)
    with zipfile.ZipFile(made) as good, zipfile.ZipFile(wrong, "w") as file:
        for part in good.infolist():
            data = good.read(part)
            file.writestr(part, re.sub(rb'<dimension ref="[^"]+"', b'<dimension ref="A1"', data))
    return wrong.getvalue()


def test_a_workbook_gives_the_rows_of_its_first_sheet(here: Path) -> None:
    header = ["text", "n", "day", None]
    day = datetime.datetime(2026, 11, 1)
    data = workbook(header, ["a", 3.0, day, None], [None] * 4, ["b", 0.5, None, "beyond the header"])
    wanted = [(2, {"text": "a", "n": 3, "day": "2026-11-01"}), (4, {"text": "b", "n": 0.5, "day": ""})]
    (here / "t.xlsx").write_bytes(data)
    assert read_rows(here / "t.xlsx") == (wanted, [])
    (here / "t.xlsx").write_bytes(workbook(["text", "text"], ["a", "b"]))
    assert "two columns are called 'text'" in str(read_rows(here / "t.xlsx")[1][0])


def test_a_parquet_file_gives_its_cells_as_json_has_them(here: Path) -> None:
    cells: dict[str, list[Any]] = {
        "text": ["a", None],
        "n": [1.0, float("nan")],
        "exact": [decimal.Decimal("1.50")] * 2,
        "at": [datetime.datetime(2026, 11, 1, 8, 30, tzinfo=datetime.UTC)] * 2,
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
    parquet.write_table(pyarrow.table({"text": ["a", "b\0"]}), here / "t.parquet")
    assert "t.parquet:3: holds a NUL character" in str(read_rows(here / "t.parquet")[1][0])


def test_a_prompt_is_a_file_or_a_text_with_a_blank(here: Path) -> None:
    (here / "my prompt").write_text("from the file", "utf-8")
    assert prompt_text("my prompt") == "from the file"
    assert prompt_text("Which team, {{text}}?\nAnswer.") == "Which team, {{text}}?\nAnswer."
    for name in ("prompt", "our prompt.txt", "none.md"):
        with pytest.raises(InputError, match="the prompt cannot be read"):
            prompt_text(name)


@given(st.text())
def test_strict_json_raises_only_value_errors(text: str) -> None:
    try:
        value = parse_data(text)
    except ValueError:
        return
    assert json.loads(text) == value
