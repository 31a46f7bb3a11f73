"""The shape of a JSON answer: order and descriptions of its fields, their layout in the prompt, and reasons before it.

Names and types of the fields stay those of the task, and so does the answer that is scored. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from agent.errors import ReleaseError
from agent.models.strict_schema import fixed_values, strict_schema
from agent.prompt.parts.kinds import PartKind, TaskParts, part
from agent.prompt.parts.part import Count, PromptPart, Row
from agent.safe_data import parse_json
from agent.shipped import REASONED, Field
from agent.task.openapi import as_object

if TYPE_CHECKING:
    from agent.prompt.prompt_candidate import PromptCandidate
    from agent.types import Demo, Request, Signature, Task

LAYOUTS = {
    "none": "",
    "schema": "Answer with one JSON object that is valid under this JSON Schema:",
    "types": "Answer with one JSON object of this type:",
    "example": "Answer with one JSON object of this form:",
}
"""How a prompt shows the fields, and what it says before."""
REASONS = {"none": "", "first": "why the values are right", "each": "for each field, why its value is right"}
"""Where a reply gives reasons: nowhere, once before the answer, or for each field before the answer."""
REASONING, ANSWER = "reasoning", "answer"  # the field with the reasons, and several outputs as one
REASON_TOKENS = {"none": 0, "first": 120, "each": 240}
FIELD_TOKENS = 8  # of the quotes and braces around an output


@dataclass(frozen=True, slots=True)
class AnswerShape:
    """What a prompt says of the fields of its answer.

    `order`: all names; () for the order of the task. `texts`: descriptions by name. `strict`: whether the schema is
    also sent, so that a provider accepts no other reply.
    """

    part: ClassVar[str] = "shape"

    layout: str = "none"
    reasons: str = "none"
    order: tuple[str, ...] = ()
    texts: tuple[tuple[str, str], ...] = ()
    strict: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the settings, JSON-ready."""
        return {**asdict(self), "order": list(self.order), "texts": dict(self.texts)}

    @staticmethod
    def of(data: Mapping[str, Any]) -> AnswerShape:
        """Parse the output of `as_dict`."""
        return AnswerShape(**{**data, "order": tuple(data["order"]), "texts": tuple(sorted(data["texts"].items()))})

    def fitted(self, technique: str, layout: str) -> AnswerShape | None:
        """Return the shape without what a technique and a layout of the prompt exclude."""
        reasons = self.reasons if technique == "zero-shot" else "none"
        made = replace(self, reasons=reasons, strict=self.strict and technique not in REASONED)
        return None if made == AnswerShape() or layout.startswith("dspy-") else made

    def with_text(self, name: str, text: str) -> AnswerShape:
        """Return the shape with another description of a field, in a layout that shows it."""
        texts = tuple(sorted({**dict(self.texts), name: text}.items()))
        return replace(self, texts=texts, layout="types" if self.layout == "none" else self.layout)


def shape_changes(shown: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return what a shape changes, a clause each. `shown`: from `as_dict`, None without a shape."""
    shape = AnswerShape.of(shown) if shown else AnswerShape()
    said = (
        (shape.layout != "none", f"the answer's fields are shown as {shape.layout}"),
        (shape.texts, f"described: {', '.join(name for name, _ in shape.texts)}"),
        (shape.order, f"the answer's fields are ordered {', '.join(shape.order)}"),
        (shape.reasons != "none", f"reasons come before the answer ({shape.reasons})"),
        (shape.strict, "the JSON schema is sent with each request"),
    )
    return tuple(words for holds, words in said if holds)


# -- schemas -----------------------------------------------------------------------------------------------------------


@lru_cache
def answer_schema(outputs: tuple[Field, ...]) -> dict[str, Any] | None:
    """Return the schema of a JSON answer of two fields or more, else None."""
    if len(outputs) > 1:
        return _closed({field.name: _schema_of(field) for field in outputs})
    schema = _schema_of(outputs[0]) if outputs and outputs[0].type == "json" else {}
    fields = fields_of(schema)
    is_whole = schema.get("type", "object") == "object" and all(isinstance(about, dict) for about in fields.values())
    return schema if is_whole and len(fields) > 1 else None


def _schema_of(field: Field) -> dict[str, Any]:
    about: dict[str, Any] = {"description": field.description} if field.description else {}
    if field.choices:
        return {"type": "string", "enum": list(field.choices), **about}
    if field.type != "json":
        return {"type": "number" if field.type == "number" else "string", **about}
    return {**about, **(json.loads(field.schema or "{}") if field.has_schema else {})}


def fields_of(schema: Any) -> Mapping[str, Any]:
    """Return the schemas of an object's fields by name; {} for any other value."""
    return as_object(as_object(schema).get("properties"))


def alternatives(schema: Any) -> list[dict[str, Any]]:
    """Split a schema into alternatives of one type each; a fixed value has `const`."""
    about = as_object(schema)
    if values := fixed_values(about):
        return [{"type": "fixed", "const": value} for value in values]
    if parts := about.get("anyOf", about.get("oneOf")):
        return [one for part in parts for one in alternatives(part)]
    kinds = about.get("type", "any")
    return [{**about, "type": kind} for kind in ([kinds] if isinstance(kinds, str) else kinds)]


def _closed(properties: Mapping[str, Any]) -> dict[str, Any]:
    closed = {"required": list(properties), "additionalProperties": False}
    return {"type": "object", "properties": dict(properties), **closed}


def shaped_schema(outputs: tuple[Field, ...], shape: AnswerShape) -> dict[str, Any]:
    """Return the schema of the answer with the order and descriptions of a shape."""
    own = answer_schema(outputs)
    assert own is not None
    fields, texts = own["properties"], {name: {"description": text} for name, text in shape.texts}
    named = {name: {**fields[name], **texts.get(name, {})} for name in shape.order or fields}
    found, required = {**own, "properties": named}, own.get("required", ())
    return {**found, "required": sorted(required, key=[*named, *required].index)} if required else found


def reply_schema(outputs: tuple[Field, ...], shape: AnswerShape) -> dict[str, Any]:
    """Return the schema of a whole reply: the answer, after its reasons if any."""
    answer, reason = shaped_schema(outputs, shape), {"type": "string"}
    if shape.reasons == "none":
        return answer
    why = reason if shape.reasons == "first" else _closed(dict.fromkeys(answer["properties"], reason))
    answers = answer["properties"] if len(outputs) > 1 else {outputs[0].name: answer}
    return _closed({REASONING: {**why, "description": REASONS[shape.reasons]}, **answers})


def can_reason(outputs: tuple[Field, ...]) -> bool:
    """Return whether a reply can hold reasons next to its answer."""
    schema = answer_schema(outputs)
    if schema is None or '"$ref"' in json.dumps(schema):
        return False
    names = [REASONING, *schema["properties"], *(field.name for field in outputs if len(outputs) == 1)]
    return len(set(names)) == len(names)


# -- as text -----------------------------------------------------------------------------------------------------------

_WORD = re.compile(r"[A-Za-z_]\w*")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _type_text(schema: Mapping[str, Any], indent: str = "") -> str:
    lines = []
    for name, about in fields_of(schema).items():
        key = name if _WORD.fullmatch(name) else _json(name)
        mark = "" if name in schema.get("required", ()) else "?"
        made = _type_text(about, f"{indent}  ") if fields_of(about) else type_words(about)
        lines.append(f"{indent}  {key}{mark}: {made},{f' // {said}' if (said := _line(about)) else ''}")
    return "\n".join(["{", *lines, f"{indent}}}"])


def type_words(schema: Any) -> str:
    """Write a type in one line.

    >>> type_words({"type": ["integer", "null"]}), type_words({"type": "array", "items": {"enum": ["a", "b"]}})
    ('integer | null', '("a" | "b")[]')
    """
    words = []
    for one in alternatives(schema):
        inner = type_words(one.get("items")) if one["type"] == "array" else ""
        inner = f"({inner})" if " | " in inner else inner
        words.append(f"{inner}[]" if inner else _json(one["const"]) if "const" in one else one["type"])
    return " | ".join(words)


def _example_text(schema: Mapping[str, Any]) -> str:
    return "\n".join([_json(_example(schema)), *(f"- {name}: {said}" for name, said in _described(schema))])


def _example(schema: Any) -> Any:
    if fields := fields_of(schema):
        return {name: _example(about) for name, about in fields.items()}
    if as_object(schema).get("type") == "array":
        return [_example(schema.get("items"))]
    return f"<{type_words(schema)}>".replace('"', "")


def _described(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, about in fields_of(schema).items():
        if said := _line(about):
            yield name, said
        yield from _described(about)


def _line(schema: Any) -> str:
    return " ".join(str(as_object(schema).get("description", "")).split())


# -- what runs ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReleasedShape(PromptPart):
    """The JSON schema of a reply. The messages have what the prompt says of it; `strict`: it is also sent."""

    name = "shape"

    schema: str
    strict: bool = False

    def __post_init__(self) -> None:
        if not isinstance(parse_json(self.schema), dict):
            raise ValueError("shape.schema must be a JSON object, as text")

    @property
    def in_messages(self) -> bool:
        return not self.strict

    @property
    def reply_schema(self) -> str:
        return self.schema

    def request(self, request: Request, row: Row) -> Request:
        return replace(request, json_schema=self.schema) if self.strict else request

    def size(self, count: Count, rows: Sequence[Row], most: bool) -> int:
        return count(self.schema) if self.strict else 0

    def data(self) -> dict[str, Any]:
        return {self.name: asdict(self)}

    def answer(self, values: Mapping[str, Any]) -> str:
        fields = parse_json(self.schema)["properties"]
        value = as_object(next(iter(values.values()))) if len(values) == 1 else values
        if REASONING in fields and REASONING not in value:
            raise ReleaseError("asks for reasons, which labels lack; fine-tune a prompt of a run with --no-shape")
        return _ordered(value, fields)


@part
class Shaping(PartKind):
    name, words, made, settings = "shape", "shape of the answer", ReleasedShape, AnswerShape

    def texts(self, settings: AnswerShape) -> Iterable[str]:
        return (text for _, text in settings.texts)

    def features(self, settings: AnswerShape) -> dict[tuple[str, str], float]:
        plain = {("shape", f"{name} {value}"): 1.0 for name, value in settings.as_dict().items() if name != "texts"}
        return {**plain, **{("field text", text): 1.0 for _, text in settings.texts}}

    def why_rejected(self, settings: AnswerShape, prompt: PromptCandidate, task: Task) -> str:
        outputs = task.signature.outputs
        schema, reasons = answer_schema(outputs), prompt.technique in REASONED
        if schema is None:
            return "shapes an answer that is no JSON object of two fields or more"
        names = sorted(schema["properties"])
        if (settings.order and sorted(settings.order) != names) or not {name for name, _ in settings.texts} <= {*names}:
            return "shapes other fields than the answer has"
        if prompt.format.startswith("dspy-"):
            return f"the format {prompt.format} has its own shape of the answer"
        if settings.layout == "none" and (settings.reasons != "none" or (settings.texts and not settings.strict)):
            return "does not show its fields"
        if settings.reasons != "none" and (reasons or prompt.n_examples or not can_reason(outputs)):
            return "asks for reasons within the answer, which its examples or its technique give otherwise"
        if settings.strict and (reasons or strict_schema(reply_schema(outputs, settings)) is None):
            return "sends a schema that its replies cannot keep"
        return ""

    def answers(
        self, settings: AnswerShape, signature: Signature, demos: Sequence[Demo]
    ) -> tuple[Signature, Sequence[Demo]]:
        shown = [replace(demo, outputs=_as_shown(settings, signature.outputs, demo.outputs)) for demo in demos]
        one = len(signature.outputs) == 1
        return signature if one else replace(signature, outputs=(Field(ANSWER, "json"),)), shown

    def said(self, settings: AnswerShape, outputs: tuple[Field, ...]) -> str:
        if settings.layout == "none":
            return ""
        writers: dict[str, Callable[[Any], str]] = {"schema": _json, "types": _type_text, "example": _example_text}
        return f"{LAYOUTS[settings.layout]}\n{writers[settings.layout](reply_schema(outputs, settings))}"

    def reply_tokens(self, settings: AnswerShape, outputs: int) -> int:
        return REASON_TOKENS[settings.reasons] + (FIELD_TOKENS * outputs if outputs > 1 else 0)

    def bind(self, settings: AnswerShape, prompt: PromptCandidate, shared: TaskParts) -> ReleasedShape:
        schema = reply_schema(shared.task.signature.outputs, settings)
        sent = strict_schema(schema) if settings.strict else schema
        return ReleasedShape(_json(sent), settings.strict)


def _as_shown(shape: AnswerShape, outputs: tuple[Field, ...], texts: Mapping[str, str]) -> Mapping[str, str]:
    typed = {field.name: _value(field, texts[field.name]) for field in outputs}
    name, value = (outputs[0].name, typed[outputs[0].name]) if len(outputs) == 1 else (ANSWER, typed)
    if not isinstance(value, dict):
        return texts
    return {name: _ordered(value, shaped_schema(outputs, shape)["properties"])}


def _ordered(value: Mapping[str, Any], fields: Iterable[str]) -> str:
    return _json({name: value[name] for name in (*fields, *value) if name in value})


def _value(field: Field, text: str) -> Any:
    try:
        return json.loads(text) if field.type in ("number", "json") else text
    except ValueError:
        return text
