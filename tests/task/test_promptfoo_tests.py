"""Promptfoo's tests as rows; nothing in them is run or opened."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from agent.errors import ProblemsError
from agent.prompt.reply_parser import parse_reply
from agent.scoring.task_metrics import build_metrics
from agent.task.from_file import write_task
from agent.task.promptfoo_tests import EXPECTED, is_promptfoo, promptfoo_tests


def written(folder: Path, text: str, name: str = "promptfooconfig.yaml") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def test_yaml_tests_become_rows(tmp_path: Path) -> None:
    tests = [
        {"vars": {"message": "a: b\n{{x}}"}, "assert": [{"type": "equals", "value": "billing"}]},
        {"vars": {"message": 7}, "assert": [{"type": "equals", "value": "delivery"}]},
    ]
    path = written(tmp_path, f"prompts: [file://p.txt]\nproviders: [exec:rm]\ntests: {json.dumps(tests)}\n")
    assert is_promptfoo(path)
    assert promptfoo_tests(path) == (
        [{"message": "a: b\n{{x}}", "expected": "billing"}, {"message": "7", "expected": "delivery"}],
        None,
    )


def test_csv_tests_become_rows(tmp_path: Path) -> None:
    text = "message,__expected,__description\nhi,billing,x\nyo,equals: delivery,\nnote: a,team: b,\n"
    path = written(tmp_path, text, "t.csv")
    assert is_promptfoo(path)
    assert [row["expected"] for row in promptfoo_tests(path)[0]] == ["billing", "delivery", "team: b"]
    assert not is_promptfoo(written(tmp_path, "message,label\n", "u.csv"))
    path = written(tmp_path, "\ufeffsep=;\nmessage;__expected\nhi;billing\n", "s.csv")
    assert is_promptfoo(path)
    assert [row["expected"] for row in promptfoo_tests(path)[0]] == ["billing"]


def checked(folder: Path, checks: list[str], suffix: str) -> Path:
    """A test for each of `checks`, each with an answer of its own."""
    rows = [
        (f"{check} of case {n} in words {n * 7} {n * 11} {n * 13}", check, f"Yes {n}") for n, check in enumerate(checks)
    ]
    if suffix == "csv":
        cells = "".join(f"{message},{check}:{value}\n" for message, check, value in rows)
        return written(folder, f"message,__expected\n{cells}", "t.csv")
    blocks = [
        f"  - vars: {{message: {message}}}\n    assert:\n      - type: {check}\n        value: {value}\n"
        for message, check, value in rows
    ]
    return written(folder, "tests:\n" + "".join(blocks))


@pytest.mark.parametrize("suffix", ["csv", "yaml"])
@pytest.mark.parametrize(
    ("check", "line", "right", "wrong"),
    [
        ("equals", "metric: exact_match", "{}", "It is: {}"),
        ("contains", "metric: contains", "It is: {}", "yes"),
        ("icontains", "metric: contains, whatever the case", "yES {n}, I think", "no"),
    ],
)
def test_the_metric_means_what_the_tests_check(
    here: Path, suffix: str, check: str, line: str, right: str, wrong: str
) -> None:
    path = checked(here, [check] * 40, suffix)
    task, reading = write_task("tasks/t", path, EXPECTED, "Answer.", given=promptfoo_tests(path))
    assert line in list(reading.lines())
    (metric,), (row, *_) = build_metrics(task), task.dev

    def score(reply: str) -> float | None:
        said = reply.format(row.labels[EXPECTED], n=row.labels[EXPECTED].split()[1])
        return asyncio.run(metric.score(row, parse_reply(said, task.signature.outputs))).value

    assert (score(right), score(wrong)) == (1.0, 0.0)


def test_answers_that_a_reply_contains_are_texts_though_they_are_numbers(here: Path) -> None:
    path = written(
        here, "message,__expected\n" + "".join(f"case {n} of {n * 37},contains:{n}\n" for n in range(40)), "t.csv"
    )
    task, reading = write_task("t", path, EXPECTED, "Answer.", given=promptfoo_tests(path))
    assert reading.targets[0].rule.type == task.signature.outputs[0].type == "text"
    assert [(each.name, dict(each.options)) for each in task.metrics] == [("contains", {})]


@pytest.mark.parametrize(("suffix", "line"), [("csv", 4), ("yaml", 12)])
def test_checks_of_two_kinds_are_refused_at_the_first_odd_one(tmp_path: Path, suffix: str, line: int) -> None:
    path = checked(tmp_path, ["contains", "contains", "equals", "icontains"], suffix)
    with pytest.raises(
        ProblemsError, match=rf"\.{suffix}:{line}: the check is equals, and contains in line [24]; one"
    ) as caught:
        promptfoo_tests(path)
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("suffix", ["csv", "yaml"])
def test_a_check_that_no_metric_means_is_refused(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(ProblemsError, match="'starts-with' has no metric; use one of equals, contains"):
        promptfoo_tests(checked(tmp_path, ["starts-with"], suffix))


HEAD = "tests:\n  - vars:\n      message: hi\n    assert:\n"


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        (f"{HEAD}      - type: javascript\n        value: process.exit()\n", 5, "is not run"),
        (f"{HEAD}      - type: python\n        value: file://x.py\n", 5, "is not run"),
        (f"{HEAD}      - type: equals\n        value: file://x.txt\n", 6, "nothing outside the file is read"),
        (f"{HEAD}      - type: equals\n        value: !!python/object/apply:os.system [ls]\n", 6, "not plain text"),
        (f"{HEAD}      - {{type: equals, value: a}}\n      - {{type: equals, value: b}}\n", 5, "a list of one check"),
        ("tests: file://tests.csv\n", 1, "not a list"),
        ("defaultTest:\n  vars: {a: b}\ntests: []\n", 2, "defaultTest is not read"),
        ("tests:\n  - vars: {message: exec:ls}\n    assert: [{type: equals, value: a}]\n", 2, "nothing outside"),
        ("tests: [\n", 2, "wrong YAML"),
        ("prompts: [x]\n", 1, "holds no tests"),
    ],
)
def test_what_is_code_or_lies_outside_is_refused_with_its_line(tmp_path: Path, text: str, line: int, what: str) -> None:
    with pytest.raises(ProblemsError) as caught:
        promptfoo_tests(written(tmp_path, text))
    assert len(caught.value.problems) == 1
    assert f".yaml:{line}: " in str(caught.value)
    assert what in str(caught.value)


@pytest.mark.parametrize("header", ["message,__expected,expected", "message,expected,__expected"])
def test_a_csv_variable_that_is_called_as_the_right_answers_is_refused(tmp_path: Path, header: str) -> None:
    with pytest.raises(ProblemsError, match="a variable is called expected"):
        promptfoo_tests(written(tmp_path, f"{header}\nhi,a,b\n", "t.csv"))


@pytest.mark.parametrize(
    "cell", ["javascript: 1", "fn: x", "python: y", "file://a.js", "not-equals: a", "is-json:", "grade: ok"]
)
def test_a_csv_cell_that_is_no_right_answer_is_refused_with_its_line(tmp_path: Path, cell: str) -> None:
    with pytest.raises(ProblemsError, match=r"t\.csv:3"):
        promptfoo_tests(written(tmp_path, f"message,__expected\nhi,a\nyo,{cell}\n", "t.csv"))
