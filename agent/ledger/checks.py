"""The checks of `optimize audit check`: a run's numbers add up, and no measuring row leaked into a prompt.

Numbers are recomputed from calls, outcomes and events, by other ways than the run's. Contamination checks are pure
functions over candidates and the task, whose rows must be those of the run.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agent.ledger.query import FINE_TUNING, NO_PRICE, History, Row
from agent.ledger.resume_state import NO_CALLS
from agent.results.base import Result
from agent.shipped import fold
from agent.types import NO_MODEL, Example, Task

ROLES = ("model", "proposer", "judge", "embedding")
OPEN = ("reserved", "sent")
SETTLED = ("ok", "error", "unknown")
CLOSE = 1e-9
GRAM = 5  # consecutive words that two people do not write by chance
HELD_OUT = ("dev", "test")
_WORD = re.compile(r"\w+")


class RunCheck(Result):
    """One check of a run: whether it holds (None: it could not be checked), and what was found."""

    check: str
    ok: bool | None
    found: tuple[str, ...]

    @staticmethod
    def of(check: str, wrong: Sequence[str], note: str = "") -> RunCheck:
        return RunCheck(check=check, ok=not wrong, found=tuple(wrong) or ((note,) if note else ()))

    @staticmethod
    def skipped(check: str, why: str) -> RunCheck:
        return RunCheck(check=check, ok=None, found=(why,))


# -- do the numbers add up? -------------------------------------------------------------------------------------------


def consistency_checks(history: History, run: Row) -> list[RunCheck]:
    """Check a run's statements against its rows."""
    outcomes = history.select(
        "SELECT o.*, b.body FROM outcomes o LEFT JOIN blobs b ON b.hash = o.body_hash WHERE o.run_id = ?", run["id"]
    )
    calls = history.select("SELECT * FROM calls WHERE run_id = ? ORDER BY id", run["id"])
    trials, trained = history.trials(run["id"]), history.facts(FINE_TUNING[-1], run_ids=[run["id"]])
    migrated = (run["result"] or {}).get("migration") or {"run": "", "candidate_id": ""}
    both = "SELECT * FROM outcomes WHERE run_id = ? AND candidate_id = ?"
    old = history.select(both, migrated["run"], migrated["candidate_id"])
    return [
        _test_opened_once(history, run["id"]),
        *_scored_calls(history, outcomes, calls),
        _trial_means(run, trials, outcomes),
        _result_scores(run, trials, outcomes, old),
        _unscored_rows(outcomes),
        _settled_calls(run, calls),
        charges(run, calls, math.fsum(event["body"]["usd"] or 0.0 for event in trained)),
        _caps_kept(history, run["id"]),
    ]


def _test_opened_once(history: History, run_id: str) -> RunCheck:
    events = history.facts("test_opened", run_ids=[run_id])
    scored = history.facts("outcome", run_ids=[run_id])
    opened, pairs = [row["seq"] for row in events], {json.dumps(row["body"], sort_keys=True) for row in events}
    first = next((row["seq"] for row in scored if row["body"]["row"]["split"] == "test"), None)
    wrong = [f"opened for {len(pairs)} pairs: events {', '.join(map(str, opened))}"] if len(pairs) > 1 else []
    if first is not None and (not opened or first < opened[0]):
        wrong.append(f"event {first} scores a test row before the test was opened")
    often = f"opened {len(opened)} times for the same two prompts" if len(opened) > 1 else ""
    return RunCheck.of("the test was opened once", wrong, often if opened else "not opened")


def _scored_calls(history: History, outcomes: list[Row], calls: list[Row]) -> Iterator[RunCheck]:
    settled = {row["call_key"] for row in history.select("SELECT DISTINCT call_key FROM calls WHERE state = 'ok'")}
    own = {row["call_key"] for row in calls if row["state"] in ("ok", "cached")}
    free = {row["id"] for row in history.select("SELECT id FROM candidates WHERE format = ?", NO_MODEL)}
    scored = [row for row in outcomes if row["value"] is not None and row["candidate_id"] not in free]
    bare = [row for row in scored if row["call_key"] not in settled]
    wrong = [_row_name(row) for row in bare if row["value"] == 0]
    yield RunCheck.of("no failed call is scored as 0", wrong)
    wrong = [_row_name(row) for row in scored if row["call_key"] not in settled or row["call_key"] not in own]
    yield RunCheck.of("each score has its call", wrong)


def _trial_means(run: Row, trials: list[Row], outcomes: list[Row]) -> RunCheck:
    scores = _scores(outcomes)
    wrong = []
    for trial in trials:
        seen = scores["dev", trial["candidate_id"]]
        if trial["n"] == len(seen):
            if not _near(trial["mean"], _mean(seen)):
                wrong.append(f"trial {trial['number']}: {trial['mean']} is not the mean of its rows, {_mean(seen)}")
        elif trial["n"] > len(seen) or (run["status"] == "complete" and trial["state"] != "failed"):
            wrong.append(f"trial {trial['number']}: says {trial['n']} rows, {len(seen)} are scored")
    return RunCheck.of("each trial's score is the mean of its rows", wrong)


def _result_scores(run: Row, trials: list[Row], outcomes: list[Row], old: Sequence[Row] = ()) -> RunCheck:
    name, result = "the result's scores are those of its rows", run["result"]
    if result is None:
        return RunCheck.skipped(name, "no result")
    if "winner" not in result:
        return RunCheck.skipped(name, "only a search has a winner")
    winner, base = result["winner"]["candidate_id"], trials[0]["candidate_id"] if trials else ""
    if old:  # on the winner's rows; both may be one candidate, on two models
        asked = {(row["split"], row["example_id"]) for row in outcomes if row["candidate_id"] == winner}
        base = "of the old model"
        kept = [{**row, "candidate_id": base} for row in old if (row["split"], row["example_id"]) in asked]
        outcomes = [*outcomes, *kept]
    scores = _scores(outcomes)
    claims = {
        "baseline test": (result["baseline"]["test"], _mean(scores["test", base])),
        "winner test": (result["winner"]["test"], _mean(scores["test", winner])),
        "baseline dev": (result["baseline"]["dev"], _mean(scores["dev", base])),
    }
    by_row: dict[str, dict[str, float]] = {winner: {}, base: {}}
    for row in outcomes:
        if row["split"] == "test" and row["candidate_id"] in by_row and row["value"] is not None:
            by_row[row["candidate_id"]][row["example_id"]] = row["value"]
    both = by_row[winner].keys() & by_row[base].keys()
    diff = _mean([by_row[winner][example] - by_row[base][example] for example in both])
    claims["lift"] = (result["lift"]["diff"], diff)
    wrong = [f"{what}: says {says}, its rows {is_}" for what, (says, is_) in claims.items() if not _near(says, is_)]
    return RunCheck.of(name, wrong)


def _unscored_rows(outcomes: list[Row]) -> RunCheck:
    unscored = [row for row in outcomes if row["value"] is None]
    wrong = [_row_name(row) for row in unscored if row["body"] is not None and not _reason(row["body"])]
    counts = {split: sum(row["split"] == split for row in unscored) for split in ("train", "dev", "test")}
    note = ", ".join(f"{count} in {split}" for split, count in counts.items() if count)
    return RunCheck.of("each row without a score says why", wrong, f"unscored: {note}" if note else "none")


def _reason(body: str) -> str:
    outcome = json.loads(body)
    return str(outcome["error"]) + "".join(str(score[2]) for score in outcome["scores"])


def _settled_calls(run: Row, calls: list[Row]) -> RunCheck:
    name = "each call has an outcome"
    if run["status"] == "running":
        return RunCheck.skipped(name, "the run is running")
    return RunCheck.of(name, [f"call {row['id']}: {row['state']}" for row in calls if row["state"] in OPEN])


def charges(run: Row, calls: list[Row], training: float = 0.0) -> RunCheck:
    """Check that the result's calls, dollars and tokens are the sum over its calls.

    `training`: its fine-tunings, which count too.
    """
    name, result = "calls, tokens and $ add up", run["result"]
    paid = [row for row in calls if row["state"] in SETTLED and row["error_class"] not in NO_CALLS]
    used = [row for row in calls if row["state"] in ("ok", "cached")]
    total = math.fsum([*(row["cost_usd"] for row in paid), training])
    dollars = "an unknown price" if NO_PRICE in run["prices"] else f"${total:.6f}"
    note = f"{len(paid)} paid, {len(calls) - len(paid)} from the ledger, not sent or refused with 429, {dollars}"
    if result is None:
        return RunCheck.skipped(name, "no result; " + note)
    claims: dict[str, tuple[float, float]] = {
        f"{role} calls": (result["calls"].get(role, 0), sum(row["role"] == role for row in paid)) for role in ROLES
    }
    claims["cached calls"] = (result["calls"]["cached"], sum(row["state"] == "cached" for row in calls))
    for what, column in (("prompt", "prompt_tokens"), ("completion", "completion_tokens")):
        claims[f"{what} tokens"] = (result["tokens"][what], sum(row[column] for row in used))
    claims["$"] = (result["cost_usd"], total)
    limited = sum(row["error_class"] == "rate_limit" for row in calls)
    claims["429s"] = (result["limited"], limited)
    wrong = [f"{what}: says {says}, its calls {is_}" for what, (says, is_) in claims.items() if not _near(says, is_)]
    return RunCheck.of(name, wrong, note)


def _caps_kept(history: History, run_id: str) -> RunCheck:
    caps: dict[str, float | None] = {}
    charged: dict[str, float] = defaultdict(float)
    waiting: dict[int, Row] = {}
    wrong: dict[str, str] = {}
    highest: dict[str, float] = defaultdict(float)
    for event in history.facts(run_ids=[run_id]):
        body = event["body"]
        row = body.get("row") or body.get("set") or {}
        if body.get("insert") == "runs" or body.get("update") == "runs":
            caps |= _caps(row)
        elif body.get("insert") == "calls" and row["state"] == "reserved":
            waiting[row["id"]] = row
        elif body.get("update") == "calls" and body["key"][0] in waiting and row.get("state") in SETTLED:
            for what, spent in _charge(waiting.pop(body["key"][0]), row).items():
                charged[what] += spent
        elif event["kind"] == FINE_TUNING[-1]:
            charged["$"] += body["usd"] or 0.0
        else:
            continue
        for what, cap in caps.items():
            now = charged[what] + math.fsum(_reserved(row)[what] for row in waiting.values()) if cap is not None else 0
            highest[what] = max(highest[what], now)
            if cap is not None and now > cap + CLOSE:
                wrong.setdefault(what, f"event {event['seq']}: {now:g} {what} charged or reserved, the cap is {cap:g}")
    note = ", ".join(f"{highest[what]:g} of {cap:g} {what}" for what, cap in caps.items() if cap is not None)
    return RunCheck.of("no cap was passed at any moment", list(wrong.values()), note or "no cap")


def _caps(row: Mapping[str, Any]) -> dict[str, float | None]:
    budget = json.loads(row["budget"]) if "budget" in row else {}
    names = {"calls": "max_calls", "tokens": "max_tokens", "$": "max_cost"}
    return {what: budget[name] for what, name in names.items() if name in budget}


def _reserved(row: Row) -> dict[str, float]:
    return {"calls": 1, "tokens": row["reserved_tokens"], "$": row["reserved_usd"]}


def _charge(reserved: Row, outcome: Row) -> dict[str, float]:
    if outcome.get("error_class") in NO_CALLS:
        return {}
    tokens = 0
    if outcome["state"] == "ok":
        tokens = outcome["prompt_tokens"] + outcome["completion_tokens"]
    elif outcome["state"] == "unknown" or outcome.get("error_class") == "bad_response":
        tokens = reserved["reserved_tokens"]
    return {"calls": 1, "tokens": tokens, "$": outcome["cost_usd"]}


def _scores(outcomes: list[Row]) -> dict[tuple[str, str], list[float]]:
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in outcomes:
        if row["value"] is not None:
            found[row["split"], row["candidate_id"]].append(row["value"])
    return found


def _row_name(row: Row) -> str:
    return f"{row['split']} row {row['example_id']} of {row['candidate_id']}: {row['value']}"


def _mean(values: list[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _near(one: float | None, two: float | None) -> bool:
    return one == two if one is None or two is None else math.isclose(one, two, rel_tol=1e-9, abs_tol=CLOSE)


# -- contamination ----------------------------------------------------------------------------------------------------


def demo_ids(candidates: Sequence[Mapping[str, Any]], held_out: Mapping[str, str]) -> RunCheck:
    """Check that no example is a dev or test row. `held_out`: the split of each row's id."""
    wrong = [
        f"{candidate['id']}: example {demo['position'] + 1} is the {held_out[row]} row {row}"
        for candidate in candidates
        for demo in candidate["demos"]
        if (row := demo["example_id"]) in held_out
    ]
    return RunCheck.of("no example is a dev or test row", wrong)


def demo_texts(candidates: Sequence[Mapping[str, Any]], task: Task) -> RunCheck:
    """Check that no example repeats the text of a dev or test row."""
    rows = {_folded(example.inputs): (split, example.id) for split, example in _held_out(task)}
    wrong = []
    for candidate in candidates:
        for demo in candidate["demos"]:
            if demo["inputs"] and (row := rows.get(_folded(demo["inputs"]))):
                wrong.append(f"{candidate['id']}: example {demo['position'] + 1} reads like the {row[0]} row {row[1]}")
    return RunCheck.of("no example reads like a dev or test row", wrong)


def copied_answers(candidates: Sequence[Mapping[str, Any]], task: Task) -> RunCheck:
    """Check that no instruction copies GRAM words of a dev or test row.

    Words of the user's own instruction and of train rows do not count.
    """
    written = [(each["id"], [*_grams(f"{each['role']} {each['instruction']}")]) for each in candidates]
    unknown = {gram for _, grams in written for gram in grams}.difference(_grams(task.instruction))
    unknown.difference_update(gram for example in task.train for text in _texts(example) for gram in _grams(text))
    rows = {
        gram: (split, example.id)
        for split, example in _held_out(task)
        for text in _texts(example)
        for gram in _grams(text)
        if gram in unknown
    }
    wrong = []
    for candidate, grams in written:
        if copied := next((gram for gram in grams if gram in rows), None):
            split, name = rows[copied]
            wrong.append(f"{candidate}: holds {' '.join(copied)!r} of the {split} row {name}")
    return RunCheck.of("no instruction contains text of a dev or test row", wrong)


def _held_out(task: Task) -> Iterator[tuple[str, Example]]:
    for split in HELD_OUT:
        for example in getattr(task, split):
            yield split, example


def _texts(example: Example) -> Iterator[str]:
    yield from example.inputs.values()
    yield from (str(label) for label in example.labels.values())


def _folded(fields: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, fold(str(value))) for name, value in fields.items()))


def _grams(text: str) -> Iterator[tuple[str, ...]]:
    words = _WORD.findall(text.casefold())
    return (tuple(words[at : at + GRAM]) for at in range(len(words) - GRAM + 1))
