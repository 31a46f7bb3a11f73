"""`optimize doctor`: whether this machine can run searches, and whether the ledger is whole."""

from __future__ import annotations

import asyncio
import os
import platform
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import PackageNotFoundError
from pathlib import Path

from agent.errors import InputError, LedgerError, RunRefused
from agent.extras import MODULES, command, is_here, version_of
from agent.gateway.prices import prices_version
from agent.jobs.registry import DB, Printed, job
from agent.ledger.connect import NeedsWriter, is_there, owner_of, reader, schema_of
from agent.ledger.files import is_held, seal_holds
from agent.ledger.query import History
from agent.models import model_registry, weights
from agent.models.hosted import HostedModel, bare_address
from agent.options.kinds import Texts
from agent.options.option import option
from agent.redact import ALLOW_TRACING, silence_tracing
from agent.report.blocks import Block, table
from agent.results.base import Result

PACKAGES = ("promptassay", "xllamacpp", "openai", "anthropic", "optuna", "sqlite-utils", "click")
KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_COMPATIBLE_API_KEY")
ADDRESSES = {"OPENAI_BASE_URL": "openai/NAME and openai-compatible/NAME:", "ANTHROPIC_BASE_URL": "anthropic/NAME:"}
OLDEST_SQLITE = (3, 38)
WAL_BUG = ((3, 7, 0), (3, 51, 2))  # the first and the last version of SQLite that have it
SYNCS = 5
STATES = {True: "ok", False: "PROBLEM", None: "-"}
Look = tuple[str, bool | None, str]
"""The parts of `Examined`."""


class Examined(Result):
    """One part: whether it is fit, and what was found. `ok` is None for an optional part that is not there."""

    what: str
    ok: bool | None
    found: str


class DoctorResult(Result):
    """Whether this machine is ready, and why."""

    healthy: bool
    checks: tuple[Examined, ...]

    def blocks(self) -> Iterator[Block]:
        rows = [(each.what, STATES[each.ok], each.found) for each in self.checks]
        yield table("doctor", ("what", "", "found"), rows, tabbed=True)


@job("doctor")
def doctor(
    *,
    model: Texts = option(
        (), "Look this model up at its provider, free of charge; repeatable.", short="-m", metavar="MODEL"
    ),
    db: Path = DB,
) -> Printed[DoctorResult]:
    """Check this machine: Python, SQLite, packages, embedded model, keys (never shown), tracing, disk and ledger.

    With --model also check whether a model can be asked: its address, key and name.
    """
    found = [*_machine(), *_tracing(), *map(_model, model), *_disk(db), *_ledger(db)]
    checks = tuple(Examined(what=what, ok=good, found=said) for what, good, said in found)
    result = DoctorResult(healthy=all(each.ok is not False for each in checks), checks=checks)
    return Printed(result, 0 if result.healthy else 1)


def _machine() -> list[Look]:
    has_bug = WAL_BUG[0] <= sqlite3.sqlite_version_info[:3] <= WAL_BUG[1]
    note = "; its WAL-reset bug needs two writers, and a ledger has one" if has_bug else ""
    checks: list[Look] = [
        ("python", True, platform.python_version()),
        ("sqlite", sqlite3.sqlite_version_info >= OLDEST_SQLITE, sqlite3.sqlite_version + note),
        ("processors", True, str(os.cpu_count())),
    ]
    for package in PACKAGES:
        found = version_of(package)
        checks.append((package, bool(found), found or "not installed; run `make setup`"))
    for extra, package in MODULES.items():
        if is_here(extra):
            checks.append((package, True, version_of(package) or "installed"))  # the distribution may have another name
        else:
            checks.append((package, None, f"not installed; {command(extra)} brings it"))
    try:
        checks.append(("prices", True, prices_version()))
    except PackageNotFoundError:
        checks.append(("prices", False, "no price table; run `make setup`"))
    checks.append(_weights())
    checks += [(key, True, "set") if os.environ.get(key) else (key, None, "not set") for key in KEYS]
    for name, kinds in ADDRESSES.items():
        address = bare_address(os.environ.get(name, ""))
        checks.append((name, True, f"{kinds} rows go to {address}") if address else (name, None, "not set"))
    return checks


def _weights() -> Look:
    try:
        path = weights.weights_path(model_registry.DEFAULT_MODEL.removeprefix("local/"))
    except InputError as error:
        return (model_registry.DEFAULT_MODEL, False, str(error))
    return (
        model_registry.DEFAULT_MODEL,
        path.is_file(),
        str(path) if path.is_file() else "`optimize models fetch` gets it",
    )


def _model(name: str) -> Look:
    try:
        model_registry.require_files([name])
        lm = model_registry.create_model(name)
        unclear = asyncio.run(_probed(lm)) if isinstance(lm, HostedModel) else ""
    except (InputError, RunRefused) as error:
        return (name, False, str(error).removeprefix(f"{name}: "))
    state = f"cannot be told without a call: {unclear.removeprefix(f'{name}: ')}" if unclear else "answers"
    here = "runs on Ray" if name.startswith("ray/") else "runs in this process"
    return (name, True, state if isinstance(lm, HostedModel) else here)


async def _probed(lm: HostedModel) -> str:
    try:
        return await lm.probe()
    finally:
        await lm.close()


def _tracing() -> list[Look]:
    if os.environ.get(ALLOW_TRACING) == "1":
        return [("tracing", True, f"allowed by {ALLOW_TRACING}: prompts may leave this machine")]
    names = silence_tracing(dict(os.environ))
    return [("tracing", True, f"set, and switched off by us: {', '.join(names)}" if names else "none is set")]


def _disk(db: Path) -> list[Look]:
    folder = next((place for place in (db.parent, *db.absolute().parents) if place.is_dir()), Path())
    seconds = []
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            for _ in range(SYNCS):
                file.write(bytes(4096))
                started = time.perf_counter()
                file.flush()
                os.fsync(file.fileno())
                seconds.append(time.perf_counter() - started)
    except OSError as error:
        return [("disk", False, f"{folder}: cannot be written ({error.strerror}); name another place with --db")]
    return [("disk", True, f"{folder}: fsync takes {1000 * statistics.median(seconds):.1f} ms")]


def _ledger(db: Path) -> list[Look]:
    if not is_there(db):
        return [(str(db), True, "no ledger yet")]
    checks: list[Look] = [("schema", True, _schema(db))]
    checks.append(("lock", True, f"held by {owner_of(db)}" if is_held(db) else "free"))
    sealed = "fits" if seal_holds(db) else "none that fits: the ledger is checked whole when it is opened"
    checks.append(("seal", True, sealed))
    try:
        return [*checks, (str(db), True, f"{len(History(db, by_chain=True).runs())} runs, whole")]
    except NeedsWriter as error:
        return [*checks, (str(db), True, str(error).removeprefix(f"{db}: "))]
    except LedgerError as error:
        return [*checks, (str(db), False, str(error))]


def _schema(db: Path) -> str:
    try:
        with closing(reader(db)) as connection:
            return str(schema_of(connection))
    except (sqlite3.Error, LedgerError):
        return "unreadable"
