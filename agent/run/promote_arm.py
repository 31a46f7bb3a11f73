"""Promoting an arm that a run scored beside its prompts: only when it is asked for, by its name."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import GateFailed, InputError
from agent.ledger.provenance import user
from agent.run.locations import open_history, open_ledger, releases_folder

if TYPE_CHECKING:
    from agent.run.promote import Promotion


def promote_arm(run: str, arm: str, label: str, override: bool, reason: str, actor: str, db: Path) -> Promotion:
    """Keeps an arm of a run as a version of its task's name, and moves the label to it if no prompt of the run is shown
    to be better: "classic", the best yardstick of a search, or an arm that a comparison tuned. Raises what `promote`
    does."""
    from agent.programs import ARMS, TUNED_ARMS
    from agent.programs.yardsticks import released
    from agent.release.gate import blocked_arm
    from agent.release.promotion import ReleaseRegistry
    from agent.run.customize.promote_tuned import promote_tuned
    from agent.run.exporting import task_of_run
    from agent.run.promote import Promotion

    if arm not in (*ARMS, *TUNED_ARMS):
        raise InputError(f"--arm {arm!r:.60}: there is only {', '.join((*ARMS, *TUNED_ARMS))}")
    if override and not reason.strip():
        raise InputError("--override needs --reason WHY: it is kept with the release")
    if arm in TUNED_ARMS:
        return promote_tuned(run, arm, label, override, reason, actor, db)
    with closing(open_history(db, by_chain=True)) as history:
        found = history.run(run)
        made = released(found, task_of_run(found), history)
    best, release, blocked = made.best, made.release, blocked_arm(made.ahead)
    if blocked and not override:
        lines = [f"{found['id']}: {why}" for why in blocked]
        raise GateFailed("\n".join([*lines, "not promoted; --override --reason WHY promotes all the same"]))
    reason, actor = reason.strip(), actor or user()
    registry = ReleaseRegistry(releases_folder(db))
    with closing(open_ledger(db)) as book:
        evidence = {
            "run_id": found["id"],
            "arm": arm,
            "method": best.name,
            "candidate_id": best.candidate_id,
            "test": best.test,
            "ci95": list(best.ci95) if best.ci95 else None,
            "ahead": {prompt: dict(by) for prompt, by in made.ahead.items()},
            "overridden": blocked,
            "ledger": book.id(),
            "ledger_head": book.head(),
        }
        change = registry.promote(release, label, book, actor=actor, reason=reason, evidence=evidence)
    return Promotion(
        found["id"],
        release.name,
        label,
        release.version,
        best.candidate_id,
        arm,
        registry.root / release.name / release.version,
        None,
        change is not None,
        change.before if change else release.version,
        tuple(blocked),
        reason,
        actor,
    )
