"""Metrics score the right answers before the first call, so that one that cannot be right is noticed."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import promptassay as pa
from agent.errors import InputError
from agent.jobs.metric_check import check_metrics
from agent.task.load import load_task
from tests.api.test_optimize import SMALL, table
from tests.cases import each_case
from tests.cli.world import INSTRUCTION, good, learner, refused
from tests.scripted import Toy, Toys


def run(metric: Callable[[Any, Any], Any], toy: Toy) -> Any:
    return pa.optimize(table(), target="label", prompt=INSTRUCTION, metric=metric, model=toy.name, **SMALL)


def test_a_function_that_scores_no_right_answer_is_refused_before_the_first_call(toys: Toys) -> None:
    def swapped(first: Any, second: Any) -> float:  # meant for the answer and the label
        return float(first == second)

    model = toys(learner)
    with pytest.raises(InputError) as error:
        run(swapped, model)
    assert not model.seen
    assert "metric swapped: 20 right answers tried, and it scores 0 or nothing for each: row 'r" in str(error.value)
    assert str(error.value).endswith(
        "it is called as swapped(row, answer): the row with its columns and labels, then the answer"
    )
    assert not Path("runs/ledger.db").exists()


def test_a_function_that_fails_on_right_answers_is_refused_with_its_error(toys: Toys) -> None:
    def fails(row: dict[str, Any], answer: str) -> float:
        return float(row["gold"] == answer)

    with pytest.raises(InputError, match=r"no score \(fails:\d+: KeyError: 'gold'\)"):
        run(fails, toys(learner))


@each_case("names", ["answer, row", "expected, answer", "first, row", "label, answer"])
def test_arguments_in_another_order_are_told_by_their_names(names: str) -> None:
    made: dict[str, Any] = {}
    exec(f"def judged({names}): return 1.0", made)
    with pytest.raises(InputError, match=r"write def judged\(row, answer\)"):
        pa.metric("judged")(made["judged"])


def test_a_function_with_less_than_full_marks_is_told_and_runs(toys: Toys, caplog: pytest.LogCaptureFixture) -> None:
    def strict(row: dict[str, Any], answer: str) -> float:
        return 0.8 * (answer == row["label"])

    with caplog.at_level(logging.INFO):
        result = run(strict, toys(learner))
    assert result.winner.test is not None
    assert "metric strict: gives 20 of 20 right answers less than full marks: row 'r" in caplog.text


def test_a_metric_file_that_scores_no_right_answer_is_refused_by_a_dry_run_too() -> None:
    good("init", "--sample", "support_triage")
    file = Path("tasks/support_triage/task.toml")
    head, _, tail = file.read_text("utf-8").partition("[[metrics]]\n")
    file.write_text(f'{head}[[metrics]]\nname = "python"\n{tail[tail.index(chr(10)) + 1 :]}', "utf-8")
    text = "def metric(example, prediction):\n    return float(prediction['fields']['team'] == example)\n"
    Path("tasks/support_triage/metric.py").write_text(text, "utf-8")
    said = " ".join(refused(2, "run", "support_triage", "--dry-run"))
    assert "metric python: 20 right answers tried, and it scores 0 or nothing for each" in said
    assert "it is called as metric(example, prediction): example['labels'], then prediction['fields']" in said
    Path("tasks/support_triage/metric.py").write_text(
        text.replace("example)\n", "example['labels']['team'])\n"), "utf-8"
    )
    good("run", "support_triage", "--dry-run")


TASKS = Path(__file__).parents[2] / "tasks"
FULL = "support_triage clinic_intake word_problems home_assistant home_agent bank_answers clinic_desk skill_choice"


@each_case("name", FULL.split())
def test_the_metrics_of_the_shipped_tasks_give_full_marks(name: str) -> None:
    said: list[str] = []
    check_metrics(load_task(TASKS / name), said.append)
    assert said == []
