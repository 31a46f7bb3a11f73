"""Evaluate production logs: answers against a reference (monitor), and A/B tests (ab report). Asks no model."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

from agent.errors import InputError
from agent.evaluate.drift import ahead, drifted
from agent.jobs.check import suite_beside, task_folder
from agent.jobs.locations import prompt_path
from agent.jobs.registry import Printed, job, key_option
from agent.options.kinds import File
from agent.options.option import JobOptions, option
from agent.options.shared import LedgerOption
from agent.programs.recorded import Recorded, replayed
from agent.release.production_logs import Experiment, read_outcomes
from agent.release.suite import SUITE_FILE
from agent.release.texts import Loaded, load_released
from agent.results.base import WasNow
from agent.results.checks import AbResult, DriftLine, MonitorResult
from agent.stats.intervals import equally_many
from agent.task.load import load_task
from agent.types import Drift

LOG, REFERENCE = "log", "reference"
"""The arms of a monitor."""
UNEVEN_FROM = 0.001
"""p-value of the split of units, with half expected in each arm, below which the bucketing is suspect."""


class MonitorOptions(JobOptions):
    """The reference and the limits of a comparison."""

    reference: File = option(None, "A log of good answers. Default: the suite.")
    suite: File = option(None, "Recorded answers. Default: suite.json next to PROMPT.")
    task: str | None = option(None, "The task whose [monitor] limits apply. Default: the prompt's own, if it is here.")
    alpha: float | None = option(None, metavar="RATE", gt=0, le=0.5)
    """The rate of false alarms for one log, up to 0.5; overrides the task's."""
    seed: int = option(0, "For permutation tests.", metavar="N", ge=0, le=2**31 - 1)
    reply_column: str = key_option("reply")
    inputs_column: str = key_option("inputs")
    time_column: str = key_option("time")
    score_column: str = key_option("score")
    confidence_column: str = key_option("confidence")


class AbOptions(JobOptions):
    """What counts in an A/B test."""

    control: str | None = option(None, "The arm to compare with. Default: the first by name.", metavar="ARM")
    alpha: float = option(0.05, "The error rate, up to 0.5.", metavar="RATE", gt=0, le=0.5)
    smallest: float = option(0.0, metavar="SHARE", ge=0, le=1)
    """The smallest difference that matters, 0 to 1: also report when it is ruled out."""
    several: Literal["refuse", "first"] = option("refuse")
    """What to do with a unit that has several outcomes: refuse it, or count its first one."""
    unit_column: str = key_option("unit")
    arm_column: str = key_option("arm")
    outcome_column: str = key_option("outcome")


def _columns(options: JobOptions) -> dict[str, str]:
    named = {name.removesuffix("_column"): value for name, value in options if name.endswith("_column")}
    return {name: value for name, value in named.items() if name != value}


@job("monitor")
def monitor(prompt: str, log: Path, *, options: MonitorOptions, ledger: LedgerOption) -> Printed[MonitorResult]:
    """Compare production answers (LOG) with the reference of a released PROMPT; exit 100 on drift.

    LOG is a .jsonl or .csv file with a row for each answer: reply and, if known, inputs, time, score and confidence (0
    to 1). Other keys are ignored, --reply-column and the like rename these (in both logs), and unreadable rows are
    skipped with a note. Tested are unreadable replies, the mix of labels, lengths, answers to repeated inputs, scores,
    and the share of answers below the confidence that the release names. An alarm needs a change that is significant,
    corrected for the number of tests, and as large as [monitor] in task.toml says. No model is asked.
    """
    if options.reference and options.suite:
        raise InputError("--reference and --suite: give one of the two")
    columns, path = _columns(options), prompt_path(prompt, ledger.db)
    loaded = load_released(path)
    if options.reference:
        was = Recorded.of_log(options.reference, loaded, columns)
    elif (suite := suite_beside(path, loaded, options.suite)) is not None:
        was = Recorded.of_suite(suite, loaded)
    else:
        raise InputError(
            f"{path.with_name(SUITE_FILE)}: no recorded answers; record some with `optimize bless`, or give a log of "
            "good ones as --reference FILE"
        )
    limits = _limits(loaded, options.task, ledger.db)
    if options.alpha:
        limits = replace(limits, alpha=options.alpha)
    result = monitored(was, Recorded.of_log(log, loaded, columns), loaded, limits, options.seed, str(log))
    return Printed(result, exit_code=100 if result.drift else 0)


def _limits(prompt: Loaded, task: str | None, db: Path) -> Drift:
    try:
        folder = task_folder(prompt.name, prompt, task, db)
    except InputError:
        if task:
            raise
        return Drift()
    return load_task(folder).monitor


def monitored(
    was: Recorded, now: Recorded, prompt: Loaded, limits: Drift, seed: int = 0, log: str = ""
) -> MonitorResult:
    """Test the answers of the file `log` for drift from the reference. Raises InputError without a reference."""
    table = replayed({REFERENCE: was, LOG: now})
    rows = WasNow(was=_count(was), now=_count(now))
    if not rows.was:
        raise InputError(
            "the reference holds no answers; give --reference FILE, or record a suite with `optimize bless`"
        )
    found = drifted(table, LOG, REFERENCE, prompt.release.outputs, limits, prompt.abstain_below, seed)
    return MonitorResult(
        name=prompt.name,
        version=prompt.version,
        log=log,
        drift=not found.passed,
        alarms=found.messages,
        alpha=limits.alpha,
        rows=rows,
        start=now.times[0] if now.times else None,
        end=now.times[-1] if now.times else None,
        tests=tuple(DriftLine(**asdict(each), alarm=each.name in found.messages) for each in found.figures),
        notes=(*was.notes, *now.notes),
    )


def _count(side: Recorded) -> int:
    return sum(any(each.call_key for each in answers) for answers in side.answers.values())


@job("ab report")
def report(outcomes: Path, *, options: AbOptions) -> AbResult:
    """Compare the arms of an A/B test with a confidence sequence. Look and stop whenever you like.

    OUTCOMES is a .jsonl or .csv file with a row for each outcome in time order: unit (a user, a session), arm, outcome
    from 0 to 1. Other keys are ignored, --unit-column and the like rename these, and unreadable rows are skipped with a
    note. Each outcome is paired with the latest of the other arm. However often you look, arms that are equal, or drift
    together, are called different in at most 5 % of all tests.
    """
    is_first = options.several == "first"
    experiment = read_outcomes(outcomes, options.control, first=is_first, columns=_columns(options))
    return compared(experiment, options.alpha, options.smallest)


def compared(experiment: Experiment, alpha: float = 0.05, smallest: float = 0.0) -> AbResult:
    """Compare the arms so far, at level `alpha`. A difference below `smallest` (0 to 1) does not matter."""
    verdict = ahead(experiment.outcomes, experiment.arms, alpha, smallest)
    found, reasons = verdict.figures, verdict.reasons
    control, treatment = ([outcome for arm, outcome in experiment.outcomes if arm == side] for side in (0, 1))
    return AbResult(
        control=experiment.arms[0],
        treatment=experiment.arms[1],
        units=(len(control), len(treatment)),
        means=(sum(control) / len(control), sum(treatment) / len(treatment)),
        left_out=experiment.left_out,
        pairs=found.pairs,
        diff=found.diff,
        ci=found.ci,
        confidence=1 - alpha,
        e_value=found.e_value,
        p_value=found.p_value,
        smallest=smallest,
        verdict="; ".join(verdict.messages) or f"{experiment.arms[1]} is better",
        may_stop="undecided" not in [reason.code for reason in reasons],
        uneven=_uneven(len(control), len(treatment)),
        notes=experiment.notes,
    )


def _uneven(one: int, two: int) -> float | None:
    p_value = equally_many(one, two)
    return p_value if p_value < UNEVEN_FROM else None
