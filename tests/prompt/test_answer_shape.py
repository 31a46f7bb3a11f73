"""The shape of a JSON answer: what a prompt shows of it parses back, and what is sent stays valid for strict modes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from agent.metrics.json_values import json_fields
from agent.metrics.metric_rule import Options
from agent.models.openai import response_format
from agent.models.strict_schema import strict_schema
from agent.prompt.parts.kinds import PARTS
from agent.prompt.parts.shape import (
    ANSWER,
    LAYOUTS,
    REASONS,
    AnswerShape,
    answer_schema,
    can_reason,
    reply_schema,
)
from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.render import render, template
from agent.prompt.reply_parser import parse_reply
from agent.prompt.techniques import why_rejected
from agent.types import Demo, Field, Signature
from tests.toys import make_task

SHAPE = PARTS.get("shape")
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=8)
LINE = st.text(st.sampled_from('ab {}[]:,"/\\?\n// é'), max_size=20)
LEAVES: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.sampled_from([{"type": "string"}, {"type": "integer", "minimum": 0}, {"type": ["number", "null"]}]),
    st.lists(st.text(max_size=5), min_size=1, max_size=3, unique=True).map(lambda values: {"enum": values}),
    st.just({"anyOf": [{"type": "boolean"}, {"const": None}]}),
)
FIELDS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        inner.map(lambda items: {"type": "array", "items": items}),
        st.dictionaries(NAMES, inner, min_size=1, max_size=3).map(lambda fields: objects(fields)),
    ),
    max_leaves=4,
)


def objects(fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": [*fields], "additionalProperties": False}


@st.composite
def shaped(draw: st.DrawFn) -> tuple[tuple[Field, ...], AnswerShape]:
    """A JSON answer, and a shape that a prompt without examples may have."""
    fields = draw(st.dictionaries(NAMES.filter(lambda name: name != "record"), FIELDS, min_size=2, max_size=4))
    outputs = (Field("record", "json", schema=json.dumps(objects(fields))),)
    texts = draw(st.dictionaries(st.sampled_from(sorted(fields)), LINE, max_size=2))
    order = tuple(draw(st.permutations(sorted(fields)))) if draw(st.booleans()) else ()
    reasons = draw(st.sampled_from([*REASONS])) if can_reason(outputs) else "none"
    layout = draw(st.sampled_from([name for name in LAYOUTS if name != "none"]))
    return outputs, AnswerShape(layout, reasons, order, tuple(sorted(texts.items())), draw(st.booleans()))


def names_of(schema: dict[str, Any]) -> list[str]:
    """The names of all fields as they are listed, outermost first."""
    found = []
    for name, about in schema["properties"].items():
        found += [name, *(names_of(about) if about.get("properties") else [])]
    return found


def named_in(value: Any) -> list[str]:
    return [n for name, inner in value.items() for n in (name, *(named_in(inner) if isinstance(inner, dict) else []))]


def typed(text: str) -> list[tuple[str, str]]:
    """Name and description of each line of a type."""
    found = []
    for line in text.split("\n")[1:-1]:
        if match := re.match(r' *("(?:[^"\\]|\\.)*"|\w+)\??: ', line):
            about = re.search(r", // (.*)$", line[match.end() :])
            found.append((json.loads(match[1]) if match[1][0] == '"' else match[1], about[1] if about else ""))
    return found


@given(shaped())
def test_what_a_prompt_shows_parses_back_in_its_order_and_what_is_sent_is_strict(
    made: tuple[tuple[Field, ...], AnswerShape],
) -> None:
    outputs, shape = made
    schema, (_, shown) = reply_schema(outputs, shape), SHAPE.said(shape, outputs).split("\n", 1)
    assert AnswerShape.of(json.loads(json.dumps(shape.as_dict()))) == shape
    assert why_rejected(PromptCandidate("zero-shot", "turns", "Go.").having(shape=shape), task_of(outputs)) == ""
    if shape.layout == "schema":
        assert json.loads(shown) == schema
        assert list(json.loads(shown)["properties"]) == list(schema["properties"])
    elif shape.layout == "example":
        value, end = json.JSONDecoder().raw_decode(shown)
        assert named_in(value) == names_of(schema)
        said = {" ".join(text.split()) for _, text in shape.texts} - {""}
        assert all(f": {text}" in shown[end:] for text in said)
    else:
        assert [name for name, _ in typed(shown)] == names_of(schema)
    strict = strict_schema(schema)
    assert strict is not None
    require_strict(strict)
    assert names_of(strict) == names_of(schema)
    assert strict_schema(strict) == strict
    assert response_format(strict)["json_schema"]["strict"]


def require_strict(schema: dict[str, Any]) -> None:
    """What OpenAI's and Anthropic's documents ask of a schema."""
    Draft202012Validator.check_schema(schema)
    assert schema.keys() <= {
        *("type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf", "description")
    }
    assert schema.keys() & {"type", "anyOf"}
    if schema.get("type") == "object":
        assert schema["additionalProperties"] is False
        assert schema["required"] == list(schema["properties"])
    for part in (*schema.get("properties", {}).values(), *schema.get("anyOf", ())):
        require_strict(part)
    if schema.get("type") == "array":
        require_strict(schema["items"])


@pytest.mark.parametrize(
    "about",
    [
        {"properties": {"a": {"type": "string"}, "b": {"type": "string"}}, "required": ["a"]},
        objects({"a": {"type": "string"}, "b": {"oneOf": [{"type": "string"}]}}),
        objects({"a": {"type": "string"}, "b": {"type": "array"}}),
        {**objects({"a": {"type": "string"}}), "additionalProperties": True},
        objects({"a": {"type": "string"}, "b": {}}),
        objects({"a": {"enum": [[1], {"x": 2}]}, "b": objects({"c": True, "d": {"$ref": "#/$defs/no"}})}),
    ],
)
def test_a_schema_whose_meaning_a_strict_mode_would_change_is_not_sent(about: dict[str, Any]) -> None:
    assert strict_schema(about) is None
    assert "strict" not in response_format(about)["json_schema"]
    outputs = (Field("record", "json", schema=json.dumps(about)),)
    if answer_schema(outputs):
        assert all(SHAPE.said(AnswerShape(layout), outputs) for layout in LAYOUTS if layout != "none")
        shaped_prompt = PromptCandidate("zero-shot", "turns", "Go.").having(shape=AnswerShape(strict=True))
        assert "sends a schema" in why_rejected(shaped_prompt, task_of(outputs))


def test_an_object_that_may_be_null_may_be_null_in_a_strict_mode() -> None:
    inner = {**objects({"a": {"type": "string"}}), "type": ["object", "null"]}
    whole = objects({"b": inner, "c": {"type": "string"}})
    assert strict_schema(whole) == whole


def task_of(outputs: tuple[Field, ...]) -> Any:
    task = make_task()
    return replace(task, signature=Signature(task.signature.inputs, outputs))


RECORD = (
    Field("record", "json", schema=json.dumps(objects({"age": {"type": "integer"}, "sex": {"enum": ["f", "m"]}}))),
)
SEVERAL = (Field("team", "choice", choices=("a", "b")), Field("days", "number"), Field("why", description="in words"))


@pytest.mark.parametrize("reasons", REASONS)
def test_a_reply_with_reasons_reads_as_the_answer_alone(reasons: str) -> None:
    why: Any = {"none": {}, "first": {"reasoning": "so"}, "each": {"reasoning": {"age": "so", "sex": "so"}}}[reasons]
    answer = {"age": 3, "sex": "f"}
    reply = {**why, "record": answer} if why else answer
    Draft202012Validator(reply_schema(RECORD, AnswerShape("types", reasons))).validate(reply)
    assert parse_reply(json.dumps(reply), RECORD).fields == {"record": answer}
    assert parse_reply(json.dumps(answer), RECORD).fields == {"record": answer}  # a model that leaves the reasons out
    several = {"days": 2, "why": "late", "team": "b"}
    reply = {**why, **several}
    assert parse_reply(json.dumps(reply, indent=2), SEVERAL).fields == several


def test_examples_and_several_outputs_follow_the_shape() -> None:
    demo = Demo("d", {"message": "x"}, {"record": '{"age": 3, "sex": "f"}'})
    inputs = make_task().signature.inputs
    order = AnswerShape("types", order=("sex", "age"))
    prompt = PromptCandidate("few-shot", "turns", "Go.", demos=(demo,)).having(shape=order)
    assert render(prompt, Signature(inputs, RECORD), {"message": "y"})[2].content == '{"sex": "f", "age": 3}'
    several = replace(prompt, demos=(Demo("d", {"message": "x"}, {"team": "a", "days": "2", "why": "{{x}}"}),))
    several = replace(several, format="labelled-turns").having(
        shape=AnswerShape("example", order=("why", "team", "days"))
    )
    system, user, assistant, last = template(several, Signature(inputs, SEVERAL))
    assert json.loads(assistant.content) == {"why": "{{x}}", "team": "a", "days": 2}
    assert list(json.loads(assistant.content)) == ["why", "team", "days"]
    assert (user.content.endswith(f"{ANSWER.title()}:"), last.content.endswith(f"{ANSWER.title()}:")) == (True, True)
    assert system.content.endswith('{"why": "<string>", "team": "<a | b>", "days": "<number>"}\n- why: in words')


@pytest.mark.parametrize("text", ["null", "no JSON", "[1]"])
def test_an_example_that_is_no_object_stays_as_it_is(text: str) -> None:
    demo = Demo("d", {"message": "x"}, {"record": text})
    prompt = PromptCandidate("few-shot", "turns", "Go.", demos=(demo,)).having(
        shape=AnswerShape("types", order=("sex", "age"))
    )
    assert template(prompt, Signature(make_task().signature.inputs, RECORD))[2].content == text


def test_a_shape_that_a_prompt_cannot_keep_is_refused() -> None:
    zero, demo = PromptCandidate("zero-shot", "turns", "Go."), Demo("d", {"message": "x"}, {"record": "{}"})
    few = replace(zero, technique="few-shot", demos=(demo,))
    for prompt, shape, why in (
        (zero, AnswerShape("types", order=("age",)), "other fields"),
        (zero, AnswerShape("types").with_text("name", "x"), "other fields"),
        (replace(zero, format="dspy-json"), AnswerShape("types"), "dspy-json"),
        (zero, AnswerShape(reasons="first", strict=True), "does not show"),
        (few, AnswerShape("types", "first"), "asks for reasons"),
        (replace(zero, technique="chain-of-thought"), AnswerShape("types", strict=True), "sends a schema"),
    ):
        assert why in SHAPE.why_rejected(shape, prompt, task_of(RECORD))
        fitted = shape.fitted(prompt.technique, prompt.format)
        if why not in ("other fields", "does not show"):
            assert fitted is None or SHAPE.why_rejected(fitted, prompt, task_of(RECORD)) == ""
    plain = PromptCandidate("zero-shot", "turns", "Go.").having(shape=AnswerShape("types"))
    assert "no JSON object" in why_rejected(plain, make_task())
    assert "shape" not in zero.parts()


@given(st.permutations(["a", "b", "c"]), st.permutations(["x", "y"]))
def test_the_metric_does_not_depend_on_the_order_of_fields(outer: list[str], inner: list[str]) -> None:
    label = {"a": 1, "b": {"x": "A", "y": [1, {"p": 1, "q": 2}]}, "c": None}
    made = {**label, "b": {"x": "a", "y": [1, {"q": 2, "p": 1}]}}
    got = {name: {n: made["b"][n] for n in inner} if name == "b" else made[name] for name in outer}  # type: ignore[index]
    check = json_fields(Options(), Field("record", "json"))
    assert check(got, label) == (1.0, "")
