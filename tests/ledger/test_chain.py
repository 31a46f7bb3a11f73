"""The history can only grow, and a change behind its back shows at the place where it was made."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.ledger.chain import GENESIS, Folded, link
from agent.ledger.store import Ledger
from agent.types import canonical
from tests.ledger.ledgers import alter, first_break
from tests.toys import open_ledger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger with seven events."""
    ledger = open_ledger(tmp_path / "ledger.db")
    for number in range(4):
        ledger.event("run-1", "note", {"number": number, "text": "lone \ud800 NUL \0 é"})
    ledger.end_run("run-1", "complete", 1.0, {"calls": 3})
    ledger.close()
    return tmp_path / "ledger.db"


def events(path: Path) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(event) for event in connection.execute("SELECT * FROM events ORDER BY seq")]


def behind_its_back(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        alter(connection, sql)


def test_an_untouched_chain_holds_and_ends_in_the_head(path: Path) -> None:
    found = events(path)
    assert [event["kind"] for event in found] == ["ledger_opened", "run_started", *["note"] * 4, "run_complete"]
    assert first_break(found) is None
    assert found[0]["prev_hash"] == GENESIS
    ledger = Ledger(path)
    assert ledger.head() == link(found[-1]["hash"], events(path)[-1])
    assert first_break(events(path)) is None
    ledger.close()


def test_the_head_is_noted_beside_the_chain(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT seq, hash FROM head").fetchall() == [(7, events(path)[-1]["hash"])]


def test_the_empty_chain_holds() -> None:
    assert first_break([]) is None


def test_a_body_reads_back_as_it_was_given(path: Path) -> None:
    assert json.loads(events(path)[2]["body"])["number"] == 0


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE events SET body = '{}' WHERE seq = 2",
        "UPDATE events SET seq = 99 WHERE seq = 7",
        "UPDATE OR REPLACE events SET seq = 2 WHERE seq = 3",
        "DELETE FROM events WHERE seq = 7",
        "DELETE FROM events",
        "INSERT OR REPLACE INTO events VALUES (2, 'r', 'u', 'k', '{}', 'p', 'h')",
        "REPLACE INTO events VALUES (7, 'r', 'u', 'k', '{}', 'p', 'h')",
        "INSERT INTO events VALUES (7, 'r', 'u', 'k', '{}', 'p', 'h') ON CONFLICT(seq) DO UPDATE SET body = 'x'",
        "INSERT INTO events VALUES (9, 'r', 'u', 'k', '{}', 'p', 'h')",
        "INSERT INTO events VALUES (0, 'r', 'u', 'k', '{}', 'p', 'h')",
        "INSERT INTO events VALUES (NULL, 'r', 'u', 'k', '{}', 'p', 'h')",
        "INSERT OR IGNORE INTO events VALUES (2, 'r', 'u', 'k', '{}', 'p', 'h')",
    ],
)
def test_events_are_append_only_for_any_client(path: Path, sql: str) -> None:
    before = events(path)
    forbidden = pytest.raises(sqlite3.IntegrityError, match=r"events (are append-only|have no gaps)")
    with closing(sqlite3.connect(path)) as connection, forbidden:  # without the ledger's own settings
        connection.execute(sql)
    assert events(path) == before


@pytest.mark.parametrize("column", ["body", "kind", "run_id", "utc", "hash", "prev_hash"])
@pytest.mark.parametrize("seq", [1, 3, 7])
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


# -- what the events say -----------------------------------------------------------------------------------------------


def folded(*bodies: dict[str, Any]) -> Folded:
    found = Folded()
    for seq, body in enumerate(bodies, 1):
        found.add(seq, "r", canonical(body))
    return found


def test_a_row_is_what_was_put_last_and_changed_since() -> None:
    found = folded(
        {"insert": "runs", "row": {"id": "r", "status": "running", "seed": 1}},
        {"update": "runs", "key": ["r"], "set": {"status": "failed"}},
        {"insert": "runs", "row": {"id": "r", "status": "running", "seed": 2}},
        {"update": "runs", "key": ["r"], "set": {"status": "complete"}},
        {"why": "a fact of its own"},
    )
    assert found.rows == {("runs", "r"): {"id": "r", "status": "complete", "seed": 2}}
    assert found.seqs == {("runs", "r"): 4}


def test_a_text_is_named_first_where_it_first_appears_in_rows_and_facts() -> None:
    found = folded(
        {"kind": 1, "reply_hash": "a"},
        {"insert": "calls", "row": {"id": 1, "request_hash": "b", "response_hash": ""}},
        {"update": "calls", "key": [1], "set": {"response_hash": "a"}},
    )
    assert found.texts == {"a": 1, "b": 2}


def test_an_erased_text_that_is_named_again_is_no_longer_erased() -> None:
    found = folded({"x_hash": "a"}, {"erased": ["a", "b"]}, {"y_hash": "a"})
    assert found.erased == {"b"}


@pytest.mark.parametrize(
    "body",
    ["", "[]", "1", '{"insert":"nowhere","row":{}}', '{"insert":"runs","row":{}}', '{"update":"runs","key":["x"]}'],
)
def test_a_body_that_no_event_can_have_is_refused(body: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        Folded().add(1, "r", body)
