"""A team's ledger: what was published is read back as it was, whatever is changed there is found, and a connection that
is cut leaves nothing half done. In SQLite everywhere, in PostgreSQL where a server and the extra `team` are there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import create_engine, make_url, text

from agent.errors import InputError, LedgerError
from agent.extras import is_here
from agent.ledger import team_store
from agent.ledger.container import merge_ledgers
from agent.ledger.publication import Published
from agent.ledger.query import History
from agent.ledger.store import Ledger, NewRun
from agent.ledger.team_store import database, publish, verify_published
from tests.ledger import postgres
from tests.ledger.ledgers import copy, make, read
from tests.toys import make_task

TABLES = ("published", "events", "runs", "candidates", "examples", "proposals", "trials", "outcomes", "calls", "texts")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    if not is_here("team"):
        pytest.skip("psycopg is not installed (extra team)")
    if postgres.binaries() is None:
        pytest.skip("no PostgreSQL server is installed")
    with postgres.server() as found:
        yield found


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a database with nothing in it."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/team.sqlite"
    found = address(request.getfixturevalue("port"))
    with closing_engine(address(request.getfixturevalue("port"), "postgres")) as db:
        db.execute(text("DROP DATABASE IF EXISTS team WITH (FORCE)"))
        db.execute(text("CREATE DATABASE team"))
    return found


def address(port: int, name: str = "team") -> str:
    return f"postgresql://{postgres.USER}:{postgres.PASSWORD}@127.0.0.1:{port}/{name}"


@contextmanager
def closing_engine(url: str) -> Iterator[Any]:
    """A connection of the test's own, which commits each statement."""
    engine = create_engine(database(url), isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def put(path: Path, run_id: str, url: str, texts: bool = False) -> Published:
    with closing(History(path)) as history:
        return publish(history, run_id, url, texts)


def counts(url: str) -> dict[str, int]:
    with closing_engine(url) as db:
        return {name: db.execute(text(f"SELECT COUNT(*) FROM promptassay_{name}")).scalar() for name in TABLES}


def test_a_run_is_read_back_as_it_was(original: Path, url: str) -> None:
    made = put(original, "run-1", url, texts=True)
    assert made.new
    found = verify_published(url, "run-1")
    assert found.findings == ()
    assert (found.events, found.rows, found.texts, found.digest) == (made.events, made.rows, made.texts, made.digest)
    with closing_engine(url) as db:
        for table, key in (("calls", "id"), ("trials", "number"), ("outcomes", "candidate_id, example_id")):
            there = db.execute(text(f"SELECT * FROM promptassay_{table} ORDER BY {key}")).mappings()
            names = [name for (name,) in read(original, "SELECT name FROM pragma_table_info(?)", table)]
            own = read(original, f"SELECT * FROM {table} WHERE run_id = 'run-1' ORDER BY {key}")
            assert [tuple(row[name] for name in names) for row in there] == own
        bodies = db.execute(text("SELECT hash, body FROM promptassay_texts")).all()
    assert set(map(tuple, bodies)) <= set(read(original, "SELECT hash, body FROM blobs"))


def test_texts_are_published_only_when_they_are_wanted(original: Path, url: str) -> None:
    assert put(original, "run-1", url).texts == 0
    assert counts(url)["texts"] == 0
    with closing_engine(url) as db:
        everything = json.dumps(
            [[*map(str, row)] for name in TABLES for row in db.execute(text(f"SELECT * FROM promptassay_{name}"))]
        )
    assert "Answer with one team" not in everything
    assert put(original, "run-1", url, texts=True).new
    assert counts(url)["texts"] > 0
    assert not put(original, "run-1", url).new
    assert counts(url)["texts"] > 0


def test_again_adds_nothing_and_what_came_since_takes_its_place(original: Path, tmp_path: Path, url: str) -> None:
    path = copy(original, tmp_path / "ledger.db")
    first = put(path, "run-1", url)
    put(path, "run-2", url)
    before = counts(url)
    assert not put(path, "run-1", url).new
    assert counts(url) == before
    with closing(Ledger(path)) as ledger:
        ledger.event("run-1", "promoted", {"why": "better"})
    again = put(path, "run-1", url)
    assert again.new
    assert again.events == first.events + 1
    assert counts(url) == {**before, "events": before["events"] + 1}
    assert [verify_published(url, run).findings for run in ("run-1", "run-2")] == [(), ()]


def test_another_run_of_the_same_name_is_refused(original: Path, tmp_path: Path, url: str) -> None:
    put(original, "run-1", url)
    before = counts(url)
    with pytest.raises(LedgerError, match="run-1: another run with this id"):
        put(make(tmp_path / "other.db", ("run-1",)), "run-1", url)
    assert counts(url) == before


CHANGES = (
    "UPDATE promptassay_trials SET mean = 0.99 WHERE number = 1",
    "UPDATE promptassay_outcomes SET value = 1",
    "UPDATE promptassay_calls SET cost_usd = 0",
    "UPDATE promptassay_runs SET seed = 8",
    "UPDATE promptassay_events SET body = replace(body, '0.5', '0.6')",
    "UPDATE promptassay_events SET utc = '2020'",
    "DELETE FROM promptassay_events WHERE seq = (SELECT MAX(seq) FROM promptassay_events)",
    "DELETE FROM promptassay_outcomes WHERE example_id = 'dev-1'",
    "DELETE FROM promptassay_candidates",
    "INSERT INTO promptassay_examples SELECT run, candidate_id, position + 9, example_id, source, body_hash "
    "FROM promptassay_examples",
    "UPDATE promptassay_texts SET body = 'x'",
    "DELETE FROM promptassay_texts",
    "UPDATE promptassay_published SET digest = 'x'",
)


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_changed_there_is_found(original: Path, tmp_path: Path, change: str) -> None:
    url = f"sqlite:///{tmp_path}/team.sqlite"
    put(original, "run-1", url, texts=True)
    with closing_engine(url) as db:
        assert db.execute(text(change)).rowcount > 0
    assert verify_published(url, "run-1").findings


def test_a_chain_that_was_made_anew_is_shown_by_a_digest_that_was_noted(original: Path, tmp_path: Path) -> None:
    one, two = (f"sqlite:///{tmp_path}/{name}.sqlite" for name in ("one", "two"))
    noted = put(original, "run-1", one).digest
    put(make(tmp_path / "other.db", ("run-1",)), "run-1", two)
    assert verify_published(two, "run-1").findings == ()
    assert verify_published(one, "run-1", noted).findings == ()
    (finding,) = verify_published(two, "run-1", noted).findings
    assert noted in finding.what


def test_a_connection_that_is_cut_anywhere_leaves_nothing_or_all(original: Path, url: str) -> None:
    if url.startswith("sqlite"):
        pytest.skip("a file has no connection")
    whole_port = int(url.rpartition(":")[2].partition("/")[0])
    proxy = postgres.CuttingProxy(whole_port)
    through = address(proxy.port)
    try:
        proxy.cut_after(-1)
        put(original, "run-2", through)
        whole, before = proxy.passed, counts(url)
        outcomes = set()
        for part in (0.02, 0.2, 0.4, 0.6, 0.8, 0.95, 0.999):
            proxy.cut_after(int(whole * part))
            try:
                put(original, "run-1", through)
                outcomes.add("all")
            except LedgerError as error:
                outcomes.add("refused" if postgres.PASSWORD not in str(error) else "the password")
            assert counts(url) in (before, {name: 2 * count for name, count in before.items()})
        assert outcomes in ({"refused"}, {"refused", "all"})
        proxy.cut_after(-1)
        put(original, "run-1", through)
    finally:
        proxy.close()
    assert counts(url) == {name: 2 * count for name, count in before.items()}
    assert verify_published(url, "run-1").findings == ()


def test_a_password_is_in_no_error(original: Path, tmp_path: Path) -> None:
    secret = "p@ss/w0rd-123"
    urls = [
        f"postgresql://team:{quote(secret, safe='')}@127.0.0.1:1/team",
        f"postgresql://team@127.0.0.1:1/team?password={quote(secret, safe='')}",
        f"mysql://team:{secret}@127.0.0.1/team",
        f"team:{secret}",
    ]
    for url in urls:
        with pytest.raises((InputError, LedgerError)) as caught:
            put(original, "run-1", url)
        for form in (secret, quote(secret, safe="")):
            assert form not in str(caught.value), url
        assert "\n" not in str(caught.value)
        assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "url", ["sqlite://team.sqlite", "sqlite:///team.sqlite?timeout=abc", "sqlite://me@/team.sqlite"]
)
def test_an_address_that_sqlite_does_not_take_is_refused_before_it_is_used(url: str) -> None:
    with pytest.raises(InputError, match="SQLite takes only a file; give sqlite:///FILE"):
        database(url)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_a_database_that_vanishes_is_refused(url: str) -> None:
    with pytest.raises(InputError, match=f"{url}: names no file, so nothing would be kept"):
        database(url)


def test_what_is_only_read_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run-1: no such run"):
        verify_published(f"sqlite:///{tmp_path}/none.sqlite", "run-1")
    assert list(tmp_path.iterdir()) == []


def test_what_the_driver_does_not_take_is_said_in_a_line(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unchecked = make_url("sqlite:///team.sqlite?timeout=abc")
    monkeypatch.setattr(team_store, "database", lambda url: unchecked)
    with pytest.raises(LedgerError, match="the database refused it: could not convert string to float"):
        put(original, "run-1", "sqlite:///team.sqlite")


def test_what_cannot_be_published_is_refused(original: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/team.sqlite"
    path = copy(original, tmp_path / "ledger.db")
    with pytest.raises(InputError, match="is the ledger itself"):
        put(path, "run-1", f"sqlite:///{path}")
    merged = merge_ledgers([original, make(tmp_path / "b.db", ("b-1",))], tmp_path / "merged.db").ledger
    with pytest.raises(LedgerError, match="a merged ledger: a run is published from its own ledger"):
        put(merged, "run-1", url)
    with closing(Ledger(path)) as ledger:
        ledger.begin_run(NewRun("run-3", make_task(), "m", "p", 7, {}, {}))
    with pytest.raises(LedgerError, match=r"run-3: not finished \(killed\)"):
        put(path, "run-3", url)
    put(path, "run-2", url)
    with pytest.raises(InputError, match="run-1: no such run in sqlite"):
        verify_published(url, "run-1")


def test_a_text_with_nul_is_kept(tmp_path: Path, url: str) -> None:
    path = tmp_path / "ledger.db"
    with closing(Ledger(path)) as ledger:
        ledger.begin_run(NewRun("run-1", make_task(), "m\0n", "p", 7, {}, {"why": "a\0b"}))
        ledger.event("run-1", "note", {"what": "x"}, {"said": "nul \0 here"})
        ledger.end_run("run-1", "complete", 1.0)
    put(path, "run-1", url, texts=True)
    assert verify_published(url, "run-1").findings == ()


def test_candidates_of_an_earlier_run_are_proved_too(original: Path, url: str) -> None:
    put(original, "run-2", url)
    assert counts(url)["candidates"] == len(read(original, "SELECT DISTINCT candidate_id FROM proposals"))
    assert verify_published(url, "run-2").findings == ()
