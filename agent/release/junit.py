"""A check as JUnit XML for CI, and as Markdown for people. Everything that comes from rows or models is escaped.

In XML what the format cannot hold (control characters, halves of characters) stands as `\\xNN`. Pure but for
`require_place` and `write_text`.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from agent.errors import InputError, ReleaseError

_LINK = re.compile(r"://|www\.", re.IGNORECASE)  # what GitHub makes a link of by itself
NOT_XML = re.compile("[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
CELL = 120  # characters of a cell in Markdown
LINE = 600  # characters of a reason there
ROWS = 50  # flips in Markdown


def as_junit(told: Mapping[str, Any], rows: Sequence[str]) -> str:
    """One case for each question of the gate and one for each row; a flipped row fails when the flips fail the gate."""
    test = told["flip_test"]
    flipped = {flip["row"]: flip for flip in told["flips"]}
    too_many = test["p_value"] <= test["at_most"]
    suite = ElementTree.Element("testsuite", name=_xml(f"{told['name']} on {told['model']}"))
    case = ElementTree.SubElement(suite, "testcase", classname="gate", name="the prompt still does what it did")
    if told["gate"] != "passed":
        failure = ElementTree.SubElement(case, "failure", message=_xml(told["why"][0]))
        failure.text = _xml("\n".join(told["why"]))
    for row in rows:
        case = ElementTree.SubElement(suite, "testcase", classname="rows", name=_xml(row))
        if (flip := flipped.get(row)) is None:
            continue
        words = _xml(f"was {flip['was']!r}, is {flip['is']!r}")
        if too_many:
            ElementTree.SubElement(case, "failure", message="the answer flipped").text = words
        else:
            ElementTree.SubElement(case, "system-out").text = f"flipped, within repeat noise: {words}"
    failures = len(suite.findall("testcase/failure"))
    suite.attrib |= {"tests": str(len(rows) + 1), "failures": str(failures), "errors": "0", "skipped": "0"}
    suite.set("time", str(told["seconds"]))
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def as_markdown(told: Mapping[str, Any]) -> str:
    """A summary such as a pull request shows."""
    found, test, score = told["difference"], told["flip_test"], told["score"]
    mark = "passed" if told["gate"] == "passed" else "FAILED"
    lines = [f"## Prompt check: {mark}", "", f"{_cell(told['name'])} ({told['version']}) on {_cell(told['model'])}", ""]
    lines += [f"- **{_cell(why, LINE)}**" for why in told["why"]]
    lines += [f"- {_cell(note)}" for note in told["notes"]]
    lines += ["", "| | recorded | now |", "|---|---|---|"]
    lines.append(f"| model | {_cell(told['reference']['model'])} | {_cell(told['model'])} |")
    lines.append(f"| score | {_points(score['was'])} | {_points(score['now'])} |")
    lines.append(
        f"| replies that can be read | {_points(told['readable']['was'])} | {_points(told['readable']['now'])} |"
    )
    if found:
        low, high = (100 * value for value in found["ci95"])
        lines += ["", f"Difference {100 * found['diff']:+.1f} points on {found['n']} rows, 95 % CI {low:+.1f} to "]
        lines[-1] += f"{high:+.1f}, p = {found['p_value']:.2g}."
    lines += ["", f"Flipped: {test['flipped']} of {told['compared']} rows (p = {test['p_value']:.2g})."]
    if told["flips"]:
        lines += ["", "| row | was | is | score |", "|---|---|---|---|"]
        for flip in told["flips"][:ROWS]:
            scores = f"{_number(flip['was_score'])} -> {_number(flip['is_score'])}"
            lines.append(f"| {_cell(flip['row'])} | {_cell(flip['was'])} | {_cell(flip['is'])} | {scores} |")
        if len(told["flips"]) > ROWS:
            lines += ["", f"and {len(told['flips']) - ROWS} more"]
    return "\n".join(lines) + "\n"


def require_place(path: Path, option: str) -> None:
    """Raises an InputError where `write_text` could not write, before anything is paid for. What is there stays as it
    is."""
    there = path.exists()
    if path.is_dir():
        raise InputError(f"{option} {path}: is a folder (so is an empty name); name a file")
    if there and not path.is_file():
        return  # a pipe: to open and close it would be its end for whoever reads it
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()
        if not there:
            path.resolve().unlink()
    except OSError as error:
        raise InputError(
            f"{option} {path}: cannot be written ({error.strerror or error}); name another file"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Raises a ReleaseError when the disk refuses."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise ReleaseError(f"{path}: cannot be written ({error.strerror or error}); name another file") from error


def _xml(text: str) -> str:
    return NOT_XML.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def _cell(text: str, longest: int = CELL) -> str:
    """Text as it is, on one line: no character of it is read as Markdown or HTML."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    line = line if len(line) <= longest else f"{line[: longest - 1]}…"
    line = re.sub(r"([\\`*_\[\]()#|~!@])", r"\\\1", line)
    return _LINK.sub(lambda found: "".join(f"&#{ord(c)};" for c in found[0]), html.escape(line, quote=False))


def _points(side: Mapping[str, Any]) -> str:
    if side["mean"] is None:
        return "-"
    low, high = side["ci95"]
    return f"{100 * side['mean']:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}"
