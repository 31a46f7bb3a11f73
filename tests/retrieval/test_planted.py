"""Whole runs on planted tasks: picked examples are found where they pay, released, and left alone where they do not."""

import random
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import promptassay as pa
from agent.release.runtime import MESSAGES_FILE, load_prompt
from tests.cli.world import compatible
from tests.wire import WireServer

LABELS = ("north", "south", "east", "west")
TOPICS = [f"{a}{b}{c}ers" for a in "bcdfglmnpr" for b in "aeiou" for c in ("lt",)]
FILLER = re.findall(r"\w+", "please send our order on time as the customer has been waiting for weeks already")
PROMPT = "Answer with the region: north, south, east or west."


def rows(count: int, *, planted: bool, seed: int = 3) -> list[dict[str, str]]:
    """Each row names one of 50 goods; where the task is planted its label follows from that, else from nothing."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        topic = TOPICS[number % len(TOPICS)]
        words = [topic, *rng.sample(FILLER, 7), f"n{number}"]
        rng.shuffle(words)
        label = LABELS[number % len(TOPICS) * 7 % 4] if planted else rng.choice(LABELS)
        made.append({"text": " ".join(words), "label": label})
    rng.shuffle(made)
    return made


def copier(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
    """Answers as the last demo about the same goods, else with the first label."""
    goods = set(re.findall(r"\w+", messages[-1]["content"].split("Text:")[-1])) & set(TOPICS)
    answer = LABELS[0]
    for user, assistant in pairwise(messages):
        if user["role"] == "user" and assistant["role"] == "assistant" and goods & set(user["content"].split()):
            answer = assistant["content"].removeprefix("Label:").strip()
    return answer


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(table: list[dict[str, str]], **more: Any) -> Any:
    with WireServer(copier) as server:
        return pa.optimize(
            table, target="label", prompt=PROMPT, model=compatible(server), proposer="none", max_calls=700, **more
        )


def test_picked_examples_are_found_released_and_pick_the_same(here: Path) -> None:
    result = run(rows(400, planted=True), name="planted")
    assert result.decision == "promote"
    assert result.winner.test > 0.9
    prompt = result.release.load()
    assert prompt.release.picks is not None
    assert prompt.version == load_prompt(result.release.path.with_name(MESSAGES_FILE)).version
