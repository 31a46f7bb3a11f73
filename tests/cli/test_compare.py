"""`optimize compare`: what differs is named, and the paired test is the one that the rows give by hand."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.ledger.store import Ledger, NewCandidate
from agent.prompt.prompt_candidate import PromptCandidate
from agent.report import prompt_texts
from agent.report.compare import ComparedPrompt, scoring_difference
from agent.report.prompt_texts import COMPARED, changes, word_diff
from agent.stats.intervals import paired_difference
from agent.types import Trial
from tests.cli.test_untrusted import CONTROL, EVIL
from tests.cli.world import INSTRUCTION, compatible, files, good, good_json, learner, optimize, refused
from tests.conftest import Made
from tests.ledger.ledgers import read
from tests.wire import WireServer

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


def check(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert {key: found[key] for key in expected} == expected
    assert found["ci95"][0] <= found["diff"] <= found["ci95"][1]


def test_two_runs_are_compared_by_their_winners() -> None:
    command = files(200)
    with WireServer(learner) as server:
        command += ["-m", compatible(server), "--proposer", "none", "-q"]
        one = good_json(*command, "--max-calls", "200")
        other = good_json(*command, "--max-calls", "300", "--price", "1,2")
    found = good_json("compare", one["run_id"], other["run_id"])
    differs = {name for name, fact in found["facts"].items() if not fact["same"]}
    assert {"id", "options.max_calls", "options.price", "budget.max_calls"} <= differs
    assert not {name for name in differs if name.startswith("hashes.")}
    assert found["facts"]["options.max_calls"] == {"a": 200, "b": 300, "same": False}
    assert found["facts"]["winner test"]["b"] == other["winner"]["test"]
    assert found["facts"]["lift ci95"]["a"] == one["lift"]["ci95"]
    sides = [(result["run_id"], result["winner"]["candidate_id"]) for result in (one, other)]
    for split in ("test", "dev"):
        check(found["paired"][split], by_hand(split, *sides))
    words = good("compare", one["run_id"], other["run_id"])
    assert "options.max_calls\t200\t300\tdiffers" in words
    assert f"B minus A on {found['paired']['test']['n']} test rows" in words
    back = good_json("compare", other["run_id"], one["run_id"])["paired"]["test"]
    assert back["diff"] == pytest.approx(-found["paired"]["test"]["diff"])


def test_two_trials_are_compared_on_the_rows_of_both(two_runs: Made) -> None:
    run_id = two_runs[0]["run_id"]
    trials = good_json("history", run_id)["trials"]
    base, child = trials[0], next(trial for trial in trials if trial["operator"].startswith("instruction:proposed"))
    found = good_json("compare", f"{run_id}:0", f"{run_id}:{child['number']}")
    check(found["paired"]["dev"], by_hand("dev", (run_id, base["candidate_id"]), (run_id, child["candidate_id"])))
    assert found["facts"]["mean"] == {"a": base["mean"], "b": child["mean"], "same": base["mean"] == child["mean"]}
    assert found["examples"] == {"a": base["demos"], "b": child["demos"]}
    assert found["instruction"]["b"] == child["instruction"]
    words = good("compare", f"{run_id}:0", f"{run_id}:{child['number']}")
    assert "[-" in words
    assert "{+" in words


def test_runs_on_other_rows_have_no_paired_test(two_runs: Made) -> None:
    first, second = two_runs  # of other seeds, and so of other splits
    found = good_json("compare", first["run_id"], second["run_id"])
    assert found["paired"] == {}
    assert found["facts"]["hashes.test"]["same"] is False
    assert "no paired test" in good("compare", first["run_id"], second["run_id"])


def test_scores_of_other_metrics_have_no_paired_test_and_it_says_why() -> None:
    files(120)
    good("init", "t", "--from", "rows.csv", "--target", "label", "--prompt", "p.txt")
    toml = Path("tasks/t/task.toml")
    text = toml.read_text("utf-8")
    with WireServer(learner) as server:
        run = ("run", "t", "-m", compatible(server), "--max-calls", "200", "-n", "1", "-q")
        one = good_json(*run)["run_id"]
        toml.write_text(text.replace(INSTRUCTION, f"{INSTRUCTION} Be brief."), "utf-8")
        reworded = good_json(*run)["run_id"]
        toml.write_text(f'{text}\n[[metrics]]\nname = "choice"\n\n[[metrics]]\nname = "contains"\n', "utf-8")
        other = good_json(*run)["run_id"]
    found = good_json("compare", one, reworded)
    assert (set(found["paired"]), found["not_tested"]) == ({"test", "dev"}, "")
    assert found["facts"]["hashes.task.toml"]["same"] is False
    found = good_json("compare", one, other)
    why = "scored in different ways (the metrics, the weights of the metrics): no paired test"
    assert (found["paired"], found["not_tested"]) == ({}, why)
    assert why in good("compare", f"{one}:0", f"{other}:0")


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
def test_what_scores_were_made_by_must_be_alike(one: dict[str, Any], two: dict[str, Any], says: str) -> None:
    sides = [ComparedPrompt({"hashes": {n: "" for n in each if "." in n}}, {}, None, {}, each) for each in (one, two)]
    assert scoring_difference(*sides) == (f"scored in different ways ({says}): no paired test" if says else "")


def test_a_prompt_is_no_different_from_itself(two_runs: Made) -> None:
    run_id = two_runs[0]["run_id"]
    found = good_json("compare", run_id, run_id)
    assert all(fact["same"] for fact in found["facts"].values())
    assert found["paired"]["test"]["diff"] == 0
    assert found["paired"]["test"]["p_value"] == 1
    assert "(the same)" in good("compare", run_id, run_id)


def test_what_cannot_be_compared_is_told_in_one_line(two_runs: Made) -> None:
    run_id = two_runs[0]["run_id"]
    for words in (["x", "y"], [run_id, f"{run_id}:999"], [run_id, "x:1"]):
        assert len(refused(2, "compare", *words)) == 1


def test_no_prompt_steers_a_terminal(two_runs: Made) -> None:
    run_id = two_runs[0]["run_id"]
    ledger = Ledger(DB)
    candidate = PromptCandidate("zero-shot", "turns", f"Say {EVIL}", role=EVIL)
    ledger.add_candidate(run_id, NewCandidate(9, candidate.shown(), (), EVIL, None, EVIL))
    ledger.put_trial(run_id, Trial(99, 9, candidate.id, "failed", 0, None, None, EVIL))
    ledger.close()
    for more in ([], ["--json"]):
        result = optimize("compare", f"{run_id}:0", f"{run_id}:99", *more)
        assert result.exit_code == 0
        assert not CONTROL.search(result.stdout + result.stderr)


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


def test_the_word_diff_of_prompts_of_a_book_s_length_ends() -> None:
    words = [f"word{number % 50}" for number in range(20_000)]
    one, two = (" ".join(f"{end}{word}" if n % 100 == 7 else word for n, word in enumerate(words)) for end in "ab")
    found = changes(one, two)
    assert "".join(change.text for change in found if change.kind != "new") == one
    assert "".join(change.text for change in found if change.kind != "gone") == two
    assert [change.text for change in found if change.kind != "same"][:4] == ["aword7", "bword7"] * 2


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


def test_long_equal_parts_are_left_out_around_what_changed() -> None:
    same = " ".join(f"word{number}" for number in range(100))
    diff = word_diff(f"{same} old {same}", f"{same} new {same}")
    assert "[-old-]{+new+}" in diff
    assert diff.count("…") == 2
    assert len(diff) < 200
