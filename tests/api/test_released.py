"""`pa.promote` and `pa.check`: what the command line does, as objects."""

import asyncio
from pathlib import Path

import pytest

import promptassay as pa
from agent.errors import GateFailed, ProblemsError
from tests.api.test_optimize import SMALL, table
from tests.cli.world import INSTRUCTION, good_json, learner, stubborn
from tests.scripted import Toys

GIVEN = {"target": "label", "prompt": INSTRUCTION}


def test_a_winner_is_promoted_and_checked(toys: Toys) -> None:
    result = pa.optimize(table(), model=toys(learner).name, **GIVEN, **SMALL)
    found = pa.promote(result.run_id, alias="staging", reason="ready")
    assert (found.name, found.alias, found.promoted) == ("rows", "staging", "winner")
    assert (found.moved, found.before) == (True, "")
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
    poor = toys(stubborn, "poor").name
    worse = pa.check("rows@staging", model=poor)
    assert not worse.passed
    assert worse.why
    assert worse.flips
    own = pa.evaluate(table(), model=poor, max_calls=100, **GIVEN)
    with pytest.raises(GateFailed, match="your own prompt claims no gain over it"):
        pa.promote(own.run_id, alias="staging")


def test_what_a_check_cannot_be_is_told_at_once() -> None:
    with pytest.raises(ProblemsError, match=r"(?s)repeats: 9.*max_calls: 0"):
        pa.check("nothing.md", repeats=9, max_calls=0)
    with pytest.raises(pa.InputError, match="no such file"):
        pa.check(Path("nothing.md"))
