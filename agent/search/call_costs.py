"""What a call costs in tokens and dollars, estimated from the lengths of texts.

The plan uses the averages (`call_costs`), the dry run the upper estimates (`largest_calls`), and the search corrects
them by what was paid so far (`costs.py`). No cap rests on them (`gateway/budget.py` keeps those).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from statistics import mean

from agent.gateway.prices import Price
from agent.prompt.template import marks
from agent.retrieval.passages import CONTEXT
from agent.scoring.llm_judge import CLAIMS_TOKENS, VERDICT_TOKENS, judge_calls, reads_passages
from agent.types import Budget, CallRole, Spend, Task, Usage

BYTES_A_TOKEN = 4
LETTERS_A_TOKEN = 3  # of upper estimates
MESSAGE_TOKENS = 4  # that a chat template adds to a message
RUBRIC_TOKENS = 400  # of a judge's prompt without the rubric and the row
PROPOSER_TOKENS = 1000  # of a request to the proposer, on average
PROPOSAL_TOKENS = 200  # of its reply, at most, unless the user's own prompt is longer than half of that
ANSWER_TOKENS = 50  # of a reply of the target, at most
SEVERAL = 3  # whole instructions in a reply of a proposer that can write them
ROWS_A_PROPOSAL = 25  # rows of the target for each proposal
ADAPTER_TOKENS = 250  # that DSPy adds to instruction, demos and row
PASSAGE_LETTERS = 4 * 600  # of the passages in a prompt, on average
MOST_PASSAGE_LETTERS = 8 * 2000  # of the passages of the longest designs, with their headings
SAMPLE = 50  # rows that stand for all

Models = Mapping[CallRole, Sequence[str]]
"""The names of a run's models by role; none where the role has no model."""


@dataclass(frozen=True, slots=True)
class Cap:
    """A cap on tokens or dollars: its `name` in the budget, its size, and `of`, which takes its unit of a spending."""

    name: str
    size: float
    of: Callable[[Spend], float]

    @staticmethod
    def all(budget: Budget) -> list[Cap]:
        both = (("max_tokens", budget.max_tokens, "tokens"), ("max_cost", budget.max_cost, "usd"))
        return [Cap(name, size, attrgetter(unit)) for name, size, unit in both if size is not None]


@dataclass(frozen=True, slots=True)
class CallCosts:
    """What a call costs on average over all roles, by an estimate.

    `least`: with prompts as short as the user's own. `usual`: with the fewest examples that the task allows on every
    other prompt. `usd_a_token`: of a prompt of the target. `own_prompt`: tokens of the user's own prompt and its tools.
    `calls_each`: calls of a run of the program, where the plan counts runs as calls.
    """

    least: Spend
    usual: Spend
    usd_a_token: float
    own_prompt: int
    calls_each: int = 1

    def of_a_run(self, calls: int) -> CallCosts:
        """The costs of a run of a program with `calls` such calls; the length of its examples is not known."""

        def run(call: Spend) -> Spend:
            return Spend(
                1, calls * (call.tokens + ADAPTER_TOKENS), calls * (call.usd + ADAPTER_TOKENS * self.usd_a_token)
            )

        return CallCosts(run(self.least), run(self.usual), self.usd_a_token, self.own_prompt, calls)

    @staticmethod
    def affordable(budget: Budget, each: Spend) -> int | None:
        """How many calls of this cost the caps on tokens and dollars buy; None when neither is set."""
        calls = [cap.size / cap.of(each) for cap in Cap.all(budget) if cap.of(each) > 0]
        return int(min(calls)) if calls else None

    @staticmethod
    def too_low(budget: Budget, count: int, each: Spend) -> list[str]:
        """The caps that do not buy `count` calls of this cost, each with about what it must be."""
        return [
            f"{cap.name} = {cap.size:g} (give at least {count * cap.of(each):.6g})"
            for cap in Cap.all(budget)
            if cap.size < count * cap.of(each)
        ]

    def longest_prompt(self, budget: Budget, rows: int) -> int | None:
        """The most tokens of a prompt that the caps on tokens and dollars pay for `rows` rows; None without such caps.

        Never too few for another wording of the user's own prompt. A prompt may take the whole of a cap: the tokens of
        hosted models are counted by an upper estimate, about twice as many as there are.
        """
        token = Spend(1, 1, self.usd_a_token)
        tokens = [cap.size / rows / cap.of(token) for cap in Cap.all(budget) if cap.of(token) > 0]
        return max(2 * self.own_prompt + 50, int(min(tokens))) if tokens else None


def call_costs(task: Task, models: Models, prices: Mapping[str, Price]) -> CallCosts:
    """Estimate what a call of a run on this task costs on average; a model without a price is free."""
    passages = _passage_letters(task, PASSAGE_LETTERS) // BYTES_A_TOKEN
    has_place = bool(marks(task.instruction, [CONTEXT]))
    own = _tokens([task.instruction, *_tool_texts(task)]) + MESSAGE_TOKENS + (passages if has_place else 0)
    row, reply = _row_and_reply(task)
    demos = min(task.space.demo_counts, default=0) * (row + reply + 2 * MESSAGE_TOKENS)
    per_token = dearest(models["model"], Usage(1000, 0), prices) / 1000
    usual = own + demos // 2 + (0 if has_place else passages)
    least, most = (average_call(task, models, prices, prompt) for prompt in (own, usual))
    return CallCosts(least, most, per_token, own)


def average_call(task: Task, models: Models, prices: Mapping[str, Price], prompt: int) -> Spend:
    """Estimate the average call over all roles; `prompt`: tokens of the target's prompts without the row."""
    a_row = {"model": 1.0, "judge": float(judge_calls(task)), "proposer": 1 / ROWS_A_PROPOSAL}
    parts = [(a_row[role], models[role], usage) for role, usage in average_calls(task, prompt).items() if models[role]]
    calls = sum(share for share, _, _ in parts)
    tokens = sum(share * (usage.prompt_tokens + usage.completion_tokens) for share, _, usage in parts)
    cost = sum(share * dearest(names, usage, prices) for share, names, usage in parts)
    return Spend(1, math.ceil(tokens / calls), cost / calls)


def average_calls(task: Task, prompt: int) -> dict[CallRole, Usage]:
    """Estimate the tokens of a call of each role; `prompt`: tokens of the target's prompts without the row."""
    row, reply = _row_and_reply(task)
    rubrics = sum(_tokens([rubric.text]) for rubric in task.rubrics.values())
    thoughts = task.thinking // 2  # of what a call may think, on average
    seen, verdict = _judged_passages(task, PASSAGE_LETTERS)
    return {
        "model": Usage(prompt + row + MESSAGE_TOKENS, reply + 1 + thoughts),
        "judge": Usage(row + reply + rubrics + RUBRIC_TOKENS + seen // BYTES_A_TOKEN, verdict + thoughts),
        "proposer": Usage(PROPOSER_TOKENS, proposal_tokens(task) + thoughts),
    }


def _tool_texts(task: Task) -> list[str]:
    return [text for tool in task.tools for text in tool.as_dict().values()]


def _passage_letters(task: Task, most: int) -> int:
    documents = task.knowledge.documents if task.knowledge else ()
    return min(
        most, sum(len(b.text) for document in documents for section in document.sections for b in section.blocks)
    )


def _judged_passages(task: Task, most: int) -> tuple[int, int]:
    """Letters of the passages that a judge reads, at most `most`, and tokens of its verdict."""
    return (_passage_letters(task, most), CLAIMS_TOKENS) if reads_passages(task) else (0, VERDICT_TOKENS)


def largest_calls(task: Task, longest_request: int) -> dict[CallRole, Usage]:
    """Bound the tokens of a call of each role, by an upper estimate.

    `longest_request`: letters of the longest request to the proposer.
    """
    row = max(sum(len(text) for text in row.inputs.values()) for row in task.train) // LETTERS_A_TOKEN
    prompt = len(task.instruction) // LETTERS_A_TOKEN + (row + 10) * (1 + max(task.space.demo_counts, default=0))
    prompt += (sum(map(len, _tool_texts(task))) + _passage_letters(task, MOST_PASSAGE_LETTERS)) // LETTERS_A_TOKEN
    rubrics = sum(len(rubric.text) for rubric in task.rubrics.values()) // LETTERS_A_TOKEN
    seen, verdict = _judged_passages(task, MOST_PASSAGE_LETTERS)
    return {
        "model": Usage(prompt, ANSWER_TOKENS + task.thinking),
        "proposer": Usage(longest_request // LETTERS_A_TOKEN, proposal_tokens(task, SEVERAL) + task.thinking),
        "judge": Usage(row + rubrics + RUBRIC_TOKENS + seen // LETTERS_A_TOKEN, verdict + task.thinking),
    }


def proposal_tokens(task: Task, several: int = 1) -> int:
    """The most tokens of a proposer's reply: twice the user's own prompt for each instruction, and once more for a
    reflection."""
    one = max(PROPOSAL_TOKENS, 2 * _tokens([task.instruction]))
    return one if several == 1 else (several + 1) * one


def dearest(models: Iterable[str], usage: Usage, prices: Mapping[str, Price]) -> float:
    """Dollars of these tokens if the dearest of the models serves them; one without a price is free."""
    return max((prices[model](usage) for model in models if model in prices), default=0.0)


def _row_and_reply(task: Task) -> tuple[int, int]:
    rows = task.train[:SAMPLE]
    inputs, labels = [_tokens(r.inputs.values()) for r in rows], [_tokens(map(str, r.labels.values())) for r in rows]
    return math.ceil(mean(inputs)), math.ceil(mean(labels))


def _tokens(texts: Iterable[str]) -> int:
    return sum(-(-len(text.encode()) // BYTES_A_TOKEN) for text in texts)
