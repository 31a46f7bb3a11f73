"""Rows of a batch as one sequence without padding: their common prefix once, then the rest of each.

A row sees the prefix and itself. As attention is causal, the prefix has the same states whatever follows, so a packed
row has the loss and the gradients that it has alone; what rows share is computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agent.models.gguf import Array

AT_ONCE = 512
"""Tokens of a pack: more take memory and are hardly faster."""


@dataclass(frozen=True, slots=True)
class TokenPair:
    """Token ids of a prompt as the engine reads it, and of the answer with the token that ends it."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pack:
    """Rows as one sequence of T tokens.

    Args:
        ids: (T,) tokens.
        positions: (T,) the place of each in its row, from 0.
        prefix: the tokens at the start that all rows share; 0 or more.
        outputs: (n,) the places whose output is compared.
        targets: (n,) the tokens that should come there.
    """

    ids: Array
    positions: Array
    prefix: int
    spans: tuple[tuple[int, int], ...]
    outputs: Array
    targets: Array


def pack(pairs: Sequence[TokenPair]) -> Pack:
    """One sequence of one row or more, each with a prompt and an answer that are not empty."""
    prefix = shared_prefix(pairs)
    ids, positions = list(pairs[0].prompt[:prefix]), list(range(prefix))
    spans: list[tuple[int, int]] = []
    outputs: list[int] = []
    targets: list[int] = []
    for pair in pairs:
        start = len(ids)
        row = [*pair.prompt, *pair.answer[:-1]]  # the last token of the answer is only predicted
        ids += row[prefix:]
        positions += range(prefix, len(row))
        spans.append((start, len(ids)))
        outputs += range(len(ids) - len(pair.answer), len(ids))
        targets += pair.answer
    return Pack(np.array(ids), np.array(positions), prefix, tuple(spans), np.array(outputs), np.array(targets))


def packs(pairs: Sequence[TokenPair], at_once: int) -> list[Pack]:
    """The rows of a batch in as few packs as `at_once` tokens allow; a longer row goes alone."""
    shared = shared_prefix(pairs)
    groups: list[list[TokenPair]] = []
    room = 0
    for pair in pairs:
        own = len(pair.prompt) + len(pair.answer) - shared
        if own > room:
            groups.append([])
            room = at_once - shared
        groups[-1].append(pair)
        room -= own
    return [pack(group) for group in groups]


def parts(pairs: Sequence[TokenPair], count: int) -> list[list[TokenPair]]:
    """The rows of a batch in at most `count` groups of about the same number of own tokens."""
    shared = shared_prefix(pairs)
    sizes = [len(pair.prompt) + len(pair.answer) - shared for pair in pairs]
    total, before = sum(sizes), 0
    groups: list[list[TokenPair]] = [[] for _ in range(count)]
    for pair, size in zip(pairs, sizes, strict=True):
        groups[(2 * before + size) * count // (2 * total)].append(pair)  # where its middle lies
        before += size
    return [group for group in groups if group]


def shared_prefix(pairs: Sequence[TokenPair]) -> int:
    """Tokens that all prompts start with; at least one of each is left, as what follows it is compared."""
    if len(pairs) == 1:
        return 0
    first, last = min(pair.prompt for pair in pairs), max(pair.prompt for pair in pairs)
    most = min(len(pair.prompt) for pair in pairs) - 1
    return next((at for at in range(most) if first[at] != last[at]), most)
