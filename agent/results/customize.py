"""The result of `customize`: prompts, trained models and methods without a language model on one sealed test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from agent.results.base import CostedResult, Interval, Result

Family = Literal["prompt", "tuned", "no model"]
AdviceVerdict = Literal["no model", "instruct", "customize", "label more"]


class OtherTask(Result):
    """A task that the adapter was not trained for: mean scores in [0, 1] of `n` rows with it on and with it off."""

    task: str
    on: float | None
    off: float | None
    n: int


class Elsewhere(Result):
    """General questions and other tasks with a trained model: of `n` questions `right` are answered rightly, `same` as
    before, and `base_right` rightly without the training."""

    right: int
    same: int
    n: int
    base_right: int | None = None
    tasks: tuple[OtherTask, ...] = ()


class SeedScore(Result):
    """The same training with another seed: its mean score on the sealed rows, and seconds of training."""

    seed: int
    test: float | None
    train_s: float


class SeedSpread(Result):
    """The scores of one training with `n` seeds."""

    n: int
    mean: float
    min: float
    max: float
    each: tuple[SeedScore, ...]


class ComparedArm(Result):
    """An arm of a comparison, on the sealed rows.

    Args:
        arm: its name.
        about: what it is.
        family: what answers.
        test: mean score in [0, 1]; None: no row has one.
        diff: its gain over your own prompt, paired by row; None for your own prompt.
        labels: rows with a right answer that it learnt from, shows or picks from.
        train_s, train_usd: seconds and dollars of its training; dollars are None where the price is not known.
        tokens_per_call: prompt and reply, on average.
        usd_per_1000: dollars of 1,000 calls; None: the price is not known.
        latency_s: of one call, alone; None: not measured.
        break_even_calls: calls from which on its training is paid for; None: never, or not known.
        elsewhere: other questions with it; None for what leaves the model as it is.
        seeds: None where it was trained once.
        megabytes: of what is shipped in addition to the model.
        path: of its released prompt, for `load_prompt` and `promote`; "" where none was written.
    """

    arm: str
    about: str
    family: Family
    candidate_id: str
    test: float | None
    ci95: Interval | None
    unscored: int
    diff: float | None
    diff_ci95: Interval | None
    p_value: float | None
    labels: int
    train_s: float
    train_usd: float | None
    tokens_per_call: float
    usd_per_1000: float | None
    latency_s: float | None
    break_even_calls: int | None
    elsewhere: Elsewhere | None
    seeds: SeedSpread | None
    megabytes: float
    path: str


class ArmAdvice(Result):
    """The case of the rule, the arm to use, and both in words."""

    verdict: AdviceVerdict
    arm: str
    text: str


class CurveScore(Result):
    """An arm that learnt from the first `labels` train rows: its score in [0, 1] and seconds of training."""

    arm: str
    labels: int
    test: float | None
    ci95: Interval | None
    train_s: float


class SettingsTried(Result):
    """Settings of a training that were tried on dev; `ended`: why it was not trained further, "" where chosen."""

    learning_rate: float | None = None
    rank: int | None = None
    epochs: int
    dev_loss: float | None
    seconds: float
    diverged: bool
    ended: str


class ArmSettings(Result):
    """The settings that an arm was trained with; `tried` is empty where there was one."""

    arm: str
    chosen: Mapping[str, Any]
    tried: tuple[SettingsTried, ...]


class ProviderTraining(Result):
    """The training at a provider."""

    job: str
    model: str
    seconds: float
    usd: float | None


class RowCounts(Result):
    """Rows of train and of the sealed test."""

    train: int
    test: int


class CustomizeResult(CostedResult):
    """What `customize` found. `verdict` is the case of the rule, `arm` the arm to use, `text` both in words;
    `curve_text` says where arms cross, "" without a curve."""

    kind: Literal["customize"] = "customize"
    run_id: str
    of_run: str
    task: str
    model: str
    rows: RowCounts
    arms: tuple[ComparedArm, ...]
    advice: ArmAdvice
    curve: tuple[CurveScore, ...]
    curve_text: str
    settings: tuple[ArmSettings, ...]
    fine_tuning: ProviderTraining | None = None
    status: Literal["complete"] = "complete"

    @property
    def verdict(self) -> AdviceVerdict:
        """The case of the rule."""
        return self.advice.verdict

    @property
    def arm(self) -> str:
        """The arm to use."""
        return self.advice.arm

    @property
    def text(self) -> str:
        """The advice in words."""
        return self.advice.text
