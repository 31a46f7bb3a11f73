"""Rows that are conversations: read from lists of messages and their JSON; refused with every problem."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.conversation import MOST_MESSAGES, Turns, after, as_text, last_said, order_faults, read_turns, turns_of
from agent.errors import InputError, ProblemsError
from agent.options.shared import Asked
from agent.task.from_file import task_from_file
from agent.task.load import load_task
from tests.cases import each_case
from tests.task.folders import jsonl, make, problems

TOML = """\
name = "desk"
description = "Say what the caller wants in the end."
signature = "messages -> want"
instruction = "Answer with one word: what the caller wants in the end."

[fields.messages]
type = "conversation"
"""
SPLITS = ("train", "dev", "test")
CONTENT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1).filter(str.strip)


@st.composite
def conversations(draw: Any) -> Turns:
    """Conversations as a row may hold them."""
    said = draw(st.lists(CONTENT, min_size=1, max_size=7).filter(lambda texts: len(texts) % 2))
    system: Turns = [("system", draw(CONTENT))] if draw(st.booleans()) else []
    return system + [("assistant" if at % 2 else "user", text) for at, text in enumerate(said)]


def as_messages(turns: Turns) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


def row(split: str, *texts: str, **more: str) -> dict[str, Any]:
    turns = [("assistant" if at % 2 else "user", f"{split} {text}") for at, text in enumerate(texts)]
    return {"messages": [{"role": role, "content": content} for role, content in turns], **more}


def good(**changed: str) -> dict[str, str]:
    return {split: jsonl([row(split, "tea", "or coffee?", "coffee", want="coffee")]) for split in SPLITS} | changed


@given(conversations())
def test_a_conversation_is_the_same_after_it_was_a_text(turns: Turns) -> None:
    assert turns_of(as_text(turns)) == turns
    assert read_turns(as_messages(turns)) == turns
    assert read_turns(as_text(turns)) == [("user", as_text(turns))], "a text is one message of the user"
    assert list(order_faults(turns)) == []
    assert last_said(as_text(turns)).endswith(turns[-1][1])


@given(st.text())
def test_any_text_is_messages_and_stays_in_them(text: str) -> None:
    turns = turns_of(text)
    assert turns
    assert turns_of(as_text(turns)) == turns
    assert after([("system", "S")], text)[0][0] == "system"


@given(conversations(), st.sampled_from(["jsonl", "csv", "text"]))
def test_a_row_is_read_alike_from_every_form(tmp_path_factory: Any, turns: Turns, form: str) -> None:
    folder = tmp_path_factory.mktemp("t")
    cell: Any = as_text(turns) if form == "text" else as_messages(turns)
    turns = [("user", as_text(turns))] if form == "text" else turns
    split = json.dumps({"messages": cell, "want": "x"}) + "\n"
    files: dict[str, Any] = good()
    if form == "csv":
        table = io.StringIO()
        csv.writer(table).writerows([["messages", "want"], [json.dumps(cell), "x"]])
        del files["train"]
        files["train__csv"] = table.getvalue()
    else:
        files["train"] = split
    make(folder, TOML, **files)
    if form == "csv":
        (folder / "train.jsonl").unlink()
    (example,) = load_task(folder).train
    assert turns_of(example.inputs["messages"]) == turns


def test_the_assistants_last_message_is_the_answer_where_no_column_is(here: Path) -> None:
    files = good(train=jsonl([row("train", "tea", "or coffee?", "coffee", "just coffee")]))
    task = load_task(make(here / "t", TOML, **files))
    assert task.train[0].labels == {"want": "train just coffee"}
    assert task.train[0].inputs["messages"] == "User: train tea\nAssistant: train or coffee?\nUser: train coffee"
    number = TOML + '[fields.want]\ntype = "number"\n'
    numbers = {
        split: jsonl([{"messages": [*row(split, "4 or 5?")["messages"], {"role": "assistant", "content": "5"}]}])
        for split in SPLITS
    }
    assert load_task(make(here / "n", number, **numbers)).dev[0].labels == {"want": 5}


def test_every_wrong_row_is_named_at_its_line(here: Path) -> None:
    user, assistant = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}
    wrong = [
        [user, user],
        [assistant, user],
        [{"role": "tool", "content": "x"}, {"role": "user", "content": ["picture"]}, user],
        [],
        "",
        [user, {**assistant, "tool_calls": [1]}, user],
        [user, {"role": "assistant", "content": " "}, user],
        7,
        [user, assistant] * MOST_MESSAGES + [user],
        '[{"role": "user"',
    ]
    lines = jsonl([{"messages": value, "want": "x"} for value in wrong])
    found = problems(make(here / "t", TOML, **good(dev=lines + jsonl([{"messages": [user, assistant], "want": "x"}]))))
    said = {int(line.split(":")[1]): line for line in found}
    assert sorted(said) == list(range(1, 12))
    assert "message 2 is the user's where the assistant's comes" in said[1]
    assert "message 1 is the assistant's where the user's comes" in said[2]
    assert "message 1 has the role 'tool'" in said[3]
    assert "message 2 has no text as content" in said[3]
    assert "has no message" in said[4]
    assert "is empty" in said[5]
    assert "has 'tool_calls' in addition to role" in said[6]
    assert "message 2 is empty" in said[7]
    assert "is no list of messages" in said[8]
    assert f"at most {MOST_MESSAGES}" in said[9]
    assert "is not JSON" in said[10]
    assert "the user's comes last" in said[11]


@each_case(
    ("old", "new", "said"),
    [
        ("messages -> want", "messages, tone -> want", "a conversation must be the only input"),
        ("in the end.", "in the end. {{messages}}", "take {{messages}} out"),
        ('type = "conversation"', 'type = "conversation"\n[search]\nformats = ["dspy-chat"]', "turns, inline"),
        ("[fields.messages]", '[fields.want]\ntype = "conversation"\n[fields.messages]', "a conversation is an input"),
    ],
)
def test_what_a_conversation_cannot_have_is_refused(here: Path, old: str, new: str, said: str) -> None:
    assert any(said in line for line in problems(make(here / "t", TOML.replace(old, new), **good())))


def test_a_column_of_conversations_in_a_data_file_is_its_input(here: Path) -> None:
    words = ("tea", "coffee", "cocoa")
    table = [
        {"id": f"r{n}", "who": f"guest {n}", "chat": row(f"no {n} {words[n % 3]}", "a", "b", "c")["messages"]}
        | {"drink": words[n % 3]}
        for n in range(60)
    ]
    file = here / "chats.jsonl"
    file.write_text(jsonl(table))
    task, reading = task_from_file(file, "drink")
    assert str(task.signature) == "chat -> drink"
    assert task.signature.conversation == "chat"
    assert {column.name: column.reason for column in reading.columns}["who"] == "a conversation is the only input"
    assert turns_of(task.dev[0].inputs["chat"])[1][0] == "assistant"
    table[7]["chat"] = [{"role": "tool", "content": "x"}]
    file.write_text(jsonl(table))
    with pytest.raises(ProblemsError, match=r"chats.jsonl:8: chat: message 1 has the role 'tool'"):
        task_from_file(file, "drink")
    assert "who" in str(task_from_file(file, "drink", asked=Asked(ignore=("chat",)))[0].signature)


def drinks(here: Path, **odd: Any) -> Path:
    """A data file of 60 conversations, with other values in the rows named by `rN`."""
    words = ("tea", "coffee", "cocoa")
    table = [
        {"chat": odd.get(f"r{n}", row(f"no {n} {words[n % 3]}", "a", "b", "c")["messages"]), "drink": words[n % 3]}
        for n in range(60)
    ]
    file = here / "chats.jsonl"
    file.write_text(jsonl(table))
    return file


def test_one_odd_row_does_not_make_texts_of_conversations(here: Path) -> None:
    odd = {
        "r0": "just text",
        "r1": "",
        "r2": '[{"role"',
        "r9": "just text",
        **{f"r{n}": f"text {n}" for n in range(20, 43)},
    }
    with pytest.raises(ProblemsError) as refused:
        task_from_file(drinks(here, **odd, r50=[]), "drink")
    lines = [str(each) for each in refused.value.problems]
    assert len(lines) == 21, "a line for each of 20 mistakes, and one for all others"
    assert lines[0].startswith("chats.jsonl:1: chat: 'just text' is no list of messages, as in other rows")
    assert lines[0].endswith("(so in 2 rows, this is the first)")
    _, reading = task_from_file(drinks(here, r1=""), "drink")
    assert next((column.name, column.reason) for column in reading.columns) == ("chat", "holds conversations")
    mostly_text = {f"r{n}": f"no {n} text" for n in range(40)}
    assert task_from_file(drinks(here, **mostly_text), "drink")[0].signature.conversation == ""


def test_a_mark_of_a_column_of_conversations_is_refused(here: Path) -> None:
    with pytest.raises(InputError, match=r"holds \{\{chat\}\}, but conversations.*take it out"):
        task_from_file(drinks(here), "drink", "Name the drink: {{chat}}")
