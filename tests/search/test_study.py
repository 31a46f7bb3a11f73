"""One study a run: what it proposes can be made, is the same for the same trials, and learns what did well."""

from __future__ import annotations

import itertools
import json
import random

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import InputError
from agent.search import registered
from agent.search.program import Choices
from agent.search.samplers import AskTell, Study, as_flat, behind_by_wilcoxon, built, distributions_of, flat_study
from agent.search.study import OPERATOR, PARENT, MeanScore, Params, StudyTrial, folded, prior_of, shrunk
from agent.types import FRESH

SPACE = {"format": ("turns", "inline"), "size": ("4", "8", "16")}
MOVES = ("grown", "swapped", "instruction")
STATES = ("incomplete", "complete", "pruned", "failed")


def trial(number: int, params: Params, mean: float, rows: int = 8, state: str = "incomplete") -> StudyTrial:
    return StudyTrial(f"c_{number}", params, state, {rows: mean} if rows else {})  # type: ignore[arg-type]


def design(number: int, rng: random.Random, mean: float) -> StudyTrial:
    return trial(number, {OPERATOR: FRESH, **{name: rng.choice(words) for name, words in SPACE.items()}}, mean)


def change(number: int, operator: str, rank: int, mean: float) -> StudyTrial:
    return trial(number, {OPERATOR: operator, PARENT: rank}, mean)


def history(count: int, seed: int = 1, good: str = "grown") -> list[StudyTrial]:
    """Trials of which those by one operator do well."""
    rng, trials = random.Random(seed), list[StudyTrial]()
    for number in range(count):
        operator = rng.choice((FRESH, *MOVES))
        mean = rng.uniform(0.6, 0.9) if operator == good else rng.uniform(0.1, 0.4)
        made = design(number, rng, mean) if operator == FRESH else change(number, operator, rng.randrange(4), mean)
        trials.append(made)
    return trials


def proposals(trials: list[StudyTrial], seed: int, count: int = 4, sampler: str = "tpe") -> list[Params]:
    study = AskTell(sampler, seed)
    study.tell(trials, SPACE, MOVES, 4)
    return [study.ask() for _ in range(count)]


def check(params: Params) -> None:
    """A proposal has the parameters of its operator and no others, each a choice that there is."""
    if params[OPERATOR] == FRESH:
        assert set(params) == {OPERATOR, *SPACE}
        assert all(params[name] in SPACE[name] for name in SPACE)
    else:
        assert params[OPERATOR] in MOVES
        assert set(params) == {OPERATOR, PARENT}
        assert params[PARENT] in range(4)


any_trial = st.builds(
    lambda number, is_design, operator, rank, mean, rows, state, seed: StudyTrial(
        f"c_{number}",
        design(0, random.Random(seed), 0.0).params if is_design else {OPERATOR: operator, PARENT: rank},
        state,
        {rows: mean} if rows else {},
    ),
    st.integers(0, 10**6),
    st.booleans(),
    st.sampled_from(MOVES),
    st.integers(0, 3),
    st.floats(0, 1),
    st.sampled_from([0, 8, 22, 62]),
    st.sampled_from(STATES),
    st.integers(0, 99),
)


@settings(max_examples=12, deadline=None)
@given(st.lists(any_trial, max_size=24, unique_by=lambda one: one.candidate_id), st.integers(0, 2**70))
def test_every_proposal_can_be_made_and_the_same_trials_and_seed_give_the_same(
    trials: list[StudyTrial], seed: int
) -> None:
    before = random.getstate()
    first = proposals(trials, seed)
    for params in first:
        check(params)
    assert proposals(trials, seed) == first
    assert random.getstate() == before


def test_each_proposal_has_a_seed_of_its_own_and_is_the_same_after_a_break() -> None:
    whole = proposals(history(3), 5, 8, "random")
    assert len({str(params) for params in whole}) > 1
    study = AskTell("random", 5)
    for number in range(8):  # told again before each, as each step of a run does
        study.tell(history(3), SPACE, MOVES, 4)
        assert study.ask() == whole[number]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("rows", [0, 22])
def test_a_trial_is_told_with_its_rows_and_state(state: str, rows: int) -> None:
    one = trial(0, {OPERATOR: FRESH, "format": "turns", "size": "8"}, 0.5, rows, state)
    other = trial(1, {OPERATOR: "grown", PARENT: 2}, 1.0, 8)
    told = built([one, other]).trials[0]
    unfinished = "FAIL" if state == "failed" else "RUNNING"
    finished = {"incomplete": "COMPLETE", "complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}[state]
    assert told.state.name == (finished if rows else unfinished)
    assert told.intermediate_values == ({rows: 0.5} if rows else {})
    assert told.params == one.params
    assert told.user_attrs == {"candidate_id": "c_0"}
    if told.state.name == "COMPLETE":
        assert told.value is not None
        assert 0.5 < told.value < prior_of([one, other]) == 0.75, "towards the mean of all"
    else:
        assert told.value == (0.5 if told.state.name == "PRUNED" else None)


@pytest.mark.parametrize("ordinal", [False, True])
def test_samplers_without_conditions_get_every_parameter_of_every_trial(ordinal: bool) -> None:
    trials = history(12)
    known = distributions_of(trials, {**SPACE, OPERATOR: (FRESH, *MOVES)}, 4)
    study = flat_study(trials, known, ordinal)
    assert [one.value for one in study.trials] == [one.value for one in built(trials).trials]
    assert all(set(one.params) == set(known) for one in study.trials)
    assert all(isinstance(each, optuna.distributions.IntDistribution) for each in as_flat(known, ordinal).values()) == (
        ordinal
    )
    operators = [one.params[OPERATOR] for one in study.trials]
    words = [known[OPERATOR].choices[place] for place in operators] if ordinal else operators
    assert words == [one.params[OPERATOR] for one in trials]


def test_a_sampler_or_pruner_that_is_unknown_or_not_gone_by_is_refused() -> None:
    for strategy, sampler, pruner, says in (
        ("evolve", "tpee", "race", "--sampler tpee: write one of bandit, tpe"),
        ("evolve", "tpe", "median", "--pruner median: write one of race, wilcoxon"),
        ("dspy-gepa", "tpe", "race", "--sampler tpe: dspy-gepa uses none"),
        ("dspy-gepa", "bandit", "wilcoxon", "--pruner wilcoxon: dspy-gepa uses none"),
    ):
        with pytest.raises(InputError, match=says):
            registered.require_search(strategy, sampler, pruner)
    registered.require_search("dspy-gepa", "bandit", "race")


def test_choices_are_those_of_the_generator_until_a_chooser_is_set() -> None:
    options = [3, 1, 2]
    plain, choices = random.Random(4), Choices(random.Random(4))
    assert [choices.one("k", options) for _ in range(9)] == [plain.choice(options) for _ in range(9)]
    asked = list[tuple[str, list[str]]]()

    def last(name: str, words: list[str] | tuple[str, ...]) -> str:
        asked.append((name, list(words)))
        return words[-1]

    with choices.by(last):  # type: ignore[arg-type]
        assert choices.one("k", options) == 3
        assert choices.one("k", [7]) == 7, "nothing to choose"
    assert asked == [("k", ["1", "2", "3"])]
    with choices.by(lambda name, words: "gone"):
        assert choices.one("k", options) in options, "left to chance"
    assert choices.one("k", [5]) == 5


RUNGS = (8, 22, 62)
score = st.one_of(st.none(), st.sampled_from([0.0, 0.5, 1.0]))


def test_what_is_clearly_worse_on_the_same_rows_goes_and_what_is_close_stays() -> None:
    scores = {"best": [1.0] * 22, "close": [1.0] * 20 + [0.0] * 2, "worse": [0.0] * 22, "short": [0.0] * 8}
    reasons = behind_by_wilcoxon(scores, RUNGS)
    assert set(reasons) == {"worse", "short"}
    assert reasons["worse"] == "behind after 22 paired rows by a signed-rank test: 0.00, the best of them has 1.00"
    assert reasons["short"].startswith("behind after 8 paired rows")


@given(st.lists(st.lists(score, max_size=22), max_size=5))
def test_never_the_best_of_the_highest_rung_and_nothing_before_the_first(rows: list[list[float | None]]) -> None:
    scores = {str(number): row for number, row in enumerate(rows)}
    reasons = behind_by_wilcoxon(scores, RUNGS)
    given_ = {name: [v for v in row if v is not None] for name, row in scores.items()}
    highest = max((sum(len(scores[n]) >= rung for rung in RUNGS) for n, v in given_.items() if v), default=0)
    top = [n for n, v in given_.items() if v and sum(len(scores[n]) >= rung for rung in RUNGS) == highest]
    if top:
        assert max(top, key=lambda n: sum(given_[n]) / len(given_[n])) not in reasons
    for name in reasons:
        assert len(given_[name]) >= RUNGS[0]
    assert behind_by_wilcoxon(scores, RUNGS) == reasons


@given(st.lists(st.lists(any_trial, max_size=5), max_size=5))
def test_what_was_told_later_counts_and_survives_the_ledger(batches: list[list[StudyTrial]]) -> None:
    kept = [[StudyTrial.from_dict(json.loads(json.dumps(one.as_dict()))) for one in batch] for batch in batches]
    assert kept == batches
    every = [one for batch in batches for one in batch]
    assert {one.candidate_id: one for one in folded(kept)} == {one.candidate_id: one for one in every}
    assert [one.candidate_id for one in folded(kept)] == list(dict.fromkeys(one.candidate_id for one in every))


WIDE = {"format": ("turns", "inline", "dspy-chat"), "kind": ("balanced", "natural"), "size": ("4", "8", "16")}
GOOD = {"format": "inline", "kind": "natural", "size": "8"}


PLACES = [dict(zip(WIDE, values, strict=True)) for values in itertools.product(*WIDE.values())]
SEEN = [(place, MeanScore(0.9 if place == GOOD else 0.2, 30)) for place in PLACES * 2]
"""Every place was tried twice; one of them is good."""


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**70), st.integers(0, 36))
def test_every_place_is_one_of_the_space(seed: int, known: int) -> None:
    study = Study(WIDE, SEEN[:known], seed)
    for place in (study.ask() for _ in range(6)):
        assert set(place) == set(WIDE)
        assert all(place[name] in WIDE[name] for name in WIDE)


@given(st.floats(0, 1), st.integers(0, 500), st.floats(0, 1))
def test_a_shrunk_mean_lies_between_the_mean_and_the_prior(mean: float, n: int, prior: float) -> None:
    low, high = min(mean, prior), max(mean, prior)
    assert low - 1e-9 <= shrunk(MeanScore(mean, n), prior) <= high + 1e-9
