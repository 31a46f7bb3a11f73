"""The history can only grow, and a change behind its back shows at the place where it was made."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.ledger.chain import GENESIS, first_break, link
from agent.ledger.store import Ledger
from tests.toys import open_ledger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger with six events."""
    ledger = open_ledger(tmp_path / "ledger.db")
    for number in range(4):
        ledger.event("run-1", "note", {"number": number, "text": "lone \ud800 NUL \0 é"})
    ledger.end_run("run-1", "done", {"calls": 3})
    ledger.close()
    return tmp_path / "ledger.db"


def events(path: Path) -> list[dict[str, Any]]:
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    try:
        return [dict(event) for event in connection.execute("SELECT * FROM events ORDER BY seq")]
    finally:
        connection.close()


def behind_its_back(path: Path, sql: str) -> None:
    connection = sqlite3.connect(path)
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    assert connection.execute(sql).rowcount > 0
    connection.commit()
    connection.close()


def test_an_untouched_chain_holds_and_ends_in_the_head(path: Path) -> None:
    found = events(path)
    assert len(found) == 6
    assert first_break(found) is None
    assert found[0]["prev_hash"] == GENESIS
    ledger = Ledger(path)
    assert ledger.head() == found[-1]["hash"]
    ledger.close()


def test_an_empty_ledger_has_the_first_hash_as_its_head(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "new.db")
    assert ledger.head() == GENESIS
    assert first_break([]) is None
    ledger.close()


def test_a_body_reads_back_as_it_was_given(path: Path) -> None:
    assert json.loads(events(path)[1]["body"])["number"] == 0


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE events SET body = '{}' WHERE seq = 2",
        "UPDATE events SET seq = 99 WHERE seq = 6",
        "UPDATE OR REPLACE events SET seq = 2 WHERE seq = 3",
        "DELETE FROM events WHERE seq = 6",
        "DELETE FROM events",
        "INSERT OR REPLACE INTO events VALUES (2, 'r', 'u', 'k', '{}', 'p', 'h')",
        "REPLACE INTO events VALUES (6, 'r', 'u', 'k', '{}', 'p', 'h')",
        "INSERT INTO events VALUES (6, 'r', 'u', 'k', '{}', 'p', 'h') ON CONFLICT(seq) DO UPDATE SET body = 'x'",
        "INSERT INTO events VALUES (9, 'r', 'u', 'k', '{}', 'p', 'h')",
        "INSERT INTO events VALUES (0, 'r', 'u', 'k', '{}', 'p', 'h')",
        "INSERT INTO events VALUES (NULL, 'r', 'u', 'k', '{}', 'p', 'h')",
        "INSERT OR IGNORE INTO events VALUES (2, 'r', 'u', 'k', '{}', 'p', 'h')",
    ],
)
def test_events_are_append_only_for_any_client(path: Path, sql: str) -> None:
    before = events(path)
    connection = sqlite3.connect(path)  # without the ledger's own settings
    with pytest.raises(sqlite3.IntegrityError, match=r"events (are append-only|have no gaps)"):
        connection.execute(sql)
    connection.close()
    assert events(path) == before


@pytest.mark.parametrize("column", ["body", "kind", "run_id", "utc", "hash", "prev_hash"])
@pytest.mark.parametrize("seq", [1, 3, 6])
def test_a_changed_event_breaks_the_chain_where_it_stands(path: Path, column: str, seq: int) -> None:
    behind_its_back(path, f"UPDATE events SET {column} = {column} || ' ' WHERE seq = {seq}")
    assert first_break(events(path)) == seq


def test_a_removed_event_breaks_the_chain(path: Path) -> None:
    behind_its_back(path, "DELETE FROM events WHERE seq = 3")
    assert first_break(events(path)) == 3


def test_events_cut_off_at_the_end_change_the_head(path: Path) -> None:
    head = events(path)[-1]["hash"]
    behind_its_back(path, "DELETE FROM events WHERE seq > 4")
    cut = events(path)
    assert first_break(cut) is None, "a prefix of a chain is a chain: only the head that was noted down tells"
    assert cut[-1]["hash"] != head


def test_two_that_write_at_the_same_time_make_one_chain(path: Path) -> None:
    one, two = Ledger(path), Ledger(path)
    for number in range(5):
        one.event("run-1", "one", {"n": number})
        two.event("run-1", "two", {"n": number})
    one.close()
    two.close()
    assert len(events(path)) == 16
    assert first_break(events(path)) is None


@given(
    st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=6),
    st.data(),
)
def test_any_change_of_any_field_is_seen(pairs: list[tuple[str, str]], data: st.DataObject) -> None:
    chain: list[dict[str, Any]] = []
    for seq, (kind, body) in enumerate(pairs, 1):
        event = {"seq": seq, "run_id": "r", "utc": "u", "kind": kind, "body": body}
        prev = chain[-1]["hash"] if chain else GENESIS
        chain.append({**event, "prev_hash": prev, "hash": link(prev, event)})
    assert first_break(chain) is None
    place = data.draw(st.integers(0, len(chain) - 1))
    column = data.draw(st.sampled_from(["run_id", "utc", "kind", "body", "prev_hash", "hash"]))
    new = data.draw(st.text().filter(lambda text: text != chain[place][column]))
    chain[place] = {**chain[place], column: new}
    assert first_break(chain) == place + 1
