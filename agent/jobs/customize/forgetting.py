"""What a trained model forgets: general questions and rows of other tasks, against its base."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from agent.errors import OF_A_ROW
from agent.evaluate.evaluator import Evaluator, values
from agent.gateway.gateway import Gateway
from agent.gateway.in_flight import all_of
from agent.programs.prompt import PromptProgram
from agent.prompt.prompt_candidate import baseline
from agent.results.customize import Forgetting, OtherTask
from agent.scoring.task_metrics import build_metrics
from agent.task.by_name import SAMPLES
from agent.task.load import load_task
from agent.types import LM, Message, Request, Task

MOST_TOKENS = 24
"""Length limit of an answer; its first words decide."""
QUESTIONS: tuple[tuple[str, str], ...] = (
    ("What is the capital of France?", "paris"),
    ("How many days are there in a week?", "seven|7"),
    ("What is the opposite of hot?", "cold"),
    ("What is two plus three?", "five|5"),
    ("Which planet do we live on?", "earth"),
    ("What colour is grass?", "green"),
    ("What do bees make?", "honey"),
    ("What is frozen water called?", "ice"),
    ("Which month comes after March?", "april"),
    ("Which language is spoken in Germany?", "german"),
    ("How many legs does a spider have?", "eight|8"),
    ("Which animal says meow?", "cat"),
    ("What is the largest ocean?", "pacific"),
    ("Which season comes after winter?", "spring"),
    ("What is ten minus four?", "six|6"),
    ("In which country is the city of Tokyo?", "japan"),
    ("What do you call a baby dog?", "puppy|pup"),
    ("Which gas do people need to breathe?", "oxygen"),
    ("How many minutes are there in an hour?", "sixty|60"),
    ("What is the past tense of 'go'?", "went"),
)
"""Each with the words of which a right answer contains one; written for this purpose."""


OTHER_TASKS = ("support_triage", "word_problems", "clinic_intake")
"""Shipped tasks with short answers that their own metrics judge, the shortest first."""
OTHERS, OTHER_ROWS = 2, 6
"""Number of them, and dev rows of each."""


Replies = tuple[Sequence[str | None], Sequence[float | None]]
"""Answers of a model to QUESTIONS (None: failed), and its mean scores on other tasks."""


def other_tasks(name: str) -> tuple[Task, ...]:
    """Load two shipped tasks other than `name`, with the dev rows to ask."""
    tasks = [load_task(SAMPLES / other) for other in OTHER_TASKS if other != name][:OTHERS]
    return tuple(replace(task, dev=task.dev[:OTHER_ROWS]) for task in tasks)


async def replies(gateway: Gateway, lm: LM, others: Sequence[Task]) -> Replies:
    """Ask a model QUESTIONS and the rows of other tasks; record no outcomes.

    Raises BudgetExhausted.
    """

    async def one(question: str) -> str | None:
        request = Request(messages=(Message("user", question),), max_tokens=MOST_TOKENS)
        try:
            return (await gateway.complete("model", lm, request)).text
        except OF_A_ROW:
            return None

    general = await all_of([one(question) for question, _ in QUESTIONS])
    scores = []
    for task in others:
        evaluator = Evaluator(task, gateway, lm, build_metrics(task), [PromptProgram(task, lm)])
        known = values(await evaluator.outcomes(baseline(task), task.dev, "dev"))
        scores.append(sum(known) / len(known) if known else None)
    return general, scores


def forgotten(on: Replies, off: Replies, others: Sequence[Task]) -> Forgetting:
    """Compare the replies of a trained model with those of its base."""
    (general, scores), (base, base_scores) = on, off
    tasks = tuple(
        OtherTask(task=task.name, on=with_it, off=without, n=len(task.dev))
        for task, with_it, without in zip(others, scores, base_scores, strict=True)
    )
    same = sum(a is not None and a == b for a, b in zip(general, base, strict=True))
    return Forgetting(right=_right(general), same=same, n=len(QUESTIONS), base_right=_right(base), tasks=tasks)


def _right(said: Sequence[str | None]) -> int:
    return sum(
        text is not None and re.search(rf"\b(?:{words})\b", text.casefold()) is not None
        for text, (_, words) in zip(said, QUESTIONS, strict=True)
    )
