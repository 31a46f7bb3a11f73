"""Whether more candidates can be expected to beat the leader. Pure arithmetic over means and row counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from agent.search.study import Seen

LATEST = 24  # candidates that the next ones are expected to be like; with fewer nothing is said


def in_reach(known: Sequence[Seen], leader: float, more: int, rows: int, score: float = 0.0) -> str:
    """Why not to go on, or "": `leader` is a mean over the whole of dev (`rows`), of scores with the log-probabilities
    beside them like those of `known`; `score` the best mean of scores alone. `more` candidates could be paid.

    The candidates to come are taken to be like the latest ones: normal around their mean, with the spread of their
    means. What few rows add to that spread is left in, so that the answer errs on the side of going on. Their best of
    `more` is expected at the mean plus q spreads; when even that is less than half a row of dev above the leader, the
    calls are better kept.
    """
    if rows and score >= 1.0 - 0.5 / rows:
        return f"the leader is right on all {rows} dev rows"
    if more < 1:
        return "no further candidate can be paid"
    latest = [seen for seen in known if seen.n][-LATEST:]
    if len(latest) < LATEST or any(seen.mean >= leader for seen in latest):
        return ""  # one of them came as far, if only on a few rows: so may the next
    mean = sum(seen.mean for seen in latest) / len(latest)
    spread = sum((seen.mean - mean) ** 2 for seen in latest) / (len(latest) - 1)
    best = mean + math.sqrt(spread) * expected_maximum(more)
    if best < leader + 0.5 / rows:
        return f"the best of {more} more candidates is expected at {best:.2f}, the leader stands at {leader:.2f}"
    return ""


def expected_maximum(count: int) -> float:
    """About the mean of the largest of `count` standard normal draws (Blom 1958)."""
    return NormalDist().inv_cdf((count - 0.375) / (count + 0.25))
