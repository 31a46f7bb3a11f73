"""Tuned arms of a comparison as released prompts: written, and read back for `promote`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import InputError, ReleaseError
from agent.evaluate.breakdown import difference
from agent.jobs.locations import open_history
from agent.ledger.provenance import tool_version, utc_now
from agent.ledger.query import History, Row, run_folder
from agent.release.export import write_release
from agent.release.gate import gain_of_arm, no_prompt_ahead
from agent.release.prompt_file import PROMPT_FILE, PromptRelease
from agent.release.runtime import load_prompt
from agent.release.versions import Release
from agent.results.breakdown import Gain
from agent.results.customize import ComparedArm, CustomizeResult

if TYPE_CHECKING:
    from agent.jobs.customize.arms import MadeArm
    from agent.jobs.customize.plan import CustomizePlan
    from agent.jobs.customize.table import Scored
    from agent.jobs.session import Session
    from agent.programs.variants import TunedProgram

YOURS = "yours"


def write_arm(
    plan: CustomizePlan,
    session: Session[Any],
    program: TunedProgram,
    arm: Scored[ComparedArm],
    yours: Scored[ComparedArm],
    made: MadeArm,
) -> tuple[Path, dict[str, Any]]:
    """Write a tuned arm and prove its rendering; return prompt.md and the ledger note.

    Raises ReleaseError where the files differ from what was scored, or the disk refuses.
    """
    candidate, ledger, name = made.candidate, session.ledger, arm.line.arm
    parameters: dict[str, Any] = {"max_tokens": program.max_tokens(candidate), "temperature": 0.0}
    provenance = {
        "run_id": session.id,
        "arm": name,
        "candidate_id": candidate.id,
        "test": arm.line.test,
        "baseline_test": yours.line.test,
        "lift": difference(arm.scores, yours.scores, session.seed).to_json(),
        "train_rows": len(plan.task.train),
        "hashes": dict(plan.task.hashes),
        "tool": tool_version(),
        "created_utc": utc_now(),
        "ledger": ledger.id(),
        "ledger_head": ledger.head(),
    }
    release = program.release(candidate, parameters, provenance)
    path = write_release(release, run_folder(plan.folder, session.id) / name)
    return path, {"arm": name, "candidate_id": candidate.id, "version": release.version}


def tuned_file(history: History, run: str, arm: str, db: Path) -> tuple[Row, Path]:
    """Return a comparison (`run` "": the latest) and the prompt.md of its tuned arm.

    Raises:
        InputError: no such run or arm.
        ReleaseError: the folder holds something else than the comparison released.
    """
    found, _, _ = _found(history, run, arm, db)
    return found, run_folder(db.parent, found["id"]) / arm / PROMPT_FILE


@dataclass(frozen=True, slots=True)
class ArmRelease:
    """A tuned arm to promote; `blocked`: the gate's reasons against it, `evidence`: for the ledger, JSON-ready."""

    run_id: str
    arm: str
    candidate_id: str
    release: Release
    blocked: Sequence[str]
    evidence: Mapping[str, Any]


def tuned_arm(run: str, arm: str, db: Path) -> ArmRelease:
    """Load a tuned arm and apply the gate.

    It asks for a significant gain, and for no prompt that is significantly better. Raises what `tuned_file` raises.
    """
    with closing(open_history(db, by_chain=True)) as history:
        found, lines, release = _found(history, run, arm, db)
        scores = {
            name: {row["example_id"]: row["value"] for row in history.outcomes(found["id"], each.candidate_id, "test")}
            for name, each in lines.items()
            if name == arm or (each.family == "prompt" and name != YOURS)
        }
    line, own, ahead = lines[arm], scores.pop(arm), dict[str, Gain]()
    for name, theirs in scores.items():
        rows = sorted(own.keys() & theirs.keys())
        gain = difference([theirs[row] for row in rows], [own[row] for row in rows], found["seed"])
        ahead[f"the arm {name}"] = gain
    lift = Gain(diff=line.diff, diff_ci95=line.diff_ci95, p_value=line.p_value)
    known = {"arm": arm, "candidate_id": line.candidate_id, "test": line.test, "ci95": line.ci95}
    blocked = [*gain_of_arm(lift).messages, *no_prompt_ahead(ahead).messages]
    return ArmRelease(found["id"], arm, line.candidate_id, release, blocked, {**known, "lift": dict(lift)})


def _found(history: History, run: str, arm: str, db: Path) -> tuple[Row, dict[str, ComparedArm], PromptRelease]:
    found = history.run(run) if run else next(filter(_is_comparison, history.runs()), None)
    if found is None:
        raise InputError(f"{history.path}: no comparison yet; `optimize customize TASK` makes one")
    if not _is_comparison(found):
        raise InputError(f"{found['id']}: not a run of `optimize customize`; name one that is")
    lines = {line.arm: line for line in CustomizeResult.from_json(found["result"]).arms}
    if arm not in lines or not lines[arm].path:
        there = ", ".join(name for name, line in lines.items() if line.path) or "none"
        raise InputError(f"{found['id']}: it trained no arm {arm!r}; it has {there}")
    path = run_folder(db.parent, found["id"]) / arm / PROMPT_FILE
    release = load_prompt(path).release
    noted = [event["body"] for event in history.facts("released", run_ids=[found["id"]])]
    if release.version not in [each["version"] for each in noted if each["arm"] == arm]:
        raise ReleaseError(
            f"{path}: {release.version} is not what {found['id']} released as {arm}; restore the "
            "file, or repeat the comparison"
        )
    return found, lines, release


def _is_comparison(run: Row) -> bool:
    return (run["result"] or {}).get("kind") == "customize"
