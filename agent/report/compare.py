"""Two runs by their winners, or two trials, side by side, with a paired test of their prompts on the rows of both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from agent.errors import InputError
from agent.ledger.query import History
from agent.release.result import RunResult, search_result
from agent.report.facts import without_result

SPLITS = ("train", "dev", "test")
ABOUT_RUN = ("id", "task", "status", "model", "proposer", "seed", "tool", "prices", "seconds")


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: a run with the candidate that stands for it. `trial` is None for a run's winner."""

    run: dict[str, Any]
    candidate: dict[str, Any]
    trial: dict[str, Any] | None
    outcomes: dict[str, dict[str, float]]
    """Scores by split and row."""
    scoring: dict[str, Any]
    """What the scores were made by, as far as the ledger says: options of metrics stand in task.toml alone."""
    result: RunResult | None = None


def side_of(history: History, name: str) -> Side:
    """`name` is a run, or a trial as RUN:NUMBER. Raises InputError."""
    run_id, colon, number = name.rpartition(":")
    is_trial = bool(colon) and number.isdecimal()
    run = history.run(run_id if is_trial else name)
    result, trial = search_result(run["result"]), None
    if is_trial:
        found = history.trials(run["id"], [int(number)])
        if not found:
            raise InputError(f"{name}: no trial {number}; there are {len(history.trials(run['id']))}, from 0")
        trial = found[0]
        candidate_id = trial["candidate_id"]
    elif result is not None:
        candidate_id = result.winner.candidate_id
    elif run["result"] is None:
        raise InputError(f"{run['id']}: {without_result(run)}, so there is no winner; compare trials as RUN:NUMBER")
    else:
        kind = run["result"]["kind"].replace("_", " ")
        raise InputError(f"{run['id']}: this run is no search ({kind}): it cannot be compared")
    rows = {split: history.outcomes(run["id"], candidate_id, split) for split in ("test", "dev")}
    outcomes = {
        split: {r["example_id"]: r["value"] for r in seen if r["value"] is not None} for split, seen in rows.items()
    }
    scoring = _scoring(history, run, result, [*rows["test"], *rows["dev"]])
    return Side(run, history.candidate(candidate_id), trial, outcomes, scoring, result)


def _scoring(
    history: History, run: dict[str, Any], result: RunResult | None, rows: list[dict[str, Any]]
) -> dict[str, Any]:
    found: dict[str, Any] = {name: digest for name, digest in (run["hashes"] or {}).items() if _scores_by(name)}
    found["the metrics"] = next(([name for name, *_ in row["scores"]] for row in rows if row["scores"]), None)
    if result and result.metrics:  # an older version wrote neither these nor the judges
        found["the weights of the metrics"] = [(part.metric, part.field, part.weight) for part in result.metrics]
    models = {row["model"] for row in history.costs(run["id"]) if row["role"] == "judge"}
    found["the judges"] = sorted(models) or None
    if result and result.metrics:
        found["what the judges are told"] = [judge.judge_id for judge in result.judges]
    if result and any(judge.mode == "pairwise" for judge in result.judges):  # each run has its own middle
        own = history.trials(run["id"], [0])[0]["candidate_id"]
        found["the answers that a judge compared with"] = (run["model"], own)
    return found


def _scores_by(name: str) -> bool:
    """Whether this file of a task has to do with scores: a rubric, or the metric of its own, and not its program."""
    return name not in (*SPLITS, "task.toml") and (name == "metric.py" or not name.endswith(".py"))


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
    candidate, trial, result = side.candidate, side.trial, side.result
    found: dict[str, Any] = {"candidate": candidate["id"]}
    found |= {name: candidate[name] for name in ("technique", "format", "role", "n_demos")}
    if trial is not None:
        kept = ("number", "state", "n", "mean", "low", "high", "operator", "calls", "cached", "tokens", "cost_usd")
        return found | {name: trial[name] for name in kept}
    assert result is not None
    lift, cost = result.lift, result.cost
    return {
        **found,
        "baseline dev": result.baseline.dev,
        "baseline test": result.baseline.test,
        "winner dev": result.winner.dev,
        "winner test": result.winner.test,
        "lift": lift.diff,
        "lift ci95": list(lift.ci95),
        "lift p": lift.p_value,
        "decision": result.decision,
        **{f"calls {role}": count for role, count in cost.calls.items()},
        "calls cached": cost.cached,
        **{f"tokens {kind}": count for kind, count in cost.tokens().items()},
        "cost_usd": None if cost.unpriced else cost.usd,
    }


# -- the paired test --------------------------------------------------------------------------------------------------


def unlike(a: Side, b: Side) -> str:
    """Why scores of the two say nothing of their prompts, side by side; "" where they were made alike.

    What the ledger holds of only one of them, such as the result of a run that did not end, is not held against it.
    """
    files = {name for side in (a, b) for name in side.run["hashes"] or ()}
    differ = [
        name
        for name in {**a.scoring, **b.scoring}
        if a.scoring.get(name) != b.scoring.get(name)
        and (name in files or (a.scoring.get(name) is not None and b.scoring.get(name) is not None))
    ]
    return f"scored in different ways ({', '.join(differ)}): no paired test" if differ else ""


def tested(a: Side, b: Side) -> tuple[dict[str, dict[str, Any]], str]:
    """The paired tests by split, and why there is none ("" where there is one)."""
    tests = {split: found for split in ("test", "dev") if (found := paired(split, a, b)) is not None}
    return tests, "" if tests else unlike(a, b) or "no rows of the same data were scored by both: no paired test"


def paired(split: str, a: Side, b: Side) -> dict[str, Any] | None:
    """B minus A over the rows that both have a score for; None where the data or the scoring is not the same, or where
    there is no such row."""
    from agent.stats.intervals import paired_difference

    if a.run["hashes"].get(split) != b.run["hashes"].get(split) or unlike(a, b):
        return None
    first, second = a.outcomes[split], b.outcomes[split]
    both = [row for row in first if row in second]
    if not both:
        return None
    found = asdict(paired_difference([second[row] for row in both], [first[row] for row in both], 0))
    return {**found, "ci95": list(found["ci95"])}
