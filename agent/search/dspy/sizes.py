"""DSPy's optimizers as strategies, and their plan: the share of a search's calls, and whether that is enough."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from agent.search.context import SearchContext
from agent.search.plan import Plan
from agent.search.registered import strategy
from agent.types import Task

FEWEST_VAL = 10
MINIBATCH = 35  # rows, MIPROv2's own
FULL_EVERY = 5  # minibatches to one evaluation on all rows, MIPROv2's own
REFLECTED = 3  # rows that GEPA reflects on
SUMMARY_CALLS = 12  # of MIPROv2's summary of the data, at most
SPARE = 8  # calls: what a kill may leave half done
MOST_SETS, MOST_TRIALS = 16, 30
SHARES = {"dspy-mipro": 6, "dspy-gepa": 8, "dspy-bootstrap": 10}
"""The least ratio of calls to the rows on which the optimizer compares programs."""


@dataclass(frozen=True, slots=True)
class Size:
    """The limits of an optimizer: `val` rows compare programs, `per_row` calls take a row."""

    calls: int
    val: int
    max_examples: int
    per_row: int
    predictors: int

    @property
    def bootstrapped(self) -> int:
        return min(4, self.max_examples)

    @property
    def sets(self) -> int:
        """Return the number of demo sets; three other programs are scored first."""
        each = (self.val + 3 * self.bootstrapped) * self.per_row
        return min(MOST_SETS, self.calls // each - 3) if self.bootstrapped else 0

    @property
    def candidates(self) -> int:
        """Return the instructions and demo sets of MIPROv2, as in its `light` or `medium`."""
        return 12 if self.calls >= 2500 else 6 if self.calls >= 400 else 4

    @property
    def minibatch(self) -> bool:
        return self.val > MINIBATCH + FULL_EVERY

    @property
    def trials(self) -> int:
        bootstrapping = (self.candidates - 2) * 3 * self.bootstrapped * self.per_row
        proposing = SUMMARY_CALLS + 3 * self.candidates * self.predictors
        whole = self.val * self.per_row
        each = MINIBATCH * self.per_row + whole / FULL_EVERY if self.minibatch else whole
        return min(MOST_TRIALS, int((self.calls - bootstrapping - proposing - 2 * whole) // each))

    @property
    def scored(self) -> int:
        """Return the rows that GEPA may score: six and a proposal per iteration. The last may end with all of val."""
        return (self.calls - self.val * self.per_row) * 6 // (6 * self.per_row + 1)

    def enough(self, method: str) -> bool:
        return {
            "dspy-bootstrap": self.sets >= 1,
            "dspy-mipro": self.trials >= 2,
            "dspy-gepa": self.scored >= self.val + 4 * REFLECTED,
        }[method]


def free(left: int, rows: int, per_row: int) -> int:
    """Return what `rows` rows, and the possible cost of a kill, leave of `left` calls."""
    return left - (rows + SPARE) * per_row


def val_rows(method: str, left: int, rows: int, per_row: int) -> int:
    """Return the dev rows on which the optimizer scores programs: few enough for several programs."""
    return min(rows, max(FEWEST_VAL, free(left, rows, per_row) // per_row // SHARES[method]))


def enough(method: str, task: Task, plan: Plan, calls_each: int) -> bool:
    """Tell whether the plan leaves the search enough calls for the method."""
    demos = task.constraints.max_examples if task.constraints.max_examples is not None else len(task.train)
    left, dev = plan.search_rows * calls_each, plan.dev_rows
    val = val_rows(method, left, dev, calls_each)
    return Size(max(0, free(left, dev - val, calls_each)), val, demos, calls_each, calls_each).enough(method)


def train_rows(rows: Sequence[Any], calls: int, seed: int) -> list[Any]:
    """Draw the train rows that `calls` pay if no bootstrapping succeeds, in seed order."""
    return random.Random(f"{seed}/dspy").sample(list(rows), min(len(rows), max(20, calls // 15)))


# -- the strategies ----------------------------------------------------------------------------------------------------

KIND = "dspy"
"""The kind of a user's DSPy programs."""
ABOUT = {
    "dspy-mipro": "DSPy's MIPROv2: sets of examples and proposed instructions, joined by Bayesian optimization.",
    "dspy-gepa": "DSPy's GEPA: reflects on instructions and changes them; keeps the best of each row.",
    "dspy-bootstrap": "DSPy's bootstrapped few-shot examples with random search.",
}


async def _search(context: SearchContext, name: str) -> None:
    from agent.search.dspy.strategies import search  # here, as DSPy takes seconds to load

    await search(context, name)


def _register(name: str, about: str) -> None:
    @strategy(
        name,
        about=about,
        kinds=("prompt", KIND),
        counts_trials=False,
        enough=partial(enough, name),
        lacks="the task allows no examples",
        needs_proposer=name != "dspy-bootstrap",
    )
    async def optimized(context: SearchContext) -> None:
        await _search(context, name)


for _name, _about in ABOUT.items():
    _register(_name, _about)
