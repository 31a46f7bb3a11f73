"""`optimize doctor`: is this machine fit to run, and is the ledger whole?"""

from __future__ import annotations

import os
import platform
import sqlite3
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click

from agent.cli.common import SETTINGS, db_option, json_option, print_json, print_table

PACKAGES = ("promptassay", "xllamacpp", "openai", "anthropic", "dspy", "langchain", "optuna", "sqlite-utils", "click")
KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_COMPATIBLE_API_KEY")


@click.command(context_settings=SETTINGS)
@db_option
@json_option
def doctor_command(db: Path, as_json: bool) -> None:
    """Check this machine: Python, SQLite, packages, the embedded model, keys (never shown), and the ledger's chain."""
    from agent.errors import LedgerError
    from agent.ledger.query import History
    from agent.models.catalog import DEFAULT_MODEL, weights_path

    checks: list[tuple[str, bool, str]] = [
        ("python", True, platform.python_version()),
        ("sqlite", sqlite3.sqlite_version_info >= (3, 38), sqlite3.sqlite_version),
        ("processors", True, str(os.cpu_count())),
    ]
    for package in PACKAGES:
        try:
            checks.append((package, True, version(package)))
        except PackageNotFoundError:
            checks.append((package, False, "not installed; run `make setup`"))
    weights = weights_path(DEFAULT_MODEL.removeprefix("local/"))
    checks.append(
        (DEFAULT_MODEL, weights.is_file(), str(weights) if weights.is_file() else "`optimize models fetch` gets it")
    )
    checks += [(key, True, "set" if os.environ.get(key) else "not set") for key in KEYS]
    if db.is_file():
        try:
            history = History(db)
            broken = history.chain_break()
            text = f"{len(history.runs())} runs, chain whole" if broken is None else f"chain broken at event {broken}"
            checks.append((str(db), broken is None, text))
        except LedgerError as error:
            checks.append((str(db), False, str(error)))
    else:
        checks.append((str(db), True, "no ledger yet"))
    healthy = all(good for _, good, _ in checks)
    if as_json:
        print_json({"healthy": healthy, "checks": [{"what": w, "ok": good, "found": f} for w, good, f in checks]})
    else:
        print_table("doctor", ("what", "", "found"), [(w, "ok" if good else "PROBLEM", f) for w, good, f in checks])
    if not healthy:
        raise SystemExit(1)
