"""`optimize promote`: puts a run's winner in the place of the released prompt, if the gate lets it."""

from __future__ import annotations

import getpass
from dataclasses import replace
from pathlib import Path

import click

from agent.cli.common import SETTINGS, db_option, json_option, open_history, plain, print_json
from agent.errors import GateFailed, InputError


@click.command(context_settings=SETTINGS)
@click.argument("run", required=False, default="")
@click.option("--override", is_flag=True, help="Promote although the gate says no; needs --reason.")
@click.option("--reason", default="", help="Why; kept in the ledger's chain and in the release.")
@click.option("--actor", default="", help="Who decides. Default: the user of this machine.")
@db_option
@json_option
def promote_command(run: str, override: bool, reason: str, actor: str, db: Path, as_json: bool) -> None:
    """Release the winner of RUN (default: the latest) in the place of your own prompt.

    The gate asks: is the gain on the sealed test shown, did no metric and no slice get worse, has each judge earned
    trust? When it says no, nothing changes and the exit code is 100; --override --reason WHY promotes all the same and
    writes reason and actor into the audit chain. A judge that was calibrated since the run counts as it stands now.
    """
    from agent.ledger.store import Ledger
    from agent.optimize import HELD
    from agent.program_run import STATE_FILE
    from agent.release.export import write_release
    from agent.release.gate import blocked_by
    from agent.release.runtime import PROMPT_FILE, load_prompt

    history = open_history(db)
    found = history.run(run)
    history.close()
    result = found["result"] or {}
    if "winner" not in result:
        raise InputError(f"{found['id']}: this run is {found['status']} and has no winner to promote")
    released = Path(result["release"])
    if released.name == STATE_FILE:
        raise InputError(f"{found['id']}: a run of a DSPy program; its state is shipped with `optimize export`")
    if override and not reason.strip():
        raise InputError("--override needs --reason WHY: it is kept with the release")
    if result["decision"] == "promote":
        raise InputError(f"{found['id']}: its winner is promoted: {released}")
    held = released.parent / HELD / PROMPT_FILE
    if not held.is_file():
        raise GateFailed(f"{found['id']}: no prompt was found that differs from your own; there is nothing to promote")
    ledger = Ledger(db)
    try:
        judges = [
            {**judge, **_trust(ledger.calibration(judge["judge_id"], ""))} for judge in result.get("judges") or ()
        ]
        blocked = blocked_by({**result, "judges": judges})
        if blocked and not override:
            lines = [f"{found['id']}: {why}" for why in blocked]
            raise GateFailed("\n".join([*lines, "not promoted; --override --reason WHY promotes all the same"]))
        note = {"reason": reason.strip(), "actor": actor or _user(), "against": "; ".join(blocked)}
        release = load_prompt(held).release
        release = replace(release, provenance={**release.provenance, "decision": "promote", "promoted": note})
        place = write_release(release, released.parent)
        told = {"candidate_id": result["winner"]["candidate_id"], "version": release.version, **note}
        ledger.event(found["id"], "promoted", told)
        ledger.flush()
    finally:
        ledger.close()
    if as_json:
        print_json({"run_id": found["id"], "release": str(place), "overridden": bool(blocked), **told})
        return
    click.echo(f"promoted: {place} ({release.version})")
    for why in blocked:
        click.echo(plain(f"overridden: {why}"))


def _trust(found: dict[str, object] | None) -> dict[str, object]:
    """What the latest calibration says now; a judge without one stays as it was."""
    if found is None:
        return {}
    why = found["why"]
    return {"trusted": found["trusted"], "why": "; ".join(map(str, why)) if isinstance(why, list) else ""}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
