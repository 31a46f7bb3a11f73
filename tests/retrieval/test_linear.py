"""The classifier of a release: numbers that score a text as they did when they were trained, and bounds on them."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.prompt.parts.calibration import released_classifier
from agent.prompt.parts.kinds import WrongPart
from agent.retrieval.classifiers import fit
from agent.retrieval.linear import MOST_FEATURES, MOST_LETTERS, MOST_NUMBERS, LabelClassifier, term_counts
from agent.retrieval.linear_training import trained
from tests.cases import each_case

LABELS = ("billing", "delivery", "account")
WORDS = {
    "billing": "invoice receipt charge bank payment",
    "delivery": "parcel courier van tracking box",
    "account": "password login email profile reset",
}
FILLER = ["please", "help", "with", "my", "thing", "today", "we", "are", "still", "waiting", "for", "news"]


def rows(count: int, seed: int) -> tuple[list[str], list[int]]:
    rng = random.Random(seed)
    answers = [rng.randrange(len(LABELS)) for _ in range(count)]
    texts = []
    for answer in answers:
        words = rng.sample(WORDS[LABELS[answer]].split(), 2) + rng.sample(FILLER, 5)
        rng.shuffle(words)
        texts.append(" ".join(words))
    return texts, answers


TEXTS, ANSWERS = rows(60, seed=1)
MADE = trained(TEXTS, ANSWERS, len(LABELS))
assert MADE is not None
DATA: tuple[dict[str, Any], list[dict[str, Any]]] = (MADE.settings(), MADE.lines(LABELS))


def read(settings_: Any, lines: Any) -> LabelClassifier:
    """As a release has it: through JSON."""
    return released_classifier(*json.loads(json.dumps([settings_, lines])), LABELS)


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.text(max_size=200), st.lists(st.sampled_from(" ".join(WORDS.values()).split())).map(" ".join)))
def test_a_released_classifier_says_what_the_trained_one_said(text: str) -> None:
    logs = MADE.log_probabilities(text)
    assert read(*DATA).log_probabilities(text) == logs
    assert math.fsum(map(math.exp, logs)) == pytest.approx(1.0)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=300))
def test_each_kind_of_terms_has_length_1_or_is_absent(text: str) -> None:
    lengths = math.fsum(value * value for _, value in MADE.values(text))
    assert any(lengths == pytest.approx(whole, abs=1e-9) for whole in (0, 1, 2))


def test_it_answers_as_the_yardstick_does() -> None:
    classifier = fit("choice", TEXTS, [LABELS[answer] for answer in ANSWERS])["classifier"]
    fresh, right = rows(200, seed=2)
    mine = [LABELS[(logs := MADE.log_probabilities(text)).index(max(logs))] for text in fresh]
    yardstick = [str(answer) for answer in classifier(fresh)]
    assert sum(one == other for one, other in zip(mine, yardstick, strict=True)) >= 196
    assert sum(one == LABELS[answer] for one, answer in zip(mine, right, strict=True)) >= 190


@each_case("labels", [2, 40])
def test_its_size_is_bounded_whatever_it_learns_from(labels: int) -> None:
    rng = random.Random(3)
    texts = ["".join(chr(rng.randrange(97, 123)) for _ in range(400)) for _ in range(80)]
    made = trained(texts, [at % labels for at in range(80)], labels)
    assert made is not None
    assert len(made.features) == min(MOST_FEATURES, MOST_NUMBERS // labels)
    assert len(json.dumps(made.lines([str(at) for at in range(labels)]))) < 600_000
    assert term_counts("a" * MOST_LETTERS + " parcel") == term_counts("a" * MOST_LETTERS)


def test_two_labels_are_learnt_a_label_without_rows_is_unlikely_and_rows_that_teach_nothing_give_none() -> None:
    two = trained(["red door", "red car", "blue sea", "blue sky"], [0, 0, 1, 1], 2)
    more = trained(TEXTS, ANSWERS, len(LABELS) + 1)
    assert two is not None
    assert more is not None
    assert two.log_probabilities("red hat")[0] > math.log(0.5) > two.log_probabilities("red hat")[1]
    assert two.log_probabilities("blue hat")[1] > math.log(0.5)
    assert all(-20 < more.log_probabilities(text)[-1] < -2 for text in (*TEXTS, "", "xyz"))
    assert trained(["a b", "c"], [0, 0], 2) is trained(["", " "], [0, 1], 2) is None


def head(change: dict[str, Any]) -> list[dict[str, Any]]:
    return [DATA[1][0] | change, *DATA[1][1:]]


def first_label(change: dict[str, Any]) -> list[dict[str, Any]]:
    return [DATA[1][0], DATA[1][1] | change, *DATA[1][2:]]


@each_case(
    "about, lines, why",
    [
        ({**DATA[0], "scale": 0}, DATA[1], "classifier.scale must be a number above 0"),
        ({**DATA[0], "scale": True}, DATA[1], "classifier.scale must be a number above 0"),
        ({**DATA[0], "scale": 1e300}, DATA[1], "classifier.scale must be a number above 0"),
        ({**DATA[0], "scale": math.nan}, DATA[1], "classifier.scale must be a number above 0"),
        ({**DATA[0], "more": 1}, DATA[1], "unknown key 'more'"),
        ({**DATA[0], "trained_on": 1}, DATA[1], "classifier.trained_on must be a text"),
        ("x", DATA[1], "classifier must be a table"),
        (DATA[0], None, "classifier.rows must be a list"),
        (DATA[0], ["x"], "must be a table"),
        (DATA[0], [], "classifier.rows is empty"),
        (DATA[0], DATA[1][1:], "lacks terms, rarity"),
        (DATA[0], head({"terms": "not base64!"}), "terms must be bytes in base64"),
        (DATA[0], head({"terms": 5}), "terms must be bytes in base64"),
        (DATA[0], head({"terms": ""}), "1 to 16,384 terms"),
        (DATA[0], head({"terms": "AAAA" * 100_000}), "1 to 16,384 terms"),
        (DATA[0], head({"terms": "AAAAAAAAAAA="}), "ascending hashes of terms"),
        (DATA[0], head({"rarity": "AQ=="}), "a rarity for each term"),
        (DATA[0], DATA[1][:-1], "one line for each label of the output, and no other"),
        (DATA[0], [*DATA[1], DATA[1][-1]], "one line for each label of the output, and no other"),
        (DATA[0], first_label({"label": "other"}), "one line for each label of the output, and no other"),
        (DATA[0], first_label({"more": 1}), "unknown key 'more'"),
        (DATA[0], first_label({"intercept": 1e30}), "intercept must be a number"),
        (DATA[0], first_label({"intercept": "1"}), "intercept must be a number"),
        (DATA[0], first_label({"weights": "AA=="}), "a weight under each label"),
    ],
)
def test_wrong_numbers_are_refused(about: Any, lines: Any, why: str) -> None:
    with pytest.raises(WrongPart, match=why):
        released_classifier(about, lines, LABELS)
