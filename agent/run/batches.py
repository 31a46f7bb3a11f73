"""The batches of calls that a ledger knows: those that have not ended, and their cancellation at the provider."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from agent.errors import InputError, ModelError, RunRefused
from agent.gateway.batch_course import SKEW
from agent.ledger.query import Row
from agent.models.batch_jobs import BatchApi, BatchJob, batch_api
from agent.models.model_registry import create_model
from agent.run.locations import open_history
from agent.types import LM

NOT_CANCELLED = "not cancelled"
"""What the status of a batch begins with whose provider could not be asked to end it."""
FORGOTTEN = "gone at the provider"
"""The status of a batch that its provider does not know any more."""


@dataclass(frozen=True, slots=True)
class BatchEntry:
    """A batch as the ledger has it.

    Args:
        run_id: of the run that began it.
        name: its own.
        job: its id at the provider; "": not known.
        model: the model that answers.
        calls: how many it has.
        reserved_usd: what it costs at most.
        since_utc: when it was intended.
        state: "intended", "submitted", or the provider's status at its end.
        is_open: whether it is not known to have ended.
    """

    run_id: str
    name: str
    job: str
    model: str
    calls: int
    reserved_usd: float
    since_utc: str
    state: str
    is_open: bool

    @staticmethod
    def of(row: Row) -> BatchEntry:
        """From what the ledger has."""
        body, end = row["body"], row["end"]
        state = end["status"] if end else "submitted" if row["job"] else "intended"
        return BatchEntry(
            row["run_id"],
            body["name"],
            row["job"],
            body["model"],
            len(body["rows"]),
            body["reserved"]["usd"],
            row["utc"],
            state,
            end is None,
        )


def list_batches(db: Path, run: str = "", ended: bool = False) -> list[BatchEntry]:
    """The batches that are not known to have ended; nobody is asked.

    Args:
        db: the ledger.
        run: only those of this run: its id, or the unique start of it. "": of all runs.
        ended: also those that have ended.

    Raises:
        InputError: there is no such run.
    """
    with closing(open_history(db)) as history:
        run_id = history.run(run)["id"] if run else ""
        found = [BatchEntry.of(row) for row in history.batches()]
    return [each for each in found if (ended or each.is_open) and run_id in ("", each.run_id)]


def cancel_batches(run: str, db: Path) -> list[dict[str, Any]]:
    """Asks the providers to end the batches of a run. What they have answered so far can still be taken.

    Args:
        run: its id, or the unique start of it.
        db: the ledger; it is read and not written, so that the run may go on meanwhile.

    Returns:
        For each batch its `name`, `job` and `status`: "never submitted" for one that the provider never had, "gone at
        the provider" for one that it does not know any more, "not cancelled: WHY" where it could not be asked.

    Raises:
        InputError: the run has no batch that is under way.
    """
    batches = list_batches(db, run)
    if not batches:
        raise InputError(f"{run}: no batch of it is under way; `optimize batch list` has those that are")
    taken = {each.job for each in list_batches(db, ended=True) if each.job}
    return asyncio.run(_cancelled(batches, taken))


async def _cancelled(batches: Sequence[BatchEntry], taken: set[str]) -> list[dict[str, Any]]:
    """`taken`: ids at the provider that are known to be those of a batch."""
    lms = {name: create_model(name) for name in dict.fromkeys(each.model for each in batches)}
    try:
        return [await _cancel(each, lms[each.model], taken) for each in batches]
    finally:
        for lm in lms.values():
            await lm.close()


async def _cancel(batch: BatchEntry, lm: LM, taken: set[str]) -> dict[str, Any]:
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
    return {"name": batch.name, "job": job.id if job else batch.job, "status": status}


async def _known(batch: BatchEntry, api: BatchApi[Any], taken: set[str]) -> BatchJob | None:
    """The batch at its provider. Raises ModelError where it may be another one."""
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
