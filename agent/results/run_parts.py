"""What a run found and what the search did: the two prompts, the difference, the proposer, and what is left open.

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
"""What can stand between a winner and production (`gate.py`)."""


class Winner(Result):
    """The best found. None where nothing was scored; `dev_corrected` is `dev` without what choosing the best of many
    adds to it. `prompt_tokens`: at least 0, without the row and the chat template. `n_examples`: fixed and picked;
    `picks`: how those are picked that differ from input to input, and `passages`, how passages are looked up.
    `tokens_a_call`: as in `PromptSize`."""

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
    """The user's own prompt: its scores, None where nothing was scored. `dev_rows`: of how many dev rows, where it was
    told from the best on a part of them; None: of all."""

    dev: float | None
    test: float | None
    dev_rows: int | None = None


class Lift(Result):
    """What the winner gains on the sealed test, over the `n` rows that both got a score on: the mean difference, its
    interval, and the p-value of the paired test. `lost` rows got no score with the winner alone; `diff_if_wrong` is the
    difference with these counted as wrong. `baseline` and `winner`: their means over the `n` rows."""

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
    """What a method without a language model, trained on `trained_on` rows, reaches on the same rows, with the interval
    of its `test`. `diff`: how much better the winner is; None where no row has a score on both sides."""

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
    """What was said before the search, as of `search/preflight.py`: `noise`, the part of the `noise_rows` asked twice
    whose score changed; `headroom` above the baseline; `detectable`, the smallest gain that the test rows show. None
    where it is not known, and where no gain can be shown."""

    noise: float | None = None
    noise_rows: int | None = None
    headroom: float | None = None
    headroom_ci95: Interval | None = None
    detectable: float | None = None
    worth: bool = True
    why: str = ""


class Carried(Result):
    """What one part of the winner carries, in points (hundredths of score, -100 to 100), with its interval, and how it
    is known. `rows`: on which it was measured, 0 where it was not."""

    part: str
    points: float
    ci95: Interval
    how: Literal["measured", "estimated", "unknown"]
    rows: int = 0


class ParetoRow(Result):
    """A candidate that nothing beats in score, `prompt_tokens` and US dollars per 1,000 calls, with its seconds a call;
    None: unknown. `tokens_a_call`: measured, prompt and reply."""

    candidate_id: str
    dev: float
    prompt_tokens: int
    usd_per_1000: float | None = None
    latency_s: float | None = None
    chosen: bool = False
    tokens_a_call: int = 0


# -- the prompt -------------------------------------------------------------------------------------------------------


class PromptSize(Result):
    """A prompt's design and length; `role` is the sentence that gives it one, if any.

    `prompt_tokens`: without the row; `tokens_a_call`: the mean of its calls, prompt and reply, 0 where the provider
    does not say."""

    technique: str
    format: str
    n_examples: int
    prompt_tokens: int
    tokens_a_call: int = 0
    role: str = ""


class Change(TwoSided[PromptSize]):
    """What the winner has that the user's own prompt has not. `instruction`: whether the text differs; `keeps`: whether
    it differs and holds the user's whole; `tools`: which texts of tools do, as `TOOL` and `TOOL.ARGUMENT`."""

    winner: PromptSize
    baseline: PromptSize
    instruction: bool = False
    keeps: bool = False
    tools: tuple[str, ...] = ()


class OperatorUse(Result):
    """What came of one thing that the proposer was asked for.

    Args:
        operator: its name.
        asked: proposals by it.
        refused: those without a reply that can be used.
        dropped: those that mended less than they broke on the rows that they were for.
        tried: those that were scored, finalists among them.
        finalists: those that saw the whole of dev.
        points: the mean change against the prompts that they changed, on the rows of both; None: none was compared.
    """

    operator: str
    asked: int
    refused: int = 0
    dropped: int = 0
    tried: int = 0
    finalists: int = 0
    points: float | None = None


class ProposalFate(Result):
    """One proposal and what became of it.

    Args:
        number: in the order of the run, at least 1.
        operator: what the proposer was asked for.
        hypothesis: what it was expected to mend, in words.
        rows: ids of the dev rows that it was for; empty: for all.
        instruction: its name among the instructions of the run.
        refused: why nothing came of it, or "".
        parent_id: the candidate that it changes.
        before, after: the mean score on shared rows without and with it, in [0, 1]; None: not compared.
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
    """What came of the model that writes instructions.

    Args:
        model: its name; "" without one.
        planned: calls that the plan had for it, at most.
        asked: calls that were made, those answered from the ledger among them.
        refused: replies of these that held no instruction that can be used.
        failed: calls that brought no reply.
        tried: prompts with their own instruction that were scored; None where the strategy does not say.
        finalists: those of them that saw the whole of dev.
        won: whether the winner has one.
        why_not: why it was not asked; "" where it was.
        points: by how much the best prompt with such an instruction is above the best without, on the dev rows of both;
            None: there is no such pair.
        operators: what came of each thing that it was asked for.
        proposals: each proposal, in the order of the run.
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
    """What would show a gain that was measured and not shown.

    Args:
        gain: the gain that was measured, in (0, 1].
        rows_needed: test rows that show it with 80 % power, rounded up to two digits; None: more than ten million.
        rows_tested: rows that the plan paid.
        rows_there: rows of the task's test split.
        max_calls: the cap on calls whose plan pays as many of them as are needed; None: it paid them all.
        other_caps: caps on tokens, dollars or time, by their options, that must then grow as well.
    """

    gain: float
    rows_needed: int | None
    rows_tested: int
    rows_there: int
    max_calls: int | None = None
    other_caps: tuple[str, ...] = ()


class Untested(Result):
    """A prompt that leads the user's own on dev and did not go to the sealed test.

    Args:
        candidate_id: its id.
        dev: its mean, in [0, 1], on the dev rows that both saw.
        baseline: the mean of the user's own prompt on these rows.
        rows: how many these are.
        dev_rows: all dev rows of the run.
        p_value: of the paired difference.
        is_chance: whether chance explains the lead: it saw a part of dev, and no prompt that saw all of dev leads.
        why: why it was not tested, to stand after "because".
        next: the options with which a run may test it; "": none is known.
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
    """How much one prompt may lose against another over `n` paired rows: the difference of the means, and its one-sided
    95 % limit `low`, both in [-1, 1]. `shown`: a loss of `margin`, in (0, 1), or more is ruled out."""

    diff: float
    low: float
    margin: float
    n: int
    shown: bool


class Cheaper(Result):
    """The winner next to `best`, the best on dev, which costs more (`--prefer cheap`). `saved`: the share of the best
    one's dollars, or tokens where no dollars are known, that a call saves, in [0, 1]. `dev` chose the winner; `test` is
    of the sealed test, where `best_test` is the mean of the best; None where no row has a score."""

    best: str
    saved: float
    saved_in: Literal["dollars", "tokens"]
    dev: NotWorse
    best_test: float | None = None
    test: NotWorse | None = None


class Migrated(Result):
    """What a prompt was migrated from: the `run` that released its candidate as `version` for `model`, whose replies to
    the sealed rows are those of that run. `test`: how much the new model may lose against it."""

    run: str
    candidate_id: str
    version: str
    model: str
    test: NotWorse
