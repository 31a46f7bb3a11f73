"""A team's ledger: finished runs, published to one database with SQLAlchemy and verified on reading.

The tables are those of a ledger, with the published `run` as first key column. A run is published in one transaction,
so that a broken connection leaves nothing or everything, and publishing again is harmless.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    URL,
    BigInteger,
    Column,
    Connection,
    Double,
    Engine,
    MetaData,
    Table,
    Text,
    create_engine,
    inspect,
    make_url,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from agent.errors import InputError, LedgerError
from agent.extras import require
from agent.ledger.anchors import FoundWrong
from agent.ledger.chain import AUDITED, EVENT, Finding, Row, columns_of
from agent.ledger.connect import refuse_merged
from agent.ledger.provenance import tool_version, utc_now
from agent.ledger.publication import Published, PublishedReading, differences, digest_of, publication
from agent.ledger.query import History
from agent.redact import redact, without_password

BATCH = 1000  # rows that are sent at once
PATIENCE = {"connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
"""How long (seconds, tries) psycopg waits for a silent server."""
PREFIX = "promptassay_"
FORMS = "postgresql://USER@HOST/NAME (the password in PGPASSWORD or ~/.pgpass) or sqlite:///FILE"
PUBLISHED = {
    **dict.fromkeys(("ledger", "digest", "tool", "published_utc"), "TEXT"),
    **dict.fromkeys(("events", "texts"), "INTEGER"),
}
"""What is noted of a published run: columns with their types."""


def database(url: str) -> URL:
    """Return the address of a team's ledger. Raises InputError, without passwords, for another address."""
    try:
        found = make_url(url)
    except (ArgumentError, ValueError):
        raise InputError(f"--ledger-url, --to, --from: not a database address; give {FORMS}") from None
    kind = found.get_backend_name()
    if kind not in {"postgresql", "postgres", "sqlite"}:
        raise InputError(f"{without_password(url)}: unsupported kind of database; give {FORMS}")
    if kind == "sqlite":
        if found.host or found.username or found.query:
            raise InputError(f"{without_password(url)}: SQLite takes only a file; give sqlite:///FILE")
        if found.database in {None, "", ":memory:"}:
            raise InputError(f"{url}: names no file, so nothing would be kept; give sqlite:///FILE")
        return found.set(drivername="sqlite")
    require("team", "a team's ledger in PostgreSQL")
    return found.set(drivername="postgresql+psycopg")


def publish(history: History, run_id: str, url: str, texts: bool = False) -> Published:
    """Publish a finished run to a team's ledger in one transaction. `texts` adds prompts, requests and replies."""
    target = database(url)
    refuse_merged(history.db, history.path, "a run is published from its own ledger")
    if target.database and os.path.realpath(target.database) == os.path.realpath(history.path):
        raise InputError(f"{history.path}: is the ledger itself; name another database")
    record, tables = publication(history, run_id, texts)

    with _connected(target, url) as (engine, metadata):
        try:
            new = _write(engine, metadata, record, tables)
        except IntegrityError:  # just published by somebody else
            new = _write(engine, metadata, record, tables)
    counts = {name: record[name] for name in ("events", "texts", "digest")}
    rows = sum(len(tables[name]) for name in AUDITED)
    return Published(run_id=record["run"], to=without_password(url), rows=rows, new=new, **counts)


def _write(engine: Engine, metadata: MetaData, record: Row, tables: Mapping[str, list[Row]]) -> bool:
    with engine.begin() as db:
        metadata.create_all(db)
        if (there := _there(db, metadata, record["run"])) is not None:
            if there["digest"] == record["digest"] and (there["texts"] or not record["texts"]):
                return False
            hashes = {event["hash"] for event in _rows(db, metadata, "events", record["run"], ("seq",))}
            if there["ledger"] != record["ledger"] or not hashes <= {event["hash"] for event in tables["events"]}:
                raise LedgerError(f"{record['run']}: another run with this id is there already; nothing was written")
            for table in metadata.tables.values():
                db.execute(table.delete().where(table.c.run == record["run"]))
        made = {"tool": tool_version(), "published_utc": utc_now()}
        for name, rows in {"published": [record | made], **tables}.items():  # a second publisher waits for the first
            for start in range(0, len(rows), BATCH):
                batch = [{**row, "run": record["run"]} for row in rows[start : start + BATCH]]
                db.execute(metadata.tables[PREFIX + name].insert(), batch)
    return True


def verify_published(url: str, run_id: str, anchor: str | None = None) -> PublishedReading:
    """Verify each event, row and text of a published run. `anchor` is a digest or hash recorded elsewhere."""
    target = database(url)
    missing = InputError(f"{run_id}: no such run in {without_password(url)}; `optimize ledger publish` adds it")
    if target.get_backend_name() == "sqlite" and not os.path.exists(target.database or ""):
        raise missing  # connecting would create the file
    with _connected(target, url) as (engine, metadata), engine.connect() as db:
        there = _there(db, metadata, run_id)
        if there is None:
            raise missing
        events = _rows(db, metadata, "events", run_id, ("seq",))
        rows = {table: _rows(db, metadata, table, run_id, AUDITED[table]) for table in AUDITED}
        texts = _rows(db, metadata, "texts", run_id, ("hash",))
    digest = digest_of(events)
    found = list(differences([{name: event[name] for name in EVENT} for event in events], rows, texts))
    if (len(events), digest) != (there["events"], there["digest"]) or len(texts) != there["texts"]:
        found.append(Finding(0, "events or texts are missing, or there are more than were published"))
    if anchor is not None and anchor not in {digest, *(event["hash"] for event in events)}:
        found.append(Finding(0, f"neither the run nor one of its events has the noted hash: {anchor}"))
    counts = {"events": len(events), "rows": sum(map(len, rows.values())), "texts": len(texts)}
    return PublishedReading(run_id=run_id, digest=digest, findings=FoundWrong.of(found), **counts)


def _rows(db: Connection, metadata: MetaData, name: str, run_id: str, key: tuple[str, ...]) -> list[dict[str, Any]]:
    table = metadata.tables[PREFIX + name]
    asked = table.select().where(table.c.run == run_id).order_by(*(table.c[column] for column in key))
    return [{column: value for column, value in row.items() if column != "run"} for row in db.execute(asked).mappings()]


def _there(db: Connection, metadata: MetaData, run_id: str) -> dict[str, Any] | None:
    table = metadata.tables[f"{PREFIX}published"]
    if not inspect(db).has_table(table.name):
        return None
    found = db.execute(table.select().where(table.c.run == run_id)).mappings().first()
    return None if found is None else dict(found)


@contextmanager
def _connected(target: URL, url: str) -> Iterator[tuple[Engine, MetaData]]:
    arguments = PATIENCE if target.get_backend_name() == "postgresql" else {}
    try:
        engine = create_engine(target, poolclass=NullPool, hide_parameters=True, connect_args=arguments)
        try:
            yield engine, _metadata()
        finally:
            engine.dispose()
    except (SQLAlchemyError, ValueError) as error:  # ValueError: a driver option in the address
        said = str(error.orig if isinstance(error, DBAPIError) else error)
        secrets = tuple(word for word in (target.password, str(target.query.get("password", ""))) if word)
        line = without_password(redact(" ".join(said.split()), secrets))
        raise LedgerError(f"{without_password(url)}: the database refused it: {line}") from None


def _metadata() -> MetaData:
    metadata, types = MetaData(), {"TEXT": Text, "INTEGER": BigInteger, "REAL": Double}
    of: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {"published": ((), PUBLISHED)}
    for table, key in {**AUDITED, "events": ("seq",), "blobs": ("hash",)}.items():
        kinds = {column: kind for column, (kind, _) in columns_of(table).items()}
        of["texts" if table == "blobs" else table] = key, kinds
    for name, (key, columns) in of.items():
        made: list[Column[Any]] = [
            Column(column, types[kind], primary_key=column in key) for column, kind in columns.items()
        ]
        Table(PREFIX + name, metadata, Column("run", Text, primary_key=True), *made)
    return metadata
