"""The checks of a released prompt so far, and whether the next one is due."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent.ledger.connect import is_there
from agent.release.runtime import load_prompt
from agent.report.checks import CheckPoint, checks_of, time_of
from agent.results.checks import CheckResult
from agent.run.locations import open_history, prompt_path
from agent.run.session import PreparedJob


@dataclass(frozen=True, slots=True)
class NotDue:
    """A check that need not be made yet: the `last` one, and when the next is due, in ISO 8601."""

    last: CheckPoint
    due_utc: str


def check_history(prompt: str, model: str | None, db: Path) -> tuple[str, list[CheckPoint]]:
    """The name of a released prompt, and all its finished checks, of every version; `model`: only those of this one.

    Raises InputError or ReleaseError where there is no such prompt, or no ledger.
    """
    name = load_prompt(prompt_path(prompt, db)).name
    with closing(open_history(db)) as history:
        return name, checks_of(history, name, model=model or "")


def not_due(prompt: str, job: PreparedJob[CheckResult], every: float | None, db: Path) -> NotDue | None:
    """The last check of this version on this model, where it began less than `every` ago; None: a check is due.

    Args:
        prompt: as of `prepare_check`.
        job: what `prepare_check` made, whose first model is asked.
        every: seconds. None: a check is always due.
        db: the ledger.
    """
    if every is None or not is_there(db):
        return None
    loaded = load_prompt(prompt_path(prompt, db))
    with closing(open_history(db)) as history:
        done = checks_of(history, loaded.name, loaded.version, job.lms[0].name)
    due = time_of(done[-1]) + timedelta(seconds=every) if done else None
    if due is None or due <= datetime.now(UTC):
        return None
    return NotDue(done[-1], due.isoformat(timespec="seconds"))
