"""Whole runs on planted tasks: picked examples are found where they pay, released, and left alone where they do not."""

import random
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import promptassay as pa
from agent.release.runtime import MESSAGES_FILE, load_prompt
from tests.cli.world import compatible, good, good_json, refused
from tests.wire import Fault, WireServer

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
    assert result.winner.picks == result.to_json()["winner"]["picks"] == prompt.release.picks.picks.as_dict()
    assert f"{result.winner.picks['k']} picked for each input by" in good("show", result.run_id)
    assert prompt.version == load_prompt(result.release.path.with_name(MESSAGES_FILE)).version
    (part,) = [each for each in result.attribution if each.part == "picked examples"]
    assert part.how == "measured"
    assert part.ci95[0] > 10


def test_what_a_run_released_is_exported_scored_again_and_tried_on_another_model(here: Path) -> None:
    result = run(rows(400, planted=True), name="planted")
    found = good_json("export", result.run_id, "--format", "python", "--format", "md", "-o", "out")
    for form in found["formats"]:  # the export sends for each dev row the very call of the run
        assert form["dev"]["rows"] >= 50
        assert form["dev"]["score"] == pytest.approx(result.winner.dev)
    assert "cannot pick examples for each input" in refused(1, "export", result.run_id, "--format", "llm")[0]
    good("promote", result.run_id)
    message = f"please send {TOPICS[5]} to us"
    loaded = load_prompt(f"{result.task}@production")
    assert loaded.version == result.release.load().version
    assert loaded.render(text=message) == result.release.load().render(text=message)
    assert len(loaded.render(text=message)) >= 2 + 2 * result.winner.picks["k"]
    good("reproduce", result.run_id)
    good("audit", "verify")
    good("report", result.run_id, "-o", "report.html")
    page = Path("report.html").read_text("utf-8")
    assert "{{picked examples}}" in page
    Path("new.csv").write_text(f"text\n{message}\n", "utf-8")
    with WireServer(copier) as server:
        words = ["-m", compatible(server), "-o", "answers.csv", "-q"]
        good("apply", f"{result.task}@production", "new.csv", *words)
    assert Path("answers.csv").read_text("utf-8").splitlines()[1].startswith(f"{message},{LABELS[5 * 7 % 4]}")
    with WireServer(copier) as server:
        moved = good_json("transfer", result.run_id, "--models", compatible(server), "--top", "1", "-q")
    own, other = moved["models"]
    assert [cell["mean"] for cell in other["scores"]] == [cell["mean"] for cell in own["scores"]]
    assert other["scores"][1]["mean"] == pytest.approx(result.winner.dev)


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(here: Path) -> None:
    table = rows(200, planted=True)
    whole = run(table, name="whole", cache=False)
    asked = 0

    def stopping(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
        nonlocal asked
        asked += 1
        return Fault(401, body={"error": {"message": "no such key"}}) if 260 < asked < 400 else copier(messages, body)

    with WireServer(stopping) as server:
        words: dict[str, Any] = {"target": "label", "prompt": PROMPT, "proposer": "none", "max_calls": 700}
        few: dict[str, Any] = {"cache": False, "max_concurrency": 2}  # what flies at the stop takes from the calls
        with pytest.raises(pa.AgentError) as caught:
            pa.optimize(table, name="whole", model=compatible(server), **few, **words)
        asked = 1000
        resumed = pa.resume(caught.value.run_id, max_concurrency=16)
    assert whole.winner.picks is not None
    assert resumed.winner == whole.winner
    assert resumed.trials == whole.trials
    assert [part.part for part in resumed.attribution] == [part.part for part in whole.attribution]


@pytest.mark.long
def test_where_labels_follow_from_nothing_no_picks_are_chosen(here: Path) -> None:
    for seed in range(3):
        result = run(rows(200, planted=False, seed=seed), name=f"noise{seed}", seed=seed)
        assert result.winner.picks is None


def test_picks_can_be_switched_off_and_need_24_train_rows(here: Path) -> None:
    off = run(rows(200, planted=True), name="off", retrieval=False)
    few = run(rows(200, planted=True), name="few", limit=(23, 60, 60))
    assert (off.winner.picks, few.winner.picks) == (None, None)
    assert "picked for each input" not in good("history", off.run_id, "--json") + good("history", few.run_id, "--json")
    assert "picked for each input" in good("history", run(rows(200, planted=True), name="on").run_id, "--json")
