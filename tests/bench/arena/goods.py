"""A task whose rows name one of 50 goods, and two models of it that need no weights and give log-probabilities.

Labels follow from the goods, or from nothing: then no prompt that looks up like rows can be better than another.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

from agent.types import Completion, Request, Task, Usage
from tests.bench.arena.data import label_field, task_of
from tests.bench.arena.planted import SPREADS, PlantedModel, share

LABELS = ("north", "south", "east", "west")
GOODS = [f"{a}{b}lters" for a in "bcdfglmnpr" for b in "aeiou"]
FILLER = re.findall(r"\w+", "please send our order on time as the customer has been waiting for weeks already")
EVEN = dict.fromkeys(SPREADS, 0.0) | {"row": SPREADS["row"]}
"""Demos help, and all prompts with demos are as good as each other."""
TRAIN, TEST, FRESH = 100, 60, 2000


def rows_of(count: int, seed: int, start: int = 0, by_goods: bool = False) -> list[dict[str, str]]:
    """Rows that name one of GOODS each. Labels follow from the goods, or from nothing."""
    rng = random.Random(f"{seed}/{start}")
    made = []
    for number in range(start, start + count):
        goods = number % len(GOODS)
        words = [GOODS[goods], *rng.sample(FILLER, 7), f"n{number}"]
        rng.shuffle(words)
        drawn = rng.choice(LABELS)
        made.append(
            {"id": f"r{number}", "text": " ".join(words), "label": LABELS[goods * 7 % 4] if by_goods else drawn}
        )
    rng.shuffle(made)
    return made


def goods_task(dev_rows: int, seed: int, by_goods: bool = False) -> tuple[Task, Task]:
    """The task of such rows, and the same with FRESH other rows as its test."""
    rows = rows_of(TRAIN + dev_rows + TEST, seed, 0, by_goods)
    train, dev = rows[:TRAIN], rows[TRAIN : TRAIN + dev_rows]
    fresh = rows_of(FRESH, seed, len(rows), by_goods)
    about = "Say which region a message is for."
    one, two = (task_of("goods", about, (train, dev, test), "label", (None,) * 3) for test in (rows[-TEST:], fresh))
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

    def __init__(self, task: Task, seed: int, spreads: Mapping[str, float] = SPREADS) -> None:
        super().__init__(task, seed, spreads)
        self._known = str(seed), label_field(task).choices

    async def complete(self, request: Request) -> Completion:
        made = await super().complete(request)
        seed, labels = self._known
        if made.text not in labels:
            return made
        words = (seed, *(message.content for message in request.messages))
        return reply(self.name, made.text, labels, words, bool(request.logprobs))


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
