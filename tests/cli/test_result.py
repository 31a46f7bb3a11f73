"""What is printed below a result: exact words, nothing for runs that lack it, and no sign where none can be told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent.jobs.search import detectable_line
from agent.release.result import RunResult
from agent.report import findings, wording
from agent.report.run_blocks import SCREEN, run_sections, screen_sections
from agent.report.terminal import lines_of
from agent.stats.preflight import assess, detectable_gains
from tests.cli.world import files, good, good_json, optimize

RESULT: dict[str, Any] = {
    "run_id": "20260101T000000-abc",
    "task": "toy",
    "status": "complete",
    "model": "a/b",
    "seed": 0,
    "baseline": {"dev": 0.5, "test": 0.52},
    "winner": {
        "candidate_id": "c_1", "technique": "few-shot", "format": "inline", "n_examples": 16, "instruction": "Say it.",
        "dev": 0.81, "dev_corrected": 0.79, "test": 0.78, "prompt_tokens": 900,
    },
    "lift": {"diff": 0.26, "ci95": [0.15, 0.36], "p_value": 1e-5, "wins": 30, "losses": 4, "ties": 66, "n": 100},
    "decision": "promote",
    "trials": {"complete": 3, "pruned": 20, "failed": 0},
    "calls": {"model": 900, "proposer": 3, "judge": 0, "cached": 0},
    "tokens": {"prompt": 1000, "cached_prompt": 0, "completion": 10},
    "cost_usd": 0.0,
    "seconds": 1.0,
    "release": "runs/x/prompt.md",
    "ledger_head": "0" * 64,
}  # fmt: skip
FULL = {
    **RESULT,
    "preflight": assess([1.0, 0.0] * 30, [1.0] * 10, 100).as_dict(),
    "attribution": [
        {"part": "examples", "points": 31.4, "ci95": [20.1, 41.0], "how": "measured"},
        {"part": "format", "points": -2.5, "ci95": [-4.9, -0.1], "how": "estimated"},
        {"part": "instruction", "points": 1.2, "ci95": [-3.0, 6.0], "how": "unknown"},
    ],
    "pareto": [
        {
            "candidate_id": "c_1", "dev": 0.81, "prompt_tokens": 1900, "usd_per_1000": 0.12, "latency_s": 0.414,
            "chosen": True,
        },
        {
            "candidate_id": "c_0", "dev": 0.5, "prompt_tokens": 40, "usd_per_1000": 0.0, "latency_s": None,
            "chosen": False,
        },
    ],
}  # fmt: skip
GOLDEN = """
What carried the gain
  part         points         95 % CI  how it is known
  examples      +31.4  +20.1 to +41.0  measured
  format         -2.5    -4.9 to -0.1  estimated from all trials
  instruction       ?    -3.0 to +6.0  unknown
Points lost when the part of your prompt replaces it.

The Pareto front: nothing beats these in score, prompt length and cost
  prompt  chosen   dev  prompt tokens, about  $ per 1,000 calls  latency
  c_1     yes     81.0                 1,900             0.1200   0.41 s
  c_0             50.0                    40             0.0000        -"""
PARTS = [name for name in SCREEN if name not in ("verdict", "result", "prompt", "counts", "released", "next")]
"""The sections that not every run has."""


def blocks(result: dict[str, Any]) -> list[str]:
    return lines_of(run_sections(RunResult.from_json(result), names=PARTS))


def report(result: dict[str, Any]) -> str:
    return "\n".join(lines_of(screen_sections(RunResult.from_json(result))))


def test_the_sections_are_printed_word_for_word() -> None:
    assert "\n".join(blocks(FULL)) == GOLDEN
    assert GOLDEN in report(FULL)
    assert f"before the search: {findings.before_search(RunResult.from_json(FULL))}" in report(FULL).splitlines()


def test_a_run_of_an_older_version_does_not_say_how_many_rows_were_asked_twice() -> None:
    old = {name: told for name, told in FULL["preflight"].items() if name != "noise_rows"}

    def before_search(preflight: dict[str, Any]) -> str:
        return findings.before_search(RunResult.from_json({**FULL, "preflight": preflight}))

    assert before_search(old).endswith("or more; asked twice, 50 % of the rows changed")
    assert "asked twice" not in before_search({**old, "noise": None, "noise_rows": 0})


@pytest.mark.parametrize("empty", [{}, {"preflight": None, "attribution": [], "pareto": []}])
def test_a_run_without_these_keys_prints_as_it_did(empty: dict[str, Any]) -> None:
    assert blocks({**RESULT, **empty}) == []
    shown = [line for line in report(FULL).splitlines() if not line.startswith("before the search: ")]
    assert "\n".join(shown).replace(f"\n{GOLDEN}", "") == report({**RESULT, **empty})


def test_text_in_a_result_cannot_steer_the_terminal() -> None:
    nasty = {**FULL, "attribution": [{**FULL["attribution"][0], "part": "a\x1b[2Jb"}]}
    assert "\x1b" not in "\n".join(blocks(nasty))


def test_the_dry_run_names_the_gain_that_can_be_shown_for_each_assumed_baseline() -> None:
    command = [*files(120), "-m", "openai/gpt-4o-mini", "--max-calls", "300", "--dry-run"]
    printed = good_json(*command)
    rows = printed["plan"]["test_rows"]
    gains = detectable_gains(rows)
    assert printed["detectable_gains"] == {f"{rate:g}": gain for rate, gain in gains.items() if gain <= 1}
    assert good(*command).splitlines()[-1] == detectable_line(gains)
    assert detectable_line({0.5: 0.19, 0.9: float("inf")}) == (
        "the smallest gain that the sealed test can show (80 % power): 19 points if your prompt scores 50, "
        "none if your prompt scores 90"
    )
    json.dumps(printed, allow_nan=False)


def test_what_to_prefer_is_one_of_three() -> None:
    for word in ("best", "cheap", "short"):
        assert (
            optimize(*files(120), "-m", "openai/x", "--max-calls", "300", "--prefer", word, "--dry-run").exit_code == 0
        )
    assert optimize(*files(120), "--prefer", "cheapest", "--dry-run").exit_code == 2


def test_a_search_that_was_cut_short_is_not_said_to_have_found_nothing_better() -> None:
    result = {
        **RESULT,
        "lift": {"diff": 0.0, "n": 40, "wins": 0, "losses": 0, "ties": 40, "ci95": [0.0, 0.0], "p_value": 1.0},
        "decision": "keep_baseline",
        "trials": {"complete": 1, "pruned": 2, "failed": 0},
        "search_ended": "the next call would pass the cap (max_calls = 300); give more",
    }
    assert "before another prompt had seen all of dev" in wording.verdict(RunResult.from_json(result))
    whole = {**result, "search_ended": ""}
    assert wording.verdict(RunResult.from_json(whole)) == "Keep your prompt: nothing better was found"
    alone = {**whole, "trials": {"complete": 1, "pruned": 0, "failed": 0}}
    assert wording.verdict(RunResult.from_json(alone)) == "Your prompt was scored, and nothing was searched"
    left_out = {"candidate_id": "c_2", "dev": 0.778, "baseline": 0.591, "rows": 22, "dev_rows": 44, "p_value": 0.04}
    why = {"is_chance": False, "why": "the search ended before it had seen all of dev", "next": "--max-calls 600"}
    told = report({**whole, "untested": {**left_out, **why}})
    assert "Keep your prompt: a prompt with a higher dev score was not tested" in told
    assert (
        "a prompt scored 77.8 on 22 of 44 dev rows (yours 59.1 there) and was not tested, because the search ended "
        "before it had seen all of dev; next: --max-calls 600"
    ) in " ".join(told.split())
    assert "resume 20260101T000000-abc --fork --max-calls 600" in told


def test_why_candidates_failed_is_said() -> None:
    why = "1 of 4 rows unscored: the provider refused this row"
    result = {**RESULT, "trials": {"complete": 1, "pruned": 0, "failed": 11}, "failed_because": why}
    assert f"11 candidates failed: {why}" in report(result).splitlines()
    assert "failed:" not in report(RESULT)


def test_rows_without_a_score_are_told_where_there_is_one_metric_and_every_reply_can_be_read() -> None:
    def side(mean: float, lost: int) -> dict[str, Any]:
        return {"mean": mean, "ci95": [0.0, 1.0], "n": 26 - lost, "unscored": lost}

    def lines(lost: int) -> list[dict[str, Any]]:
        row = {"field": "", "weight": 1.0, "diff": 0.0, "diff_ci95": [0.0, 0.0], "p_value": 1.0}
        read = {**row, "metric": "readable", "winner": side(1.0, 0), "baseline": side(1.0, 0)}
        return [read, {**row, "metric": "judge", "winner": side(0.9, lost), "baseline": side(0.1, 1)}]

    told = blocks({**RESULT, "metrics": lines(3)})
    assert told[2].endswith("unscored")
    assert told[-1].endswith("1 and 3")
    quiet = [{**row, "winner": side(1.0, 0), "baseline": side(1.0, 0)} for row in lines(0)]
    assert blocks({**RESULT, "metrics": quiet}) == []


def test_scores_on_the_rows_of_both_stand_below_where_one_prompt_lost_some() -> None:
    lift = {**RESULT["lift"], "lost": 20, "baseline": 0.6, "winner": 0.78}
    said = "sealed test scores are over the 100 rows scored for both prompts"
    assert said in report({**RESULT, "lift": lift}).splitlines()

    def meaning(result: dict[str, Any]) -> str:
        return wording.meaning(RunResult.from_json(result))

    assert "your prompt gets 60.0 and the best found 78.0, on 100 rows" in meaning({**RESULT, "lift": lift})
    assert said not in report({**RESULT, "lift": {**lift, "baseline": 0.52}})
    assert "your prompt gets 52.0 and the best found 78.0, on 100 rows" in meaning(RESULT), "an older version"


def test_dollars_that_brought_nothing_stand_beside_the_tokens_that_did() -> None:
    told = report({**RESULT, "cost_usd": 0.0065, "lost_usd": 0.0041})
    assert "$0.0065 (up to $0.0041 of it for failed calls)" in told
    assert "brought nothing" not in report({**RESULT, "lost_usd": 0.0})


def test_a_group_with_too_few_scores_of_one_prompt_has_no_gap_on_that_side() -> None:
    side = {"mean": 0.5, "ci95": [0.2, 0.8], "n": 5, "unscored": 0}
    group = {"value": "de", "winner": side, "baseline": side, "diff": 0.0, "diff_ci95": [0, 0], "p_value": 1.0}
    cut = {"slice": "lang", "groups": [group], "winner_gap": 0.0, "winner_gap_p": 1.0, "baseline_gap": None}
    told = "\n".join(blocks({**RESULT, "slices": [cut]}))
    assert "Largest gap between groups: your prompt -; best found not significant (p = 1)." in told


def test_a_gap_between_groups_is_told_where_it_is_more_than_chance() -> None:
    side = {"mean": 0.5, "ci95": [0.2, 0.8], "n": 5, "unscored": 0}
    group = {"value": "de", "winner": side, "baseline": side, "diff": 0.0, "diff_ci95": [0, 0], "p_value": 1.0}
    gaps = {"winner_gap": 0.4, "winner_gap_p": 0.001, "baseline_gap": 0.3, "baseline_gap_p": 0.2}
    told = "\n".join(blocks({**RESULT, "slices": [{"slice": "lang", "groups": [group], **gaps}]}))
    assert "groups: your prompt not significant (p = 0.2); best found 40.0 points (p = 0.001)" in told


@pytest.mark.parametrize(
    ("diff", "ci95", "p_value", "says"),
    [
        (-0.12, [-0.2, -0.05], 0.001, "the best found is worse, -12.0 points on 100 sealed test rows"),
        (-0.12, [-0.3, 0.05], 0.2, "-12.0 points on 100 sealed test rows is not significant"),
        (-0.02, [-0.1, 0.01], 0.001, "-2.0 points on 100 sealed test rows is not shown, its 95 % interval holds 0"),
        (0.02, [-0.01, 0.1], 0.001, "+2.0 points on 100 sealed test rows is not shown, its 95 % interval holds 0"),
    ],
)
def test_a_loss_that_is_shown_is_called_one(diff: float, ci95: list[float], p_value: float, says: str) -> None:
    lift = {**RESULT["lift"], "diff": diff, "ci95": ci95, "p_value": p_value, "wins": 2, "losses": 20}
    result = RunResult.from_json({**RESULT, "lift": lift, "decision": "keep_baseline", "blocked": ["not shown"]})
    assert wording.verdict(result) == f"Keep your prompt: {says}"
