"""How often is a prompt that picks its demos chosen on a task where picking them cannot help?

    python -m tests.bench.arena.guard [--seeds 100] [--dev 30,100] [--model copier,even,planted] [--budget 700]

The labels of the rows are drawn by chance (`goods.py`), and what a demo says of its row helps no other row:

- `copier` answers as the last demo about the same goods does, so no prompt is better than another.
- `even` is right on more rows with demos than without, on as many with any demos (`planted.py`).
- `planted` is right on as many rows as wording, layout and demos are good for. One that picks may be better here by
  these, and is wrongly chosen where it is worse than the best fixed prompt on fresh rows.

Each run is ours, whole, with a fresh ledger; the model answers in this process and gives log-probabilities, so that
twins with calibration compete as well. `chosen` are winners that pick, `wrongly` those of them that are no better
than the best fixed prompt, `better` all runs that say "Better", and `falsely` those of them whose winner is no better
than the user's own prompt. Exit 1 when one that picks was wrongly chosen against a fixed prompt other than the user's
own, or said to be better falsely.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

from agent.prompt.prompt_candidate import PromptCandidate, as_prompt
from agent.search import selection
from agent.search.calibration import best_readings
from agent.types import LM, CallRole, Completion, Request, Task
from tests.bench.arena.client import AT_ONCE
from tests.bench.arena.goods import EVEN, Copier, Graded, goods_task
from tests.bench.arena.planted import SPREADS
from tests.bench.arena.systems.ours import max_calls
from tests.toys import executed, launched

MODELS = ("copier", "even", "planted")


class Direct:
    """What the evaluator needs of a gateway, without a ledger."""

    stopped = None

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def complete(self, role: CallRole, lm: LM, request: Request, candidate_id: str = "") -> Completion:
        async with self._slots:
            return await lm.complete(request)


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a run chose.

    Args:
        picked: whether the winner picks its demos.
        refused: whether one that picks was the best on dev, and not shown to be better.
        finalists_that_pick: how many of those that saw the whole of dev.
        dev, rival: the score on dev of the winner, and of the best prompt that does not pick.
        against_own: whether that prompt is the user's own, so that only the sealed test could decide.
        better: whether the run says "Better".
        loss: what that one has more of than the winner on fresh rows, in points; None for a winner that does not pick.
        gain: what the winner has more of than the user's own prompt there; None where the run does not say "Better".
    """

    model: str
    dev_rows: int
    seed: int
    picked: bool
    refused: bool
    finalists_that_pick: int
    dev: float
    rival: float
    against_own: bool
    better: bool
    loss: float | None = None
    gain: float | None = None

    @property
    def wrong(self) -> bool:
        """Whether a prompt that picks was chosen where none is better, or one that is worse."""
        return self.loss is not None and (self.model != "planted" or self.loss > 0)

    @property
    def false(self) -> bool:
        """Whether a run says "Better" of a prompt that is not."""
        return self.gain is not None and (self.model == "copier" or self.gain <= 0)

    @property
    def is_fault(self) -> bool:
        """Whether this must not happen."""
        return self.wrong and (self.false or not self.against_own)


@dataclass(frozen=True, slots=True)
class Tried:
    """A candidate of a run: whether it picks, has calibration, and saw the whole of dev; and its scores on dev."""

    candidate_id: str
    picks: bool
    calibration: bool
    whole: bool
    scores: tuple[float, ...]


def mind(name: str, task: Task, seed: int) -> LM:
    return Copier(seed) if name == "copier" else Graded(task, seed, EVEN if name == "even" else SPREADS)


async def run_once(model: str, dev_rows: int, budget: int, seed: int) -> tuple[Chosen, list[Tried]]:
    """One run, and all that it tried."""
    from agent.ledger.store import Ledger

    task, fresh = goods_task(dev_rows, seed)
    lm = mind(model, fresh, seed)
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.db")
        cap = max_calls(task, budget, has_proposer=False)
        try:
            run, result = await executed(launched(task, lm, seed=seed, max_calls=cap, calibrate=True), ledger)
            offers = best_readings(run.context, run.finalists())  # one reading of each prompt
        finally:
            ledger.close()
    context, trials = run.context, run.context.trials
    tried = []
    for candidate_id, outcomes in trials.outcomes.items():
        prompt = as_prompt(trials.candidate(candidate_id))
        scores = tuple(outcome.value or 0.0 for outcome in outcomes)
        is_whole = trials.by_id[candidate_id].state == "complete"
        tried.append(
            Tried(candidate_id, "picks" in prompt.settings, "calibration" in prompt.settings, is_whole, scores)
        )
    winner = as_prompt(trials.candidate(result.winner.candidate_id))
    own = next(one for one in tried if one.candidate_id == context.baseline.id)  # may have seen a part of dev
    offered = {each.candidate_id for each in offers}
    others = (one for one in tried if one.candidate_id in offered and one.whole and not one.picks)
    fixed = max((own, *others), key=lambda one: mean(one.scores))
    loss = gain = None
    better = result.decision == "promote"
    if "picks" in winner.settings:
        loss = -await _points_over(fresh, lm, winner, as_prompt(trials.candidate(fixed.candidate_id)))
    if better:
        gain = await _points_over(fresh, lm, winner, as_prompt(context.baseline))
    return Chosen(
        model,
        dev_rows,
        seed,
        "picks" in winner.settings,
        bool(context.noted[selection.NOT_PROVED]),
        sum(one.whole and one.picks for one in tried),
        trials.mean(winner.id) or 0.0,
        mean(fixed.scores),
        fixed.candidate_id == context.baseline.id,
        better,
        loss,
        gain,
    ), tried


async def _points_over(task: Task, lm: LM, one: PromptCandidate, other: PromptCandidate) -> float:
    return 100 * (await score(task, lm, one) - await score(task, lm, other))


async def score(task: Task, lm: LM, candidate: PromptCandidate) -> float:
    """The mean over the task's test rows, in [0, 1]."""
    from agent.evaluate.evaluator import Evaluator
    from agent.programs.prompt import PromptProgram
    from agent.scoring.task_metrics import build_metrics

    evaluator = Evaluator(task, Direct(), lm, build_metrics(task), [PromptProgram(task, lm)], graded=True)
    seen = await evaluator.outcomes(candidate, task.test, "test")
    return mean(outcome.value or 0.0 for outcome in seen)


def table(found: Sequence[Chosen]) -> str:
    """A line for each model and number of dev rows."""
    heads = ("dev rows", "runs", "chosen", "wrongly", "refused", "better", "falsely", "picks saw dev", "loss, points")
    out = [f"{'model':<9} " + " ".join(f"{head:>13}" for head in heads)]
    for model, dev_rows in dict.fromkeys((one.model, one.dev_rows) for one in found):
        mine = [one for one in found if (one.model, one.dev_rows) == (model, dev_rows)]
        losses = [one.loss for one in mine if one.loss is not None]
        loss = f"{sum(losses) / len(losses):+.1f}" if losses else "-"
        flags = zip(*((one.picked, one.wrong, one.refused, one.better, one.false) for one in mine), strict=True)
        counts = (dev_rows, len(mine), *map(sum, flags))
        cells = (*map(str, counts), str(sum(one.finalists_that_pick > 0 for one in mine)), loss)
        out.append(f"{model:<9} " + " ".join(f"{cell:>13}" for cell in cells))
    return "\n".join(out)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.arena.guard")
    parser.add_argument("--model", default=",".join(MODELS), help=f"with commas, of {', '.join(MODELS)}")
    parser.add_argument("--dev", default="30,100", help="numbers of dev rows, with commas")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--budget", type=int, default=700, help="calls of search for each run")
    parser.add_argument("--tried", type=Path, help="a file for the dev scores of all that was tried, a JSON line a run")
    given = parser.parse_args()
    found = []
    for model in given.model.split(","):
        for dev_rows in map(int, given.dev.split(",")):
            for seed in range(given.first, given.first + given.seeds):
                one, tried = asyncio.run(run_once(model, dev_rows, given.budget, seed))
                found.append(one)
                if one.picked:
                    print(f"{'wrongly ' if one.wrong else ''}chosen: {one}", flush=True)
                if given.tried:
                    with given.tried.open("a", encoding="utf-8") as out:
                        out.write(json.dumps({**asdict(one), "tried": [asdict(each) for each in tried]}) + "\n")
    print(table(found))
    return int(any(one.is_fault for one in found))


if __name__ == "__main__":
    sys.exit(main())
