"""The rows that an export is tried with: each hostile value, and mixtures of them. The same rows each time. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

from agent.prompt.template import placeholder
from agent.release.export import HOSTILE, hostile_rows
from agent.release.formats.base import Values
from agent.release.runtime import PromptRelease

ROWS = 200  # each format must carry as many at least


def rows_for(release: PromptRelease, count: int = ROWS) -> Iterator[Values]:
    """A plain row, the hostile ones of `hostile_rows`, and mixtures of them: `count` at least."""
    yield dict.fromkeys(release.inputs, "plain")
    if not release.inputs:
        return
    yield from hostile_rows(release.inputs)
    rng = random.Random(7)
    pieces = [*HOSTILE[1:], *map(placeholder, release.inputs)]
    mixed = ({name: "".join(rng.sample(pieces, rng.randint(2, 4))) for name in release.inputs} for _ in iter(int, 1))
    tame = [piece for piece in pieces if piece.isprintable() and piece == piece.strip()]
    yield from islice(mixed, count // 2)
    for _ in range(
        count + count // 2
    ):  # without line ends and controls, so that targets which cannot carry those are tried, too
        yield {name: "".join(rng.sample(tame, min(len(tame), rng.randint(1, 4)))) for name in release.inputs}
