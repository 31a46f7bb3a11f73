"""Carry out a job of the command line: its progress, what it prints, and its exit code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

from agent.cli.common import print_shown
from agent.cli.progress import JobProgress, Progress
from agent.jobs.registry import After, JobSpec, Printed
from agent.jobs.session import run_work
from agent.jobs.tracking import NO_TRACKING, Tracking
from agent.jobs.work import Work
from agent.options.shared import LEDGER, TrackOptions
from agent.redact import silence


def carry_out(spec: JobSpec, parts: Sequence[Any], arguments: Mapping[str, Any], output: Any) -> int:
    """Run a job, print its result, and return the exit code. `parts`: an instance of each of its models."""
    as_json, is_quiet = output.as_json, getattr(output, "quiet", not spec.takes_observer)
    progress = Progress(is_quiet)
    tracking = next((Tracking.of(each) for each in parts if isinstance(each, TrackOptions)), NO_TRACKING)
    if spec.asks and not spec.takes_observer:
        silence()

    def run(work: Work[Any]) -> Any:
        shown = JobProgress(is_quiet, spec.asks) if work.kind else progress
        with shown:
            return run_work(work, db, shown, tracking=tracking)

    with progress if spec.takes_observer else nullcontext():
        found = spec.begin(arguments, parts, Progress(quiet=True) if as_json else progress, as_json)
    db = next((part.db for part in parts if hasattr(part, "db")), LEDGER)
    if isinstance(found := After.next(found, run), Work):
        result = run(found)
        sections = partial(spec.sections, result, db) if spec.sections and not as_json else None
        if sections is not None:
            print()
        print_shown(Printed(result, sections=sections), as_json)
        return found.ended(result) if found.ended else 0
    return print_shown(found, as_json)
