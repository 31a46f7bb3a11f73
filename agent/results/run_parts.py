"""Parts of a run's result: the two prompts, their difference, the proposer, and open questions.

Scores are in [0, 1], differences in [-1, 1], intervals (low, high) at 95 %.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from agent.results.base import Interval, Result, TwoSided, absent

BlockCode = Literal[
    "gain_not_shown",
    "loss_not_ruled_out",
    "gain_from_lost_rows",
    "no_better_than_constant",
    "metric_worse",
    "slice_worse",
    "judge_untrusted",
]
"""Why the gate of `optimize promote` objects (`gate.py`)."""
BLOCKS: Mapping[BlockCode, tuple[str, str]] = {
    "gain_not_shown": ("The gain on the sealed test is not significant.", "Use more test rows: see `to_show`."),
    "loss_not_ruled_out": ("The migration may lose more than --margin.", "Use more test rows, or a larger --margin."),
    "gain_from_lost_rows": ("The gain vanishes if unscored rows count as wrong.", "Fix the provider, and run again."),
    "no_better_than_constant": ("A constant answer scores as well.", "Check the metric and the labels."),
    "metric_worse": ("Another metric got worse.", "Change the metrics' weights, or accept it with --override."),
    "slice_worse": ("The score of a slice got worse.", "Add rows of this slice, or accept it with --override."),
    "judge_untrusted": ("The judge is not trusted.", "Run `optimize judge calibrate`."),
}
"""What each code means, and what to do."""


class Winner(Result):
    """The best prompt found; scores are None if nothing was scored.

    `dev_corrected`: `dev` without the selection bias. `prompt_tokens`: estimate without row and chat template.
    `n_examples`: fixed and retrieved ones. `tokens_a_call`: as in `PromptSize`; `calls_a_row`: the mean, where it
    varies.
    """

    candidate_id: str
    technique: str
    format: str
    n_examples: int
    instruction: str
    dev: float | None
    dev_corrected: float | None
    test: float | None
    prompt_tokens: int
    picks: Mapping[str, Any] | None = None
    passages: Mapping[str, Any] | None = None
    tokens_a_call: int = 0
    calls_a_row: float | None = absent()


class Baseline(Result):
    """Your own prompt; `dev_rows`: None if it was scored on all dev rows."""

    dev: float | None
    test: float | None
    dev_rows: int | None = None


class PairedResult(Result):
    """Difference of two means in [-1, 1] over the same `n` rows, with its 95 % interval and a two-sided p-value."""

    diff: float
    ci95: Interval
    p_value: float
    wins: int
    losses: int
    ties: int
    n: int


class Lift(PairedResult):
    """Gain of the winner on the test rows with scores of both prompts.

    `lost` rows have a score with the baseline alone; `diff_if_wrong` counts them as wrong. `baseline` and `winner` are
    means over the `n` rows.
    """

    lost: int = 0
    diff_if_wrong: float | None = None
    baseline: float | None = None
    winner: float | None = None


class OtherBaseline(Result):
    """A further baseline on the sealed test, such as no file.

    `lift`: the winner's gain over it; None if it won, or where no row has both scores. `why` it has no score.
    """

    name: str
    candidate_id: str
    test: float | None
    lift: Lift | None
    why: str = ""


class Yardstick(Result):
    """A method without a language model, trained on `trained_on` rows; `diff`: how much better the winner is."""

    name: str
    candidate_id: str
    trained_on: int
    dev: float | None
    test: float | None
    ci95: Interval | None
    diff: float | None
    diff_ci95: Interval | None
    p_value: float | None


# -- the search -------------------------------------------------------------------------------------------------------


class Preflight(Result):
    """The preflight estimate before the search; None: unknown, or no gain can be shown.

    `noise`: the share of `noise_rows` whose score changed when asked twice; `headroom`: room above the baseline;
    `detectable`: the smallest gain that the test rows can show.
    """

    noise: float | None = None
    noise_rows: int | None = None
    headroom: float | None = None
    headroom_ci95: Interval | None = None
    detectable: float | None = None
    worth: bool = True
    why: str = ""


class Carried(Result):
    """The gain of one part of the winner in points (-100 to 100), measured on `rows` rows or else estimated."""

    part: str
    points: float
    ci95: Interval
    how: Literal["measured", "estimated", "unknown"]
    rows: int = 0


class ParetoRow(Result):
    """A candidate on the Pareto front of score, length and dollars; `tokens_a_call`: measured, prompt and reply."""

    candidate_id: str
    dev: float
    prompt_tokens: int
    usd_per_1000: float | None = None
    latency_s: float | None = None
    chosen: bool = False
    tokens_a_call: int = 0


# -- the prompt -------------------------------------------------------------------------------------------------------


class PromptSize(Result):
    """Design and length of a prompt; `role` is its opening role sentence, or "".

    `prompt_tokens`: estimate without the row. `tokens_a_call`: measured mean of prompt and reply; 0 if unknown.
    """

    technique: str
    format: str
    n_examples: int
    prompt_tokens: int
    tokens_a_call: int = 0
    role: str = ""


class Change(TwoSided[PromptSize]):
    """What the winner changes in your prompt.

    `instruction`: the text differs; `keeps`: it still contains yours; `tools`: changed tool texts, as `TOOL` and
    `TOOL.ARGUMENT`; `answer`: what is said of the fields of a JSON answer, a clause each;
    `texts`: names of the changed prompts or texts of your program.
    """

    winner: PromptSize
    baseline: PromptSize
    instruction: bool = False
    keeps: bool = False
    tools: tuple[str, ...] = ()
    answer: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()


class OperatorUse(Result):
    """Outcome of one proposer operator.

    `refused`: unusable replies. `dropped`: proposals that broke more than they fixed on their target rows. `finalists`:
    saw all dev rows. `points`: mean change against the parent prompt on shared rows; None: no comparison.
    """

    operator: str
    asked: int
    refused: int = 0
    dropped: int = 0
    tried: int = 0
    finalists: int = 0
    points: float | None = None


class ProposalFate(Result):
    """One proposal and its outcome.

    `rows`: ids of the dev rows it targets; empty: all. `instruction`: its name among the run's instructions. `before`
    and `after`: mean scores on the rows of both prompts, in [0, 1]; None: not compared. `became`: `refused`, `dropped`,
    `waiting`, `tried`, `finalist` or `winner`.
    """

    number: int
    operator: str
    hypothesis: str = ""
    rows: tuple[str, ...] = ()
    instruction: str = ""
    refused: str = ""
    parent_id: str | None = None
    before: float | None = None
    after: float | None = None
    became: str = ""


class ProposerUse(Result):
    """Outcome of the model that writes instructions.

    `planned`: upper bound of its calls in the plan; `asked`: calls made, cached ones included; `refused`: replies
    without a usable instruction; `failed`: calls without a reply. `tried`: scored prompts with one of its instructions
    (None: the strategy does not say); `finalists`: those that saw all dev rows. `won`: whether the winner has one.
    `points`: lead of the best such prompt over the best without, on the dev rows of both.
    """

    model: str = ""
    planned: int = 0
    asked: int = 0
    refused: int = 0
    failed: int = 0
    tried: int | None = None
    finalists: int = 0
    won: bool = False
    why_not: str = ""
    points: float | None = None
    operators: tuple[OperatorUse, ...] = ()
    proposals: tuple[ProposalFate, ...] = ()


class ToShow(Result):
    """Sample size needed to confirm a gain that was not significant.

    `rows_needed`: test rows for 80 % power; None: more than ten million. `rows_tested`: within the budget;
    `rows_there`: in the test split. `max_calls`: the smallest sufficient cap on calls (None: the budget was no limit);
    `other_caps`: options of other caps that must grow as well.
    """

    gain: float
    rows_needed: int | None
    rows_tested: int
    rows_there: int
    max_calls: int | None = None
    other_caps: tuple[str, ...] = ()


class Untested(Result):
    """A prompt that leads yours on dev and was not tested.

    `dev` and `baseline`: means in [0, 1] on the `rows` dev rows that both saw. `is_chance`: the prompt saw only a part
    of dev, and chance explains the lead. `why`: a clause after "because". `next`: options of a run that may test it, or
    "".
    """

    candidate_id: str
    dev: float
    baseline: float
    rows: int
    dev_rows: int
    p_value: float
    is_chance: bool
    why: str
    next: str = ""


class NotWorse(Result):
    """Non-inferiority of one prompt against another over `n` paired rows.

    `low`: one-sided 95 % limit of `diff`, both in [-1, 1]. `shown`: a loss of `margin` or more is ruled out.
    """

    diff: float
    low: float
    margin: float
    n: int
    shown: bool

    @property
    def accepted(self) -> str:
        """The accepted loss in words."""
        return f"{100 * self.margin:g} points"


class Cheaper(Result):
    """A winner that is cheaper than `best`, the best prompt on dev (`--prefer cheap`).

    `saved`: the share of dollars (or tokens) saved per call. `dev` chose the winner; `test` compares both on the test
    rows, where `best_test` is the mean of the best.
    """

    best: str
    saved: float
    saved_in: Literal["dollars", "tokens"]
    dev: NotWorse
    best_test: float | None = None
    test: NotWorse | None = None


class Migrated(Result):
    """The source of a migration: `run` released its candidate as `version` for `model`, and `test` compares the new
    model.
    """

    run: str
    candidate_id: str
    version: str
    model: str
    test: NotWorse
