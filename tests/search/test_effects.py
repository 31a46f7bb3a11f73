"""Planted effects come back, with errors that are true to size; rows and unequal numbers of them do not matter."""

from __future__ import annotations

import math
import random
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.programs.moves.prompt_parts import features_of, leave_one_out
from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.techniques import why_rejected
from agent.search.effects import Effect, PartsModel, ScoredCandidate, recombine
from agent.search.explanation import attribution as attributed
from agent.types import Demo, SearchSpace
from tests.toys import make_task


def demo(number):
    return Demo(f"t{number}", {"message": f"note {number}"}, {"team": f"team {number % 5}"})


def observe(candidate, values):
    return ScoredCandidate(candidate.id, features_of(candidate), values)


def test_rows_that_only_good_candidates_saw_do_not_make_them_look_average():
    """Exact scores: two good candidates saw 60 hard rows more than the bad one."""
    good = [PromptCandidate("zero-shot", "turns", "good", role=f"r{n}") for n in range(2)]
    bad = PromptCandidate("zero-shot", "turns", "bad")
    easy, hard = [0.9] * 10, [0.5] * 60
    table = [*(observe(c, easy + hard) for c in good), observe(bad, [0.4] * 10)]
    points, error = PartsModel(table).difference(features_of(good[0]), features_of(bad))
    assert points == pytest.approx(0.5, abs=0.15)
    assert error < 0.2


GROUPS = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 9), min_size=1)


@settings(max_examples=60, deadline=None)
@given(GROUPS, st.integers(0, 20), st.integers(0, 10**6), st.integers(0, 40))
def test_recombined_rows_are_distinct_balanced_and_as_many_as_can_be(sizes, k, seed, known):
    groups = {label: [f"{label}{n}" for n in range(size)] for label, size in sizes.items()}
    rows = [i for ids in groups.values() for i in ids]
    effects = {i: Effect("demo", i, float(n % 7), 1.0) for n, i in enumerate(rows[:known])}
    ids = recombine(effects, groups, k, random.Random(seed))
    assert len(ids) == len(set(ids)) == min(k, len(rows))
    assert set(ids) <= set(rows)
    fair = math.floor(k / len(groups))
    for label, members in groups.items():
        assert sum(i in members for i in ids) >= min(fair, len(members)), label
    assert ids == recombine(effects, groups, k, random.Random(seed))


def test_rows_with_a_high_effect_are_drawn_more_often_and_unsure_ones_still_get_a_chance():
    groups = {"a": ["good", "bad", "unsure", *(f"new{n}" for n in range(50))]}
    effects = {
        "good": Effect("demo", "good", 3.0, 0.5),
        "bad": Effect("demo", "bad", -3.0, 0.5),
        "unsure": Effect("demo", "unsure", 0.0, 3.0),
    }
    drawn = [recombine(effects, groups, 2, random.Random(seed)) for seed in range(300)]
    share = {i: sum(i in ids for ids in drawn) / len(drawn) for i in effects}
    assert share["good"] > 0.8 > share["unsure"] > 0.15 > share["bad"]
    assert 0.2 < mean(sum(i.startswith("new") for i in ids) for ids in drawn) < 1.2


TASK = make_task(12, space=SearchSpace(("zero-shot", "few-shot"), ("turns", "inline"), (3,)))
DEMOS = tuple(Demo(row.id, row.inputs, row.labels, "Because.", "target") for row in TASK.train[:3])
BASE = PromptCandidate("zero-shot", "turns", "Answer with one team.")
FULL = PromptCandidate("few-shot-cot", "inline", "Which team is it?", "You are R.", DEMOS)


def attribution(winner, ablations, table, **options):
    return attributed(winner, ablations, table, features_of, **options)


def test_each_part_that_differs_is_taken_out_once_and_alone():
    parts = leave_one_out(FULL, BASE)
    assert set(parts) == {"instruction", "examples", "technique", "format", "role"}
    assert parts["instruction"] == PromptCandidate("few-shot-cot", "inline", BASE.instruction, "You are R.", DEMOS)
    assert parts["examples"] == PromptCandidate("chain-of-thought", "inline", FULL.instruction, "You are R.")
    assert parts["format"].format == "turns"
    assert parts["role"].role == ""
    plain = parts["technique"]
    assert plain.technique == "few-shot"
    assert [d.example_id for d in plain.demos] == [d.example_id for d in DEMOS]
    assert all((d.rationale, d.source) == ("", "label") for d in plain.demos)
    for candidate in parts.values():
        assert why_rejected(candidate, TASK) == ""
    assert leave_one_out(BASE, BASE) == {}


def table(**scores):
    """Observations of FULL and of its ablations: `part=[...]`."""
    parts = leave_one_out(FULL, BASE)
    return [observe(FULL if part == "full" else parts[part], values) for part, values in scores.items()]


def test_a_part_that_was_taken_out_on_the_same_rows_is_measured():
    won, lost = [1.0] * 60, [0.0] * 30 + [1.0] * 30
    found = {
        c.part: c
        for c in attribution(
            FULL, leave_one_out(FULL, BASE), table(full=won, examples=lost, instruction=won, format=lost[:40])
        )
    }
    demos, same = found["examples"], found["instruction"]
    assert (demos.how, demos.points, demos.rows) == ("measured", 50.0, 60)
    assert 0 < demos.ci95[0] < 50 < demos.ci95[1]
    assert (same.how, same.points) == ("unknown", 0.0)
    assert found["format"].rows == 0  # it did not see all of the winner's rows
    assert found["role"].how == "unknown"
    assert set(demos.to_json()) == {"part", "points", "ci95", "how", "rows"}


def test_what_choosing_the_winner_adds_takes_the_sign_from_a_small_gain_only():
    won, close, far = [1.0] * 60, [0.0] * 7 + [1.0] * 53, [0.0] * 40 + [1.0] * 20
    seen = table(full=won, examples=far, instruction=close)
    plain = {c.part: c.how for c in attribution(FULL, leave_one_out(FULL, BASE), seen)}
    humble = {c.part: c.how for c in attribution(FULL, leave_one_out(FULL, BASE), seen, optimism=0.08)}
    assert (plain["examples"], plain["instruction"]) == ("measured", "measured")
    assert (humble["examples"], humble["instruction"]) == ("measured", "unknown")
