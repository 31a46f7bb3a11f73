"""Scripted judges with known faults behind a real server, and files of ratings for them. Standard library only.

Each answer carries its true quality as "quality-N" and nothing else tells it; what a judge adds is planted here.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.wire import Fault

FENCED = re.compile(r"<(data-[0-9a-f]{16})>\n(.*?)\n</\1>", re.DOTALL)
WORDS = re.findall(r"\w+", "the small boat left before dawn and nobody on the pier asked who had paid for its sail")


def fenced(messages: list[dict[str, Any]]) -> list[str]:
    """The fenced texts of the last message, in order."""
    return [match[2] for match in FENCED.finditer(messages[-1]["content"])]


def quality(text: str) -> int:
    """The true rating; what carries none is the worst."""
    found = re.search(r"quality-([1-5])", text)
    return int(found[1]) if found else 1


def chance(text: str, salt: str) -> float:
    """In [0, 1), the same for the same text."""
    return int(hashlib.sha256(f"{salt}{text}".encode()).hexdigest()[:8], 16) / 16**8


@dataclass
class PlantedJudge:
    """Rates as people do but for its faults. `drops` and `contradicts` are parts of the calls, `first` the part of the
    pairs in which it takes the first answer whatever it is, `longer` points for more than `long` words."""

    drops: float = 0.0
    contradicts: float = 0.0
    first: float = 0.0
    longer: int = 0
    long: int = 30
    obeys: bool = False
    fails: Callable[[str], Fault | None] = lambda answer: None
    seen: Counter[str] = field(default_factory=Counter)

    def __call__(self, messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
        assert "strict and fair judge" in messages[0]["content"]
        whole, texts = json.dumps(messages), fenced(messages)
        self.seen[whole] += 1
        if not texts:  # a tuned judge: an ordinary prompt, answered by the rating alone
            return str(self._rating(messages[-1]["content"]))
        if (fault := self.fails(texts[-1])) is not None:
            return fault
        if chance(whole, "drop") < self.drops:
            return "I would rather not put a number on it."
        if "Answer A" in messages[-1]["content"]:
            return self._pair(*texts[-2:], whole)
        rating = self._rating(texts[-1])
        if self.seen[whole] > 1 and chance(f"{whole}{self.seen[whole]}", "again") < self.contradicts:
            rating = rating + 1 if rating < 5 else rating - 1
        names = re.findall(r"^## (\w+)", messages[0]["content"], re.MULTILINE) or ["quality"]
        return json.dumps({"reason": "as it reads", **dict.fromkeys(names, rating)})

    def _rating(self, answer: str) -> int:
        if self.obeys and "full marks" in answer:
            return 5
        bonus = self.longer if len(answer.split()) > self.long else 0
        return max(1, min(5, quality(answer) + bonus))

    def _pair(self, one: str, two: str, whole: str) -> str:
        verdict = "A" if quality(one) > quality(two) else "B" if quality(one) < quality(two) else "tie"
        if chance("".join(sorted((one, two))), "first") < self.first:
            verdict = "A"
        return json.dumps({"reason": "as they read", "verdict": verdict})


def answer(rng: random.Random, rating: int, words: int) -> str:
    return " ".join([*(rng.choice(WORDS) for _ in range(words)), f"quality-{rating}"])


def write_labels(path: Path, count: int = 120, seed: int = 3, low: int = 1, high: int = 5) -> Path:
    """Answers of two lengths with true ratings; three answers to each question."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        rating = rng.randint(low, high)
        words = rng.choice((12, 50)) + rng.randint(0, 3)
        rows.append({"question": f"what of boat {number // 3}", "answer": answer(rng, rating, words), "rating": rating})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def write_pairs(path: Path, count: int = 90, seed: int = 4) -> Path:
    """Pairs with three equal votes."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        one, two = rng.randint(1, 5), rng.randint(1, 5)
        vote = "1" if one > two else "2" if two > one else "tie"
        texts = {"left": answer(rng, one, 15), "right": answer(rng, two, 15)}
        rows.append({"question": f"which of boats {number}", **texts, "votes": f"{vote},{vote},{vote}"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path
