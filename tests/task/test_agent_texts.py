"""The keys `program` and `texts` of an agent in task.toml: what loads, and what is refused, all at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import ProblemsError
from agent.task.load import load_task
from agent.types import Rollouts
from tests.cases import each_case

HEAD = """
name = "shop"
description = "Answer questions of a shop."
signature = "question -> answer"
"""
AGENT = 'program = "agent.py:run"\n'
TEXTS = '[texts]\nplanner = "You plan."\n"tool:stock" = "What is left."\n'
SOURCE = "async def run(texts, row, model):\n    return row\n"


def folder(place: Path, toml: str, source: str = SOURCE) -> Path:
    for split in ("train", "dev", "test"):
        rows = [f'{{"id": "{split}{at}", "question": "{split} {at}?", "answer": "a{at}"}}' for at in range(3)]
        (place / f"{split}.jsonl").write_text("\n".join(rows), "utf-8")
    (place / "task.toml").write_text(HEAD + toml, "utf-8")
    (place / "agent.py").write_text(source, "utf-8")
    return place


def problems(place: Path, toml: str, source: str = SOURCE) -> str:
    with pytest.raises(ProblemsError) as refused:
        load_task(folder(place, toml, source))
    return str(refused.value)


def test_an_agent_is_named_by_its_function_and_its_texts_are_its_instruction(tmp_path: Path) -> None:
    task = load_task(folder(tmp_path, AGENT + TEXTS))
    assert task.rollouts == Rollouts("agent.py:run", kind="agent")
    assert dict(task.texts) == {"planner": "You plan.", "tool:stock": "What is left."}
    assert (task.program, task.instruction) == ("agent.py:run", "You plan.\n\nWhat is left.")
    assert "agent.py" in task.hashes, "a run that is resumed compares it"


def test_a_table_has_the_command_and_the_limits_of_a_row(tmp_path: Path) -> None:
    table = '[program]\ncommand = "node agent.js --quiet"\nseconds = "2m"\nmost_calls = 7\nat_once = 3\n'
    task = load_task(folder(tmp_path, TEXTS + table))
    assert task.rollouts == Rollouts("", "", ("node", "agent.js", "--quiet"), 120.0, 7, 3, kind="agent")
    assert task.program == "node agent.js --quiet"


def test_texts_may_be_files(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "planner.md").write_text("You plan\nwell.\n", "utf-8")
    (tmp_path / "texts" / "notes.json").write_text("{}", "utf-8")
    task = load_task(folder(tmp_path, AGENT))
    assert dict(task.texts) == {"planner": "You plan\nwell.\n"}
    assert "texts/planner.md" in task.hashes
    assert "both there" in problems(tmp_path, AGENT + TEXTS)
    (tmp_path / "texts" / "*.md").write_text("x", "utf-8")
    (tmp_path / "texts" / "empty.txt").write_text(" ", "utf-8")
    said = problems(tmp_path, AGENT)
    assert "texts/*.md:1: '*' is no name of a text" in said
    assert "texts/empty.txt:1: empty: is no text; write one" in said


@each_case(
    "toml, words",
    [
        (TEXTS, 'texts are those of an agent; name it, as program = "agent.py:run"'),
        ("", "task.toml:1: the key 'instruction' is missing; write it"),
        (AGENT, "the texts of the agent are missing"),
        (AGENT + 'instruction = "x"\n' + TEXTS, "an agent's instructions are its [texts]"),
        (AGENT + TEXTS + '[search]\nformats = ["turns"]\n', "an agent lays out its own prompts"),
        ('program = "other.py:run"\n' + TEXTS, "needs other.py in the task folder"),
        ('program = "agent.py:go"\n' + TEXTS, "no function go; write def go(texts, row, model), sync or async"),
        ("program = {seconds = 5}\n" + TEXTS, 'write either run = "agent.py:run" or command = "..."'),
        ('program = {run = "agent.py:run", command = "x"}\n' + TEXTS, "write either"),
        ("program = 5\n" + TEXTS, "or agent.py:run, or a table with it"),
        (AGENT + '[texts]\n"a/b" = "x"\n', "a name of at most 80 letters and digits, and its text"),
        (AGENT + '[texts]\na = ""\n', "texts.a = '' is empty; write it"),
        ('program = {command = "node \'a"}\n' + TEXTS, "no closing quotation; write it as in a shell"),
        ('program = {run = "agent.py:run", seconds = 0}\n' + TEXTS, "program.seconds = 0: write seconds above 0"),
        ('program = {runs = "agent.py:run"}\n' + TEXTS, "unknown key 'runs'; did you mean 'run'?"),
        (AGENT + TEXTS + "[tools]\n", "tools"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_line(
    tmp_path_factory: pytest.TempPathFactory, toml: str, words: str
) -> None:
    said = problems(tmp_path_factory.mktemp("task"), toml)
    assert words in said, said


def test_the_function_must_take_texts_row_and_model(tmp_path: Path) -> None:
    assert "run must take 3 arguments" in problems(tmp_path, AGENT + TEXTS, "def run(texts, row): ...")
