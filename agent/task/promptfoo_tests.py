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
    rows = file.rows if isinstance(file, DataFile) else [(1, node) for node in _nodes(file)]
    for line, row in rows:
        with file.at(line):
            tests.append(_csv_test(row, line) if isinstance(row, dict) else _yaml_test(row))
    if not tests and not file.problems:
        file.note(1, "holds no tests; write them under `tests:`, each with vars and assert")
    for _, check, line in [test for test in tests if test[1] != tests[0][1]][:1]:
        fix = "one metric scores every row, so use one check in all tests, or make two tasks"
        file.note(line, f"the check is {check}, and {tests[0][1]} in line {tests[0][2]}; {fix}")
    file.refuse_all()
    return [row for row, _, _ in tests], _METRICS[tests[0][1]]


def _refusal(check: str) -> str:
    why = "has no metric" if check == "starts-with" else "has no right answer and is not run"
    return f"the check {quoted(check)} {why}; use one of {listed(_METRICS)}"


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


def _inside(text: str, name: str) -> str:
    if _OUTSIDE.match(text):
        raise ValueError(
            f"{quoted(name)} is {quoted(text[:60])}: nothing outside the file is read; write the text itself"
        )
    return text


# -- YAML --------------------------------------------------------------------------------------------------------------


class _Stop(ValueError):
    def __init__(self, node: Any, what: str) -> None:
        super().__init__(what)
        self.line = int(node.start_mark.line) + 1


def _nodes(file: OutsideFile) -> list[Any]:
    import yaml

    class Counting(yaml.SafeLoader):
        count = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            self.count += 1
            if self.count > YAML_NODES:
                raise more_than(YAML_NODES, "names and values", "take fewer tests, or a CSV")
            return super().compose_node(parent, index)

    try:
        if len(file.data) > YAML:
            raise file.refusal(1, f"has more than {YAML >> 20} MB; take fewer tests, or a CSV")
        root = yaml.compose(file.data.decode("utf-8-sig"), Loader=Counting)
        top = {} if root is None else _mapping(root, "the file")
        if "defaultTest" in top:
            raise _Stop(top["defaultTest"], "defaultTest is not read; write its vars and assertions into each test")
        tests = top.get("tests")
        if tests is not None and tests.id != "sequence":
            what = f"tests is {quoted(str(tests.value)[:60])}, not a list; nothing outside the file is read"
            raise _Stop(tests, what)
        return list(tests.value) if tests else []
    except UnicodeDecodeError:
        raise file.refusal(1, "is not UTF-8; save the file as UTF-8") from None
    except (TooMuch, _Stop) as error:
        raise file.refusal(getattr(error, "line", 1), str(error)) from None
    except RecursionError:
        raise file.refusal(1, "is nested too deeply") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = " ".join(str(getattr(error, "problem", None) or "cannot be read").split())
        raise file.refusal(mark.line + 1 if mark else 1, f"wrong YAML: {what}") from None


def _yaml_test(test: Any) -> _Test:
    parts = _mapping(test, "a test")
    if "vars" not in parts or "assert" not in parts:
        raise _Stop(test, "a test needs vars and assert")
    row = {name: _text(node, name) for name, node in _mapping(parts["vars"], "vars").items()}
    if EXPECTED in row:
        raise _Stop(parts["vars"], f"a variable is called {EXPECTED}, the column of the right answers; rename it")
    checks = parts["assert"]
    if checks.id != "sequence" or len(checks.value) != 1:
        raise _Stop(checks, f"assert must be a list of one check, one of {listed(_METRICS)}")
    check = _mapping(checks.value[0], "a check")
    kind = _text(check["type"], "type") if "type" in check else ""
    if kind not in _METRICS or "value" not in check:
        raise _Stop(checks.value[0], _refusal(kind))
    return {**row, EXPECTED: _text(check["value"], "value")}, kind, checks.value[0].start_mark.line + 1


def _mapping(node: Any, what: str) -> dict[str, Any]:
    if node.id != "mapping":
        raise _Stop(node, f"{what} is not a mapping of names to values")
    made = {}
    for key, value in node.value:
        if key.id != "scalar" or key.value in made:
            raise _Stop(key, f"{what} has a repeated key, or one that is not a text")
        made[key.value] = value
    return made


def _text(node: Any, name: str) -> str:
    if node.id != "scalar" or not str(node.tag).startswith("tag:yaml.org,2002:") or "python" in node.tag:
        raise _Stop(node, f"{name} is not plain text; write one text")
    try:
        return _inside(str(node.value), name)
    except ValueError as error:
        raise _Stop(node, str(error)) from None
