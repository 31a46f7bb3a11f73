"""The floor: the user's own prompt, and plain random search over demonstrations."""

from __future__ import annotations

import random
from statistics import mean

from agent.prompt.prompt_candidate import PromptCandidate, baseline
from agent.prompt.render import template
from agent.types import Demo, Example, Task
from tests.bench.arena.data import right, scorer
from tests.bench.arena.systems.base import REPLY_TOKENS, Found, Step, TemplatePrompt

COUNTS = (4, 8, 12)
DEV_ROWS = 60


def rendered(task: Task, candidate: PromptCandidate) -> TemplatePrompt:
    return TemplatePrompt(candidate.id, template(candidate, task.signature), task.max_tokens or REPLY_TOKENS)


def user(task: Task, url: str, budget: int, seed: int) -> Found:
    """The prompt that the user came with, zero-shot; no call is made to search."""
    return Found(rendered(task, baseline(task)))


def random_demos(task: Task, url: str, budget: int, seed: int) -> Found:
    """Random sets of 4, 8 or 12 train rows as turns under the user's instruction; the best on 60 dev rows."""
    rng = random.Random(seed)
    rows = task.dev[:DEV_ROWS]
    read, wanted = scorer(task), right(task, rows)
    best, steps, calls = -1.0, [], 0
    while calls + len(rows) <= budget:
        chosen = rng.sample(task.train, min(rng.choice(COUNTS), len(task.train)))
        prompt = rendered(
            task, PromptCandidate("few-shot", "turns", task.instruction, demos=tuple(demo(task, row) for row in chosen))
        )
        seen = read.marks(prompt.replies(url, "task", rows), wanted)
        calls += len(rows)
        if (score := mean(map(int, seen))) > best:
            best = score
            steps.append(Step(calls, prompt))
    if not steps:
        return Found(rendered(task, baseline(task)), note=f"a budget of {budget} buys no set of demos")
    return Found(steps[-1].prompt, tuple(steps), facts={"dev": round(best, 4)})


def demo(task: Task, row: Example) -> Demo:
    return Demo(row.id, row.inputs, {name: str(value) for name, value in row.labels.items()})
