"""`--strategy` with DSPy's optimizers: through the whole command, and through a kill."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.cli.world import compatible, files, good, learner, refused
from tests.wire import Fault, WireServer


def in_dspys_words(messages: list[dict[str, Any]], body: dict[str, Any]) -> Fault:
    """The learner, which also fills in whatever else DSPy asks for."""
    asked = re.findall(r"`\[\[ ## (\w+) ## \]\]`", messages[-1]["content"])
    if not asked or asked[0] == "label":
        return Fault(text=learner(messages, body), delay=0.01)
    text = "Name the department that handles it." if "instruction" in asked[0] else "notes of customers"
    return Fault(text=f"[[ ## {asked[0]} ## ]]\n{text}\n\n[[ ## completed ## ]]", delay=0.01)


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
    place = Path("notes")
    place.mkdir()
    for split in ("train", "dev", "test"):
        lines = [json.dumps({name: f"{split} note {n}", "answer": f"answer {n}"}) for n in range(40)]
        (place / f"{split}.jsonl").write_text("\n".join(lines), "utf-8")
    head = f'name = "notes"\ndescription = "x"\nsignature = "{name} -> answer"\ninstruction = "Answer."\n'
    (place / "task.toml").write_text(f"{head}{change}", "utf-8")
    command = ("run", "notes", "-m", "openai-compatible/x@http://127.0.0.1:9", "--max-calls", "900")
    assert says in refused(2, *command, *words)[0]


def test_too_few_calls_for_dspy_are_told_before_the_first() -> None:
    with WireServer(in_dspys_words) as server:
        command = [*files(120), "-m", compatible(server), "--price", "1,1", "--strategy", "dspy-mipro"]
        words = "".join(refused(3, *command, "--max-calls", "200", "-q"))
        fewest = re.search(r"200 calls are too few for --strategy dspy-mipro on this task; give at least (\d+)", words)
        assert fewest
        assert server.requests == []
        good(*command, "--max-calls", fewest[1], "--dry-run")
        refused(3, *command, "--max-calls", str(int(fewest[1]) - 10), "--dry-run", "-q")
