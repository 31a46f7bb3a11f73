"""A model without weights whose score depends on every part of a prompt: wording, layout, each demo, and luck.

How much is drawn from the seed; the toy model depends on demonstrations only.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from statistics import NormalDist

from agent.types import Completion, Request, Task, Usage
from tests.bench.arena.data import label_field, right, text_field

PLANTED = "planted"
START, DEMOS = 0.35, 0.1
SPREADS = {"wording": 0.1, "layout": 0.1, "demo": 0.015, "own": 0.02, "row": 0.1}
"""Standard deviations of what is planted, in score."""
BOUNDS = (0.02, 0.95)


def share(*words: str) -> float:
    """A number in (0, 1) that looks random and depends on the words only."""
    return (int(hashlib.sha256("\0".join(words).encode()).hexdigest()[:12], 16) + 0.5) / 16**12


class PlantedModel:
    """Knows the rows of its task: right on as many as the prompt is good for, always the same ones."""

    name = PLANTED
    concurrency = None

    def __init__(self, task: Task, seed: int, spreads: Mapping[str, float] = SPREADS) -> None:
        """`spreads`: as SPREADS, 0 for what makes no difference."""
        self._spreads = spreads
        rows = [*task.train, *task.dev, *task.test]
        self._seed, self._labels = str(seed), label_field(task).choices
        self._title = f"{text_field(task).replace('_', ' ').capitalize()}: "
        self._ending = f"\n{label_field(task).name.replace('_', ' ').capitalize()}:"
        self._right = {row.inputs[text_field(task)]: label for row, label in zip(rows, right(task, rows), strict=True)}

    async def complete(self, request: Request) -> Completion:
        text = self._answer([message.content for message in request.messages])
        prompt = sum(self.count_tokens(message.content) for message in request.messages)
        return Completion(text, "stop", Usage(prompt, self.count_tokens(text)), self.name)

    def _answer(self, contents: list[str]) -> str:
        wording, *turns, last = contents
        before, _, asked = last.rpartition(self._title)
        row = asked.removesuffix(self._ending) if before or last.startswith(self._title) else last
        label = self._right.get(row)
        if label is None:  # asked for an instruction, or for what it does not know
            return f"<instruction>{wording[:40]} Edition {hashlib.sha256(last.encode()).hexdigest()[:6]}.</instruction>"
        layout = "inline" if before else "labelled" if asked != last else "turns"
        demos = re.split(r"\n\n+", before.strip())[1:] if before else turns[::2]
        front = "\0".join((wording, layout, *turns, before))
        level = START + DEMOS * bool(demos) + sum(self._drawn("demo", demo) for demo in demos)
        level += self._drawn("wording", wording) + self._drawn("layout", layout) + self._drawn("own", front)
        low, high = BOUNDS
        if share(self._seed, front, row) < min(high, max(low, level + self._drawn("row", row))):
            return label
        return self._labels[(self._labels.index(label) + 1) % len(self._labels)]

    def _drawn(self, kind: str, what: str) -> float:
        return self._spreads[kind] * NormalDist().inv_cdf(share(self._seed, kind, what))

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    async def close(self) -> None: ...
