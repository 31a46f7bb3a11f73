"""A ledger of every released schema still opens with all that it held; what is newer, or no ledger, is left alone."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent.errors import LedgerError
from agent.gateway.budget import Account
from agent.gateway.gateway import Gateway
from agent.ledger import connect, ledger_file, schema, store
from agent.ledger.query import History
from agent.ledger.schema import STEPS
from agent.ledger.store import Ledger
from agent.ledger.verify import verify
from agent.types import Budget, Message, Request
from tests.ledger import ledgers
from tests.ledger.ledgers import read
from tests.toys import FakeModel, open_ledger

SCHEMA_1 = Path(__file__).resolve().parents[1] / "assets" / "ledger-schema1.db"
BOTH = pytest.mark.parametrize("opens", [History, Ledger])


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.db"
    shutil.copy(SCHEMA_1, path)
    return path


@pytest.fixture
def before(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """The old ledger as it was, to compare with."""
    shutil.copy(SCHEMA_1, tmp_path / "before.db")
    with closing(sqlite3.connect(tmp_path / "before.db")) as db:
        db.row_factory = sqlite3.Row
        yield db


@pytest.fixture
def new(old: Path) -> Path:
    """The same ledger after it was opened and closed."""
    Ledger(old).close()
    return old


def of_the_second_schema(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A whole ledger as the version before made it."""
    path = folder / "ledger.db"
    with monkeypatch.context() as patch:
        for module in (connect, ledger_file, schema):
            patch.setattr(module, "STEPS", STEPS[:2])
        tokens = store._tokens
        patch.setattr(store, "_tokens", lambda u: {k: v for k, v in tokens(u).items() if k != "written_prompt_tokens"})
        schema.expected_objects.cache_clear()
        ledgers.make(path)
        assert History(path).runs()
    schema.expected_objects.cache_clear()
    return path


def test_the_second_schema_gets_its_column_and_stays_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = of_the_second_schema(tmp_path, monkeypatch)
    with closing(Ledger(path)) as ledger:
        assert verify(ledger.db) == []
        assert ledger.settled(f"k-{ledgers.candidates()[0].id}-0") is not None
    assert read(path, "PRAGMA user_version") == [(len(STEPS),)]
    assert read(path, "SELECT COUNT(*) FROM events WHERE kind = 'row_adopted'") == [(0,)], "no row is told of again"
    assert read(path, "SELECT DISTINCT written_prompt_tokens FROM calls") == [(0,)]
    assert read(path, "SELECT DISTINCT error FROM runs") == [("",)]
    assert path.with_name("ledger.db.schema2").exists()
    assert {run["id"] for run in History(path).runs()} == {"run-1", "run-2"}


def test_a_tampered_ledger_of_the_second_schema_is_refused_and_not_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = of_the_second_schema(tmp_path, monkeypatch)
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE trials SET mean = 0.99 WHERE number = 2")
        db.commit()
    for opens in (Ledger, History):
        with pytest.raises(LedgerError, match=r"not what was written: event \d+: a row of trials .*mean"):
            opens(path)
    assert read(path, "PRAGMA user_version") == [(2,)]


# -- from the first schema ---------------------------------------------------------------------------------------------


def test_it_is_whole_after_it_was_brought_up_to_date_and_opens_again(new: Path) -> None:
    assert read(new, "PRAGMA user_version") == [(len(STEPS),)]
    with closing(Ledger(new)) as ledger:
        assert verify(ledger.db) == []
    assert read(new, "SELECT COUNT(*) FROM events WHERE kind = 'row_adopted' AND body LIKE '%\"runs\"%'") == [(1,)]


@pytest.mark.parametrize("made", ["new", "whole"])
def test_a_migrated_and_a_fresh_ledger_hold_what_the_schema_has_and_no_table_of_migrations(
    made: str, request: pytest.FixtureRequest
) -> None:
    objects = read(request.getfixturevalue(made), "SELECT type, name FROM sqlite_master")
    assert set(objects) == set(schema.expected_objects())


def test_a_ledger_that_is_up_to_date_is_opened_without_sqlite_utils(whole: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from agent.ledger.store import Ledger; Ledger(Path(sys.argv[1])).close()"
    )
    code += "; from agent.ledger.query import History; History(Path(sys.argv[1]), by_chain=True)"
    asked = [sys.executable, "-c", f"{code}; assert 'sqlite_utils' not in sys.modules", str(whole)]
    subprocess.run(asked, check=True, cwd=SCHEMA_1.parents[2], timeout=60)


def test_its_events_stand_and_the_head_that_its_release_names_is_still_an_anchor(
    new: Path, before: sqlite3.Connection
) -> None:
    first = [tuple(row) for row in before.execute("SELECT * FROM events ORDER BY seq")]
    assert read(new, "SELECT * FROM events WHERE seq <= ? ORDER BY seq", len(first)) == first
    with closing(sqlite3.connect(new)) as db:
        assert verify(db, anchor=first[-1][-1]) == []


def test_every_run_is_there_with_its_result(new: Path, before: sqlite3.Connection) -> None:
    runs = {run["id"]: run for run in History(new).runs()}
    was = before.execute("SELECT * FROM runs").fetchall()
    assert runs.keys() == {row["id"] for row in was}
    for row in was:
        run = runs[row["id"]]
        for name in ("task", "status", "model", "proposer", "seed", "started_utc", "ended_utc", "tool"):
            assert run[name] == row[name]
        for name in ("hashes", "budget", "plan", "result", "tags"):
            assert run[name] == json.loads(row[name])
        assert (run["origin"], run["options"], run["parent"], run["prices"]) == ({}, {}, None, "")


def test_every_trial_is_there_with_its_candidate(new: Path, before: sqlite3.Connection) -> None:
    history = History(new)
    was = before.execute("SELECT t.*, c.* FROM trials t JOIN candidates c ON c.id = t.candidate_id").fetchall()
    trials = {trial["number"]: trial for trial in history.trials(was[0]["run_id"])}
    assert len(trials) == len(was) == 7
    for row in was:
        for name in ("state", "n", "mean", "low", "high", "reason", "technique", "format", "n_demos", "instruction"):
            assert trials[row["number"]][name] == row[name]


def test_every_candidate_is_there_with_its_texts_and_demos(new: Path, before: sqlite3.Connection) -> None:
    history = History(new)
    was = before.execute("SELECT * FROM candidates").fetchall()
    assert len(was) == 31
    for row in was:
        found = history.candidate(row["id"])
        assert (found["instruction"], found["role"]) == (row["instruction"], row["role"])
        assert found["template"] == json.loads(row["template"])
        demos = before.execute("SELECT * FROM demos WHERE candidate_id = ? ORDER BY position", (row["id"],)).fetchall()
        assert [
            (d["position"], d["example_id"], d["source"], d["inputs"], d["outputs"], d["rationale"])
            for d in found["demos"]
        ] == [
            (d[1], d["example_id"], d["source"], json.loads(d["inputs"]), json.loads(d["outputs"]), d["rationale"])
            for d in demos
        ]


def test_every_outcome_is_there_with_its_reply(new: Path, before: sqlite3.Connection) -> None:
    history = History(new)
    was = before.execute("SELECT * FROM outcomes").fetchall()
    assert len(was) == 70
    for run_id, candidate_id, split in {(row["run_id"], row["candidate_id"], row["split"]) for row in was}:
        found = {outcome["example_id"]: outcome for outcome in history.outcomes(run_id, candidate_id, split)}
        for row in was:
            if (row["run_id"], row["candidate_id"], row["split"]) == (run_id, candidate_id, split):
                outcome = found[row["example_id"]]
                assert (outcome["value"], outcome["reply"]) == (row["value"], row["reply"])
                assert (outcome["fields"], outcome["error"]) == (json.loads(row["fields"]), row["error"])
                assert outcome["scores"] == json.loads(row["scores"])


def test_a_run_on_it_takes_every_reply_that_was_paid_for(old: Path, before: sqlite3.Connection) -> None:
    calls = before.execute("SELECT k.*, b.body FROM calls k JOIN blobs b ON b.hash = k.request_hash").fetchall()
    assert len(calls) == 70
    lm = FakeModel(lambda request: "bought again", calls[0]["model"])

    async def ask_again() -> None:
        ledger = open_ledger(old, "run-new")
        gateway = Gateway(ledger, "run-new", Account(Budget(max_calls=0)), {})
        for call in calls:
            sent = json.loads(call["body"])
            messages = tuple(Message(**message) for message in sent.pop("messages"))
            lists = {name: tuple(value) for name, value in sent.items() if isinstance(value, list)}
            reply = await gateway.complete("target", lm, Request(messages, **{**sent, **lists}))
            (body,) = before.execute("SELECT body FROM blobs WHERE hash = ?", (call["response_hash"],)).fetchone()
            assert reply.text == json.loads(body)["text"]
        assert gateway.account.cached == 70
        ledger.close()

    asyncio.run(ask_again())
    assert lm.seen == []


def test_a_copy_of_the_old_file_is_kept_beside_it(new: Path, before: sqlite3.Connection) -> None:
    copy = new.with_name("ledger.db.schema1")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with closing(sqlite3.connect(copy)) as db:
        assert list(db.iterdump()) == list(before.iterdump())
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
    assert {file.name for file in new.parent.iterdir() if "schema" in file.name} == {copy.name}


def test_a_copy_that_is_there_already_stays_as_it_is(old: Path) -> None:
    old.with_name("ledger.db.schema1").write_text("an older one")
    Ledger(old).close()
    assert old.with_name("ledger.db.schema1").read_text() == "an older one"


def test_a_copy_that_was_cut_off_is_made_again(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(sqlite3.Connection):
        def backup(self, *args: Any, **more: Any) -> None:
            raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        plain = sqlite3.connect
        patch.setattr(connect.sqlite3, "connect", lambda *args, **more: plain(*args, factory=Full, **more))
        with pytest.raises(LedgerError, match="disk is full"):
            Ledger(old)
    assert read(old, "PRAGMA user_version") == [(1,)]
    Ledger(old).close()
    assert read(old.with_name("ledger.db.schema1"), "SELECT COUNT(*) FROM calls") == [(70,)]


def test_the_old_file_is_only_read_until_somebody_writes(old: Path) -> None:
    content = old.read_bytes()
    with pytest.raises(
        LedgerError, match="written by an older version \\(schema 1\\); opening it for writing updates it"
    ):
        History(old)
    assert old.read_bytes() == content
    assert not old.with_name("ledger.db.schema1").exists()


def test_a_call_that_was_open_becomes_unknown_and_its_run_killed(old: Path) -> None:
    with closing(sqlite3.connect(old)) as db:
        db.execute("UPDATE calls SET state = 'sent', reserved_usd = 0.5 WHERE id = 3")
        db.execute("UPDATE runs SET status = 'running'")
        db.commit()
    Ledger(old).close()
    assert read(old, "SELECT state, cost_usd FROM calls WHERE id = 3") == [("unknown", 0.5)]
    assert read(old, "SELECT status FROM runs") == [("killed",)]


def test_a_step_that_fails_leaves_the_old_ledger_as_it_was(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dump = list(sqlite3.connect(old).iterdump())
    monkeypatch.setattr(connect, "STEPS", (STEPS[0], f"{STEPS[1]} INSERT INTO nowhere VALUES (1);"))
    with pytest.raises(LedgerError, match="nowhere"):
        Ledger(old)
    assert list(sqlite3.connect(old).iterdump()) == dump
    assert read(old, "PRAGMA user_version") == [(1,)]
    monkeypatch.undo()
    with closing(Ledger(old)) as ledger:
        assert verify(ledger.db) == []


def test_a_damaged_old_ledger_is_refused_before_anything_is_made_of_it(old: Path) -> None:
    content = bytearray(old.read_bytes())
    content[8192:12288] = b"\xa5" * 4096
    old.write_bytes(content)
    with pytest.raises(LedgerError) as caught:
        Ledger(old)
    assert "\n" not in str(caught.value)
    assert old.read_bytes() == content
    assert not old.with_name("ledger.db.schema1").exists()


def test_an_old_ledger_without_a_run_is_brought_up_to_date_too(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(f"{STEPS[0]} PRAGMA user_version = 1;")
    with closing(Ledger(path)) as ledger:
        assert verify(ledger.db) == []


# -- what is newer, or no ledger ---------------------------------------------------------------------------------------


def refused(opens: Callable[[Path], object], path: Path, why: str | None = None) -> None:
    """The opener refuses in one line with advice, and the file stays as it was, byte by byte."""
    content = path.read_bytes()
    with pytest.raises(LedgerError, match=why) as caught:
        opens(path)
    assert str(path) in str(caught.value)
    assert any(advice in str(caught.value) for advice in ("--db", "optimize audit"))
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content


@BOTH
def test_a_newer_schema_is_refused_without_a_write(whole: Path, opens: Callable[[Path], object]) -> None:
    with closing(sqlite3.connect(whole)) as db:
        db.execute("PRAGMA user_version = 99")
    refused(opens, whole, r"written by a newer version \(schema 99\)")
    assert not list(whole.parent.glob("*.schema*"))


@BOTH
@pytest.mark.parametrize("version", [0, 1, len(STEPS), 7])
@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_the_database_of_another_program_is_refused_without_a_write(
    tmp_path: Path, opens: Callable[[Path], object], version: int, journal: str
) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(
            f"PRAGMA journal_mode = {journal}; CREATE TABLE songs (title TEXT); INSERT INTO songs VALUES ('x');"
            f"PRAGMA user_version = {version};"
        )
    refused(opens, path)
    assert not list(path.parent.glob("*.schema*"))


@BOTH
@pytest.mark.parametrize(
    "content",
    [
        b"this is no database, only a long enough text\n" * 50,
        b"short",
        b"\x89PNG\r\n" + b"\0" * 4096,
        b"SQLite format 3\0" + b"\xff" * 4096,
    ],
    ids=["text", "short", "picture", "header"],
)
def test_a_file_that_is_no_database_is_refused_without_a_write(
    tmp_path: Path, opens: Callable[[Path], object], content: bytes
) -> None:
    file = tmp_path / "notes.txt"
    file.write_bytes(content)
    refused(opens, file)


@BOTH
@pytest.mark.parametrize("beside", ["ledger.db.seal", "ledger.db-wal"])
def test_a_ledger_that_was_emptied_is_refused_without_a_write(
    tmp_path: Path, opens: Callable[[Path], object], beside: str
) -> None:
    """SQLite takes an empty file for a new one, and throws its log away."""
    (tmp_path / beside).write_bytes(b"1234 5678")
    (tmp_path / "ledger.db").touch()
    refused(opens, tmp_path / "ledger.db")
    assert (tmp_path / beside).read_bytes() == b"1234 5678"


@BOTH
def test_a_ledger_that_is_gone_but_for_its_log_is_refused_without_a_write(
    whole: Path, opens: Callable[[Path], object]
) -> None:
    """SQLite would throw the log away, and with it all that was paid for since the ledger was last closed."""
    log = whole.with_name("ledger.db-wal")
    log.write_bytes(b"the log of a run that was killed")
    whole.unlink()
    with pytest.raises(LedgerError, match=r"the file is gone.*restore a copy"):
        opens(whole)
    assert not whole.exists()
    assert log.read_bytes() == b"the log of a run that was killed"
    log.unlink()
    Ledger(whole).close()  # the seal alone is in nobody's way


def test_an_empty_file_becomes_a_ledger(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").touch()
    open_ledger(tmp_path / "ledger.db").close()
    assert len(History(tmp_path / "ledger.db").runs()) == 1


def test_an_older_ledger_whose_schema_was_changed_is_refused_and_left_as_it_is(old: Path) -> None:
    with closing(sqlite3.connect(old)) as db:
        db.execute("CREATE UNIQUE INDEX mine ON calls(run_id) WHERE state = 'none'")
        db.commit()
        before = list(db.iterdump())
    with pytest.raises(LedgerError, match="index mine was added to calls"):
        Ledger(old)
    with closing(sqlite3.connect(old)) as db:
        assert list(db.iterdump()) == before
