"""The front is what nothing beats, all of it; a cheaper choice is never worse than the margin allows."""

from __future__ import annotations

import math
from statistics import stdev

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.search import selection
from agent.search.selection import MARGIN, Finalist, front, prefer, within_noise
from tests.json_of import json_of

front_table = json_of(selection.front_table)

ROW = st.sampled_from([0.0, 0.0, 1.0, 1.0, 0.5, None])


@st.composite
def finalists(draw, rows=12):
    count = draw(st.integers(0, 8))
    timed = draw(st.sampled_from([st.none(), st.integers(1, 4).map(float), st.none() | st.just(1.0)]))
    return [
        Finalist(
            f"c{n}",
            draw(st.lists(ROW, min_size=rows, max_size=rows)),
            draw(st.integers(1, 6)),
            draw(st.integers(0, 3)) / 1000,
            draw(timed),
        )
        for n in range(count)
    ]


def beats(one, two, timed):
    """Written out by hand: as good everywhere, better somewhere."""
    pairs = [(one.mean, two.mean), (-one.prompt_tokens, -two.prompt_tokens), (-one.usd, -two.usd)]
    if timed:
        pairs.append((-one.latency_s, -two.latency_s))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


@settings(max_examples=150, deadline=None)
@given(finalists())
def test_the_front_holds_all_that_nothing_beats_and_nothing_else(found):
    timed = all(o.latency_s is not None for o in found)
    kept = front(found)
    for finalist in found:
        assert (finalist in kept) == (not any(beats(other, finalist, timed) for other in found))
    assert [o.mean for o in kept] == sorted((o.mean for o in kept), reverse=True)


@settings(max_examples=150, deadline=None)
@given(finalists(), st.sampled_from(["best", "cheap", "short"]))
def test_the_preferred_one_is_within_the_margin_of_the_best(found, how):
    chosen, best = prefer(found, how), prefer(found)
    if not found:
        assert chosen is None
        return
    assert best.mean == max(o.mean for o in found)
    good = [o for o in found if within_noise(o, best)]
    if how == "cheap":
        assert chosen.usd == min(o.usd for o in good)
    elif how == "short":
        assert chosen.prompt_tokens == min(o.prompt_tokens for o in good)
    if chosen != best:
        pairs = zip(chosen.scores, best.scores, strict=True)
        steps = [a - b for a, b in pairs if a is not None and b is not None]
        error = stdev(steps) / math.sqrt(len(steps)) if len(steps) > 1 else 0.0
        assert sum(steps) / len(steps) >= -max(MARGIN, error) - 1e-9


def test_a_steady_loss_is_no_noise_and_a_loss_on_few_rows_is():
    best = Finalist("best", [1.0] * 100, 900, 0.01)
    unlucky = Finalist("unlucky", [0.0] + [1.0] * 99, 100, 0.001)
    worse = Finalist("worse", [0.95] * 100, 10, 0.0001)
    assert prefer([best, unlucky, worse], "cheap") is unlucky
    assert prefer([best, unlucky, worse], "short") is unlucky
    assert prefer([best, unlucky, worse]) is best


def test_the_table_shows_the_chosen_one_even_where_it_is_beaten():
    best, same = Finalist("best", [1.0, 1.0], 5, 0.001), Finalist("same", [1.0, 1.0], 9, 0.001)
    rows = front_table([best, same], "same")
    assert [(row["candidate_id"], row["chosen"]) for row in rows] == [("best", False), ("same", True)]
    assert rows[0] == {
        "candidate_id": "best", "dev": 1.0, "prompt_tokens": 5, "usd_per_1000": 1.0, "latency_s": None, "chosen": False,
        "tokens_a_call": 0,
    }  # fmt: skip
