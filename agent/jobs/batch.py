"""`optimize batch`: list the provider batches of the ledger, or cancel them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

from agent.errors import InputError, ModelError, RunRefused
from agent.gateway.batch_course import SKEW
from agent.jobs.locations import open_history
from agent.jobs.registry import DB, Printed, job
from agent.models.model_registry import create_model
from agent.models.provider_jobs import BatchApi, BatchJob, batch_api
from agent.options.option import option
from agent.report.blocks import Block, Column, table, text
from agent.results.base import Result
from agent.types import LM

NOT_CANCELLED = "not cancelled"
"""Start of the status of a batch whose provider could not be asked."""
FORGOTTEN = "gone at the provider"
"""Status of a batch that its provider no longer knows."""
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


class ListedBatch(Result):
    """A provider batch as the ledger has it; `job` is its id at the provider, "" if unknown."""

    run_id: str
    name: str
    job: str
    model: str
    calls: int
    reserved_usd: float
    since_utc: str
    state: str
    is_open: bool


class BatchesResult(Result):
    """Provider batches."""

    batches: tuple[ListedBatch, ...]

    def blocks(self) -> Iterator[Block]:
        rows = [
            (b.run_id, b.name, b.job, b.model, b.calls, f"{b.reserved_usd:.4f}", b.since_utc[:16], b.state)
            for b in self.batches
        ]
        yield table("batches", COLUMNS, rows, tabbed=True)


class CancelledBatch(Result):
    """The provider's answer to a cancellation."""

    name: str
    job: str
    status: str


class CancelResult(Result):
    """Cancelled batches."""

    cancelled: tuple[CancelledBatch, ...]

    def blocks(self) -> Iterator[Block]:
        lines = (f"{each.name} ({each.job or 'no id'}): {each.status}" for each in self.cancelled)
        yield text(*lines, exact=True)


@job("batch list")
def list_them(
    run: str = "", *, all: bool = option(False, "Also list batches that have ended."), db: Path = DB
) -> BatchesResult:
    """List the batches (of RUN) that have not ended, as far as the ledger knows. Asks no provider."""
    return BatchesResult(batches=tuple(_batches(db, run, all)))


@job("batch cancel")
def cancel(run: str, *, db: Path = DB) -> Printed[CancelResult]:
    """Ask the providers to cancel the batches of RUN.

    Calls that are answered by then are paid; the resumed run uses them and sends the rest one by one, or with
    --batch-only leaves them unanswered.
    """
    batches = _batches(db, run)
    if not batches:
        raise InputError(f"{run}: no batch of it is under way; `optimize batch list` has those that are")
    taken = {each.job for each in _batches(db, ended=True) if each.job}
    cancelled = asyncio.run(_cancelled(batches, taken))
    failed = any(each.status.startswith(NOT_CANCELLED) for each in cancelled)
    return Printed(CancelResult(cancelled=tuple(cancelled)), 1 if failed else 0)


def _batches(db: Path, run: str = "", ended: bool = False) -> list[ListedBatch]:
    with closing(open_history(db)) as history:
        run_id = history.run(run)["id"] if run else ""
        found = [
            ListedBatch(
                run_id=row["run_id"],
                name=row["body"]["name"],
                job=row["job"],
                model=row["body"]["model"],
                calls=len(row["body"]["rows"]),
                reserved_usd=row["body"]["reserved"]["usd"],
                since_utc=row["utc"],
                state=row["end"]["status"] if row["end"] else "submitted" if row["job"] else "intended",
                is_open=row["end"] is None,
            )
            for row in history.batches()
        ]
    return [each for each in found if (ended or each.is_open) and run_id in ("", each.run_id)]


async def _cancelled(batches: Sequence[ListedBatch], taken: set[str]) -> list[CancelledBatch]:
    lms = {name: create_model(name) for name in dict.fromkeys(each.model for each in batches)}
    try:
        return [await _cancel(each, lms[each.model], taken) for each in batches]
    finally:
        for lm in lms.values():
            await lm.close()


async def _cancel(batch: ListedBatch, lm: LM, taken: set[str]) -> CancelledBatch:
    api, job = batch_api(lm), None
    try:
        if api is None:
            raise ModelError(f"{lm.name} has no batch API here; cancel it at the provider")
        job = await _known(batch, api, taken)
        if job is not None and not job.is_ended:
            job = await api.cancel(job.id)
        status = job.status if job else "never submitted"
    except ModelError as error:  # the others are cancelled all the same
        status = f"{NOT_CANCELLED}: {error}"
    return CancelledBatch(name=batch.name, job=job.id if job else batch.job, status=status)


async def _known(batch: ListedBatch, api: BatchApi[Any], taken: set[str]) -> BatchJob | None:
    if batch.job:
        try:
            return await api.look(batch.job)
        except RunRefused as refusal:
            if refusal.status != 404:
                raise
            return BatchJob(batch.job, FORGOTTEN, is_ended=True)
    since = (datetime.fromisoformat(batch.since_utc) - SKEW).timestamp()
    job = await api.find(batch.name, batch.calls, since, taken)
    if job is not None and not api.is_sure:
        raise ModelError(
            f"{batch.model}: {job.id} may be the batch {batch.name}, which the provider shows only at its end; "
            "cancel it there if it is yours"
        )
    return job
