"""A trace file as rows of a task: its kind told by its records, answers as labels only where people confirmed them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import Problem, ProblemsError
from agent.task.input_files import parse_json, read_bytes
from agent.task.tables import Rows, read_rows, whole_text
from agent.task.trace_kinds import KINDS, Malformed, Scales, Trace, TraceKind, scales_of
from agent.task.words import counted, listed, problem, quoted, shown
from agent.types import canonical

LABEL = "output"
"""The column of the right answers."""
MOST_LISTED = 20
_PERSONAL = re.compile(
    r"(?<![\w.+-])[\w.+-]++@[\w-]++\.[\w.-]"  # e-mail
    r"|(?<![\w.])\+?\d[\d ()/-]{8,16}\d(?![\w.])"  # telephone and card numbers
    r"|\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}\b"  # IBAN
)


@dataclass(frozen=True, slots=True)
class TraceRows:
    """What a trace file holds.

    Args:
        kind: in words.
        column: that of the right answers.
        traces: answers in it.
        table: rows with their lines, each input once; those with a right answer have `column`.
        answers: all of them, confirmed or not.
        repeated: answers to inputs that came before.
        contradicted: inputs whose confirmed answers differ; they are rows without a label.
        empty: answers without a question or a text.
        scales: of what people said, by name the highest number in the file where that is above 1.
        personal: rows that look as if they held personal data.
        instruction: the system text of most traces, or "".
    """

    kind: str
    column: str
    traces: int
    table: Sequence[tuple[int, dict[str, str]]]
    answers: tuple[str, ...]
    repeated: int
    contradicted: int
    empty: int
    scales: Scales
    personal: int
    instruction: str

    @property
    def labelled(self) -> tuple[dict[str, str], ...]:
        """The rows with a right answer."""
        return tuple(row for _, row in self.table if self.column in row)

    @property
    def unlabelled(self) -> tuple[dict[str, str], ...]:
        """The rows without one."""
        return tuple(row for _, row in self.table if self.column not in row)

    @property
    def questions(self) -> list[tuple[int, dict[str, str]]]:
        """All rows with their lines, without the right answers."""
        return [(line, {name: text for name, text in row.items() if name != self.column}) for line, row in self.table]

    def lines(self) -> Iterator[str]:
        """Describe the file for people, one line each."""
        confirmed, others = len(self.labelled), len(self.unlabelled)
        inputs = counted(confirmed + others, "different input")
        yield f"read as {self.kind}: {counted(self.traces, 'answer')}, {inputs}"
        yield (
            f"labels: {counted(confirmed, 'answer')} that a score or feedback confirms; "
            f"{counted(others, 'row has', 'rows have')} none ({self.contradicted} of them as "
            "confirmed answers contradict each other)"
        )
        if self.scales:
            highest = listed(f"{name} {most:g}" for name, most in self.scales.items())
            yield f"with numbers above 1 only the highest in the file says that an answer is right: {highest}"
        before = counted(self.repeated, "answer")
        yield f"left out: {before} to inputs that came before, {self.empty} without a question or a text"
        if self.personal:
            yield (
                f"warning: {counted(self.personal, 'row seems', 'rows seem')} to hold personal data (e-mail "
                "addresses, telephone, card or account numbers); rows become examples, and are sent to "
                "models: take out what must not be there"
            )


def is_traces(path: Path) -> bool:
    """Whether the first record of a .jsonl or .json file is a trace."""
    if path.suffix.lower() not in (".jsonl", ".json") or not path.is_file():
        return False
    records, _ = _records(path)
    return bool(records) and _kind_of(records[0][1]) is not None


def read_traces(path: Path) -> TraceRows:
    """Read a trace file. Raises ProblemsError where a record is of no kind, of another kind than the first, or
    malformed, or where no record has both a question and an answer."""
    records, problems = _records(path)
    where, found = shown(path), []
    kind = _kind_of(records[0][1]) if records else None
    for line, record in records:
        own = _kind_of(record)
        if own is None or own is not kind:
            is_a = own.name if own else f"an object with the keys {quoted(', '.join(map(str, record)))}"
            known = f"the file began as {kind.name}" if kind else f"known are {', '.join(each.name for each in KINDS)}"
            problems.append(problem(where, line, f"{is_a}; {known}"))
            continue
        try:
            found += [(line, trace) for trace in own.read(record)]
        except Malformed as error:
            problems.append(problem(where, line, f"{own.name}: {error}"))
    if not found and not problems:
        problems = [Problem(f"{where}:1", "no answers of a model; give a file of traces")]
    if problems:
        more = len(problems) - MOST_LISTED
        rest = [Problem(where, f"and {counted(more, 'more record')} with a problem")] if more > 0 else []
        raise ProblemsError((*problems[:MOST_LISTED], *rest))
    assert kind is not None
    made = _rows(kind, found)
    if not made.table:
        what = f"read as {kind.name}: {counted(made.traces, 'answer')}, none with both a question and a text"
        raise ProblemsError((problem(where, found[0][0], f"{what}; give a file that holds both"),))
    return made


def _records(path: Path) -> tuple[Rows, list[Problem]]:
    """The records with their lines: of a .json file also those of one object, as servers export them."""
    if path.suffix.lower() != ".json":
        return read_rows(path)
    where = shown(path)
    try:
        text = whole_text(read_bytes(path), where)
        if not text.lstrip().startswith("{"):
            return read_rows(path)
        whole = parse_json(text)
    except ProblemsError as error:
        return [], list(error.problems)
    except ValueError as error:
        return [], [problem(where, getattr(error, "lineno", 1), f"not valid JSON: {error}; correct it")]
    inside = whole.get("data")
    records = [each for each in inside if isinstance(each, dict)] if isinstance(inside, list) else [whole]
    return [(1, each) for each in records], []


def _kind_of(record: Mapping[str, Any]) -> TraceKind | None:
    return next((kind for kind in KINDS if kind.holds(record)), None)


def _rows(kind: TraceKind, placed: list[tuple[int, Trace]]) -> TraceRows:
    full = [(line, trace) for line, trace in placed if trace.output and any(trace.inputs.values())]
    usable = [trace for _, trace in full]
    scales = scales_of(said for _, trace in placed for said in trace.feedback)
    labels: dict[str, set[str]] = {}
    first: dict[str, tuple[int, Trace]] = {}
    for line, trace in full:
        key = canonical(dict(trace.inputs))
        first.setdefault(key, (line, trace))
        if label := trace.label(scales):
            labels.setdefault(key, set()).add(label)
    column = f"right_{LABEL}" if any(LABEL in trace.inputs for trace in usable) else LABEL
    table: list[tuple[int, dict[str, str]]] = []
    personal = 0
    for key, (line, trace) in first.items():
        confirmed = labels.get(key, set())
        row = {**trace.inputs, **({column: next(iter(confirmed))} if len(confirmed) == 1 else {})}
        personal += any(map(_PERSONAL.search, row.values()))
        table.append((line, row))
    systems = Counter(trace.system for trace in usable if trace.system)
    instruction, count = systems.most_common(1)[0] if systems else ("", 0)
    return TraceRows(
        kind=kind.name,
        column=column,
        traces=len(placed),
        table=table,
        answers=tuple(trace.expected or trace.output for trace in usable),
        repeated=len(usable) - len(first),
        contradicted=sum(len(confirmed) > 1 for confirmed in labels.values()),
        empty=len(placed) - len(usable),
        scales=scales,
        personal=personal,
        instruction=instruction if count > len(usable) / 2 else "",
    )
