"""Pupils whose prompts have random abilities, whose answers change now and then, and that lose some rows."""

from __future__ import annotations

import random

from agent.errors import RowRefused
from agent.types import Request
from tests.search.worlds import front_and_row, share
from tests.toys import TEAMS


class Unsteady:
    """Answers of a model that `seed` decides.

    Its own prompts, those with examples, and those with examples of the row's own label are each better by a drawn
    amount, and wordings differ a little. `moves` of its answers are drawn at each call; `loses` of the rows are lost.
    """

    def __init__(self, seed: int) -> None:
        self._seed, self._draws = str(seed), random.Random(seed)
        draw = random.Random(f"abilities/{seed}")
        self._own, self._spread = draw.uniform(0.3, 0.7), draw.uniform(0.0, 0.2)
        self._demos, self._like = draw.choice([-0.1, 0.0, 0.1]), draw.choice([0.0, 0.0, 0.2, 0.3])
        self.moves, self.loses = draw.choice([0.0, 0.05, 0.15]), draw.choice([0.0, 0.0, 0.05])

    def ability(self, front: str, right: str) -> float:
        """The share of rows that a prompt is right on."""
        demos, like = front.count("train note"), front.count(f"on {right}")
        skill = self._own + self._spread * (share(self._seed, front[:60]) - 0.5) + self._demos * bool(demos)
        return skill + self._like * (demos > 0 and like > 0.6 * demos)

    def __call__(self, request: Request) -> str:
        front, row = front_and_row(request)
        right, place = row.split()[4], row.split("\n")[0]
        if share(self._seed, "lost", front, place) < self.loses:
            raise RowRefused("no answer to this one")
        luck = self._draws.random() if self._draws.random() < self.moves else share(self._seed, front, place)
        wrong = TEAMS[(TEAMS.index(right) + 1) % len(TEAMS)]
        said = right if luck < self.ability(front, right) else wrong
        return f"Because.\nAnswer: {said}" if "step by step" in front + row else said
