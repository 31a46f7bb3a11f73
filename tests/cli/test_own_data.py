"""A data file of the user from the first word to the result: how it is scored, its options, its formats, its prompt."""

import csv
import json
from contextlib import closing
from pathlib import Path
from typing import Any

from agent.jobs.tasks import task_of as task_of_words
from agent.ledger.query import History
from agent.options.jobs import RecordedOptions
from agent.report.view import task_of
from tests.cli.world import INSTRUCTION, compatible, files, good, good_json, learner, refused
from tests.wire import WireServer

MODEL = "openai-compatible/x@http://127.0.0.1:9/v1"


def rows() -> list[dict[str, str]]:
    files(120)
    with Path("rows.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def dry(*arguments: str) -> dict[str, Any]:
    return good_json("run", *arguments, "-m", MODEL, "--max-calls", "300", "--dry-run")


def test_a_run_keeps_what_was_asked_and_all_that_shows_it_reads_the_same_task() -> None:
    table = [row | {"stars": str(number % 5 + 1), "more": f"seen {number}"} for number, row in enumerate(rows())]
    Path("rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in table), "utf-8")
    words = ["rows.jsonl", "--target", "label", "--prompt", INSTRUCTION, "--ignore", "stars", "--input", "text"]
    with WireServer(learner) as server:
        command = ["run", *words, "-m", compatible(server), "-n", "1", "--max-calls", "120"]
        result = good_json(*command, "--metric", "exact_match,ignore_case=true")
    assert [each["metric"] for each in result["metrics"]] == ["readable", "exact_match"]
    with closing(History(Path("runs/ledger.db"))) as history:
        run = history.run(result["run_id"])
    assert [run["options"][name] for name in ("input", "ignore")] == [["text"], ["stars"]]
    assert set(run["options"]) == set(RecordedOptions.model_fields)
    assert task_of(run) == task_of_words(RecordedOptions.of(run["options"]))
    assert [field.name for field in task_of(run).signature.inputs] == ["text"]
    assert "exact_match" in good("show", result["run_id"])


def test_a_task_folder_can_be_scored_by_another_metric() -> None:
    files(120)
    init = good("init", "mine", "--from", "rows.csv", "--target", "label", "--prompt", "Name the team.")
    assert "metric: choice, because the answers are 4 labels" in init.splitlines()
    assert dry("mine")["metrics"] == ["choice"]
    assert dry("mine", "--metric", "exact_match")["metrics"] == ["exact_match"]
    says = refused(2, "run", "mine", "-m", MODEL, "--metric", "numeric", "--dry-run")
    assert "--metric numeric: scores number, and label is choice" in says[-1]
    says = refused(2, "run", "mine", "-m", MODEL, "--input", "text", "--dry-run")
    assert "go with a data file" in says[-1]
    other = good("init", "yours", "--from", "rows.csv", "--target", "label", "--metric", "token_f1", "--ignore", "id")
    assert "metric: token_f1, because --metric names it" in other.splitlines()
    assert 'name = "token_f1"' in Path("tasks/yours/task.toml").read_text("utf-8")
