"""Numbers as marks in one line of text: a climb, a score with its interval, rows won and lost. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

LEVELS = "▁▂▃▄▅▆▇█"
WON, LOST, TIED = "▲", "▼", "·"


def sparkline(scores: Sequence[float], width: int) -> str:
    """Scores of 0 to 1 as heights of the full scale, so that two lines can be compared; at most `width` marks."""
    if len(scores) > width:
        scores = [scores[(len(scores) - 1) * place // (width - 1)] for place in range(width)]
    return "".join(LEVELS[min(len(LEVELS) - 1, int(len(LEVELS) * score))] for score in scores)


def so_far(scores: Iterable[float | None]) -> list[float]:
    """The best so far after each score; None, where there is no score, changes nothing."""
    found: list[float] = []
    for score in scores:
        if score is not None or found:
            found.append(max([*found[-1:], *([] if score is None else [score])]))
    return found


def whisker(mean: float | None, low: float | None, high: float | None, width: int) -> str:
    """A score of 0 to 1 as a dot on an axis of `width` places, its interval as a line around it."""
    if mean is None:
        return ""
    places = [" "] * width
    if low is not None and high is not None:
        for place in range(_place(low, width), _place(high, width) + 1):
            places[place] = "─"
    places[_place(mean, width)] = "●"
    return "".join(places)


def _place(score: float, width: int) -> int:
    return min(width - 1, max(0, int(width * score)))


def won_and_lost(differences: Iterable[float]) -> str:
    """One mark for each difference: won, lost or tied."""
    return "".join(WON if value > 0 else LOST if value < 0 else TIED for value in differences)
