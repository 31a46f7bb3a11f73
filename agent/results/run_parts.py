"""Parts of a run's result: the two prompts, their difference, the proposer, and open questions.

Scores are in [0, 1], differences in [-1, 1], intervals (low, high) at 95 %.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from agent.results.base import Interval, Result, TwoSided

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
    `n_examples`: fixed and retrieved ones; `picks` and `passages`: how examples and passages are retrieved for each
    input. `tokens_a_call`: as in `PromptSize`.
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


class Baseline(Result):
    """Your own prompt; scores are None if nothing was scored.

    `dev_rows`: the number of dev rows, if fewer than all were enough to tell it from the winner; None: all.
    """

    dev: float | None
    test: float | None
    dev_rows: int | None = None


class Lift(Result):
    """Gain of the winner on the `n` test rows that both prompts have a score on, with the paired test.

    `lost` rows have a score with the baseline alone; `diff_if_wrong` counts them as wrong. `baseline` and `winner`:
    means over the `n` rows.
    """

    diff: float
    ci95: Interval
    p_value: float
    wins: int
    losses: int
    ties: int
    lost: int = 0
    diff_if_wrong: float | None = None
    n: int
    baseline: float | None = None
    winner: float | None = None


class Yardstick(Result):
    """A method without a language model, trained on `trained_on` rows, on the same test rows.

    `diff`: how much better the winner is; None if no row has both scores.
    """

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
    """The preflight estimate before the search (`search/preflight.py`).

    `noise`: the share of `noise_rows` whose score changed when asked twice; `headroom`: room above the baseline;
    `detectable`: the smallest gain that the test rows can show. None: unknown, or no gain can be shown.
    """

    noise: float | None = None
    noise_rows: int | None = None
    headroom: float | None = None
    headroom_ci95: Interval | None = None
    detectable: float | None = None
    worth: bool = True
    why: str = ""


class Carried(Result):
    """The gain of one part of the winner in points (-100 to 100), with its interval and source.

    `rows`: on which it was measured; 0 if it was estimated.
    """

    part: str
    points: float
    ci95: Interval
    how: Literal["measured", "estimated", "unknown"]
    rows: int = 0


class ParetoRow(Result):
    """A candidate on the Pareto front of score, `prompt_tokens` and US dollars per 1,000 calls.

    None: unknown. `tokens_a_call`: measured, prompt and reply.
    """

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

    `prompt_tokens`: estimate without the row. `tokens_a_call`: measured mean of prompt and reply; 0 if the provider
    reports none.
    """

    technique: str
    format: str
    n_examples: int
    prompt_tokens: int
    tokens_a_call: int = 0
    role: str = ""


class Change(TwoSided[PromptSize]):
    """What the winner changes in your prompt.

    `instruction`: the text differs; `keeps`: it differs and still contains yours; `tools`: the changed tool texts, as
    `TOOL` and `TOOL.ARGUMENT`.
    """

    winner: PromptSize
    baseline: PromptSize
    instruction: bool = False
    keeps: bool = False
    tools: tuple[str, ...] = ()


class OperatorUse(Result):
    """Outcome of one proposer operator.

    Args:
        asked: proposals requested.
        refused: unusable replies.
        dropped: proposals that broke more than they fixed on the rows they targeted.
        tried: scored proposals, finalists included.
        finalists: proposals that saw all dev rows.
        points: mean change against the parent prompt on shared rows; None: no comparison.
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

    Args:
        number: in the order of the run, from 1.
        operator: the proposer operator.
        hypothesis: the expected improvement, in words.
        rows: ids of the dev rows it targets; empty: all.
        instruction: its name among the run's instructions.
        refused: why it was rejected, or "".
        parent_id: the candidate that it changes.
        before, after: mean scores on shared rows without and with it, in [0, 1]; None: not compared.
        became: `refused`, `dropped`, `waiting` (for its first rows), `tried`, `finalist` or `winner`.
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

    Args:
        model: its name; "" without one.
        planned: upper bound of its calls in the plan.
        asked: calls made, cached ones included.
        refused: replies without a usable instruction.
        failed: calls without a reply.
        tried: prompts with one of its instructions that were scored; None if the strategy does not say.
        finalists: those of them that saw all dev rows.
        won: whether the winner has one.
        why_not: why it was not asked; "" if it was.
        points: lead of the best prompt with such an instruction over the best without, on the dev rows of both; None:
            no such pair.
        operators: outcome of each operator.
        proposals: in the order of the run.
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

    Args:
        gain: the measured gain, in (0, 1].
        rows_needed: test rows for 80 % power, rounded up to two digits; None: more than ten million.
        rows_tested: test rows within the budget.
        rows_there: rows of the task's test split.
        max_calls: the smallest sufficient cap on calls; None: the budget was no limit.
        other_caps: options of other caps that must grow as well.
    """

    gain: float
    rows_needed: int | None
    rows_tested: int
    rows_there: int
    max_calls: int | None = None
    other_caps: tuple[str, ...] = ()


class Untested(Result):
    """A prompt that leads yours on dev and was not tested.

    Args:
        dev: its mean, in [0, 1], on the dev rows that both saw.
        baseline: the mean of your prompt on these rows.
        rows: number of these rows.
        dev_rows: all dev rows of the run.
        p_value: of the paired difference.
        is_chance: whether chance explains the lead: it saw only a part of dev, and no prompt that saw all of dev leads.
        why: why it was not tested, as a clause after "because".
        next: options of a run that may test it; "" if unknown.
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

    `diff` of the means and its one-sided 95 % limit `low`, both in [-1, 1]. `shown`: a loss of `margin`, in (0, 1), or
    more is ruled out.
    """

    diff: float
    low: float
    margin: float
    n: int
    shown: bool


class Cheaper(Result):
    """A winner that is cheaper than `best`, the best prompt on dev (`--prefer cheap`).

    `saved`: the share of dollars (or tokens, if no price is known) saved per call, in [0, 1]. `dev` chose the winner;
    `test` compares both on the test rows, where `best_test` is the mean of the best; None if no row has a score.
    """

    best: str
    saved: float
    saved_in: Literal["dollars", "tokens"]
    dev: NotWorse
    best_test: float | None = None
    test: NotWorse | None = None


class Migrated(Result):
    """The source of a migration: `run` released its candidate as `version` for `model`.

    The replies of that run to the test rows are the reference. `test`: non-inferiority of the new model.
    """

    run: str
    candidate_id: str
    version: str
    model: str
    test: NotWorse
