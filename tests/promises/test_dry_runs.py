"""A dry run calls nothing and writes nothing, and the job then asks no more than it said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.jobs import JOBS
from tests.cli.world import optimize
from tests.promises.asking import CASES, contents, has, typed, words_of
from tests.promises.conftest import Fresh
from tests.schemas import require_schema

DRY = [name for name in JOBS.names() if has(name, "dry_run")]
WORDS = {"sweep": "sweep small.toml", "learn": "learn tasks/mails corrected.jsonl"}


@pytest.mark.parametrize("name", DRY)
def test_a_dry_run_calls_and_writes_nothing(name: str, again: Fresh) -> None:
    asked, before = again(), contents(Path())
    words = words_of(name) if name in CASES else WORDS[name].split()
    for more in ([], ["--json"]):
        done = optimize(*words, "--dry-run", *more)
        assert done.exit_code == 0, done.output
        assert done.stdout.strip()
    assert (asked.calls, contents(Path())) == (0, before)
    found = json.loads(done.stdout)
    require_schema(tuple(words), found)
    if "roles" in found:
        assert typed(name).exit_code == 0
        assert 0 < asked.calls <= sum(role["calls"] for role in found["roles"].values())
        assert 0 < asked.tokens <= found["tokens_at_most"]
        assert 0 < asked.usd <= found["cost_usd_at_most"]
