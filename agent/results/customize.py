"""The result of `customize`: prompts, trained models and methods without a language model on the same test rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from agent.results.base import CostedResult, Interval, Result

Family = Literal["prompt", "tuned", "no model"]
AdviceVerdict = Literal["no model", "instruct", "customize", "label more"]


class OtherTask(Result):
    """Another task, as a forgetting test: mean scores in [0, 1] of `n` rows with the adapter on and off."""

    task: str
    on: float | None
    off: float | None
    n: int


class Forgetting(Result):
    """Forgetting test of a trained model: of `n` general questions `right` correct and `same` as before training."""

    right: int
    same: int
    n: int
    base_right: int | None = None
    tasks: tuple[OtherTask, ...] = ()


class SeedScore(Result):
    """The same training with another seed: mean test score, and training time in seconds."""

    seed: int
    test: float | None
    train_s: float


class SeedSpread(Result):
    """Mean and spread of one training over `n` seeds."""

    n: int
    mean: float
    min: float
    max: float
    each: tuple[SeedScore, ...]


class ComparedArm(Result):
    """One arm of a comparison, on the test rows; `diff` is the gain over your prompt, None for your prompt.

    `labels`: labelled rows used. `train_s`: training time in seconds; `train_usd`: None: price unknown.
    `tokens_per_call`: mean of prompt and reply. `break_even_calls`: calls after which training has paid off; None:
    never, or unknown. `elsewhere`: None if the model is unchanged; `seeds`: None if trained once. `megabytes`: shipped
    in addition to the model. `path`: its released prompt, or "".
    """

    arm: str
    about: str
    family: Family
    candidate_id: str
    test: float | None
    ci95: Interval | None
    unscored: int
    diff: float | None = None
    diff_ci95: Interval | None = None
    p_value: float | None = None
    labels: int
    train_s: float = 0.0
    train_usd: float | None = 0.0
    tokens_per_call: float = 0.0
    usd_per_1000: float | None = 0.0
    latency_s: float | None = None
    break_even_calls: int | None = None
    elsewhere: Forgetting | None = None
    seeds: SeedSpread | None = None
    megabytes: float = 0.0
    path: str = ""


class ArmAdvice(Result):
    """The recommended arm, the case of the decision rule, and both as text."""

    verdict: AdviceVerdict
    arm: str
    text: str


class CurveScore(Result):
    """Test score in [0, 1] and training seconds of an arm trained on the first `labels` train rows."""

    arm: str
    labels: int
    test: float | None
    ci95: Interval | None
    train_s: float


class SettingsTried(Result):
    """Training settings tried on dev; `ended`: why training stopped early, "" if chosen."""

    learning_rate: float | None = None
    rank: int | None = None
    epochs: int
    dev_loss: float | None
    seconds: float
    diverged: bool
    ended: str


class ArmSettings(Result):
    """The training settings of an arm; `tried` is empty if there was no choice."""

    arm: str
    chosen: Mapping[str, Any]
    tried: tuple[SettingsTried, ...]


class ProviderTraining(Result):
    """Training hosted by a provider."""

    job: str
    model: str
    seconds: float
    usd: float | None


class RowCounts(Result):
    """Number of train and test rows."""

    train: int
    test: int


class CustomizeResult(CostedResult):
    """The result of `customize`; `curve_text`: where the learning curves of arms cross, "" without a curve."""

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
        """The case of the decision rule."""
        return self.advice.verdict

    @property
    def arm(self) -> str:
        """The recommended arm."""
        return self.advice.arm

    @property
    def text(self) -> str:
        """The recommendation as text."""
        return self.advice.text
