"""Sweeps of the tests: a file of a few small cells, and what must hold of their ledgers afterwards."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.chaos.books import broken_promises, read_books
from tests.cli.world import files

FOLDER = Path("runs/sweep-small")
CALLS = 150


def write_sweep(models: Sequence[str], seeds: Sequence[int] = (0,), more: str = "", rows: int = 80) -> Path:
    """Writes rows.csv, p.txt and small.toml here: each model with each seed. `more` stands behind the options."""
    files(rows)
    path = Path("small.toml")
    path.write_text(
        f'tasks = ["rows.csv"]\nmodels = {json.dumps(list(models))}\nseeds = {list(seeds)}\n\n'
        f'[options]\ntarget = "label"\nprompt = "p.txt"\nmax_calls = {CALLS}\nprice = [1, 2]\nretrieval = false\n'
        f"{more}\n",
        "utf-8",
    )
    return path


def broken_cells(folder: Path = FOLDER) -> dict[str, list[str]]:
    """By cell what does not hold of its ledger: the chain, or a settled call that was bought again."""
    found = {db.stem: broken_promises(read_books(db)) for db in sorted(folder.glob("*.db"))}
    return {name: faults for name, faults in found.items() if faults}


def resumed(folder: Path = FOLDER) -> list[str]:
    """The cells whose run was gone on with."""
    return [db.stem for db in sorted(folder.glob("*.db")) if "run_resumed" in _kinds(db)]


def _kinds(db: Path) -> set[str]:
    with sqlite3.connect(f"file:{db}?mode=ro", uri=True) as open_:
        return {kind for (kind,) in open_.execute("SELECT DISTINCT kind FROM events")}


def settled(folder: Path = FOLDER) -> int:
    """How many replies the ledgers hold."""
    return sum(len(read_books(db).settled()) for db in folder.glob("*.db"))


def scores(sweep: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The result of each cell, without what differs between runs."""
    return [(cell["seed"], cell["baseline"], cell["score"], cell["decision"]) for cell in sweep["cells"]]
