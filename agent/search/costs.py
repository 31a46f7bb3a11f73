"""Token and dollar estimates of calls, from the lengths of texts.

The plan uses the averages (`call_costs`), the dry run the upper estimates (`largest_calls`), and the search corrects
them by the spending so far (`CandidateCosts`). No cap relies on them (`gateway/budget.py` enforces caps).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from statistics import mean
from typing import TYPE_CHECKING, Literal

from agent.errors import BudgetRefused
from agent.gateway.budget import Account
from agent.gateway.prices import Price
from agent.prompt.template import marks
from agent.retrieval.passages import CONTEXT
from agent.scoring.judge_reply import CLAIMS_TOKENS, VERDICT_TOKENS
from agent.scoring.llm_judge import judge_calls, reads_passages
from agent.types import Budget, CallRole, Spend, Task, Usage

if TYPE_CHECKING:
    from agent.search.plan import Plan
    from agent.search.trials import Trials

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

Models = Mapping[CallRole, Sequence[str]]  # the names of a run's models by role; none for a role without a model


@dataclass(frozen=True, slots=True)
class Cap:
    """A cap on tokens or dollars; `of`: its unit of a spending."""

    name: str
    size: float
    of: Callable[[Spend], float]

    @staticmethod
    def all(budget: Budget) -> list[Cap]:
        both = (("max_tokens", budget.max_tokens, "tokens"), ("max_cost", budget.max_cost, "usd"))
        return [Cap(name, size, attrgetter(unit)) for name, size, unit in both if size is not None]


@dataclass(frozen=True, slots=True)
class CallCosts:
    """The estimated average cost of a call over all roles.

    `least`: with the user's own prompt. `usual`: with the fewest examples on every other prompt. `own_prompt`: its
    tokens with its tools. `calls_each`: calls per run of the program, if the plan counts runs as calls.
    """

    least: Spend
    usual: Spend
    usd_a_token: float
    own_prompt: int
    calls_each: int = 1

    def of_a_run(self, calls: int) -> CallCosts:
        def run(call: Spend) -> Spend:
            usd = call.usd + ADAPTER_TOKENS * self.usd_a_token
            return Spend(1, calls * (call.tokens + ADAPTER_TOKENS), calls * usd)

        return CallCosts(run(self.least), run(self.usual), self.usd_a_token, self.own_prompt, calls)

    @staticmethod
    def affordable(budget: Budget, each: Spend) -> int | None:
        """Return the calls that the caps on tokens and dollars buy; None without such caps."""
        calls = [cap.size / cap.of(each) for cap in Cap.all(budget) if cap.of(each) > 0]
        return int(min(calls)) if calls else None

    @staticmethod
    def too_low(budget: Budget, count: int, each: Spend) -> list[str]:
        """Name the caps that do not buy `count` such calls, with their needed size."""
        return [
            f"{cap.name} = {cap.size:g} (give at least {count * cap.of(each):.6g})"
            for cap in Cap.all(budget)
            if cap.size < count * cap.of(each)
        ]

    def longest_prompt(self, budget: Budget, rows: int) -> int | None:
        """Return the most prompt tokens that the caps pay for `rows` rows. Never too few for another wording.

        A prompt may take the whole of a cap: tokens of hosted models are counted about twice as high as they are.
        """
        token = Spend(1, 1, self.usd_a_token)
        tokens = [cap.size / rows / cap.of(token) for cap in Cap.all(budget) if cap.of(token) > 0]
        return max(2 * self.own_prompt + 50, int(min(tokens))) if tokens else None


Effort = Literal["quick", "standard", "thorough"]
EFFORT_CALLS: dict[Effort, int] = {"quick": 500, "standard": 1200, "thorough": 4000}


@dataclass(frozen=True, slots=True)
class Means:
    """The budget of a plan: caps, an effort if calls are not capped, and the cost of a call."""

    budget: Budget
    effort: Effort = "standard"
    costs: CallCosts | None = None

    @property
    def calls(self) -> int:
        return self.budget.max_calls if self.budget.max_calls is not None else EFFORT_CALLS[self.effort]

    def affordable(self, needed: int, what: str) -> int:
        """Return the calls to plan with. Raises BudgetRefused if the caps do not buy those `needed`."""
        calls, costs, budget = self.calls, self.costs, self.budget
        usual = costs.affordable(budget, costs.usual) if costs else None
        if costs is None or usual is None or usual >= calls:
            return calls
        if (costs.affordable(budget, costs.least) or 0) < min(calls, needed):
            caps = ", ".join(costs.too_low(budget, needed, costs.least))
            takes = f"which takes about {needed * costs.calls_each} calls"
            raise BudgetRefused(f"too little to {what} on this task, {takes}: {caps}")
        return max(usual, min(calls, needed))


def call_costs(task: Task, models: Models, prices: Mapping[str, Price]) -> CallCosts:
    """Estimate the average cost of a call. A model without a price is free."""
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
    """Estimate the average call over all roles. `prompt`: tokens of the target's prompts without the row."""
    row, reply = _row_and_reply(task)
    rubrics = sum(_tokens([rubric.text]) for rubric in task.rubrics.values())
    thoughts = task.room(0) // 2  # of what a call may think, on average
    seen, verdict = _judged_passages(task, PASSAGE_LETTERS)
    judged = row + reply + rubrics + RUBRIC_TOKENS + seen // BYTES_A_TOKEN
    each: dict[CallRole, tuple[float, Usage]] = {
        "model": (1.0, Usage(prompt + row + MESSAGE_TOKENS, reply + 1 + thoughts)),
        "judge": (float(judge_calls(task)), Usage(judged, verdict + thoughts)),
        "proposer": (1 / ROWS_A_PROPOSAL, Usage(PROPOSER_TOKENS, proposal_tokens(task) + thoughts)),
    }
    parts = [(a_row, models[role], usage) for role, (a_row, usage) in each.items() if models[role]]
    calls = sum(a_row for a_row, _, _ in parts)
    tokens = sum(a_row * usage.tokens for a_row, _, usage in parts)
    cost = sum(a_row * dearest(names, usage, prices) for a_row, names, usage in parts)
    return Spend(1, math.ceil(tokens / calls), cost / calls)


def _tool_texts(task: Task) -> list[str]:
    return [text for tool in task.tools for text in tool.as_dict().values()]


def _passage_letters(task: Task, most: int) -> int:
    documents = task.knowledge.documents if task.knowledge else ()
    blocks = (block for document in documents for section in document.sections for block in section.blocks)
    return min(most, sum(len(block.text) for block in blocks))


def _judged_passages(task: Task, most: int) -> tuple[int, int]:
    return (_passage_letters(task, most), CLAIMS_TOKENS) if reads_passages(task) else (0, VERDICT_TOKENS)


def largest_calls(task: Task, longest_request: int) -> dict[CallRole, Usage]:
    """Bound the tokens of a call by role. `longest_request`: letters of the longest proposer request."""
    row = max(sum(len(text) for text in row.inputs.values()) for row in task.train) // LETTERS_A_TOKEN
    prompt = len(task.instruction) // LETTERS_A_TOKEN + (row + 10) * (1 + max(task.space.demo_counts, default=0))
    prompt += (sum(map(len, _tool_texts(task))) + _passage_letters(task, MOST_PASSAGE_LETTERS)) // LETTERS_A_TOKEN
    rubrics = sum(len(rubric.text) for rubric in task.rubrics.values()) // LETTERS_A_TOKEN
    seen, verdict = _judged_passages(task, MOST_PASSAGE_LETTERS)
    return {
        "model": Usage(prompt, task.room(ANSWER_TOKENS)),
        "proposer": Usage(longest_request // LETTERS_A_TOKEN, task.room(proposal_tokens(task, SEVERAL))),
        "judge": Usage(row + rubrics + RUBRIC_TOKENS + seen // LETTERS_A_TOKEN, task.room(verdict)),
    }


def proposal_tokens(task: Task, several: int = 1) -> int:
    """Bound the proposer's reply: twice the user's prompt per instruction, and a reflection."""
    one = max(PROPOSAL_TOKENS, 2 * _tokens([task.instruction]))
    return one if several == 1 else (several + 1) * one


def dearest(models: Iterable[str], usage: Usage, prices: Mapping[str, Price]) -> float:
    """Price tokens at the most expensive model. One without a price is free."""
    return max((prices[model](usage) for model in models if model in prices), default=0.0)


def _row_and_reply(task: Task) -> tuple[int, int]:
    rows = task.train[:SAMPLE]
    inputs, labels = [_tokens(r.inputs.values()) for r in rows], [_tokens(map(str, r.labels.values())) for r in rows]
    return math.ceil(mean(inputs)), math.ceil(mean(labels))


def _tokens(texts: Iterable[str]) -> int:
    return sum(-(-len(text.encode()) // BYTES_A_TOKEN) for text in texts)


# -- of the candidates of a run, measured by its calls so far ---------------------------------------------------------

LONGER = 1.08  # for rows that are longer than those so far
FEWEST_MEASURED = 4  # calls
RESERVED = 3  # rows: the last call is reserved at its most tokens, by an upper estimate
LONGEST_SHARE = 0.75  # of a cap on tokens or dollars: what the longest prompt may take on all of dev and test


class CandidateCosts:
    """The costs of one run's candidates against its caps, in rows at the mean cost so far.

    `varies`: whether examples or passages are picked for each row: such calls share no long beginning, so providers
    cache less of it.
    """

    def __init__(
        self,
        plan: Plan,
        account: Account,
        trials: Trials,
        baseline_id: str,
        size: Callable[[str], int],
        varies: Callable[[str], bool] = lambda candidate_id: False,
    ) -> None:
        self._plan, self._account, self._trials = plan, account, trials
        self._baseline_id, self._size, self._varies = baseline_id, cache(size), varies
        self._caps = Cap.all(account.budget)

    def affordable(self) -> float:
        """Return the rows that the search's part of the caps still pays; inf without caps."""
        return max(0.0, self._rows_for(lambda cap, spent: cap * (1 - self._plan.test_share) - spent))

    def of_rows(self, candidate_id: str, rows: int) -> float:
        """Price rows of a candidate: more than `rows` for prompts longer than average."""
        return rows * max(1.0, self._relative(candidate_id))

    def through_test(self, *candidate_ids: str) -> float:
        """Price the rest of dev and, beyond the kept share, the sealed test. The highest of several."""
        prompts = self._plan.tested
        tested = self._plan.test_calls // prompts // self._plan.calls_a_row
        dearest_won = max(map(self._relative, self._trials.in_state("complete")), default=0.0)
        own = self._relative(self._baseline_id)
        kept = self._rows_for(lambda cap, spent: cap * self._plan.test_share)

        def one(candidate_id: str) -> float:
            rows = self._plan.dev_rows - len(self._trials.outcomes.get(candidate_id, ()))
            dearest = max(dearest_won, self._relative(candidate_id))
            test = LONGER * tested * (max(1, prompts - 1) * dearest + (own if prompts > 1 else 0.0))
            return LONGER * self.of_rows(candidate_id, rows + RESERVED) + max(0.0, test - kept)

        return max(map(one, candidate_ids), default=0.0)

    def longest_prompt(self) -> float:
        """Return the longest prompt (tokens) that the caps pay on dev and test."""
        longest, used = self._plan.longest_prompt, self._account.total_used
        if longest is None:
            return math.inf
        if not used.calls or not (counted := self._mean_size()):
            return longest
        return longest / min(1.0, used.tokens / used.calls / counted / LONGEST_SHARE)

    def _rows_for(self, money: Callable[[float, float], float]) -> float:
        used = self._account.total_used
        calls = [money(cap.size, spent) * used.calls / spent for cap in self._caps if (spent := cap.of(used))]
        return min(calls) / self._plan.calls_a_row if calls else math.inf

    def _relative(self, candidate_id: str) -> float:
        target = self._account.used.get("model", Spend())
        if self.affordable() == math.inf or not target.calls or not (mean_size := self._mean_size()):
            return 1.0
        used, judge = self._account.total_used, self._account.used.get("judge", Spend())
        own, longer = self._account.used_for.get(candidate_id, Spend()), 1.0
        if own.calls < FEWEST_MEASURED:
            own, usual = self._usual(candidate_id) or (target, mean_size)
            longer = self._size(candidate_id) / usual
        return max(
            (longer * cap.of(own) / own.calls + cap.of(judge) / target.calls)
            / (cap.of(used) / used.calls * self._plan.per_row)
            for cap in self._caps
            if cap.of(used)
        )

    def _usual(self, candidate_id: str) -> tuple[Spend, float] | None:
        if not self._varies(candidate_id):
            return None
        alike = [i for i in self._trials.outcomes if self._varies(i)]
        spent = sum((self._account.used_for.get(i, Spend()) for i in alike), Spend())
        rows = {i: len(self._trials.outcomes[i]) for i in alike}
        if spent.calls < FEWEST_MEASURED or not any(rows.values()):
            return None
        return spent, sum(self._size(i) * n for i, n in rows.items()) / sum(rows.values())

    def _mean_size(self) -> float:
        rows = {i: len(outcomes) for i, outcomes in self._trials.outcomes.items()}
        return sum(self._size(i) * n for i, n in rows.items()) / max(1, sum(rows.values()))
