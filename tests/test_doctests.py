"""The examples in the docstrings of agent/ run and give what they say."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import promptassay
from agent.scoring import task_metrics

ROOT = Path(__file__).resolve().parents[1]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "agent").rglob("*.py"))
    if ">>> " in path.read_text("utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_give_what_they_say(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_metrics, "_REGISTERED", {})  # an example registers a metric
    assert doctest.testmod(import_module(name), extraglobs={"pa": promptassay}).failed == 0
