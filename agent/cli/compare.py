"""`optimize compare`: two runs or two trials side by side, and a paired test of their prompts on the rows of both."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.common import SETTINGS, db_option, json_option, open_history, plain, print_json, print_table
from agent.errors import InputError

if TYPE_CHECKING:
    from agent.ledger.query import History

ABOUT_RUN = ("id", "task", "status", "model", "proposer", "seed", "tool", "prices", "seconds")
KEPT = 12  # equal words and blanks shown beside a change


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: a run with the candidate that stands for it. `trial` is None for a run's winner."""

    run: dict[str, Any]
    candidate: dict[str, Any]
    trial: dict[str, Any] | None
    outcomes: dict[str, dict[str, float]]
    """Scores by split and row."""


@click.command(context_settings=SETTINGS)
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@db_option
@json_option
def compare_command(a: str, b: str, db: Path, as_json: bool) -> None:
    """Compare A and B: two runs by their winners, or two trials as RUN:NUMBER.

    Shown are the options that differ, data, scores, cost and the words of both prompts. Where both were scored on the
    same rows of the same data, B minus A is tested pair by pair. A gain on dev is no proof: prompts were chosen on it.
    """
    history = open_history(db)
    sides = (_side(history, a), _side(history, b))
    facts = list(_facts(*sides))
    paired = {split: found for split in ("test", "dev") if (found := _paired(split, *sides)) is not None}
    first, second = sides[0].candidate, sides[1].candidate
    words = word_diff(first["instruction"], second["instruction"])
    demos = [[demo["example_id"] for demo in candidate["demos"]] for candidate in (first, second)]
    if as_json:
        table = {name: {"a": one, "b": two, "same": one == two} for name, one, two in facts}
        instruction = {"a": first["instruction"], "b": second["instruction"], "diff": words}
        shown = {"a": demos[0], "b": demos[1]}
        print_json({"facts": table, "paired": paired, "instruction": instruction, "demos": shown})
        return
    rows = [(name, _words(one), _words(two), "" if one == two else "differs") for name, one, two in facts]
    print_table("compared", ("what", "A", "B", ""), rows)
    for split, found in paired.items():
        low, high = found["ci95"]
        click.echo(
            f"B minus A on {found['n']} {split} rows: {100 * found['diff']:+.1f} points (95 % CI {100 * low:+.1f} to "
            f"{100 * high:+.1f}, p = {found['p_value']:.2g}); {found['wins']} won, {found['losses']} lost, "
            f"{found['ties']} tied"
        )
    if not paired:
        click.echo("no rows of the same data were scored by both: no paired test")
    click.echo("\n== the instruction, [-A-]{+B+} ==")
    click.echo(plain(words) if first["instruction"] != second["instruction"] else "(the same)")
    for name, mine, theirs in (("only in A", *demos), ("only in B", *reversed(demos))):
        if extra := [row for row in mine if row not in theirs]:
            click.echo(plain(f"demos {name}: {', '.join(extra)}"))


def _side(history: History, name: str) -> Side:
    run_id, colon, number = name.rpartition(":")
    is_trial = bool(colon) and number.isdecimal()
    run = history.run(run_id if is_trial else name)
    trial = None
    if is_trial:
        trials = history.trials(run["id"])
        trial = next((t for t in trials if t["number"] == int(number)), None)
        if trial is None:
            raise InputError(f"{name}: no trial {number}; there are {len(trials)}, from 0")
        candidate_id = trial["candidate_id"]
    elif run["result"] is None:
        raise InputError(f"{run['id']}: this run is {run['status']} and has no winner; compare trials as RUN:NUMBER")
    else:
        candidate_id = run["result"]["winner"]["candidate_id"]
    outcomes = {split: _values(history, run["id"], candidate_id, split) for split in ("test", "dev")}
    return Side(run, history.candidate(candidate_id), trial, outcomes)


def _values(history: History, run_id: str, candidate_id: str, split: str) -> dict[str, float]:
    rows = history.outcomes(run_id, candidate_id, split)
    return {row["example_id"]: row["value"] for row in rows if row["value"] is not None}


# -- side by side -----------------------------------------------------------------------------------------------------


def _facts(a: Side, b: Side) -> Iterator[tuple[str, Any, Any]]:
    """What is worth a line: always the run and its scores, of options and versions only what differs."""
    for name in ABOUT_RUN:
        yield name, a.run[name], b.run[name]
    for group in ("options", "hashes", "budget"):
        first, second = a.run[group] or {}, b.run[group] or {}
        for key in {**first, **second}:
            if group == "hashes" or first.get(key) != second.get(key):
                yield f"{group}.{key}", first.get(key), second.get(key)
    first, second = a.run["origin"].get("versions", {}), b.run["origin"].get("versions", {})
    for key in {**first, **second}:
        if first.get(key) != second.get(key):
            yield f"version.{key}", first.get(key), second.get(key)
    one, two = _scores(a), _scores(b)
    for key in {**one, **two}:
        yield key, one.get(key), two.get(key)


def _scores(side: Side) -> dict[str, Any]:
    candidate, trial, result = side.candidate, side.trial, side.run["result"]
    found: dict[str, Any] = {"candidate": candidate["id"]}
    found |= {name: candidate[name] for name in ("technique", "format", "role", "n_demos")}
    if trial is not None:
        kept = ("number", "state", "n", "mean", "low", "high", "operator", "calls", "cached", "tokens", "cost_usd")
        return found | {name: trial[name] for name in kept}
    for who in ("baseline", "winner"):
        found |= {f"{who} {split}": result[who][split] for split in ("dev", "test")}
    lift = result["lift"]
    found |= {
        "lift": lift["diff"],
        "lift ci95": lift["ci95"],
        "lift p": lift["p_value"],
        "decision": result["decision"],
    }
    found |= {f"calls {role}": count for role, count in result["calls"].items()}
    found |= {f"tokens {kind}": count for kind, count in result["tokens"].items()}
    return found | {"cost_usd": result["cost_usd"]}


def _words(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# -- the paired test --------------------------------------------------------------------------------------------------


def _paired(split: str, a: Side, b: Side) -> dict[str, Any] | None:
    """B minus A over the rows that both have a score for; None where the data is not the same, or no row."""
    from dataclasses import asdict

    from agent.scoring.stats import paired_difference

    if a.run["hashes"].get(split) != b.run["hashes"].get(split):
        return None
    first, second = a.outcomes[split], b.outcomes[split]
    both = [row for row in first if row in second]
    if not both:
        return None
    found = asdict(paired_difference([second[row] for row in both], [first[row] for row in both], 0))
    return {**found, "ci95": list(found["ci95"])}


# -- words ------------------------------------------------------------------------------------------------------------


def word_diff(one: str, two: str) -> str:
    """`two` with what it lost from `one` as [-lost-] and what is new as {+new+}; long equal parts are left out."""
    first, second = (re.findall(r"\s+|\w+|[^\w\s]", text) for text in (one, two))
    parts = []
    for kind, a0, a1, b0, b1 in difflib.SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        gone, new = "".join(first[a0:a1]), "".join(second[b0:b1])
        if kind == "equal":
            parts.append(_shortened(first[a0:a1], a0 == 0, a1 == len(first)))
            continue
        parts += [f"[-{gone}-]"] if gone else []
        parts += [f"{{+{new}+}}"] if new else []
    return "".join(parts)


def _shortened(words: list[str], is_first: bool, is_last: bool) -> str:
    if len(words) <= 2 * KEPT + 4:
        return "".join(words)
    before = "" if is_first else "".join(words[:KEPT])
    after = "" if is_last else "".join(words[-KEPT:])
    return f"{before} … {after}"
