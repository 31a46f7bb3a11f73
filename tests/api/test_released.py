"""`pa.promote` and `pa.check`: what the command line does, as objects."""

import asyncio
from pathlib import Path

import pytest

import promptassay as pa
from agent.errors import GateFailed, ProblemsError
from tests.api.test_optimize import SMALL, table
from tests.cli.world import INSTRUCTION, compatible, good_json, learner, stubborn
from tests.wire import WireServer


def test_a_winner_is_promoted_and_checked() -> None:
    with WireServer(learner) as server:
        result = pa.optimize(table(), target="label", prompt=INSTRUCTION, model=compatible(server), **SMALL)
        found = pa.promote(result.run_id, alias="staging", reason="ready")
        assert (found.name, found.alias, found.promoted, found.moved, found.before) == (
            "rows", "staging", "winner", True, "",
        )  # fmt: skip
        assert pa.load_prompt("rows@staging", root="runs/releases").version == found.version
        again = good_json("promote", result.run_id, "--alias", "staging")
        assert again | {"moved": True, "from": "", "reason": "ready"} == found.to_json()
        checked = pa.check("rows@staging", repeats=1)
        assert checked.passed
        assert checked.flips == ()
        assert checked.was == checked.now == result.winner.dev

        async def cell() -> pa.CheckResult:
            return pa.check(result.release.path, repeats=1)

        assert asyncio.run(cell()).passed
    with WireServer(stubborn) as server:
        worse = pa.check("rows@staging", model=compatible(server))
        own = pa.evaluate(table(), target="label", prompt=INSTRUCTION, model=compatible(server), max_calls=100)
    with pytest.raises(GateFailed, match="your own prompt claims no gain over it"):
        pa.promote(own.run_id, alias="staging")
    assert not worse.passed
    assert worse.why
    assert worse.flips


def test_your_own_prompt_is_promoted_where_it_was_kept() -> None:
    with WireServer(stubborn) as server:
        result = pa.optimize(table(), target="label", prompt=INSTRUCTION, model=compatible(server), **SMALL)
    assert result.decision == "keep_baseline"
    assert pa.promote(result.run_id).promoted == "own"
    with pytest.raises(pa.InputError, match="--override needs"):
        pa.promote(result.run_id, override=True)


def test_what_a_check_cannot_be_is_told_at_once() -> None:
    with pytest.raises(ProblemsError, match=r"(?s)repeats: 9.*max_calls: 0"):
        pa.check("nothing.md", repeats=9, max_calls=0)
    with pytest.raises(pa.InputError, match="no such file"):
        pa.check(Path("nothing.md"))
