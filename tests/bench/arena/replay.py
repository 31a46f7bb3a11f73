"""Search policies over recorded outcomes: thousands of runs without a model, against the truth.

    python -m tests.bench.arena.replay [--seeds 1000] [--calls 700] [--dev 78] [--test 130] [--matrix FILE ...]
                                       [--policy NAME ...]

The recorded rows are taken for the whole world: a candidate's true score is its mean over all of them, and each replay
draws its dev rows from them with replacement. A policy can only make what was recorded: designs of a place, and the
children of the candidates that had children. Regret is the best recorded true score minus that of what was chosen; the
difference to the first policy is over the same seeds, with its 95 % interval. `--calls` are those of a whole run: a
policy gets what the plan leaves after the baseline and the sealed test.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from agent.gateway.budget import Account
from agent.options.run import RecordedOptions
from agent.programs.moves.prompt_moves import FEWEST_FITTED, redraws
from agent.prompt.prompt_candidate import PromptCandidate
from agent.search.context import stratified
from agent.search.costs import CandidateCosts, Means
from agent.search.evolve.evolve import Search
from agent.search.plan import Plan, make_plan
from agent.search.program import Choices, Parent
from agent.search.registered import BANDIT, RACE, WILCOXON
from agent.search.trials import Trials
from agent.types import Budget, Demo, Outcome, Prediction, Proposal
from tests.toys import make_task

FOLDER = Path(__file__).parent / "matrix"
Policy = Callable[["World", Plan, int], str]
"""world, plan, seed -> the id of the candidate that it chose."""


@dataclass(frozen=True)
class World:
    """A recorded matrix. Ids are the recorded ones."""

    name: str
    candidates: dict[str, dict[str, Any]]
    hits: dict[str, list[float]]
    labels: list[str]
    signal: dict[str, list[float | None]]

    @staticmethod
    def read(path: Path) -> World:
        body = json.loads(gzip.decompress(path.read_bytes()))
        hits = {c["id"]: [float(h) for h in line] for c, line in zip(body["candidates"], body["hits"], strict=True)}
        blank = [[None] * len(body["labels"])] * len(hits)
        signal = {c["id"]: line for c, line in zip(body["candidates"], body.get("signal", blank), strict=True)}
        return World(body["set"], {c["id"]: c for c in body["candidates"]}, hits, body["labels"], signal)

    def truth(self, candidate: str) -> float:
        return sum(self.hits[candidate]) / len(self.hits[candidate])

    @property
    def best(self) -> float:
        return max(map(self.truth, self.hits))

    def dev(self, count: int, rng: random.Random) -> list[int]:
        """Drawn rows in the common order that the search gives them."""
        rows = [rng.randrange(len(self.labels)) for _ in range(count)]
        return stratified(rows, [self.labels[row] for row in rows], rng)


class RecordedMoves:
    """The `Moves` that were recorded, each once. Of an operator that draws demos by their effects nothing was recorded:
    it is offered as in a run, and makes nothing."""

    def __init__(self, world: World, rng: random.Random, trials: Trials) -> None:
        self._world, self._rng, self._trials, self._used = world, rng, trials, set[str]()
        self.recorded: dict[str, str] = {}
        roots = [c for c in world.candidates.values() if c["parent"] is None and c["operator"] != "random"]
        self._roots = roots
        self._kids: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for made in world.candidates.values():
            if made["parent"] is not None:
                self._kids.setdefault((made["parent"], made["operator"].partition(":")[0]), []).append(made)

    def space(self) -> dict[str, tuple[str, ...]]:
        names = ("technique", "format", "instruction", "role", "kind", "size")
        return {name: tuple(sorted({root["place"][name] for root in self._roots})) for name in names}

    def designs(self) -> list[Proposal]:
        sizes = sorted({int(root["place"]["size"]) for root in self._roots})[-3:]
        found = [self._take(r for r in self._roots if not r["demos"])]
        for size in sizes:
            for kind in ("balanced", "natural"):
                wanted = (kind, str(size))
                found.append(self._take(r for r in self._roots if (r["place"]["kind"], r["place"]["size"]) == wanted))
        return [proposal for proposal in found if proposal is not None]

    def fresh(self, place: Any) -> Proposal | None:
        return self._take(root for root in self._roots if root["place"] == place)

    def operators(self, parent: Parent | None) -> list[str]:
        if parent is None:
            return []
        mine = self.recorded[parent.proposal.candidate.id]
        names = [op for (owner, op), kids in self._kids.items() if owner == mine and any(map(self._new, kids))]
        is_fitted = redraws(parent.proposal.candidate) and len(self._trials.outcomes) >= FEWEST_FITTED
        return [*names, "attributed"] if is_fitted else names

    def due(self, parent: Parent | None) -> str:
        return ""

    async def made(self, operator: str, parent: Parent | None, parents: Sequence[Parent]) -> list[Proposal]:
        assert parent is not None
        mine = self.recorded[parent.proposal.candidate.id]
        made = self._take(self._kids.get((mine, operator), ()), parent.proposal.candidate.id)
        return [made] if made is not None else []

    async def warmed(self, rows: int) -> None:
        pass

    def _new(self, made: dict[str, Any]) -> bool:
        return made["id"] not in self._used

    def _take(self, found: Any, parent: str | None = None) -> Proposal | None:
        fresh = [made for made in found if self._new(made)]
        if not fresh:
            return None
        made = self._rng.choice(fresh)
        self._used.add(made["id"])
        demos = (Demo("", {}, {}),) if made["demos"] else ()
        candidate = PromptCandidate("few-shot" if demos else "zero-shot", "turns", made["id"], "", demos)
        self.recorded[candidate.id] = made["id"]
        kind = "proposed" if ":proposed" in made["operator"] else made["operator"].partition(":")[0]
        credit = kind if parent is not None or kind == "proposed" else "fresh"
        return Proposal(candidate, made["place"], made["operator"], parent, "", credit)


class RecordedGateway:
    """Nothing is sent."""

    def together(self) -> AbstractContextManager[None]:
        return nullcontext()


class RecordedContext:
    """Buys recorded outcomes; stands where a `SearchContext` stands."""

    def __init__(self, world: World, plan: Plan, seed: int, sampler: str = BANDIT, pruner: str = RACE) -> None:
        self.seed, self.rng = seed, random.Random(seed)
        self.choices, self.options = Choices(self.rng), RecordedOptions(sampler=sampler, pruner=pruner)
        self.trials = Trials()
        self.task, self.proposer, self.round, self.spent = None, None, 0, 0
        self.plan, self.baseline = plan, PromptCandidate("zero-shot", "turns", "the user's own")
        self.costs = CandidateCosts(self.plan, Account(Budget()), self.trials, "", lambda candidate: 1)
        self.program, self.gateway = None, RecordedGateway()
        self.moves = RecordedMoves(world, self.rng, self.trials)
        self._world, self._rows = world, world.dev(plan.dev_rows, random.Random(f"rows {seed}"))

    def stage(self, name: str, round_: int) -> None:
        self.round = round_

    def note(self, kind: str, body: Any) -> None:
        pass

    def more(self) -> bool:
        return True

    def left(self) -> int:
        return rows_of_search(self.plan) - self.spent

    left_by_calls = payable = left  # nothing is lost

    def admit(self, proposals: Sequence[Proposal]) -> list[str]:
        new = [proposal for proposal in proposals if proposal.candidate.id not in self.trials.proposals]
        self.trials.proposals |= {proposal.candidate.id: proposal for proposal in new}
        return [proposal.candidate.id for proposal in new]

    async def see(self, candidates: Sequence[str], rows: int) -> list[str]:
        return await self.see_all(dict.fromkeys(candidates, rows))

    async def see_all(self, wanted: dict[str, int]) -> list[str]:
        for candidate, rows in wanted.items():
            if candidate not in self.trials.by_id:
                self.trials.open(candidate, self.round)
            recorded = self.moves.recorded[candidate]
            hits, signal = self._world.hits[recorded], self._world.signal[recorded]
            self.spent += rows - len(self.trials.outcomes.get(candidate, ()))
            seen = [
                Outcome(candidate, str(row), Prediction({}, ""), (), hits[row], "", signal[row])
                for row in self._rows[:rows]
            ]
            self.trials.record(candidate, seen)
            self.trials.settle(candidate, "complete" if rows == len(self._rows) else "incomplete", "")
        return list(wanted)


def rows_of_search(plan: Plan) -> int:
    """Rows between trial 0 and the sealed test, where nothing is lost."""
    return plan.search_calls + plan.slack


def ours(world: World, plan: Plan, seed: int, sampler: str = BANDIT, pruner: str = RACE) -> str:
    context = RecordedContext(world, plan, seed, sampler, pruner)
    asyncio.run(Search(context, context.moves).run())  # type: ignore[arg-type]
    complete = context.trials.in_state("complete")
    best = max(complete, key=lambda i: context.trials.mean(i) or 0.0)
    return context.moves.recorded[best]


def random_search(world: World, plan: Plan, seed: int) -> str:
    """Small random sets, each on the same 60 rows, the best by its mean."""
    rng = random.Random(seed)
    small = [i for i, made in world.candidates.items() if made["operator"] == "random"]
    drawn = rng.sample(small, min(len(small), rows_of_search(plan) // 60))
    rows = random.Random(f"rows {seed}").choices(range(len(world.labels)), k=60)
    return max(drawn, key=lambda i: sum(world.hits[i][row] for row in rows))


def any_search(world: World, plan: Plan, seed: int) -> str:
    """As random search, but over every recorded design: what the designs alone are worth."""
    rng = random.Random(seed)
    roots = [i for i, made in world.candidates.items() if made["parent"] is None]
    drawn = rng.sample(roots, min(len(roots), rows_of_search(plan) // 60))
    rows = random.Random(f"rows {seed}").choices(range(len(world.labels)), k=60)
    return max(drawn, key=lambda i: sum(world.hits[i][row] for row in rows))


POLICIES: dict[str, Policy] = {
    "ours": ours,
    **{f"ours, {name}": partial(ours, sampler=name) for name in ("tpe", "random")},
    "ours, wilcoxon": partial(ours, pruner=WILCOXON),
    "random search": random_search,
    "random over all designs": any_search,
}


def score(world: World, policy: str, plan: Plan, seed: int) -> float:
    """The true score of what the policy chose."""
    return world.truth(POLICIES[policy](world, plan, seed))


def plan_of(calls: int, dev_rows: int, test_rows: int) -> Plan:
    """The plan of a run without a proposer on a task of this size."""
    task = make_task(1)
    task = replace(task, dev=task.dev * dev_rows, test=task.test * test_rows)
    return make_plan(task, Means(Budget(calls)), has_proposer=False)


def difference(scores: Sequence[float], others: Sequence[float]) -> str:
    """The mean difference in points over the same seeds, with half the width of its 95 % interval."""
    points = [100 * (one - other) for one, other in zip(scores, others, strict=True)]
    mean = sum(points) / len(points)
    spread = (sum((each - mean) ** 2 for each in points) / max(1, len(points) - 1)) ** 0.5
    return f"{mean:+5.1f} +- {1.96 * spread / len(points) ** 0.5:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Search policies over recorded outcomes.")
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--calls", type=int, default=700)
    parser.add_argument("--dev", type=int, default=78)
    parser.add_argument("--test", type=int, default=130)
    parser.add_argument("--matrix", type=Path, nargs="*", default=sorted(FOLDER.glob("*.json.gz")))
    parser.add_argument("--policy", nargs="*", default=list(POLICIES), choices=list(POLICIES), metavar="NAME")
    options = parser.parse_args()
    plan = plan_of(options.calls, options.dev, options.test)
    for path in options.matrix:
        world = World.read(path)
        print(f"{world.name}: {len(world.hits)} candidates, the best {100 * world.best:.1f}, {options.calls} calls")
        first: list[float] = []
        for name in options.policy:
            began = time.perf_counter()
            with ProcessPoolExecutor(2) as pool:
                work = partial(score, world, name, plan)
                scores = list(pool.map(work, range(options.seeds), chunksize=25))
            mean, first = sum(scores) / len(scores), first or scores
            took = (time.perf_counter() - began) / options.seeds
            regret = 100 * (world.best - mean)
            less = difference(scores, first)
            print(
                f"  {name:<24} {100 * mean:5.1f}  regret {regret:5.1f}  {less}  {1000 * took:6.1f} ms a run", flush=True
            )


if __name__ == "__main__":
    main()
