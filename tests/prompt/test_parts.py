"""Code outside of `prompt/parts/` walks over the parts of a prompt; where it asks for one by name, a line says why."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import agent

ROOT = Path(agent.__file__).parent
PARTS = {"picks", "passages", "calibration", "classifier", "adapter", "tools", "tool_texts", "demos"}
NO_PROMPTS = {
    "request": "of one call",
    "self.request": "of one call",
    "call": "of one call",
    "task": "of the task",
    "self": "of the object itself",
    "asked": "an option",
    "given": "an option",
    "options": "an option",
    "file": "a key of task.toml",
    "parsed.file": "a key of task.toml",
    "item": "of a row that a judge reads",
    "ledger": "of a judge",
    "result": "of a result: what was measured",
    "change": "of a result: what is new",
    "model": "of a local model",
    "evidence.task": "of the task",
    "evidence.history": "of what the proposer tried",
    "kind": "of a technique",
    "TECHNIQUES[technique]": "of a technique",
    "TECHNIQUES[candidate.technique]": "of a technique",
    "demos": "of a set of examples",
    "drawn": "of a set of examples",
    "(demos := demo_set(other))": "of a set of examples",
}
"""What else has an attribute of such a name."""
EXCEPTIONS = {
    "programs/moves/": (
        "makes and changes the part",
        {"old.demos", "prompt.demos", "old.part(self.part)", "prompt.part(self.part)", "changed.part(made.part)"}
        | {"old.part('shape')", "as_prompt(evidence.best.proposal.candidate).part('shape')"},
    ),
    "release/formats/": (
        "writes its code for a target",
        {"release.tools", "release.part(ReleasedPassages)", "release.part(PickedDemos)", "reading.classifier"},
    ),
    "report/": (
        "shows what a result or the ledger says of it",
        {"winner.passages", "winner.picks", "prompt.passages", "prompt.picks", "released.tools"}
        | {"one.demos", "one.calibration"},
    ),
    "jobs/observers.py": ("writes its event", {"shown.calibration"}),
}


def decisions(tree: ast.AST) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.If | ast.IfExp | ast.While | ast.Assert):
            yield node.test
        elif isinstance(node, ast.comprehension):
            yield from node.ifs
        elif isinstance(node, ast.BoolOp):
            yield from node.values
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "bool":
            yield from node.args


def asked_by_name(path: Path) -> set[str]:
    found = [node for test in decisions(ast.parse(path.read_text("utf-8"))) for node in ast.walk(test)]
    attributes = (node for node in found if isinstance(node, ast.Attribute) and node.attr in PARTS)
    calls = (node for node in found if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute))
    asked = {ast.unparse(node) for node in calls if ast.unparse(node.func).endswith(".part")}
    return asked | {ast.unparse(node) for node in attributes if ast.unparse(node.value) not in NO_PROMPTS}


def test_no_branch_asks_for_a_part_by_name() -> None:
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        known = {ask for place, (_, asks) in EXCEPTIONS.items() if name.startswith(place) for ask in asks}
        if not name.startswith("prompt/parts/") and (more := asked_by_name(path) - known):
            found[name] = more
    assert found == {}
