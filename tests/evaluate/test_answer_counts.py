"""Right, wrong and unreadable rows, and the confusion matrix: by hand, by their sums, and as scikit-learn has them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support

from agent.evaluate import answer_counts
from agent.evaluate.score_table import ScoreTable
from agent.metrics.calls import EXTRA_CALL, NO_CALL, paired_names
from agent.types import Example, Field, Outcome, Prediction, Score, Tool
from tests.json_of import json_of
from tests.toys import two_sides

by_label = json_of(answer_counts.by_label)
row_counts = json_of(answer_counts.row_counts)

LABELS = ("billing", "account", "refunds")
TEAM = Field("team", "choice", choices=LABELS)
LOST = "the provider failed"


def answered(label: str, said: str | None) -> Outcome:
    """One row's answer; None: unreadable, LOST: there was none."""
    if said == LOST:
        return Outcome("c", "e", Prediction({}, "", LOST), (Score("choice", None, LOST),), None, "")
    fields, error = ({}, "names none of the choices") if said is None else ({"team": said}, "")
    value = float(said == label)
    return Outcome("c", "e", Prediction(fields, said or "?", error), (Score("choice", value),), value, "key")


def pair(labels: Sequence[str], won: Sequence[str | None], based: Sequence[str | None] | None = None) -> ScoreTable:
    rows = [Example(f"r{at}", {}, {"team": label}) for at, label in enumerate(labels)]
    sides = [
        [
            Outcome("c", row.id, out.prediction, out.scores, out.value, out.call_key)
            for row, out in zip(rows, map(answered, labels, said), strict=True)
        ]
        for said in (won, won if based is None else based)
    ]
    return two_sides(rows, *sides)


def side(labels: Sequence[str], said: Sequence[str | None]) -> dict[str, Any]:
    (report,) = by_label(pair(labels, said), [Field("note"), TEAM])
    assert (report["field"], report["labels"]) == ("team", list(LABELS))
    found: dict[str, Any] = report["winner"]
    return found


def test_counts_by_hand() -> None:
    labels = ["billing"] * 4 + ["account"] * 3 + ["refunds"]
    said = ["billing", "account", "account", None, "account", "billing", LOST, None]
    found = side(labels, said)
    assert found["cells"] == [
        {"label": "billing", "said": "billing", "rows": 1},
        {"label": "billing", "said": "account", "rows": 2},
        {"label": "billing", "said": None, "rows": 1},
        {"label": "account", "said": "billing", "rows": 1},
        {"label": "account", "said": "account", "rows": 1},
        {"label": "refunds", "said": None, "rows": 1},
    ]
    assert found["scores"] == [
        {"label": "billing", "support": 4, "said": 2, "right": 1, "precision": 0.5, "recall": 0.25},
        {"label": "account", "support": 2, "said": 3, "right": 1, "precision": pytest.approx(1 / 3), "recall": 0.5},
        {"label": "refunds", "support": 1, "said": 0, "right": 0, "precision": None, "recall": 0.0},
    ]


def test_both_sides_are_counted_and_the_first_unreadable_rows_named() -> None:
    counts = row_counts(pair(["billing"] * 6, [None] * 4 + ["billing", LOST], ["billing"] * 6))
    assert counts["winner"] == {
        "right": 1, "partly": 0, "wrong": 4, "unscored": 1, "unreadable": 4, "unreadable_rows": ["r0", "r1", "r2"],
        "readable": 1, "different": 1, "different_right": 1,
    }  # fmt: skip
    assert counts["baseline"]["right"] == 6
    assert counts["baseline"]["unreadable_rows"] == []


def test_different_answers_are_counted_on_the_rows_that_have_one() -> None:
    labels = ["billing", "account", "refunds", "billing", "refunds"]
    counts = row_counts(pair(labels, ["billing", "Billing ", "account", None, LOST], labels))
    winner, baseline = (
        tuple(counts[side][name] for name in ("readable", "different", "different_right"))
        for side in ("winner", "baseline")
    )
    assert (winner, baseline) == ((3, 2, 3), (5, 3, 3))


def test_a_graded_score_is_partly_right() -> None:
    rows = [Example(f"r{at}", {}, {}) for at in range(3)]
    outcomes = [
        Outcome("c", row.id, Prediction({"text": "a"}, "a", ""), (Score("rougeL", value),), value, "key")
        for row, value in zip(rows, (0.0, 0.4, 1.0), strict=True)
    ]
    counts = row_counts(two_sides(rows, outcomes, outcomes))["winner"]
    assert (counts["right"], counts["partly"], counts["wrong"]) == (1, 1, 1)


def test_a_program_that_writes_a_label_in_other_letters_said_it() -> None:
    assert side(["billing"], ["Billing "])["cells"] == [{"label": "billing", "said": "billing", "rows": 1}]
    assert side(["billing"], ["complaints"])["cells"] == [{"label": "billing", "said": None, "rows": 1}]


ANSWERS = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from([*LABELS, None, LOST])), min_size=1, max_size=60)


@given(ANSWERS)
def test_the_cells_of_the_matrix_add_up_and_its_scores_are_those_of_scikit_learn(
    answers: list[tuple[str, str | None]],
) -> None:
    labels, said = [label for label, _ in answers], [answer for _, answer in answers]
    found, counts = side(labels, said), row_counts(pair(labels, said))["winner"]
    known = [(label, answer or "unreadable") for label, answer in answers if answer != LOST]
    assert sum(cell["rows"] for cell in found["cells"]) == len(known)
    assert sum(score["right"] for score in found["scores"]) == counts["right"]
    assert counts["unreadable"] == sum(cell["rows"] for cell in found["cells"] if cell["said"] is None)
    assert all(score["said"] == sum(answer == score["label"] for _, answer in known) for score in found["scores"])
    if known:
        precision, recall, _, support = precision_recall_fscore_support(
            *zip(*known, strict=True), labels=list(LABELS), zero_division=0.0
        )
        for at, score in enumerate(found["scores"]):
            assert (score["precision"] or 0.0) == pytest.approx(precision[at])
            assert (score["recall"] or 0.0) == pytest.approx(recall[at])
            assert score["support"] == support[at]


by_tool = json_of(answer_counts.by_tool)

TOOLS = tuple(Tool(name, "", '{"type": "object"}') for name in ("light", "scene", "lock"))


def cells(*rows: tuple[list[str], Any]) -> dict[tuple[str, str | None], int]:
    """By right tool and called tool, over rows of right tools and the answer (None: unreadable)."""
    examples, outcomes = [], []
    for number, (right, said) in enumerate(rows):
        examples.append(Example(f"r{number}", {}, {"calls": [{"name": name, "arguments": {}} for name in right]}))
        fields, error = ({"calls": said}, "") if said is not None else ({}, "no calls")
        prediction = Prediction(fields, json.dumps(said), error)
        outcomes.append(Outcome("c", f"r{number}", prediction, (Score("tool_calls", 0.0),), 0.0, "key"))
    (report,) = by_tool(two_sides(examples, outcomes, outcomes), Field("calls", "json"), TOOLS)
    assert [label for label in report["labels"] if label != EXTRA_CALL] == ["light", "scene", "lock", NO_CALL]
    return {(cell["label"], cell["said"]): cell["rows"] for cell in report["winner"]["cells"]}


def test_calls_are_counted_by_hand() -> None:
    assert cells(
        (["light"], [{"name": "scene", "arguments": {}}]),
        (["light", "lock"], [{"name": "lock", "arguments": "{"}, {"name": "light", "arguments": {}}]),
        ([], []),
        ([], [{"name": "scene", "arguments": {}}]),
        (["lock"], []),
        (["lock"], [{"name": "no_such_tool", "arguments": {}}]),
        (["light", "scene"], None),
    ) == {
        ("light", "light"): 1,
        ("light", "scene"): 1,
        ("light", None): 1,
        ("scene", None): 1,
        ("lock", "lock"): 1,
        ("lock", None): 1,
        ("lock", NO_CALL): 1,
        (NO_CALL, NO_CALL): 1,
        (NO_CALL, "scene"): 1,
    }
    assert by_tool(two_sides([], [], []), Field("calls", "json"), ()) == []


def test_calls_beyond_those_of_a_row_are_no_rows_without_a_call() -> None:
    scene, lock = ({"name": name, "arguments": {}} for name in ("scene", "lock"))
    assert cells((["scene"], [scene, lock, lock]), ([], [scene, lock]), ([], [])) == {
        ("scene", "scene"): 1,
        (NO_CALL, NO_CALL): 1,
        (NO_CALL, "lock"): 1,
        (EXTRA_CALL, "scene"): 1,
        (EXTRA_CALL, "lock"): 2,
    }


NAMES = st.lists(st.sampled_from([tool.name for tool in TOOLS]), max_size=4)


@given(NAMES, NAMES)
def test_every_wanted_and_every_made_call_stands_in_one_pair(wanted: list[str], said: list[str]) -> None:
    pairs = paired_names(wanted, said)
    assert Counter(name for name, _ in pairs if name != NO_CALL) == Counter(wanted)
    assert Counter(name for _, name in pairs if name != NO_CALL) == Counter(said)
    assert pairs == paired_names(wanted[::-1], said[::-1])
