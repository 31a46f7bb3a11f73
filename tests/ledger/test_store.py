"""The ledger holds what was written, in a file of the user's own, and refuses what is no ledger."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.errors import LedgerError
from agent.ledger.schema import STEPS
from agent.ledger.store import Ledger, default_path, safe
from agent.types import Candidate, Completion, Demo, Message, Outcome, Prediction, Score, Trial, Usage
from tests.toys import ask, make_task, open_ledger

HOSTILE = "lone \ud800 \udfff NUL \0 bell \a mark ' \" \\ {{message}} \u2028 𝄞"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Any:
    found = open_ledger(path)
    yield found
    found.close()


def read(ledger: Ledger, sql: str) -> list[Any]:
    """Through a connection of its own: only what is committed is seen."""
    other = sqlite3.connect(ledger.path)
    try:
        return other.execute(sql).fetchall()
    finally:
        other.close()


# -- the file ----------------------------------------------------------------------------------------------------------


def test_only_the_owner_can_read_the_file_and_its_journal(ledger: Ledger) -> None:
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in ledger.path.parent.iterdir()}
    assert modes["ledger.db"] == 0o600
    assert set(modes.values()) == {0o600}


def test_opening_again_keeps_everything(ledger: Ledger, path: Path) -> None:
    head = ledger.head()
    ledger.close()
    again = Ledger(path)
    assert again.head() == head
    assert read(again, "PRAGMA user_version") == [(len(STEPS),)]
    again.close()


def test_a_newer_schema_is_refused_and_left_alone(ledger: Ledger, path: Path) -> None:
    ledger.db.conn.execute("PRAGMA user_version = 99")
    ledger.close()
    with pytest.raises(LedgerError, match=r"ledger\.db: written by a newer version \(schema 99\)"):
        Ledger(path)
    assert sqlite3.connect(path).execute("PRAGMA user_version").fetchone() == (99,)


@pytest.mark.parametrize(
    "content", [b"this is no database, only a long enough text\n" * 50, b"\x89PNG\r\n" + b"\0" * 4096]
)
def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "notes.txt"
    file.write_bytes(content)
    with pytest.raises(LedgerError, match=r"notes\.txt") as caught:
        Ledger(file)
    assert file.read_bytes() == content
    assert "\n" not in str(caught.value)
    assert "--db" in str(caught.value)


def test_a_folder_and_a_path_through_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for bad in (tmp_path, tmp_path / "file" / "ledger.db"):
        with pytest.raises(LedgerError):
            Ledger(bad)


def test_a_damaged_database_is_refused(ledger: Ledger, path: Path) -> None:
    ledger.close()
    data = bytearray(path.read_bytes())
    data[100:4096] = os.urandom(3996)
    path.write_bytes(data)
    with pytest.raises(LedgerError):
        Ledger(path)


def test_two_that_open_a_new_file_at_the_same_time_both_get_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Ledger(path).close()
    seen = iter([0, len(STEPS)])  # the late one looked before the other had written
    monkeypatch.setattr(Ledger, "_schema", lambda ledger: next(seen))
    late = Ledger(path)
    late.event("run", "note", {})
    late.close()


def test_writes_are_durable_before_they_return(ledger: Ledger) -> None:
    assert ledger.db.conn.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert ledger.db.conn.execute("PRAGMA synchronous").fetchone() == (2,)


def test_the_path_comes_from_the_environment_or_is_under_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIMIZE_DB", "/x/y.db")
    assert default_path() == Path("/x/y.db")
    monkeypatch.setenv("OPTIMIZE_DB", "")
    assert default_path() == Path("runs/ledger.db")


# -- text --------------------------------------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_text_without_lone_surrogates_stays_as_it_is(text: str) -> None:
    assert safe(text) == text


@given(st.text(st.characters()))
def test_every_text_becomes_one_that_can_be_stored(text: str) -> None:
    safe(text).encode("utf-8")
    assert safe(safe(text)) == safe(text)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=st.text(st.characters(), max_size=30))
def test_a_reply_comes_back_from_the_cache_exactly(ledger: Ledger, text: str) -> None:
    key = f"k-{text!r}"
    tops = (((text, -0.5), ("b", -1.25)), (("c", 0.0),))
    reply = Completion(text, "stop", Usage(7, 5, 3), "m", tops)
    call = ledger.reserve("run-1", "target", "m", key, "c", 1, ask(text), 0.0)
    ledger.settle(call, reply, 0.5, 0.1)
    assert ledger.settled(key) == reply


def test_hostile_and_huge_text_survives_in_every_column(ledger: Ledger) -> None:
    text = HOSTILE + "x" * 5_000_000
    demo = Demo("train-1", {"message": text}, {"team": text}, text, "target")
    candidate = Candidate("few-shot-cot", "turns", text, HOSTILE, (demo,))
    ledger.add_candidate("run-1", 1, candidate, (Message("user", text),), "op", None, text, HOSTILE)
    outcome = Outcome(
        candidate.id, "dev-1", Prediction({"team": text}, text, text), (Score("m", None, text),), None, "k"
    )
    ledger.put_outcomes("run-1", "dev", [outcome])
    ledger.put_trial("run-1", Trial(1, 1, candidate.id, "failed", 0, None, None, text))
    call = ledger.reserve("run-1", "target", f"m{HOSTILE}", "k", candidate.id, 1, ask(text), 0.0)
    ledger.fail(call, "transient", text, 0.1, 0.0)
    ledger.event("run-1", "note", {"text": text})
    kept = safe(text)
    assert read(ledger, "SELECT instruction FROM candidates") == [(kept,)]
    assert read(ledger, "SELECT reply, error FROM outcomes") == [(kept, kept)]
    assert read(ledger, "SELECT rationale FROM demos") == [(kept,)]
    assert read(ledger, "SELECT error FROM calls") == [(kept,)]
    assert read(ledger, "SELECT reason FROM trials") == [(kept,)]
    assert json.loads(read(ledger, "SELECT inputs FROM demos")[0][0])["message"] == text.encode(
        "utf-16", "surrogatepass"
    ).decode("utf-16", "surrogatepass")


def test_a_run_of_a_folder_whose_name_is_no_text_can_be_written(ledger: Ledger) -> None:
    ledger.begin_run("run-2", make_task(folder="/tmp/\udcff"), "scripted/\udcff", "m\udcff", 0, {}, {})
    assert read(ledger, "SELECT COUNT(*) FROM runs") == [(2,)]


# -- calls -------------------------------------------------------------------------------------------------------------


def test_only_a_settled_attempt_is_a_cached_reply(ledger: Ledger) -> None:
    call = ledger.reserve("run-1", "target", "m", "k", "c", 1, ask("a"), 0.5)
    assert ledger.settled("k") is None
    for state in ("error", "unknown"):
        ledger.fail(call, "transient", "reset", 0.1, 0.5, state)
        assert ledger.settled("k") is None
    ledger.cache_hit("run-1", "target", "m", "k", "c", Usage(1, 1))
    assert ledger.settled("k") is None


def test_a_reply_whose_text_was_erased_is_bought_again(ledger: Ledger) -> None:
    call = ledger.reserve("run-1", "target", "m", "k", "c", 1, ask("a"), 0.0)
    ledger.settle(call, Completion("secret", "stop", Usage(1, 1), "m"), 0.0, 0.1)
    ledger.db.conn.execute("DELETE FROM blobs WHERE body LIKE '%secret%'")
    assert ledger.settled("k") is None


def test_equal_payloads_are_kept_once(ledger: Ledger) -> None:
    for number in range(3):
        ledger.reserve("run-1", "target", "m", f"k{number}", "c", 1, ask("the same"), 0.0)
    assert read(ledger, "SELECT COUNT(*) FROM blobs") == [(1,)]


def test_every_write_is_committed_when_it_returns(ledger: Ledger) -> None:
    candidate = Candidate("zero-shot", "turns", "i")
    ledger.add_candidate("run-1", 0, candidate, (), "op", None, "", "")
    ledger.put_trial("run-1", Trial(1, 0, candidate.id, "incomplete", 3, 0.5))
    ledger.put_trial("run-1", Trial(1, 0, candidate.id, "complete", 9, 0.75, (0.5, 0.9)))
    ledger.set_plan("run-1", {"calls": 5})
    call = ledger.reserve("run-1", "target", "m", "k", "c", 1, ask("a"), 0.25)
    assert read(ledger, "SELECT state, reserved_usd FROM calls") == [("sent", 0.25)]
    ledger.fail(call, "transient", "reset", 0.1, 0.25, "unknown")
    ledger.cache_hit("run-1", "target", "m", "k", "c", Usage(1, 1))
    assert read(ledger, "SELECT state FROM calls ORDER BY id") == [("unknown",), ("cached",)]
    assert read(ledger, "SELECT n, state, low FROM trials") == [(9, "complete", 0.5)]
    assert read(ledger, "SELECT plan FROM runs") == [('{"calls": 5}',)]


def test_an_outcome_written_twice_is_there_once(ledger: Ledger) -> None:
    outcome = Outcome("c", "dev-1", Prediction({"team": "billing"}, "billing"), (Score("m", 1.0),), 1.0)
    ledger.put_outcomes("run-1", "dev", [outcome])
    ledger.put_outcomes("run-1", "dev", [replace(outcome, value=0.0)])
    ledger.put_outcomes("run-1", "test", [outcome])
    assert read(ledger, "SELECT split, value FROM outcomes ORDER BY split") == [("dev", 0.0), ("test", 1.0)]


def test_unscored_stays_apart_from_zero(ledger: Ledger) -> None:
    ledger.put_outcomes("run-1", "dev", [Outcome("c", "e", Prediction({}, ""), (Score("m", None, "no label"),), None)])
    assert read(ledger, "SELECT value, scores FROM outcomes") == [(None, '[["m", null, "no label"]]')]


def test_nothing_belongs_to_a_run_that_does_not_exist(ledger: Ledger) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        ledger.cache_hit("no-such-run", "target", "m", "k", "c", Usage())
