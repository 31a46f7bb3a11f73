"""Does the attribution that a run prints have the sign of re-runs on rows that the run never searched on?

    python -m tests.bench.arena.attribution_check [--model planted] [--sets trec,snips] [--seeds N] [--budget CALLS]

Each run is ours, whole, with a fresh ledger, over the arena's server; `toy` and `planted`, which need none, answer in
this process. Afterwards its winner, and the winner with one part as in the user's own prompt, answer every row of the
sealed test: the paired difference is the part's worth there. A part that the run told a sign of agrees or disagrees
where the 95 % interval on test leaves 0 out; else test cannot tell. Where it cannot, the sign of the bare difference is
counted beside it. Exit 1 when more than 5 % of the told ones disagree.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.prompt.prompt_candidate import PromptCandidate
from agent.results.run_parts import Carried
from agent.types import LM, CallRole, Completion, Request, Task
from tests.bench.arena.client import AT_ONCE, ModelServer, base_url
from tests.bench.arena.data import SETS, data_folder, load
from tests.bench.arena.planted import PLANTED, PlantedModel
from tests.bench.arena.systems.ours import max_calls
from tests.bench.arena.toy import TOY, ToyModel
from tests.bench.arena.weights import gguf
from tests.toys import executed, launched

MOST_WRONG = 0.05
HERE = (TOY, PLANTED)
Models = Callable[[str], LM]
"""The model for a role."""


@dataclass(frozen=True, slots=True)
class Checked:
    """One part of one winner: what the run said of it, and what it is worth on test. In points."""

    run: str
    part: str
    how: str
    points: float
    ci95: tuple[float, float]
    test: float
    test_ci95: tuple[float, float]
    rerun: bool

    @property
    def told(self) -> bool:
        return self.how != "unknown"

    @property
    def same_sign(self) -> bool:
        return self.points * self.test > 0

    @property
    def verdict(self) -> str:
        """What test says: "agreed", "disagreed", "cannot be told"."""
        if self.test_ci95[0] <= 0 <= self.test_ci95[1]:
            return "cannot be told"
        return "agreed" if self.same_sign else "disagreed"


class Direct:
    """What the evaluator asks of a gateway, without a ledger: so many calls at once, straight to the model."""

    stopped = None

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def complete(self, role: CallRole, lm: LM, request: Request, candidate_id: str = "") -> Completion:
        async with self._slots:
            return await lm.complete(request)


def served(address: str) -> Models:
    """Clients of the arena's server at `address`, one a role."""
    from agent.models.openai import OpenAIModel

    def model(role: str) -> LM:
        base = base_url(address, role)
        return OpenAIModel(f"openai-compatible/{role}@{base}", role, base_url=base)

    return model


def here(name: str, task: Task, seed: int) -> Models:
    """One model in this process for all roles."""
    model: LM = ToyModel() if name == TOY else PlantedModel(task, seed)
    return lambda role: model


async def check(task: Task, model: Models, budget: int, seed: int) -> list[Checked]:
    """One run of ours and its re-runs; empty when the user's own prompt won."""
    from agent.ledger.store import Ledger

    models = target, author, again = model("task"), model("proposer"), model("again")
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.db")
        cap = max_calls(task, budget, has_proposer=True)
        try:
            run, result = await executed(launched(task, target, author, seed=seed, max_calls=cap), ledger)
            winner = run.context.trials.candidate(result.winner.candidate_id)
            return await compared(f"{task.name}/{seed}", task, again, winner, run.context.baseline, result.attribution)
        finally:
            ledger.close()
            for one in models:
                await one.close()


async def compared(
    run: str, task: Task, lm: LM, winner: PromptCandidate, baseline: PromptCandidate, told: Sequence[Carried]
) -> list[Checked]:
    """What was told of each part beside what taking it out costs on test."""
    from agent.evaluate.evaluator import Evaluator
    from agent.programs.moves.prompt_parts import leave_one_out
    from agent.programs.prompt import PromptProgram
    from agent.scoring.task_metrics import build_metrics
    from agent.stats.intervals import paired_difference

    program = PromptProgram(task, lm)
    evaluator = Evaluator(task, Direct(), lm, build_metrics(task), [program])
    without = {ablation.part: ablation.candidate for ablation in leave_one_out(winner, baseline)}
    if without.keys() != {row.part for row in told}:
        raise RuntimeError(f"{run}: told of {[row.part for row in told]}, but {list(without)} differ")
    found = []
    for row in told:
        mine, theirs = [await evaluator.outcomes(one, task.test, "test") for one in (winner, without[row.part])]
        both = [(a.value, b.value) for a, b in zip(mine, theirs, strict=True)]
        pairs = [(a, b) for a, b in both if a is not None and b is not None]
        worth = paired_difference([a for a, _ in pairs], [b for _, b in pairs], 0)
        low, high = worth.ci95
        said = row.how, row.points, row.ci95
        found.append(Checked(run, row.part, *said, 100 * worth.diff, (100 * low, 100 * high), rerun=row.rows > 0))
    return found


# -- the report -------------------------------------------------------------------------------------------------------

COLUMNS = ("part", "seen", "re-run", "told", "agreed", "disagreed", "cannot be told", "of these same", "untold")


def table(checked: Sequence[Checked]) -> Iterator[str]:
    """A line for each part and one for all. "untold": the run gave no sign though test shows one."""
    yield "  ".join(f"{name:>14}" if number else f"{name:<12}" for number, name in enumerate(COLUMNS))
    for part in (*sorted({one.part for one in checked}), "all"):
        mine = [one for one in checked if part in (one.part, "all")]
        told = [one for one in mine if one.told]
        unsure = [one for one in told if one.verdict == "cannot be told"]
        counts = (
            len(mine),
            sum(one.rerun for one in mine),
            len(told),
            sum(one.verdict == "agreed" for one in told),
            sum(one.verdict == "disagreed" for one in told),
            len(unsure),
            sum(one.same_sign for one in unsure),
            sum(one.verdict != "cannot be told" for one in mine if not one.told),
        )
        yield "  ".join([f"{part:<12}", *(f"{count:>14}" for count in counts)])


def line(one: Checked) -> str:
    (low, high), (test_low, test_high) = one.ci95, one.test_ci95
    return (
        f"{one.run:<18} {one.part:<12} {one.how:<9} {one.points:+6.1f} [{low:+.1f}, {high:+.1f}]  "
        f"test {one.test:+6.1f} [{test_low:+.1f}, {test_high:+.1f}]  {one.verdict}"
    )


def wrong(checked: Sequence[Checked]) -> list[Checked]:
    return [one for one in checked if one.told and one.verdict == "disagreed"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.arena.attribution_check")
    parser.add_argument("--model", default=TOY, help="toy, planted, local/smollm2-135m or a GGUF file")
    parser.add_argument("--sets", default=",".join(SETS), help=f"with commas, of {', '.join(SETS)}")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--budget", type=int, default=700, help="calls of search for each run")
    parser.add_argument("--data", help="the folder of the rows; else ARENA_DATA, else ../shared/data")
    given = parser.parse_args()
    checked: list[Checked] = []
    with contextlib.ExitStack() as stack:
        url = "" if given.model in HERE else stack.enter_context(ModelServer(gguf(given.model, print))).url
        for seed in range(given.seeds):
            for name in given.sets.split(","):
                task = load(name, data_folder(given.data))
                model = served(f"{url}/attribution/{name}/{seed}") if url else here(given.model, task, seed)
                found = asyncio.run(check(task, model, given.budget, seed))
                for one in found:
                    print(line(one), flush=True)
                if not found:
                    print(f"{name}/{seed}: the user's own prompt won", flush=True)
                checked += found
    print("", *table(checked), sep="\n")
    told, bad = [one for one in checked if one.told], wrong(checked)
    print(f"\n{len(bad)} of {len(told)} told signs disagree with test" + (":" if bad else "."))
    for one in bad:
        print(line(one))
    return int(len(bad) > MOST_WRONG * len(told))


if __name__ == "__main__":
    sys.exit(main())
