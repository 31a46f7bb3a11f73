"""Two runs by their winners, or two trials, side by side, with a paired test of their prompts on the rows of both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from agent.errors import InputError
from agent.ledger.query import History
from agent.report.facts import without_result

ABOUT_RUN = ("id", "task", "status", "model", "proposer", "seed", "tool", "prices", "seconds")


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: a run with the candidate that stands for it. `trial` is None for a run's winner."""

    run: dict[str, Any]
    candidate: dict[str, Any]
    trial: dict[str, Any] | None
    outcomes: dict[str, dict[str, float]]
    """Scores by split and row."""


def side_of(history: History, name: str) -> Side:
    """`name` is a run, or a trial as RUN:NUMBER. Raises InputError."""
    run_id, colon, number = name.rpartition(":")
    is_trial = bool(colon) and number.isdecimal()
    run = history.run(run_id if is_trial else name)
    trial = None
    if is_trial:
        found = history.trials(run["id"], [int(number)])
        if not found:
            raise InputError(f"{name}: no trial {number}; there are {len(history.trials(run['id']))}, from 0")
        trial = found[0]
        candidate_id = trial["candidate_id"]
    elif run["result"] is None:
        raise InputError(f"{run['id']}: {without_result(run)}, so there is no winner; compare trials as RUN:NUMBER")
    elif kind := run["result"].get("kind"):
        raise InputError(f"{run['id']}: this run is a {kind.replace('_', ' ')}, no search: it cannot be compared")
    else:
        candidate_id = run["result"]["winner"]["candidate_id"]
    outcomes = {split: _values(history, run["id"], candidate_id, split) for split in ("test", "dev")}
    return Side(run, history.candidate(candidate_id), trial, outcomes)


def _values(history: History, run_id: str, candidate_id: str, split: str) -> dict[str, float]:
    rows = history.outcomes(run_id, candidate_id, split)
    return {row["example_id"]: row["value"] for row in rows if row["value"] is not None}


# -- side by side -----------------------------------------------------------------------------------------------------


def facts(a: Side, b: Side) -> Iterator[tuple[str, Any, Any]]:
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
    return found | {"cost_usd": None if result.get("unpriced") else result["cost_usd"]}


# -- the paired test --------------------------------------------------------------------------------------------------


def paired(split: str, a: Side, b: Side) -> dict[str, Any] | None:
    """B minus A over the rows that both have a score for; None where the data is not the same, or no row."""
    from agent.scoring.stats import paired_difference

    if a.run["hashes"].get(split) != b.run["hashes"].get(split):
        return None
    first, second = a.outcomes[split], b.outcomes[split]
    both = [row for row in first if row in second]
    if not both:
        return None
    found = asdict(paired_difference([second[row] for row in both], [first[row] for row in both], 0))
    return {**found, "ci95": list(found["ci95"])}
