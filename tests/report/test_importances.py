"""What mattered in a search: the parameter that decides comes first, with its best choice."""

from __future__ import annotations

import random

from agent.report.optuna_study import _importances
from agent.search.study import Params


def test_the_parameter_that_decides_comes_first_and_shares_add_up() -> None:
    rng, params, values = random.Random(3), list[Params](), list[float]()
    for number in range(40):
        layout, technique = rng.choice(("turns", "inline")), rng.choice(("zero-shot", "few-shot"))
        conditional = {"size": rng.choice((4, 8))} if technique == "few-shot" else {"role": "expert"}
        params.append({"format": layout, "technique": technique, **conditional})
        values.append((0.8 if layout == "inline" else 0.2) + number / 1000)
    first, *others = _importances(params, values)
    assert (first.name, first.best) == ("format", "inline")
    assert first.mean > 0.75
    assert first.trials == sum(each["format"] == "inline" for each in params)
    assert all(first.share > other.share for other in others)
    assert abs(sum(one.share for one in [first, *others]) - 1) < 1e-9


def test_where_all_trials_are_alike_nothing_mattered() -> None:
    assert _importances([{"format": "turns"}] * 14, [0.5] * 14) == []
