"""Power checks before the money is spent: is there a gain to find? Pure; knows no model and no plan.

Before any call only the number of test rows is known: `detectable_gains`. After the baseline on dev: `assess`. Its
verdict is advice: it says "not worth it" only if no prompt can score higher on dev, or if the test rows could not tell
even a perfect prompt from the baseline at the lower end of its interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent.stats.intervals import mean_ci, minimum_detectable_gain

ASSUMED_RATES = (0.3, 0.5, 0.7, 0.9)
FEWEST_ROWS = 20
MOST_ROWS = 10_000_000
SHARPEST = 4.0
"""The most 0/1 rows that a graded row counts for: the variance of future differences is unknown."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """The verdict on a baseline, all in score, 0 to 1.

    `noise`: part of the `noise_rows` asked again whose score changed, None without such rows. `headroom`: the gap
    between the baseline and full marks. `detectable`: the smallest gain that the test rows show (inf: none). `why` says
    what to do when `worth` is False.
    """

    noise: float | None
    noise_rows: int
    headroom: float | None
    headroom_ci95: tuple[float, float] | None
    detectable: float
    worth: bool
    why: str

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready data: no gain at all is None."""
        return {
            "noise": self.noise,
            "noise_rows": self.noise_rows,
            "headroom": self.headroom,
            "headroom_ci95": list(self.headroom_ci95) if self.headroom_ci95 else None,
            "detectable": self.detectable if math.isfinite(self.detectable) else None,
            "worth": self.worth,
            "why": self.why,
        }


def detectable_gains(test_rows: int) -> dict[float, float]:
    """Return the smallest gain that `test_rows` rows show, by assumed baseline score; inf if none."""
    return {rate: minimum_detectable_gain(test_rows, rate) for rate in ASSUMED_RATES}


def assess(
    scores: Sequence[float | None], again: Sequence[float | None], test_rows: int, pairwise: bool = False
) -> Assessment:
    """Decide from a baseline's dev scores whether there is a gain to find.

    Not worth it: a search whose test rows show no gain, whatever the prompts score. Also, with 20 scored rows or more:
    a baseline with full marks on all of them, as dev then prefers nothing to it; and test rows that would show no gain
    even if the baseline scored no more than the lower end of its interval.

    `again`: scores of the first of these rows, asked a second time. `pairwise`: a judge compares each answer with the
    baseline's own, so the variance of the baseline's scores says nothing.
    """
    known = [value for value in scores if value is not None]
    flips = [abs(a - b) > 1e-12 for a, b in zip(scores, again, strict=False) if a is not None and b is not None]
    noise = (sum(flips) / len(flips) if flips else None, len(flips))
    if not math.isfinite(minimum_detectable_gain(test_rows, 0.0)):
        why = (
            f"not worth a search: no gain can be told from chance with {test_rows} test rows. Give more: about "
            f"{rows_for(0.3, 0.5)} show a gain of 30 points, {rows_for(0.1, 0.5)} one of 10"
        )
        return Assessment(*noise, None, None, math.inf, False, why)
    if not known:
        gain = minimum_detectable_gain(test_rows, 0.5)
        return Assessment(*noise, None, None, gain, True, "the baseline has no score")
    mean, low, high = mean_ci(known)
    room = 1 - mean
    worth_rows = max(1, min(MOST_ROWS, int(test_rows * (1.0 if pairwise else _sharper(known, mean)))))
    gain = minimum_detectable_gain(worth_rows, mean)
    at = f"your prompt scores {100 * mean:.1f} on {len(known)} dev rows"
    between = f"{at} (95 % CI {100 * low:.1f} to {100 * high:.1f})"
    worth = True
    if len(known) < FEWEST_ROWS:
        why = f"{at}: too few to say what is left to win"
    elif room < 1e-9:
        worth = False
        why = f"not worth a search: {at}, and no other can score higher there. Keep the prompt, or add harder rows"
    elif math.isfinite(gain):
        shown = f"{test_rows} test rows can show a gain of {100 * gain:.1f} or more"
        why = f"{at}; of the {100 * room:.1f} points left {shown}"
    elif math.isfinite(minimum_detectable_gain(worth_rows, low)):
        why = f"{between}; {test_rows} test rows can show a gain only if it truly scores at the low end of that"
    else:
        worth = False
        why = (
            f"not worth a search: {between}, and {test_rows} test rows could not tell even a perfect prompt from it. "
            f"Keep the prompt, add harder rows, or give {_rows(room, mean, worth_rows, test_rows)}"
        )
    return Assessment(*noise, room, (1 - high, 1 - low), gain, worth, why)


def rows_for(gain: float, rate: float) -> int | None:
    """Return the fewest test rows that show this gain over this baseline score.

    None beyond ten million.
    """
    low, high = 1, MOST_ROWS
    if minimum_detectable_gain(high, rate) > gain:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if minimum_detectable_gain(middle, rate) <= gain else (middle + 1, high)
    return low


def rows_at_most(gain: float) -> int:
    """Return the test rows that show this gain, in (0, 1], whatever the baseline scores.

    >>> rows_at_most(0.1), rows_at_most(0.2)
    (395, 100)
    """
    return rows_for(gain, max(0.0, (1 - gain) / 2)) or MOST_ROWS


def rows_to_detect(gain: float, scores: Sequence[float]) -> int:
    """Return the test rows that show this gain over these baseline scores, in [0, 1].

    Cautious: the baseline's true score is taken to be where in its 95 % interval most rows are needed, and the two
    prompts to fail on rows independently, so that most rows differ (`minimum_detectable_gain`).

    >>> rows_to_detect(0.1, [0.0] * 22) < rows_to_detect(0.1, [0.0, 1.0] * 11) == rows_at_most(0.1)
    True
    """
    mean, low, high = mean_ci(scores)
    worst = min(high, max(low, (1 - gain) / 2))
    return math.ceil((rows_for(gain, worst) or MOST_ROWS) / _sharper(scores, mean))


def rows_to_show(gain: float, scores: Sequence[float]) -> int | None:
    """Estimate the test rows that show this gain over these baseline scores.

    None beyond ten million. Rounded up to two digits.

    >>> rows_to_show(0.06, [1.0] * 60 + [0.0] * 40)
    1100
    """
    mean = sum(scores) / len(scores)
    needed = rows_for(gain, mean)
    return _two_digits(needed / _sharper(scores, mean)) if needed else None


def _two_digits(rows: float) -> int:
    step: int = 10 ** max(0, len(str(math.ceil(rows))) - 2)
    return math.ceil(rows / step) * step


def _sharper(scores: Sequence[float], mean: float) -> float:
    """Convert a row to 0/1 rows: graded scores vary less, and show a smaller gain."""
    widest = mean * (1 - mean)
    variance = sum((value - mean) ** 2 for value in scores) / len(scores)
    # rounded, as the two differ in their last digits where every score is 0 or 1 and a row is worth exactly one
    return min(SHARPEST, round(widest / variance, 9)) if variance > 1e-9 else 1.0


def _rows(room: float, mean: float, worth_rows: int, test_rows: int) -> str:
    needed = rows_for(room / 2, mean)
    if not needed:
        return "far more test rows"
    return f"about {_two_digits(needed * test_rows / worth_rows):,} test rows, which show half of what is left"
