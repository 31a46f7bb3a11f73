"""promptfoo's tests as rows; nothing in them is run or opened."""

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
from tests.cases import each_case


def written(text: str, name: str = "promptfooconfig.yaml") -> Path:
    path = Path(name)
    path.write_text(text, "utf-8")
    return path


def test_tests_become_rows(here: Path) -> None:
    tests = [
        {"vars": {"message": "a: b\n{{x}}"}, "assert": [{"type": "equals", "value": "billing"}]},
        {"vars": {"message": 7}, "assert": [{"type": "equals", "value": "delivery"}]},
    ]
    path = written(f"prompts: [file://p.txt]\nproviders: [exec:rm]\ntests: {json.dumps(tests)}\n")
    rows = [{"message": "a: b\n{{x}}", "expected": "billing"}, {"message": "7", "expected": "delivery"}]
    assert promptfoo_tests(path) == (rows, None)
    table = written("message,__expected,__description\nhi,billing,x\nyo,equals: delivery,\nnote,team: b,\n", "t.csv")
    assert [row["expected"] for row in promptfoo_tests(table)[0]] == ["billing", "delivery", "team: b"]
    other = written("\ufeffsep=;\nmessage;__expected\nhi;billing\n", "s.csv")
    assert [row["expected"] for row in promptfoo_tests(other)[0]] == ["billing"]
    plain = written("message,label\n", "u.csv")
    assert [is_promptfoo(each) for each in (path, table, other, plain)] == [True, True, True, False]


def checked(checks: list[str], suffix: str) -> Path:
    rows = [(f"{check} of case {n} in words {n * 7} {n * 11}", check, f"Yes {n}") for n, check in enumerate(checks)]
    if suffix == "csv":
        cells = "".join(f"{message},{check}:{value}\n" for message, check, value in rows)
        return written(f"message,__expected\n{cells}", "t.csv")
    form = "  - vars: {{message: {}}}\n    assert:\n      - type: {}\n        value: {}\n"
    return written("tests:\n" + "".join(form.format(*row) for row in rows))


@each_case("suffix", ["csv", "yaml"])
@each_case(
    ("check", "line", "right", "wrong"),
    [
        ("equals", "metric: exact_match", "{}", "It is: {}"),
        ("contains", "metric: contains", "It is: {}", "yes"),
        ("icontains", "metric: contains, whatever the case", "yES {n}, I think", "no"),
    ],
)
def test_the_metric_means_what_the_tests_check(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, check: str, line: str, right: str, wrong: str
) -> None:
    path = checked([check] * 40, suffix)
    folder = tmp_path_factory.mktemp("t") / "t"
    task, reading = write_task(folder, path, EXPECTED, "Answer.", given=promptfoo_tests(path))
    assert line in list(reading.lines())
    (metric,), (row, *_) = build_metrics(task), task.dev

    def score(reply: str) -> float | None:
        said = reply.format(row.labels[EXPECTED], n=row.labels[EXPECTED].split()[1])
        return asyncio.run(metric.score(row, parse_reply(said, task.signature.outputs))).value

    assert (score(right), score(wrong)) == (1.0, 0.0)


def test_answers_that_a_reply_contains_are_texts_though_they_are_numbers(here: Path) -> None:
    cells = "".join(f"case {n} of {n * 37},contains:{n}\n" for n in range(40))
    path = written(f"message,__expected\n{cells}", "t.csv")
    task, _ = write_task("t", path, EXPECTED, "Answer.", given=promptfoo_tests(path))
    assert (task.signature.outputs[0].type, task.metrics[0].name) == ("text", "contains")


HEAD = "tests:\n  - vars:\n      message: hi\n    assert:\n"
CSV = "message,__expected\nhi,a\nyo,"
LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 13))


@each_case(
    ("text", "line", "what"),
    [
        (f"{HEAD}      - type: javascript\n        value: process.exit()\n", 2, "is not run"),
        (
            f"{HEAD}      - type: starts-with\n        value: x\n",
            2,
            "'starts-with' has no metric and is not run; use one of equals",
        ),
        (f"{HEAD}      - type: equals\n        value: file://x.txt\n", 2, "nothing outside the file is read"),
        (f"{HEAD}      - type: equals\n        value: !!python/object/apply:os.system [ls]\n", 2, "not plain text"),
        (f"{HEAD}      - {{type: equals, value: a}}\n      - {{type: equals, value: b}}\n", 2, "a list of one check"),
        (f"{HEAD}      - type: [equals]\n        value: x\n", 2, "type is not plain text"),
        (f"{HEAD}      - type: {{a: b}}\n        value: x\n", 2, "type is not plain text"),
        ("tests: file://tests.csv\n", 1, "not a list"),
        (f"{LAUGHS}tests: {{a: *a12}}\n", 1, "tests is a mapping, not a list"),
        (f"{LAUGHS}{HEAD}      - type: *a12\n        value: x\n", 15, "type is not plain text"),
        (f"{LAUGHS}tests:\n- *a12\n", 1, "a test needs vars"),
        ("tests:\n  - vars: {a: b}\n", 2, "a test needs vars and assert"),
        ("tests:\n  - vars: {a: b, a: c}\n    assert: [x]\n", 2, "a repeated key"),
        ("tests:\n  - vars: {expected: b}\n    assert: [x]\n", 2, "a variable is called expected"),
        ("defaultTest:\n  vars: {a: b}\ntests: []\n", 2, "defaultTest is not read"),
        ("tests:\n  - vars: {message: exec:ls}\n    assert: [{type: equals, value: a}]\n", 2, "nothing outside"),
        *(("tests: [\n", 2, "wrong YAML"), ("prompts: [x]\n", 1, "holds no tests"), ("[x]\n", 1, "not a mapping")),
        *((f"{CSV}{cell}\n", 3, "") for cell in ("javascript: 1", "fn: x", "file://a.js", "not-equals: a", "is-json:")),
        ("message,__expected,expected\nhi,a,b\n", 2, "a variable is called expected"),
        ("message,__expected,__prefix\nhi,a,b\n", 2, "the column '__prefix' is not read"),
    ],
)
def test_what_is_code_or_outside_is_refused_with_its_line(text: str, line: int, what: str) -> None:
    path = written(text, "t.csv" if text.startswith("message,") else "t.yaml")
    with pytest.raises(ProblemsError) as caught:
        promptfoo_tests(path)
    (problem,) = caught.value.problems
    assert problem.where == f"{path}:{line}"
    assert what in problem.what


@each_case(("suffix", "line"), [("csv", 4), ("yaml", 12)])
def test_checks_of_two_kinds_are_refused_at_the_first_odd_one(suffix: str, line: int) -> None:
    path = checked(["contains", "contains", "equals", "icontains"], suffix)
    with pytest.raises(ProblemsError, match=rf"\.{suffix}:{line}: the check is equals, and contains in line [24]; one"):
        promptfoo_tests(path)
