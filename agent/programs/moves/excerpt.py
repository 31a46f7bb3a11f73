"""The part of a long text that a request shows, so that a few edits of it stay cheap."""

from __future__ import annotations

import re
from collections import Counter

from agent.programs.moves.evidence import words_of

MOST_SHOWN = 12_000  # letters of a text; a longer one is shown in part
GAP = "[...]\n"
_PIECE = re.compile(r"(?s).{1,999}(?:\n|\Z)|.{1,1000}")


def excerpt(text: str, about: str, turn: int = 0) -> str:
    """Return the parts of a long text that share rare words with `about`. Others change with `turn`."""
    if len(text) <= MOST_SHOWN:
        return text
    pieces = _PIECE.findall(text)
    words, wanted = [frozenset(words_of(piece)) for piece in pieces], frozenset(words_of(about))
    common, shown = Counter(word for each in words for word in each), MOST_SHOWN // 1_000

    def order(at: int) -> tuple[float, int]:
        return -sum(1 / common[word] for word in wanted & words[at]), (at - turn * shown) % len(pieces)

    best = {0, *sorted(range(1, len(pieces)), key=order)[:shown]}
    return "".join(pieces[at] if at in best else GAP for at in range(len(pieces)) if at in best or at - 1 in best)
