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
from agent.search.dspy.sizes import FULL_EVERY, MINIBATCH, REFLECTED, Size

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
    max_demos: int
    per_row: int = 1

    @property
    def size(self) -> Size:
        """The settings that the calls allow."""
        predictors = len(self.program.predictors())
        return Size(self.calls, len(self.val), self.max_demos, self.per_row, predictors)


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
    """Instruction and demos of each predictor, as plain data: two programs with one state are one."""
    return {
        name: (predictor.signature.instructions, predictor.dump_state()["demos"])
        for name, predictor in program.named_predictors()
    }


async def optimize(bridge: Bridge, method: str, job: OptimizerJob, settings: Mapping[str, Any]) -> OptimizerResult:
    """Runs the optimizer in a thread under `dspy.context(**settings)`.

    What stops the bridge, other than a spent budget, is raised; a failure of DSPy itself goes into `ended`, beside the
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
        max_bootstrapped_demos=min(4, job.max_demos),
        max_labeled_demos=min(16, job.max_demos),
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
        max_bootstrapped_demos=min(4, job.max_demos),
        max_labeled_demos=min(4, job.max_demos),
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
