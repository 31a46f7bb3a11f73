"""What an adapter costs elsewhere: general questions, answered with it on and with it off."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from agent.errors import BadResponse, RowRefused, Transient, TransportUnknown
from agent.gateway.concurrency import all_of
from agent.gateway.gateway import Gateway
from agent.types import LM, Message, Request

MOST_TOKENS = 24
"""Of an answer; it is looked for in the first words."""
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
"""Each with the words, one of which its answer must hold; written for this purpose."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """General questions answered by an arm: how many of `n` were right, and for how many the base's answer stayed."""

    right: int
    same: int
    n: int


async def answers(gateway: Gateway, lm: LM) -> list[str | None]:
    """What the model says to each of QUESTIONS; None: no answer. Raises BudgetExhausted when the budget ends."""

    async def one(question: str) -> str | None:
        request = Request(messages=(Message("user", question),), max_tokens=MOST_TOKENS)
        try:
            return (await gateway.complete("target", lm, request)).text
        except (RowRefused, BadResponse, Transient, TransportUnknown):
            return None

    return await all_of([one(question) for question, _ in QUESTIONS])


def elsewhere(said: Sequence[str | None], base: Sequence[str | None]) -> Elsewhere:
    """An arm's `answers` against those of the base without it."""
    right = sum(
        text is not None and re.search(rf"\b(?:{words})\b", text.casefold()) is not None
        for text, (_, words) in zip(said, QUESTIONS, strict=True)
    )
    same = sum(a is not None and a == b for a, b in zip(said, base, strict=True))
    return Elsewhere(right, same, len(QUESTIONS))
