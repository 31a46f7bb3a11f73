"""A trace file as rows of a task: its kind told by its records, answers as labels only where people confirmed them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from agent.errors import Problem, ProblemsError
from agent.task.feedback import Scales, scales_of
from agent.task.input_files import Rows, parse_json, read_bytes, read_rows, whole_text
from agent.task.trace_kinds import KINDS, Malformed, Trace, TraceKind
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
        labelled, unlabelled: rows with and without a right answer, each input once.
        labelled_at, unlabelled_at: their lines in the file.
        answers: all of them, confirmed or not.
        repeated: answers to inputs that came before.
        contradicted: inputs whose confirmed answers differ; they are rows without a label.
        empty: answers without a question or a text.
        scales: of what people said, by name the highest number in the file where that is above 1.
        personal: rows that look as if they held personal data.
        instruction: the system text of most traces, "" where they have none.
    """

    kind: str
    column: str
    traces: int
    labelled: tuple[dict[str, str], ...]
    unlabelled: tuple[dict[str, str], ...]
    labelled_at: tuple[int, ...]
    unlabelled_at: tuple[int, ...]
    answers: tuple[str, ...]
    repeated: int
    contradicted: int
    empty: int
    scales: Scales
    personal: int
    instruction: str

    @property
    def table(self) -> list[tuple[int, dict[str, str]]]:
        """All rows with their lines, in the order of the file."""
        at, rows = (*self.labelled_at, *self.unlabelled_at), (*self.labelled, *self.unlabelled)
        return sorted(zip(at, rows, strict=True), key=itemgetter(0))

    @property
    def questions(self) -> list[tuple[int, dict[str, str]]]:
        """The same without the right answers."""
        return [(line, {name: text for name, text in row.items() if name != self.column}) for line, row in self.table]

    def lines(self) -> Iterator[str]:
        """The reading for people, one line each."""
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
                "addresses, telephone, card or account numbers); rows become demos, and are sent to "
                "models: take out what must not be there"
            )


def is_traces(path: Path) -> bool:
    """Whether the first record of a .jsonl or .json file is of a kind of trace."""
    if path.suffix.lower() not in (".jsonl", ".json") or not path.is_file():
        return False
    records, _ = _records(path)
    return bool(records) and _kind_of(records[0][1]) is not None


def read_traces(path: Path) -> TraceRows:
    """The rows of a trace file. Raises ProblemsError, with file and line, where a record is of no kind, of another kind
    than the first, or malformed, or where no record has both a question and an answer."""
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
    if path.suffix.lower() == ".json":
        try:
            text, problems = whole_text(read_bytes(path), shown(path))
        except ProblemsError as error:
            return [], list(error.problems)
        if not problems and text.lstrip().startswith("{"):
            try:
                whole = parse_json(text)
            except ValueError as error:
                return [], [problem(shown(path), getattr(error, "lineno", 1), f"not valid JSON: {error}; correct it")]
            inside = whole.get("data")
            return [(1, each) for each in inside if isinstance(each, dict)] if isinstance(inside, list) else [
                (1, whole)
            ], []
    return read_rows(path)


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
    labelled: list[tuple[int, dict[str, str]]] = []
    unlabelled: list[tuple[int, dict[str, str]]] = []
    personal = 0
    for key, (line, trace) in first.items():
        confirmed = labels.get(key, set())
        label = next(iter(confirmed)) if len(confirmed) == 1 else ""
        personal += any(_PERSONAL.search(text) for text in (*trace.inputs.values(), label))
        (labelled if label else unlabelled).append((line, {**trace.inputs, **({column: label} if label else {})}))
    systems = Counter(trace.system for trace in usable if trace.system)
    instruction, count = systems.most_common(1)[0] if systems else ("", 0)
    return TraceRows(
        kind.name,
        column,
        len(placed),
        tuple(row for _, row in labelled),
        tuple(row for _, row in unlabelled),
        tuple(line for line, _ in labelled),
        tuple(line for line, _ in unlabelled),
        tuple(trace.expected or trace.output for trace in usable),
        len(usable) - len(first),
        sum(len(confirmed) > 1 for confirmed in labels.values()),
        len(placed) - len(usable),
        scales,
        personal,
        instruction if count > len(usable) / 2 else "",
    )
