"""`optimize text`: a text file is searched, and tested, by the scores of the user's own command."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from agent.errors import BudgetRefused
from agent.jobs.launch import prepare, search_of
from agent.jobs.planned import PlannedRun, planned
from agent.jobs.registry import DB, job
from agent.jobs.search import sections_of_run
from agent.jobs.session import Work
from agent.observer import Observer
from agent.options.jobs import RecordedOptions, TextOptions, TextSource
from agent.options.shared import PlanOption
from agent.release.result import RunResult
from agent.safe_file import disk_errors, new_file
from agent.safe_text import plain
from agent.tracking.tracker import TRACKERS


@job("text", required=("rows", "command"), tracks=True, registries={"track": TRACKERS}, sections=sections_of_run)
def text(
    file: str, options: TextOptions, plan: PlanOption, *, observer: Observer, db: Path = DB
) -> Work[RunResult] | PlannedRun:
    """Optimize a text FILE, such as AGENTS.md, by the scores of your own command.

    The command runs once for each row, without a shell. Its last line on stdout is JSON: "score" from 0 to 1, "reason",
    and "cost_usd". Your file and no file are both baselines; for no file, {file} is a path that does not exist. The
    best text is compared with both on sealed rows and written to runs/; FILE changes only if -o names it. A run without
    a score is left out. There is no sandbox: the command runs with your rights. Exit codes and resume are those of
    `optimize run`.
    """
    recorded = options.part(RecordedOptions)
    recorded = recorded.changed(task=file, text=options.part(TextSource), max_calls=options.max_runs)
    launch = prepare(recorded, db, observer)
    try:
        if plan.dry_run:
            found, what = planned(launch), f"a call of {launch.model.name} is one run of: {options.command}"
            return found.model_copy(
                update={"lines": (*map(_in_runs, found.lines), f"{what}, and costs what it reports")}
            )
        work = search_of(launch)
    except BudgetRefused as refused:
        raise BudgetRefused(_in_runs(str(refused))) from None
    return replace(work, opening=_in_runs(work.opening), ended=partial(_written, options.output, file))


def _in_runs(words: str) -> str:
    return words.replace("--max-calls", "--max-runs").replace("max_calls", "--max-runs")


def _written(output: Path | None, file: str, result: RunResult) -> int:
    if result.decision != "promote":
        said = f"{file} is best as it is; nothing is written"
    elif result.reference_won:
        said = f"{file} is best left out; nothing is written or deleted"
    elif output is None:
        said = f"the new text is in {result.release.path.parent / 'file'}; {file} is unchanged"
    else:
        with disk_errors(f"{output}: cannot be written"), new_file(output) as new:
            new.write(result.winner.instruction.encode("utf-8", "replace"))
        said = f"wrote {output}"
    print(plain(said), file=sys.stderr)
    return 0
