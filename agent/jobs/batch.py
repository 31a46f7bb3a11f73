"""`optimize batch`: the batches of calls that go on at providers, and their cancellation."""

from __future__ import annotations

from dataclasses import asdict
from operator import attrgetter
from pathlib import Path

from agent.jobs.registry import DB, Printed, job
from agent.options.option import option
from agent.report.blocks import Column, text
from agent.report.terminal import print_table, show
from agent.run.batches import NOT_CANCELLED, cancel_batches, list_batches

COLUMNS = (
    Column("run"),
    Column("batch"),
    Column("at the provider"),
    Column("model", rank=2, floor=12),
    Column("calls"),
    Column("$ at most", rank=1),
    Column("since", rank=3),
    Column("state"),
)


@job("batch list")
def list_them(run: str = "", *, all: bool = option(False, "Also those that have ended."), db: Path = DB) -> Printed:
    """List the batches (of RUN) that are not known to have ended. Nobody is asked: it is what the ledger has."""
    found = list_batches(db, run, all)
    shown = attrgetter("run_id", "name", "job", "model", "calls")
    rows = [(*shown(each), f"{each.reserved_usd:.4f}", each.since_utc[:16], each.state) for each in found]
    return Printed({"batches": [asdict(each) for each in found]}, lambda: print_table("batches", COLUMNS, rows))


@job("batch cancel")
def cancel(run: str, *, db: Path = DB) -> Printed:
    """Ask the providers to end the batches of RUN. What is answered by then is paid, and the run takes it when it goes
    on; the rest goes one by one then, or with --batch-only stays without an answer."""
    cancelled = cancel_batches(run, db)
    lines = [f"{each['name']} ({each['job'] or 'no id'}): {each['status']}" for each in cancelled]
    failed = any(each["status"].startswith(NOT_CANCELLED) for each in cancelled)
    return Printed({"cancelled": cancelled}, lambda: show(text(*lines, exact=True)), 1 if failed else 0)
