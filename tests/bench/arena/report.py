"""What the results say, as Markdown: a table for each model over all tasks and for each task, ours against each other
system, and how many calls ours needed for the final scores of random search and of the best peer. Reads results only;
calls nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean

from tests.bench.arena.plot import chart
from tests.bench.arena.results import Line
from tests.bench.arena.stats import Interval, Matrix, difference_interval, matrix, mean_interval, seed_spread
from tests.bench.arena.systems import SYSTEMS

OURS = ("ours", "ours-300", "ours-220")
"""The budgets at which ours is set against peers: of the same budget, or, where none has it, of the budget of ours."""
Board = dict[str, dict[str, list[Line]]]
"""Lines by system and task, by seed."""


def write_report(lines: Sequence[Line], folder: Path) -> None:
    """Prints the report and writes RESULTS.md and score-by-calls.svg into `folder`."""
    text = report(lines)
    (folder / "RESULTS.md").write_text(text, "utf-8")
    (folder / "score-by-calls.svg").write_text(chart(lines), "utf-8")
    print(text)


def report(lines: Sequence[Line]) -> str:
    parts = [HEAD]
    for model in dict.fromkeys(line["model"] for line in whole(lines)):
        parts.append(f"## {model}\n\n" + "\n\n".join(_model(board_of(lines, model))))
    return "\n\n".join(parts if len(parts) > 1 else [HEAD, "No results yet."]) + "\n"


HEAD = """# The arena

Same rows, same task model, same number of calls; each system scores through its own rendering, by the label that its
reply names. Made by `python -m tests.bench.arena`; one line a run in `results.jsonl`. 95 % intervals by bootstrap over
test rows and seeds together; differences are paired by row. A system that ran with one seed gets the spread between
seeds of those that ran with more. A search that crashed or ran away scores as the prompt
that it was given. Calls and tokens are those of the search; seconds of ours hold its own sealed test as well, which
nobody else makes. Incumbents on the way are scored on the first 100 test rows.

After a model's name stands `@` and the start of the SHA-256 of its weights. Runs of a name without it are of before
2026-11-27: the 135M model was Q4_1 then, and ours neither picked examples for each input nor weighted labels. Runs of
different weights are not compared. Where no system ran twice, intervals hold the rows alone.

![Test score against calls of search](score-by-calls.svg)"""


HEADS = (
    "system",
    "test, 95 % CI",
    "tasks x seeds",
    "calls",
    "proposer",
    "tokens a call",
    "k tokens",
    "s",
    "cores",
    "events",
)


def whole(lines: Sequence[Line]) -> list[Line]:
    """The lines of whole runs, at each system's own budget; trials on a few rows are no result."""
    return [
        line
        for line in lines
        if not line.get("rows") and line["system"] in SYSTEMS and line["budget"] == SYSTEMS[line["system"]].budget
    ]


def board_of(lines: Sequence[Line], model: str) -> Board:
    """The board of one model, systems in the order in which they are listed."""
    found: Board = {name: defaultdict(list) for name in SYSTEMS}
    for line in sorted(whole(lines), key=lambda line: line["seed"]):
        if line["model"] == model and line["marks"]:
            found[line["system"]][line["set"]].append(line)
    return {name: dict(tasks) for name, tasks in found.items() if tasks}


def marks_of(lines: Sequence[Line]) -> Matrix:
    return matrix([line["marks"] for line in lines])


def _model(board: Board) -> Iterator[str]:
    sets = list(dict.fromkeys(name for tasks in board.values() for name in tasks))
    yield f"### Over {len(sets)} tasks\n\n{table(board, sets)}"
    for mine in OURS:
        if rivals := rivals_of(mine, board):
            title = SYSTEMS[mine].title.capitalize()
            yield f"### {title} minus the other, points on test\n\n{versus(mine, rivals, board, sets)}"
    if lines := list(ahead_of_ours(board, sets)):
        yield "### Where another system scored more than ours, points on test\n\n" + "\n".join(lines)
    if lines := list(reached(board, sets)):
        yield "### Calls that ours needed for the final score of random search and of the best peer\n\n" + "\n".join(
            lines
        )
    for name in sets:
        yield f"### {name}\n\n{table(board, [name])}"


def spread_between_seeds(board: Board) -> float:
    return seed_spread([marks_of(lines) for tasks in board.values() for lines in tasks.values()])


def spread_of_one(lines: Sequence[Line], spread: float) -> float:
    """What a single run of this system may be off by: nothing where nothing is searched or found."""
    searched = all(SYSTEMS[line["system"]].budget and line["happened"] == "ok" for line in lines)
    return spread if searched else 0.0


def table(board: Board, sets: Sequence[str]) -> str:
    """One row a system that has every task of `sets`, then those that lack some, with a mark."""
    spread = spread_between_seeds(board)
    out = [f"| {' | '.join(HEADS)} |", "|---" * len(HEADS) + "|"]
    for system, tasks in board.items():
        have = [name for name in sets if name in tasks]
        if not have:
            continue
        lines = [line for name in have for line in tasks[name]]
        score = mean_interval([marks_of(tasks[name]) for name in have], spread_of_one(lines, spread))
        lacking = "" if len(have) == len(sets) else f" of {len(sets)}"
        out.append(
            f"| {SYSTEMS[system].title} | {_percent(score)} | {len(have)}{lacking} x {_seeds(tasks, have)} "
            f"| {_mean(line['calls'].get('task', 0) for line in lines):.0f} "
            f"| {_mean(line['calls'].get('proposer', 0) for line in lines):.0f} "
            f"| {_mean(line['prompt_tokens_per_call'] for line in lines):.0f} "
            f"| {_mean(tokens(line) for line in lines) / 1000:.0f} | {_mean(line['seconds'] for line in lines):.0f} "
            f"| {_span({line.get('cores', 2) for line in lines})} | {_events(lines)} |"
        )
    return "\n".join(out)


def rivals_of(mine: str, board: Board) -> list[str]:
    """Peers of the budget that `mine` is set against or without a search, then the other budgets and forms of ours; []
    where there is nothing but the user's prompt."""
    if mine not in board:
        return []
    others = [name for name in board if name not in (mine, "user")]
    foreign = [name for name in others if not name.startswith(OURS[0])]
    by_budget = {name: SYSTEMS[name].budget for name in foreign}
    budget = SYSTEMS[mine if SYSTEMS[mine].budget in by_budget.values() else OURS[0]].budget
    peers = [name for name in foreign if by_budget[name] in (0, budget)]
    return ["user", *peers, *(n for n in others if n.startswith(OURS[0]))] if others else []


def versus(mine: str, rivals: Sequence[str], board: Board, sets: Sequence[str]) -> str:
    """`mine` minus each rival: over the tasks that both have, and by task."""
    out = [f"| other | all | {' | '.join(sets)} |", "|---|---|" + "---|" * len(sets)]
    spread = spread_between_seeds(board)
    for system in rivals:
        tasks = board.get(system, {})
        pairs = {
            name: (marks_of(board[mine][name]), marks_of(tasks[name]))
            for name in sets
            if name in tasks and name in board[mine]
        }
        if pairs:
            alone = (spread, spread_of_one([line for name in pairs for line in tasks[name]], spread))
            cells = [_points(difference_interval([pairs[name]], alone)) if name in pairs else "" for name in sets]
            pooled = _points(difference_interval(list(pairs.values()), alone))
            out.append(f"| {SYSTEMS[system].title} | **{pooled}** | {' | '.join(cells)} |")
    return "\n".join(out)


def ahead_of_ours(board: Board, sets: Sequence[str]) -> Iterator[str]:
    """For each task the systems of others, without a search or of the same budget, whose mean is above that of ours."""
    spread = spread_between_seeds(board)
    rivals = [name for name in rivals_of(OURS[0], board) if not name.startswith(OURS[0])]
    for name in sets:
        ours = board.get(OURS[0], {}).get(name, [])
        for system in rivals if ours else ():
            theirs = board.get(system, {}).get(name, [])
            if theirs and mean(line["test"] for line in theirs) > mean(line["test"] for line in ours):
                alone = (spread_of_one(theirs, spread), spread)
                gap = difference_interval([(marks_of(theirs), marks_of(ours))], alone)
                yield f"- {name}: {SYSTEMS[system].title}: {_points(gap)}"


def reached(board: Board, sets: Sequence[str]) -> Iterator[str]:
    """For each task: the first incumbent of ours that scored as much as the best peer, and as random search (on the
    first test rows)."""
    for name in sets:
        peers = {
            system: mean(line["test"] for line in tasks[name])
            for system, tasks in board.items()
            if name in tasks and not system.startswith(OURS[0]) and system != "user"
        }
        ours = board.get(OURS[0], {}).get(name, [])
        if not peers or not ours:
            continue
        best = max(peers, key=lambda system: peers[system])
        looked = [line["steps"] for line in ours if line["steps"]]
        for peer in dict.fromkeys(system for system in (best, "random") if system in peers):
            calls = first_at(looked, peers[peer])
            spent = _mean(line["calls"].get("task", 0) for line in board[peer][name])
            none = "not reached at the moments looked at" if looked else "its way was not looked at"
            told = none if calls is None else f"{calls} calls"
            yield f"- {name}: {SYSTEMS[peer].title} ended at {100 * peers[peer]:.1f} ({spent:.0f} calls); ours: {told}"


def first_at(runs: Sequence[Sequence[Sequence[float]]], score: float) -> int | None:
    """The fewest calls at which an incumbent of any run scored `score` or more; runs are lists of [calls, score]."""
    reached_at = [int(calls) for steps in runs for calls, value in steps if value >= score]
    return min(reached_at, default=None)


def tokens(line: Line) -> int:
    """Tokens in and out of the search."""
    roles = (line["tokens"].get(role, {}) for role in ("task", "proposer"))
    return sum(role.get("prompt_tokens", 0) + role.get("completion_tokens", 0) for role in roles)


def _seeds(tasks: dict[str, list[Line]], have: Sequence[str]) -> str:
    return _span({len(tasks[name]) for name in have})


def _span(counts: set[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low}-{high}"


def _events(lines: Sequence[Line]) -> str:
    odd = [line["happened"] for line in lines if line["happened"] != "ok"]
    if not odd:
        return "ok"
    first = odd[0].replace("|", "/")
    return f"{len(odd)} of {len(lines)}: {first[:90]}"


def _mean(values: Iterator[float]) -> float:
    found = list(values)
    return mean(found) if found else 0.0


def _percent(score: Interval) -> str:
    return f"{100 * score.value:.1f} [{100 * score.low:.1f}, {100 * score.high:.1f}]"


def _points(gap: Interval) -> str:
    return f"{100 * gap.value:+.1f} [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"
