"""The page that compares two runs or two trials: scores, a paired test, the words and the rows that differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from agent.errors import InputError
from agent.report import compare, facts
from agent.report.compare import ComparedPrompt, compared_texts
from agent.report.view import EQUAL, RunView, row_pairs
from agent.report.web.page_request import PageRequest, sql_link
from agent.types import Example, SplitName

SPLITS: Sequence[SplitName] = ("test", "dev")
MOST_RUNS = 200
MOST_ROWS = 50
"""Rows shown that A and B scored differently, the largest difference first."""


def compared(request: PageRequest) -> dict[str, Any]:
    """Two runs or trials named `a` and `b`, or the two of `pick`; without them, what can be named."""
    picked = [name for name in request.args.getlist("pick") if name]
    names = [request.arg("a") or next(iter(picked), ""), request.arg("b") or next(iter(picked[1:2]), "")]
    page: dict[str, Any] = {
        "a": names[0],
        "b": names[1],
        "known": [row["id"] for row in request.history.runs()][:MOST_RUNS],
        "problem": "",
        "notice": f"{len(picked)} were ticked; the first two are compared." if len(picked) > 2 else "",
        "facts": [],
        "sql": "",
    }
    if not all(names):
        return {**page, "problem": "Only one was ticked: tick another, or name it here." if any(names) else ""}
    try:
        sides = [compare.compared_prompt(request.history, name) for name in names]
    except InputError as error:
        return {**page, "problem": str(error)}
    first, second = (side.candidate for side in sides)
    demos = [[demo["example_id"] for demo in candidate["demos"]] for candidate in (first, second)]
    lines = compare.fact_lines(*sides)
    paired = {split: compare.paired(split, *sides) for split in SPLITS}
    examples = RunView(request.history, sides[0].run["id"]).examples if any(paired.values()) else {}
    words = compared_texts(first, second)
    return {
        **page,
        "sides": [_side(name, side) for name, side in zip(names, sides, strict=True)],
        "facts": [{"what": what, "a": one, "b": two, "same": one == two} for what, one, two in lines],
        "paired": paired,
        "unlike": compare.scoring_difference(*sides),
        "changes": [asdict(change) for change in compare.changes(*words, compare.CONTEXT)],
        "same_words": words[0] == words[1],
        "only": {
            "A": [row for row in demos[0] if row not in demos[1]],
            "B": [row for row in demos[1] if row not in demos[0]],
        },
        "rows": {split: _rows(request, split, sides, examples.get(split, {})) for split in SPLITS if paired[split]},
        "sql": sql_link(
            "SELECT a.split, a.example_id, a.value AS a, b.value AS b FROM outcomes a "
            "JOIN outcomes b ON b.split = a.split AND b.example_id = a.example_id "
            "WHERE a.split IN ('dev', 'test') AND a.run_id = :run_a AND a.candidate_id = :candidate_a "
            "AND b.run_id = :run_b AND b.candidate_id = :candidate_b",
            run_a=sides[0].run["id"],
            candidate_a=first["id"],
            run_b=sides[1].run["id"],
            candidate_b=second["id"],
        ),
    }


def _side(name: str, side: ComparedPrompt) -> dict[str, Any]:
    """What a side is, and by split its mean (0 to 1), the ends of the mean's 95 % interval and the number of rows."""
    from agent.stats.intervals import mean_ci

    means: dict[str, Any] = {}
    for split, scores in side.outcomes.items():
        if scores:
            mean, low, high = mean_ci(list(scores.values()))
            means[split] = {"mean": mean, "low": low, "high": high, "n": len(scores)}
    number = side.trial["number"] if side.trial else None
    is_own = side.result is not None and side.result.is_own
    what = facts.baseline_words(side.run).name if is_own else facts.SIDES[1][1]
    return {
        "name": name,
        "run": side.run["id"],
        "task": side.run["task"],
        "trial": number,
        "what": what if number is None else f"trial {number}",
        "scores": means,
    }


def _rows(
    request: PageRequest, split: SplitName, sides: Sequence[ComparedPrompt], known: Mapping[str, Example]
) -> dict[str, Any]:
    """The rows of a split that A and B scored differently, as RowPairs with their change, and how many there are."""
    answers = [
        {row["example_id"]: row for row in request.history.outcomes(side.run["id"], side.candidate["id"], split)}
        for side in sides
    ]
    pairs = [pair for pair in row_pairs(known, *answers) if abs(pair.change or 0.0) > EQUAL]
    shown = sorted(pairs, key=lambda pair: -abs(pair.change or 0.0))[:MOST_ROWS]
    return {
        "rows": [{**asdict(pair), "change": pair.change} for pair in shown],
        "total": len(pairs),
        "known": bool(known),
    }
