"""How often is a prompt that picks its demos chosen on a task where picking them cannot help?

    python -m tests.bench.arena.guard [--seeds 100] [--dev 30,60,100] [--model copier,planted] [--budget 700]

Each row names one of 50 goods and its label is drawn by chance, so no prompt is better than another (`copier`, which
answers as the last demo about the same goods does), or each prompt is right on as many rows as it is good for, whatever
the rows say (`planted`, `planted.py`). Each run is ours, whole, with a fresh ledger; the model answers in this process
and gives log-probabilities, so that twins with label weights compete as well. Of a run in which a prompt that picks was
chosen, winner and best fixed prompt are compared on FRESH rows that nobody saw. Exit 1 when one was chosen.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from agent.programs.moves.pool import as_prompt
from agent.search import closing
from agent.types import LM, Budget, Completion, Request, Task, Usage
from tests.bench.arena.attribution_check import Direct
from tests.bench.arena.data import task_of
from tests.bench.arena.planted import PlantedModel, share
from tests.bench.arena.systems.ours import max_calls

LABELS = ("north", "south", "east", "west")
GOODS = [f"{a}{b}lters" for a in "bcdfglmnpr" for b in "aeiou"]
FILLER = re.findall(r"\w+", "please send our order on time as the customer has been waiting for weeks already")
TRAIN, TEST, FRESH = 100, 60, 2000


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a run chose.

    Args:
        picked: whether the winner picks its demos.
        refused: whether one that picks was the best on dev, and not shown to be better.
        finalists_that_pick: how many of those that saw the whole of dev.
        dev, rival: the score on dev of the winner, and of the best prompt that does not pick.
        loss: what that one has more of than the winner on fresh rows, in points; None for a winner that does not pick.
    """

    model: str
    dev_rows: int
    seed: int
    picked: bool
    refused: bool
    finalists_that_pick: int
    dev: float
    rival: float
    loss: float | None = None


def noise(count: int, seed: int, start: int = 0) -> list[dict[str, str]]:
    """Rows with a label that follows from nothing."""
    rng = random.Random(f"{seed}/{start}")
    made = []
    for number in range(start, start + count):
        words = [GOODS[number % len(GOODS)], *rng.sample(FILLER, 7), f"n{number}"]
        rng.shuffle(words)
        made.append({"id": f"r{number}", "text": " ".join(words), "label": rng.choice(LABELS)})
    rng.shuffle(made)
    return made


def noise_task(dev_rows: int, seed: int) -> tuple[Task, Task]:
    """The task, and the same with FRESH rows as its test."""
    rows = noise(TRAIN + dev_rows + TEST, seed)
    train, dev = rows[:TRAIN], rows[TRAIN : TRAIN + dev_rows]
    fresh = noise(FRESH, seed, start=len(rows))
    about = "Say which region a message is for."
    one, two = (task_of("noise", about, (train, dev, test), "label", (None,) * 3) for test in (rows[-TEST:], fresh))
    return one, two


class Copier:
    """Answers as the last demo about the same goods does, else with the first label; log-probabilities by chance."""

    name = "copier"
    concurrency = None

    def __init__(self, seed: int) -> None:
        self._seed = str(seed)

    async def complete(self, request: Request) -> Completion:
        *turns, last = [message.content for message in request.messages][1:]
        goods, answer = named_goods(last.rpartition("Text:")[2]), LABELS[0]
        blocks = re.findall(r"Text: (.*)\nLabel: (\w+)", last)
        for shown, label in [*pairwise(turns), *blocks]:
            if goods & named_goods(shown):
                answer = label.removeprefix("Label:").strip()
        answer = answer if answer in LABELS else LABELS[0]
        return reply(self.name, answer, LABELS, (self._seed, *turns, last), bool(request.logprobs))

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    async def close(self) -> None: ...


class Graded(PlantedModel):
    """`PlantedModel` with log-probabilities by chance."""

    def __init__(self, task: Task, seed: int) -> None:
        super().__init__(task, seed)
        self._known = str(seed), label_names(task)

    async def complete(self, request: Request) -> Completion:
        made = await super().complete(request)
        seed, labels = self._known
        if made.text not in labels:
            return made
        words = (seed, *(message.content for message in request.messages))
        return reply(self.name, made.text, labels, words, bool(request.logprobs))


def label_names(task: Task) -> tuple[str, ...]:
    (field,) = task.signature.outputs
    return field.choices


def named_goods(text: str) -> set[str]:
    return set(re.findall(r"\w+", text)) & set(GOODS)


def reply(name: str, answer: str, labels: Sequence[str], words: Sequence[str], graded: bool) -> Completion:
    """A reply; `graded`: with the log-probability of each label, the answer's the highest."""
    weights = {label: share(*words, label) for label in labels}
    weights[answer] = 1.0 + share(*words)
    total = math.fsum(weights.values())
    tops = tuple((label, math.log(weight / total)) for label, weight in weights.items())
    usage = Usage(sum(len(text.split()) for text in words), 1)
    return Completion(answer, "stop", usage, name, (tops,) if graded else ())


def mind(name: str, task: Task, seed: int) -> LM:
    return Copier(seed) if name == "copier" else Graded(task, seed)


async def run_once(model: str, dev_rows: int, budget: int, seed: int) -> tuple[Chosen, list[dict[str, Any]]]:
    """One run, and every candidate that saw the whole of dev: whether it picks, and its score on each row."""
    from agent.ledger.store import Ledger
    from agent.run.optimize import Run
    from agent.run.settings import Settings

    task, fresh = noise_task(dev_rows, seed)
    lm = mind(model, fresh if model == "planted" else task, seed)
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.db")
        cap = Budget(max_calls=max_calls(task, budget, has_proposer=False))
        run = Run(task, lm, None, ledger, Settings(seed=seed, budget=cap, runs_folder=Path(folder), calibrate=True))
        try:
            result = await run.execute()
        finally:
            ledger.close()
    context, board = run.context, run.context.board
    rows = [
        {
            "id": i,
            "picks": as_prompt(board.candidate(i)).picks is not None,
            "weights": as_prompt(board.candidate(i)).weights is not None,
            "scores": [outcome.value or 0.0 for outcome in board.outcomes[i]],
        }
        for i in board.in_state("complete")
    ]
    winner = as_prompt(board.candidate(result.winner.candidate_id))
    fixed = max((row for row in rows if not row["picks"]), key=lambda row: sum(row["scores"]))
    loss = None
    if winner.picks is not None:
        mine, theirs = [await score(fresh, lm, one) for one in (winner, as_prompt(board.candidate(fixed["id"])))]
        loss = 100 * (theirs - mine)
    return Chosen(
        model,
        dev_rows,
        seed,
        winner.picks is not None,
        bool(context.noted[closing.NOT_PROVED]),
        sum(row["picks"] for row in rows),
        result.winner.dev,
        sum(fixed["scores"]) / len(fixed["scores"]),
        loss,
    ), rows


async def score(task: Task, lm: LM, candidate: Any) -> float:
    """The mean over the task's test rows."""
    from agent.programs.prompt import PromptProgram
    from agent.scoring.evaluate import Evaluator
    from agent.scoring.task_metrics import build_metrics

    evaluator = Evaluator(task, Direct(), lm, build_metrics(task), [PromptProgram(task, lm)], graded=True)
    seen = await evaluator.outcomes(candidate, task.test, "test")
    return sum(outcome.value or 0.0 for outcome in seen) / len(seen)


def table(found: Sequence[Chosen]) -> str:
    """A line for each model and number of dev rows."""
    heads = ("dev rows", "runs", "chosen", "refused", "picks saw dev", "loss, points")
    out = [f"{'model':<9} " + " ".join(f"{head:>13}" for head in heads)]
    for model, dev_rows in dict.fromkeys((one.model, one.dev_rows) for one in found):
        mine = [one for one in found if (one.model, one.dev_rows) == (model, dev_rows)]
        losses = [one.loss for one in mine if one.loss is not None]
        loss = f"{sum(losses) / len(losses):+.1f}" if losses else "-"
        counts = (dev_rows, len(mine), sum(one.picked for one in mine), sum(one.refused for one in mine))
        cells = (*map(str, counts), str(sum(one.finalists_that_pick > 0 for one in mine)), loss)
        counts = (dev_rows, len(mine), sum(one.picked for one in mine), sum(one.refused for one in mine))
        cells = (*map(str, counts), str(sum(one.finalists_that_pick > 0 for one in mine)), loss)
        out.append(f"{model:<9} " + " ".join(f"{cell:>13}" for cell in cells))
    return "\n".join(out)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.arena.guard")
    parser.add_argument("--model", default="copier,planted", help="with commas, of copier and planted")
    parser.add_argument("--dev", default="30,60,100", help="numbers of dev rows, with commas")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--budget", type=int, default=700, help="calls of search for each run")
    parser.add_argument("--rows", type=Path, help="a file for the dev scores of the finalists, a JSON line a run")
    given = parser.parse_args()
    found = []
    for model in given.model.split(","):
        for dev_rows in map(int, given.dev.split(",")):
            for seed in range(given.first, given.first + given.seeds):
                one, rows = asyncio.run(run_once(model, dev_rows, given.budget, seed))
                found.append(one)
                if one.picked:
                    print(f"chosen: {one}", flush=True)
                if given.rows:
                    with given.rows.open("a", encoding="utf-8") as out:
                        out.write(json.dumps({**asdict(one), "finalists": rows}) + "\n")
    print(table(found))
    return int(any(one.picked for one in found))


if __name__ == "__main__":
    sys.exit(main())
