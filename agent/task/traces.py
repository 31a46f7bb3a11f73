"""Trace files: questions, answers and feedback of a model in production.

    Langfuse        {"input": ..., "output": ..., "scores": [{"name": "correct", "value": 1}]}
    OpenAI          {"messages": [...], "choices": [{"message": {...}}]}, or with request and response
    OTLP/JSON       {"resourceSpans": [{"scopeSpans": [{"spans": [...]}]}]} with gen_ai attributes
    production log  {"reply": "...", "inputs": {...}, "score": 1}, as `optimize monitor` reads it

Traces are untrusted: texts are only copied.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import ProblemsError
from agent.safe_data import LINE, parse_data
from agent.safe_file import OutsideFile
from agent.safe_text import counted, listed, quoted
from agent.task.tables import DataFile, Rows
from agent.types import canonical

INPUT, LABEL = "input", "output"
"""The columns of a single question text and of the right answers."""
EVALUATION = "gen_ai.evaluation"  # prefix of the attributes of an evaluation
FEEDBACK = ("score", "scores", "feedback", "rating", "correct")
GOOD = {"correct", "good", "yes", "true", "up", "thumbs_up", "thumbsup", "positive", "like", "pass", "passed", "accept"}
"""Feedback that confirms an answer."""
_NUMBER = re.compile(r"-?[0-9]{1,300}(\.[0-9]{1,300})?")

Feedback = tuple[str, bool | float | str | None]
"""A name and its value."""


def said_in(name: str, said: Any) -> Iterator[Feedback]:
    """Yield the parts of a feedback: items, the value of an object, or its keys.

    >>> [*said_in("scores", [{"name": "ok", "value": 1}, {"stars": ["4", 5]}])]
    [('ok', 1), ('stars', 4.0), ('stars', 5)]
    """
    if isinstance(said, Mapping) and {"value", "stringValue"} & {*said}:
        text = said.get("stringValue")  # the meaning of the number
        value = text if isinstance(text, str) and text.strip() else said.get("value")
        yield from said_in(str(said.get("name") or name), value)
    elif isinstance(said, Mapping | list) and said:
        for own, part in said.items() if isinstance(said, Mapping) else ((name, part) for part in said):
            yield from said_in(str(own), part)
    elif isinstance(said, str):
        text = said.strip()
        yield name, float(text) if _NUMBER.fullmatch(text) else text
    else:
        yield name, said if isinstance(said, bool | int | float) else None


def is_right(feedback: Iterable[Feedback], scales: Mapping[str, float]) -> bool:
    """Whether all feedback confirms the answer: `correct`, true, 1, the top of a scale.

    >>> is_right([("stars", 1)], {}), is_right([("stars", 1)], {"stars": 5}), is_right([], {})
    (True, False, False)
    """
    confirms = [
        value.lower().replace(" ", "_") in GOOD
        if isinstance(value, str)
        else value is True or (type(value) is not bool and value == scales.get(name, 1))
        for name, value in feedback
    ]
    return bool(confirms) and all(confirms)


@dataclass(frozen=True, slots=True)
class Trace:
    """One answer, with the expected one and the system message if recorded."""

    inputs: Mapping[str, str]
    output: str
    expected: str
    feedback: tuple[Feedback, ...]
    system: str


@dataclass(frozen=True, slots=True)
class TraceKind:
    """A kind of trace file: how to know a record, and the paths of question and answer, best first."""

    name: str
    holds: Callable[[Mapping[str, Any]], bool]
    asked: Sequence[str]
    output: Sequence[str]
    parts: Callable[[Mapping[str, Any]], Iterable[Mapping[str, Any]]] = lambda record: [record]
    """The records inside of one."""

    def read(self, record: Mapping[str, Any]) -> Iterator[Trace]:
        for part in self.parts(record):
            for path, (kind, words) in _SHAPES.items():
                if not isinstance(_at(part, path), kind | None):
                    raise _not(_at(part, path), path, words)
            asked, output = _first(part, self.asked), _first(part, self.output)
            if output is None and isinstance(asked, list) and _at(asked[-1], "role") == "assistant":
                asked, output = asked[:-1], asked[-1]
            inputs, system = _inputs(asked)
            output = [each for each in _mappings(output) if each.get("type") == "message"] or output
            expected = _text(_first(part, ("expectedOutput", "expected_output")))
            feedback = [
                each for key in FEEDBACK if _first(part, (key,)) is not None for each in said_in(key, part[key])
            ]
            yield Trace(inputs, _text(output), expected, tuple(feedback), system)


_SHAPES: Mapping[str, tuple[type, str]] = {
    "response.body": (dict, "an object"),
    "response.body.choices": (list, "a list"),
    "response.choices": (list, "a list"),
    "choices": (list, "a list"),
}


def _not(value: Any, key: str, kind: str) -> ValueError:
    return ValueError(f"{key} is {quoted(value)}, not {kind}; correct or remove the record")


def _at(value: Any, path: str) -> Any:
    for part in path.split("."):
        if isinstance(value, list):
            value = next(iter(value), None) if part == "0" else None
        else:
            value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _first(record: Mapping[str, Any], paths: Sequence[str]) -> Any:
    return next((found for path in paths if (found := _at(record, path)) not in (None, "", [], {})), None)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, Mapping):
        for key in ("content", "text", "parts"):
            if key in value:
                return _text(value[key])
    if isinstance(value, list) and value and all(isinstance(part, Mapping | str) for part in value):
        return "\n".join(filter(None, map(_text, value)))
    return "" if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _inputs(asked: Any) -> tuple[dict[str, str], str]:
    if isinstance(asked, Mapping) and not {"content", "text", "parts"} & {*asked}:
        return {str(name): _text(value) for name, value in asked.items()}, ""
    if not _mappings(asked):
        return {INPUT: _text(asked)}, ""
    turns = [(" ".join(str(turn.get("role")).split()), _text(turn)) for turn in _mappings(asked)]
    system = "\n".join(text for role, text in turns if text and role in ("system", "developer"))
    said = [(role, text) for role, text in turns if role not in ("system", "developer")]
    if len(said) == 1 and said[0][0] == "user":
        return {INPUT: said[0][1]}, system
    return {INPUT: "\n".join(f"{role}: " + text.replace("\n", "\n  ") for role, text in said)}, system


# -- OpenTelemetry -----------------------------------------------------------------------------------------------------


def _spans(record: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    scopes = [scope for each in _mappings(record["resourceSpans"]) for scope in _mappings(each.get("scopeSpans"))]
    for span in (span for scope in scopes for span in _mappings(scope.get("spans"))):
        found = _attributes(span.get("attributes"))
        if not any(name.startswith(("gen_ai.input", "gen_ai.prompt.", "gen_ai.output")) for name in found):
            continue
        events = [each for each in _mappings(span.get("events")) if each.get("name") == f"{EVALUATION}.result"]
        system = {"role": "system", "content": _parsed(found.get("gen_ai.system_instructions"))}
        yield {
            "input": [system, *(_parsed(found.get("gen_ai.input.messages")) or _numbered(found, "gen_ai.prompt."))],
            "output": (_parsed(found.get("gen_ai.output.messages")) or _numbered(found, "gen_ai.completion."))[:1],
            "scores": [
                {"name": part.get(f"{EVALUATION}.name") or EVALUATION, "stringValue": label, "value": value}
                for part in (found, *(_attributes(each.get("attributes")) for each in events))
                for label, value in [[part.get(f"{EVALUATION}.score.{key}") for key in ("label", "value")]]
                if label is not None or value is not None
            ],
        }


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _attributes(listed: Any) -> dict[str, Any]:
    return {str(each.get("key")): _any_value(each.get("value")) for each in _mappings(listed)}


def _any_value(value: Any) -> Any:
    kind, found = next(iter(value.items()), ("", "")) if isinstance(value, Mapping) else ("", value)
    if kind == "arrayValue":
        return [_any_value(each) for each in _mappings(_at(found, "values"))]
    if kind == "kvlistValue":
        return _attributes(_at(found, "values"))
    if kind not in ("intValue", "doubleValue"):
        return found
    try:
        return number if math.isfinite(number := float(found)) else None
    except (TypeError, ValueError):
        raise _not(found, kind, "a number") from None


def _parsed(value: Any) -> list[Any]:
    try:
        found = parse_data(value) if isinstance(value, str) else value
    except ValueError:
        return []
    return found if isinstance(found, list) else []


def _numbered(found: Mapping[str, Any], start: str) -> list[Any]:
    turns: list[Any] = []
    while f"{start}{len(turns)}.content" in found:
        at = f"{start}{len(turns)}"
        turns.append({"role": found.get(f"{at}.role", "assistant"), "content": found[f"{at}.content"]})
    return turns


# -- the file ----------------------------------------------------------------------------------------------------------

_CHAT = ("request.messages", "body.messages", "messages", "input")
_LANGFUSE = {"traceId", "projectId", "observations", "htmlPath", "scores", "userId", "sessionId"}


def _is_chat(record: Mapping[str, Any]) -> bool:
    turns = _first(record, _CHAT)
    is_langfuse = {"input", "output"} <= record.keys() and record.keys() & _LANGFUSE
    return isinstance(turns, list) and len(_mappings(turns)) == len(turns) and not is_langfuse


_REPLY = (
    *("choices.0.message", "choices.0", "response.body.choices.0.message", "response.choices.0.message"),
    *("response.body.output", "response.output", "reply", "completion", "output", "response"),
)


def _is_reply(record: Mapping[str, Any]) -> bool:
    return isinstance(record.get("reply"), str) and "inputs" in record


KINDS: tuple[TraceKind, ...] = (
    TraceKind("OpenTelemetry spans (OTLP/JSON)", lambda each: "resourceSpans" in each, ("input",), ("output",), _spans),
    TraceKind("a production log", _is_reply, ("inputs",), ("reply",)),
    TraceKind("OpenAI chat logs", _is_chat, _CHAT, _REPLY),
    TraceKind(
        "Langfuse traces", lambda each: {"input", "output"} <= each.keys(), ("input.messages", "input"), ("output",)
    ),
)
"""In the order in which they are tried."""
MOST_LISTED = 20
_PERSONAL = re.compile(
    r"(?<![\w.+-])[\w.+-]++@[\w-]++\.[\w.-]"  # e-mail
    r"|(?<![\w.])\+?\d[\d ()/-]{8,16}\d(?![\w.])"  # telephone and card numbers
    r"|\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}\b"  # IBAN
)


@dataclass(frozen=True, slots=True)
class TraceRows:
    """Distinct inputs of a trace file with their lines; confirmed answers are in `column`.

    `lines` explain to people how the file was read.
    """

    column: str
    table: Sequence[tuple[int, dict[str, str]]]
    answers: tuple[str, ...]
    instruction: str
    lines: tuple[str, ...]

    @property
    def labelled(self) -> tuple[dict[str, str], ...]:
        return tuple(row for _, row in self.table if self.column in row)

    @property
    def unlabelled(self) -> tuple[dict[str, str], ...]:
        return tuple(row for _, row in self.table if self.column not in row)

    @property
    def questions(self) -> list[tuple[int, dict[str, str]]]:
        """All rows with their lines, without answers."""
        return [(line, {name: text for name, text in row.items() if name != self.column}) for line, row in self.table]


def is_traces(path: Path) -> bool:
    if path.suffix.lower() not in (".jsonl", ".json") or not path.is_file():
        return False
    _, records = _trace_records(path)
    return bool(records) and _kind_of(records[0][1]) is not None


def read_traces(path: Path) -> TraceRows:
    """Read a trace file. Raises ProblemsError."""
    file, records = _trace_records(path)
    found: list[tuple[int, Trace]] = []
    kind = _kind_of(records[0][1]) if records else None
    for line, record in records:
        own = _kind_of(record)
        if own is None or own is not kind:
            is_a = own.name if own else f"an object with the keys {quoted(', '.join(map(str, record)))}"
            known = f"the file began as {kind.name}" if kind else f"known are {', '.join(each.name for each in KINDS)}"
            file.note(line, f"{is_a}; {known}")
            continue
        with file.at(line, f"{own.name}: "):
            found += [(line, trace) for trace in own.read(record)]
    file.refuse_most(MOST_LISTED, "record")
    if kind is None or not found:
        raise file.refusal(1, "holds no answers of a model; give a file of traces")
    made = _rows(kind, found)
    if not made.table:
        what = f"read as {kind.name}: {counted(len(found), 'answer')}, none with both a question and a text"
        raise file.refusal(found[0][0], f"{what}; give a file that holds both")
    return made


def _trace_records(path: Path) -> tuple[OutsideFile, Rows]:
    file = OutsideFile(path)
    try:
        text = file.whole(LINE, "save it as .jsonl, one object a line") if file.suffix == ".json" else ""
        if not text.lstrip().startswith("{"):
            rows = DataFile(path)
            return rows, rows.rows
        whole = parse_data(text)
    except ProblemsError as error:
        file.problems += error.problems
        return file, []
    except ValueError as error:
        file.note(getattr(error, "lineno", 1), f"not valid JSON: {error}; correct it")
        return file, []
    inside = whole.get("data")
    records = [each for each in inside if isinstance(each, dict)] if isinstance(inside, list) else [whole]
    return file, [(1, each) for each in records]


def _kind_of(record: Mapping[str, Any]) -> TraceKind | None:
    return next((kind for kind in KINDS if kind.holds(record)), None)


def _rows(kind: TraceKind, placed: list[tuple[int, Trace]]) -> TraceRows:
    full = [(line, trace) for line, trace in placed if trace.output and any(trace.inputs.values())]
    scales: dict[str, float] = {}  # the highest number by name, of names with numbers above 1, such as stars
    for name, value in (each for _, trace in placed for each in trace.feedback):
        if isinstance(value, int | float) and value > 1:
            scales[name] = max(value, scales.get(name, value))
    labels: dict[str, set[str]] = {}
    first: dict[str, tuple[int, Trace]] = {}
    for line, trace in full:
        key = canonical(dict(trace.inputs))
        first.setdefault(key, (line, trace))
        if label := trace.expected or (trace.output if is_right(trace.feedback, scales) else ""):
            labels.setdefault(key, set()).add(label)
    column = f"right_{LABEL}" if any(LABEL in trace.inputs for _, trace in full) else LABEL
    table: list[tuple[int, dict[str, str]]] = []
    for key, (line, trace) in first.items():
        confirmed = [*labels.get(key, ())]
        table.append((line, {**trace.inputs, **({column: confirmed[0]} if len(confirmed) == 1 else {})}))
    personal = sum(any(map(_PERSONAL.search, row.values())) for _, row in table)
    systems = Counter(trace.system for _, trace in full if trace.system)
    instruction, count = systems.most_common(1)[0] if systems else ("", 0)
    labelled = sum(column in row for _, row in table)
    contradicted = sum(len(confirmed) > 1 for confirmed in labels.values())
    lines = [
        f"read as {kind.name}: {counted(len(placed), 'answer')}, {counted(len(table), 'different input')}",
        f"labels: {counted(labelled, 'answer')} confirmed by a score or feedback; "
        f"{counted(len(table) - labelled, 'row')} without ({contradicted} with contradicting answers)",
    ]
    if highest := listed(f"{name} {most:g}" for name, most in scales.items()):
        lines.append(f"of scores above 1 only the highest in the file confirms an answer: {highest}")
    before = counted(len(full) - len(first), "answer")
    lines.append(f"left out: {before} to a repeated input, {len(placed) - len(full)} without question or answer")
    if personal:
        lines.append(
            f"warning: {counted(personal, 'row')} may hold personal data (e-mail, telephone, card or account numbers); "
            "rows are sent to models, so remove it"
        )
    answers = tuple(trace.expected or trace.output for _, trace in full)
    return TraceRows(column, table, answers, instruction if count > len(full) / 2 else "", tuple(lines))
