"""`optimize compare`: differences are named, and the paired test is the one that the rows give by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.report import prompt_texts
from agent.report.compare import ComparedPrompt, scoring_difference
from agent.report.prompt_texts import COMPARED, changes, word_diff
from agent.report.wording import PromptNames
from agent.stats.intervals import paired_difference
from tests.cli.world import good_json, refused
from tests.conftest import Made
from tests.ledger.ledgers import read

DB = Path("runs/ledger.db")
ROWS = (
    "SELECT example_id, value FROM outcomes WHERE run_id = ? AND candidate_id = ? AND split = ? AND value IS NOT NULL"
)


def by_hand(split: str, *sides: tuple[str, str]) -> dict[str, Any]:
    """B minus A over the rows of both, from the tables alone."""
    a, b = (dict(read(DB, ROWS, run, candidate, split)) for run, candidate in sides)
    both = sorted(a.keys() & b.keys())
    found = paired_difference([b[row] for row in both], [a[row] for row in both], 0)
    return {"diff": found.diff, "wins": found.wins, "losses": found.losses, "n": len(both)}


def test_trials_are_compared_on_the_rows_of_both_and_runs_on_other_rows_are_not(two_runs: Made) -> None:
    run_id, other = (run["run_id"] for run in two_runs)  # of other seeds, and so of other splits
    trials = good_json("history", run_id)["trials"]
    base, child = trials[0], next(trial for trial in trials if trial["operator"].startswith("instruction:proposed"))
    found = good_json("compare", f"{run_id}:0", f"{run_id}:{child['number']}")
    expected = by_hand("dev", (run_id, base["candidate_id"]), (run_id, child["candidate_id"]))
    assert expected.items() <= found["paired"]["dev"].items()
    assert found["facts"]["mean"] == {"a": base["mean"], "b": child["mean"], "same": base["mean"] == child["mean"]}
    assert found["examples"] == {"a": base["demos"], "b": child["demos"]}
    assert found["instruction"]["b"] == child["instruction"]
    back = good_json("compare", f"{run_id}:{child['number']}", f"{run_id}:0")["paired"]["dev"]
    assert back["diff"] == pytest.approx(-expected["diff"])
    found = good_json("compare", run_id, other)
    assert (found["paired"], found["facts"]["hashes.test"]["same"]) == ({}, False)
    assert found["facts"]["options.max_calls"] == {"a": 800, "b": 200, "same": False}
    assert "no paired test" in found["not_tested"]
    found = good_json("compare", run_id, run_id)
    assert all(fact["same"] for fact in found["facts"].values())
    assert (found["paired"]["test"]["diff"], found["paired"]["test"]["p_value"]) == (0, 1)
    for words in (["x", "y"], [run_id, f"{run_id}:999"], [run_id, "x:1"]):
        assert len(refused(2, "compare", *words)) == 1


@pytest.mark.parametrize(
    ("one", "two", "says"),
    [
        ({}, {}, ""),
        ({"the judges": None}, {"the judges": ["a"]}, ""),
        ({"the judges": ["b"]}, {"the judges": ["a"]}, "the judges"),
        ({"rubric.md": "1"}, {"rubric.md": "2"}, "rubric.md"),
        ({"metric.py": "1"}, {}, "metric.py"),
    ],
)
def test_scores_of_other_metrics_have_no_paired_test(one: dict[str, Any], two: dict[str, Any], says: str) -> None:
    runs = [{"hashes": {name: "" for name in each if "." in name}} for each in (one, two)]
    sides = [ComparedPrompt(run, {}, None, {}, each, PromptNames()) for run, each in zip(runs, (one, two), strict=True)]
    assert scoring_difference(*sides) == (f"scored in different ways ({says}): no paired test" if says else "")


WORDS = st.lists(st.sampled_from(["a", "bb", "ä", " ", "\n", ".", "x1"]), max_size=12).map("".join)


def both_texts(diff: str) -> tuple[str, str]:
    one = re.sub(r"\{\+.*?\+\}", "", re.sub(r"\[-(.*?)-\]", r"\1", diff, flags=re.S), flags=re.S)
    return one, re.sub(r"\[-.*?-\]", "", re.sub(r"\{\+(.*?)\+\}", r"\1", diff, flags=re.S), flags=re.S)


@given(WORDS, WORDS, st.sampled_from([0, 1, 3, COMPARED]))
def test_the_word_diff_holds_both_texts(one: str, two: str, compared: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prompt_texts, "COMPARED", compared)
        diff = word_diff(one, two)
    assert both_texts(diff) == (one, two)
    assert ("[-" in diff or "{+" in diff) == (one != two)


SAME = " ".join(f"word{number}" for number in range(100))


@pytest.mark.parametrize(
    ("one", "two", "diff"),
    [
        ("Answer.", "Answer now.", "Answer{+ now+}."),
        ("the old dog", "the new dog", "the [-old-]{+new+} dog"),
        ("a b", "a b c", "a b{+ c+}"),
        ("one\ntwo", "one two", "one[-\n-]{+ +}two"),
    ],
)
def test_no_blank_is_marked_that_did_not_change(one: str, two: str, diff: str) -> None:
    assert word_diff(one, two) == diff
    long = word_diff(f"{SAME} {one} {SAME}", f"{SAME} {two} {SAME}")
    assert (long.count("…"), len(long) < 220) == (2, True), "long equal parts are left out"


def test_the_word_diff_of_prompts_of_a_book_s_length_ends() -> None:
    words = [f"word{number % 50}" for number in range(20_000)]
    one, two = (" ".join(f"{end}{word}" if n % 100 == 7 else word for n, word in enumerate(words)) for end in "ab")
    found = changes(one, two)
    assert "".join(change.text for change in found if change.kind != "new") == one
    assert "".join(change.text for change in found if change.kind != "gone") == two
    assert [change.text for change in found if change.kind != "same"][:4] == ["aword7", "bword7"] * 2
