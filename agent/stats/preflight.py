"""Power checks before the money is spent: is there a gain to find? Pure; knows no model and no plan.

Before any call only the number of test rows is known, and ASSUMED_RATES of the baseline. After it on dev: `assess`. Its
verdict is advice: it says "not worth it" only if no prompt can score higher on dev, or if the test rows could not tell
even a perfect prompt from the baseline at the lower end of its interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from agent.results.run_parts import Preflight
from agent.stats.figures import interval, points
from agent.stats.intervals import both_scored, mean_ci
from agent.stats.power import MOST_ROWS, minimum_detectable_gain, rows_for

FEWEST_ROWS = 20
SHARPEST = 4.0
"""The most 0/1 rows that a graded row counts for: the variance of future differences is unknown."""


def assess(
    scores: Sequence[float | None],
    again: Sequence[float | None],
    test_rows: int,
    pairwise: bool = False,
    says: str = "your prompt scores",
) -> Preflight:
    """Decide from a baseline's dev scores whether there is a gain to find.

    Not worth it: test rows that show no gain, whatever the prompts score. Also, with 20 scored rows or more: full marks
    on all of them; and test rows that would show no gain even at the lower end of the baseline's interval.

    `again`: scores of the first of these rows, asked a second time. `pairwise`: a judge compares each answer with the
    baseline's own, so the variance of the baseline's scores says nothing. `says`: the baseline and its verb.
    """
    known = [value for value in scores if value is not None]
    flips = [abs(a - b) > 1e-12 for a, b in both_scored(scores, again)]
    found = Preflight(noise=sum(flips) / len(flips) if flips else None, noise_rows=len(flips))
    if _shown(test_rows, 0.0) is None:
        why = (
            f"not worth a search: no gain can be told from chance with {test_rows} test rows. Give more: about "
            f"{rows_for(0.3, 0.5)} show a gain of 30 points, {rows_for(0.1, 0.5)} one of 10"
        )
        return found.model_copy(update={"worth": False, "why": why})
    if not known:
        return found.model_copy(update={"detectable": _shown(test_rows, 0.5), "why": "the baseline has no score"})
    mean, low, high = mean_ci(known)
    room = 1 - mean
    worth_rows = max(1, min(MOST_ROWS, int(test_rows * (1.0 if pairwise else _sharper(known, mean)))))
    gain = _shown(worth_rows, mean)
    at = f"{says} {points(mean)} on {len(known)} dev rows"
    between = f"{at} (95 % CI {interval(low, high)})"
    worth = True
    if len(known) < FEWEST_ROWS:
        why = f"{at}: too few to say what is left to gain"
    elif room < 1e-9:
        worth = False
        why = f"not worth a search: {at}, and no other can score higher there. Keep the prompt, or add harder rows"
    elif gain is not None:
        shown = f"{test_rows} test rows can show a gain of {points(gain)} or more"
        why = f"{at}; {points(room)} points are left to gain, and {shown}"
    elif _shown(worth_rows, low) is not None:
        why = f"{between}; {test_rows} test rows can show a gain only if it truly scores at the low end of that"
    else:
        worth = False
        why = (
            f"not worth a search: {between}, and {test_rows} test rows could not tell even a perfect prompt from it. "
            f"Keep the prompt, add harder rows, or give {_rows(room, mean, worth_rows, test_rows)}"
        )
    room_ci95 = (1 - high, 1 - low)
    measured = {"headroom": room, "headroom_ci95": room_ci95, "detectable": gain, "worth": worth, "why": why}
    return found.model_copy(update=measured)


def _shown(rows: int, rate: float) -> float | None:
    gain = minimum_detectable_gain(rows, rate)
    return gain if math.isfinite(gain) else None


def rows_to_detect(gain: float, scores: Sequence[float]) -> int:
    """Return the test rows that show this gain over these baseline scores.

    Cautious: the baseline's true score is taken to be where in its 95 % interval most rows are needed.

    >>> rows_to_detect(0.1, [0.0] * 22) < rows_to_detect(0.1, [0.0, 1.0] * 11) == rows_for(0.1, 0.45)
    True
    """
    mean, low, high = mean_ci(scores)
    worst = min(high, max(low, (1 - gain) / 2))
    return math.ceil((rows_for(gain, worst) or MOST_ROWS) / _sharper(scores, mean))


def rows_to_show(gain: float, scores: Sequence[float]) -> int | None:
    """Estimate the test rows that show this gain over these scores, to two digits. None: over ten million.

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
