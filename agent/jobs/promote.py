"""Promote what a run released through the gate. Calls no model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PlainSerializer

from agent.errors import GateFailed, InputError, ReleaseError
from agent.jobs.aliases import ACTOR, REASON
from agent.jobs.customize.release_arm import ArmRelease, tuned_arm
from agent.jobs.export import task_of_run
from agent.jobs.locations import open_history, releases_folder
from agent.jobs.registry import job
from agent.ledger.provenance import user
from agent.ledger.query import released_file
from agent.ledger.store import Ledger, open_ledger
from agent.options.option import JobOptions, option
from agent.options.shared import LedgerOption
from agent.programs import ARMS, TUNED_ARMS, ArmName
from agent.programs.classic import released
from agent.release.aliases import PRODUCTION
from agent.release.gate import gate, no_prompt_ahead
from agent.release.promotion import ReleaseRegistry, check_alias
from agent.release.prompt_file import HELD
from agent.release.result import RunResult, search_result
from agent.release.versions import Release, form_of, is_version, read_released
from agent.report.blocks import Block, text
from agent.report.wording import without_result
from agent.results.base import Result
from agent.scoring.tuned_judge import TAG

NO_CLAIM = "baseline, no gain claimed"


class PromoteOptions(JobOptions):
    """What is promoted, to which alias, and who decides."""

    alias: str = option("production", "The alias to move: production, staging, ab.")
    share: float | None = option(None, metavar="SHARE", ge=0, le=1)
    """Make the alias an A/B alias that gives this version to SHARE of the units, 0 to 1."""
    arm: ArmName | None = option(None)
    """classic: the best method without a language model instead of a prompt; its version contains your train rows.
    lora, lora+prompt, full: that arm of a run of `optimize customize`, with its adapter or the path of its model."""
    own: bool = option(False, "Promote your own prompt, which the run kept, instead of the winner that it held back.")
    override: bool = option(False, "Promote despite the gate; needs {reason}.")
    reason: str = REASON
    actor: str = ACTOR


@dataclass(frozen=True, slots=True)
class Promotable:
    """What a search can promote, in `path`; `released` is what the run released, another file only for `held`."""

    result: RunResult
    path: Path
    released: Path
    kind: Literal["winner", "held", "own"]

    @property
    def candidate_id(self) -> str:
        if self.kind != "own":
            return self.result.winner.candidate_id
        return str(read_released(self.path).provenance.get("candidate_id", ""))

    def offer(self, options: PromoteOptions, registry: ReleaseRegistry, book: Ledger) -> ArmRelease:
        release, result = read_released(self.path), self.result
        registry.require(release, options.alias, options.share, book)
        if self.kind != "own":
            measured = _unfit_judge(result.run_id, release.version, book)
            blocked = _blocked(result, book) if measured is None else measured
            claim: dict[str, Any] = {"lift": result.to_json()["lift"]}
        else:
            aliases = (options.alias, PRODUCTION) if options.share else (options.alias,)
            versions = {each: registry.version_of(release.name, each, book) for each in aliases}
            claim = {"claim": NO_CLAIM}
            blocked = tuple(
                f"{each} is {version}, and {form_of(release.version).own} claims no gain over it"
                for each, version in versions.items()
                if version not in ("", release.version)
            )
        evidence = {"decision": result.decision, **claim}
        return ArmRelease(result.run_id, self.kind, self.candidate_id, release, blocked, evidence)


class Promotion(Result):
    """What was promoted: the winner, a rejected winner, the user's prompt, or an arm by name.

    `overridden`: the gate objected, for the reasons `against`. `before` is the previous version, or "" (in JSON
    `from`); `moved`: the alias changed its version. `share`: of the units, for an A/B alias.
    """

    run_id: str
    release: Path
    overridden: bool
    promoted: str
    candidate_id: str
    version: str
    reason: str
    actor: str
    against: Annotated[tuple[str, ...], PlainSerializer("; ".join, str)]
    name: str
    alias: str
    share: float | None
    moved: bool
    before: str = Field(serialization_alias="from")

    def blocks(self) -> Iterator[Block]:
        part = "" if self.share is None else f" for {self.share:.0%} of the units"
        before = f"before: {self.before or 'none'}" if self.moved else "was it before"
        alias = f"{self.name}@{self.alias}"
        lines = [f"promoted: {self.release} ({self.version})"] if self.promoted == "held" else []
        lines.append(f"{alias} is {self.version}{part}; {before}")
        if self.promoted == "own":
            lines.append(f"it is {form_of(self.version).own} ({NO_CLAIM})")
        if self.promoted in ARMS:
            lines.append(f"it needs no language model; load_classifier({alias!r}) loads it, load_prompt refuses")
        yield text(*lines, *(f"overridden: {why}" for why in self.against), exact=True)


@job("promote")
def promote(run: str = "", *, options: PromoteOptions, ledger: LedgerOption) -> Promotion:
    """Store the winner of RUN (default: latest), and point an alias to its version.

    The version is stored under the task's name. The whole ledger is verified first, as by `optimize audit verify`.

    The gate requires that the gain on the sealed test is significant, no metric and no slice got worse, and each judge
    is trusted. If it fails, nothing changes and the exit code is 100; --override --reason WHY promotes anyway and
    writes reason and actor to the history and the audit chain. A judge that was calibrated since the run counts with
    its latest calibration. With --share 0.2 a fifth of the units gets this version, and the rest the production
    version.

    If the run kept your prompt, that prompt is promoted. It claims no gain: it may become the first version of an
    alias, and needs --override to replace another version, or with --share to take a part of production's units.

    With --arm classic the best arm without a language model is promoted, unless the best prompt or your prompt is
    significantly better on the sealed test. Programs load it with `load_classifier`; `load_prompt` refuses such an
    alias. With --arm lora, lora+prompt or full a model that `optimize customize` tuned is promoted if its gain over
    your prompt is significant and no prompt is significantly better; `load_prompt` loads it.

    Raises:
        GateFailed: the gate failed, for the reasons given; nothing was changed.
        InputError: there is nothing to promote, or an alias, share or reason is wrong.
        AgentError: the ledger, the registry or the file was changed or damaged.

    Example:
        >>> pa.promote(result.run_id, alias="staging").version  # doctest: +SKIP
    """
    alias, share, own, db = options.alias, options.share, options.own, ledger.db
    check_alias(alias, share)
    if alias == "ab" and share is None:
        raise InputError("--alias ab needs --share, the candidate's part of the units, such as --share 0.2")
    note = {"reason": options.reason.strip(), "actor": options.actor or user()}
    if options.arm and (share is not None or own):
        raise InputError("--arm: leave out --own and --share, which choose among the prompts of a search")
    if options.override and not note["reason"]:
        raise InputError("--override needs --reason WHY: it is kept with the release")
    found: Promotable | ArmRelease
    if options.arm:
        found = (tuned_arm if options.arm in TUNED_ARMS else _best_yardstick)(run, options.arm, db)
    else:
        found = promotable(run, own, db)
    registry = ReleaseRegistry(releases_folder(db))
    with closing(open_ledger(db)) as book:
        offer = found if isinstance(found, ArmRelease) else found.offer(options, registry, book)
        release, blocked, run_id = offer.release, list(offer.blocked), offer.run_id
        if blocked and not options.override:
            is_held = offer.arm == "held" and not (isinstance(found, Promotable) and found.result.migration)
            other = f"--own promotes {form_of(release.version).own}; " if is_held else ""
            last = f"not promoted; {other}--override --reason WHY promotes all the same"
            raise GateFailed("\n".join([*(f"{run_id}: {why}" for why in blocked), last]))
        path = registry.root / release.name / release.version
        if isinstance(found, Promotable):
            path = found.released
            if found.kind == "held":
                release = _release_held(found, {**note, "against": "; ".join(blocked)}, book)
        head = {"ledger": book.id(), "ledger_head": book.head()}
        evidence = {"run_id": run_id, **offer.evidence, "overridden": blocked, **head}
        change = registry.promote(release, alias, book, share=share, evidence=evidence, **note)
    return Promotion(
        run_id=run_id,
        release=path,
        overridden=bool(blocked),
        promoted=offer.arm,
        candidate_id=offer.candidate_id,
        version=release.version,
        against=tuple(blocked),
        name=release.name,
        alias=alias,
        share=share,
        moved=change is not None,
        before=change.before if change else release.version,
        **note,
    )


def _best_yardstick(run: str, arm: str, db: Path) -> ArmRelease:
    with closing(open_history(db, by_chain=True)) as history:
        found = history.run(run)
        made = released(found, task_of_run(found), history)
    best = made.best
    evidence = {
        "arm": arm,
        "method": best.name,
        "candidate_id": best.candidate_id,
        "test": best.test,
        "ci95": list(best.ci95) if best.ci95 else None,
        "ahead": {prompt: dict(by) for prompt, by in made.ahead.items()},
    }
    return ArmRelease(found["id"], arm, best.candidate_id, made.release, no_prompt_ahead(made.ahead).messages, evidence)


def promotable(run: str, own: bool, db: Path) -> Promotable:
    """Return the winner of a search, held back or not, or your prompt. Raises InputError without a result."""
    with closing(open_history(db, by_chain=True)) as history:
        row = history.run(run)
        offer = _file_of(row, own, db)
        release = read_released(offer.path)
        events = history.facts("released", "promoted", run_ids=[row["id"]])
    noted = "held" if offer.kind == "held" else "version"
    versions = {event["body"].get(noted) for event in events} - {None}  # runs of old noted none
    source = (release.provenance.get("run_id"), release.provenance.get("candidate_id"))
    if source != (row["id"], offer.candidate_id) or (versions and release.version not in versions):
        raise ReleaseError(
            f"{offer.path}: holds {release.version} of run {source[0]}, which is not what {row['id']} "
            f"{'held back' if offer.kind == 'held' else 'released'}; restore the file, or promote the run that it is of"
        )
    return offer


def _file_of(row: dict[str, Any], own: bool, db: Path) -> Promotable:
    result, released = search_result(row["result"], db), released_file(row, db)
    if result is None or released is None:
        raise InputError(f"{row['id']}: {without_result(row)}, so there is no winner to promote")
    if not is_version(released):
        raise InputError(f"{row['id']}: a run of your program; ship its state with `optimize export`")
    kept = read_released(released)
    own_one = form_of(kept.version).own
    if result.decision == "promote":
        if own:
            raise InputError(f"{row['id']}: this run released its winner, not {own_one}; leave out --own")
        return Promotable(result, released, released, "winner")
    if own and result.migration is not None:
        raise InputError(f"{row['id']}: a migration has no prompt of yours; that of the old model is a version already")
    held = released.parent / HELD / released.name
    if held.is_file() and not own:
        return Promotable(result, held, released, "held")
    if "promoted" in kept.provenance:
        raise InputError(f"{row['id']}: its winner was promoted by --override and lies where {own_one} lay")
    return Promotable(result, released, released, "own")


def _release_held(source: Promotable, note: Mapping[str, Any], ledger: Ledger) -> Release:
    release = read_released(source.path)
    release = replace(release, provenance={**release.provenance, "decision": "promote", "promoted": dict(note)})
    release.write(source.released.parent)
    body, run_id = {"candidate_id": source.candidate_id, "version": release.version, **note}, source.result.run_id
    if not ledger.has_event(run_id, "promoted", body):  # the same command again after a kill
        ledger.event(run_id, "promoted", body)
        ledger.flush()
    return release


def _blocked(result: RunResult, ledger: Ledger) -> tuple[str, ...]:
    judges = []
    for judge in result.judges:
        if (now := ledger.calibration(judge.judge_id, "")) is not None:
            judge = judge.model_copy(update={"trusted": bool(now["trusted"]), "why": "; ".join(now["why"])})
        judges.append(judge)
    return gate(result.model_copy(update={"judges": tuple(judges)})).messages


def _unfit_judge(run_id: str, version: str, ledger: Ledger) -> tuple[str, ...] | None:
    """Return what `judge tune` found against the judge of its search; None for other runs.

    It alone decides: the search compares distances between ratings, which a constant answer can make small.
    """
    (row,) = ledger.select("SELECT tags FROM runs WHERE id = ?", run_id)
    if not json.loads(row["tags"] or "{}").items() >= TAG.items():
        return None
    measured = ledger.calibration(version, "")
    if measured is None:
        return ("the judge was not measured yet; run the same `optimize judge tune` again",)
    return tuple(measured.get("held", ()))
