"""promptfoo tests as rows: `tests` of a promptfooconfig.yaml, or a CSV with `__expected`.

YAML is read with the safe loader, and nothing in it is run or opened. Assertions that are code, `file://` references
and checks without a right answer are refused with their line.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from agent.safe_data import YAML, YAML_NODES, TooMuch, more_than
from agent.safe_file import OutsideFile
from agent.safe_text import listed, quoted
from agent.task.tables import DataFile
from agent.types import MetricSpec

EXPECTED = "expected"
"""The column of the right answers."""
_METRICS = {
    "equals": None,
    "contains": MetricSpec("contains", EXPECTED),
    "icontains": MetricSpec("contains", EXPECTED, options={"ignore_case": True}),
}
"""Checks with a right answer and their metric; None: the default metric of the answers."""
_OUTSIDE = re.compile(r"\s*(?:file|package|exec|https?)://|\s*(?:package|exec):", re.IGNORECASE)
_TYPED = re.compile(r"\s*(?:not-)?([a-z][a-z-]*)(?:\([^)]*\))?:", re.IGNORECASE)
_CHECKS = {
    "answer-relevance", "bleu", "classifier", "contains", "contains-all", "contains-any", "contains-json",
    "contains-sql", "contains-xml", "context-faithfulness", "context-recall", "context-relevance", "cost",
    "equals", "eval", "factuality", "fn", "grade", "icontains", "icontains-all", "icontains-any", "is-json",
    "is-sql", "is-xml", "javascript", "js", "latency", "levenshtein", "llm-rubric", "model-graded-closedqa",
    "perplexity", "python", "regex", "rouge-n", "ruby", "select-best", "similar", "starts-with", "webhook",
}  # fmt: skip


def is_promptfoo(path: Path) -> bool:
    if path.suffix.lower() in (".yaml", ".yml"):
        return True
    if path.suffix.lower() != ".csv" or not path.is_file():
        return False
    with path.open("rb") as file:
        first = file.readline(65536)
        return b"__expected" in (file.readline(65536) if b"sep=" in first[:8].lower() else first)


_Test = tuple[dict[str, Any], str, int]
"""A test as a row, its check, and the line of the check."""


def promptfoo_tests(path: Path) -> tuple[list[dict[str, Any]], MetricSpec | None]:
    """Read the rows of promptfoo tests and their metric. Raises ProblemsError."""
    file, tests = (DataFile if path.suffix.lower() == ".csv" else OutsideFile)(path), list[_Test]()
    rows, read = (file.rows, _csv_test) if isinstance(file, DataFile) else (_yaml_tests(file), _yaml_test)
    for line, row in rows:
        with file.at(line):
            tests.append(read(row, line))
    if not tests and not file.problems:
        file.note(1, "holds no tests; write them under `tests:`, each with vars and assert")
    for _, check, line in [test for test in tests if test[1] != tests[0][1]][:1]:
        file.note(line, f"the check is {check}, and {tests[0][1]} in line {tests[0][2]}; one check is for all tests")
    file.refuse_all()
    return [row for row, _, _ in tests], _METRICS[tests[0][1]]


def _refusal(check: str) -> str:
    return f"the check {quoted(check)} has no metric and is not run; use one of {listed(_METRICS)}"


def _csv_test(row: dict[str, Any], line: int) -> _Test:
    made: dict[str, Any] = {}
    check = "equals"
    if EXPECTED in row and "__expected" in row:
        raise ValueError(f"a variable is called {EXPECTED}, the column of the right answers; rename it")
    for name, value in row.items():
        text = str(value)
        if name == "__expected":
            typed = _TYPED.match(text)
            if typed and typed[1].lower() in _CHECKS:  # what follows `equals:` and its like
                check, text = typed[0].strip().rstrip(":").lower(), text[typed.end() :].strip()
                if check not in _METRICS:
                    raise ValueError(f"__expected: {_refusal(check)}, or write the answer alone")
            made[EXPECTED] = _inside(text, name)
        elif not name.startswith("__"):
            made[name] = _inside(text, name)
        elif name != "__description" and text.strip():
            raise ValueError(f"the column {quoted(name)} is not read; take it out, or keep one __expected a row")
    return made, check, line


def _inside(text: Any, name: str) -> str:
    if not isinstance(text, str):
        raise ValueError(f"{name} is not plain text; write one text")
    if _OUTSIDE.match(text):
        raise ValueError(f"{name} is {quoted(text, 60)}: nothing outside the file is read; write the text itself")
    return text


# -- YAML --------------------------------------------------------------------------------------------------------------


class _Table(dict[Any, Any]):
    line = 1


def _yaml_tests(file: OutsideFile) -> list[tuple[int, Any]]:
    import yaml

    class Loader(yaml.BaseLoader):  # each scalar is a text, whatever its tag
        count = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            self.count += 1
            if self.count > YAML_NODES:
                raise more_than(YAML_NODES, "names and values", "take fewer tests, or a CSV")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> _Table:
            made = _Table(super().construct_mapping(node, deep=True))
            made.line = node.start_mark.line + 1
            if len(made) < len(node.value):
                raise file.refusal(made.line, "holds a repeated key; keep one")
            return made

    if len(file.data) > YAML:
        raise file.refusal(1, f"has more than {YAML >> 20} MB; take fewer tests, or a CSV")
    try:
        top = yaml.load(file.data.decode("utf-8-sig"), Loader) or _Table()
    except UnicodeDecodeError:
        raise file.refusal(1, "is not UTF-8; save the file as UTF-8") from None
    except TooMuch as error:
        raise file.refusal(1, str(error)) from None
    except RecursionError:
        raise file.refusal(1, "is nested too deeply") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = " ".join(str(getattr(error, "problem", None) or "cannot be read").split())
        raise file.refusal(mark.line + 1 if mark else 1, f"wrong YAML: {what}") from None
    if not isinstance(top, _Table):
        raise file.refusal(1, "is not a mapping of names to values")
    if "defaultTest" in top:
        raise file.refusal(
            getattr(top["defaultTest"], "line", 1),
            "defaultTest is not read; write its vars and assertions into each test",
        )
    tests = top.get("tests") or []
    if not isinstance(tests, list):
        what = quoted(tests, 60) if isinstance(tests, str) else "a mapping"  # whose aliases could be 10^10 texts
        raise file.refusal(1, f"tests is {what}, not a list; write each test into the file")
    return [(getattr(test, "line", 1), test) for test in tests]


def _yaml_test(test: Any, line: int) -> _Test:
    if not isinstance(test, _Table) or not {"vars", "assert"} <= test.keys():
        raise ValueError("a test needs vars and assert")
    row, checks = test["vars"], test["assert"]
    if not isinstance(row, _Table):
        raise ValueError("vars is not a mapping of names to values")
    if EXPECTED in row:
        raise ValueError(f"a variable is called {EXPECTED}, the column of the right answers; rename it")
    if not isinstance(checks, list) or len(checks) != 1 or not isinstance(checks[0], _Table):
        raise ValueError(f"assert must be a list of one check, one of {listed(_METRICS)}")
    (check,) = checks
    kind = _inside(check.get("type", ""), "type")
    if kind not in _METRICS or "value" not in check:
        raise ValueError(_refusal(kind))
    made = {name: _inside(text, name) for name, text in {**row, EXPECTED: check["value"]}.items()}
    return made, kind, check.line
