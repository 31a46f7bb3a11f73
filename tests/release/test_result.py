"""The result of a run is one typed object; its JSON is what --json prints and the ledger keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from agent.errors import InputError
from agent.release.result import RunResult, search_result
from tests.cases import each_case

SIDE = {"mean": 0.5, "ci95": [0.25, 0.75], "n": 40, "unscored": 1}
DIFFERENCE = {"diff": 0.1, "diff_ci95": [0.0, 0.2], "p_value": 0.05}
STEADY = {
    "k": 2, "rows": 9, "agreement": 0.9, "entropy": 0.1, "pass_at_k": 1.0, "pass_hat_k": 0.8, "spread": 0.05,
}  # fmt: skip
COUNT = {
    "right": 20, "partly": 3, "wrong": 16, "unscored": 1, "unreadable": 2, "unreadable_rows": ["r1", "r9"],
    "readable": 37, "different": 2, "different_right": 3,
}  # fmt: skip
BY_LABEL = {
    "scores": [
        {"label": "billing", "support": 30, "said": 20, "right": 19, "precision": 0.95, "recall": 0.6},
        {"label": "account", "support": 9, "said": 0, "right": 0, "precision": None, "recall": 0.0},
    ],
    "cells": [{"label": "billing", "said": "billing", "rows": 19}, {"label": "account", "said": None, "rows": 9}],
}
SIZE = {
    "technique": "few-shot", "format": "inline", "n_examples": 4, "prompt_tokens": 90, "tokens_a_call": 140,
    "role": "R",
}  # fmt: skip
WHOLE: dict[str, Any] = {
    "run_id": "20260101T000000-abc",
    "task": "toy",
    "status": "budget",
    "model": "a/b",
    "seed": 7,
    "baseline": {"dev": 0.5, "test": None, "dev_rows": None},
    "winner": {
        "candidate_id": "c_1", "technique": "few-shot", "format": "inline", "n_examples": 4, "instruction": "Say it.",
        "dev": 0.7, "dev_corrected": None, "test": 0.62, "prompt_tokens": 90, "picks": None, "passages": None,
        "tokens_a_call": 140,
    },
    "lift": {
        "diff": 0.12, "ci95": [0.02, 0.22], "p_value": 0.01, "wins": 9, "losses": 3, "ties": 28, "n": 40,
        "lost": 1, "diff_if_wrong": 0.1, "baseline": 0.5, "winner": 0.62,
    },
    "decision": "keep_baseline",
    "trials": {"complete": 3, "pruned": 2, "failed": 0, "incomplete": 1},
    "release": "runs/x/prompt.md",
    "search_ended": "the next call would pass the cap",
    "failed_because": "",
    "yardsticks": [
        {"name": "largest class", "candidate_id": "k", "trained_on": 90, "dev": 0.2, "test": 0.3, "ci95": [0.1, 0.5],
         **DIFFERENCE},
        {"name": "nearest", "candidate_id": "n", "trained_on": 90, "dev": None, "test": None, "ci95": None,
         "diff": None, "diff_ci95": None, "p_value": None},
    ],
    "uncorrected": "another rule",
    "metrics": [
        {"metric": "readable", "field": "", "weight": 0.0, "winner": SIDE, "baseline": SIDE, **DIFFERENCE,
         "signature": ""},
        {"metric": "bleu", "field": "text", "weight": 1.0, "winner": SIDE, "baseline": SIDE, **DIFFERENCE,
         "signature": "nrefs:1"},
    ],
    "slices": [
        {"slice": "lang", "groups": [{"value": "de", "winner": SIDE, "baseline": SIDE, **DIFFERENCE}],
         "winner_gap": 0.1, "winner_gap_p": 0.5, "baseline_gap": None, "baseline_gap_p": None},
    ],
    "consistency": {"winner": STEADY, "baseline": None},
    "variety": [
        {"field": "text", "winner": {"field": "text", "n": 9, "distinct_2": 0.5, "openings": 0.25}, "baseline": None},
    ],
    "retrieval": None,
    "judges": [
        {"metric": "judge", "judge_id": "j", "models": ["a/b", "c/d"], "mode": "pairwise", "trusted": False,
         "why": "never calibrated", "kappa": 0.3, "ci95": [0.1, 0.5], "compared": 9, "turned": 2},
    ],
    "blocked": ["the judge a/b, c/d (judge) is not trusted: never calibrated"],
    "blocked_codes": ["judge_untrusted"],
    "preflight": {"noise": 0.1, "noise_rows": 10, "headroom": 0.5, "headroom_ci95": [0.4, 0.6], "detectable": None,
                  "worth": True, "why": "something is left"},
    "attribution": [{"part": "demos", "points": 12.5, "ci95": [1.0, 20.0], "how": "measured", "rows": 40}],
    "pareto": [
        {"candidate_id": "c_1", "dev": 0.7, "prompt_tokens": 90, "usd_per_1000": None, "latency_s": 0.25,
         "chosen": True, "tokens_a_call": 140},
    ],
    "parameters": {"max_tokens": 20, "temperature": 0.0},
    "answers": {"winner": COUNT, "baseline": {**COUNT, "unreadable": 0, "unreadable_rows": []}},
    "labels": [{"field": "team", "labels": ["billing", "account"], "winner": BY_LABEL, "baseline": BY_LABEL}],
    "tools": [],
    "fields": [],
    "change": {
        "winner": SIZE, "baseline": {**SIZE, "role": ""}, "instruction": True, "keeps": False, "tools": [],
        "answer": [], "texts": [],
    },
    "proposer": {"model": "e/f", "planned": 9, "asked": 3, "refused": 1, "failed": 0, "tried": 4, "finalists": 1,
                 "won": False, "why_not": "", "points": None, "operators": [], "proposals": []},
    "to_show": {"gain": 0.12, "rows_needed": 310, "rows_tested": 40, "rows_there": 160, "max_calls": 920,
                "other_caps": ["--max-cost"]},
    "human_score": 0.9,
    "calibration": None,
    "cheaper": None,
    "untested": None,
    "migration": None,
    "calls": {"model": 90, "proposer": 1, "judge": 2, "cached": 3},
    "tokens": {"prompt": 1000, "cached_prompt": 10, "completion": 20},
    "limited": 1,
    "overspent": "paid $2, which passes the cap (max_cost = 1) by $1",
    "cost_usd": 2.0,
    "lost_usd": 0.5,
    "unpriced": ["c/d"],
    "seconds": 1.5,
    "ledger_head": "0" * 64,
}  # fmt: skip
"""All keys, in their order."""
REQUIRED = (
    "run_id", "task", "status", "model", "seed", "baseline", "winner", "lift", "decision", "trials", "release",
    "calls", "tokens", "cost_usd", "seconds",
)  # fmt: skip


def test_what_is_read_is_written_again_key_for_key_and_in_order() -> None:
    result = RunResult.from_json(WHOLE)
    assert json.dumps(result.to_json()) == json.dumps(WHOLE)
    assert RunResult.from_json(result.to_json()) == result
    found = search_result(WHOLE, Path("a/ledger.db"))
    assert found is not None
    assert (found.ledger, "ledger" in found.to_json()) == (Path("a/ledger.db"), False)
    assert (found.calls["cached"], found.calls_made) == (3, {"model": 90, "proposer": 1, "judge": 2})
    assert (found.lift.ci95, result.release.path) == ((0.02, 0.22), Path("runs/x/prompt.md"))
    assert found.release.path == Path(f"a/{WHOLE['run_id']}/prompt.md"), "files are looked for next to the ledger"
    assert found.slices[0].groups[0].side("winner").mean == 0.5
    assert not found.is_own
    assert RunResult.from_json({**WHOLE, "blocked": [], "blocked_codes": []}).is_own
    assert not RunResult.from_json({**WHOLE, "blocked": [], "decision": "promote"}).is_own
    with pytest.raises(ValidationError, match="frozen"):
        found.seed = 1  # type: ignore[misc]
    assert search_result(None) is search_result({"kind": "check"}) is None


@each_case("key", WHOLE)
def test_a_key_may_be_missing_unless_it_is_required(key: str) -> None:
    without = {name: value for name, value in WHOLE.items() if name != key}
    if key not in REQUIRED:
        assert list(RunResult.from_json(without).to_json()) == list(WHOLE)
        return
    with pytest.raises(InputError, match=f"{key}: Field required; the result is of another version"):
        RunResult.from_json(without)


@each_case(
    "changed, why",
    [
        ({"new": 1}, "Extra inputs .*; the result is of another version"),
        ({"lift": {**WHOLE["lift"], "newer": 2}}, "Extra inputs .*; the result is of another version"),
        ({"lift": {**WHOLE["lift"], "diff": float("nan")}}, r"lift\.diff: Input should be a finite number"),
        ({"lift": {**WHOLE["lift"], "diff": float("inf")}}, r"lift\.diff: Input should be a finite number"),
    ],
)
def test_unknown_keys_and_numbers_that_json_has_no_word_for_are_refused(changed: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        RunResult.from_json({**WHOLE, **changed})
