"""Promoting what a run released: the registry, the gate, and an override with its reason. Calls no model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from agent.errors import GateFailed, InputError, ReleaseError
from agent.ledger.provenance import user
from agent.report.facts import without_result
from agent.run.locations import LEDGER, open_history, open_ledger, releases_folder
from agent.run.promote_arm import promote_arm

if TYPE_CHECKING:
    from agent.ledger.query import History
    from agent.ledger.store import Ledger
    from agent.release.prompt_file import PromptRelease
    from agent.release.result import RunResult
    from agent.release.result_breakdown import JudgeTrust


NO_CLAIM = "baseline, no gain claimed"


@dataclass(frozen=True, slots=True)
class Offer:
    """What a run has to promote: its `winner`, one that was `held` back, or the user's `own` prompt that it kept.

    It lies in `path`; what the run released lies in `released`, and only where it was held back is that another file.
    """

    result: RunResult
    path: Path
    released: Path
    kind: Literal["winner", "held", "own"]

    @property
    def candidate_id(self) -> str:
        from agent.release.runtime import load_prompt

        if self.kind != "own":
            return self.result.winner.candidate_id
        return str(load_prompt(self.path).provenance.get("candidate_id", ""))


@dataclass(frozen=True, slots=True)
class Promotion:
    """What was promoted. `promoted`: the winner, one that was held back, the user's own prompt, or an arm by its name;
    `against`: what the gate had against it and was overridden; `before`: the version that the label meant, or "";
    `moved`: whether it means another one now."""

    run_id: str
    name: str
    label: str
    version: str
    candidate_id: str
    promoted: str
    path: Path
    share: float | None
    moved: bool
    before: str
    against: tuple[str, ...]
    reason: str
    actor: str

    def to_json(self) -> dict[str, Any]:
        """The object of `optimize promote --json`."""
        return {
            "run_id": self.run_id,
            "release": str(self.path),
            "overridden": bool(self.against),
            "promoted": self.promoted,
            "candidate_id": self.candidate_id,
            "version": self.version,
            "reason": self.reason,
            "actor": self.actor,
            "against": "; ".join(self.against),
            "name": self.name,
            "label": self.label,
            "share": self.share,
            "moved": self.moved,
            "from": self.before,
        }


def promote(
    run: str = "",
    *,
    label: str = "production",
    share: float | None = None,
    own: bool = False,
    arm: str = "",
    override: bool = False,
    reason: str = "",
    actor: str = "",
    ledger: str | Path = LEDGER,
) -> Promotion:
    """Keeps what a run found as a version of its task's name, and moves a label to it, if the gate lets it.

    The whole ledger is checked first. Calls no model.

    Args:
        run: its id, or the unique start of it. "": the latest.
        label: the label to move, such as production or staging.
        share: makes the label an A/B label: the candidate's part of the units, in (0, 1).
        own: your own prompt, which the run kept, and not the winner that it held back.
        arm: "classic": instead of a prompt the best that needs no language model, if no prompt of the run is shown to
            be better. Its version holds the train rows; `load_classifier` loads it, and `load_prompt` refuses it.
        override: promote although the gate says no; needs `reason`.
        reason: why; kept in the history and in the ledger's chain.
        actor: who decides. "": the user of this machine.
        ledger: the ledger file.

    Returns:
        What was promoted, and what the label meant before.

    Raises:
        GateFailed: the gate says no, in its words; nothing was changed.
        InputError: there is nothing to promote, or a label, share or reason is wrong.
        AgentError: the ledger, the registry or the file is not as it was written.

    Example:
        >>> pa.promote(result.run_id, label="staging").version  # doctest: +SKIP
    """
    db = Path(ledger)
    from agent.release.labels import PRODUCTION
    from agent.release.promotion import ReleaseRegistry, check_label
    from agent.release.runtime import load_prompt

    check_label(label, share)
    if label == "ab" and share is None:
        raise InputError("--label ab needs --share, the candidate's part of the units, such as --share 0.2")
    if arm:
        if share is not None or own:
            raise InputError("--arm: is no prompt; leave out --own and --share, whose arms are prompts")
        return promote_arm(run, arm, label, override, reason, actor, db)
    with closing(open_history(db, by_chain=True)) as history:
        found = history.run(run)
        offer = _offer(found, own, db)
        _require_its_own(offer, found["id"], history)
    result = offer.result
    if override and not reason.strip():
        raise InputError("--override needs --reason WHY: it is kept with the release")
    with closing(open_ledger(db)) as book:
        registry = ReleaseRegistry(releases_folder(db))
        release = load_prompt(offer.path).release
        registry.require(release, label, share, book)
        if offer.kind == "own":
            blocked = [
                against
                for place in ((label, PRODUCTION) if share else (label,))
                for against in _in_the_place_of(registry.version_of(release.name, place, book), release.version, place)
            ]
        else:
            blocked = _blocked(result, book)
        if blocked and not override:
            lines = [f"{found['id']}: {why}" for why in blocked]
            other = "--own promotes your own prompt; " if offer.kind == "held" else ""
            raise GateFailed("\n".join([*lines, f"not promoted; {other}--override --reason WHY promotes all the same"]))
        note = {"reason": reason.strip(), "actor": actor or user(), "against": "; ".join(blocked)}
        if offer.kind == "held":
            release = _release_held(release, offer, note, book)
        evidence = {
            "run_id": found["id"],
            "decision": result.decision,
            **({"claim": NO_CLAIM} if offer.kind == "own" else {"lift": result.to_json()["lift"]}),
            "overridden": blocked,
            "ledger": book.id(),
            "ledger_head": book.head(),
        }
        change = registry.promote(
            release, label, book, share=share, actor=note["actor"], reason=note["reason"], evidence=evidence
        )
    return Promotion(
        found["id"],
        release.name,
        label,
        release.version,
        offer.candidate_id,
        offer.kind,
        offer.released,
        share,
        change is not None,
        change.before if change else release.version,
        tuple(blocked),
        note["reason"],
        note["actor"],
    )


def _offer(found: dict[str, Any], own: bool, db: Path) -> Offer:
    """What there is to promote; `own` asks for the user's own prompt. Raises an InputError where there is no such."""
    from agent.ledger.query import released_file
    from agent.release.prompt_file import HELD, PROMPT_FILE, holds_prompt
    from agent.release.result import search_result
    from agent.release.runtime import load_prompt

    result, released = search_result(found["result"], db), released_file(found, db)
    if result is None or released is None:
        raise InputError(f"{found['id']}: {without_result(found)}, so there is no winner to promote")
    if not holds_prompt(released):
        raise InputError(f"{found['id']}: a run of a program of your own; its state is shipped with `optimize export`")
    if result.decision == "promote":
        if own:
            raise InputError(f"{found['id']}: this run released its winner, not your own prompt; leave out --own")
        return Offer(result, released, released, "winner")
    held = released.parent / HELD / PROMPT_FILE
    if held.is_file() and not own:
        return Offer(result, held, released, "held")
    if "promoted" in load_prompt(released).provenance:
        raise InputError(f"{found['id']}: its winner was promoted by --override and lies where your own prompt lay")
    return Offer(result, released, released, "own")


def _require_its_own(offer: Offer, run_id: str, history: History) -> None:
    """Raises a ReleaseError unless the file holds what this run released or held back, by the ledger's own record: on
    its evidence nothing else may be promoted."""
    from agent.release.runtime import load_prompt

    release = load_prompt(offer.path).release
    events = history.select("SELECT body FROM events WHERE run_id = ? AND kind IN ('released', 'promoted')", run_id)
    noted = "held" if offer.kind == "held" else "version"
    versions = {json.loads(event["body"]).get(noted) for event in events} - {None}  # runs of old noted none
    source = (release.provenance.get("run_id"), release.provenance.get("candidate_id"))
    if source != (run_id, offer.candidate_id) or (versions and release.version not in versions):
        raise ReleaseError(
            f"{offer.path}: holds {release.version} of run {source[0]}, which is not what {run_id} "
            f"{'held back' if offer.kind == 'held' else 'released'}; restore the file, or promote the run that it is of"
        )


def _in_the_place_of(before: str, version: str, label: str) -> list[str]:
    """What is against a prompt without a claim: it would take the place of another version."""
    if before in ("", version):
        return []
    return [f"{label} is {before}, and your own prompt claims no gain over it"]


def _release_held(release: PromptRelease, offer: Offer, note: Mapping[str, Any], ledger: Ledger) -> PromptRelease:
    """Puts a winner that was held back in the place of the run's released prompt; recorded once."""
    from agent.release.export import write_release

    release = replace(release, provenance={**release.provenance, "decision": "promote", "promoted": dict(note)})
    write_release(release, offer.released.parent)
    body, run_id = {"candidate_id": offer.candidate_id, "version": release.version, **note}, offer.result.run_id
    if not ledger.has_event(run_id, "promoted", body):  # the same command again after a kill
        ledger.event(run_id, "promoted", body)
        ledger.flush()
    return release


def _blocked(result: RunResult, ledger: Ledger) -> list[str]:
    """What the gate says now: a judge counts as its latest calibration found it."""
    from agent.release.gate import blocked_by

    judges = tuple(_judge_now(judge, ledger.calibration(judge.judge_id, "")) for judge in result.judges)
    return [block.message for block in blocked_by(replace(result, judges=judges))]


def _judge_now(judge: JudgeTrust, found: dict[str, Any] | None) -> JudgeTrust:
    """What the latest calibration says now; a judge without one stays as it was."""
    return judge if found is None else replace(judge, trusted=bool(found["trusted"]), why="; ".join(found["why"]))
