"""A compressed candidate is shorter, may be tried, and has lost no placeholder, no label and no part of a list."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.programs.moves.prompt_parts import compressions, held, least_useful, tidied
from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.techniques import why_rejected
from agent.prompt.template import marks
from agent.search.effects import Effect
from agent.types import Demo, Proposal, SearchSpace
from tests.toys import make_task

SPACE = SearchSpace(("zero-shot", "few-shot"), ("turns", "inline"), (3, 6), ("You are R.",))
TASK = make_task(12, space=SPACE)
DEMOS = tuple(Demo(row.id, row.inputs, {"team": row.labels["team"]}) for row in TASK.train)
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
    task = make_task(12, space=SPACE, instruction=text)
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
    made = compressions(proposal(text, DEMOS[:6], "You are R."), make_task(12, space=SPACE, instruction=text))
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
    made = compressions(proposal("Answer with one team.", DEMOS[:6]), TASK, effects)
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
