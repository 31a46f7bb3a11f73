"""Writes a tuned arm as a released prompt: `prompt.md`, `messages.json` and its adapter, under the run's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.ledger.provenance import tool_version, utc_now
from agent.ledger.query import run_folder
from agent.ledger.store import Ledger
from agent.programs.tuned import TunedProgram
from agent.prompt.prompt_candidate import TunedCandidate
from agent.release.export import write_release
from agent.run.customize.plan import CustomizePlan
from agent.run.customize.table import MeasuredArm
from agent.scoring.breakdown import difference, summary


def arm_folder(folder: Path, run: str, arm: str) -> Path:
    """Where a comparison keeps a tuned arm, beside the ledger. Raises InputError for an id that is a path."""
    return run_folder(folder, run) / arm


def write_arm(
    plan: CustomizePlan,
    run: str,
    ledger: Ledger,
    program: TunedProgram,
    arm: MeasuredArm,
    yours: MeasuredArm,
    candidate: TunedCandidate,
) -> tuple[Path, dict[str, Any]]:
    """Writes the arm and proves that the files render what was scored.

    Args:
        plan: the comparison.
        run: its id.
        ledger: of it.
        program: has the model with the adapter.
        arm: as it was measured.
        yours: the user's own prompt, as it was measured.
        candidate: of the arm.

    Returns:
        The path of prompt.md, and what the ledger notes of it.

    Raises:
        ReleaseError: what was written is not what was scored, or the disk refuses.
    """
    parameters: dict[str, Any] = {"max_tokens": program.max_tokens(candidate), "temperature": 0.0}
    provenance = {
        "run_id": run,
        "arm": arm.name,
        "candidate_id": candidate.id,
        "test": summary(arm.scores)["mean"],
        "baseline_test": summary(yours.scores)["mean"],
        "lift": difference(arm.scores, yours.scores, plan.settings.seed),
        "train_rows": len(plan.task.train),
        "hashes": dict(plan.task.hashes),
        "tool": tool_version(),
        "created_utc": utc_now(),
        "ledger": ledger.id(),
        "ledger_head": ledger.head(),
    }
    release = program.release(candidate, parameters, provenance)
    path = write_release(release, arm_folder(plan.folder, run, arm.name))
    return path, {"arm": arm.name, "candidate_id": candidate.id, "version": release.version}
