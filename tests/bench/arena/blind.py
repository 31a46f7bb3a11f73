"""How often does a run end "Better" where no prompt makes the model read its input?

    python -m tests.bench.arena.blind [--seeds 200] [--metric choice,set_f1,json_fields,rougeL] [--calls 200]

The model answers the user's own prompt with words that are no answer. Any other prompt makes it say one thing to every
row, or something to each row that is drawn without a look at it: as often as the right answers, so that nothing but
chance makes one of them better than the best constant answer. Labels are drawn by chance as well.

Each run is ours, whole, with a fresh ledger; the model answers in this process. Exit 1 where more than MOST_BETTER of
the runs of a metric promote.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.release.result import RunResult
from agent.types import (
    Completion,
    Constraints,
    Example,
    Field,
    Message,
    MetricSpec,
    Request,
    SearchSpace,
    Signature,
    Task,
    Usage,
)
from tests.bench.arena.planted import share
from tests.toys import executed, launched

MOST_BETTER = 0.01
TRAIN, DEV, TEST = 60, 30, 60
WORDS = ("please", "order", "time", "customer", "weeks", "already", "river", "garden", "window", "yellow", "paper")
LABELS = {"north": 40, "south": 30, "east": 20, "west": 10}
TAGS = {"billing": 60, "login": 50, "shipping": 40, "refund": 30, "bug": 20}
RECORD = {"team": LABELS, "urgent": {"yes": 70, "no": 30}, "size": {"small": 40, "medium": 35, "large": 25}}
SENTENCE = (
    "we",
    "are",
    "sorry",
    "your",
    "order",
    "will",
    "be",
    "sent",
    "again",
    "today",
    "and",
    "you",
    "pay",
    "nothing",
)
ROW = re.compile(r"\bn\d+\b")


def one_of(shares: dict[str, int], rng: random.Random) -> str:
    return rng.choices(list(shares), list(shares.values()))[0]


def a_set(rng: random.Random) -> str:
    drawn = [tag for tag, share in TAGS.items() if rng.random() * 100 < share]
    return "; ".join(drawn or [one_of(TAGS, rng)])


def a_record(rng: random.Random) -> dict[str, str]:
    return {name: one_of(shares, rng) for name, shares in RECORD.items()}


def a_sentence(rng: random.Random) -> str:
    return " ".join(word for word in SENTENCE if rng.random() < 0.6) or "thank you"


@dataclass(frozen=True, slots=True)
class Kind:
    """How answers of a metric look. `drawn` is one at random, as often as among the rows; `best`, a good constant."""

    field: Field
    drawn: Callable[[random.Random], Any]
    best: Any


KINDS = {
    "choice": Kind(Field("answer", "choice", choices=tuple(LABELS)), lambda rng: one_of(LABELS, rng), "north"),
    "set_f1": Kind(Field("answer"), a_set, "billing; login; shipping"),
    "json_fields": Kind(
        Field("answer", "json"), a_record, {name: max(each, key=each.__getitem__) for name, each in RECORD.items()}
    ),
    "rougeL": Kind(Field("answer"), a_sentence, " ".join(SENTENCE)),
}


def blind_task(metric: str, seed: int) -> Task:
    """Rows of words drawn by chance, with labels drawn by chance."""
    rng, kind = random.Random(f"{metric}/{seed}"), KINDS[metric]

    def rows(split: str, count: int) -> tuple[Example, ...]:
        return tuple(
            Example(
                f"{split}{n}",
                {"text": f"{' '.join(rng.sample(WORDS, 6))} n{len(split)}{n}"},
                {"answer": kind.drawn(rng)},
            )
            for n in range(count)
        )

    return Task(
        name=f"blind_{metric}",
        description="Answer the message.",
        signature=Signature((Field("text"),), (kind.field,)),
        instruction="Answer the message.",
        metrics=(MetricSpec(metric, "answer"),),
        space=SearchSpace(("zero-shot", "few-shot"), ("turns", "labelled-turns", "inline"), (2, 4, 6), retrieval=True),
        constraints=Constraints(),
        train=rows("train", TRAIN),
        dev=rows("dev", DEV),
        test=rows("test", TEST),
        folder="blind",
    )


class Blind:
    """Answers by the prompt alone, or by a draw for each row."""

    name = "blind"
    concurrency = None

    def __init__(self, metric: str, seed: int) -> None:
        self._kind, self._seed = KINDS[metric], str(seed)

    async def complete(self, request: Request) -> Completion:
        text = self._answer(request.messages)
        return Completion(text, "stop", Usage(sum(len(m.content) for m in request.messages), len(text)), self.name)

    def _answer(self, messages: tuple[Message, ...]) -> str:
        text = "\0".join(message.content for message in messages)
        *shown, row = ROW.findall(text)
        if not shown:  # no demos
            return "I am not sure"
        prompt = (self._seed, ROW.sub("", messages[0].content), *sorted(shown))
        said = self._drawn(*prompt)
        if share(*prompt, "how") < 0.3:
            said = self._kind.best
        elif share(*prompt, "how") < 0.6:
            said = self._drawn(*prompt, row)
        return said if isinstance(said, str) else json.dumps(said)

    def _drawn(self, *words: str) -> Any:
        return self._kind.drawn(random.Random(share(*words)))

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    async def close(self) -> None: ...


async def run_once(metric: str, seed: int, calls: int) -> RunResult:
    """One run on rows that nothing can be learnt from."""
    from agent.ledger.store import Ledger

    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.db")
        try:
            launch = launched(blind_task(metric, seed), Blind(metric, seed), seed=seed, max_calls=calls)
            return (await executed(launch, ledger))[1]
        finally:
            ledger.close()


@dataclass(frozen=True, slots=True)
class Tally:
    """The endings of the runs of a metric. `above`: a winner better than the user's own prompt beyond chance."""

    metric: str
    runs: int
    above: int
    better: int

    @property
    def is_wrong(self) -> bool:
        return self.better > MOST_BETTER * self.runs


def tallied(metric: str, results: list[RunResult]) -> Tally:
    held = {"no_better_than_constant"}
    above = sum(not one.is_own and (one.decision == "promote" or set(one.blocked_codes) <= held) for one in results)
    return Tally(metric, len(results), above, sum(one.decision == "promote" for one in results))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.arena.blind")
    parser.add_argument("--metric", default=",".join(KINDS), help=f"with commas, of {', '.join(KINDS)}")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--calls", type=int, default=200)
    given = parser.parse_args()
    print(f"{'metric':<12}{'runs':>8}{'above yours':>14}{'better':>10}", flush=True)
    wrong = False
    for metric in given.metric.split(","):
        seeds = range(given.first, given.first + given.seeds)
        tally = tallied(metric, [asyncio.run(run_once(metric, seed, given.calls)) for seed in seeds])
        print(f"{metric:<12}{tally.runs:>8}{tally.above:>14}{tally.better:>10}", flush=True)
        wrong |= tally.is_wrong
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
