"""Planted effects come back, with errors that are true to size; rows and unequal numbers of them do not matter."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.programs.moves.prompt_parts import features_of
from agent.prompt.prompt_candidate import PromptCandidate
from agent.search.effects import Effect, PartsModel, ScoredCandidate, demo_effects, recombine
from agent.types import Demo

ROWS = 100


def demo(number):
    return Demo(f"t{number}", {"message": f"note {number}"}, {"team": f"team {number % 5}"})


def observe(candidate, values):
    return ScoredCandidate(candidate.id, features_of(candidate), values)


@dataclass
class World:
    """Candidates at random with 0/1 scores from a level that is the sum of its parts; `level` is the truth."""

    seed: int
    candidates: int = 50

    def __post_init__(self):
        self.rng = random.Random(self.seed)
        draw = self.rng.gauss
        self.wordings = {f"wording {n}": draw(0, 0.1) for n in range(4)}
        self.formats = {"turns": 0.0, "inline": draw(0, 0.1)}
        self.demos = [draw(0, 0.015) for _ in range(30)]
        self.rows = [draw(0, 0.08) for _ in range(ROWS)]
        self.own = {}
        self.baseline = self.make("wording 0", "turns", 0)
        made = [self.baseline, *(self.make() for _ in range(self.candidates))]
        by_id = {candidate.id: candidate for candidate in made}
        seen = {candidate.id: self.see(candidate, 16) for candidate in made}
        for rows, keep in ((40, 20), (ROWS, 5)):  # the better half of the rest goes on, as in a race
            best = sorted(seen.values(), key=lambda o: -mean(o.values))[:keep]
            for scored in best:
                more = self.see(by_id[scored.candidate_id], rows).values[len(scored.values) :]
                seen[scored.candidate_id] = replace(scored, values=[*scored.values, *more])
        self.table = list(seen.values())
        self.winner = by_id[max(self.table, key=lambda o: (len(o.values), mean(o.values))).candidate_id]

    def make(self, wording=None, layout=None, k=None):
        k = self.rng.choice([0, 6, 12]) if k is None else k
        ids = self.rng.sample(range(len(self.demos)), k)
        return PromptCandidate(
            "few-shot" if k else "zero-shot",
            layout or self.rng.choice(list(self.formats)),
            wording or self.rng.choice(list(self.wordings)),
            demos=tuple(map(demo, ids)),
        )

    def level(self, candidate):
        parts = self.wordings[candidate.instruction] + self.formats[candidate.format]
        parts += 0.15 * bool(candidate.demos) + sum(self.demos[int(d.example_id[1:])] for d in candidate.demos)
        own = self.own.setdefault(candidate.id, self.rng.gauss(0, 0.015))
        return min(0.9, max(0.1, 0.45 + parts + own))

    def see(self, candidate, rows):
        level = self.level(candidate)
        return observe(candidate, [float(self.rng.random() < level + row) for row in self.rows[:rows]])


def test_the_errors_of_differences_between_candidates_are_true_to_size():
    covered, pairs = 0, 0
    for seed in range(15):
        world = World(seed)
        model = PartsModel(world.table)
        for _ in range(12):
            one, two = world.make(), world.make()
            points, error = model.difference(features_of(one), features_of(two))
            covered += abs(points - (world.level(one) - world.level(two))) <= 1.96 * error
            pairs += 1
    assert 0.88 * pairs <= covered


def test_the_sign_of_a_planted_effect_beyond_three_errors_is_right_in_95_of_100():
    clear, right = 0, 0
    for seed in range(25):
        world = World(seed, candidates=100)
        model = PartsModel(world.table)
        wordings = sorted(world.wordings)
        for one in wordings:
            for two in wordings:
                points, error = model.difference(*(features_of(world.make(words, "turns", 0)) for words in (one, two)))
                if one < two and abs(points) > 3 * error:
                    clear += 1
                    right += (points > 0) == (world.wordings[one] > world.wordings[two])
    assert clear >= 10
    assert right >= 0.95 * clear


def test_rows_that_only_good_candidates_saw_do_not_make_them_look_average():
    """Exact scores: two good candidates saw 60 hard rows more than the bad one."""
    good = [PromptCandidate("zero-shot", "turns", "good", role=f"r{n}") for n in range(2)]
    bad = PromptCandidate("zero-shot", "turns", "bad")
    easy, hard = [0.9] * 10, [0.5] * 60
    table = [*(observe(c, easy + hard) for c in good), observe(bad, [0.4] * 10)]
    points, error = PartsModel(table).difference(features_of(good[0]), features_of(bad))
    assert points == pytest.approx(0.5, abs=0.15)
    assert error < 0.2


def test_a_row_without_a_score_is_left_out_and_not_zero():
    one, two = PromptCandidate("zero-shot", "turns", "one"), PromptCandidate("zero-shot", "turns", "two")
    values = [1.0, 0.0] * 20
    holes = [None if n % 4 == 0 else value for n, value in enumerate(values)]
    points, _ = PartsModel([observe(one, values), observe(two, holes)]).difference(features_of(one), features_of(two))
    assert points == pytest.approx(0.0, abs=1e-9)


def test_nothing_seen_says_nothing():
    one, two = PromptCandidate("zero-shot", "turns", "one"), PromptCandidate("zero-shot", "turns", "two")
    for table in ([], [observe(one, [])], [observe(one, [None, None])], [observe(one, [1.0] * 30)]):
        points, error = PartsModel(table).difference(features_of(one), features_of(two))
        assert points == pytest.approx(0.0, abs=1e-6)
        assert error > 0.05
        assert demo_effects(table) == {}


def test_demo_effects_point_the_right_way_and_cover_rows_that_were_tried_twice():
    found = []
    for seed in range(10):
        world = World(seed, candidates=100)
        effects = demo_effects(world.table)
        uses = [name for o in world.table for part, name in o.features if part == "demo"]
        assert set(effects) == {i for i in uses if uses.count(i) > 1}
        truth = {i: 100 * world.demos[int(i[1:])] for i in effects}
        centre, true_centre = mean(e.points for e in effects.values()), mean(truth.values())
        found.append(sum((effects[i].points - centre) * (truth[i] - true_centre) for i in effects))
        assert all(effect.se > 0 for effect in effects.values())
    assert sum(value > 0 for value in found) >= 9


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
