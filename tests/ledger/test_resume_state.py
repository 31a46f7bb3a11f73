"""A resumed run remembers what it bought and wrote, and records nothing of it again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.errors import BadResponse, RateLimited, Transient, TransportUnknown
from agent.ledger import ledger_file, store
from agent.ledger.resume_state import resume_state
from agent.ledger.store import Ledger, NewCandidate, NewRun, Reservation
from agent.ledger.verify import verify
from agent.types import Completion, Message, Outcome, Prediction, Score, Spend, Trial, Usage
from tests.ledger.ledgers import candidates, read
from tests.toys import TEAMS, ask, make_task, open_ledger


async def buy(ledger: Ledger, key: str, run_id: str = "run-1", text: str = "ok", finish: Any = "stop") -> int:
    call = await ledger.reserve(Reservation(run_id, "model", "m", key, "c", 1, ask(key), 0.5, 100))
    await ledger.settle(run_id, call, Completion(text, finish, Usage(7, 2), "m"), 0.125, 0.1)
    return call


# -- what was bought ---------------------------------------------------------------------------------------------------


async def test_bought_are_the_runs_own_settled_attempts_in_their_order(ledger: Ledger) -> None:
    ledger.begin_run(NewRun("run-2", make_task(), "m"))
    first = await buy(ledger, "k")
    await buy(ledger, "k", "run-2")
    second, other = await buy(ledger, "k"), await buy(ledger, "other")
    failed = await ledger.reserve(Reservation("run-1", "model", "m", "failed", "c", 1, ask("x"), 0.5, 100))
    await ledger.fail("run-1", failed, "error", Transient("busy"), 0.1, 0.0)
    assert resume_state(ledger.db, "run-1").bought == {"k": [first, second], "other": [other]}


async def test_hits_are_counted_by_call_and_candidate(ledger: Ledger) -> None:
    for key, candidate in (("k", "a"), ("k", "a"), ("k", "b"), ("other", "a")):
        ledger.cache_hit("run-1", "model", "m", key, candidate, Usage(1, 1))
    await ledger.commit()
    assert resume_state(ledger.db, "run-1").hits == {("k", "a"): 2, ("k", "b"): 1, ("other", "a"): 1}


async def test_paid_is_what_was_charged_by_role(ledger: Ledger) -> None:
    await buy(ledger, "k")
    failures: list[tuple[str, Any, float]] = [
        ("error", Transient("503"), 0.0),
        ("error", RateLimited("429"), 0.0),
        ("unknown", TransportUnknown("reset"), 0.5),
        ("error", BadResponse("html"), 0.5),
        ("unknown", "killed", 0.5),
        ("error", "not_sent", 0.0),
    ]
    for number, (state, error, usd) in enumerate(failures):
        call = await ledger.reserve(Reservation("run-1", "proposer", "p", f"f{number}", "", 1, ask("x"), 0.5, 100))
        await ledger.fail("run-1", call, state, error, 0.1, usd)
    ledger.cache_hit("run-1", "judge", "m", "k", "c", Usage(7, 2))
    await ledger.commit()
    past = resume_state(ledger.db, "run-1")
    assert past.paid == {"model": Spend(1, 9, 0.125), "proposer": Spend(4, 300, 1.5)}, "a 429 is no call"
    assert (past.limited, past.losses) == (1, {"f0": 1, "f2": 1, "f3": 1})


def test_seconds_are_those_of_each_stretch_without_the_time_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [datetime(2030, 1, 1, tzinfo=UTC)]

    def clock() -> str:
        return now[0].isoformat(timespec="milliseconds")

    for module in (ledger_file, store):
        monkeypatch.setattr(module, "utc_now", clock)
    ledger = open_ledger(tmp_path / "ledger.db")
    for stretch in (7.5, 2.0):
        now[0] += timedelta(seconds=stretch)
        ledger.event("run-1", "note", {"after": stretch})
        now[0] += timedelta(hours=5)  # killed, and opened long after
        ledger.close()
        ledger = Ledger(tmp_path / "ledger.db")
        past = ledger.resume_run("run-1", {})
        ledger.flush()
    now[0] += timedelta(seconds=60)
    ledger.close()
    assert past.seconds == pytest.approx(9.5)


# -- what was told -----------------------------------------------------------------------------------------------------


Step = tuple[str, tuple[Any, ...]]
"""A method of the ledger and its arguments."""


def walk() -> list[Step]:
    """What a run records on its way; some of it twice."""
    steps: list[Step] = []
    for c in candidates():
        layout = (Message("user", c.instruction),)
        steps.append(("add_candidate", ("run-1", NewCandidate(1, c.shown(), layout, "op", None, "why"))))
        steps.append(("put_trial", ("run-1", Trial(1, 1, c.id, "incomplete", 0, None))))
        for row in range(3):
            made = Prediction({"team": TEAMS[row]}, TEAMS[row])
            outcome = Outcome(c.id, f"dev-{row}", made, (Score("m", 1.0),), 1.0, "k")
            steps.append(("put_outcome", ("run-1", "dev", outcome)))
        steps.append(("put_trial", ("run-1", Trial(1, 1, c.id, "complete", 3, 1.0, (0.5, 1.0)))))
    steps += [("event", ("run-1", "note", {"n": 1}))] * 2
    steps.append(("event", ("run-1", "proposal", {"n": 1}, {"reply": "a text"})))
    return [*steps, steps[1]]


def record(ledger: Ledger, steps: Sequence[Step]) -> None:
    for name, arguments in steps:
        getattr(ledger, name)(*arguments)


def told(path: Path) -> list[tuple[str, str]]:
    """What was recorded, in order, without what tells of the run's starts and ends."""
    without = "('ledger_opened', 'run_started', 'run_found_open', 'run_resumed', 'run_complete', 'texts_erased')"
    return read(path, f"SELECT kind, body FROM events WHERE kind NOT IN {without} ORDER BY seq")


@pytest.mark.parametrize("cut", [0, 5, 10, 15, 19, 22])
def test_a_run_that_was_cut_off_anywhere_records_the_same_as_one_that_was_not(tmp_path: Path, cut: int) -> None:
    through = open_ledger(tmp_path / "through.db")
    record(through, walk())
    through.close()
    ledger = open_ledger(tmp_path / "ledger.db")
    record(ledger, walk()[:cut])
    ledger.close()
    with closing(Ledger(ledger.path)) as again:
        again.resume_run("run-1", {})
        record(again, walk())
        again.end_run("run-1", "complete", 1.0)
        again.flush()
        assert verify(again.db) == []
    assert told(ledger.path) == told(through.path)


async def test_what_a_resumed_run_says_once_more_than_before_is_recorded(ledger: Ledger) -> None:
    ledger.event("run-1", "note", {"n": 1})
    ledger.close()
    with closing(Ledger(ledger.path)) as again:
        again.resume_run("run-1", {})
        for _ in range(3):
            again.event("run-1", "note", {"n": 1})
        await again.commit()
        assert told(again.path) == [("note", '{"n":1}')] * 3


async def test_calls_and_starts_are_always_told(ledger: Ledger) -> None:
    """A call that is made again, with the same words, is another call."""
    call = await ledger.reserve(Reservation("run-1", "model", "m", "k", "c", 1, ask("a"), 0.5, 100))
    await ledger.fail("run-1", call, "error", Transient("busy"), 0.1, 0.0)
    ledger.close()
    with closing(Ledger(ledger.path)) as again:
        again.resume_run("run-1", {})
        await asyncio.wait_for(buy(again, "k"), 5)
        await asyncio.wait_for(again.fail("run-1", call, "error", Transient("busy"), 0.1, 0.0), 5)
        kinds = read(again.path, "SELECT kind, COUNT(*) FROM events WHERE kind LIKE 'call%' GROUP BY kind")
        assert kinds == [("call_error", 2), ("call_ok", 1), ("call_reserved", 2)]


def test_a_run_whose_texts_were_erased_meanwhile_goes_on_and_brings_back_only_what_is_new(tmp_path: Path) -> None:
    steps = walk()
    ledger = open_ledger(tmp_path / "ledger.db")
    record(ledger, steps[:5])
    ledger.flush()
    ledger.erase([digest for (digest,) in read(ledger.path, "SELECT hash FROM blobs")], "a", "r")
    ledger.close()
    with closing(Ledger(ledger.path)) as again:
        again.resume_run("run-1", {})
        record(again, steps[:5])
        again.flush()
        assert read(again.path, "SELECT COUNT(*) FROM blobs") == [(0,)], "what stands already is not written again"
        record(again, steps[5:])
        again.flush()
        assert verify(again.db) == []
        assert read(again.path, "SELECT COUNT(*) FROM blobs")[0][0] > 0


async def test_resuming_opens_the_run_again_with_the_budget_of_now(ledger: Ledger) -> None:
    ledger.end_run("run-1", "interrupted", 3.0)
    await ledger.commit()
    ledger.resume_run("run-1", {"max_calls": 500})
    await ledger.commit()
    assert read(ledger.path, "SELECT status, budget FROM runs") == [("running", '{"max_calls": 500}')]
