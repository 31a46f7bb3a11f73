"""The settings of DSPy's optimizers that a number of calls pays for. Arithmetic without DSPy, for plans and methods."""

from __future__ import annotations

from dataclasses import dataclass

from agent.search.plan import Plan
from agent.types import Task

FEWEST_VAL = 10
MINIBATCH = 35  # rows, MIPROv2's own
FULL_EVERY = 5  # minibatches to one evaluation on all rows, MIPROv2's own
REFLECTED = 3  # rows that GEPA reflects on
SUMMARY_CALLS = 12  # of MIPROv2's summary of the data, at most
SPARE = 8  # calls: what a kill may leave half done
MOST_SETS, MOST_TRIALS = 16, 30


@dataclass(frozen=True, slots=True)
class Size:
    """What an optimizer may use: `calls`, `val` rows on which it compares programs, `per_row` calls of a row."""

    calls: int
    val: int
    max_demos: int
    per_row: int = 1
    predictors: int = 1

    @property
    def sets(self) -> int:
        """Random demo sets of BootstrapFewShotWithRandomSearch, which scores three other programs before."""
        bootstrapped = min(4, self.max_demos)
        each = (self.val + 3 * bootstrapped) * self.per_row
        return min(MOST_SETS, self.calls // each - 3) if bootstrapped else 0

    @property
    def candidates(self) -> int:
        """Instructions and demo sets of MIPROv2, as in its `light` or `medium`."""
        return 12 if self.calls >= 2500 else 6 if self.calls >= 400 else 4

    @property
    def minibatch(self) -> bool:
        """Whether MIPROv2 scores its trials on a part of the rows."""
        return self.val > MINIBATCH + FULL_EVERY

    @property
    def trials(self) -> int:
        """Trials of MIPROv2."""
        bootstrapping = (self.candidates - 2) * 3 * min(4, self.max_demos) * self.per_row
        proposing = SUMMARY_CALLS + 3 * self.candidates * self.predictors
        whole = self.val * self.per_row
        each = MINIBATCH * self.per_row + whole / FULL_EVERY if self.minibatch else whole
        return min(MOST_TRIALS, int((self.calls - bootstrapping - proposing - 2 * whole) // each))

    @property
    def scored(self) -> int:
        """Rows that GEPA may score: an iteration scores twice three and makes one proposal; the last may end with all
        of val."""
        return (self.calls - self.val * self.per_row) * 6 // (6 * self.per_row + 1)

    def sifts(self, method: str) -> bool:
        """Whether the method drops programs by their scores on a part of `val`."""
        return method == "dspy-mipro" and self.minibatch

    def enough(self, method: str) -> bool:
        """Whether the method can do anything with so many calls."""
        return {
            "dspy-bootstrap": self.sets >= 1,
            "dspy-mipro": self.trials >= 2,
            "dspy-gepa": self.scored >= self.val + 4 * REFLECTED,
        }[method]


def free(left: int, rows: int, per_row: int) -> int:
    """What remains of `left` calls when those of `rows` rows, and what a kill may cost, are kept."""
    return left - (rows + SPARE) * per_row


def val_rows(method: str, calls: int, rows: int) -> int:
    """Rows of dev on which the optimizer scores programs: few enough for several programs."""
    share = {"dspy-mipro": 6, "dspy-gepa": 8, "dspy-bootstrap": 10}[method]
    return min(rows, max(FEWEST_VAL, calls // share))


def enough(method: str, task: Task, plan: Plan, calls_each: int) -> bool:
    """Whether the method can do anything with the calls that the plan leaves to the search."""
    demos = task.constraints.max_demos if task.constraints.max_demos is not None else len(task.train)
    return size_of(method, plan.search_rows * calls_each, plan.dev_rows, demos, calls_each).enough(method)


def size_of(method: str, left: int, dev: int, max_demos: int, per_row: int) -> Size:
    """What the optimizer may use of `left` calls, when its choice must still be scored on the rest of `dev` rows; a row
    takes one call of each of `per_row` predictors."""
    val = val_rows(method, free(left, dev, per_row) // per_row, dev)
    return Size(max(0, free(left, dev - val, per_row)), val, max_demos, per_row, per_row)
