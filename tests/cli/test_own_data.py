"""A data file of the user from the first word to the result, and the tasks that ship with the package."""

import csv
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent.jobs.tasks import task_of as task_of_words
from agent.ledger.query import History
from agent.options.run import RecordedOptions
from agent.report.view import task_of
from agent.task.by_name import samples
from tests.cli.world import INSTRUCTION, files, good, good_json, learner, refused, write_csv, write_lines
from tests.scripted import Toys

MODEL = "openai-compatible/x@http://127.0.0.1:9/v1"


def dry(*arguments: str) -> dict[str, Any]:
    return good_json("run", *arguments, "-m", MODEL, "--max-calls", "300", "--dry-run")


def test_a_run_keeps_what_was_asked_and_all_that_shows_it_reads_the_same_task(toys: Toys) -> None:
    files(120)
    with Path("rows.csv").open(encoding="utf-8", newline="") as file:
        table = [row | {"stars": str(n % 5 + 1), "more": f"seen {n}"} for n, row in enumerate(csv.DictReader(file))]
    write_lines("rows.jsonl", table)
    words = ["rows.jsonl", "--target", "label", "--prompt", INSTRUCTION, "--ignore", "stars", "--input", "text"]
    command = ["run", *words, "-m", toys(learner).name, "-n", "1", "--max-calls", "120"]
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
    assert "--input needs a data file" in says[-1]
    other = good("init", "yours", "--from", "rows.csv", "--target", "label", "--metric", "token_f1", "--ignore", "id")
    assert "metric: token_f1, because --metric names it" in other.splitlines()
    assert 'name = "token_f1"' in Path("tasks/yours/task.toml").read_text("utf-8")


TASKS = Path(__file__).resolve().parents[2] / "tasks"


def test_samples_are_copied_whole_and_load() -> None:
    said = good("init", "--sample", "support_triage")
    assert (
        said
        == "wrote tasks/support_triage; look at tasks/support_triage/task.toml, then: optimize run support_triage\n"
    )
    copied = {path.name: path.read_bytes() for path in Path("tasks/support_triage").iterdir()}
    assert copied == {path.name: path.read_bytes() for path in (TASKS / "support_triage").iterdir()}
    assert sorted(path.name for path in Path("tasks").iterdir()) == ["support_triage", "task.schema.json"]
    assert [task["name"] for task in good_json("tasks")["tasks"]] == ["support_triage"]
    for name in {*samples()} - {"support_triage"}:
        good("init", "--sample", name)
    assert [task["name"] for task in good_json("tasks")["tasks"] if not task["problem"]] == samples()


def test_a_sample_that_cannot_be_copied_is_refused() -> None:
    (line,) = refused(2, "init", "--sample", "support_triag")
    assert "did you mean 'support_triage'?" in line
    assert "word_problems" in line
    assert "no sample of this name" in refused(2, "init", "--sample", "../support_triage")[0]
    for command in (["run", "support_triage"], ["support_triage"]):
        (line,) = refused(2, *command)
        assert "`optimize init --sample support_triage` copies" in line
    assert not Path("tasks").exists()
    Path("tasks/support_triage").mkdir(parents=True)
    assert "tasks/support_triage exists" in refused(2, "init", "--sample", "support_triage")[0]
    assert not list(Path("tasks/support_triage").iterdir())
    assert "give no NAME" in refused(2, "init", "mine", "--sample", "support_triage")[-1]
    assert "Missing argument 'NAME'" in refused(2, "init")[-1]
    assert "`optimize init mine FILE --target COLUMN`" in refused(2, "init", "mine")[-1]
    write_csv(Path("mine.csv"))
    assert "`optimize init NAME mine.csv --target COLUMN`" in refused(2, "init", "mine.csv")[-1]
    assert "give one of them" in refused(2, "init", "mine", "mine.csv", "--from", "other.csv")[-1]


def test_a_task_is_made_from_a_name_and_a_file() -> None:
    write_csv(Path("mine.csv"))
    good("init", "mine", "mine.csv", "--target", "label")
    good("init", "other", "--from", "mine.csv", "--target", "label")
    named, flagged = ((Path("tasks") / name / "test.jsonl").read_text() for name in ("mine", "other"))
    assert named == flagged


@pytest.mark.parametrize("prompt", ["Answer.", "Sort:{{text}}", "Spam?"])
def test_a_prompt_of_one_word_is_no_file(prompt: str) -> None:
    write_csv(Path("mine.csv"))
    assert "nothing was called" in good("run", "mine.csv", "--target", "label", "--prompt", prompt, "--dry-run")
    assert "cannot be read" in refused(2, "run", "mine.csv", "--target", "label", "--prompt", "prompt")[-1]
