"""An instruction that is put together keeps labels, places for inputs and what was bought."""

from __future__ import annotations

import re
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.programs.moves.asking import why_labels_lost
from agent.programs.moves.evidence import HEADINGS, Assembled, InstructionPart, goal, labels_of_task
from agent.prompt.template import marks
from tests.toys import TEAMS, make_task

TASK = make_task(instruction=f"Choose one of {', '.join(TEAMS)}.")
LAID_OUT = make_task(instruction="Read.\n{{message}}\nTeam:")
LINES = st.text("abc xyz,", min_size=1, max_size=20).map(lambda text: f"texts about {text}".strip())
PARTS = st.lists(
    st.one_of(
        st.builds(lambda text, label: InstructionPart("definition", text, (label,)), LINES, st.sampled_from(TEAMS)),
        st.builds(
            lambda text, pair: InstructionPart("contrast", text, tuple(pair)),
            LINES,
            st.permutations(TEAMS).map(lambda p: p[:2]),
        ),
        st.builds(lambda text: InstructionPart("rule", text), LINES),
        st.builds(lambda text: InstructionPart("procedure", f"1. {text}\n2. {text}"), LINES),
        st.builds(lambda text: InstructionPart("form", f"{text}."), LINES),
    ),
    max_size=8,
)


@settings(max_examples=40)
@given(PARTS, PARTS)
def test_parts_keep_the_words_the_labels_and_one_part_for_a_label(
    first: list[InstructionPart], second: list[InstructionPart]
) -> None:
    made = Assembled(TASK.instruction).having(first).having(second)
    text = made.text(TASK)
    assert text.startswith(TASK.instruction)
    assert why_labels_lost(text, TASK) == ""
    for part in second:
        if second.index(part) == len(second) - 1:
            assert part in made.parts
    for kind in ("definition", "contrast"):
        about = [frozenset(part.about) for part in made.of(kind)]
        assert len(about) == len(set(about))
    assert len(made.of("procedure")) <= 1
    assert len(made.of("form")) <= 1
    assert made.having(made.parts).parts == made.parts or set(made.having(made.parts).parts) == set(made.parts)


def test_the_text_has_a_heading_for_each_kind_and_definitions_in_the_order_of_the_labels() -> None:
    parts = [InstructionPart("definition", f"texts about {n}", (team,)) for n, team in enumerate(reversed(TEAMS))]
    text = Assembled(
        "Choose.", (InstructionPart("form", "One word."), *parts, InstructionPart("rule", "If new, say it"))
    ).text(TASK)
    named = re.findall(r"^- (\w+):", text, re.M)
    assert named == list(labels_of_task(TASK))
    assert text.splitlines()[0] == "Choose."
    assert text.splitlines()[-1] == "One word."
    assert text.index(HEADINGS["definition"]) < text.index(HEADINGS["rule"])


def test_words_that_lay_out_the_input_come_last_and_keep_its_place() -> None:
    text = Assembled(LAID_OUT.instruction, (InstructionPart("definition", "texts about x", (TEAMS[0],)),)).text(
        LAID_OUT
    )
    assert text.endswith(LAID_OUT.instruction)
    assert marks(text, ["message"]) == {"message"}
    assert goal(LAID_OUT, []) is None


def test_a_label_cannot_pose_as_a_place_for_the_input() -> None:
    fields = (replace(TASK.signature.outputs[0], choices=("{{message}}", "other")),)
    task = replace(TASK, signature=replace(TASK.signature, outputs=fields))
    text = Assembled("Choose.", (InstructionPart("definition", "texts about x", ("{{message}}",)),)).text(task)
    assert marks(text, ["message"]) == set()
