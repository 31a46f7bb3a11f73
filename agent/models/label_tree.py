"""Labels as a tree of their tokens: where they part, and what each gets of the distributions there. Pure.

Only the forks count. Where one label alone goes on its tokens are taken as given, as under constrained decoding: how
usual the rest of a long name is says nothing about which label it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Path = tuple[int, ...]
"""The ids of the tokens with which a label begins."""
FLOOR = 1e-6  # the least probability that a reply ends where a label does and others go on


@dataclass(frozen=True, slots=True)
class LabelTree:
    """The labels by their tokens.

    Args:
        labels: The token ids of each label, in its order.
    """

    labels: tuple[Path, ...]

    def forks(self) -> dict[Path, list[int]]:
        """The next tokens, in the order of their ids, wherever labels part or one ends and others go on.

        >>> LabelTree(((1, 2), (1, 3), (4,))).forks()
        {(): [1, 4], (1,): [2, 3]}
        """
        following: dict[Path, set[int]] = {}
        for label in self.labels:
            for at, token in enumerate(label):
                following.setdefault(label[:at], set()).add(token)
        ends = set(self.labels)
        return {path: sorted(tokens) for path, tokens in sorted(following.items()) if len(tokens) + (path in ends) > 1}

    def scores(self, logs: Mapping[Path, Mapping[int, float]]) -> tuple[float, ...]:
        """The log-probability of each label: the sum over the forks on its way.

        Args:
            logs: For each fork the log-probability of each of its next tokens. A label that ends there gets what they
                leave of 1, and no less than FLOOR.

        >>> tree = LabelTree(((1, 2), (1, 3), (4,)))
        >>> tree.scores({(): {1: -0.5, 4: -1.0}, (1,): {2: -0.25, 3: -2.0}})
        (-0.75, -2.5, -1.0)
        """
        return tuple(sum(_steps(label, logs)) for label in self.labels)


def _steps(label: Path, logs: Mapping[Path, Mapping[int, float]]) -> Sequence[float]:
    steps = [logs[label[:at]][token] for at, token in enumerate(label) if label[:at] in logs]
    if label in logs:
        steps.append(math.log(max(FLOOR, 1.0 - math.fsum(map(math.exp, logs[label].values())))))
    return steps
