"""Settings of the operators that make candidates: at random, or as the run's study says."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
Chooser = Callable[[str, Sequence[str]], str]
"""name of the setting, words to choose from -> one of them; any other word leaves it to chance."""


class Choices:
    """Chooses settings at random, or by a chooser while one is set."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._chooser: Chooser | None = None

    @contextmanager
    def by(self, chooser: Chooser) -> Iterator[None]:
        """Let `chooser` choose while the block runs."""
        self._chooser = chooser
        try:
            yield
        finally:
            self._chooser = None

    def one(self, name: str, options: Sequence[T], word: Callable[[T], str] = str) -> T:
        """Choose one of the options, at least one.

        `name`: the same for the same kind of choice. `word`: what an option is called, the same in the whole run.
        """
        if self._chooser is not None and len(options) > 1:
            words = [word(option) for option in options]
            chosen = self._chooser(name, sorted(set(words)))
            if chosen in words:
                return options[words.index(chosen)]
        return self._rng.choice(options)
