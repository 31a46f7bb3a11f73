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
    "call": "of one call",
    "task": "of the task",
    "self": "of the object itself",
    "asked": "an option",
    "given": "an option",
    "options": "an option",
    "file": "a key of task.toml",
    "parsed.file": "a key of task.toml",
    "item": "of a row that a judge reads",
    "result": "of a result: what was measured",
    "change": "of a result: what is new",
    "model": "of a local model",
    "evidence.task": "of the task",
    "evidence.book": "of what the proposer tried",
    "kind": "of a technique",
    "TECHNIQUES[technique]": "of a technique",
    "TECHNIQUES[candidate.technique]": "of a technique",
    "texts": "of a prompt of a chain",
    "base": "of a prompt of a chain",
    "as_chain(candidate).texts(self._last)": "of a prompt of a chain",
    "demos": "of a set of examples",
    "drawn": "of a set of examples",
    "(demos := demo_set(other))": "of a set of examples",
}
"""What else has an attribute of such a name."""
MAKES, WRITES, SHOWS = "makes and changes the part", "writes its code for a target", "shows what a result says of it"
EXCEPTIONS = {
    "jobs/observers.py": ({"shown.calibration", "shown.tool_texts"}, "writes its event"),
    "programs/moves/chain_moves.py": ({"prompt.demos"}, MAKES),
    "programs/moves/part_moves.py": ({"old.demos", "old.picks", "old.tool_texts", "prompt.picks"}, MAKES),
    "programs/moves/prompt_moves.py": ({"candidate.tool_texts", "prompt.demos"}, MAKES),
    "programs/moves/proposer.py": ({"changed.tool_texts"}, MAKES),
    "programs/moves/text_moves.py": ({"old.demos"}, MAKES),
    "programs/variants.py": ({"candidate.adapter"}, "the kind of candidates with an adapter"),
    "release/formats/adapters.py": ({"release.adapter"}, WRITES),
    "release/formats/python_module.py": (
        {"release.calibration", "release.classifier", "release.passages", "release.picks", "release.tools"},
        WRITES,
    ),
    "release/formats/python_targets.py": ({"release.tools"}, WRITES),
    "report/next_steps.py": ({"winner.passages", "winner.picks"}, SHOWS),
    "report/run_blocks.py": ({"winner.passages"}, SHOWS),
    "report/web/playground_page.py": ({"released.tools"}, "puts a candidate of the ledger together"),
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
    return {ast.unparse(node) for node in attributes if ast.unparse(node.value) not in NO_PROMPTS}


def test_no_branch_asks_for_a_part_by_name() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): asked
        for path in sorted(ROOT.rglob("*.py"))
        if "prompt/parts" not in path.as_posix() and (asked := asked_by_name(path))
    }
    assert found == {name: asked for name, (asked, _) in EXCEPTIONS.items()}
