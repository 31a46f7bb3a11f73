"""A ledger with something in every table, and what a stranger with nothing but sqlite3 does to it."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

from agent.errors import Transient, TransportUnknown
from agent.ledger.chain import AUDITED, GENESIS, follows
from agent.ledger.files import set_seal
from agent.ledger.store import Ledger, NewCandidate, NewRun, Reservation
from agent.prompt.prompt_candidate import PromptCandidate
from agent.types import Completion, Demo, Message, Outcome, Prediction, Score, Trial, Usage
from tests.toys import TEAMS, ask, make_task

USAGE = Usage(7, 2, 3)


class Disk(sqlite3.Connection):
    """A connection that counts its commits, and whose disk can be full."""

    commits: ClassVar[int] = 0
    full: ClassVar[bool] = False

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        if Disk.full and sql.startswith(("INSERT", "UPDATE", "DELETE", "COMMIT")):
            raise sqlite3.OperationalError("database or disk is full")
        Disk.commits += sql == "COMMIT"
        return super().execute(sql, *values)


def candidates() -> list[PromptCandidate]:
    """Two with examples and one without."""
    demos = [
        Demo(f"train-{n}", {"message": f"note {n} é"}, {"team": TEAMS[n]}, f"because {n}" if n else "", "label")
        for n in range(3)
    ]
    return [
        PromptCandidate("zero-shot", "turns", "Answer with one team."),
        PromptCandidate("few-shot", "turns", "Answer with one team.", demos=tuple(demos[:2])),
        PromptCandidate("few-shot-cot", "inline", "Think.\nThen answer.", role="You sort letters.", demos=tuple(demos)),
    ]


async def fill(ledger: Ledger, run_id: str = "run-1", rows: int = 4) -> dict[str, Any]:
    """A whole run: calls of every state, trials, outcomes, a result. Returns the result."""
    ledger.begin_run(NewRun(run_id, make_task(), "m", "p", 7, {"max_calls": 9}, {"why": "test"}, options={"seed": 7}))
    ledger.set_plan(run_id, {"calls": 9})
    for number, candidate in enumerate(candidates()):
        layout = (Message("system", candidate.instruction), Message("user", "{{message}}"))
        parent = candidates()[0].id if number else None
        ledger.add_candidate(run_id, NewCandidate(number, candidate.shown(), layout, "op", parent, "a reason"))
        ledger.put_trial(run_id, Trial(number, number, candidate.id, "incomplete", 0, None))
        for row in range(rows):
            key = f"k-{candidate.id}-{row}"
            call = await ledger.reserve(
                Reservation(run_id, "model", "m", key, candidate.id, 1, ask(f"row {row}"), 0.5, 100)
            )
            ledger.sent(call)
            await ledger.settle(run_id, call, Completion(TEAMS[row % 3], "stop", USAGE, "m-1"), 0.125, 0.25)
            made = Prediction({"team": TEAMS[row % 3]}, TEAMS[row % 3])
            outcome = Outcome(candidate.id, f"dev-{row}", made, (Score("exact_match", 1.0, "right"),), row / 4, key)
            ledger.put_outcome(run_id, "dev", outcome)
        ledger.put_trial(run_id, Trial(number, number, candidate.id, "complete", rows, 0.5, (0.25, 0.75), "saw all"))
    await _failures(ledger, run_id)
    rejected = PromptCandidate("zero-shot", "turns", "{{x}}")
    ledger.add_candidate(
        run_id, NewCandidate(2, rejected.shown(), (), "op", None, "a reason", "a placeholder in the instruction")
    )
    ledger.event(run_id, "note", {"number": 1, "text": "é \0"})
    result = {"run_id": run_id, "winner": candidates()[1].id, "cost_usd": 1.5}
    ledger.end_run(run_id, "complete", 12.5, result)
    await ledger.commit()
    return result


async def _failures(ledger: Ledger, run_id: str) -> None:
    """Attempts that failed in three ways, and a reply that was there already."""
    failures = (
        ("error", Transient("503", 2.0, status=503), 0.0),
        ("unknown", TransportUnknown("reset"), 0.5),
        ("error", "not_sent", 0.0),
    )
    for number, (state, error, usd) in enumerate(failures):
        call = await ledger.reserve(
            Reservation(run_id, "proposer", "p", f"f-{number}", "", 1, ask("propose"), 0.5, 100)
        )
        await ledger.fail(run_id, call, state, error, 0.25, usd)
    first = candidates()[0].id
    ledger.cache_hit(run_id, "model", "m", f"k-{first}-0", first, USAGE)


def make(path: Path, runs: Sequence[str] = ("run-1", "run-2")) -> Path:
    """A closed ledger with whole runs."""
    ledger = Ledger(path)
    for run_id in runs:
        asyncio.run(fill(ledger, run_id))
    ledger.close()
    return path


def copy(source: Path, target: Path) -> Path:
    """The ledger with its seal, as a backup would bring it back."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for file in source.parent.glob(f"{source.name}*"):
        shutil.copy(file, target.with_name(target.name + file.name.removeprefix(source.name)))
    return target


def reseal(path: Path) -> None:
    """Sets the seal of whatever the file is now, as who altered it could."""
    with path.open("rb") as file:
        set_seal(path, file.fileno())


def read(path: Path, sql: str, *values: Any) -> list[Any]:
    """Through a separate connection: only what is committed is seen."""
    with closing(sqlite3.connect(path)) as db:
        return db.execute(sql, values).fetchall()


def first_break(events: Iterable[dict[str, Any]]) -> int | None:
    """The seq of the first event that does not follow from the one before it; None when the chain holds."""
    prev = GENESIS
    for seq, event in enumerate(events, 1):
        if not follows(event, seq, prev):
            return seq
        prev = event["hash"]
    return None


def in_memory(source: Path | bytes) -> sqlite3.Connection:
    """A file or its content where it can be broken quickly, again and again."""
    content = bytearray(source if isinstance(source, bytes) else source.read_bytes())
    content[18:20] = b"\x01\x01"  # without the write-ahead log, which memory has not
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.deserialize(bytes(content))
    return db


def alter(db: sqlite3.Connection, *statements: str, values: Sequence[Any] = ()) -> None:
    """Changes rows although triggers forbid it, and puts the triggers back. Fails when nothing is changed."""
    triggers = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        db.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        assert db.execute(statement, values).rowcount > 0, f"nothing was changed by {statement}"
    for _, sql in triggers:
        db.execute(sql)


def endless(db: sqlite3.Connection, table: str) -> None:
    """Puts a view in place of a table whose rows never end."""
    names = [name for (name,) in db.execute("SELECT name FROM pragma_table_info(?)", (table,))]
    db.execute(f"DROP TABLE {table}")
    db.execute(
        f"CREATE VIEW {table} AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
        f"SELECT {', '.join(f'x AS {name}' for name in names)} FROM n WHERE x < 0"
    )


def last_seqs(db: sqlite3.Connection) -> dict[tuple[Any, ...], int]:
    """For each row (table, key...) the seq of the last event about it: read from the events, without our own code."""
    return dict(_places(db))


def _places(db: sqlite3.Connection) -> Iterator[tuple[tuple[Any, ...], int]]:
    for seq, body in db.execute("SELECT seq, body FROM events ORDER BY seq").fetchall():
        told = json.loads(body)
        if "insert" in told:
            yield (told["insert"], *(told["row"][column] for column in AUDITED[told["insert"]])), seq
        elif "update" in told:
            yield (told["update"], *told["key"]), seq


def first_naming(db: sqlite3.Connection, digest: str) -> int:
    """The seq of the first event that names a text."""
    return int(db.execute("SELECT MIN(seq) FROM events WHERE INSTR(body, ?) > 0", (digest,)).fetchone()[0])
