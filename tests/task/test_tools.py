"""Tools from elsewhere: the forms that are read, and what is said of those that cannot be."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.safe_data import MOST_LEVELS, MOST_SCHEMA, MOST_TOOLS
from agent.task.tools import read_tools
from agent.types import Tool

SCHEMA = {"type": "object", "properties": {"room": {"type": "string"}}, "required": ["room"]}
LIGHT = Tool("set_light", "Switches a light.", json.dumps(SCHEMA))
PARTS = {"name": "set_light", "description": "Switches a light."}


@pytest.mark.parametrize(
    "value",
    [
        [{"type": "function", "function": {**PARTS, "parameters": SCHEMA}}],
        [{"type": "function", **PARTS, "parameters": SCHEMA}],
        [{**PARTS, "input_schema": SCHEMA}],
        {"tools": [{**PARTS, "inputSchema": SCHEMA}]},
        {"jsonrpc": "2.0", "id": 1, "result": {"tools": [{**PARTS, "inputSchema": SCHEMA}]}},
    ],
    ids=["openai", "openai responses", "anthropic", "mcp", "mcp over the wire"],
)
def test_the_forms_of_others_are_the_same_tool(value: Any) -> None:
    assert read_tools(value) == ((LIGHT,), [])


def document(operation: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"openapi": "3.0.1", "paths": {"/pets": {"post": operation}}, **more}


def body(schema: Any, media: str = "application/json") -> dict[str, Any]:
    return {"requestBody": {"content": {media: {"schema": schema}}}}


def test_operations_of_an_openapi_document_are_tools() -> None:
    parts = "#/components"
    room = {"name": "room", "in": "path", "required": True, "schema": {"type": "string"}, "description": "Which."}
    light = {"properties": {"on": {"type": "boolean"}, "next": {"$ref": f"{parts}/schemas/Light"}}}
    put = {"operationId": "set_light", "summary": "Switches a light.", **body({"$ref": f"{parts}/schemas/Light"})}
    path = {"parameters": [{"$ref": f"{parts}/parameters/room"}], "put": put, "get": {"description": "Reads a light."}}
    components = {"parameters": {"room": room}, "schemas": {"Light": light}}
    tools, wrong = read_tools({"openapi": "3.1.0", "paths": {"/rooms/{room}/light": path}, "components": components})
    assert wrong == []
    reads, switches = tools
    assert (reads.name, reads.description) == ("get_rooms_room_light", "Reads a light.")
    assert (switches.name, switches.description) == ("set_light", "Switches a light.")
    schema = json.loads(switches.parameters)
    assert schema["required"] == ["room"]
    assert schema["properties"]["room"] == {"type": "string", "description": "Which."}
    assert schema["properties"]["on"] == {"type": "boolean"}
    assert "$ref" not in switches.parameters


A, B = ({"properties": {name: {"type": "string"}}, "required": [name]} for name in "ab")


@pytest.mark.parametrize(
    ("given", "properties", "required"),
    [
        (
            document(body({"allOf": [A, {"$ref": "#/b"}]}), b=B),
            {"a": {"type": "string"}, "b": {"type": "string"}},
            "ab",
        ),
        (document(body(A, "application/x-www-form-urlencoded")), {"a": {"type": "string"}}, "a"),
        (
            document(body({"properties": {"n": {"type": "integer", "minimum": 0, "exclusiveMinimum": True}}})),
            {"n": {"type": "integer", "exclusiveMinimum": 0}},
            "",
        ),
        (
            document(body({"properties": {"n": {"type": "integer", "maximum": 9, "exclusiveMaximum": False}}})),
            {"n": {"type": "integer", "maximum": 9}},
            "",
        ),
    ],
    ids=["allOf", "form", "exclusive", "inclusive"],
)
def test_the_fields_of_a_body_are_arguments(given: Any, properties: Any, required: str) -> None:
    (tool,), wrong = read_tools(given)
    assert (json.loads(tool.parameters), wrong) == (
        {"type": "object", "properties": properties, "required": list(required)},
        [],
    )


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (document(body({"type": "array"})), "post /pets: its body is of type 'array'; describe it"),
        (document(body({"oneOf": [A, B]})), "post /pets: its body is one of several (oneOf)"),
        (document(body({"$ref": "#/a"}), a={"allOf": [{"$ref": "#/a"}]}), "its body contains itself"),
        (document({"parameters": [{"$ref": "x.json#/p"}]}), "post /pets: 'x.json#/p' is in another document"),
        (document(body({"$ref": "#/none"})), "post /pets: '#/none' points to nothing; correct it; or remove"),
        ({"swagger": "2.0", "paths": {}}, "is a Swagger 2 document; convert it to OpenAPI 3"),
    ],
)
def test_arguments_that_would_vanish_are_named(given: Any, what: str) -> None:
    tools, (wrong,) = read_tools(given)
    assert tools == ()
    assert what in wrong


def test_a_key_that_is_not_known_is_a_mistake_in_task_toml_alone() -> None:
    tool = {"name": "x", "descripton": "Waits."}
    _, wrong = read_tools([tool], own=True)
    assert wrong[0].startswith("tool 1: unknown key 'descripton'; did you mean 'description'?")
    assert read_tools([tool])[1] == []


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ({}, "holds no tools; write a list, the result of MCP's tools/list, or an OpenAPI document"),
        ([], "holds no tools"),
        ([{"name": "x"}] * (MOST_TOOLS + 1), f"holds {MOST_TOOLS + 1} tools; {MOST_TOOLS} at most"),
        ([5], "tool 1: 5 is no object with name, description and"),
        ([{"name": "two words"}], "tool 1: the name 'two words' is not of letters, digits, _, . and -, at most 64"),
        ([{"name": "x"}, {"name": "x"}], "tool 2: the name 'x' is used before"),
        ([{"name": "x", "description": 5}], "tool 1: the description of 'x' is no text"),
        (
            [{"name": "x", "parameters": {"type": "array"}}],
            "tool 1: the schema of the arguments of 'x' is not of type object",
        ),
        (
            [{"name": "x", "parameters": {"properties": {"a": {"type": "dict"}}}}],
            "tool 1: the schema of the arguments of 'x' is wrong",
        ),
    ],
)
def test_what_is_wrong_is_said(value: Any, what: str) -> None:
    _, wrong = read_tools(value)
    assert len(wrong) == 1
    assert wrong[0].startswith(what)


def test_a_document_that_doubles_at_each_level_is_refused() -> None:
    schemas = {f"s{n}": {"properties": {side: {"$ref": f"#/s{n + 1}"} for side in "ab"}} for n in range(18)}
    tools, (wrong,) = read_tools(document(body({"$ref": "#/s0"}), **schemas, s18={}))
    assert tools == ()
    assert wrong.startswith("has more than 100,000 parts")


def doubling(levels: int, **last: Any) -> dict[str, Any]:
    """A document whose body names each next part twice."""
    parts = {
        f"s{n}": {"allOf": [{"$ref": f"#/s{n + 1}"}] * 2, "properties": {f"p{n}": {"type": "string"}}}
        for n in range(levels)
    }
    return document(body({"$ref": "#/s0"}), **parts, **{f"s{levels}": last})


def test_parts_that_are_named_twice_at_each_level_are_read_once() -> None:
    (tool,), wrong = read_tools(doubling(40, **A))
    assert wrong == []
    assert set(json.loads(tool.parameters)["properties"]) == {"a", *(f"p{n}" for n in range(40))}
    tools, (deep,) = read_tools(doubling(400))
    assert tools == ()
    assert f"nested more than {MOST_LEVELS} levels deep (allOf)" in deep


def nested(levels: int) -> Any:
    schema: Any = {"type": "object"}
    for _ in range(levels):
        schema = {"allOf": [schema]}
    return schema


CHAIN = {f"s{n}": {"$ref": f"#/$defs/s{n + 1}"} for n in range(1000)} | {"s1000": {}}


@pytest.mark.parametrize(
    ("schema", "what"),
    [
        ({"properties": {"a": {"$ref": "#/$defs/s0"}}, "$defs": CHAIN}, f"more than {MOST_LEVELS} levels deep"),
        ({"properties": {"a": nested(3000)}}, "nested too deep; flatten it"),
        ({"properties": {"a": nested(240)}}, "nested too deep; flatten it"),
        ({"properties": {"a": {"$ref": "https://evil.example/s.json"}}}, "'https://evil.example/s.json' is in another"),
        ({"properties": {"a": {"items": {"$ref": "#/$defs/x"}}}}, "'#/$defs/x' points to nothing"),
        ({"properties": {"a": {"description": "x" * MOST_SCHEMA}}}, f"{MOST_SCHEMA:,} at most"),
    ],
    ids=["chain", "deep", "checked", "remote", "nowhere", "long"],
)
def test_a_schema_that_cannot_be_put_in_place_is_refused(schema: dict[str, Any], what: str) -> None:
    tools, (wrong,) = read_tools([{"name": "x", "parameters": {"type": "object", **schema}}])
    assert tools == ()
    assert what in wrong
    assert "RecursionError" not in wrong


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["openapi", "paths", "tools", "get", "$ref", "name", "parameters", "result", "requestBody"]
            ),
            inner,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_json_gives_tools_or_reasons(value: Any) -> None:
    tools, wrong = read_tools(value)
    assert bool(tools) or bool(wrong)
