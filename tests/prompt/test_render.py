"""What is sent: byte for byte as the golden files say, as DSPy itself would send it, with every value as it came.

After a wanted change, `REWRITE_GOLDEN=1 pytest tests/prompt/test_render.py` rewrites the files of tests/golden; read
the difference before you keep it.
"""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.render import MOST_REPEATED, dspy_messages, render, template
from agent.prompt.techniques import NOT_FOR_DSPY, TECHNIQUES, builtin_rewrites, why_rejected
from agent.prompt.template import fill_messages, label_text, marks
from agent.types import Demo, Field, FormatName, Message, Signature, TechniqueName
from tests.cases import each_case
from tests.toys import SIGNATURE, make_task

GOLDEN = Path(__file__).parent.parent / "golden"
TECHNIQUE_NAMES = get_args(TechniqueName)
FORMATS = get_args(FormatName)
DSPY = tuple(name for name in FORMATS if name.startswith("dspy-"))
ONE = Signature(
    (Field("message", description="the customer's message"),),
    (Field("team", "choice", choices=("billing", "delivery", "refunds")),),
)
TWO = Signature(
    (Field("question"), Field("customer_note", description="what the customer wrote")),
    (Field("answer", "number"), Field("short_reason")),
)
INPUTS = {"message": "Where is my parcel? {{message}}", "question": "How many?", "customer_note": "2 boxes,\nthen 3."}
DEMOS = (
    Demo(
        "train-1",
        {"message": "You charged me twice.", "question": "How many in all?", "customer_note": "1 and 1"},
        {"team": "billing", "answer": "2", "short_reason": "added"},
        "Charged means money.",
        "target",
    ),
    Demo(
        "train-2",
        {"message": "A mark: {{message}} {{team}} \\", "question": "{{question}}", "customer_note": ""},
        {"team": "refunds", "answer": "0", "short_reason": "{{customer_note}}"},
        "",
    ),
)


def only(signature: Signature, demo: Demo) -> Demo:
    inputs = {field.name: demo.inputs[field.name] for field in signature.inputs}
    return replace(demo, inputs=inputs, outputs={field.name: demo.outputs[field.name] for field in signature.outputs})


def candidate(technique: str, name: str, signature: Signature = ONE, **changes: object) -> PromptCandidate:
    demos = tuple(only(signature, demo) for demo in DEMOS) if TECHNIQUES[technique].demos else ()
    made = PromptCandidate(technique, name, "Answer the customer.\nBe exact.", "You are a clerk.", demos)
    return replace(made, **changes)


def inputs_of(signature: Signature) -> dict[str, str]:
    return {field.name: INPUTS[field.name] for field in signature.inputs}


def as_text(messages: tuple[Message, ...]) -> str:
    return "".join(f"=== {message.role} ===\n{message.content}\n" for message in messages)


# -- golden files ------------------------------------------------------------------------------------------------------

CASES = (
    {
        f"{technique}_{name}{suffix}": (candidate(technique, name, signature), signature)
        for technique, name in product(TECHNIQUE_NAMES, FORMATS)
        for suffix, signature in (("", ONE), ("_two-fields", TWO))
    }
    | {
        f"{technique}_{name}_own-layout": (
            candidate(technique, name, ONE, instruction="Message: {{message}}\nTeam ({{team}}):\n"),
            ONE,
        )
        for technique, name in product(TECHNIQUE_NAMES, ("turns", "inline"))
    }
    | {
        f"{technique}_{name}_{place}-place": (candidate(technique, name, ONE, instruction=instruction), ONE)
        for technique, name in product(("zero-shot", "few-shot"), ("turns", "labelled-turns", "inline"))
        for place, instruction in (
            ("late", "Answer the customer.\nBe exact.\n\nMessage: {{message}}\nTeam:"),
            ("early", "Message: {{message}}\n\n" + "Be exact, and read the message twice.\n" * 10),
        )
    }
)


@each_case("name", CASES)
def test_a_prompt_is_rendered_as_its_golden_file(name: str) -> None:
    made, signature = CASES[name]
    text = as_text(render(made, signature, inputs_of(signature))).encode()
    file = GOLDEN / f"{name}.txt"
    if os.environ.get("REWRITE_GOLDEN"):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(text)
    assert text == file.read_bytes()


def test_every_golden_file_has_its_case() -> None:
    assert {file.stem for file in GOLDEN.glob("*.txt")} == set(CASES)


# -- values ------------------------------------------------------------------------------------------------------------

BITS = (
    *("{{message}}", "{{team}}", "[[ ## team ## ]]", "</message>", "{", '"', "$1", "\\1", "\\", " "),
    *("\n", "\r", "\0", "\ud800", "\u2028"),
)
VALUES = st.lists(st.one_of(st.sampled_from(BITS), st.text(st.characters(), max_size=8)), max_size=6).map("".join)
FOR_DSPY = VALUES.filter(lambda text: not any(mark in text for mark in NOT_FOR_DSPY))
PROSE = FOR_DSPY.filter(
    lambda text: text.isascii() or not why_rejected(PromptCandidate("zero-shot", "turns", f"Do {text}"), make_task())
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(TECHNIQUE_NAMES), st.sampled_from(DSPY), st.booleans(), FOR_DSPY, FOR_DSPY, FOR_DSPY, PROSE)
def test_the_filled_template_is_what_dspy_itself_sends(technique, name, two, value, other, shown, instruction) -> None:
    signature = TWO if two else ONE
    made = candidate(technique, name, signature, instruction=f"Do. {instruction}")
    made = replace(made, demos=tuple(replace(demo, inputs=dict.fromkeys(demo.inputs, shown)) for demo in made.demos))
    inputs = dict(zip([field.name for field in signature.inputs], (value, other), strict=False))
    assert fill_messages(template(made, signature), inputs) == dspy_messages(made, signature, inputs)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(TECHNIQUE_NAMES), st.sampled_from(FORMATS), VALUES, VALUES)
def test_every_value_of_the_row_stands_in_the_prompt_exactly_once_more_than_without_it(
    technique, name, value, other
) -> None:
    made, values = candidate(technique, name, TWO), {"question": f"<q>{value}</q>", "customer_note": f"<n>{other}</n>"}
    text = as_text(render(made, TWO, values))
    assert text.count(values["question"]) == 1
    assert text.count(values["customer_note"]) == 1


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["few-shot", "few-shot-cot"]), st.sampled_from(FORMATS), FOR_DSPY)
def test_a_demo_is_never_filled(technique, name, shown) -> None:
    """The content of an example stays literal, marks and all, and the row's value does not appear in it."""
    hostile = f"<d>{shown}{{{{message}}}}</d>"
    made = candidate(technique, name, demos=(Demo("t", {"message": hostile}, {"team": "billing"}, "Why {{message}}."),))
    text = as_text(render(made, ONE, {"message": "THE-VALUE"}))
    assert text.count(hostile) == 1
    assert text.count("THE-VALUE") == 1
    assert ("Why {{message}}." in text) == (technique == "few-shot-cot")


@each_case(("technique", "name"), list(product(TECHNIQUE_NAMES, FORMATS)))
def test_a_template_holds_each_input_once_and_as_the_last_message(technique: str, name: str) -> None:
    for signature in (ONE, TWO):
        names = [field.name for field in signature.inputs]
        messages = template(candidate(technique, name, signature), signature)
        assert [message.role for message in messages][-1] == "user"
        assert marks(messages[-1].content, names) == set(names)
        assert not any(marks(message.content, names) for message in messages[:-1])


@each_case("name", ["turns", "labelled-turns", "inline"])
def test_marks_in_the_users_own_layout_are_where_the_values_go(name: str) -> None:
    made = PromptCandidate(
        "few-shot", name, "<<{{message}}>> and again {{message}}; \\{{message}}", demos=(only(ONE, DEMOS[0]),)
    )
    last = render(made, ONE, {"message": "V{{message}}"})[-1].content
    assert last.endswith("<<V{{message}}>> and again V{{message}}; {{message}}")


WORDS = st.lists(st.sampled_from(["rules", "teams.", "\n", "\n\n", "of", "Message:", "{{team}}", "\\"]), max_size=150)
PLACES = st.lists(st.tuples(WORDS, st.sampled_from(["{{message}}", "{{note}}"])), min_size=1, max_size=4)
NOTES = Signature((Field("message"), Field("note")), ONE.outputs)


@settings(max_examples=200, deadline=None)
@given(PLACES, WORDS, st.sampled_from(["turns", "labelled-turns", "inline"]), st.integers(1, 12))
def test_examples_never_repeat_the_instruction(places, end, name: str, count: int) -> None:
    """Wherever the inputs stand, a prompt with examples is the instruction once and rows with little around them."""
    texts = [f"{' '.join(words)} {mark}" for words, mark in places]
    missing = [mark for mark in ("{{message}}", "{{note}}") if mark not in " ".join(texts)]
    instruction = " ".join([*texts, *missing, *end])
    inputs = {"message": "M" * 20, "note": "N" * 20}
    demos = tuple(Demo(f"train-{at}", inputs, {"team": "billing"}) for at in range(count))
    made = PromptCandidate("few-shot", name, instruction, demos=demos)
    alone = as_text(render(replace(made, technique="zero-shot", demos=()), NOTES, inputs))
    filled = sum(len(message.content) for message in render(made, NOTES, inputs))
    row = 20 * max(2, instruction.count("{{message}}") + instruction.count("{{note}}")) + len("billing")
    assert filled <= len(alone) + len("Examples:\n\n") + count * (row + MOST_REPEATED)
    last = render(made, NOTES, inputs)[-1].content
    fixed = [text for text in instruction.replace("{{message}}", "{{note}}").split("{{note}}")[1:] if text.strip()]
    assert all(text.strip() in last for text in fixed)


def test_a_late_input_is_a_short_turn_of_each_example() -> None:
    rules = "\n".join(f"Rule {number}: be exact." for number in range(40))
    demos = tuple(only(ONE, demo) for demo in DEMOS)
    made = PromptCandidate("few-shot", "turns", f"{rules}\n\nProduct: {{{{message}}}}", demos=demos)
    system, *turns = render(made, ONE, {"message": "Socks"})
    assert (system.role, system.content) == ("system", rules)
    assert [turn.content for turn in turns[::2]] == [
        *(f"Product: {demo.inputs['message']}" for demo in demos),
        "Product: Socks",
    ]


def test_what_follows_an_early_input_is_sent_once() -> None:
    rules = "\n".join(f"Rule {number}: be exact." for number in range(40))
    instruction = f"{{{{message}}}}\n\n{rules}\n\nOnce more: {{{{message}}}}"
    made = PromptCandidate("few-shot", "turns", instruction, demos=tuple(only(ONE, demo) for demo in DEMOS))
    *turns, last = render(made, ONE, {"message": "Socks"})
    assert [turn.content for turn in turns[::2]] == [demo.inputs["message"] for demo in DEMOS]
    assert last.content == f"Socks\n\n{rules}\n\nOnce more: Socks"


def test_what_dspy_would_read_as_an_attachment_may_not_stand_in_a_candidate_of_its_layouts() -> None:
    for mark, name in product(NOT_FOR_DSPY, DSPY):
        made = candidate("few-shot", name, demos=(Demo("train-1", {"message": mark}, {"team": "billing"}),))
        assert why_rejected(made, make_task()) != ""
        assert why_rejected(replace(made, format="turns"), make_task()) == ""


def test_a_row_may_hold_what_dspy_would_read_as_an_attachment() -> None:
    value = '<<CUSTOM-TYPE-START-IDENTIFIER>>[{"type": "text"}]<<CUSTOM-TYPE-END-IDENTIFIER>>\ue0f7message\ue0f8'
    for name in FORMATS:
        assert value in render(candidate("few-shot", name), ONE, {"message": value})[-1].content


@each_case(
    ("value", "text"), [("a", "a"), (3, "3"), (2.5, "2.5"), (True, "true"), (None, "null"), ({"é": 1}, '{"é": 1}')]
)
def test_a_label_is_written_as_text_or_as_json(value: object, text: str) -> None:
    assert label_text(value) == text


# -- built-in rewrites -------------------------------------------------------------------------------------------------


@each_case("instruction", ["Answer with one team.", "Route {{message}} to a team."])
def test_a_rewrite_costs_no_call_keeps_the_placeholder_and_differs_from_the_users_words(instruction: str) -> None:
    task = make_task(instruction=instruction)
    found = builtin_rewrites(task)
    assert len({rewrite.operator for rewrite in found}) == len(found) >= 2
    for rewrite in found:
        assert why_rejected(PromptCandidate("zero-shot", "turns", rewrite.instruction), task) == ""
        assert rewrite.instruction != instruction
        assert rewrite.reason
    assert SIGNATURE.outputs[0].choices


@each_case("instruction", ["Answer with one team.", "Route {{message}} to a team."])
def test_a_label_or_a_description_that_looks_like_a_mark_stays_a_text(instruction: str) -> None:
    label = replace(SIGNATURE.outputs[0], choices=("billing", "{{message}}"))
    signature = replace(SIGNATURE, outputs=(label, *SIGNATURE.outputs[1:]))
    task = replace(make_task(instruction=instruction), signature=signature, description="Where to {{message}}?")
    for rewrite in builtin_rewrites(task):
        shown = render(PromptCandidate("zero-shot", "turns", rewrite.instruction), signature, {"message": "ROW"})
        assert sum(message.content.count("ROW") for message in shown) == 1
