"""Demo sets hold train rows only, each once, and follow the seed."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.programs.moves.demos import DemoMaker, jaccard
from agent.programs.moves.prompt_parts import compressions, held, least_useful, tidied
from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.techniques import why_rejected
from agent.prompt.template import marks
from agent.search.effects import Effect
from agent.types import Demo, Example, Field, Outcome, Prediction, Proposal, SearchSpace, Signature
from tests.toys import TEAMS, make_task

TASK = make_task(24)
FREE = make_task(
    24,
    signature=Signature((Field("message"),), (Field("total", "number"),)),
    train=tuple(Example(f"train-{n}", {"message": f"add {n} and {n}"}, {"total": 2 * n}) for n in range(24)),
    dev=tuple(Example(f"dev-{n}", {"message": f"add {n} and 1"}, {"total": n + 1}) for n in range(24)),
)


def outcomes(task, answer):
    """What a candidate said on dev: always `answer`."""
    name = task.signature.outputs[0].name
    return [
        Outcome("c", row.id, Prediction({name: answer}, str(answer)), (), float(row.labels[name] == answer))
        for row in task.dev
    ]


def every_set(task, seed, k=6, limit=8):
    """One set of each builder, by operator."""
    maker = DemoMaker(task, random.Random(seed))
    one, two = maker.balanced(k), maker.diverse(k)
    seen = outcomes(task, "billing" if task is TASK else 4)
    sets = [one, two, maker.short(k), maker.natural(k), maker.recombined(one, two, k), maker.reordered(one)]
    if one.demos:
        sets += [maker.rebalanced(one, seen, limit), maker.swapped(one, seen)]
        sets += [maker.tail_swap(one, seen), maker.grown(one, seen, max(0, limit - len(one.demos)))]
    return {found.operator: found for found in sets}


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([TASK, FREE, make_task(1), make_task(2)]), st.integers(0, 10**6), st.integers(0, 40))
def test_every_set_holds_train_rows_as_they_are_and_none_twice(task, seed, k):
    train = {row.id: row for row in task.train}
    name = task.signature.outputs[0].name
    sets = every_set(task, seed, k, limit=k)
    assert sets == every_set(task, seed, k, limit=k), "the seed decides"
    for operator, found in sets.items():
        ids = [demo.example_id for demo in found.demos]
        assert len(ids) == len(set(ids)) <= max(k, 0), operator
        for demo in found.demos:
            row = train[demo.example_id]
            assert demo.inputs == row.inputs
            assert demo.outputs == {name: str(row.labels[name])}
            assert (demo.rationale, demo.source) == ("", "label")


@given(st.integers(0, 10**6), st.integers(1, 5))
def test_rebalancing_takes_from_what_is_said_too_often_and_gives_to_what_is_said_too_seldom(seed, limit):
    maker, seen = DemoMaker(TASK, random.Random(seed)), outcomes(TASK, "billing")
    before = maker.balanced(6)
    after = maker.rebalanced(before, seen, limit=12)
    was, now = (Counter(demo.outputs["team"] for demo in found.demos) for found in (before, after))
    assert now["billing"] == was["billing"] - 1
    assert now["delivery"] + now["refunds"] == was["delivery"] + was["refunds"] + 2
    assert len(maker.rebalanced(before, seen, limit).demos) <= limit


@given(st.integers(0, 10**6), st.integers(1, 16), st.integers(0, 8))
def test_a_change_of_a_set_keeps_the_rest_of_it(seed, k, more):
    """A new tail leaves the front, so that the model's cache of it still serves."""
    maker, seen = DemoMaker(TASK, random.Random(seed)), outcomes(TASK, "billing")
    eight, before = maker.balanced(8), maker.balanced(k)
    swapped = maker.swapped(eight, seen).demos
    assert [demo.outputs for demo in swapped] == [demo.outputs for demo in eight.demos]
    assert sum(one != two for one, two in zip(eight.demos, swapped, strict=True)) in (1, 2)
    tail = maker.tail_swap(before, seen).demos
    same = 0
    while same < len(tail) and tail[same] == before.demos[same]:
        same += 1
    assert k // 2 <= same
    assert len(tail) <= k
    grown = maker.grown(before, seen, more).demos
    assert len(before.demos) <= len(grown) <= len(before.demos) + more
    assert [demo for demo in grown if demo in before.demos] == list(before.demos)
    assert not [demo for demo in grown if demo not in before.demos and demo.outputs["team"] == "billing"]


@given(st.integers(0, 10**6), st.integers(1, 24), st.sampled_from(["balanced", "diverse", "short"]))
def test_a_balanced_set_has_every_label_alike_and_a_short_one_its_shorter_half(seed, k, operator):
    found = getattr(DemoMaker(TASK, random.Random(seed)), operator)(min(k, 12) if operator == "short" else k)
    counts = Counter(demo.outputs["team"] for demo in found.demos)
    assert sum(counts.values()) == k or operator == "short"
    assert max(counts.values()) - min(counts[team] for team in TEAMS) <= 1
    for team in TEAMS if operator == "short" else ():
        lengths = sorted(len(set(row.inputs["message"].split())) for row in TASK.train if row.labels["team"] == team)
        mine = [len(set(demo.inputs["message"].split())) for demo in found.demos if demo.outputs["team"] == team]
        assert all(length <= lengths[len(lengths) // 2] for length in mine)


@given(st.frozensets(st.text("ab", max_size=2)), st.frozensets(st.text("ab", max_size=2)))
def test_overlap_is_symmetric_and_one_only_for_equal_sets(one, two):
    assert 0.0 <= jaccard(one, two) == jaccard(two, one) <= 1.0
    assert (jaccard(one, two) == 1.0) == (one == two and bool(one))


SHORTENED_SPACE = SearchSpace(("zero-shot", "few-shot"), ("turns", "inline"), (3, 6), ("You are R.",))
SHORTENED = make_task(12, space=SHORTENED_SPACE)
DEMOS = tuple(Demo(row.id, row.inputs, {"team": row.labels["team"]}) for row in SHORTENED.train)
PLACE = {"technique": "few-shot", "format": "turns", "instruction": "own", "role": "", "kind": "balanced", "size": "6"}


def proposal(instruction, demos=(), role=""):
    candidate = PromptCandidate("few-shot" if demos else "zero-shot", "turns", instruction, role, tuple(demos))
    return Proposal(candidate, PLACE, "balanced", None, "")


def size(candidate):
    words = candidate.role + candidate.instruction
    return len(words) + sum(len(text) for d in candidate.demos for text in (*d.inputs.values(), *d.outputs.values()))


PIECE = st.sampled_from(
    [
        "Read the message.", "Be brief!", "Which team?", "Answer with one of: billing, delivery, refunds.",
        "{{message}}", "\\{{message}}", "Message: {{message}}", "billing is", "- billing", "- delivery", "- refunds",
        "Labels:", "1. no", "  ", "\n", "\n\n\n", " ", "\t", "Say e.g. refunds. Or else.", "```", "...", "ß. Delivery!",
    ]
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(PIECE, min_size=1, max_size=9).map(" ".join), st.integers(0, 9), st.sampled_from(["", "You are R."]))
def test_what_is_compressed_is_shorter_and_keeps_placeholders_labels_and_the_hard_rules(text, count, role):
    task = make_task(12, space=SHORTENED_SPACE, instruction=text)
    parent = proposal(text, DEMOS[:count], role)
    names = ["message"]
    for made in compressions(parent, task):
        candidate = made.candidate
        assert size(candidate) < size(parent.candidate)
        assert why_rejected(candidate, task) == ""
        assert marks(candidate.instruction, names) >= marks(text, names)
        assert made.operator.startswith("compress:")
        assert made.parent_id == parent.candidate.id
        assert set(made.place) == set(PLACE)
        assert made.reason
        assert bool(candidate.demos) == bool(count)
        if made.operator != "compress:rewrite":
            assert held(candidate.instruction, task) == held(text, task)


def test_each_kind_of_compression_is_found_and_says_what_it_did():
    text = "Read it  well. Answer with one of: billing, delivery, refunds. Do not guess when you are not at all sure."
    made = compressions(proposal(text, DEMOS[:6], "You are R."), make_task(12, space=SHORTENED_SPACE, instruction=text))
    kinds = Counter(e.operator for e in made)
    assert set(kinds) == {f"compress:{kind}" for kind in ("whitespace", "role", "examples", "rewrite", "sentence")}
    reasons = [e.reason for e in made if e.operator == "compress:sentence"]
    assert reasons == ['without "Read it  well."', 'without "Do not guess when you are not at all sure."']
    assert next(e for e in made if e.operator == "compress:role").place["role"] == ""


def test_the_demos_that_add_least_go_first_and_the_longest_when_nothing_is_known():
    effects = {demo.example_id: Effect("demo", demo.example_id, float(n), 1.0) for n, demo in enumerate(DEMOS[:6])}
    assert least_useful(DEMOS[:6], 2, effects) == ["train-0", "train-1"]
    longest = sorted(DEMOS[:6], key=lambda d: -len(d.inputs["message"]))
    assert least_useful(DEMOS[:6], 1, {}) == [longest[0].example_id]
    made = compressions(proposal("Answer with one team.", DEMOS[:6]), SHORTENED, effects)
    reason = next(e.reason for e in made if e.operator == "compress:examples")
    assert reason == "without train-0 (+0.0): it adds least"


def test_code_is_not_tidied_and_tidying_twice_changes_nothing():
    code = "Run:\n```\na  =  1\n\n\n\nb\n```"
    assert tidied(code) == code
    text = "  One   two.  \n\n\n\n  three\t\tfour \n"
    assert tidied(tidied(text)) == tidied(text) == "One two.\n\n  three four"


@given(st.lists(st.sampled_from(DEMOS), unique_by=lambda d: d.example_id, max_size=12), st.integers(0, 14))
def test_no_label_loses_its_last_demo(demos, count):
    gone = least_useful(demos, count, {})
    kept = [demo for demo in demos if demo.example_id not in gone]
    assert len(gone) == len(set(gone)) <= count
    before, after = (Counter(d.outputs["team"] for d in some) for some in (demos, kept))
    assert max(before.values(), default=0) < 2 or set(after) == set(before)
    assert bool(kept) == bool(demos)
