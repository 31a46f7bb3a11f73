"""A check as JUnit XML and as Markdown, and the files that a command writes. Pure but for these."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from agent.errors import InputError
from agent.results.base import Mean
from agent.results.checks import CheckResult
from agent.safe_file import disk_errors
from agent.safe_text import printable
from agent.stats.figures import bracketed, chance, evidence, gain, points

_LINK = re.compile(r"://|www\.", re.IGNORECASE)  # what GitHub makes a link of by itself
_NOT_XML = re.compile("[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
CELL = 120  # characters of a cell in Markdown
REASON = 600  # characters of a reason there
MOST_FLIPS = 50  # in Markdown


def as_junit(result: CheckResult, rows: Sequence[str]) -> str:
    """Format a check as JUnit XML: one case for the gate, one for each row."""
    flipped = {flip.row: flip for flip in result.flips}
    suite = ElementTree.Element("testsuite", name=_xml(f"{result.name} on {result.model}"))
    case = ElementTree.SubElement(suite, "testcase", classname="gate", name="the prompt still does what it did")
    if not result.passed:
        failure = ElementTree.SubElement(case, "failure", message=_xml(result.why[0]))
        failure.text = _xml("\n".join(result.why))
    for row in rows:
        case = ElementTree.SubElement(suite, "testcase", classname="rows", name=_xml(row))
        if (flip := flipped.get(row)) is None:
            continue
        words = _xml(f"was {flip.was!r}, is {flip.now!r}")
        if result.flip_test.too_many:
            ElementTree.SubElement(case, "failure", message="the answer flipped").text = words
        else:
            ElementTree.SubElement(case, "system-out").text = f"flipped, within repeat noise: {words}"
    failures = len(suite.findall("testcase/failure"))
    suite.attrib |= {"tests": str(len(rows) + 1), "failures": str(failures), "errors": "0", "skipped": "0"}
    suite.set("time", str(result.seconds))
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def as_markdown(result: CheckResult) -> str:
    """Format a check as Markdown for a pull request."""
    found, test, score = result.difference, result.flip_test, result.score
    mark = "passed" if result.passed else "FAILED"
    lines = [f"## Prompt check: {mark}", "", f"{_cell(result.name)} ({result.version}) on {_cell(result.model)}", ""]
    lines += [f"- **{_cell(why, REASON)}**" for why in result.why]
    lines += [f"- {_cell(note)}" for note in result.notes]
    lines += ["", "| | recorded | now |", "|---|---|---|"]
    lines.append(f"| model | {_cell(result.reference.model)} | {_cell(result.model)} |")
    lines.append(f"| score | {_points(score.was)} | {_points(score.now)} |")
    lines.append(f"| replies that can be read | {_points(result.readable.was)} | {_points(result.readable.now)} |")
    if found:
        shown = evidence(found.ci95, found.p_value)
        lines += ["", f"Difference {gain(found.diff)} points on {found.n} rows, {shown}."]
    lines += ["", f"Flipped: {test.flipped} of {result.compared} rows ({chance(test.p_value)})."]
    if result.flips:
        lines += ["", "| row | was | is | score |", "|---|---|---|---|"]
        for flip in result.flips[:MOST_FLIPS]:
            scores = f"{_percent(flip.was_score)} -> {_percent(flip.is_score)}"
            lines.append(f"| {_cell(flip.row)} | {_cell(flip.was)} | {_cell(flip.now)} | {scores} |")
        if len(result.flips) > MOST_FLIPS:
            lines += ["", f"and {len(result.flips) - MOST_FLIPS} more"]
    return "\n".join(lines) + "\n"


def require_place(path: Path, option: str) -> None:
    """Raise InputError if `write_text` could not write, before anything is paid for; changes no file."""
    there = path.exists()
    if path.is_dir():
        raise InputError(f"{option} {path}: is a folder (so is an empty name); name a file")
    if there and not path.is_file():
        return  # a pipe: to open and close it would be its end for whoever reads it
    with disk_errors(f"{option} {path}: cannot be written", "name another file", InputError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()
        if not there:
            path.resolve().unlink()


def write_text(path: Path, text: str) -> None:
    """Write a file. Raises ReleaseError if the disk refuses."""
    with disk_errors(f"{path}: cannot be written", "name another file"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8", "backslashreplace"))


def _xml(text: str) -> str:
    return _NOT_XML.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def _cell(text: str, longest: int = CELL) -> str:
    line = " ".join(printable(text, mark=lambda char: " ").split())
    line = line if len(line) <= longest else f"{line[: longest - 1]}…"
    line = re.sub(r"([\\`*_\[\]()#|~!@])", r"\\\1", line)
    return _LINK.sub(lambda found: "".join(f"&#{ord(c)};" for c in found[0]), html.escape(line, quote=False))


def _points(side: Mean) -> str:
    return "-" if side.ci95 is None else points(side.mean) + bracketed(side.ci95)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}"
