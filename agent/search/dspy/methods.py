"""DSPy's own optimizers on a program, rows and a number of calls.

Settings are DSPy's defaults as far as the calls allow; the bridge ends what costs more than was planned. The result
does not depend on threads: rows come back in order, every random choice has a seed, and GEPA's merge, which iterates
over a set of names, is off.
"""

from __future__ import annotations

import io
import operator
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from functools import partialmethod
from importlib import import_module
from typing import Any
from unittest.mock import patch

from agent.errors import BudgetExhausted, one_line
from agent.search.dspy.bridge import Bridge
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
    max_examples: int
    per_row: int = 1
    predictors: int = 1

    @property
    def sets(self) -> int:
        """Random demo sets of BootstrapFewShotWithRandomSearch, which scores three other programs before."""
        bootstrapped = min(4, self.max_examples)
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
        bootstrapping = (self.candidates - 2) * 3 * min(4, self.max_examples) * self.per_row
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
        """Whether the method can do anything with its calls."""
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
    demos = task.constraints.max_examples if task.constraints.max_examples is not None else len(task.train)
    return size_of(method, plan.search_rows * calls_each, plan.dev_rows, demos, calls_each).enough(method)


def size_of(method: str, left: int, dev: int, max_examples: int, per_row: int) -> Size:
    """What the optimizer may use of `left` calls, when its choice must still be scored on the rest of `dev` rows."""
    val = val_rows(method, free(left, dev, per_row) // per_row, dev)
    return Size(max(0, free(left, dev - val, per_row)), val, max_examples, per_row, per_row)


GOOD_ENOUGH = 0.5  # a reply that scores less is no demonstration
ENDLESS = 10**6  # rows may fail: a reply that does not parse is 0 and not a reason to end

State = Mapping[str, tuple[str, list[dict[str, Any]]]]  # by predictor: its instruction and its demos
Judge = Callable[[Any, Any], tuple[float, str]]  # (row, prediction) -> score in [0, 1] and feedback


@dataclass(frozen=True, slots=True)
class OptimizerJob:
    """What to optimize: a DSPy program on rows, with its metric (`judge`), the model that writes instructions
    (`author`), the calls that may be used and those of a row."""

    program: Any
    train: Sequence[Any]
    val: Sequence[Any]
    judge: Judge
    author: Any
    calls: int
    seed: int
    threads: int
    max_examples: int
    per_row: int = 1

    @property
    def size(self) -> Size:
        predictors = len(self.program.predictors())
        return Size(self.calls, len(self.val), self.max_examples, self.per_row, predictors)


@dataclass(slots=True)
class TriedProgram:
    """The `number`-th program: its best mean `score` in percent, on `rows` rows of val; `whole`: on all of them."""

    state: State
    number: int
    score: float
    rows: int
    whole: bool


@dataclass(slots=True)
class OptimizerResult:
    """Programs in the order in which they were first tried, the chosen one, and what ended the optimizer early."""

    tried: list[TriedProgram] = field(default_factory=list)
    chosen: TriedProgram | None = None
    ended: str = ""

    def ranked(self) -> list[TriedProgram]:
        """The chosen one, then those scored on all rows, then the others: the best first, of equals the earliest."""
        return sorted(self.tried, key=lambda t: (t is not self.chosen, not t.whole, -t.score, t.number))


def state_of(program: Any) -> State:
    """Instruction and examples of each predictor, as plain data: two programs with one state are one."""
    return {
        name: (predictor.signature.instructions, predictor.dump_state()["demos"])
        for name, predictor in program.named_predictors()
    }


async def optimize(bridge: Bridge, method: str, job: OptimizerJob, settings: Mapping[str, Any]) -> OptimizerResult:
    """Run the optimizer in a thread under `dspy.context(**settings)`.

    What stops the bridge, other than a spent budget, is raised; a failure of DSPy itself goes into `ended`, next to the
    programs tried before.
    """
    import dspy

    result = OptimizerResult()
    if not job.size.enough(method):
        result.ended = f"{job.calls} calls are too few for {method}"
        return result
    make = {"dspy-mipro": _mipro, "dspy-gepa": _gepa, "dspy-bootstrap": _bootstrap}[method]
    log = _evaluation_log(bridge, job, result)
    try:
        with dspy.context(**settings, callbacks=[log], max_errors=ENDLESS), _silence():
            program = await bridge.run(make(job))
    except BudgetExhausted as stop:
        result.ended = str(stop)
    except Exception as error:
        if bridge.stopped is not None:
            raise
        result.ended = one_line(error, 500)
    else:
        state = state_of(program)
        result.chosen = next((tried for tried in result.tried if tried.state == state), None)
    return result


def _evaluation_log(bridge: Bridge, job: OptimizerJob, result: OptimizerResult) -> Any:
    from dspy.utils.callback import BaseCallback

    class EvaluationLog(BaseCallback):  # type: ignore[misc]
        """Records each evaluation that was not cut short."""

        def __init__(self) -> None:
            self.open: dict[str, tuple[Any, int, bool]] = {}

        def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
            rows = inputs.get("devset") or instance.devset
            whole = len(rows) == len(job.val) and all(map(operator.is_, rows, job.val))
            self.open[call_id] = inputs["program"], len(rows), whole

        def on_evaluate_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
            program, rows, whole = self.open.pop(call_id)
            if outputs is None or bridge.stopped is not None:
                return
            state = state_of(program)
            old = next((tried for tried in result.tried if tried.state == state), None)
            if old is None:
                result.tried.append(TriedProgram(state, len(result.tried) + 1, outputs.score, rows, whole))
            elif (whole, outputs.score) > (old.whole, old.score):
                old.score, old.rows, old.whole = outputs.score, rows, whole

    return EvaluationLog()


@contextmanager
def _silence() -> Iterator[None]:
    """Turns off what DSPy prints, logs and draws."""
    import dspy

    bar = import_module("tqdm").tqdm
    dspy.disable_logging()
    try:
        with redirect_stdout(io.StringIO()), patch.object(bar, "__init__", partialmethod(bar.__init__, disable=True)):
            yield
    finally:
        dspy.enable_logging()


def _score(job: OptimizerJob) -> Callable[..., float]:
    def metric(row: Any, prediction: Any, trace: Any = None) -> float:
        return job.judge(row, prediction)[0]

    return metric


def train_rows(rows: Sequence[Any], calls: int, seed: int) -> list[Any]:
    """As many rows of train as `calls` pay when no bootstrapping succeeds, in the order of the seed."""
    return random.Random(f"{seed}/dspy").sample(list(rows), min(len(rows), max(20, calls // 15)))


def _bootstrap(job: OptimizerJob) -> Callable[[], Any]:
    """BootstrapFewShotWithRandomSearch: as many random demo sets as fit, up to 16, after three other programs."""
    from dspy import BootstrapFewShotWithRandomSearch

    optimizer = BootstrapFewShotWithRandomSearch(
        metric=_score(job),
        max_bootstrapped_demos=min(4, job.max_examples),
        max_labeled_demos=min(16, job.max_examples),
        num_candidate_programs=job.size.sets,
        num_threads=job.threads,
        max_errors=ENDLESS,
        metric_threshold=GOOD_ENOUGH,
    )
    return lambda: optimizer.compile(job.program, trainset=list(job.train), valset=list(job.val))


def _mipro(job: OptimizerJob) -> Callable[[], Any]:
    """MIPROv2 with the counts of its `light` or `medium`, and as many trials as fit."""
    from dspy import MIPROv2

    size = job.size
    optimizer = MIPROv2(
        metric=_score(job),
        prompt_model=job.author,
        auto=None,
        num_candidates=size.candidates,
        max_bootstrapped_demos=min(4, job.max_examples),
        max_labeled_demos=min(4, job.max_examples),
        num_threads=job.threads,
        max_errors=ENDLESS,
        seed=job.seed % 2**32,
        metric_threshold=GOOD_ENOUGH,
    )
    return lambda: optimizer.compile(
        job.program,
        trainset=list(job.train),
        valset=list(job.val),
        num_trials=size.trials,
        minibatch=size.minibatch,
        minibatch_size=min(MINIBATCH, len(job.val)),
        minibatch_full_eval_steps=FULL_EVERY,
    )


def _gepa(job: OptimizerJob) -> Callable[[], Any]:
    """GEPA without merge: reflection on the feedback of three rows at a time, proposals by DSPy's own instruction."""
    import dspy
    from dspy.teleprompt.gepa.instruction_proposal import InstructionProposer

    def metric(row: Any, prediction: Any, trace: Any = None, name: Any = None, part: Any = None) -> Any:
        score, feedback = job.judge(row, prediction)
        return dspy.Prediction(score=score, feedback=feedback)

    optimizer = dspy.GEPA(
        metric=metric,
        max_metric_calls=job.size.scored,
        reflection_minibatch_size=REFLECTED,
        reflection_lm=job.author,
        instruction_proposer=InstructionProposer(adapter=dspy.settings.adapter),
        add_format_failure_as_feedback=True,
        use_merge=False,
        num_threads=job.threads,
        warn_on_score_mismatch=False,
        seed=job.seed,
    )
    return lambda: optimizer.compile(job.program, trainset=list(job.train), valset=list(job.val))
