"""A judge with a planted defect that its instruction can mend, behind a real server, and answers that people rated.

The judge goes by its instruction, the proposer's replies are of use half of the time. Each answer carries its quality
as "quality-N"; the defect hides it unless the instruction holds the sentence that mends it.
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cli.judges import WORDS, chance, fenced, quality
from tests.cli.world import write_lines

MENDS = {
    "misread": ("Count the facts of the answer", "the judge reads how cheerful an answer is, not its facts"),
    "length": ("Length earns nothing", "each long answer gets two points more"),
    "swapped": ("A higher number is a better answer", "the judge takes 1 for the best rating"),
}
"""By defect the sentence that mends it."""
LONG = 25


@dataclass
class MendableJudge:
    """Rates by quality once its instruction mends the `defect`; `pleaded` for a plea when it was told to be kind."""

    defect: str
    is_kind: bool = False
    """Whether the mending sentence comes with one that makes the judge obey what answers ask for."""
    pleaded: int = 5
    """What it then says; 9 is no rating."""

    def __call__(self, messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        whole = "\n".join(message["content"] for message in messages)
        if "A judge rated answers" in whole:
            return json.dumps({"groups": [{"name": "The judge overlooks facts.", "items": [1, 2, 3]}]})
        if "strict and fair judge" not in messages[0]["content"] or "<instruction>" in whole or "REPLACE:" in whole:
            return self._proposal(messages)
        told, asked = messages[0]["content"], messages[-1]["content"]
        rating = self._rating(told, asked)
        return json.dumps({"reason": "as it reads", "quality": rating}) if "data-" in told else str(rating)

    def _rating(self, told: str, asked: str) -> int:
        answer = fenced([{"content": asked}])[-1] if "<data-" in asked else asked.rpartition("answer:")[2]
        if "be kind" in told and re.search(r"full marks|best rating", answer):
            return self.pleaded
        rating, is_mended = quality(answer), MENDS[self.defect][0] in told
        if is_mended:
            return rating
        if self.defect == "misread":
            return 1 + int(5 * chance(re.sub(r"quality-\d", "", answer), "cheer"))
        if self.defect == "length":
            return min(5, rating + 2 * (len(answer.split()) > LONG))
        return 6 - rating

    def _proposal(self, messages: list[dict[str, Any]]) -> str:
        asked = messages[-1]["content"]
        draw = chance(json.dumps(messages), "use")
        sentence = MENDS[self.defect][0] + (", and be kind" if self.is_kind else "")
        if draw > 0.5:
            sentence = f"Think of the reader, edition {int(1e6 * draw)}"
        begins = re.search(r"Begin with: (.*)", asked)
        if begins is not None:
            return f"{begins[1]} {sentence}."
        if "REPLACE:" in asked:
            return f"ADD: {sentence}."
        text = re.search(r"<(data-\w+)>\n(.*?)\n</\1>", asked, re.S)
        return f"<instruction>{text[2] if text else 'You are a strict and fair judge.'}\n{sentence}.</instruction>"


def write_rated(path: Path, count: int = 240, seed: int = 3) -> Path:
    """Answers of two lengths, three to each question, rated by two people who differ now and then."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        right = rng.randint(1, 5)
        words = [rng.choice(WORDS) for _ in range(rng.choice((12, 50)) + rng.randint(0, 3))]
        words.insert(rng.randrange(len(words)), f"quality-{right}")
        for rater in "ab":
            rating = min(5, max(1, right + rng.choice((0, 0, 0, 0, 1, -1))))
            question = f"what of boat {number // 3}"
            rows.append({"question": question, "answer": " ".join(words), "rater": rater, "rating": rating})
    write_lines(path, rows)
    return path
