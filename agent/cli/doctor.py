"""`optimize doctor`: is this machine fit to run, and is the ledger whole?"""

from __future__ import annotations

import asyncio
import os
import platform
import sqlite3
import statistics
import tempfile
import time
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.common import SETTINGS, db_option, json_option, print_json
from agent.cli.tables import print_table
from agent.errors import InputError, LedgerError, RunRefused
from agent.extras import MODULES, command, is_here

if TYPE_CHECKING:
    from agent.models.hosted import HostedModel

PACKAGES = ("promptassay", "xllamacpp", "openai", "anthropic", "optuna", "sqlite-utils", "click")
KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_COMPATIBLE_API_KEY")
OLDEST_SQLITE = (3, 38)
WAL_BUG = ((3, 7, 0), (3, 51, 2))  # the first and the last version of SQLite that have it
SYNCS = 5

Found = tuple[str, bool, str]
"""What was looked at, whether it is fit, and what was found."""


@click.command(context_settings=SETTINGS)
@click.option("-m", "--model", multiple=True, help="Ask its provider about it, which costs nothing; repeatable.")
@db_option
@json_option
def doctor_command(model: tuple[str, ...], db: Path, as_json: bool) -> None:
    """Check this machine: Python, SQLite, packages, embedded model, keys (never shown), tracing, disk and ledger.

    With --model also whether a model can be asked: its address, its key and its name.
    """
    checks = [*_machine(), *_tracing(), *map(_model, model), *_disk(db), *_ledger(db)]
    healthy = all(good for _, good, _ in checks)
    if as_json:
        print_json({"healthy": healthy, "checks": [{"what": w, "ok": good, "found": f} for w, good, f in checks]})
    else:
        print_table("doctor", ("what", "", "found"), [(w, "ok" if good else "PROBLEM", f) for w, good, f in checks])
    if not healthy:
        raise SystemExit(1)


def _machine() -> list[Found]:
    checks: list[Found] = [
        ("python", True, platform.python_version()),
        ("sqlite", sqlite3.sqlite_version_info >= OLDEST_SQLITE, _sqlite()),
        ("processors", True, str(os.cpu_count())),
    ]
    for package in PACKAGES:
        try:
            checks.append((package, True, version(package)))
        except PackageNotFoundError:
            checks.append((package, False, "not installed; run `make setup`"))
    for extra, package in MODULES.items():
        checks.append((package, True, version(package) if is_here(extra) else f"an extra; {command(extra)} brings it"))
    checks.append(_prices())
    checks.append(_weights())
    return checks + [(key, True, "set" if os.environ.get(key) else "not set") for key in KEYS]


def _sqlite() -> str:
    note = ""
    if WAL_BUG[0] <= sqlite3.sqlite_version_info[:3] <= WAL_BUG[1]:
        note = "; its WAL-reset bug needs two writers, and a ledger has one"
    return sqlite3.sqlite_version + note


def _weights() -> Found:
    from agent.models.model_registry import DEFAULT_MODEL
    from agent.models.weights import weights_path

    try:
        path = weights_path(DEFAULT_MODEL.removeprefix("local/"))
    except InputError as error:
        return (DEFAULT_MODEL, False, str(error))
    return (DEFAULT_MODEL, path.is_file(), str(path) if path.is_file() else "`optimize models fetch` gets it")


def _model(name: str) -> Found:
    """Whether calls of the model can work, as far as its provider tells for nothing."""
    from agent.models.hosted import HostedModel
    from agent.models.model_registry import create_model, require_files

    try:
        require_files([name])
        lm = create_model(name)
        unclear = asyncio.run(_probed(lm)) if isinstance(lm, HostedModel) else ""
    except (InputError, RunRefused) as error:
        return (name, False, str(error).removeprefix(f"{name}: "))
    found = f"cannot be told without a call: {unclear.removeprefix(f'{name}: ')}" if unclear else "answers"
    return (name, True, found if isinstance(lm, HostedModel) else "runs in this process")


async def _probed(lm: HostedModel) -> str:
    try:
        return await lm.probe()
    finally:
        await lm.close()


def _prices() -> Found:
    from agent.gateway.prices import prices_version

    try:
        return ("prices", True, prices_version())
    except PackageNotFoundError:
        return ("prices", False, "no price table; run `make setup`")


def _tracing() -> list[Found]:
    """What would send prompts to third parties, if it were not switched off when their packages are loaded."""
    from agent.privacy import ALLOW_TRACING, silence_tracing

    if os.environ.get(ALLOW_TRACING) == "1":
        return [("tracing", True, f"allowed by {ALLOW_TRACING}: prompts may leave this machine")]
    names = silence_tracing(dict(os.environ))
    return [("tracing", True, f"set, and switched off by us: {', '.join(names)}" if names else "none is set")]


def _disk(db: Path) -> list[Found]:
    """How long the ledger's disk takes to make a write safe: each call waits for one, shared with others."""
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


def _ledger(db: Path) -> list[Found]:
    from agent.ledger import seal
    from agent.ledger.connect import NeedsWriter, is_there, owner_of
    from agent.ledger.lock import is_held
    from agent.ledger.query import History
    from agent.ledger.schema import STEPS

    if not is_there(db):
        return [(str(db), True, "no ledger yet")]
    checks: list[Found] = [("schema", True, f"{_schema(db)}, of {len(STEPS)} known")]
    checks.append(("lock", True, f"held by {owner_of(db)}" if is_held(db) else "free"))
    sealed = "fits" if seal.holds(db) else "none that fits: the ledger is checked whole when it is opened"
    checks.append(("seal", True, sealed))
    try:
        return [*checks, (str(db), True, f"{len(History(db, by_chain=True).runs())} runs, whole")]
    except NeedsWriter as error:
        return [*checks, (str(db), True, str(error).removeprefix(f"{db}: "))]
    except LedgerError as error:
        return [*checks, (str(db), False, str(error))]


def _schema(db: Path) -> str:
    from agent.ledger.connect import reader, schema_of

    try:
        with closing(reader(db)) as connection:
            return str(schema_of(connection))
    except (sqlite3.Error, LedgerError):
        return "unreadable"
