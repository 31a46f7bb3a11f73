"""Whether there is anything to win, said before the money is spent. Pure arithmetic: knows no model and no plan.

Before any call only the test rows are known: `detectable_gains`. After the baseline on dev: `judge`. Its verdict is
advice: it says "not worth it" only where even a perfect prompt could not be told from the user's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent.scoring.stats import mean_ci, minimum_detectable_gain

ASSUMED_RATES = (0.3, 0.5, 0.7, 0.9)
FEWEST_ROWS = 20
MOST_ROWS = 10_000_000


@dataclass(frozen=True, slots=True)
class Preflight:
    """All in score, 0 to 1. `noise`: part of the rows whose score changed when the same prompt was asked again, None
    when it was not. `headroom`: what is left above the baseline. `detectable`: the smallest gain that the test rows
    show (inf: none). `why` is a sentence or two, with what to do when `worth` is False.
    """

    noise: float | None
    headroom: float | None
    headroom_ci95: tuple[float, float] | None
    detectable: float
    worth: bool
    why: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready: no gain at all is None."""
        return {
            "noise": self.noise,
            "headroom": self.headroom,
            "headroom_ci95": list(self.headroom_ci95) if self.headroom_ci95 else None,
            "detectable": self.detectable if math.isfinite(self.detectable) else None,
            "worth": self.worth,
            "why": self.why,
        }


def detectable_gains(test_rows: int) -> dict[float, float]:
    """By assumed baseline score the smallest gain that `test_rows` rows show; inf where there is none."""
    return {rate: minimum_detectable_gain(test_rows, rate) for rate in ASSUMED_RATES}


def judge(scores: Sequence[float | None], again: Sequence[float | None], test_rows: int) -> Preflight:
    """The verdict on a baseline with these dev scores, whose first rows were asked `again`.

    Not worth it is a search whose test rows show no gain, whatever the prompts score. Else, with fewer than 20 scored
    rows, or where the noise cannot be told from none, nothing is refused.
    """
    known = [value for value in scores if value is not None]
    twice = [(a, b) for a, b in zip(scores, again, strict=False) if a is not None and b is not None]
    flips = [float(abs(a - b) > 1e-12) for a, b in twice]
    noise = sum(flips) / len(flips) if flips else None
    if not math.isfinite(minimum_detectable_gain(test_rows, 0.0)):
        why = (
            f"not worth a search: no gain can be told from chance with {test_rows} test rows. Give more: about "
            f"{rows_for(0.3, 0.5)} show a gain of 30 points, {rows_for(0.1, 0.5)} one of 10"
        )
        return Preflight(noise, None, None, math.inf, False, why)
    if not known:
        return Preflight(noise, None, None, minimum_detectable_gain(test_rows, 0.5), True, "the baseline has no score")
    mean, low, high = mean_ci(known)
    room = 1 - mean
    worth_rows = max(1, min(MOST_ROWS, int(test_rows * _sharper(known, mean))))
    gain = minimum_detectable_gain(worth_rows, mean)
    noisy = mean_ci(flips)[1] if flips else 0.0
    at = f"your prompt scores {100 * mean:.1f} on {len(known)} dev rows"
    nothing = f"not worth a search: {at}"
    worth = False
    if len(known) < FEWEST_ROWS:
        worth, why = True, f"{at}: too few to say what is left to win"
    elif room < 1e-9:
        why = f"{nothing}, nothing is left to win. Keep the prompt, or add harder rows"
    elif not math.isfinite(gain):
        needed = _rows(room, mean, worth_rows, test_rows)
        why = (
            f"{nothing}, and {test_rows} test rows could not tell even a perfect prompt from it. Keep the prompt, add "
            f"harder rows, or give about {needed} test rows, which show half of what is left"
        )
    elif room < noisy:
        why = (
            f"{nothing}, and {100 * sum(flips) / len(flips):.0f} % of the rows change when the same prompt is asked "
            "again, more than is left to win. Ask at temperature 0, or add harder rows"
        )
    else:
        worth = True
        shown = f"{test_rows} test rows can show a gain of {100 * gain:.1f} or more"
        why = f"{at}; of the {100 * room:.1f} points left {shown}"
    return Preflight(noise, room, (1 - high, 1 - low), gain, worth, why)


def rows_for(gain: float, rate: float) -> int | None:
    """The fewest test rows that show this gain over this baseline score; None beyond ten million."""
    low, high = 1, MOST_ROWS
    if minimum_detectable_gain(high, rate) > gain:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if minimum_detectable_gain(middle, rate) <= gain else (middle + 1, high)
    return low


def _sharper(scores: Sequence[float], mean: float) -> float:
    """How many 0/1 rows one row is worth: graded scores of this mean vary less, and show a smaller gain."""
    widest = mean * (1 - mean)
    variance = sum((value - mean) ** 2 for value in scores) / len(scores)
    return widest / variance if variance > 1e-9 else 1.0


def _rows(room: float, mean: float, worth_rows: int, test_rows: int) -> str:
    needed = rows_for(room / 2, mean)
    if not needed:
        return "far more"
    rows = math.ceil(needed * test_rows / worth_rows)
    step = 10 ** max(0, len(str(rows)) - 2)
    return f"{math.ceil(rows / step) * step:,}"
