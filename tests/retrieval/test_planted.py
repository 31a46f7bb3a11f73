"""Whole runs on planted tasks: picked examples are found where they pay, released, and left alone where they do not."""

import random
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import promptassay as pa
from agent.prompt.parts.picks import PickedDemos
from agent.release.runtime import load_prompt
from tests.cli.world import compatible, good, good_json
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


def run(table: list[dict[str, str]], **more: Any) -> Any:
    with WireServer(copier) as server:
        return pa.optimize(
            table, target="label", prompt=PROMPT, model=compatible(server), proposer="none", max_calls=700, **more
        )


def test_picked_examples_are_found_released_exported_and_pick_the_same(here: Path) -> None:
    result = run(rows(400, planted=True), name="planted")
    assert (result.decision, result.winner.test > 0.9) == ("promote", True)
    prompt = result.release.load()
    picks = prompt.release.part(PickedDemos)
    assert picks is not None
    assert result.winner.picks == result.to_json()["winner"]["picks"] == picks.picks.as_dict()
    (part,) = [each for each in result.attribution if each.part == "picked examples"]
    assert (part.how, part.ci95[0] > 10) == ("measured", True)
    found = good_json("export", result.run_id, "--format", "python", "--format", "md", "-o", "out")
    for form in found["formats"]:  # the export sends for each dev row the very call of the run
        assert form["dev"]["rows"] >= 50
        assert form["dev"]["score"] == pytest.approx(result.winner.dev)
    good("promote", result.run_id)
    message = f"please send {TOPICS[5]} to us"
    loaded = load_prompt(f"{result.task}@production")
    assert loaded.render(text=message) == prompt.render(text=message)
    assert len(loaded.render(text=message)) >= 2 + 2 * result.winner.picks["k"]
    good("reproduce", result.run_id)
    with WireServer(copier) as server:
        moved = good_json("transfer", result.run_id, "--models", compatible(server), "--top", "1", "-q")
    own, other = moved["models"]
    assert [cell["mean"] for cell in other["scores"]] == [cell["mean"] for cell in own["scores"]]


@pytest.mark.long
def test_where_labels_follow_from_nothing_no_picks_are_chosen(here: Path) -> None:
    for seed in range(3):
        result = run(rows(200, planted=False, seed=seed), name=f"noise{seed}", seed=seed)
        assert result.winner.picks is None


def test_picks_can_be_switched_off(here: Path) -> None:
    """That they need 24 train rows is held in tests/programs/moves/test_pool.py."""
    result = run(rows(90, planted=True), name="off", trials=3, retrieval=False)
    assert result.winner.picks is None
    assert "picked for each input" not in good("history", result.run_id, "--json")
