"""Ours, run as the command line runs it: the server's model with all that it can, a fresh ledger, the whole way to
the sealed test. `budget` are calls of search, the baseline on dev among them. What comes on top is counted apart: the
sealed test, and the calls that say what carries the gain of a winner that is chosen by then. Nobody else makes either.

How it came there is read from the ledger afterwards: the incumbent at a moment is the candidate with the best mean so
far, shrunk towards the mean of all. Prompts are the candidates of the run, with their picked demos and calibration.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import BudgetRefused
from agent.prompt.parts.picks import PickedRows
from agent.prompt.prompt_candidate import as_prompt
from agent.release.result import RunResult
from agent.search.context import SearchContext
from agent.search.registered import BANDIT
from agent.types import Budget, Task
from tests.bench.arena.client import OwnModel
from tests.bench.arena.data import label_field, scorer
from tests.bench.arena.systems.base import Found, Step
from tests.bench.arena.systems.candidate import CandidatePrompt
from tests.toys import executed, launched

if TYPE_CHECKING:
    from agent.ledger.query import History

AT_ONCE = 8
"""Calls in flight, as many as of DSPy's optimizers: the one engine of a busy core must answer each in time."""
LOOKS = 12
"""How often in a run the incumbent is looked at."""
SHRINK = 8.0
"""Rows at the mean of all that are added to a candidate's own before candidates are compared."""
AFTER = (
    "EXISTS (SELECT 1 FROM outcomes t WHERE t.call_key = c.call_key AND t.split = 'test') OR EXISTS (SELECT 1 FROM "
    "proposals p WHERE p.run_id = c.run_id AND p.candidate_id = c.candidate_id AND p.operator LIKE 'without:%')"
)
"""Calls `c` that were made when the winner was chosen: for the sealed test, and for its parts."""


def with_proposer(task: Task, url: str, budget: int, seed: int) -> Found:
    return asyncio.run(_run(task, url, budget, seed, proposer=True))


def without_proposer(task: Task, url: str, budget: int, seed: int) -> Found:
    return asyncio.run(_run(task, url, budget, seed, proposer=False))


def by_study(task: Task, url: str, budget: int, seed: int) -> Found:
    """With one Optuna study in the place of the bandit."""
    return asyncio.run(_run(task, url, budget, seed, proposer=True, sampler="tpe"))


def max_calls(task: Task, budget: int, has_proposer: bool) -> int:
    """The largest cap under which baseline and search together make at most `budget` calls."""
    from agent.search.costs import Means
    from agent.search.plan import make_plan

    for calls in range(2 * budget + 1000, budget, -1):
        try:
            plan = make_plan(task, Means(Budget(max_calls=calls)), has_proposer)
        except BudgetRefused:
            continue
        if plan.baseline_calls + plan.search_calls <= budget:
            return calls
    raise ValueError(f"no plan leaves {budget} calls to search")


async def _run(task: Task, url: str, budget: int, seed: int, proposer: bool, sampler: str = BANDIT) -> Found:
    from agent.ledger.store import Ledger

    target, author = OwnModel(url, "task"), OwnModel(url, "proposer", "arena-proposer") if proposer else None
    cap = max_calls(task, budget, proposer)
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(path := Path(folder) / "ledger.db")
        options = {"seed": seed, "max_calls": cap, "max_concurrency": AT_ONCE, "calibrate": True, "sampler": sampler}
        try:
            run, result = await executed(launched(task, target, author, **options), ledger)
        finally:
            ledger.close()
            if kept := os.environ.get("ARENA_LEDGERS"):  # a folder, for `tests.bench.calibration` and the like
                shutil.copy(path, Path(kept) / f"{task.name}-{budget}-{seed}-{'with' if proposer else 'without'}.db")
            for one in (target, author):
                if one is not None:
                    await one.close()
        return read(path, result, run.context)


def read(path: Path, result: RunResult, context: SearchContext) -> Found:
    """The winner and the incumbents of the run behind `result`; `context` has its candidates."""
    from agent.ledger.query import History

    history, pool = History(path), PickedRows(context.task)
    try:
        run_id, winner = result.run_id, result.winner.candidate_id
        walk = history.select(
            "SELECT o.candidate_id, o.value FROM calls c LEFT JOIN outcomes o ON o.call_key = c.call_key "
            f"AND o.run_id = c.run_id AND o.split = 'dev' WHERE c.run_id = ? AND c.state = 'ok' AND NOT ({AFTER}) "
            "ORDER BY c.id",
            run_id,
        )
        sealed = history.select(
            "SELECT COUNT(*) AS calls, COALESCE(SUM(prompt_tokens), 0) AS prompt_tokens, "
            "COALESCE(SUM(cached_prompt_tokens), 0) AS cached_tokens, "
            "COALESCE(SUM(completion_tokens), 0) AS completion_tokens FROM calls c "
            f"WHERE c.run_id = ? AND c.state = 'ok' AND ({AFTER})",
            run_id,
        )
        size = history.select(
            "SELECT AVG(prompt_tokens) AS n FROM calls WHERE run_id = ? AND candidate_id = ? AND state = 'ok'",
            run_id,
            winner,
        )
        made = partial(_prompt, history, run_id, context, pool)
        steps = tuple(Step(calls, made(candidate)) for calls, candidate in incumbents(_pairs(walk)))
        facts = {
            "dev": result.winner.dev,
            "prompt_tokens": round(size[0]["n"] or 0.0, 1),
            "decision": result.decision,
            "status": result.status,
            "trials": dict(result.trials),
            "winner": {key: getattr(result.winner, key) for key in ("technique", "format", "n_examples", "picks")},
            "calibrated": "calibration" in as_prompt(context.trials.candidate(winner)).settings,
            "finalists": finalists_of(context),
        }
        return Found(made(winner), (*steps, Step(len(walk), made(winner))), sealed=sealed[0], facts=facts)
    finally:
        history.close()


def finalists_of(context: SearchContext) -> list[dict[str, Any]]:
    """Every candidate that saw the whole of dev, the best first, and whether it picks and has calibration."""
    trials = context.trials
    complete = sorted(trials.in_state("complete"), key=lambda i: -(trials.mean(i) or 0.0))
    prompts = {i: as_prompt(trials.candidate(i)) for i in complete}
    return [
        {
            "id": i,
            "dev": round(trials.mean(i) or 0.0, 4),
            "n_examples": prompt.n_examples,
            "picks": "picks" in prompt.settings,
            "calibrated": "calibration" in prompt.settings,
        }
        for i, prompt in prompts.items()
    ]


def _pairs(walk: Iterable[dict[str, Any]]) -> list[tuple[str, float]]:
    return [(row["candidate_id"] or "", row["value"] or 0.0) for row in walk]


def incumbents(walk: list[tuple[str, float]]) -> list[tuple[int, str]]:
    """(calls so far, candidate) each time another candidate leads. `walk`: candidate ("" for a proposal) and score of
    each call in order."""
    sums: dict[str, float] = defaultdict(float)
    rows: dict[str, int] = defaultdict(int)
    every = max(1, len(walk) // LOOKS)
    found: list[tuple[int, str]] = []
    for calls, (candidate, value) in enumerate(walk, 1):
        if candidate:
            sums[candidate] += value
            rows[candidate] += 1
        if calls % every == 0 and rows:
            middle = sum(sums.values()) / sum(rows.values())
            best = max(rows, key=lambda i: (sums[i] + SHRINK * middle) / (rows[i] + SHRINK))
            if not found or found[-1][1] != best:
                found.append((calls, best))
    return found


def _prompt(
    history: History, run_id: str, context: SearchContext, pool: PickedRows, candidate_id: str
) -> CandidatePrompt:
    """The candidate as it was scored: its cap, and its answers on the sealed test."""
    candidate = as_prompt(context.trials.candidate(candidate_id))
    output = label_field(context.task).name
    reads = candidate.part("calibration") or scorer(context.task).answers != "label"
    known = {
        row["example_id"]: str(row["fields"].get(output, "")) if reads else row["reply"]
        for row in history.outcomes(run_id, candidate_id, "test")
        if row["reply"]
    }
    return CandidatePrompt(context.task, pool, candidate, context.program.max_tokens(candidate), known)
