"""Rows of `.xlsx` and `.parquet` files, read by the libraries of the extra `tables` in a child process."""

from __future__ import annotations

import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from agent.extras import command
from agent.task.input_files import DataFile, Rows
from agent.task.limits import MEMORY
from agent.task.words import listed, near, printable, problem, quoted
from agent.worker import Worker

SECONDS = 300.0
"""For one part of the rows, and for what is read before the first one."""
PACKAGE = Path(__file__).parents[1] / "__init__.py"
_LIBRARIES = {".xlsx": "openpyxl", ".parquet": "pyarrow"}
_SCRIPT = r"""
sys.path[:] = opening["path"]
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("agent", opening["package"])  # by its place: a user's agent.py is not taken for it
sys.modules["agent"] = package = module_from_spec(spec)
spec.loader.exec_module(package)
from agent.task.limits import TooMuch
from agent.task.table_child import TableFile, limit_memory
limit_memory()
answer(True, "")
table = None
for line in pipe_in:
    is_full = False
    try:
        if table is None:
            table = TableFile(*json.loads(line))
            answer({"header": table.header, "sheets": table.sheets}, "")
        else:
            answer({"rows": table.part()}, "")
    except ImportError:
        answer({"error": "missing"}, "")
    except TooMuch as error:
        answer({"error": "limit", "what": str(error)}, "")
    except MemoryError:
        is_full = True
    except Exception as error:  # a library may fail in any way on a damaged file
        answer({"error": "damaged", "what": f"{type(error).__name__}: {str(error)[:200]}"}, "")
    if is_full:  # what the error held is free by now, so the answer has room
        table = None
        answer({"error": "memory"}, "")
"""


def table_of_binary(data: bytes, suffix: str, where: str, sheet: str = "") -> DataFile:
    """The rows of a sheet ("": the first), or of the table, with their numbers (the header is 1); raises nothing.

    Cells are texts, numbers, true and false, or JSON; dates are ISO texts, and what is empty is "".
    """
    if find_spec(_LIBRARIES[suffix]) is None:
        return DataFile([], [problem(where, 1, _fault({"error": "missing"}, "", suffix))])
    opening = {"path": [place for place in sys.path if place], "package": str(PACKAGE)}
    worker = Worker("the reader", _SCRIPT, opening, SECONDS, SECONDS)
    try:
        with tempfile.NamedTemporaryFile(suffix=suffix) as file:
            file.write(data)
            file.flush()
            return _read(worker, file.name, suffix, where, sheet)
    except OSError as error:
        return DataFile([], [problem(where, 1, f"cannot be unpacked ({error.strerror}); make room in the temp folder")])
    finally:
        worker.close()


def _read(worker: Worker, name: str, suffix: str, where: str, sheet: str) -> DataFile:
    opened, why = worker.now([name, suffix, sheet])
    if wrong := _fault(opened, why, suffix):
        return DataFile([], [problem(where, 1, wrong)])
    header, sheets = opened["header"], opened["sheets"]
    if sheet and sheet not in sheets:
        return DataFile([], [problem(where, 1, f"no sheet {quoted(sheet)}{near(sheet, sheets)}")])
    notes: tuple[str, ...] = ()
    if len(sheets) > 1:
        name = sheet or sheets[0]
        others = listed(each for each in sheets if each != name)
        read = f'{where}: sheet "{printable(name)}" of {len(sheets)} was read'
        notes = (f"{read}; --sheet NAME reads another: {others}",)
    if twice := _twice(header):
        return DataFile([], [problem(where, 1, f"two columns are called {quoted(twice)}; rename one")])
    rows: Rows = []
    while True:
        part, why = worker.now("next")
        if wrong := _fault(part, why, suffix):
            return DataFile([], [problem(where, rows[-1][0] + 1 if rows else 1, wrong)])
        if not part["rows"]:
            return DataFile(rows, [], notes)
        for number, cells in part["rows"]:
            if any(isinstance(cell, str) and "\x00" in cell for cell in cells):
                return DataFile([], [problem(where, number, "holds a NUL character; remove it")])
            rows.append((number, dict(zip(header, cells, strict=True))))


def _fault(found: Any, why: str, suffix: str) -> str:
    """What is wrong with an answer of the child, in words; "" where nothing is."""
    if found is None:
        return f"cannot be read as {suffix} ({why}); take fewer rows, or save it as CSV"
    match found.get("error"):
        case None:
            return ""
        case "missing":
            return f"{suffix} needs {_LIBRARIES[suffix]}, which is not installed; {command('tables')}"
        case "limit":
            return str(found["what"])
        case "memory":
            return f"takes more than {MEMORY >> 30} GB of memory; take fewer rows, or save it as CSV"
    return f"cannot be read as {suffix} ({found['what']}); save it anew"


def _twice(header: list[str]) -> str:
    """A name that stands twice, or ""."""
    seen: set[str] = set()
    return next((name for name in header if name in seen or seen.add(name)), "")  # type: ignore[func-returns-value]
