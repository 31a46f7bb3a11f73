"""The tasks that ship: large enough, balanced, without leaks between their splits, and right by their own rules."""

import json
import math
import re
from collections import Counter
from pathlib import Path

import pytest

from agent.conversation import turns_of
from agent.task.copies import near_duplicates
from agent.task.load import load_task
from agent.task.skills import known_skills, skills_in
from agent.types import Example, Task, calls_schema

TASKS = Path(__file__).resolve().parents[1] / "tasks"
SIZES = {
    "support_triage": (150, 100, 150),
    "word_problems": (80, 80, 120),
    "clinic_intake": (80, 80, 120),
    "podcast_blurb": (72, 60, 100),
    "clause_plain_english": (72, 60, 100),
    "bank_answers": (100, 80, 120),
    "home_assistant": (50, 40, 60),
    "home_agent": (50, 40, 60),
    "clinic_desk": (28, 28, 42),
    "skill_choice": (36, 30, 54),
}
URGENCIES = {"routine", "soon", "emergency"}
SYMPTOMS = {
    "abdominal pain", "back pain", "chest pain", "cough", "dizziness", "fever", "headache", "injury", "rash",
    "shortness of breath", "sore throat", "urinary pain",
}  # fmt: skip


@pytest.fixture(scope="module", params=sorted(SIZES))
def task(request: pytest.FixtureRequest) -> Task:
    return load_task(TASKS / str(request.param))


def splits(task: Task) -> dict[str, tuple[Example, ...]]:
    return {"train": task.train, "dev": task.dev, "test": task.test}


def text(row: Example) -> str:
    return "\n".join(row.inputs.values())


def test_every_folder_under_tasks_is_known_here() -> None:
    assert {path.parent.name for path in TASKS.glob("*/task.toml")} == set(SIZES)


def test_a_task_has_rows_enough_with_ids_of_their_own_that_no_instruction_shows(task: Task) -> None:
    assert all(len(rows) >= least for rows, least in zip(splits(task).values(), SIZES[task.name], strict=True))
    every = [row for rows in splits(task).values() for row in rows]
    assert len({row.id for row in every}) == len(every)
    assert not [row.id for row in every if len(text(row)) > 25 and text(row) in task.instruction]


def test_no_two_rows_are_near_duplicates_and_none_across_splits_alike(task: Task) -> None:
    rows = [(name, row) for name, split in splits(task).items() for row in split]
    for group in near_duplicates([text(row) for _, row in rows]):
        pytest.fail(f"near-duplicates: {[(rows[at][0], rows[at][1].id) for at in group]}")
    words = [(name, row.id, frozenset(re.findall(r"\w+", text(row).casefold()))) for name, row in rows]
    alike = [
        (one_id, other_id)
        for at, (one, one_id, mine) in enumerate(words)
        for other, other_id, theirs in words[at + 1 :]
        if one != other and len(mine & theirs) >= 0.6 * len(mine | theirs)
    ]
    assert alike == []


def test_every_class_is_present_in_each_split() -> None:
    triage, clinic = load_task(TASKS / "support_triage"), load_task(TASKS / "clinic_intake")
    for rows in splits(triage).values():
        counts = Counter(row.labels["team"] for row in rows)
        assert set(counts) == set(triage.signature.outputs[0].choices)
        assert min(counts.values()) >= len(rows) / len(counts) / 2
    for rows in splits(clinic).values():
        records = [row.labels["record"] for row in rows]
        assert {record["urgency"] for record in records} == URGENCIES
        assert {record["symptom"] for record in records} == SYMPTOMS


def test_every_answer_of_the_word_problems_is_a_finite_number() -> None:
    task = load_task(TASKS / "word_problems")
    for rows in splits(task).values():
        answers = [row.labels["answer"] for row in rows]
        assert all(isinstance(a, int | float) and not isinstance(a, bool) and math.isfinite(a) for a in answers)
        assert len(set(answers)) > len(answers) / 3


def test_every_record_of_the_clinic_is_valid() -> None:
    import jsonschema

    task = load_task(TASKS / "clinic_intake")
    schema = json.loads((TASKS / "clinic_intake" / "record.schema.json").read_text("utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    for rows in splits(task).values():
        for row in rows:
            assert not list(validator.iter_errors(row.labels["record"])), row.id
    assert task.signature.outputs[0].schema is not None
    assert json.loads(task.signature.outputs[0].schema) == schema


def test_every_conversation_of_the_clinic_desk_takes_turns_and_has_a_job() -> None:
    task = load_task(TASKS / "clinic_desk")
    for rows in splits(task).values():
        talks = [turns_of(row.inputs["messages"]) for row in rows]
        assert {len(talk) for talk in talks} == {3, 5, 7}
        assert all(turn[0] == ("user", "assistant")[at % 2] for talk in talks for at, turn in enumerate(talk))
        counts = Counter(row.labels["job"] for row in rows)
        assert set(counts.values()) == {len(rows) // 7}, "no job is asked for more often than another"
        named = [row.labels["job"] in talk[-1][1].lower() for row, talk in zip(rows, talks, strict=True)]
        assert sum(named) <= len(rows) / 20, "the last message alone does not say it"


def test_every_call_of_the_home_assistant_fits_its_tool() -> None:
    import jsonschema

    task = load_task(TASKS / "home_assistant")
    valid = jsonschema.Draft202012Validator(json.loads(calls_schema(task.tools))).is_valid
    for rows in splits(task).values():
        calls = [call for row in rows for call in row.labels["calls"]]
        assert {call["name"] for call in calls} == {tool.name for tool in task.tools}
        assert [row.id for row in rows if not valid(row.labels["calls"])] == []
        assert sum(not row.labels["calls"] for row in rows) >= len(rows) / 12


def test_every_skill_is_meant_in_each_split_and_its_file_is_that_of_the_task() -> None:
    task = load_task(TASKS / "skill_choice")
    found = skills_in(TASKS / "skill_choice" / "skills")
    assert list(found) == list(task.tools)
    skills = {tool.name: file for tool, file in found.items()}
    assert known_skills(TASKS / "skill_choice") == skills
    for rows in splits(task).values():
        assert {call["name"] for row in rows for call in row.labels["calls"]} == set(skills)
        assert sum(not row.labels["calls"] for row in rows) >= len(rows) / 8
        named = [call["name"].split("-")[0] in row.inputs["query"] for row in rows for call in row.labels["calls"]]
        assert sum(named) <= len(rows) / 6, "the name of a skill alone does not say it"
