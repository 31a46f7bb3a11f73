"""A tuned arm as a released prompt under the run's folder: written by the comparison, and read back for `promote`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import InputError, ReleaseError
from agent.evaluate.breakdown import difference, summary
from agent.jobs.arm_release import ArmRelease
from agent.jobs.locations import open_history
from agent.ledger.provenance import tool_version, utc_now
from agent.ledger.query import History, Row, run_folder
from agent.ledger.store import Ledger
from agent.programs.variants import TunedProgram
from agent.prompt.prompt_candidate import PromptCandidate
from agent.release.export import write_release
from agent.release.gate import blocked_arm, shown
from agent.release.prompt_file import PROMPT_FILE, PromptRelease
from agent.release.runtime import load_prompt
from agent.results.breakdown import Gain
from agent.results.customize import ComparedArm, CustomizeResult

if TYPE_CHECKING:
    from agent.jobs.customize.plan import CustomizePlan
    from agent.jobs.customize.table import MeasuredArm


def arm_folder(folder: Path, run: str, arm: str) -> Path:
    """Where a comparison keeps a tuned arm, next to the ledger. Raises InputError for an id that is a path."""
    return run_folder(folder, run) / arm


def write_arm(
    plan: CustomizePlan,
    run: str,
    ledger: Ledger,
    program: TunedProgram,
    arm: MeasuredArm,
    yours: MeasuredArm,
    candidate: PromptCandidate,
) -> tuple[Path, dict[str, Any]]:
    """Writes the arm and proves that the files render what was scored.

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
        "test": summary(arm.scores).mean,
        "baseline_test": summary(yours.scores).mean,
        "lift": difference(arm.scores, yours.scores, plan.seed).to_json(),
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


# -- promote and export -----------------------------------------------------------------------------------------------

YOURS = "yours"


def tuned_arm(run: str, arm: str, db: Path) -> ArmRelease:
    """A tuned arm, which the gate lets through if its gain over the user's own prompt is shown and no other prompt of
    the comparison is shown to be better.

    Raises:
        InputError: there is no such run or arm.
        ReleaseError: its folder holds something else than the comparison released.
    """
    with closing(open_history(db, by_chain=True)) as history:
        found, lines, release = _found(history, run, arm, db)
        line = lines[arm]
        blocked = [*_not_shown(line), *blocked_arm(_ahead(history, found, line, lines))]
    evidence = {
        "candidate_id": line.candidate_id,
        "test": line.test,
        "ci95": line.ci95,
        "lift": {"diff": line.diff, "diff_ci95": line.diff_ci95, "p_value": line.p_value},
    }
    return ArmRelease(found["id"], arm, line.candidate_id, release, blocked, evidence)


def tuned_file(history: History, run: str, arm: str, db: Path) -> tuple[Row, Path]:
    """The comparison, and the prompt.md that it released as a tuned arm. Raises what `tuned_arm` does.

    Args:
        run: its id, or the unique start of it. "": the latest comparison.
    """
    found, _, _ = _found(history, run, arm, db)
    return found, arm_folder(db.parent, found["id"], arm) / PROMPT_FILE


def _found(history: History, run: str, arm: str, db: Path) -> tuple[Row, dict[str, ComparedArm], PromptRelease]:
    found = history.run(run) if run else _latest(history)
    lines = _arms_of(found)
    if arm not in lines or not lines[arm].path:
        there = ", ".join(name for name, line in lines.items() if line.path) or "none"
        raise InputError(f"{found['id']}: it trained no arm {arm!r}; it has {there}")
    return found, lines, _its_own(history, found, lines[arm], db)


def _latest(history: History) -> Row:
    for row in history.runs():
        if (row["result"] or {}).get("kind") == "customize":
            return row
    raise InputError(f"{history.path}: no comparison yet; `optimize customize TASK` makes one")


def _arms_of(found: Row) -> dict[str, ComparedArm]:
    if (found["result"] or {}).get("kind") != "customize":
        raise InputError(
            f"{found['id']}: no result of `optimize customize`, so it has no tuned arm; name a run of that command"
        )
    return {line.arm: line for line in CustomizeResult.from_json(found["result"]).arms}


def _its_own(history: History, found: Row, line: ComparedArm, db: Path) -> PromptRelease:
    """What the comparison released as the arm. Raises ReleaseError where the folder holds anything else."""
    path = arm_folder(db.parent, found["id"], line.arm) / PROMPT_FILE
    release = load_prompt(path).release
    events = history.select("SELECT body FROM events WHERE run_id = ? AND kind = 'released'", found["id"])
    noted = [json.loads(event["body"]) for event in events]
    if release.version not in [each["version"] for each in noted if each["arm"] == line.arm]:
        raise ReleaseError(
            f"{path}: holds {release.version}, which is not what {found['id']} released as {line.arm}; restore the "
            "file, or make the comparison again"
        )
    return release


def _not_shown(line: ComparedArm) -> list[str]:
    if line.diff is None or line.diff_ci95 is None or line.p_value is None:
        return ["it cannot be compared with your own prompt: no row has a score on both sides"]
    if shown(line.diff_ci95, line.p_value) > 0:
        return []
    low, high = (100 * end for end in line.diff_ci95)
    gained = f"{100 * line.diff:+.1f} points (95 % CI {low:+.1f} to {high:+.1f}), p = {line.p_value:.2g}"
    return [f"its gain over your own prompt is not shown: {gained}"]


def _ahead(history: History, found: Row, line: ComparedArm, lines: Mapping[str, ComparedArm]) -> dict[str, Gain]:
    """How far each other prompt of the comparison is ahead on the sealed test, paired by row."""
    own = _values(history, found, line.candidate_id)
    ahead = {}
    for name, other in lines.items():
        if other.family == "prompt" and name != YOURS:
            theirs = _values(history, found, other.candidate_id)
            rows: Sequence[str] = sorted(own.keys() & theirs.keys())
            ahead[f"the arm {name}"] = difference(
                [theirs[row] for row in rows], [own[row] for row in rows], found["seed"]
            )
    return ahead


def _values(history: History, found: Row, candidate: str) -> dict[str, float | None]:
    return {row["example_id"]: row["value"] for row in history.outcomes(found["id"], candidate, "test")}
