"""Small files that would take gigabytes: each is refused by a limit while it is read, in bounded memory."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow
import pytest
from pyarrow import parquet

from agent import safe_data, safe_file
from agent.errors import InputError, ProblemsError
from agent.release.production_logs import read_lines
from agent.safe_data import MEMORY
from agent.task import columns, packed_tables, tables
from agent.task.columns import expanded
from agent.task.judge_files import RatingColumns, read_ratings_file
from agent.task.label_log import LabelLog
from agent.task.packed_tables import TableFile
from agent.task.promptfoo_tests import promptfoo_tests
from agent.task.tables import read_rows
from agent.task.traces import read_traces
from tests.task.folders import jsonl

ROOT = Path(__file__).resolve().parents[2]
READ = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, ({0}, {0}))
from agent.task.tables import read_rows
rows, problems = read_rows(Path(sys.argv[1]))
print(len(rows), *problems, sep="\\n")
"""
MB = 1_000_000


def sheet(path: Path, *parts: str | Iterator[bytes]) -> None:
    """Writes a workbook whose sheet has this XML between the tags of its rows."""
    plain = path.with_name("plain.xlsx")
    openpyxl.Workbook().save(plain)
    with zipfile.ZipFile(plain) as good, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for part in good.infolist():
            if not part.filename.endswith("/sheet1.xml"):
                made.writestr(part, good.read(part))
        with made.open("xl/worksheets/sheet1.xml", "w", force_zip64=True) as file:
            space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
            file.write(f'<worksheet xmlns="{space}"><sheetData>{row(1, "A1", "text")}'.encode())
            for each in (*parts, "</sheetData></worksheet>"):
                for data in [each.encode()] if isinstance(each, str) else each:
                    file.write(data)


def row(number: int, place: str, value: str) -> str:
    return f'<row r="{number}"><c r="{place}" t="inlineStr"><is><t>{value}</t></is></c></row>'


def table(path: Path, rows: int, value: str, columns: int = 1) -> None:
    """Writes a Parquet file with the same value in every cell, which is kept once."""
    values = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * rows, pyarrow.int8()), [value])
    parquet.write_table(pyarrow.table({f"c{at}": values for at in range(columns)}), path, compression="gzip")


@pytest.mark.parametrize(
    ("name", "write", "says"),
    [
        ("t.parquet", lambda path: table(path, 4_000, "a" * (MB - 1)), "more than 100,000,000 characters"),
        ("t.jsonl", lambda path: path.write_text('{"a": [' + "[]," * 6 * MB + "[]]}"), "more than 5,000,000 values"),
    ],
)
def test_a_file_that_unpacks_to_gigabytes_is_refused_in_bounded_memory(
    tmp_path: Path, name: str, write: Callable[[Path], object], says: str
) -> None:
    write(tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-c", READ.format(3 * MEMORY // 2), name],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    count, problem = done.stdout.splitlines()
    assert count == "0"
    assert problem.startswith(f"{name}:")
    assert says in problem


def test_a_workbook_that_takes_too_much_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lower = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (300 << 20, 300 << 20))\n"
    limited = "assert resource.getrlimit(resource.RLIMIT_AS)[0] == 1 << 30\n"
    script = packed_tables._SCRIPT.replace("limit_memory()\n", f"limit_memory()\nimport resource\n{limited}{lower}")
    monkeypatch.setattr(packed_tables, "_SCRIPT", script)
    cell = ('<row r="2"><c t="inlineStr"><is><t>', (b"a" * MB for _ in range(120)), "</t></is></c></row>")
    sheet(tmp_path / "huge.xlsx", *cell)
    (problem,) = read_rows(tmp_path / "huge.xlsx")[1]
    assert "takes more memory than a file may" in str(problem)


SMALL = {"ROWS": 100, "CELLS": 400, "COLUMNS": 20, "CELL_TEXT": 500, "LINE": 5_000, "PACKED_TEXT": 2_000}
SMALL |= {"POSITIONS": 900, "LINES": 300}


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that small files reach."""
    for module in (safe_data, safe_file, tables, packed_tables, columns):
        for name, most in SMALL.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, most)


TEXTS = {
    "t.csv": {
        "text\n" + "a\n" * 101: "t.csv:102: more than 100 rows",
        ",".join(f"c{at}" for at in range(21)): "t.csv:1: more than 20 columns",
        'text\n"\n' + '",a,a,a,a,"\n' * 110: "cells in a row",
        "a,b,c,d,e\n" + "1,2,3,4,5\n" * 81: "t.csv:82: more than 400 cells",
        "text\n" + "a" * 501: "more than 500 characters in a cell",
    },
    "t.tsv": {"text\n" + "a" * 5_001: "the line has more than"},
    "t.jsonl": {
        json.dumps({f"k{at}": at for at in range(21)}): "t.jsonl:1: more than 20 columns",
        jsonl([{f"k{at}": at} for at in range(25)]): "t.jsonl:21: more than 20 columns",
        f'{{"a": {json.dumps([0] * 99)}}}\n' * 5: "t.jsonl:5: more than 400 cells",
    },
    "t.json": {"[" + "{}," * 100 + "{}]": "more than 100 rows"},
}


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("name", TEXTS)
def test_each_limit_of_a_text_file_is_named_at_its_line(tmp_path: Path, name: str) -> None:
    for text, says in TEXTS[name].items():
        (tmp_path / name).write_text(text, "utf-8")
        rows, (problem, *_) = read_rows(tmp_path / name)
        assert rows == []
        assert says in str(problem), str(problem)


@pytest.mark.usefixtures("_small")
def test_each_limit_of_a_packed_file_is_kept_while_it_is_read(tmp_path: Path) -> None:
    book, packed = tmp_path / "t.xlsx", tmp_path / "t.parquet"
    cases: list[tuple[Path, Callable[[], None], str]] = [
        (book, lambda: sheet(book, row(999_999, "A999999", "a")), "900 cells, empty ones included"),
        (book, lambda: sheet(book, *(row(at, f"XFD{at}", "a") for at in range(2, 6))), "more than 900 cells"),
        (
            book,
            lambda: sheet(book, *(row(at, f"A{at}", "a" * 400) for at in range(2, 9))),
            "more than 2,000 characters",
        ),
        (packed, lambda: table(packed, 101, "a"), "more than 100 rows"),
        (packed, lambda: table(packed, 50, "a", 9), "more than 400 cells"),
        (packed, lambda: table(packed, 1, "a", 21), "more than 20 columns"),
        (packed, lambda: table(packed, 2, "a" * 501), "more than 500 characters in a cell"),
        (packed, lambda: table(packed, 10, "a" * 400), "more than 2,000 characters"),
    ]
    for path, write, says in cases:
        write()
        with pytest.raises(ValueError, match=says):
            list(iter(TableFile(str(path), path.suffix, "").part, []))


def test_a_file_within_the_limits_is_read_whole(tmp_path: Path) -> None:
    table(tmp_path / "t.parquet", 1_200, "a", 5)
    rows, problems = read_rows(tmp_path / "t.parquet")
    assert (len(rows), rows[-1][0], problems) == (1_200, 1_201, [])


READERS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "t.yaml": ("tests: [" + "a," * 60_000 + "a]", promptfoo_tests, "more than 50,000 names and values"),
    "u.yaml": ("# a\n" * 2 * MB, promptfoo_tests, "has more than 4 MB"),
    "traces.json": ('{"data": [' + "{}," * 6 * MB + "{}]}", read_traces, "more than 5,000,000 values"),
    "ratings.csv": (
        "item,rating," + "a," * 2_000 + "b\n",
        lambda path: read_ratings_file(path, RatingColumns(("item",), ("a",))),
        "more than 1,000 columns",
    ),
    "log.jsonl": (
        '{"text": "' + "a" * 2 * MB + '"}',
        lambda path: read_lines(path, dict, "{}"),
        "more than 1,000,000 characters",
    ),
    "labels.jsonl": ("{}\n" * (2 * MB + 2), lambda path: LabelLog(path).events(), "more than 2,000,000 lines"),
}


@pytest.mark.parametrize("name", READERS)
def test_each_reader_of_other_files_has_the_same_limits(tmp_path: Path, name: str) -> None:
    text, read, says = READERS[name]
    (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(ProblemsError, match=says):
        read(tmp_path / name)


def test_an_object_of_many_keys_makes_no_columns() -> None:
    table: list[dict[str, Any]] = [{"label": {f"k{at}": at for at in range(2_000)}, "text": "a"}]
    with pytest.raises(InputError, match="the column 'label' has more than 1,000 keys"):
        expanded(table, ["label.k1"])
