"""Promoting an arm that a run scored beside its prompts: only when it is asked for, by its name."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import InputError
from agent.run.arm_release import ArmRelease
from agent.run.locations import open_history

if TYPE_CHECKING:
    from agent.run.promote import Promotion


def promote_arm(run: str, arm: str, alias: str, override: bool, reason: str, actor: str, db: Path) -> Promotion:
    """Keeps an arm of a run as a version of its task's name, and moves the alias to it if no prompt of the run is shown
    to be better: "classic", the best yardstick of a search, or an arm that a comparison tuned. Raises what `promote`
    does."""
    from agent.programs import ARMS, TUNED_ARMS
    from agent.run.customize.release_arm import tuned_arm

    if arm not in (*ARMS, *TUNED_ARMS):
        raise InputError(f"--arm {arm!r:.60}: there is only {', '.join((*ARMS, *TUNED_ARMS))}")
    if override and not reason.strip():
        raise InputError("--override needs --reason WHY: it is kept with the release")
    made = tuned_arm(run, arm, db) if arm in TUNED_ARMS else _best_yardstick(run, arm, db)
    return made.promote(alias, override, reason, actor, db)


def _best_yardstick(run: str, arm: str, db: Path) -> ArmRelease:
    from agent.programs.classic import released
    from agent.release.gate import blocked_arm
    from agent.run.exporting import task_of_run

    with closing(open_history(db, by_chain=True)) as history:
        found = history.run(run)
        made = released(found, task_of_run(found), history)
    best = made.best
    evidence = {
        "method": best.name,
        "candidate_id": best.candidate_id,
        "test": best.test,
        "ci95": list(best.ci95) if best.ci95 else None,
        "ahead": {prompt: dict(by) for prompt, by in made.ahead.items()},
    }
    return ArmRelease(found["id"], arm, best.candidate_id, made.release, blocked_arm(made.ahead), evidence)
