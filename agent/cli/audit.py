"""`optimize audit`: checks, exports, erasures, and what was recorded about a run, a trial, a call or a prompt."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.common import PATH, SETTINGS, db_option, ledger_options, plain, print_json
from agent.errors import InputError
from agent.report import run_tables
from agent.report.blocks import text
from agent.report.facts import amount, looks_up, picked, points, promotion
from agent.report.terminal import print_listing, print_table, say, show
from agent.report.view import RunView
from agent.run.locations import open_history

if TYPE_CHECKING:
    from agent.ledger.query import History

SHOWN = 5  # findings of one check in the table
MADE_WITH = ("origin", "options", "hashes", "budget", "plan")


@click.group(context_settings=SETTINGS)
def audit_command() -> None:
    """Check, read, export and erase from the ledger: the record of every call, score and decision."""


@audit_command.command(context_settings=SETTINGS)
@click.option("--anchor", help="A head that was noted elsewhere: the hash, or a file that holds it.")
@ledger_options
def verify_command(anchor: str | None, db: Path, as_json: bool) -> None:
    """Check every byte that matters: structure, schema, the hash chain, each row and text against it.

    Prints `whole: N events, head HASH` (of a merged ledger for each of its chains) and ends with 0, or each thing that
    does not hold, the first event first, and ends with 1 (with --json, `seq` 0 is the file as a whole). Releases,
    aliases and reports beside the ledger name heads that it must have: an older copy in its place is found. The file of
    --anchor may be what `optimize audit anchor` wrote, a result of --json, or a released prompt.
    """
    from agent.run.ledger_audit import verify_ledger

    result = verify_ledger(db, anchor)
    for note in result.notes:
        click.echo(f"note: {plain(note)}", err=True)
    if as_json:
        print_json(result.to_json())
    elif result.findings:
        click.echo("\n".join(plain(str(finding)) for finding in result.findings))
    elif result.chains:
        for chain in result.chains:
            click.echo(f"whole: {plain(chain.name)}: {chain.events} events, head {chain.head}")
        click.echo(f"whole: {len(result.chains)} chains, {result.events} events in a merged ledger")
    else:
        click.echo(f"whole: {result.events} events, head {result.head}")
    if result.findings:
        raise SystemExit(1)


@audit_command.command(context_settings=SETTINGS)
@click.option("-o", "--output", type=PATH, help="Where to write it. Default: print it.")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@db_option
def anchor_command(output: Path | None, force: bool, db: Path) -> None:
    """Print the head of the chain as JSON, to keep where whoever can write the ledger cannot.

    The chain alone shows a change in its middle; who writes it all anew is shown by a head that was noted elsewhere:
    `optimize audit verify --anchor FILE`.
    """
    from agent.ledger.bundle import new_export
    from agent.run.ledger_audit import anchor_ledger

    anchor = anchor_ledger(db)
    if output is None:
        print_json(anchor)
        return
    with new_export(output, force) as file:
        file.write((json.dumps(anchor, indent=2) + "\n").encode())
    click.echo(f"wrote {plain(str(output))}: event {anchor['seq']}, head {anchor['hash']}", err=True)


@audit_command.command(context_settings=SETTINGS)
@click.argument("run", required=False, default="")
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "zip"]),
    default="jsonl",
    show_default=True,
    help="Every event as JSON lines, or a bundle with tables and texts that checks itself.",
)
@click.option("-o", "--output", type=PATH, required=True, help="The file to write.")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@db_option
def export_command(run: str, form: str, output: Path, force: bool, db: Path) -> None:
    """Write every event of the ledger; with RUN, a zip holds only the rows and texts of that run.

    The chain is always whole, as it could not be checked in parts. `python FILE.zip` checks a bundle, without this
    program.
    """
    from agent.ledger.anchors import snapshot
    from agent.ledger.bundle import write_bundle, write_jsonl
    from agent.ledger.merged import refuse_merged

    history = open_history(db)
    run_id = str(history.run(run)["id"]) if run else ""
    if output.is_dir():
        raise InputError(f"{output}: is a folder; name a file with -o")
    with snapshot(db) as connection:
        refuse_merged(connection, db, "an export holds one whole chain")
        if form == "jsonl":
            click.echo(f"wrote {plain(str(output))}: {write_jsonl(connection, output, force)} events", err=True)
            return
        manifest = write_bundle(connection, output, force, run_id)
    counts, head = manifest["counts"], manifest["head"]["hash"]
    click.echo(
        f"wrote {plain(str(output))}: {counts['events']} events, {counts['texts']} texts, head {head}; "
        f"`python {plain(str(output))}` checks it",
        err=True,
    )


@audit_command.command(context_settings=SETTINGS)
@click.argument("run", required=False, default="")
@ledger_options
def check_command(run: str, db: Path, as_json: bool) -> None:
    """Check RUN (default: the latest) for contamination, and whether its books add up.

    Contamination: examples or instructions that hold dev or test rows, a test that was opened twice. Books: scores
    without a reply, means, charges and caps that do not follow from the calls. Ends with 1 when anything does not hold.
    What needs the rows is left out (-) when the task is gone or its rows changed since.
    """
    from agent.run.ledger_audit import check_run

    history = open_history(db)
    row = history.run(run)
    checks = check_run(history, row)
    holds = all(check.ok is not False for check in checks)
    if as_json:
        listed = [{"check": check.name, "ok": check.ok, "found": list(check.found)} for check in checks]
        print_json({"run_id": row["id"], "holds": holds, "checks": listed})
    else:
        words = {True: "ok", False: "PROBLEM", None: "-"}
        rows = [(check.name, words[check.ok], _first(check.found)) for check in checks]
        print_table(f"checks of {row['id']}", ("check", "ok", "found"), rows)
    if not holds:
        raise SystemExit(1)


def _first(findings: tuple[str, ...]) -> str:
    more = [f"and {len(findings) - SHOWN} more"] if len(findings) > SHOWN else []
    return "; ".join([*findings[:SHOWN], *more])


@audit_command.command(context_settings=SETTINGS)
@click.option("--hash", "hashes", multiple=True, metavar="H", help="A text by its SHA-256; repeatable.")
@click.option("--containing", metavar="TEXT", help="Every text that holds TEXT, also where JSON writes it otherwise.")
@click.option("--actor", required=True, help="Who wants it; is recorded.")
@click.option("--reason", required=True, help="Why; is recorded.")
@click.option("--yes", is_flag=True, allow_from_autoenv=False, help="Do not ask.")
@ledger_options
def erase_command(
    hashes: tuple[str, ...], containing: str | None, actor: str, reason: str, yes: bool, db: Path, as_json: bool
) -> None:
    """Erase prompts, requests and replies for good; the chain keeps their hashes, the actor and the reason.

    A reply that is gone is bought again when it is needed. What rows and events say in their own words, such as an
    error message, cannot be erased, and is named.
    """
    from agent.run.ledger_audit import erase, prepare_erasure

    plan = prepare_erasure(hashes, containing, actor, reason, db)
    count = len(plan.texts)
    if not as_json:
        words = ", ".join(f"{number} {kind}{'s' if number > 1 else ''}" for kind, number in plan.kinds.items())
        click.echo(f"{count} texts go for good: {words}" if count else "no text holds it", err=True)
    if count and not yes:
        click.confirm("erase them?", abort=True, err=True)
    erased = erase(plan, actor, reason)
    if as_json:
        print_json(erased.to_json())
        return
    click.echo(f"erased {count} texts; the ledger is whole, head {erased.head}")
    for line in erased.left:
        click.echo(f"still there: {plain(line)}", err=True)


# -- audit show -------------------------------------------------------------------------------------------------------


@audit_command.command(context_settings=SETTINGS)
@click.argument("what", metavar="RUN|TRIAL|CALL")
@ledger_options
def show_command(what: str, db: Path, as_json: bool) -> None:
    """Show what was recorded about a run, a trial or a call.

    RUN is a run's id or the start of it. TRIAL is RUN:NUMBER, or a number for the latest run. CALL is call:ID or #ID,
    or the key of a call (k_...) as a trial's rows show it.
    """
    from agent.ledger.trail import call_id

    history = open_history(db)
    if re.fullmatch(r"(call:|#)\d{1,18}|k_[0-9a-f]{16}", what):
        _show_call(history, call_id(history, what), as_json)
        return
    run_id, colon, number = what.rpartition(":")
    if colon and number.isdecimal():
        _show_trial(RunView(history, run_id), int(number), as_json)
        return
    if what.isdecimal() and len(what) < 8:
        latest = RunView(history)
        if any(trial["number"] == int(what) for trial in history.trials(latest.id)):
            _show_trial(latest, int(what), as_json)
            return
    _show_run(history, history.run(what), as_json)


# -- audit show: a run ------------------------------------------------------------------------------------------------


def _show_run(history: History, run: dict[str, Any], as_json: bool) -> None:
    from agent.ledger.trail import events_of

    events, costs = events_of(history, run["id"]), history.costs(run["id"])
    if as_json:
        print_json({"run": run, "events": events, "costs": costs})
        return
    click.echo(f"run {run['id']}  {plain(run['task'])}  {plain(run['model'])}  {run['status']}")
    rows = [(name, run[name]) for name in ("started_utc", "ended_utc", "seconds", "parent", "proposer", "seed", "tool")]
    rows += [("prices", run["prices"]), ("tags", _words(run["tags"])), ("result_hash", run["result_hash"])]
    for name in MADE_WITH:
        rows += [(f"{name}.{key}", _words(value)) for key, value in (run[name] or {}).items()]
    print_table("made with", ("what", "value"), [row for row in rows if row[1] not in (None, "", "{}", "[]")])
    _print("spent", "role model state calls prompt_tokens completion_tokens cost_usd=$", costs)
    _print("events", "seq utc kind", events)


def _words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _print(title: str, columns: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """A table of the named values; `key=word` gives a column another name."""
    names = [column.partition("=") for column in columns.split()]
    heads = [word or key.replace("_", " ") for key, _, word in names]
    print_table(title, heads, [[_cell(key, row[key]) for key, _, _ in names] for row in rows])


def _cell(key: str, value: Any) -> Any:
    if key in ("mean", "low", "high", "value"):
        return points(value)
    return amount(value, 6) if key == "cost_usd" else value


# -- audit show: a trial ----------------------------------------------------------------------------------------------


def _show_trial(view: RunView, number: int, as_json: bool) -> None:
    from agent.ledger.trail import chain_of_parents, trial_states

    trial, history = view.numbered(number), view.history
    candidate = history.candidate(trial["candidate_id"])
    chain, states = chain_of_parents(history, view.id, candidate["id"]), trial_states(history, view.id, number)
    outcomes = {split: history.outcomes(view.id, candidate["id"], split) for split in ("train", "dev", "test")}
    if as_json:
        print_json({"trial": trial, "states": states, "lineage": chain, "candidate": candidate, "outcomes": outcomes})
        return
    say(f"trial {number} of {view.id}: {candidate['id']}, {trial['state']}, {points(trial['mean'])}")
    _print_chain(chain)
    _print("states", "seq utc state n=rows mean=score reason", states)
    show(run_tables.messages(candidate, "== prompt =="))
    for split, rows in outcomes.items():
        if rows:
            print_listing(run_tables.outcomes(split, rows))


def _print_chain(chain: list[dict[str, Any]]) -> None:
    columns = (
        "candidate_id=candidate round technique format n_examples=examples operator parent_id=parent reason rejected"
    )
    _print("lineage, newest first", columns, chain)


# -- audit show: a call -----------------------------------------------------------------------------------------------


def _show_call(history: History, number: int, as_json: bool) -> None:
    from agent.ledger.trail import call

    recorded = call(history, number)
    if as_json:
        print_json(recorded)
        return
    row, request, reply = recorded["call"], recorded["request"], recorded["reply"]
    click.echo(f"call {number}: {row['role']}, {plain(row['model'])}, {row['state']}, {row['call_key']}")
    print_table("recorded", ("what", "value"), [item for item in row.items() if item[1] not in (None, "")])
    sent = dict(request or {})
    asked = [f"[{message['role']}]\n{message['content']}" for message in sent.pop("messages", ())]
    lacks = "(none)" if row["state"] not in ("ok", "cached") else "(erased)"
    asked = [*asked, json.dumps(sent, ensure_ascii=False)] if request is not None else ["(erased)"]
    show(
        text(*asked, heading="== request ==", exact=True),
        text(reply["text"] if reply else lacks, heading="== reply ==", exact=True),
    )
    columns = (
        "id=call run_id=run attempt state error_class=error http_status=status cost_usd=$ latency_s=seconds sent_utc"
    )
    _print("attempts at the same call", columns, recorded["attempts"])
    _print("events", "seq utc kind", recorded["events"])


# -- audit lineage ----------------------------------------------------------------------------------------------------


@audit_command.command(context_settings=SETTINGS)
@click.argument("prompt_hash")
@ledger_options
def lineage_command(prompt_hash: str, db: Path, as_json: bool) -> None:
    """Show how a prompt came about: its parents, operators and reasons, examples, trials, runs, whether it shipped, and
    how the aliases of its name moved.

    PROMPT_HASH is a candidate (c_...), the version of a release (p_..., f_...), or the hash of a template or an
    instruction; the start of one will do.
    """
    from agent.ledger.trail import candidates_named, lineage
    from agent.report.tool_facts import change_lines
    from agent.run.ledger_audit import released_versions

    history = open_history(db)
    versions = released_versions(history)
    prompts = [lineage(history, name, versions) for name in candidates_named(history, prompt_hash, versions)]
    if as_json:
        print_json({"prompts": prompts})
        return
    for prompt in prompts:
        candidate = prompt["candidate"]
        click.echo(
            f"{candidate['id']}: {candidate['technique']}, format {candidate['format']}, "
            f"{candidate['n_examples']} examples"
            + picked(candidate["picks"])
            + (f", {looks_up(candidate['passages'])}" if candidate["passages"] else "")
            + "".join(f", released as {version}" for version in prompt["versions"])
        )
        click.echo(plain(f"template {candidate['template_hash']}\ninstruction {candidate['instruction_hash']}"))
        click.echo(plain(candidate["instruction"]))
        for line in change_lines(candidate):
            click.echo(plain(f"tools: {line}"))
        if calibration := candidate.get("calibration"):
            near = calibration.get("neighbours")
            voting = f", {near['k']} neighbours with weight {near['weight']:g}" if near else ""
            if prior := calibration.get("prior"):
                voting = f", a classifier of the train rows with weight {prior['weight']:g}"
            numbers = f"temperature {calibration['temperature']:g}{voting}, {calibration['bias']}"
            click.echo(plain(f"calibration: {calibration['method']}, {numbers}"))
        if candidate["demos"]:
            click.echo("examples: " + plain(", ".join(demo["example_id"] for demo in candidate["demos"])))
        for run in prompt["runs"]:
            moved = [m for m in prompt["aliases"] if m["mine"] and m["evidence"].get("run_id") == run["run_id"]]
            _print_run_of(run, len(moved))
        _print_aliases(prompt["aliases"])


def _print_run_of(run: dict[str, Any], moved: int) -> None:
    click.echo(f"\nrun {run['run_id']}  {plain(run['task'])}  {plain(run['model'])}  {run['status']}")
    _print_chain(run["chain"])
    if made := run["proposal"]:
        words = filter(None, (made["operator"], made["hypothesis"], made["claim"]))
        why = f" ({': '.join(words)})" if made["operator"] else ""
        click.echo(plain(f"the proposer wrote the {made['of']}: event {made['seq']}{why}"))
    _print("trials", "number=trial round state n=rows mean=score low high reason", run["trials"])
    if run["released"]:
        why = promotion(run["promoted"]) if run["promoted"] else run["decision"]
        click.echo(plain(f"released ({why}, test {points(run['test'])}): {run['release']}"))
    else:
        click.echo("not released" + (f" by the run; aliases that came to it: {moved}" if moved else ""))


def _print_aliases(moves: list[dict[str, Any]]) -> None:
    """Every move of an alias of the prompt's name, as the chain has it; `*` where the alias came to this prompt."""
    rows = [{**move, "alias": f"{'* ' if move['mine'] else ''}{move['name']}@{move['alias']}"} for move in moves]
    for row in rows:
        row["version"] += "" if row["share"] is None else f" for {row['share']:.0%}"
    if rows:
        _print("aliases, oldest first (*: to this prompt)", "alias version from=before utc action actor reason", rows)
