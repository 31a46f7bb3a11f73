"""Promptfoo's tests as rows; nothing in them is run or opened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.errors import ProblemsError
from agent.task.promptfoo import is_promptfoo, promptfoo_rows


def written(folder: Path, text: str, name: str = "promptfooconfig.yaml") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def test_yaml_tests_become_rows(tmp_path: Path) -> None:
    tests = [
        {"vars": {"message": "a: b\n{{x}}"}, "assert": [{"type": "equals", "value": "billing"}]},
        {"vars": {"message": 7}, "assert": [{"type": "icontains", "value": "delivery"}]},
    ]
    path = written(tmp_path, f"prompts: [file://p.txt]\nproviders: [exec:rm]\ntests: {json.dumps(tests)}\n")
    assert is_promptfoo(path)
    assert promptfoo_rows(path) == [
        {"message": "a: b\n{{x}}", "expected": "billing"},
        {"message": "7", "expected": "delivery"},
    ]


def test_csv_tests_become_rows(tmp_path: Path) -> None:
    text = "message,__expected,__description\nhi,billing,x\nyo,equals: delivery,\nnote: a,team: b,\n"
    path = written(tmp_path, text, "t.csv")
    assert is_promptfoo(path)
    assert [row["expected"] for row in promptfoo_rows(path)] == ["billing", "delivery", "team: b"]
    assert not is_promptfoo(written(tmp_path, "message,label\n", "u.csv"))
    path = written(tmp_path, "\ufeffsep=;\nmessage;__expected\nhi;billing\n", "s.csv")
    assert is_promptfoo(path)
    assert [row["expected"] for row in promptfoo_rows(path)] == ["billing"]


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
        promptfoo_rows(written(tmp_path, text))
    assert len(caught.value.problems) == 1
    assert f".yaml:{line}: " in str(caught.value)
    assert what in str(caught.value)


@pytest.mark.parametrize("header", ["message,__expected,expected", "message,expected,__expected"])
def test_a_csv_variable_that_is_called_as_the_right_answers_is_refused(tmp_path: Path, header: str) -> None:
    with pytest.raises(ProblemsError, match="a variable is called expected"):
        promptfoo_rows(written(tmp_path, f"{header}\nhi,a,b\n", "t.csv"))


@pytest.mark.parametrize(
    "cell", ["javascript: 1", "fn: x", "python: y", "file://a.js", "not-equals: a", "is-json:", "grade: ok"]
)
def test_a_csv_cell_that_is_no_right_answer_is_refused_with_its_line(tmp_path: Path, cell: str) -> None:
    with pytest.raises(ProblemsError, match=r"t\.csv:3"):
        promptfoo_rows(written(tmp_path, f"message,__expected\nhi,a\nyo,{cell}\n", "t.csv"))
