"""Vectors of the package wordllama, out of the weights that its wheel brings along: no model call, nothing is fetched.

Source: WordLlama, static token vectors taken out of a language model, averaged over a text (256 numbers).
"""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from typing import Any

from agent.errors import InputError
from agent.retrieval.pick import MOST_LETTERS
from agent.retrieval.vectors import Vector


def load_wordllama() -> Any:
    """The package's model. Raises ImportError where it is not installed."""
    held = logging.NullHandler()
    logging.root.addHandler(held)  # while it has one, `basicConfig` of the package's files changes no logging
    try:
        import wordllama
    finally:
        logging.root.removeHandler(held)
    return wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)


@cache
def _model() -> Any:
    try:
        return load_wordllama()
    except ImportError as missing:
        raise InputError(
            f"vectors of wordllama need a package that is not here ({missing}); pip install 'promptassay[embedding]'"
        ) from missing


def static_vector(text: str) -> Vector:
    """The vector of a text, of which the first 20,000 letters count.

    Each text is embedded by itself, so that its vector does not depend on what stands beside it.

    Raises:
        InputError: wordllama is not installed.
    """
    known = text[:MOST_LETTERS].encode("utf-8", "replace").decode("utf-8")  # a lone surrogate becomes "?"
    return [float(number) for number in _model().embed(known)[0]]
