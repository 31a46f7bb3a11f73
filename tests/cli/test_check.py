"""`optimize audit check` is content with a real run, and names what is wrong in one whose records were made up."""

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.ledger.checks import copied_answers
from agent.ledger.store import Ledger, NewCandidate, Reservation
from agent.prompt.prompt_candidate import PromptCandidate
from agent.task.from_file import task_from_file
from agent.types import Completion, Demo, Example, Outcome, Prediction, Score, Task, Trial, Usage
from tests.cli.world import INSTRUCTION, compatible, files, good, good_json, learner, optimize
from tests.conftest import Made
from tests.ledger.ledgers import read
from tests.toys import ask, make_task
from tests.wire import Fault, WireServer

DB = Path("runs/ledger.db")
CALLS = 200
"""The cap of the recorded run."""
Forge = Callable[[Ledger, str, Task], None]


def problems(*arguments: str) -> dict[str, list[str]]:
    result = optimize("audit", "check", *arguments, "--json")
    answer = json.loads(result.stdout)
    wrong = {check["check"]: check["found"] for check in answer["checks"] if check["ok"] is False}
    assert answer["holds"] == (not wrong) == (result.exit_code == 0)
    return wrong


def add(ledger: Ledger, run_id: str, candidate: PromptCandidate) -> None:
    ledger.add_candidate(run_id, NewCandidate(9, candidate.shown(), (), "forged"))


def demo_of_a_test_row(ledger: Ledger, run_id: str, task: Task) -> None:
    row = task.test[0]
    add(ledger, run_id, few_shot(Demo(row.id, {"text": "other words"}, {"label": "billing"})))


def demo_that_reads_like_a_dev_row(ledger: Ledger, run_id: str, task: Task) -> None:
    text = task.dev[0].inputs["text"]
    add(ledger, run_id, few_shot(Demo("mine", {"text": f"  {text.upper()} "}, {"label": "billing"})))


def few_shot(demo: Demo) -> PromptCandidate:
    return PromptCandidate("few-shot", "turns", INSTRUCTION, demos=(demo,))


def instruction_with_a_test_row(ledger: Ledger, run_id: str, task: Task) -> None:
    words = task.test[3].inputs["text"].split()[2:7]
    add(ledger, run_id, PromptCandidate("zero-shot", "turns", f"Mind that «{', '.join(words)}» is repair."))


def second_opening(ledger: Ledger, run_id: str, task: Task) -> None:
    ledger.event(run_id, "test_opened", {"winner": "c", "baseline": "c", "rows": 2})


def failure_scored_as_zero(ledger: Ledger, run_id: str, task: Task) -> None:
    put(ledger, run_id, "never-seen", 0.0, "k_none")


def score_out_of_nothing(ledger: Ledger, run_id: str, task: Task) -> None:
    put(ledger, run_id, "never-seen", 1.0, "k_none")


def row_without_a_reason(ledger: Ledger, run_id: str, task: Task) -> None:
    put(ledger, run_id, "never-seen", None, "")


def put(ledger: Ledger, run_id: str, row: str, value: float | None, key: str) -> None:
    """An outcome on train, whose rows make no trial's mean."""
    made = Prediction({"label": "billing"}, "billing")
    ledger.put_outcome(run_id, "train", Outcome("c_0", row, made, (Score("choice", value),), value, key))


def trial_with_another_mean(ledger: Ledger, run_id: str, task: Task) -> None:
    row = "SELECT candidate_id, n FROM trials WHERE number = 1 AND run_id = ?"
    candidate, n = ledger.db.execute(row, (run_id,)).fetchone()
    ledger.put_trial(run_id, Trial(1, 1, candidate, "pruned", n, 0.123, (0.0, 1.0), "forged"))


def trial_with_more_rows(ledger: Ledger, run_id: str, task: Task) -> None:
    row = "SELECT candidate_id, n, mean FROM trials WHERE number = 1 AND run_id = ?"
    candidate, n, mean = ledger.db.execute(row, (run_id,)).fetchone()
    ledger.put_trial(run_id, Trial(1, 1, candidate, "pruned", n + 1, mean, (0.0, 1.0), "forged"))


def call_left_open(ledger: Ledger, run_id: str, task: Task) -> None:
    asyncio.run(ledger.reserve(Reservation(run_id, "model", "m", "k", "", 1, ask("x"), 0.0, 0)))


def one_call_beyond_the_cap(ledger: Ledger, run_id: str, task: Task) -> None:
    (paid,) = ledger.db.execute("SELECT COUNT(*) FROM calls WHERE run_id = ? AND state = 'ok'", (run_id,)).fetchone()

    async def buy() -> None:
        for number in range(paid, CALLS + 1):
            call = await ledger.reserve(Reservation(run_id, "model", "m", f"k{number}", "", 1, ask("x"), 0.0, 10))
            await ledger.settle(run_id, call, Completion("x", "stop", Usage(1, 1), "m"), 0.0, 0.1)

    asyncio.run(buy())


NO_MEAN = "each trial's score is the mean of its rows"
CASES: list[tuple[Forge, set[str]]] = [
    (demo_of_a_test_row, {"no example is a dev or test row"}),
    (demo_that_reads_like_a_dev_row, {"no example reads like a dev or test row"}),
    (instruction_with_a_test_row, {"no instruction contains text of a dev or test row"}),
    (second_opening, {"the test was opened once"}),
    (failure_scored_as_zero, {"no failed call is scored as 0", "each score has its call"}),
    (score_out_of_nothing, {"each score has its call"}),
    (row_without_a_reason, {"each row without a score says why"}),
    (trial_with_another_mean, {NO_MEAN}),
    (trial_with_more_rows, {NO_MEAN}),
    (call_left_open, {"each call has an outcome"}),
    (one_call_beyond_the_cap, {"no cap was passed at any moment", "calls, tokens and $ add up"}),
]


@pytest.mark.parametrize(("forge", "expected"), CASES, ids=[forge.__name__ for forge, _ in CASES])
def test_each_defect_is_found_and_nothing_else(names: Mapping[str, str], forge: Forge, expected: set[str]) -> None:
    run, (task, _) = names["search"], task_from_file("rows.csv", "label", INSTRUCTION, 0)
    ledger = Ledger(DB)
    forge(ledger, run, task)
    ledger.flush()
    assert set(problems(run)) == expected  # before the ledger is opened again and closes what is open
    ledger.close()


def test_a_model_that_is_gone_leaves_nothing_out() -> None:
    script = Path("proposer.jsonl")
    script.write_text('{"reply": "Name the team."}\n', "utf-8")
    with WireServer(learner) as server:
        good(*files(60), "-m", compatible(server), "--proposer", f"scripted/{script}", "-n", "1", "--max-calls", "100")
    script.unlink()
    assert {check["ok"] for check in good_json("audit", "check")["checks"]} == {True}


def test_what_needs_the_rows_is_left_out_when_they_changed(two_runs: Made) -> None:
    Path("rows.csv").write_text(Path("rows.csv").read_text().replace("invoice", "bill"))
    checks = {check["check"]: check for check in good_json("audit", "check")["checks"]}
    left_out = {name for name, check in checks.items() if check["ok"] is None}
    assert left_out == {"no example reads like a dev or test row", "no instruction contains text of a dev or test row"}
    assert all("the rows changed since: rows.csv" in checks[name]["found"][0] for name in left_out)
    Path("rows.csv").unlink()
    assert "the task cannot be loaded" in good("audit", "check")


def test_a_run_with_refused_rows_and_failures_holds() -> None:
    def flaky(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
        seed = sum(messages[-1]["content"].encode())
        if seed % 11 == 0:
            return Fault(400, body={"error": {"message": "too long", "code": "context_length_exceeded"}})
        return learner(messages, body)

    command = files(120)
    with WireServer(flaky) as server:
        good_json(*command, "-m", compatible(server), "--max-calls", "150", "--max-tokens", "60000", "-q")
    assert read(DB, "SELECT COUNT(*) FROM outcomes WHERE value IS NULL")[0][0] > 0
    assert problems() == {}


TEXTS = st.lists(st.sampled_from("abc"), max_size=9).map(" ".join)


@given(*[st.lists(TEXTS, max_size=4)] * 4, TEXTS)
def test_copied_words_are_those_of_no_other_text(
    train: list[str], dev: list[str], test: list[str], instructions: list[str], own: str
) -> None:
    def grams(text: str) -> list[str]:
        return [text[at : at + 9] for at in range(0, len(text) - 8, 2)]

    splits = {"train": train, "dev": dev, "test": test}
    rows = {
        split: tuple(Example(f"{split}{n}", {"message": text}, {"team": ""}) for n, text in enumerate(texts))
        for split, texts in splits.items()
    }
    said = [f"«{', '.join(text.upper().split())}»" for text in instructions]
    candidates = [{"id": f"c{n}", "role": "", "instruction": text} for n, text in enumerate(said)]
    found = copied_answers(candidates, make_task(instruction=own, **rows)).found
    known = {gram for text in (own, *train) for gram in grams(text)}
    sources = {
        gram: f"{split} row {split}{n}"
        for split in ("dev", "test")
        for n, text in enumerate(splits[split])
        for gram in grams(text)
    }
    copied = [[gram for gram in grams(text) if gram in sources.keys() - known] for text in instructions]
    wrong = [(n, each[0]) for n, each in enumerate(copied) if each]
    assert found == tuple(f"c{n}: holds {gram!r} of the {sources[gram]}" for n, gram in wrong)
