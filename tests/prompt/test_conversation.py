"""A conversation is sent as messages, whatever it contains; examples are turns before it, or texts in the system
message."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from agent.conversation import as_text, turns_of
from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.render import render, shown_demos, template
from agent.prompt.template import PICKED, fill_messages, turns_input
from agent.retrieval.pick import Picks
from agent.types import Demo, Field, Message, Signature
from tests.task.test_conversation_rows import conversations

TALK = Signature((Field("talk", "conversation"),), (Field("want", "choice", choices=("tea", "coffee")),))
ASKED = as_text([("user", "Tea?"), ("assistant", "Or coffee?"), ("user", "{{talk}} {{talk as turns}}")])
DEMO = Demo(
    "t1",
    {"talk": as_text([("system", "A café."), ("user", "Coffee."), ("assistant", "Sure?"), ("user", "No, {{talk}}.")])},
    {"want": "tea"},
)
BARE = PromptCandidate("zero-shot", "turns", "Name the drink.")
SHOTS = PromptCandidate("few-shot", "turns", "Name the drink.", demos=(DEMO,))
TURNS = [("user", "A café.\n\nCoffee."), ("assistant", "Sure?"), ("user", "No, {{talk}}."), ("assistant", "tea")]


def sent(candidate: PromptCandidate, talk: str = ASKED) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in render(candidate, TALK, {"talk": talk})]


def test_a_conversation_goes_out_as_it_was_said() -> None:
    assert sent(BARE) == [("system", "Name the drink."), *turns_of(ASKED)]
    assert turns_input(template(BARE, TALK)) == "talk"


def test_a_demo_is_a_conversation_before_it_by_turns_or_a_text() -> None:
    assert sent(SHOTS) == [("system", "Name the drink."), *TURNS, *turns_of(ASKED)]
    (_, system), *rest = sent(replace(SHOTS, format="inline"))
    told = f"Talk: {DEMO.inputs['talk']}\nWant: tea"
    assert system == f"Name the drink.\n\nExamples:\n\n{told}\n\n"
    assert rest == turns_of(ASKED)


def test_its_system_message_ends_the_prompts_own() -> None:
    talk = as_text([("system", "The shop is closed."), ("user", "Tea?")])
    assert sent(BARE, talk) == [("system", "Name the drink.\n\nThe shop is closed."), ("user", "Tea?")]


def test_picked_examples_are_turns_before_it() -> None:
    picking = replace(SHOTS, demos=()).having(picks=Picks("bm25", 1))
    made = template(picking, TALK)
    assert made[-2:] == (Message("user", "{{" + PICKED + "}}"), Message("user", "{{talk as turns}}"))
    filled = fill_messages(made, {"talk": ASKED}, shown_demos(picking, [DEMO], TALK))
    assert [(message.role, message.content) for message in filled] == sent(SHOTS)


@given(conversations(), st.sampled_from([BARE, SHOTS, replace(SHOTS, format="inline")]))
def test_whatever_is_said_arrives_byte_for_byte(turns: list[tuple[str, str]], candidate: PromptCandidate) -> None:
    said = [turn for turn in turns if turn[0] != "system"]
    assert sent(candidate, as_text(turns))[-len(said) :] == said  # type: ignore[arg-type]


@given(st.text())
def test_no_text_in_a_demo_or_an_instruction_takes_the_place_of_the_conversation(text: str) -> None:
    for mark in (text, "{{talk as turns}}", "\\{{talk as turns}}", f"{text}{{{{talk as turns}}}}"):
        if not mark.strip():
            continue
        demo = replace(DEMO, inputs={"talk": as_text([("user", mark)])})
        made = sent(replace(SHOTS, demos=(demo,), instruction=mark))
        assert made[0] == ("system", mark.strip())
        assert made[1] == ("user", mark)
        assert made[3:] == turns_of(ASKED)
