"""`optimize audit show` and `audit lineage`: what was recorded about a run, a trial, a call or a prompt."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.common import (
    SETTINGS,
    db_option,
    json_option,
    plain,
    print_json,
    score,
    short,
)
from agent.cli.tables import print_table
from agent.errors import InputError
from agent.report.facts import amount, promotion
from agent.run.locations import open_history

if TYPE_CHECKING:
    from agent.ledger.query import History

MADE_WITH = ("origin", "options", "hashes", "budget", "plan")


@click.command(context_settings=SETTINGS)
@click.argument("what", metavar="RUN|TRIAL|CALL")
@db_option
@json_option
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
        _show_trial(history, history.run(run_id)["id"], int(number), as_json)
        return
    if what.isdecimal() and len(what) < 8:
        latest = history.run()["id"]
        if any(trial["number"] == int(what) for trial in history.trials(latest)):
            _show_trial(history, latest, int(what), as_json)
            return
    _show_run(history, history.run(what), as_json)


# -- a run ------------------------------------------------------------------------------------------------------------


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
        return score(value)
    return amount(value, 6) if key == "cost_usd" else value


# -- a trial ----------------------------------------------------------------------------------------------------------


def _show_trial(history: History, run_id: str, number: int, as_json: bool) -> None:
    from agent.ledger.trail import chain_of_parents, trial_states

    trials = history.trials(run_id)
    trial = next((t for t in trials if t["number"] == number), None)
    if trial is None:
        raise InputError(f"{run_id}: no trial {number}; there are {len(trials)}, from 0")
    candidate = history.candidate(trial["candidate_id"])
    chain = chain_of_parents(history, run_id, trial["candidate_id"])
    states = trial_states(history, run_id, number)
    outcomes = {split: history.outcomes(run_id, candidate["id"], split) for split in ("train", "dev", "test")}
    if as_json:
        print_json({"trial": trial, "states": states, "lineage": chain, "candidate": candidate, "outcomes": outcomes})
        return
    click.echo(f"trial {number} of {run_id}: {candidate['id']}, {trial['state']}, {score(trial['mean'])}")
    _print_chain(chain)
    _print("states", "seq utc state n=rows mean=score reason", states)
    click.echo("== prompt ==")
    for message in candidate["template"]:
        click.echo(plain(f"[{message['role']}]\n{message['content']}"))
    for split, rows in outcomes.items():
        for row in rows:
            row["why"] = short(row["error"] or "; ".join(reason for _, _, reason in row["scores"]), 80)
            row["reply"] = short(row["reply"], 60)
        if rows:
            _print(split, "example_id=row value=score call_key=call reply why", rows)


def _print_chain(chain: list[dict[str, Any]]) -> None:
    columns = "candidate_id=candidate round technique format n_demos=demos operator parent_id=parent reason rejected"
    _print("lineage, newest first", columns, chain)


# -- a call -----------------------------------------------------------------------------------------------------------


def _show_call(history: History, number: int, as_json: bool) -> None:
    from agent.ledger.trail import call

    found = call(history, number)
    if as_json:
        print_json(found)
        return
    row, request, reply = found["call"], found["request"], found["reply"]
    click.echo(f"call {number}: {row['role']}, {plain(row['model'])}, {row['state']}, {row['call_key']}")
    print_table("recorded", ("what", "value"), [item for item in row.items() if item[1] not in (None, "")])
    click.echo("== request ==")
    if request is None:
        click.echo("(erased)")
    for message in (request or {}).get("messages", ()):
        click.echo(plain(f"[{message['role']}]\n{message['content']}"))
    rest = {name: value for name, value in (request or {}).items() if name != "messages"}
    click.echo(plain(json.dumps(rest, ensure_ascii=False)))
    click.echo("== reply ==")
    lacks = "(none)" if row["state"] not in ("ok", "cached") else "(erased)"
    click.echo(plain(reply["text"]) if reply else lacks)
    columns = (
        "id=call run_id=run attempt state error_class=error http_status=status cost_usd=$ latency_s=seconds sent_utc"
    )
    _print("attempts at the same call", columns, found["attempts"])
    _print("events", "seq utc kind", found["events"])


# -- a prompt ---------------------------------------------------------------------------------------------------------


@click.command(context_settings=SETTINGS)
@click.argument("prompt_hash")
@db_option
@json_option
def lineage_command(prompt_hash: str, db: Path, as_json: bool) -> None:
    """Show how a prompt came about: its parents, operators and reasons, demos, trials, runs, whether it shipped, and
    how the labels of its name moved.

    PROMPT_HASH is a candidate (c_...), the version of a release (p_..., f_...), or the hash of a template or an
    instruction; the start of one will do.
    """
    from agent.ledger.trail import candidates_named, lineage
    from agent.run.ledger_audit import released_versions

    history = open_history(db)
    versions = released_versions(history)
    found = [lineage(history, name, versions) for name in candidates_named(history, prompt_hash, versions)]
    if as_json:
        print_json({"prompts": found})
        return
    for prompt in found:
        candidate = prompt["candidate"]
        click.echo(
            f"{candidate['id']}: {candidate['technique']}, format {candidate['format']}, {candidate['n_demos']} demos"
            + "".join(f", released as {version}" for version in prompt["versions"])
        )
        click.echo(plain(f"template {candidate['template_hash']}\ninstruction {candidate['instruction_hash']}"))
        click.echo(plain(candidate["instruction"]))
        if candidate["demos"]:
            click.echo("demos: " + plain(", ".join(demo["example_id"] for demo in candidate["demos"])))
        for run in prompt["runs"]:
            moved = [m for m in prompt["labels"] if m["mine"] and m["evidence"].get("run_id") == run["run_id"]]
            _print_run_of(run, len(moved))
        _print_labels(prompt["labels"])


def _print_run_of(run: dict[str, Any], moved: int) -> None:
    click.echo(f"\nrun {run['run_id']}  {plain(run['task'])}  {plain(run['model'])}  {run['status']}")
    _print_chain(run["chain"])
    if run["proposal"]:
        click.echo(f"the proposer wrote the instruction: event {run['proposal']['seq']}")
    _print("trials", "number=trial round state n=rows mean=score low high reason", run["trials"])
    if run["released"]:
        why = promotion(run["promoted"]) if run["promoted"] else run["decision"]
        click.echo(plain(f"released ({why}, test {score(run['test'])}): {run['release']}"))
    else:
        click.echo("not released" + (f" by the run; labels that came to it: {moved}" if moved else ""))


def _print_labels(moves: list[dict[str, Any]]) -> None:
    """Every move of a label of the prompt's name, as the chain has it; `*` where the label came to this prompt."""
    rows = [{**move, "label": f"{'* ' if move['mine'] else ''}{move['name']}@{move['label']}"} for move in moves]
    for row in rows:
        row["version"] += "" if row["share"] is None else f" for {row['share']:.0%}"
    if rows:
        _print("labels, oldest first (*: to this prompt)", "label version from=before utc action actor reason", rows)
