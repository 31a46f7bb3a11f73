"""Conversations that go on with the model's own replies: a script or a model plays the user; a kill loses no turn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.world import good, good_json, refused, write_task
from tests.scripted import Toys

TASK = """\
name = "counter"
description = "Take a coffee order over several messages."
signature = "messages -> order"
instruction = "You take orders at a counter."

[fields.messages]
type = "conversation"

[[metrics]]
name = "exact_match"

[conversation]
reply_tokens = 30
"""
SIZES, DRINKS = ("small", "large", "double"), ("mocha", "latte", "espresso", "chai")
PLAYER = TASK.replace("messages ->", "goal ->").replace('[fields.messages]\ntype = "conversation"\n', "").replace(
    "[conversation]", '[conversation]\nuser = "USER"\nprompt = "You are a guest."\nmax_turns = 4'
).replace('"exact_match"', '"goal"\nwithin = 3')  # fmt: skip


def write_counter(toml: str = TASK) -> None:
    """40 rows a split, of three messages each or of a goal."""
    rows = []
    for number in range(1, 121):
        size, drink = SIZES[number % 3], DRINKS[number // 3 % 4]
        said = [f"Number {number}: a {drink}, please.", f"Make it {size}.", "That is all; repeat my order."]
        asked = {"goal": f"Number {number}: order a {size} {drink}."} if "goal ->" in toml else {"messages": said}
        rows.append({"id": f"r{number}", **asked, "order": f"{size} {drink}"})
    write_task(toml, {"train": rows[:40], "dev": rows[40:80], "test": rows[80:]})


def counter(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
    """Repeats the order at the end; only a prompt that says `carefully` makes it keep the size in mind."""
    first, last = messages[0]["content"], messages[-1]["content"]
    if "improve the instruction" in first:
        return "<instruction>You take orders at a counter, carefully and to the end.</instruction>"
    assert [message["role"] for message in messages] == ["system", *["user", "assistant"] * 3][: len(messages)]
    if "repeat my order" not in last:
        return f"Noted, {last.split(': ')[-1]}"
    said = " ".join(message["content"] for message in messages[1:])
    drink = next(drink for drink in DRINKS if drink in said)
    size = next((size for size in SIZES if size in said), "?") if "carefully" in first else "small"
    return f"{size} {drink}"


def test_commands_that_ask_rows_one_by_one_refuse_it(toys: Toys) -> None:
    write_counter()
    model, other = toys(counter), "toy/other"
    found = good_json("run", "counter", "-m", model.name, "--max-calls", "900", "-n", "1")
    sent = len(model.seen)
    toys(counter, "other")
    for command in (
        ["transfer", found["run_id"], "--models", other],
        ["migrate", found["release"], "--model", other, "--price", "1,2"],
        ["customize", "counter", "-m", model.name, "--arms", "prompt"],
        ["check", found["release"]],
    ):
        assert "continue with the model's own replies" in "\n".join(refused(2, *command))
    good("export", "--format", "messages", "-o", "m.json")
    assert len(model.seen) == sent


def guest(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
    """Plays the user: says the number of its goal, the drink, and then the size."""
    first = messages[0]["content"]
    size, drink = first.partition("order a ")[2].partition(".")[0].split()
    number = first.partition("Your goal: ")[2].partition(":")[0]
    return [f"{number}: a {drink}, please.", f"Make it {size}.", "That is all; repeat my order. [DONE]"][
        len(messages) // 2 - 1
    ]


def test_a_model_plays_the_user_until_its_goal_is_reached(toys: Toys) -> None:
    model, player = toys(counter), toys(guest, "guest")
    write_counter(PLAYER.replace("USER", player.name))
    found = good_json("run", "counter", "-m", model.name, "--max-calls", "1600")
    assert good_json("reproduce", found["run_id"])["same"]
    Path("goals.csv").write_text("goal\nOrder a mocha.\n")
    said = refused(2, "apply", found["release"], "goals.csv", "-o", "out.csv")
    assert "goals.csv:2: goal: is a goal, which no model plays here; write the list of messages so far" in said[0]
    assert found["decision"] == "promote", found
    assert found["winner"]["test"] == 1.0
    assert len(player.seen) > 100
    assert "[DONE]" not in json.dumps(model.bodies)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('type = "conversation"', "", 'need type = "conversation" below [fields.messages]'),
        ("[conversation]", '[conversation]\nprompt = "x"', "prompt is for a model that plays the user"),
        ("[conversation]", '[conversation]\nuser = "local/x"', "the key 'prompt' is missing"),
        ("[conversation]", '[search]\ntechniques = ["few-shot"]\n[conversation]', "has no examples"),
        ("[conversation]", '[knowledge]\npath = "x"\n[conversation]', "does not work with knowledge yet"),
    ],
)
def test_what_does_not_go_together_is_refused_before_a_call(old: str, new: str, said: str) -> None:
    write_counter(TASK.replace(old, new))
    assert said in "\n".join(refused(2, "run", "counter", "-m", "openai-compatible/x@http://127.0.0.1:9"))


def test_a_script_has_the_users_messages_alone() -> None:
    write_counter()
    lines = ['["a", {"role": "assistant", "content": "b"}]', '["a", ""]', '[{"role": "system", "content": "s"}]']
    Path("counter/dev.jsonl").write_text("".join(f'{{"messages": {line}, "order": "x"}}\n' for line in lines))
    found = refused(2, "run", "counter", "-m", "openai-compatible/x@http://127.0.0.1:9")
    assert "dev.jsonl:1" in found[0]
    faults = ("message 2 is the assistant's; the model replies by itself", "message 2 is empty")
    for line, said in zip(found, (*faults, "a system message must come first"), strict=False):
        assert said in line
