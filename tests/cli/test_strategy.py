"""`--strategy`, `--sampler` and `--pruner` are refused where they cannot work."""

from __future__ import annotations

import re
from typing import Any

import pytest

import promptassay as pa
from tests.cli.world import files, good, refused, write_task

NOBODY = ("-m", "openai-compatible/x@http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("change", "words", "says"),
    [
        ('[[metrics]]\nname = "judge"\nmode = "pairwise"\n', ["--strategy", "dspy-mipro"], "the pairwise judge of"),
        ("", ["--strategy", "dspy-bootstrap"], "DSPy reserves the input name config; rename it"),
        ("", ["-n", "5", "--strategy", "dspy-gepa"], "tries as many programs as the budget buys"),
        ("", ["--proposer", "none", "--strategy", "dspy-gepa"], "has a model write instructions; leave out --proposer"),
    ],
)
def test_what_dspy_cannot_do_is_refused_before_a_call(change: str, words: list[str], says: str) -> None:
    name = "config" if "config" in says else "message"
    head = f'name = "notes"\ndescription = "x"\nsignature = "{name} -> answer"\ninstruction = "Answer."\n'
    splits = {
        s: [{name: f"{s} note {n}", "answer": f"answer {n}"} for n in range(40)] for s in ("train", "dev", "test")
    }
    write_task(f"{head}{change}", splits)
    assert says in refused(2, "run", "notes", *NOBODY, "--max-calls", "900", *words)[0]


def test_too_few_calls_for_dspy_are_told_before_the_first() -> None:
    command = [*files(120), *NOBODY, "--price", "1,1", "--strategy", "dspy-mipro"]
    words = "".join(refused(3, *command, "--max-calls", "200", "-q"))
    fewest = re.search(r"200 calls are too few for --strategy dspy-mipro on this task; give at least (\d+)", words)
    assert fewest
    good(*command, "--max-calls", fewest[1], "--dry-run")
    refused(3, *command, "--max-calls", str(int(fewest[1]) - 10), "--dry-run", "-q")


def test_what_cannot_work_is_a_mistake_of_use_before_anything_is_called(monkeypatch: Any) -> None:
    monkeypatch.setattr("agent.search.registered.find_spec", lambda package: None)
    command = [*files(120), *NOBODY, "--max-calls", "300"]
    for words, says in (
        (["--sampler", "what"], "tpe"),
        (["--pruner", "what"], "wilcoxon"),
        (["--sampler", "gp"], "--sampler gp needs torch, which is not installed; pip install torch"),
        (["--strategy", "dspy-mipro", "--sampler", "tpe"], "--sampler tpe: dspy-mipro uses none"),
    ):
        assert says in refused(2, *command, *words)[-1]
    with pytest.raises(pa.InputError, match=r"(?s)sampler.*pruner"):
        pa.optimize("rows.csv", target="label", prompt="p.txt", model=NOBODY[1], sampler="x", pruner="y")
