"""Tools out and tool calls in: the real SDKs against a server that speaks their wire formats."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import BadResponse, RowRefused
from agent.metrics.calls import calls_in
from agent.models.anthropic import AnthropicModel
from agent.models.langchain import LangChainModel
from agent.models.local import _body, with_tools
from agent.models.openai import OpenAIModel
from agent.models.tool_calling import arguments_in, calls_of, calls_text, spoken_calls, turn_of
from agent.turns import turns
from agent.types import LM, Completion, Message, Request, Tool, calls_schema, key_of
from tests.wire import Fault, WireServer

KEY = "secret-0123456789"
LIGHT = Tool(
    "set_light",
    "Switches a light.",
    json.dumps({"type": "object", "properties": {"room": {"type": "string"}}, "required": ["room"]}),
)
LOCK = Tool("set_lock", "Locks a door.", json.dumps({"type": "object", "properties": {"door": {"type": "string"}}}))
HALL, DOOR = ("set_light", {"room": "hall"}), ("set_lock", {"door": "front"})
REQUEST = Request(
    messages=(
        Message("system", "You run a house."),
        Message("user", "Hall light and front door."),
        Message("assistant", calls_text([HALL, DOOR])),
        Message("user", "Thanks."),
        Message("assistant", calls_text([])),
        Message("user", "Light in the hall!"),
    ),
    max_tokens=64,
    timeout=10.0,
    tools=(LIGHT, LOCK),
)
MODELS = ("openai", "anthropic", "langchain-openai", "langchain-anthropic")


def model(kind: str, server: WireServer) -> LM:
    if kind == "openai":
        return OpenAIModel("openai/m", "m", base_url=server.url, api_key=KEY)
    if kind == "anthropic":
        return AnthropicModel("anthropic/m", "m", base_url=server.root, api_key=KEY)
    provider = kind.removeprefix("langchain-")
    return LangChainModel(
        f"langchain/{provider}:m", provider, "m", base_url=server.url if provider == "openai" else server.root
    )


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)


async def answer(kind: str, reply: str | Fault, request: Request = REQUEST) -> tuple[Completion, Mapping[str, Any]]:
    with WireServer(lambda messages, body: reply) as server:
        lm = model(kind, server)
        try:
            return await lm.complete(request), server.requests[0].body
        finally:
            await lm.close()


def wire(*calls: tuple[str, str]) -> str:
    return json.dumps([{"name": name, "arguments": arguments} for name, arguments in calls])


@pytest.mark.parametrize("kind", MODELS)
async def test_a_reply_is_the_list_of_its_calls(kind: str) -> None:
    """Parallel ones as well; tools go out as the provider wants them."""
    reply, body = await answer(kind, wire(("set_light", '{"room": "hall"}'), ("set_lock", '{"door": "front"}')))
    assert (reply.text, reply.finish) == (calls_text([HALL, DOOR]), "stop")
    assert [(call.name, call.arguments) for call in calls_in(json.loads(reply.text))] == [HALL, DOOR]
    first = body["tools"][0]
    named = first if "input_schema" in first else first["function"]
    assert (named["name"], named["description"]) == ("set_light", "Switches a light.")
    assert named.get("input_schema", named.get("parameters")) == json.loads(LIGHT.parameters)


@pytest.mark.parametrize("kind", MODELS)
async def test_demos_go_out_as_calls_with_results(kind: str) -> None:
    _, body = await answer(kind, wire(("set_light", '{"room": "hall"}')))
    turns = [turn for turn in body["messages"] if turn["role"] != "system"]
    if "anthropic" in kind:
        assert [turn["role"] for turn in turns] == ["user", "assistant", "user", "assistant", "user"]
        blocks = turns[1]["content"]
        assert [(block["name"], block["input"]) for block in blocks] == [HALL, DOOR]
        results = [block for block in turns[2]["content"] if block["type"] == "tool_result"]
        assert [block["tool_use_id"] for block in results] == [block["id"] for block in blocks]
        assert turns[2]["content"][-1]["text"] == "Thanks."
    else:
        assert [turn["role"] for turn in turns] == ["user", "assistant", "tool", "tool", "user", "assistant", "user"]
        calls = turns[1]["tool_calls"]
        assert [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in calls] == [HALL, DOOR]
        assert [turn["tool_call_id"] for turn in turns[2:4]] == [call["id"] for call in calls]
        assert turns[5]["content"] == "No tool fits."


@pytest.mark.parametrize("kind", MODELS)
async def test_words_without_a_call_are_no_call_and_are_kept(kind: str) -> None:
    reply, _ = await answer(kind, "Which room do you mean?")
    assert reply.text == "[]\nWhich room do you mean?"


@pytest.mark.parametrize("kind", ["openai", "langchain-openai"])
async def test_malformed_arguments_are_the_answer_as_it_came(kind: str) -> None:
    reply, _ = await answer(kind, wire(("set_light", '{"room": "ha'), ("set_lock", "{}")))
    calls = json.loads(reply.text)
    assert sorted(call["name"] for call in calls) == ["set_light", "set_lock"]
    assert next(call for call in calls if call["name"] == "set_light")["arguments"] == '{"room": "ha'


def refused(kind: str) -> dict[str, Any]:
    """A reply that says that it cannot help."""
    if "anthropic" in kind:
        blocks, usage = [{"type": "text", "text": "I cannot help."}], {"input_tokens": 1, "output_tokens": 1}
        reply = {"type": "message", "role": "assistant", "content": blocks, "model": "m", "usage": usage}
        return {"id": "1", "stop_reason": "refusal", "stop_sequence": None, **reply}
    message = {"role": "assistant", "content": None, "refusal": "I cannot help."}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": choices}


def broken(kind: str) -> dict[str, Any]:
    """A reply with calls that are none."""
    if "anthropic" in kind:
        return {"content": [{"type": "tool_use", "input": {}}], "stop_reason": "tool_use", "usage": {}}
    message = {"role": "assistant", "content": None, "tool_calls": [{"type": "function"}]}
    return {"id": "1", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}


@pytest.mark.parametrize("kind", MODELS)
async def test_a_refusal_is_no_answer(kind: str) -> None:
    reply, _ = await answer(kind, Fault(body=refused(kind)))
    assert (reply.finish, reply.text) == ("refusal", "I cannot help.")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("openai", {"content": None, "tool_calls": [{"function": {"name": 5}}]}),
        ("openai", {"content": None, "tool_calls": 7}),
        ("openai", {"content": None}),
        ("openai", None),
        ("anthropic", None),
    ],
)
async def test_calls_that_are_none_are_the_fault_of_the_provider(kind: str, message: dict[str, Any] | None) -> None:
    openai = {"choices": [{"index": 0, "message": {"role": "assistant", **(message or {})}, "finish_reason": "stop"}]}
    with pytest.raises(BadResponse):
        await answer(kind, Fault(body=broken(kind) if message is None else openai))


# -- agents ------------------------------------------------------------------------------------------------------------


AGENT = replace(
    REQUEST,
    messages=(
        Message("system", "You run a house."),
        Message("user", "Hall light and front door."),
        Message("assistant", calls_text([HALL, DOOR], "At once.")),
        Message("tool", "on"),
        Message("tool", "locked"),
        Message("assistant", calls_text([HALL])),
        Message("tool", ""),
        Message("user", "Done?"),
    ),
    tool_choice="auto",
)


def calls_sent(kind: str, body: Mapping[str, Any]) -> list[tuple[str, str, list[tuple[str, Any]], list[str]]]:
    """Role, text, calls and results of each message, whose ids match."""
    found: list[tuple[str, str, list[tuple[str, Any]], list[str]]] = []
    ids: list[str] = []
    for turn in body["messages"]:
        content = turn.get("content") or ""
        if turn["role"] == "tool":
            assert turn["tool_call_id"] == ids.pop(0)
            found[-1][3].append(content)
            continue
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        said = "".join(block["text"] for block in blocks if block["type"] == "text")
        if "anthropic" in kind:
            made = [(b["id"], (b["name"], b["input"])) for b in blocks if b["type"] == "tool_use"]
            for block in (each for each in blocks if each["type"] == "tool_result"):
                assert block["tool_use_id"] == ids.pop(0)
                found[-1][3].append(block["content"])
        else:
            functions = [(call["id"], call["function"]) for call in turn.get("tool_calls", ())]
            made = [(id, (f["name"], json.loads(f["arguments"]))) for id, f in functions]
        if said or made:
            found.append((turn["role"], said, [call for _, call in made], []))
        ids += [id for id, _ in made]
    assert not ids
    return [turn for turn in found if turn[0] != "system"]


@pytest.mark.parametrize("has_tools", [True, False])
@pytest.mark.parametrize("kind", MODELS)
async def test_an_agents_calls_go_out_with_their_results_and_what_was_said(kind: str, has_tools: bool) -> None:
    """A last request without tools, that only sums up, as well; then nothing may be called."""
    reply, body = await answer(kind, "All done.", AGENT if has_tools else replace(AGENT, tools=(), tool_choice=""))
    assert calls_sent(kind, body) == [
        ("user", "Hall light and front door.", [], []),
        ("assistant", "At once.", [HALL, DOOR], ["on", "locked"]),
        ("assistant", "", [HALL], [""]),
        ("user", "Done?", [], []),
    ]
    assert turn_of(reply.text) == ([], "All done.")
    assert reply.text.startswith("[]") == has_tools
    if "anthropic" in kind and not has_tools:  # it refuses calls of undeclared tools
        assert [tool["name"] for tool in body["tools"]] == ["set_light", "set_lock"]
        assert body["tool_choice"] == {"type": "none"}


@pytest.mark.parametrize("choice", ["auto", "none", "required", "set_lock"])
@pytest.mark.parametrize("kind", MODELS)
async def test_a_tool_may_or_must_be_called_or_not(kind: str, choice: str) -> None:
    calls = wire(("set_lock", '{"door": "front"}'))
    reply, body = await answer(kind, f"{calls}\nLocking.", replace(AGENT, tool_choice=choice))
    assert turn_of(reply.text) == ([DOOR], "Locking.")
    named: dict[str, Any] = {"type": "function", "function": {"name": "set_lock"}}
    wanted = {"auto": None, "none": "none", "required": "required", "set_lock": named}[choice]
    if "anthropic" in kind:
        kinds = {
            "none": {"type": "none"},
            "required": {"type": "any"},
            "set_lock": {"type": "tool", "name": "set_lock"},
        }
        wanted = kinds.get(choice)
    assert body.get("tool_choice") == wanted


@pytest.mark.parametrize("results", [("on",), ("on", "locked", "what?")])
async def test_each_call_has_one_result(results: tuple[str, ...]) -> None:
    given = (*AGENT.messages[:3], *(Message("tool", result) for result in results))
    with pytest.raises(RowRefused, match=f"2 tool calls have {len(results)} results"):
        await answer("openai", "ok", replace(AGENT, messages=given))
    with pytest.raises(RowRefused):
        turns([Message("tool", "on")])


def test_a_message_without_results_is_text() -> None:
    said = calls_text([HALL])
    assert [turn.said for turn in turns([Message("assistant", said), Message("user", "[]")])] == [said, "[]"]


@given(st.lists(st.tuples(st.text(), st.dictionaries(st.text(), st.text()) | st.text())), st.text())
def test_a_reply_is_read_as_it_was_written(calls: list[tuple[str, Any]], said: str) -> None:
    text = calls_text(calls, said)
    assert turn_of(text) == (calls, said if said.strip() else "")
    if all(isinstance(arguments, dict) for _, arguments in calls):
        assert calls_of(text.split("\n")[0]) == calls


@pytest.mark.parametrize(
    "text", ["", "hi", "[1]", "[", "5\nx", "[] x", '[{"name": "a"}]', ' [{"name": 1}]', "[" * 9999]
)
def test_other_texts_are_said(text: str) -> None:
    assert turn_of(text) == ([], text)


def test_a_local_model_sees_results_and_may_answer_in_words() -> None:
    system, user, assistant, results, *_ = with_tools(AGENT)
    assert (user, assistant) == AGENT.messages[1:3]
    assert results == Message(
        "user", "<tool_response>\non\n</tool_response>\n<tool_response>\nlocked\n</tool_response>"
    )
    assert "answer the user in plain words" in system.content
    assert with_tools(replace(AGENT, tool_choice="none"))[0] == AGENT.messages[0]
    schema = '{"type": "object"}'
    assert f"words: %json {schema}\n" in _body(replace(AGENT, json_schema=schema))["grammar"]
    assert "grammar" not in _body(replace(AGENT, tool_choice="required"))


@pytest.mark.parametrize(
    ("text", "calls", "said"),
    [
        (calls_text([HALL, DOOR]), [HALL, DOOR], ""),
        (calls_text([HALL], "Done."), [HALL], "Done."),
        ('Yes.\n<tool_call>\n{"name": "set_light", "arguments": {"room": "hall"}}\n</tool_call>', [HALL], "Yes."),
        ('<tool_call>{"name": "set_light", "arguments": {"room": "hall"}}', [HALL], ""),
        ('```json\n{"name": "set_light", "arguments": {"room": "hall"}}\n```', [HALL], ""),
        ('```\n[{"name": "set_lock", "arguments": {"door": "front"}}]\n```', [DOOR], ""),
        ('```json\n{"name": "Bob"}\n```', [], '```json\n{"name": "Bob"}\n```'),
        ('[{"name": "open_gate", "arguments": {}}]', [], '[{"name": "open_gate", "arguments": {}}]'),
        ('I look.\n[{"name": "set_lock", "arguments": {"door": "front"}}]', [DOOR], "I look."),
        ('So:\n\n```json\n[{"name": "set_lock", "arguments": {"door": "front"}}]\n```', [DOOR], "So:"),
        ('Such as\n[{"name": "open_gate", "arguments": {}}]', [], 'Such as\n[{"name": "open_gate", "arguments": {}}]'),
        ("It is on.", [], "It is on."),
        ("", [], ""),
    ],
)
def test_open_models_write_calls_in_many_ways(text: str, calls: list[Any], said: str) -> None:
    assert turn_of(spoken_calls(text, AGENT.tools)) == (calls, said)


async def test_tools_count_where_the_provider_counts_nothing() -> None:
    body = {"choices": [{"message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}]}
    reply, _ = await answer(
        "openai", Fault(body=body), replace(REQUEST, tools=(replace(LIGHT, description="x" * 999),))
    )
    assert reply.usage.prompt_tokens > 500


def test_tools_are_part_of_what_is_asked() -> None:
    plain, other = replace(REQUEST, tools=()), replace(REQUEST, tools=(replace(LIGHT, description="Lamp."), LOCK))
    agent = replace(REQUEST, tool_choice="auto")
    assert len({key_of("m", each.identity()) for each in (REQUEST, plain, other, agent)}) == 4
    assert "tools" not in plain.identity()


def test_a_local_model_reads_of_its_tools_and_can_only_call_them() -> None:
    import jsonschema

    system = with_tools(REQUEST)[0]
    assert system.content.startswith("You run a house.\n\n# Tools\n")
    assert system.content.count("set_light") == 1
    assert [m.role for m in with_tools(replace(REQUEST, messages=REQUEST.messages[-1:]))] == ["system", "user"]
    schema = json.loads(calls_schema(REQUEST.tools))
    valid = jsonschema.Draft202012Validator(schema).is_valid
    assert valid(json.loads(calls_text([HALL, DOOR])))
    assert valid([])
    assert not valid([{"name": "open_gate", "arguments": {}}])
    assert not valid([{"name": "set_light", "arguments": {}}])


@given(st.text())
def test_any_text_of_arguments_is_an_object_or_itself(text: str) -> None:
    found = arguments_in(text)
    assert isinstance(found, dict) or found == text


def test_a_demo_goes_out_as_calls_whatever_the_form_of_its_label() -> None:
    forms = ('[{"set_light": {"room": "hall"}}]', '[{"name": "set_light", "input": {"room": "hall"}}]')
    assert [calls_of(form) for form in (*forms, "[]", "hall", "5")] == [[HALL], [HALL], [], None, None]
