"""Promoting what a run released, and what aliases mean: the registry, the gate, and an override with its reason.

Calls no model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from agent.errors import GateFailed, InputError, LedgerBusy, ReleaseError
from agent.ledger.provenance import user
from agent.ledger.query import History, released_file
from agent.ledger.store import Ledger
from agent.release.aliases import (
    NAME,
    PRODUCTION,
    AliasChange,
    NeedsUnit,
    Reference,
    current,
    read_history,
    released_names,
)
from agent.release.export import write_release
from agent.release.gate import blocked_by
from agent.release.promotion import ReleaseRegistry, check_alias
from agent.release.prompt_file import HELD, PROMPT_FILE, PromptRelease, holds_prompt
from agent.release.result import RunResult, search_result
from agent.release.runtime import Prompt, load_prompt
from agent.report.facts import without_result
from agent.results.breakdown import JudgeTrust
from agent.run.locations import LEDGER, open_history, open_ledger, releases_folder
from agent.run.promote_arm import promote_arm

NO_CLAIM = "baseline, no gain claimed"
BUSY_AFTER = 1.0
"""Seconds; a rollback does not wait for a run to end."""


@dataclass(frozen=True, slots=True)
class Promotable:
    """What a run has to promote: its `winner`, one that was `held` back, or the user's `own` prompt that it kept.

    It lies in `path`; what the run released lies in `released`, and only where it was held back is that another file.
    """

    result: RunResult
    path: Path
    released: Path
    kind: Literal["winner", "held", "own"]

    @property
    def candidate_id(self) -> str:
        if self.kind != "own":
            return self.result.winner.candidate_id
        return str(load_prompt(self.path).provenance.get("candidate_id", ""))


@dataclass(frozen=True, slots=True)
class Promotion:
    """What was promoted. `promoted`: the winner, one that was held back, the user's own prompt, or an arm by its name;
    `against`: what the gate had against it and was overridden; `before`: the version that the alias meant, or "";
    `moved`: whether it means another one now."""

    run_id: str
    name: str
    alias: str
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
            "alias": self.alias,
            "share": self.share,
            "moved": self.moved,
            "from": self.before,
        }


def promote(
    run: str = "",
    *,
    alias: str = "production",
    share: float | None = None,
    own: bool = False,
    arm: str = "",
    override: bool = False,
    reason: str = "",
    actor: str = "",
    ledger: str | Path = LEDGER,
) -> Promotion:
    """Keeps what a run released as a version of its task's name, and moves an alias to it, if the gate lets it.

    The whole ledger is checked first. Calls no model.

    Args:
        run: its id, or the unique start of it. "": the latest.
        alias: the alias to move, such as production or staging.
        share: makes the alias an A/B alias: the candidate's part of the units, in (0, 1).
        own: your own prompt, which the run kept, and not the winner that it held back.
        arm: "classic": instead of a prompt the best that needs no language model, if no prompt of the run is shown to
            be better. Its version holds the train rows; `load_classifier` loads it, and `load_prompt` refuses it.
            "lora", "lora+prompt", "full": that arm of a run of `optimize customize`; `load_prompt` loads it with its
            adapter, or with the path of its model.
        override: promote although the gate says no; needs `reason`.
        reason: why; kept in the history and in the ledger's chain.
        actor: who decides. "": the user of this machine.
        ledger: the ledger file.

    Returns:
        What was promoted, and what the alias meant before.

    Raises:
        GateFailed: the gate says no, in its words; nothing was changed.
        InputError: there is nothing to promote, or an alias, share or reason is wrong.
        AgentError: the ledger, the registry or the file is not as it was written.

    Example:
        >>> pa.promote(result.run_id, alias="staging").version  # doctest: +SKIP
    """
    db = Path(ledger)
    check_alias(alias, share)
    if alias == "ab" and share is None:
        raise InputError("--alias ab needs --share, the candidate's part of the units, such as --share 0.2")
    if arm:
        if share is not None or own:
            raise InputError("--arm: leave out --own and --share, which choose among the prompts of a search")
        return promote_arm(run, arm, alias, override, reason, actor, db)
    with closing(open_history(db, by_chain=True)) as history:
        row = history.run(run)
        source = _promotable(row, own, db)
        _require_its_own(source, row["id"], history)
    result = source.result
    if override and not reason.strip():
        raise InputError("--override needs --reason WHY: it is kept with the release")
    with closing(open_ledger(db)) as book:
        registry = ReleaseRegistry(releases_folder(db))
        release = load_prompt(source.path).release
        registry.require(release, alias, share, book)
        if source.kind == "own":
            aliases = (alias, PRODUCTION) if share else (alias,)
            versions = {each: registry.version_of(release.name, each, book) for each in aliases}
            blocked = [
                f"{each} is {version}, and your own prompt claims no gain over it"
                for each, version in versions.items()
                if version not in ("", release.version)
            ]
        else:
            blocked = _blocked(result, book)
        if blocked and not override:
            lines = [f"{row['id']}: {why}" for why in blocked]
            has_own = source.kind == "held" and result.migration is None
            other = "--own promotes your own prompt; " if has_own else ""
            raise GateFailed("\n".join([*lines, f"not promoted; {other}--override --reason WHY promotes all the same"]))
        note = {"reason": reason.strip(), "actor": actor or user(), "against": "; ".join(blocked)}
        if source.kind == "held":
            release = _release_held(release, source, note, book)
        evidence = {
            "run_id": row["id"],
            "decision": result.decision,
            **({"claim": NO_CLAIM} if source.kind == "own" else {"lift": result.to_json()["lift"]}),
            "overridden": blocked,
            "ledger": book.id(),
            "ledger_head": book.head(),
        }
        change = registry.promote(
            release, alias, book, share=share, actor=note["actor"], reason=note["reason"], evidence=evidence
        )
    return Promotion(
        row["id"],
        release.name,
        alias,
        release.version,
        source.candidate_id,
        source.kind,
        source.released,
        share,
        change is not None,
        change.before if change else release.version,
        tuple(blocked),
        note["reason"],
        note["actor"],
    )


def _promotable(row: dict[str, Any], own: bool, db: Path) -> Promotable:
    """What there is to promote; `own` asks for the user's own prompt. Raises an InputError where there is no such."""
    result, released = search_result(row["result"], db), released_file(row, db)
    if result is None or released is None:
        raise InputError(f"{row['id']}: {without_result(row)}, so there is no winner to promote")
    if not holds_prompt(released):
        raise InputError(f"{row['id']}: a run of a program of your own; its state is shipped with `optimize export`")
    if result.decision == "promote":
        if own:
            raise InputError(f"{row['id']}: this run released its winner, not your own prompt; leave out --own")
        return Promotable(result, released, released, "winner")
    if own and result.migration is not None:
        raise InputError(f"{row['id']}: a migration has no prompt of yours; that of the old model is a version already")
    held = released.parent / HELD / PROMPT_FILE
    if held.is_file() and not own:
        return Promotable(result, held, released, "held")
    if "promoted" in load_prompt(released).provenance:
        raise InputError(f"{row['id']}: its winner was promoted by --override and lies where your own prompt lay")
    return Promotable(result, released, released, "own")


def _require_its_own(offer: Promotable, run_id: str, history: History) -> None:
    """Raises a ReleaseError unless the file holds what this run released or held back, by the ledger's own record: on
    its evidence nothing else may be promoted."""
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


def _release_held(release: PromptRelease, source: Promotable, note: Mapping[str, Any], ledger: Ledger) -> PromptRelease:
    """Puts a winner that was held back in the place of the run's released prompt; recorded once."""
    release = replace(release, provenance={**release.provenance, "decision": "promote", "promoted": dict(note)})
    write_release(release, source.released.parent)
    body, run_id = {"candidate_id": source.candidate_id, "version": release.version, **note}, source.result.run_id
    if not ledger.has_event(run_id, "promoted", body):  # the same command again after a kill
        ledger.event(run_id, "promoted", body)
        ledger.flush()
    return release


def _blocked(result: RunResult, ledger: Ledger) -> list[str]:
    """What the gate says now: a judge counts as its latest calibration measured it."""
    judges = tuple(_judge_now(judge, ledger.calibration(judge.judge_id, "")) for judge in result.judges)
    return [block.message for block in blocked_by(result.model_copy(update={"judges": judges}))]


def _judge_now(judge: JudgeTrust, calibration: dict[str, Any] | None) -> JudgeTrust:
    if calibration is None:
        return judge
    update = {"trusted": bool(calibration["trusted"]), "why": "; ".join(calibration["why"])}
    return judge.model_copy(update=update)


def roll_back(name: str, alias: str, actor: str, reason: str, db: Path) -> tuple[AliasChange, str]:
    """Puts an alias back to the version before, also without a ledger and while a run holds it.

    Args:
        name: of the releases.
        alias: the alias to put back.
        actor: who decides. "": the user of this machine.
        reason: why; kept in the history.
        db: the ledger.

    Returns:
        The change, and why it is not in the chain yet; "" when it is.

    Raises:
        ReleaseError: the alias has no version before, or its history is damaged.
    """
    registry, actor, reason = ReleaseRegistry(releases_folder(db)), actor or user(), reason.strip()
    if not db.is_file():
        return registry.rollback(name, alias, None, actor=actor, reason=reason), f"{db}: no ledger here"
    try:
        ledger = open_ledger(db, BUSY_AFTER)
    except LedgerBusy:
        with closing(open_history(db)) as history:
            change = registry.rollback(name, alias, history, actor=actor, reason=reason)
        return change, f"{db}: another process writes to the ledger"
    with closing(ledger):
        return registry.rollback(name, alias, ledger, actor=actor, reason=reason), ""


def prompt_named(reference: str, unit: str | None, db: Path) -> Prompt:
    """The prompt that NAME@ALIAS or NAME@VERSION means now (NAME: its production), read from the files alone.

    `unit` is what an A/B alias buckets. Raises InputError where it is missing, or the reference is none.
    """
    wanted = reference if "@" in reference else f"{reference}@production"
    if Reference.of(wanted) is None:
        raise InputError(f"{reference}: write NAME@ALIAS or NAME@VERSION; `optimize aliases` lists them")
    try:
        return load_prompt(wanted, root=releases_folder(db), unit=unit)
    except NeedsUnit:
        raise InputError(f"{wanted} is an A/B alias: say whom it is for with --unit ID") from None


def current_aliases(db: Path) -> tuple[Path, list[AliasChange]]:
    """The registry, and what every alias in it means now."""
    root = releases_folder(db)
    return root, [change for name in released_names(root) for change in current(read_history(root / name)).values()]


def alias_history(name: str, db: Path) -> list[AliasChange]:
    """Each change that was ever made to an alias of this name, oldest first and checked as a whole."""
    root = releases_folder(db)
    names = released_names(root)
    if not NAME.fullmatch(name) or name not in names:
        raise InputError(f"{name}: no releases of this name in {root}; here are: {', '.join(names) or 'none'}")
    return read_history(root / name)
