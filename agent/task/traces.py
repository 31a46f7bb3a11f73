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
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
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
KEYS = ("score", "scores", "feedback", "rating", "correct")  # of the feedback in a record
GOOD = {"correct", "good", "yes", "true", "up", "thumbs_up", "thumbsup", "positive", "like", "pass", "passed", "accept"}
"""Feedback that confirms an answer."""
_NUMBER = re.compile(r"-?[0-9]{1,300}(\.[0-9]{1,300})?")

Scales = Mapping[str, float]
"""The highest number by name, of names with numbers above 1, such as stars."""


@dataclass(frozen=True, slots=True)
class Feedback:
    name: str
    value: bool | float | str | None


def said_in(name: str, said: Any) -> Iterator[Feedback]:
    """Yield the parts of a feedback: items, the value of an object, or its keys.

    >>> [(one.name, one.value) for one in said_in("scores", [{"name": "ok", "value": 1}, {"stars": ["4", 5]}])]
    [('ok', 1), ('stars', 4.0), ('stars', 5)]
    """
    if isinstance(said, Mapping) and {"value", "stringValue"} & {*said}:
        text = said.get("stringValue")  # the meaning of the number
        value = text if isinstance(text, str) and text.strip() else said.get("value")
        yield from said_in(str(said.get("name") or name), value)
    elif isinstance(said, Mapping | list) and said:
        parts = said.items() if isinstance(said, Mapping) else ((name, part) for part in said)
        for own, part in parts:
            yield from said_in(str(own), part)
    elif isinstance(said, str):
        text = said.strip()
        yield Feedback(name, float(text) if _NUMBER.fullmatch(text) else text)
    else:
        yield Feedback(name, said if isinstance(said, bool | int | float) else None)


def scales_of(feedback: Iterable[Feedback]) -> Scales:
    """Return the scales of a file by all feedback in it."""
    highest: dict[str, float] = {}
    for each in feedback:
        if isinstance(each.value, int | float) and each.value > 1:  # true is not
            highest[each.name] = max(each.value, highest.get(each.name, each.value))
    return highest


def is_right(feedback: Collection[Feedback], scales: Scales) -> bool:
    """Whether all feedback confirms the answer: `correct`, true, 1, the top of a scale.

    >>> star = [Feedback("stars", 1)]
    >>> is_right(star, {}), is_right(star, {"stars": 5}), is_right([], {})
    (True, False, False)
    """

    def is_good(said: Feedback) -> bool:
        if isinstance(said.value, str):
            return said.value.lower().replace(" ", "_") in GOOD
        return said.value is True or (type(said.value) is not bool and said.value == scales.get(said.name, 1))

    return bool(feedback) and all(map(is_good, feedback))


@dataclass(frozen=True, slots=True)
class Trace:
    """One answer, with the expected one and the system message if recorded."""

    inputs: Mapping[str, str]
    output: str
    expected: str = ""
    feedback: tuple[Feedback, ...] = ()
    system: str = ""


@dataclass(frozen=True, slots=True)
class TraceKind:
    """A kind of trace file: name, test of a record, reader of its traces."""

    name: str
    holds: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Mapping[str, Any]], Iterator[Trace]]


def _trace(record: Mapping[str, Any], inputs: Mapping[str, str], output: str, system: str = "") -> Trace:
    expected = record.get("expectedOutput", record.get("expected_output"))
    said = [(key, record[key]) for key in KEYS if record.get(key) not in (None, "", [], {})]
    feedback = tuple(each for key, value in said for each in said_in(key, value))
    return Trace(inputs, output, _text(expected) if expected else "", feedback, system)


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


def _asked(turns: Sequence[Any]) -> tuple[dict[str, str], str]:
    messages = [(str(turn.get("role")), _text(turn)) for turn in turns if isinstance(turn, Mapping)]
    system = "\n".join(text for role, text in messages if role in ("system", "developer"))
    said = [(role, text) for role, text in messages if role not in ("system", "developer")]
    users = [text for role, text in said if role == "user"]
    whole = "\n".join(f"{' '.join(role.split())}: " + text.replace("\n", "\n  ") for role, text in said)
    text = whole if len(said) > 1 else (users or [whole])[0]
    return {INPUT: text}, system


def _messages(record: Mapping[str, Any]) -> list[Any]:
    request = record.get("request") or record.get("body") or record
    found = request.get("messages") if isinstance(request, Mapping) else None
    found = found if found is not None else record.get("messages", record.get("input"))
    return list(found) if isinstance(found, list) and all(isinstance(turn, Mapping) for turn in found) else []


def _openai(record: Mapping[str, Any]) -> Iterator[Trace]:
    turns, response = _messages(record), record.get("response")
    reply = response.get("body", response) if isinstance(response, Mapping) else {}
    reply = {} if reply is None else reply
    if not isinstance(reply, Mapping):
        raise _not(reply, "body", "an object")
    choices = record.get("choices") or reply.get("choices")
    if choices is not None and (not isinstance(choices, list) or len(_mappings(choices)) < len(choices)):
        raise _not(choices, "choices", "a list of objects")
    other = next((record[key] for key in ("reply", "completion", "output") if record.get(key)), response)
    if choices:
        output = _text(choices[0].get("message", choices[0]))
    elif isinstance(reply.get("output"), list):
        output = _text([part for part in _mappings(reply["output"]) if part.get("type") == "message"])
    elif other is not None:
        output = _text(other)
    else:
        output, turns = (_text(turns[-1]), turns[:-1]) if turns[-1].get("role") == "assistant" else ("", turns)
    inputs, system = _asked(turns)
    yield _trace(record, inputs, output, system)


def _not(value: Any, key: str, kind: str) -> ValueError:
    return ValueError(f"{key} is {quoted(value)}, not {kind}; correct or remove the record")


def _langfuse(record: Mapping[str, Any]) -> Iterator[Trace]:
    asked, system = record["input"], ""
    if isinstance(asked, Mapping) and isinstance(asked.get("messages"), list):
        asked = asked["messages"]
    if isinstance(asked, list) and asked and all(isinstance(turn, Mapping) for turn in asked):
        inputs, system = _asked(asked)
    elif isinstance(asked, Mapping) and asked and all(isinstance(value, str) for value in asked.values()):
        inputs = {str(name): value.strip() for name, value in asked.items()}
    else:
        inputs = {INPUT: _text(asked)}
    yield _trace(record, inputs, _text(record.get("output")), system)


def _production(record: Mapping[str, Any]) -> Iterator[Trace]:
    asked, output = record.get("inputs") or {}, _text(record["reply"])
    inputs = {str(name): _text(value) for name, value in asked.items()} if isinstance(asked, Mapping) else {}
    yield _trace(record, inputs or {INPUT: _text(asked)}, output)


def _otlp(record: Mapping[str, Any]) -> Iterator[Trace]:
    for resource in _mappings(record["resourceSpans"]):
        for scope in _mappings(resource.get("scopeSpans")):
            for span in _mappings(scope.get("spans")):
                found = _attributes(span.get("attributes"))
                if any(name.startswith(("gen_ai.input", "gen_ai.prompt.", "gen_ai.output")) for name in found):
                    yield _of_span(found, _mappings(span.get("events")))


def _of_span(found: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> Trace:
    results = [_attributes(each.get("attributes")) for each in events if each.get("name") == f"{EVALUATION}.result"]
    turns = _parsed(found.get("gen_ai.input.messages")) or _numbered(found, "gen_ai.prompt.")
    inputs, system = _asked(turns)
    system = system or _text(_parsed(found.get("gen_ai.system_instructions")))
    said = _parsed(found.get("gen_ai.output.messages")) or _numbered(found, "gen_ai.completion.")
    feedback = list[Feedback]()
    for part in (found, *results):
        label, value = part.get(f"{EVALUATION}.score.label"), part.get(f"{EVALUATION}.score.value")
        if label is not None or value is not None:
            name = str(part.get(f"{EVALUATION}.name") or EVALUATION)
            feedback += said_in(name, {"stringValue": label, "value": value})
    return Trace(inputs, _text(said[:1]), "", tuple(feedback), system)


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _attributes(listed: Any) -> dict[str, Any]:
    return {str(each.get("key")): _any_value(each.get("value")) for each in _mappings(listed)}


def _any_value(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    kind, found = next(iter(value.items()), ("", ""))
    if kind in ("arrayValue", "kvlistValue"):
        inside = found.get("values") if isinstance(found, Mapping) else None
        return [_any_value(each) for each in _mappings(inside)] if kind == "arrayValue" else _attributes(inside)
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


def _numbered(found: Mapping[str, Any], start: str) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = []
    while f"{start}{len(turns)}.content" in found:
        at = f"{start}{len(turns)}"
        turns.append({"role": found.get(f"{at}.role", "assistant"), "content": found[f"{at}.content"]})
    return turns


_LANGFUSE = {"traceId", "projectId", "observations", "htmlPath", "scores", "userId", "sessionId"}
_ASKED = {"input", "output"}
KINDS: tuple[TraceKind, ...] = (
    TraceKind("OpenTelemetry spans (OTLP/JSON)", lambda r: "resourceSpans" in r, _otlp),
    TraceKind("a production log", lambda r: isinstance(r.get("reply"), str) and "inputs" in r, _production),
    TraceKind(
        "OpenAI chat logs", lambda r: bool(_messages(r)) and not (r.keys() >= _ASKED and r.keys() & _LANGFUSE), _openai
    ),
    TraceKind("Langfuse traces", lambda r: r.keys() >= _ASKED, _langfuse),
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
    scales = scales_of(said for _, trace in placed for said in trace.feedback)
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
