"""Recall and refusals against figures that were counted by hand."""

from __future__ import annotations

from agent.documents import Knowledge
from agent.evaluate import answer_counts
from agent.types import Example, Outcome, Prediction
from tests.json_of import json_of
from tests.toys import two_sides

retrieval_figures = json_of(answer_counts.retrieval_figures)

ROWS = (
    Example("1", {"q": "a"}, {"answer": "£5"}, sources=("a.md",)),
    Example("2", {"q": "b"}, {"answer": "£6"}, sources=("a.md", "b.md")),
    Example("3", {"q": "c"}, {"answer": "£7"}, sources=("c.md",)),
    Example("4", {"q": "d"}, {"answer": "not stated"}),
    Example("5", {"q": "e"}, {"answer": "Not  stated"}),
)
SHOWN = {"1": ("a.md", "z.md"), "2": ("b.md", "b.md"), "3": ("z.md",), "4": ("z.md",), "5": ()}


def outcomes(*answers: str | None) -> list[Outcome]:
    return [
        Outcome("c", row.id, Prediction({} if text is None else {"answer": text}, text or ""), (), 0.0)
        for row, text in zip(ROWS, answers, strict=True)
    ]


def test_shares_are_of_the_rows_that_they_are_about() -> None:
    pair = two_sides(ROWS, outcomes("£5", "NOT STATED.", "£7", "not stated", "£1"), outcomes(*[None] * 5))
    sides = {"winner": lambda row: SHOWN[row.id], "baseline": lambda row: None}
    found = retrieval_figures(pair, Knowledge((), "page", "not stated"), "answer", sides)
    assert found == {
        "rows": 3,
        "unanswerable_rows": 2,
        "answerable_rows": 3,
        "winner": {"recall": 2 / 3, "recall_all": 1 / 3, "unanswerable_right": 1 / 2, "answerable_wrong": 1 / 3},
        "baseline": {"recall": None, "recall_all": None, "unanswerable_right": 0.0, "answerable_wrong": 0.0},
    }


def test_nothing_is_said_of_refusals_where_the_task_has_no_words_for_one() -> None:
    pair = two_sides(ROWS, outcomes(*["not stated"] * 5), outcomes(*["not stated"] * 5))
    sides = dict.fromkeys(("winner", "baseline"), lambda row: SHOWN[row.id])
    found = retrieval_figures(pair, Knowledge(()), "answer", sides)
    assert found["unanswerable_rows"] == 0
    assert found["winner"]["unanswerable_right"] is found["winner"]["answerable_wrong"] is None
