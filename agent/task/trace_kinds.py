"""One record of a trace file, of each kind that is read: what was asked, what was answered, and what people said of it.

    Langfuse        {"input": ..., "output": ..., "scores": [{"name": "correct", "value": 1}]}
    OpenAI          {"messages": [...], "choices": [{"message": {...}}]}, or with request and response
    OTLP/JSON       {"resourceSpans": [{"scopeSpans": [{"spans": [...]}]}]} with gen_ai attributes
    production log  {"reply": "...", "inputs": {...}, "score": 1}, as `optimize monitor` reads it

All of it is untrusted: nothing in it is run, and texts are only copied.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.task.feedback import Feedback, Scales, feedback_of, is_right, said_in
from agent.task.input_files import parse_json
from agent.task.words import quoted

INPUT = "input"
"""The column of a question that is one text."""
EVALUATION = "gen_ai.evaluation"
"""What the attributes of an evaluation begin with."""


class Malformed(ValueError):
    """Why a record of a known kind cannot be read."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One answer.

    Args:
        inputs: texts by column.
        output: what the model answered.
        expected: the right answer that a person wrote down, "" where none did.
        feedback: what people said of the output.
        system: the instruction that the model got.
    """

    inputs: Mapping[str, str]
    output: str
    expected: str = ""
    feedback: tuple[Feedback, ...] = ()
    system: str = ""

    def label(self, scales: Scales) -> str:
        """The right answer: what a person wrote down, or the output where people say that it is right; else ""."""
        return self.expected or (self.output if is_right(self.feedback, scales) else "")


@dataclass(frozen=True, slots=True)
class TraceKind:
    """A kind of trace file: its name, whether a record is of it, and the traces of a record, or Malformed."""

    name: str
    holds: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Mapping[str, Any]], Iterator[Trace]]


def _expected(record: Mapping[str, Any]) -> str:
    """The right answer that a person wrote down."""
    return _text(expected) if (expected := record.get("expectedOutput", record.get("expected_output"))) else ""


def _text(value: Any) -> str:
    """A text of any form in which one comes: a text, a message, parts of one, else JSON."""
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
    """The question of a dialogue, and its system text: the last user turn, or where there are several, all turns.

    Further lines of a turn are indented, so that no turn can look like another one.
    """
    messages = [turn for turn in turns if isinstance(turn, Mapping)]
    system = "\n".join(_text(turn) for turn in messages if turn.get("role") in ("system", "developer"))
    said = [
        (str(turn.get("role")), _text(turn)) for turn in messages if turn.get("role") not in ("system", "developer")
    ]
    users = [text for role, text in said if role == "user"]
    whole = "\n".join(f"{' '.join(role.split())}: " + text.replace("\n", "\n  ") for role, text in said)
    text = whole if len(said) > 1 else (users or [whole])[0]
    return {INPUT: text}, system


def _messages(record: Mapping[str, Any]) -> list[Any]:
    """The messages of a request, wherever they stand; [] where there are none."""
    request = record.get("request") or record.get("body") or record
    found = request.get("messages") if isinstance(request, Mapping) else None
    found = found if found is not None else record.get("messages", record.get("input"))
    return list(found) if isinstance(found, list) and all(isinstance(turn, Mapping) for turn in found) else []


def _openai(record: Mapping[str, Any]) -> Iterator[Trace]:
    turns, response = _messages(record), record.get("response")
    reply = _object(response.get("body", response), "body") if isinstance(response, Mapping) else {}
    choices = _objects(record.get("choices") or reply.get("choices"), "choices")
    beside = next((record[key] for key in ("reply", "completion", "output") if record.get(key)), response)
    if choices:
        output = _text(choices[0].get("message", choices[0]))
    elif isinstance(reply.get("output"), list):
        output = _text(
            [part for part in reply["output"] if isinstance(part, Mapping) and part.get("type") == "message"]
        )
    elif beside is not None:
        output = _text(beside)
    else:
        output, turns = (_text(turns[-1]), turns[:-1]) if turns[-1].get("role") == "assistant" else ("", turns)
    inputs, system = _asked(turns)
    yield Trace(inputs, output, _expected(record), feedback_of(record), system)


def _object(value: Any, key: str) -> Mapping[str, Any]:
    """The object of a key that may be missing. Raises Malformed."""
    if value is not None and not isinstance(value, Mapping):
        raise Malformed(f"{key} is {quoted(value)}, and no object; correct the record or take it out")
    return value or {}


def _objects(value: Any, key: str) -> list[Mapping[str, Any]]:
    """The objects in the list of a key that may be missing. Raises Malformed."""
    if value is not None and not (isinstance(value, list) and all(isinstance(each, Mapping) for each in value)):
        raise Malformed(f"{key} is {quoted(value)}, and no list of objects; correct the record or take it out")
    return value or []


def _langfuse(record: Mapping[str, Any]) -> Iterator[Trace]:
    asked, output = record["input"], _text(record.get("output"))
    system = ""
    if isinstance(asked, Mapping) and isinstance(asked.get("messages"), list):
        asked = asked["messages"]
    if isinstance(asked, list) and asked and all(isinstance(turn, Mapping) for turn in asked):
        inputs, system = _asked(asked)
    elif isinstance(asked, Mapping) and asked and all(isinstance(value, str) for value in asked.values()):
        inputs = {str(name): value.strip() for name, value in asked.items()}
    else:
        inputs = {INPUT: _text(asked)}
    yield Trace(inputs, output, _expected(record), feedback_of(record), system)


def _production(record: Mapping[str, Any]) -> Iterator[Trace]:
    asked, output = record.get("inputs") or {}, _text(record["reply"])
    inputs = {str(name): _text(value) for name, value in asked.items()} if isinstance(asked, Mapping) else {}
    yield Trace(inputs or {INPUT: _text(asked)}, output, _expected(record), feedback_of(record))


def _otlp(record: Mapping[str, Any]) -> Iterator[Trace]:
    for resource in _mappings(record["resourceSpans"]):
        for scope in _mappings(resource.get("scopeSpans")):
            for span in _mappings(scope.get("spans")):
                found = _attributes(span.get("attributes"))
                if any(name.startswith(("gen_ai.input", "gen_ai.prompt.", "gen_ai.output")) for name in found):
                    events = [
                        each for each in _mappings(span.get("events")) if each.get("name") == f"{EVALUATION}.result"
                    ]
                    yield _of_span(found, [_attributes(each.get("attributes")) for each in events])


def _of_span(found: Mapping[str, Any], evaluations: Sequence[Mapping[str, Any]]) -> Trace:
    """The answer of a span by its attributes, and by those of the events that evaluate it."""
    turns = _parsed(found.get("gen_ai.input.messages")) or _numbered(found, "gen_ai.prompt.")
    inputs, system = _asked(turns)
    system = system or _text(_parsed(found.get("gen_ai.system_instructions")))
    said = _parsed(found.get("gen_ai.output.messages")) or _numbered(found, "gen_ai.completion.")
    output = _text(said[:1])
    return Trace(inputs, output, "", tuple(said for each in (found, *evaluations) for said in _evaluated(each)), system)


def _evaluated(found: Mapping[str, Any]) -> Iterator[Feedback]:
    """What the attributes of an evaluation say."""
    score = {"stringValue": found.get(f"{EVALUATION}.score.label"), "value": found.get(f"{EVALUATION}.score.value")}
    if score != {"stringValue": None, "value": None}:
        yield from said_in(str(found.get(f"{EVALUATION}.name") or EVALUATION), score)


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _attributes(listed: Any) -> dict[str, Any]:
    """Attributes as OTLP writes them in JSON: [{"key": ..., "value": {"stringValue": ...}}]."""
    return {str(each.get("key")): _any_value(each.get("value")) for each in _mappings(listed)}


def _any_value(value: Any) -> Any:
    """The value of an attribute. Raises Malformed for no number."""
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
        raise Malformed(f"{kind} is {quoted(found)}, and no number; correct the record or take it out") from None


def _parsed(value: Any) -> list[Any]:
    try:
        found = parse_json(value) if isinstance(value, str) else value
    except ValueError:
        return []
    return found if isinstance(found, list) else []


def _numbered(found: Mapping[str, Any], start: str) -> list[dict[str, Any]]:
    """Messages as older instrumentation writes them: `gen_ai.prompt.0.role`, `gen_ai.prompt.0.content`, ..."""
    turns: list[dict[str, Any]] = []
    while f"{start}{len(turns)}.content" in found:
        at = f"{start}{len(turns)}"
        turns.append({"role": found.get(f"{at}.role", "assistant"), "content": found[f"{at}.content"]})
    return turns


KINDS: tuple[TraceKind, ...] = (
    TraceKind("OpenTelemetry spans (OTLP/JSON)", lambda record: "resourceSpans" in record, _otlp),
    TraceKind(
        "a production log", lambda record: isinstance(record.get("reply"), str) and "inputs" in record, _production
    ),
    TraceKind("OpenAI chat logs", lambda record: bool(_messages(record)) and not _is_langfuse(record), _openai),
    TraceKind("Langfuse traces", lambda record: "input" in record and "output" in record, _langfuse),
)
"""In the order in which a record is tried."""


def _is_langfuse(record: Mapping[str, Any]) -> bool:
    """A trace or observation of Langfuse whose input is a list of messages."""
    own = ("traceId", "projectId", "observations", "htmlPath", "scores", "userId", "sessionId")
    return "input" in record and "output" in record and any(name in record for name in own)
