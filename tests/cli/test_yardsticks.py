"""Every run says what is reached without a language model, and a winner that one constant answer matches stays back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.cli.world import compatible, files, good, good_json, learner
from tests.wire import WireServer

CALLS = ("--max-calls", "300", "--proposer", "none", "--price", "0,0")
NAMES = ["largest class", "classifier", "nearest"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def constant(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
    """A model that says the same to every row once it is shown examples, and nothing of use before."""
    return "billing" if len(messages) > 3 or "Examples:" in messages[-1]["content"] else "I am not sure"


def test_the_run_the_report_the_books_and_a_replay_know_them() -> None:
    with WireServer(learner) as server:
        result = good_json(*files(), "-m", compatible(server), *CALLS)
        sent = len(server.requests)
    told = result["yardsticks"]
    assert [each["name"] for each in told] == NAMES
    assert sent == sum(result["calls"][role] for role in ("target", "proposer", "judge")), "they cost no call"
    largest, classifier, _ = told
    assert classifier["test"] > largest["test"]
    assert classifier["ci95"][0] <= classifier["test"] <= classifier["ci95"][1]
    assert largest["diff"] == pytest.approx(result["winner"]["test"] - largest["test"])
    screen = good("show", result["run_id"])
    page = Path("report.html")
    good("report", result["run_id"], "-o", page)
    for surface in (screen, page.read_text("utf-8")):
        assert re.search(rf"ithout a language model, trained on {classifier['trained_on']} rows", surface)
        assert f"{100 * classifier['test']:.1f}" in surface
    assert "PROBLEM" not in good("audit", "check", result["run_id"])
    assert "the same" in good("reproduce", result["run_id"], "--offline")


def test_a_winner_that_one_answer_for_all_rows_matches_is_held_back() -> None:
    with WireServer(constant) as server:
        result = good_json(*files(), "-m", compatible(server), *CALLS, "--anyway")
    assert result["lift"]["p_value"] < 0.05, "it beats your prompt, which got nothing right"
    assert result["decision"] == "keep_baseline"
    (why,) = result["blocked"]
    assert "answering every row alike (largest class" in why
    assert "without a language model, classifier trained on" in good("show", result["run_id"])
