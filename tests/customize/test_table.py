"""The table of a comparison and the advice in words, out of scores that are given."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.jobs.customize.table import CurvePoint, MeasuredArm, break_even, curve_lines, curve_text, table
from agent.report.job_blocks import job_sections
from agent.report.terminal import lines_of
from agent.results.customize import CustomizeResult, Forgetting


def scores(right: int, of: int = 100) -> list[float]:
    return [1.0] * right + [0.0] * (of - right)


YOURS = MeasuredArm("yours", "your prompt as it is", "prompt", "c_1", scores(20), 0, 0.0, 80, 0.0, 0.3)
BEST = MeasuredArm("best", "the best prompt", "prompt", "c_2", scores(50), 6, 0.0, 400, 0.0, 0.8)
LORA = MeasuredArm(
    "lora",
    "a LoRA adapter",
    "tuned",
    "c_3",
    scores(90),
    160,
    120.0,
    60,
    0.0,
    0.2,
    Forgetting(right=3, same=5, n=20),
    9.8,
    "x/prompt.md",
)
NONE = MeasuredArm("classifier", "no model", "no model", "c_4", scores(40), 160, latency_s=0.0)
ARMS = [YOURS, BEST, LORA, NONE]
ROWS = {"a": 80, "b": 76, "c": 4}

KEYS = {
    "arm", "about", "family", "candidate_id", "test", "ci95", "unscored", "diff", "diff_ci95", "p_value", "labels",
    "train_s", "tokens_per_call", "usd_per_1000", "latency_s", "break_even_calls", "elsewhere", "megabytes", "path",
    "train_usd", "seeds",
}  # fmt: skip


def test_each_arm_has_all_keys() -> None:
    lines, _ = table(ARMS, ROWS, None, 0)
    assert [set(line.to_json()) for line in lines] == [KEYS] * 4


def test_training_is_paid_for_by_the_seconds_that_calls_save() -> None:
    assert break_even(LORA, BEST) == 200
    assert break_even(replace(LORA, latency_s=0.9), BEST) is None
    assert break_even(replace(LORA, latency_s=None), BEST) is None
    assert break_even(BEST, BEST) is None


def said(*arms: MeasuredArm, rows: dict[str, int] = ROWS, calls: int | None = None) -> tuple[str, str]:
    _, advice = table(arms, rows, calls, 0)
    return advice.verdict, advice.text


def test_an_adapter_ahead_of_every_prompt_is_advised_with_what_it_costs() -> None:
    assert said(*ARMS) == (
        "customize",
        "Customize: lora reads 90.0 of 100 sealed rows right, ahead of every prompt; its training is paid for after "
        "200 calls; with the adapter on, 5 of 20 general questions are answered as before, so switch it on for this "
        "task alone; labels with fewer than 5 train rows: c (4).",
    )


def test_a_model_that_was_trained_whole_has_no_adapter_to_switch_on() -> None:
    arms = [replace(arm, arm="full") if arm.arm == "lora" else arm for arm in ARMS]
    verdict, text = said(*arms)
    assert verdict == "customize"
    assert "once trained, 5 of 20 general questions are answered as before, so use it for this task alone" in text


def test_few_calls_speak_against_it() -> None:
    verdict, text = said(*ARMS, calls=50)
    assert verdict == "instruct"
    assert text.startswith("Instruct: best reads 50.0 of 100 sealed rows right; lora is +40.0 points (95 % CI ")
    assert "ahead, and fewer calls are expected than pay for its training" in text


def test_few_rows_a_label_ask_for_more_labels() -> None:
    verdict, text = said(*ARMS, rows={"a": 9, "b": 9, "c": 4})
    assert verdict == "label more"
    assert text.startswith("Label more rows before you customize: lora leads with 90.0, on fewer than 8 train rows")


def test_a_method_within_noise_needs_no_language_model() -> None:
    verdict, text = said(*ARMS[:3], replace(NONE, scores=scores(89)))
    assert (verdict, text) == (
        "no model",
        "You need no language model: classifier reads 89.0 of 100 sealed rows right; lora is +1.0 points (95 % CI "
        "-2.7 to +5.4) ahead, within noise.",
    )


TABLE = """
t on local/m: 100 sealed rows, 160 train rows
  arm         sealed test       95 % CI  against yours         95 % CI  labels  train s  tokens  $/1,000  call s \
 pays from  elsewhere           MB
  yours              20.0  13.3 to 28.9                                      0               80     0.00    0.30
  best               50.0  40.4 to 59.6          +30.0  +21.9 to +39.6       6              400     0.00    0.80
  lora               90.0  82.6 to 94.5          +70.0  +60.4 to +78.1     160      120      60     0.00    0.20 \
       200  5 of 20 as before  9.8
  classifier         40.0  30.9 to 49.8          +20.0  +13.3 to +28.9     160                0     0.00    0.00

sealed test by the number of train rows
  arm   24 rows  160 rows
  lora     70.0      90.0
"""


def result(points: list[CurvePoint]) -> CustomizeResult:
    cost = {"calls": {"model": 9, "cached": 1}, "tokens": {"prompt": 5, "completion": 2}, "cost_usd": 0.0}
    head = {"task": "t", "model": "local/m", "run_id": "r2", "of_run": "r1", "rows": {"test": 100, "train": 160}}
    curve = {"curve": curve_lines(points), "curve_text": curve_text(points, 0), "settings": ()}
    arms, advice = table(ARMS, ROWS, None, 0)
    return CustomizeResult.from_json({**head, "arms": arms, "advice": advice, **curve, **cost, "seconds": 3.0})


def screen(result: CustomizeResult) -> str:
    return "\n".join(lines_of(job_sections(result)))


def test_the_tables_in_a_pipe_and_the_lines_below_them() -> None:
    points = [CurvePoint("lora", 24, scores(70), 9.0), CurvePoint("lora", 160, scores(90), 120.0)]
    shown = screen(result(points))
    assert shown.startswith(TABLE.rstrip())
    assert "from 24 to 160 rows lora gains +20.0 points" in shown
    assert "Customize: lora reads 90.0" in shown
    assert shown.splitlines()[-2:] == ["run r2, prompts of r1", "lora: x/prompt.md; optimize promote r2 --arm lora"]


def test_without_a_curve_there_is_one_table() -> None:
    assert "rows  " not in screen(result([]))


@pytest.mark.parametrize("hostile", ["\x1b[2J", "a\tb"])
def test_names_of_a_ledger_from_elsewhere_cannot_drive_the_terminal(hostile: str) -> None:
    plain = result([])
    arms = [arm.model_copy(update={"arm": hostile}) if arm.arm == "best" else arm for arm in plain.arms]
    shown = screen(plain.model_copy(update={"task": hostile, "run_id": hostile, "arms": tuple(arms)}))
    assert "\x1b" not in shown
    assert "\t" not in shown.partition("\nrun ")[0], "nothing of a table is moved"
