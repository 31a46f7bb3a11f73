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
    """A plain row, the hostile ones of `hostile_rows`, and mixtures of them, no two alike.

    At least `count` are without line ends and controls, so that targets which cannot carry those are tried, too.
    """
    plain: Values = dict.fromkeys(release.inputs, "plain")
    if not release.inputs:
        yield plain
        return
    rng = random.Random(7)
    seen: set[tuple[str, ...]] = set()
    pieces = [*HOSTILE[1:], *map(placeholder, release.inputs)]
    tame = [piece for piece in pieces if piece.isprintable() and piece == piece.strip()]

    def new(values: Values) -> bool:
        before = len(seen)
        seen.add(tuple(values.values()))
        return len(seen) > before

    def mixed(pieces: list[str], least: int, most: int) -> Iterator[Values]:
        def drawn() -> str:
            return "".join(rng.choices(pieces, k=rng.randint(least, most)))

        return filter(new, ({name: drawn() for name in release.inputs} for _ in iter(int, 1)))

    yield from filter(new, (plain, *hostile_rows(release.inputs)))
    yield from islice(mixed(pieces, 2, 4), count // 2)
    yield from islice(mixed(tame, 1, 6), count + count // 2)
