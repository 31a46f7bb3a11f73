"""`optimize promote`: puts what a run released into the registry and moves a label to it, if the gate lets it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from agent.cli.common import (
    SETTINGS,
    db_option,
    deciding_options,
    json_option,
    plain,
    print_json,
)
from agent.errors import GateFailed, InputError, ReleaseError
from agent.finding import open_history, open_ledger, releases_folder
from agent.ledger.origin import user
from agent.report.facts import without_result

if TYPE_CHECKING:
    from agent.ledger.query import History
    from agent.ledger.store import Ledger
    from agent.release.prompt_file import PromptRelease


NO_CLAIM = "baseline, no gain claimed"


@dataclass(frozen=True, slots=True)
class Offer:
    """What a run has to promote: its `winner`, one that was `held` back, or the user's `own` prompt that it kept.

    It lies in `path`; what the run released lies in `released`, and only where it was held back is that another file.
    """

    result: Mapping[str, Any]
    path: Path
    released: Path
    kind: Literal["winner", "held", "own"]

    @property
    def candidate_id(self) -> str:
        from agent.release.runtime import load_prompt

        if self.kind != "own":
            return str(self.result["winner"]["candidate_id"])
        return str(load_prompt(self.path).provenance.get("candidate_id", ""))


@click.command(context_settings=SETTINGS)
@click.argument("run", required=False, default="")
@click.option("--label", default="production", show_default=True, help="The label to move: production, staging, ab.")
@click.option("--share", type=float, help="Makes the label an A/B label: the candidate's part of the units, 0 to 1.")
@click.option("--own", is_flag=True, help="Your own prompt, which the run kept, and not the winner that it held back.")
@click.option("--override", is_flag=True, help="Promote although the gate says no; needs --reason.")
@deciding_options
@db_option
@json_option
def promote_command(
    run: str,
    label: str,
    share: float | None,
    own: bool,
    override: bool,
    reason: str,
    actor: str,
    db: Path,
    as_json: bool,
) -> None:
    """Keep the winner of RUN (default: the latest) as a version of its task's name, and move a label to it.

    The whole ledger is checked first, as `optimize audit verify` does.

    The gate asks: is the gain on the sealed test shown, did no metric and no slice get worse, has each judge earned
    trust? When it says no, nothing changes and the exit code is 100; --override --reason WHY promotes all the same and
    writes reason and actor into the history and the audit chain. A judge that was calibrated since the run counts as
    it stands now. With --share 0.2 a fifth of the units gets this version and the rest the production version.

    Of a run that kept your own prompt, that prompt is promoted. It claims no gain: it may become the first version of
    a label, and needs --override to take the place of another one, or with --share a part of production's units.
    """
    from agent.release.labels import PRODUCTION
    from agent.release.registry import Registry, check_label
    from agent.release.runtime import load_prompt

    check_label(label, share)
    if label == "ab" and share is None:
        raise InputError("--label ab needs --share, the candidate's part of the units, such as --share 0.2")
    with closing(open_history(db, by_chain=True)) as history:
        found = history.run(run)
        offer = _offer(found, own, db)
        _require_its_own(offer, found["id"], history)
    result = offer.result
    if override and not reason.strip():
        raise InputError("--override needs --reason WHY: it is kept with the release")
    with closing(open_ledger(db)) as ledger:
        registry = Registry(releases_folder(db))
        release = load_prompt(offer.path).release
        registry.require(release.name, label, share, ledger)
        if offer.kind == "own":
            blocked = [
                against
                for place in ((label, PRODUCTION) if share else (label,))
                for against in _in_the_place_of(registry.meaning(release.name, place, ledger), release.version, place)
            ]
        else:
            blocked = _blocked(result, ledger)
        if blocked and not override:
            lines = [f"{found['id']}: {why}" for why in blocked]
            other = "--own promotes your own prompt; " if offer.kind == "held" else ""
            raise GateFailed("\n".join([*lines, f"not promoted; {other}--override --reason WHY promotes all the same"]))
        note = {"reason": reason.strip(), "actor": actor or user(), "against": "; ".join(blocked)}
        if offer.kind == "held":
            release = _release_held(release, offer, note, ledger)
        evidence = {
            "run_id": found["id"],
            "decision": result["decision"],
            **({"claim": NO_CLAIM} if offer.kind == "own" else {"lift": result["lift"]}),
            "overridden": blocked,
            "ledger": ledger.id(),
            "ledger_head": ledger.head(),
        }
        change = registry.promote(
            release, label, ledger, share=share, actor=note["actor"], reason=note["reason"], evidence=evidence
        )
    told = {"candidate_id": offer.candidate_id, "version": release.version, **note}
    if as_json:
        print_json(
            {
                "run_id": found["id"],
                "release": str(offer.released),
                "overridden": bool(blocked),
                "promoted": offer.kind,
                **told,
                "name": release.name,
                "label": label,
                "share": share,
                "moved": change is not None,
                "from": change.before if change else release.version,
            }
        )
        return
    if offer.kind == "held":
        click.echo(plain(f"promoted: {offer.released} ({release.version})"))
    part = "" if share is None else f" for {share:.0%} of the units"
    before = "was it before" if change is None else f"before: {change.before or 'none'}"
    click.echo(f"{release.name}@{label} is {release.version}{part}; {before}")
    if offer.kind == "own":
        click.echo(f"it is your own prompt ({NO_CLAIM})")
    for why in blocked:
        click.echo(plain(f"overridden: {why}"))


def _offer(found: dict[str, Any], own: bool, db: Path) -> Offer:
    """What there is to promote; `own` asks for the user's own prompt. Raises an InputError where there is no such."""
    from agent.ledger.query import released_file
    from agent.release.prompt_file import HELD, PROMPT_FILE, STATE_FILE
    from agent.release.runtime import load_prompt

    result, released = found["result"] or {}, released_file(found, db)
    if "winner" not in result or released is None:
        raise InputError(f"{found['id']}: {without_result(found)}, so there is no winner to promote")
    if released.name == STATE_FILE:
        raise InputError(f"{found['id']}: a run of a DSPy program; its state is shipped with `optimize export`")
    if result["decision"] == "promote":
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
    told = history.select("SELECT body FROM events WHERE run_id = ? AND kind IN ('released', 'promoted')", run_id)
    noted = "held" if offer.kind == "held" else "version"
    versions = {json.loads(event["body"]).get(noted) for event in told} - {None}  # runs of old noted none
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
    told, run_id = {"candidate_id": offer.candidate_id, "version": release.version, **note}, offer.result["run_id"]
    if not ledger.has_event(run_id, "promoted", told):  # the same command again after a kill
        ledger.event(run_id, "promoted", told)
        ledger.flush()
    return release


def _blocked(result: Mapping[str, Any], ledger: Ledger) -> list[str]:
    """What the gate says now: a judge counts as its latest calibration found it."""
    from agent.release.gate import blocked_by

    judges = [{**judge, **_trust(ledger.calibration(judge["judge_id"], ""))} for judge in result.get("judges") or ()]
    return blocked_by({**result, "judges": judges})


def _trust(found: dict[str, object] | None) -> dict[str, object]:
    """What the latest calibration says now; a judge without one stays as it was."""
    if found is None:
        return {}
    why = found["why"]
    return {"trusted": found["trusted"], "why": "; ".join(map(str, why)) if isinstance(why, list) else ""}
