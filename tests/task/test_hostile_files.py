"""Small files that would take gigabytes: each is refused by a limit while it is read, in bounded memory."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import openpyxl
import pyarrow
import pytest
from pyarrow import parquet

from agent.safe_data import MEMORY
from tests.task.folders import jsonl

ROOT = Path(__file__).resolve().parents[2]
ADDRESS_SPACE = 3 * MEMORY // 2
READ = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, ({0}, {0}))
{1}
"""
ROWS = """
from agent.task.tables import read_rows
rows, problems = read_rows(Path(sys.argv[1]))
print(len(rows), *problems, sep="\\n")
"""
Write = Callable[[Path], object]


def read(path: Path, code: str = ROWS) -> str:
    """What a child process prints that reads the file within ADDRESS_SPACE."""
    done = subprocess.run(
        [sys.executable, "-c", READ.format(ADDRESS_SPACE, code), path.name],
        cwd=path.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def sheet(*parts: str | Iterator[bytes]) -> Write:
    """Writes a workbook whose sheet has this XML between the tags of its rows."""

    def write(path: Path) -> None:
        plain = path.with_name("plain.xlsx")
        openpyxl.Workbook().save(plain)
        with zipfile.ZipFile(plain) as good, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
            for part in good.infolist():
                if not part.filename.endswith("/sheet1.xml"):
                    made.writestr(part, good.read(part))
            with made.open("xl/worksheets/sheet1.xml", "w", force_zip64=True) as file:
                space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
                file.write(f'<worksheet xmlns="{space}"><sheetData>'.encode())
                for each in (row(1, text("A1", "text")), *parts, "</sheetData></worksheet>"):
                    for data in [each.encode()] if isinstance(each, str) else each:
                        file.write(data)

    return write


def row(number: int, cells: str) -> str:
    return f'<row r="{number}">{cells}</row>'


def text(place: str, value: str) -> str:
    return f'<c r="{place}" t="inlineStr"><is><t>{value}</t></is></c>'


def table(rows: int, value: str, columns: int = 1) -> Write:
    """Writes a Parquet file with the same value in every cell, which is kept once."""

    def write(path: Path) -> None:
        values = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * rows, pyarrow.int8()), [value])
        parquet.write_table(pyarrow.table({f"c{at}": values for at in range(columns)}), path, compression="gzip")

    return write


def written(*parts: tuple[str, int]) -> Write:
    """Writes texts, each so many times."""

    def write(path: Path) -> None:
        with path.open("w", encoding="utf-8") as file:
            for part, times in parts:
                file.write(part * times)

    return write


MB = 1_000_000
HOSTILE: dict[str, tuple[str, Write, str]] = {
    "far row": ("t.xlsx", sheet(row(99_999_999, text("A99999999", "a"))), "2,000,000 rows, empty ones included"),
    "far cells": (
        "t.xlsx",
        sheet("".join(row(number, text(f"XFD{number}", "a")) for number in range(2, 5_000))),
        "more than 50,000,000 cells",
    ),
    "cell of 500 MB": (
        "t.xlsx",
        sheet('<row r="2"><c t="inlineStr"><is><t>', (b"a" * MB for _ in range(500)), "</t></is></c></row>"),
        "takes more than 1 GB of memory",
    ),
    "cells of 200 MB": (
        "t.xlsx",
        sheet(*(row(2 + at, text(f"A{2 + at}", "a" * MB)) for at in range(200))),
        "more than 100,000,000 characters",
    ),
    "a row of many cells": (
        "t.xlsx",
        sheet('<row r="2">', (b"<c/>" * MB for _ in range(30)), "</row>"),
        "takes more than 1 GB of memory",
    ),
    "11 million rows, packed": ("t.parquet", table(11 * MB, "a"), "more than 1,000,000 rows"),
    "run-lengths of a long text": ("t.parquet", table(4_000, "a" * (MB - 1)), "more than 100,000,000 characters"),
    "run-lengths of a text": ("t.parquet", table(20_000, "a" * 10_000), "more than 100,000,000 characters"),
    "many cells": ("t.parquet", table(100_000, "a", 60), "more than 5,000,000 cells"),
    "many columns, packed": ("t.parquet", table(1, "a", 2_000), "more than 1,000 columns"),
    "11 million lines": ("t.csv", written(("text\n", 1), ("a\n", 11 * MB)), "more than 2,000,000 lines"),
    "many rows": ("t.csv", written(("text\n", 1), ("a\n", MB + 1)), "1000002: more than 1,000,000 rows"),
    "1 million columns": (
        "t.csv",
        lambda path: path.write_text(",".join(f"c{at}" for at in range(MB)) + "\n", "utf-8"),
        "t.csv:1: more than 1,000 columns",
    ),
    "a row of many lines": ("t.csv", written(('text\n"\n', 1), ('",a,a,a,a,"\n', 11 * MB // 10)), "cells in a row"),
    "a long cell": ("t.csv", written(("text\n", 1), ("a", 2 * MB)), "more than 1,000,000 characters in a cell"),
    "a long line": ("t.tsv", written(("text\n", 1), ("a", 70 * MB)), "the line has more than 64 MB"),
    "a long text": ("t.jsonl", written(('{"text": "', 1), ("a", 2 * MB), ('"}', 1)), "more than 1,000,000 characters"),
    "200,000 keys": (
        "t.jsonl",
        lambda path: path.write_text(json.dumps({f"k{at}": at for at in range(200_000)}), "utf-8"),
        "t.jsonl:1: more than 1,000 columns",
    ),
    "2,000 keys, each in its row": (
        "t.jsonl",
        lambda path: path.write_text(jsonl([{f"k{at}": at} for at in range(2_000)]), "utf-8"),
        "t.jsonl:1001: more than 1,000 columns",
    ),
    "many values": ("t.jsonl", written(('{"a": [', 1), ("[],", 6 * MB), ("[]]}", 1)), "more than 5,000,000 values"),
    "many rows of many values": (
        "t.jsonl",
        written((f'{{"a": {json.dumps([0] * 9_999)}}}\n', 600)),
        "t.jsonl:501: more than 5,000,000 cells",
    ),
    "an array of many": ("t.json", written(("[", 1), ("{},", 6 * MB), ("{}]", 1)), "more than 5,000,000 values"),
    "an array of many rows": ("t.json", written(("[", 1), ("{},", MB), ("{}]", 1)), "more than 1,000,000 rows"),
    "a large array": ("t.json", written(("[", 1), ('"a",\n', 15 * MB), ("1]", 1)), "has more than 64 MB"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_beyond_a_limit_is_refused_in_bounded_memory(name: str, tmp_path: Path) -> None:
    file, write, says = HOSTILE[name]
    write(tmp_path / file)
    assert (tmp_path / file).stat().st_size < 80 * MB
    count, *problems = read(tmp_path / file).splitlines()
    assert count == "0"
    assert len(problems) == 1
    assert problems[0].startswith(f"{file}:")
    assert says in problems[0]


def test_a_file_within_the_limits_is_read_in_bounded_memory(tmp_path: Path) -> None:
    table(10_000, "a", 500)(tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet") == "10000\n"


REFUSED = """
from agent.errors import AgentError
try:
    {}
except AgentError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("file", "write", "code", "says"),
    [
        (
            "t.yaml",
            written(("tests: [", 1), ("a,", MB), ("a]", 1)),
            "from agent.task.promptfoo_tests import promptfoo_tests; promptfoo_tests(Path(sys.argv[1]))",
            "more than 50,000 names and values",
        ),
        (
            "t.yaml",
            written(("# a\n", 2 * MB)),
            "from agent.task.promptfoo_tests import promptfoo_tests; promptfoo_tests(Path(sys.argv[1]))",
            "has more than 4 MB",
        ),
        (
            "traces.json",
            written(('{"data": [', 1), ("{},", 6 * MB), ("{}]}", 1)),
            "from agent.task.traces import read_traces; read_traces(Path(sys.argv[1]))",
            "more than 5,000,000 values",
        ),
        (
            "ratings.csv",
            written(("item,rating,", 1), ("a,", 2_000), ("b\n", 1)),
            "from agent.task.judge_files import *;"
            "read_ratings_file(Path(sys.argv[1]), RatingColumns(('item',), ('a',)))",
            "more than 1,000 columns",
        ),
        (
            "log.jsonl",
            written(('{"text": "', 1), ("a", 2 * MB), ('"}', 1)),
            "from agent.release.production_logs import read_lines; read_lines(Path(sys.argv[1]), dict, '{}')",
            "more than 1,000,000 characters",
        ),
        (
            "labels.jsonl",
            written(("{}\n", 2 * MB + 2)),
            "from agent.task.label_log import LabelLog; LabelLog(Path(sys.argv[1])).events()",
            "more than 2,000,000 lines",
        ),
    ],
)
def test_each_reader_of_other_files_has_the_same_limits(
    tmp_path: Path, file: str, write: Write, code: str, says: str
) -> None:
    write(tmp_path / file)
    assert says in read(tmp_path / file, REFUSED.format(code))


def test_an_object_of_200_000_keys_makes_no_columns(tmp_path: Path) -> None:
    keys = {f"k{at}": at for at in range(200_000)}
    (tmp_path / "t.jsonl").write_text(jsonl([{"label": keys, "text": f"row {at}"} for at in range(2)]), "utf-8")
    code = "from agent.task.columns import expanded; from agent.task.tables import read_rows;"
    code += "expanded([row for _, row in read_rows(Path(sys.argv[1]))[0]], ['label.k1'])"
    said = read(tmp_path / "t.jsonl", REFUSED.format(code))
    assert "the column 'label': its objects have more than 1,000 different keys" in said
