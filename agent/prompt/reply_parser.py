"""Parse a reply into typed fields: find the answer of each output, check limits. `value_readers` reads values. Pure.

A reply that does not parse, or breaks a limit, has a `Prediction.error`, one sentence that a proposer can learn from.
Every function works in linear time on any string.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from agent.prompt.value_readers import (
    LABELS,
    QUOTE,
    Unreadable,
    choice_in,
    first_line,
    integral,
    is_number,
    joined,
    json_in,
    name_pattern,
    number_in,
    quote,
)
from agent.shipped import MAX_NUMBER, Field, Prediction, composed


def parse_reply(reply: str, outputs: tuple[Field, ...], *, reasoning: bool = False) -> Prediction:
    """Read one value for each output field; never raises, whatever the string.

    Several outputs are read from `name: value` lines (a value runs to the next name) or from one JSON object. DSPy's
    `[[ ## name ## ]]` and `<name>` sections count as `name:` lines. A model's thoughts, up to `</think>`, are left out.

    Args:
        reasoning: Whether the answer follows the last line-start `Answer:` or `<field>:`, else is the last line.

    Returns:
        In `fields` what parsed: a choice in its declared spelling, a number up to 1e15, strict JSON up to 64 levels
        (its schema is not checked here), or text. In `error` why the rest did not, or which limit of a field is broken.

    >>> parse_reply("Answer: 42 km", (Field("distance", "number"),)).fields
    {'distance': 42}
    """
    answer = _without_thoughts(reply)
    if answer is None:
        return Prediction({}, reply, f"The reply {quote(reply)} ends while it still thinks: think less, then answer.")
    text, sectioned = _unsection(answer, outputs)
    if len(outputs) != 1:
        return _parse_several(reply, text, outputs, reasoning)
    field = outputs[0]
    inner = _unwrap(text, field)
    whole = _section(answer, field) if field.type == "text" else ""
    try:
        if field.type == "text" and (whole or inner is not text):  # the text itself, whatever its lines look like
            value = _read(whole or inner, field, False)
        else:
            value = _read(inner, field, reasoning or sectioned)
    except Unreadable as problem:
        return Prediction({}, reply, str(problem))
    return Prediction({field.name: value}, reply, broken_limit(field, value))


def reasons_of(reply: str, outputs: tuple[Field, ...]) -> str:
    """Return the reasons in a reply.

    They end before the last line that starts with an output's name, else before the last line.
    """
    text, _ = _unsection((_without_thoughts(reply) or "").strip(), outputs)
    names = (*LABELS[:2], outputs[0].name) if len(outputs) == 1 else tuple(field.name for field in outputs)
    last = {match.lastgroup: match.start() for match in _marker(names).finditer(text)}
    if not last:
        return "\n".join(text.splitlines()[:-1]).strip()
    return text[: max(last.values()) if len(outputs) == 1 else min(last.values())].strip()


def _parse_several(reply: str, text: str, outputs: tuple[Field, ...], reasoning: bool) -> Prediction:
    values: Mapping[str, Any] = _by_lines(text, outputs, last=reasoning)
    if len(values) < len(outputs):
        values = max(values, _by_object(text, outputs), key=len)
    fields: dict[str, Any] = {}
    errors: list[str] = []
    missing = [field.name for field in outputs if field.name not in values]
    if missing:
        errors.append(
            f"The reply {quote(text)} lacks {', '.join(missing)}: write one line `name: value` for each output."
        )
    for field in outputs:
        if field.name in values:
            try:
                fields[field.name] = _read_value(values[field.name], field)
            except Unreadable as problem:
                errors.append(f"{field.name}: {problem}")
            else:
                errors += [why] if (why := broken_limit(field, fields[field.name])) else []
    return Prediction(fields, reply, " ".join(errors))


def _read(text: str, field: Field, reasoning: bool) -> Any:
    if not text.strip(" \t\n\r\f\v\0"):
        raise Unreadable(f"The reply is empty: give the {field.name}.")
    if field.type == "number" and not reasoning and (first := first_line(text)) and is_number(first):
        text = first  # what follows is no answer
    marked = _after_marker(text, field) if reasoning or field.type == "number" else None
    if marked is not None and not marked.strip():
        raise Unreadable(f"The reply stops after its answer marker ({quote(text[-QUOTE:])}): give the {field.name}.")
    if field.type == "number":
        scope = marked if marked is not None else _last_line(text) if reasoning else text.strip()
        return number_in(scope, field, marked=marked is not None, last=reasoning)
    if field.type == "json":
        return json_in(text if marked is None else marked, last=reasoning and marked is None, kind=_json_kind(field))
    answer = marked if marked is not None else _last_line(text) if reasoning else text
    if field.type != "choice":
        return answer.strip()
    try:
        return choice_in(answer, field)
    except Unreadable:  # the prompt's own words may ask for reasons and one answer line
        if reasoning or not (marked := _after_marker(text, field, alone=True)):
            raise
        return choice_in(marked, field)


def _read_value(value: Any, field: Field) -> Any:
    if isinstance(value, str):
        return _read(value, field, reasoning=False)
    if field.type == "number" and isinstance(value, int | float) and not isinstance(value, bool):
        return integral(float(value) if abs(value) <= MAX_NUMBER else math.inf, str(value)[:QUOTE])
    if field.type == "json" and isinstance(value, dict | list):
        return value
    return _read(json.dumps(value, ensure_ascii=False), field, reasoning=False)


# ---- where the answer stands


def _marker(names: tuple[str, ...]) -> re.Pattern[str]:
    # a line that starts with a name and a colon, also quoted, in bold or after a bullet
    order = sorted(range(len(names)), key=lambda at: -len(names[at]))
    joined = "|".join(f"(?P<n{at}>{name_pattern(names[at])})" for at in order)
    return re.compile(rf"^[ \t>*_#\-]*(?:{joined})[ \t*_]*[:：][*_]*", re.IGNORECASE | re.MULTILINE)


def _after_marker(text: str, field: Field, *, alone: bool = False) -> str | None:
    ends = [match.end() for match in _marker((*LABELS[:2], field.name)).finditer(text)]
    return None if not ends or (alone and len(ends) > 1) else text[ends[-1] :]


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.split("\n")) if line.strip()), "")


def _without_thoughts(reply: str) -> str | None:
    # None: the thoughts never end. Some chat templates open them in the prompt, so that a reply only closes them.
    reply = reply.replace("\r\n", "\n").replace("\r", "\n")
    opening = re.match(r"\s*<think(?:ing)?>", reply)
    closing = re.search(r"</think(?:ing)?>\s*", reply)
    if closing and (opening or "<think" not in reply[: closing.start()]):
        return reply[closing.end() :]
    return None if opening else reply


@lru_cache
def _schema_of(field: Field) -> dict[str, Any] | None:
    # `true` and `false` are schemas, too
    schema = json.loads(field.schema) if field.schema else None
    return schema if isinstance(schema, dict) else None


def _json_kind(field: Field) -> type[dict[str, Any]] | type[list[Any]] | None:
    schema = _schema_of(field)
    if schema is None:
        return None
    named = schema.get("type", "object" if "properties" in schema else None)
    return dict if named == "object" else list if named == "array" else None


def _unsection(text: str, outputs: tuple[Field, ...]) -> tuple[str, bool]:
    if not outputs or ("[[ ##" not in text and "</" not in text):
        return text, False
    names = "|".join(re.escape(field.name) for field in outputs)
    text, headers = re.subn(rf"(?m)^\[\[ ## ({names}) ## \]\][ \t]*$", r"\1:", text)
    text, tags = re.subn(rf"(?m)^[ \t]*<({names})>", r"\1:", text)
    if headers:
        text = re.sub(r"(?m)^\[\[ ## \w{1,60} ## \]\]", "", text)
    if tags:
        text = re.sub(rf"</(?:{names})>", "", text)
    return text, bool(headers or tags)


def _section(text: str, field: Field) -> str:
    headers = list(re.finditer(r"(?m)^\[\[ ## (\w{1,64}) ## \]\][ \t]*$", text))
    ends = [header.start() for header in headers] + [len(text)]
    content = ""
    for header, end in zip(headers, ends[1:], strict=True):
        if header[1] == field.name:
            content = text[header.end() : end].strip()
    return content


def _unwrap(text: str, field: Field) -> str:
    bare = text.strip()
    if not bare.startswith(("{", "```")) or (field.type == "json" and not _is_wrapper(bare, field)):
        return text
    try:
        value = json_in(bare, last=False)
    except Unreadable:
        return text
    if not isinstance(value, dict) or set(value) - {"reasoning"} != {field.name}:
        return text
    inner = value[field.name]
    return inner if isinstance(inner, str) else json.dumps(inner, ensure_ascii=False)


def _is_wrapper(bare: str, field: Field) -> bool:
    schema = _schema_of(field)
    if schema is None:
        return False
    kind, parts = schema.get("type", "object"), schema.get("properties")
    if kind == "object" and (not isinstance(parts, dict) or field.name in parts):
        return False
    fenced = re.fullmatch(r"```(?:json)?\s*(\{.*\})\s*```", bare, re.DOTALL)
    try:
        return isinstance(json.loads(fenced[1] if fenced else bare), dict)
    except (ValueError, RecursionError):
        return False


def _by_lines(text: str, outputs: tuple[Field, ...], *, last: bool) -> dict[str, str]:
    if not outputs:
        return {}
    matches = list(_marker(tuple(field.name for field in outputs)).finditer(text))
    ends = [match.start() for match in matches] + [len(text)]
    values: dict[str, str] = {}
    for match, end in zip(matches, ends[1:], strict=True):
        name = outputs[int((match.lastgroup or "n0")[1:])].name
        value = text[match.end() : end].strip()
        if value and (last or name not in values):
            values[name] = value
    return values


def _by_object(text: str, outputs: tuple[Field, ...]) -> dict[str, Any]:
    try:
        value = json_in(text, last=False)
    except Unreadable:
        return {}
    if not isinstance(value, dict):
        return {}
    keys = {joined(key): item for key, item in value.items() if item is not None}
    return {field.name: keys[joined(field.name)] for field in outputs if joined(field.name) in keys}


# ---- the limits of a text answer: its words, and texts that it must or must not hold


def _letters(text: str) -> str:
    return composed(text).casefold()


def broken_limit(field: Field, value: Any) -> str:
    """Return the limit of `field` that the answer `value` breaks, as a sentence, or "". Case is folded."""
    if not isinstance(value, str):
        return ""
    words, text = len(value.split()), _letters(value)
    counted = f"The {field.name} has {words} word{'s' * (words != 1)}"
    if field.max_words is not None and words > field.max_words:
        return f"{counted}, at most {field.max_words} are allowed."
    if field.min_words is not None and words < field.min_words:
        return f"{counted}, at least {field.min_words} are wanted."
    if found := next((part for part in field.forbidden if _letters(part) in text), None):
        return f"The {field.name} holds {found!r}, which is forbidden."
    if missing := next((part for part in field.required if _letters(part) not in text), None):
        return f"The {field.name} lacks {missing!r}, which is required."
    return ""
