"""What caps on tokens and dollars buy, in calls and in prompt tokens, before anything was called.

Estimates from the lengths of texts, for a plan to be made with; no cap rests on them (`gateway/budget.py` keeps those).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import mean

from agent.gateway.prices import Price
from agent.scoring.llm_judge import VERDICT_TOKENS, judge_calls
from agent.types import Budget, Example, Spend, Task, Usage

BYTES_A_TOKEN = 4
MESSAGE_TOKENS = 4  # what a chat template adds to a message
RUBRIC_TOKENS = 400  # what a judge is told beside the rubric and the row
PROPOSER_TOKENS = 1000  # what a proposer is told on average; `author.most_told` says how much it may be
PROPOSAL_TOKENS = 200  # of its reply, at most, unless your own prompt is longer than half of that
ROWS_A_PROPOSAL = 25  # that are seen for each that is asked for
ADAPTER_TOKENS = 250  # what DSPy says in a call beside instruction, demos and row
SAMPLE = 50  # rows that stand for all


@dataclass(frozen=True, slots=True)
class Means:
    """What a call costs on average: `least` when all prompts are as short as the user's own, `usual` when every other
    one has the fewest demos that the task allows. `per_token` are dollars for a token in a prompt of the target, `own`
    the tokens of the user's prompt. What is counted as one may be a run of a program, of `calls_each` calls."""

    least: Spend
    usual: Spend
    per_token: float
    own: int
    calls_each: int = 1

    def of_runs(self, calls: int) -> Means:
        """For runs of a program of `calls` calls each, of which every one may be told all that one of these is.
        How long its demos may be is not known."""

        def run(call: Spend) -> Spend:
            return Spend(
                1, calls * (call.tokens + ADAPTER_TOKENS), calls * (call.usd + ADAPTER_TOKENS * self.per_token)
            )

        return Means(run(self.least), run(self.usual), self.per_token, self.own, calls)

    def calls(self, budget: Budget, each: Spend) -> int | None:
        """How many calls of that size the caps on tokens and dollars buy; None when neither is capped."""
        caps = [
            cap / size
            for cap, size in ((budget.max_tokens, each.tokens), (budget.max_cost, each.usd))
            if cap is not None and size > 0
        ]
        return int(min(caps)) if caps else None

    def raised(self, budget: Budget, count: int, each: Spend) -> list[str]:
        """The caps on tokens and dollars that do not buy `count` of that size, each with about what it must be."""
        wanted = (
            ("max_tokens", budget.max_tokens, count * each.tokens),
            ("max_cost", budget.max_cost, count * each.usd),
        )
        return [
            f"{name} = {cap:g} (give at least {most:.6g})"
            for name, cap, most in wanted
            if cap is not None and cap < most
        ]

    def longest(self, budget: Budget, rows: int) -> int | None:
        """The most tokens of a prompt that the caps pay for `rows` rows beside all else; None when neither is capped.
        Never too few for another wording of the user's own prompt. A prompt may take the whole of a cap: the tokens of
        hosted models are counted by an upper estimate, about twice as many as there are."""
        caps = [
            cap / rows / size
            for cap, size in ((budget.max_tokens, 1.0), (budget.max_cost, self.per_token))
            if cap is not None and size > 0
        ]
        return max(2 * self.own + 50, int(min(caps))) if caps else None


def proposal_tokens(task: Task) -> int:
    """How long a proposer's reply may get: twice your own prompt, by an estimate; one that is cut is no instruction."""
    return max(PROPOSAL_TOKENS, 2 * _tokens([task.instruction]))


def means_of(
    task: Task, price: Callable[[str], Price | None], target: str, proposer: str, judges: Sequence[str]
) -> Means:
    """For a task and the names of its models; `proposer` is "" where there is none. A model without a price is free."""
    row = math.ceil(mean(_row_tokens(row) for row in task.train[:SAMPLE]))
    reply = math.ceil(mean(_tokens(map(str, row.labels.values())) for row in task.train[:SAMPLE]))
    own = _tokens([task.instruction]) + MESSAGE_TOKENS
    demos = min(task.space.demo_counts, default=0) * (row + reply + 2 * MESSAGE_TOKENS)
    rubrics = sum(_tokens([rubric.text]) for rubric in task.rubrics.values())
    thoughts = task.thinking // 2  # of what a call may think, on average
    judge = Usage(row + reply + rubrics + RUBRIC_TOKENS, VERDICT_TOKENS + thoughts)
    judged = judge_calls(task)
    written = proposal_tokens(task) + thoughts

    def usd(names: Sequence[str], usage: Usage) -> float:
        return max((known(usage) for name in names if name and (known := price(name))), default=0.0)

    def average(prompt: int) -> Spend:
        parts = (
            (1.0, [target], Usage(prompt + row + MESSAGE_TOKENS, reply + 1 + thoughts)),
            (float(judged), judges, judge),
            (1 / ROWS_A_PROPOSAL if proposer else 0.0, [proposer], Usage(PROPOSER_TOKENS, written)),
        )
        calls = sum(share for share, _, _ in parts)
        tokens = sum(share * (usage.prompt_tokens + usage.completion_tokens) for share, _, usage in parts)
        cost = sum(share * usd(names, usage) for share, names, usage in parts)
        return Spend(1, math.ceil(tokens / calls), cost / calls)

    return Means(average(own), average(own + demos // 2), usd([target], Usage(1000, 0)) / 1000, own)


def _row_tokens(row: Example) -> int:
    return _tokens(row.inputs.values())


def _tokens(texts: Iterable[str]) -> int:
    return sum(-(-len(text.encode()) // BYTES_A_TOKEN) for text in texts)
