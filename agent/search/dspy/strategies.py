"""DSPy's own optimizers in a search: the programs that they try are candidates.

Settings are DSPy's defaults as far as the calls allow. The result does not depend on threads: rows come back in order,
every random choice has a seed, and GEPA's merge, which iterates over a set of names, is off. A row that the provider
never answers counts as 0 for DSPy, which has no "unscored"; on the trials it stays unscored.
"""

from __future__ import annotations

import io
import json
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from functools import partialmethod
from importlib import import_module
from typing import Any
from unittest.mock import patch

import dspy
from dspy import BootstrapFewShotWithRandomSearch, MIPROv2
from dspy.teleprompt.gepa.instruction_proposal import InstructionProposer
from dspy.utils.callback import BaseCallback

from agent.errors import BudgetExhausted, one_line
from agent.prompt.named_texts import TextsCandidate
from agent.prompt.techniques import NOT_FOR_DSPY
from agent.prompt.template import label_text
from agent.scoring.task_metrics import combine
from agent.search.context import SearchContext
from agent.search.dspy.bridge import Bridge, DspyForm, TriedProgram
from agent.search.dspy.sizes import FULL_EVERY, KIND, MINIBATCH, REFLECTED, Size, free, train_rows, val_rows
from agent.types import Candidate, Example, Proposal, canonical

AUTHOR_TOKENS = 400  # of a proposed instruction or a summary, as many as a reply may have
THREADS = 16
GOOD_ENOUGH = 0.5  # a reply that scores less is no demonstration
ENDLESS = 10**6  # rows may fail: a reply that does not parse is 0 and not a reason to end
Chosen = list[tuple[TriedProgram, Candidate]]


@dataclass(slots=True)
class OptimizerResult:
    """Programs in order of first use, the chosen one, and why the optimizer ended early."""

    tried: list[TriedProgram] = field(default_factory=list)
    chosen: TriedProgram | None = None
    ended: str = ""

    def ranked(self) -> list[TriedProgram]:
        """Rank the chosen program, those scored on all rows, and the others. Ties by age."""
        return sorted(self.tried, key=lambda t: (t is not self.chosen, not t.whole, -t.score, t.number))


def state_of(program: Any) -> TextsCandidate:
    """Return each predictor's instruction and examples, whose values that are no JSON become text."""
    predictors = program.named_predictors()
    demos = {name: predictor.dump_state()["demos"] for name, predictor in predictors}
    texts = {name: predictor.signature.instructions for name, predictor in predictors}
    return TextsCandidate(KIND, texts, json.loads(json.dumps(demos, ensure_ascii=False, default=str)))


# -- an optimizer in a search ------------------------------------------------------------------------------------------


class OptimizerJob:
    """One optimizer on the program of a search."""

    def __init__(self, context: SearchContext, form: DspyForm, method: str) -> None:
        self.form, self.seed, self.method = form, context.seed, method
        self.bridge = Bridge(form.meter)
        self._task, self._evaluator = context.task, context.evaluator
        self._rows = {canonical(self._texts(row)): row for row in reversed((*context.task.train, *context.dev))}
        per_row, left, dev = context.plan.calls_each, context.left(), context.dev
        val = [row for row in dev[: val_rows(method, left, len(dev), per_row)] if _is_plain(row)]
        plain = [row for row in context.task.train if _is_plain(row)]
        train = train_rows(plain, free(left, len(dev), per_row) // per_row, context.seed)
        self.train, self.val = [self._example(row) for row in train], [self._example(row) for row in val]
        limit, predictors = context.task.constraints.max_examples, len(form.module.predictors())
        demos = len(train) if limit is None else limit

        self.room: Callable[[], int] = lambda: free(context.left(), len(dev) - len(val), per_row)
        self.size = Size(max(0, self.room()), len(val), demos, per_row, predictors)
        self.lm = self.bridge.lm(context.target, "model", max_tokens=form.max_tokens)
        author = context.proposer or context.target
        self.author = self.bridge.lm(author, "proposer", max_tokens=AUTHOR_TOKENS, temperature=1.0)
        self.threads = {"num_threads": context.target.concurrency or THREADS}

    @property
    def rows(self) -> dict[str, list[Any]]:
        """Copies, as optimizers may reorder them."""
        return {"trainset": list(self.train), "valset": list(self.val)}

    def _texts(self, row: Example) -> dict[str, str]:
        outputs = {field.name: row.labels.get(field.name) for field in self._task.signature.outputs}
        return {**row.inputs, **{name: label_text(value) for name, value in outputs.items() if value is not None}}

    def _example(self, row: Example) -> Any:
        return dspy.Example(**self._texts(row)).with_inputs(*row.inputs)

    def judge(self, example: Any, prediction: Any) -> tuple[float, str]:
        """Return the score of a reply with feedback."""
        row = self._rows[canonical(dict(example.items()))]
        answer = self.form.read(prediction)
        scores = self.bridge.fetch(lambda: self._evaluator.scores(row, answer))
        value = combine(scores, self._task.metrics)
        return value or 0.0, " ".join(score.reason for score in scores if score.reason) or f"score {value}"

    def score(self, row: Any, prediction: Any, trace: Any = None) -> float:
        return self.judge(row, prediction)[0]


def _is_plain(row: Example) -> bool:
    """Whether DSPy takes the row's texts for text."""
    return not any(mark in canonical([dict(row.inputs), dict(row.labels)]) for mark in NOT_FOR_DSPY)


async def search(context: SearchContext, method: str) -> None:
    """Run DSPy's optimizer on train and first dev rows; score its choice on dev."""
    form = context.program.for_dspy(context)
    context.stage(method, 1)
    job = OptimizerJob(context, form, method)
    context.pruned_externally = method == "dspy-mipro" and job.size.minibatch
    before, form.meter.room = form.meter.room, job.room
    result = await optimize(job)
    await form.meter.settle()
    form.meter.room = before
    if result.ended:
        context.note("strategy_ended" if result.tried else "strategy_failed", {"why": result.ended})
        context.failed = "" if result.tried else result.ended
    if failures := job.bridge.failures:
        context.note("strategy_unscored", {"rows": len(failures), "why": str(failures[0])})
    chosen = _admitted(context, {tried.number: form.proposal(method, tried) for tried in result.tried}, result)
    for _, candidate in chosen:  # calls of DSPy are not paid again: their replies are scored
        for row in context.dev:
            if (reply := form.paid(candidate, row)) is not None:
                await context.evaluator.adopt(candidate, row, "dev", reply)
    await _show(context, method, chosen)


async def optimize(job: OptimizerJob) -> OptimizerResult:
    """Run the optimizer in a thread. Raises what stops the bridge; DSPy's own failure goes into `ended`."""
    result, bridge = OptimizerResult(), job.bridge
    if not job.size.enough(job.method):
        result.ended = f"{job.size.calls} calls are too few for {job.method}"
        return result
    log = _evaluation_log(bridge, job, result)
    try:
        with dspy.context(lm=job.lm, **job.form.settings, callbacks=[log], max_errors=ENDLESS), _silence():
            program = await bridge.run(METHODS[job.method](job))
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


def _admitted(context: SearchContext, proposals: Mapping[int, Proposal], result: OptimizerResult) -> Chosen:
    context.admit(list(proposals.values()))
    ranked = [(tried, proposals[tried.number].candidate) for tried in result.ranked()]
    ranked = [(tried, candidate) for tried, candidate in ranked if candidate.id in context.trials.proposals]
    return [(tried, candidate) for tried, candidate in ranked if tried.whole] or ranked[:1]


async def _show(context: SearchContext, method: str, chosen: Chosen) -> None:
    trials = context.trials
    done = trials.in_state("complete")  # a program of the user's own is tried by DSPy too
    rows = min((tried.rows for tried, _ in chosen if tried.whole), default=0)
    in_order = sorted(chosen, key=lambda pair: pair[0].number)
    new = list(dict.fromkeys(candidate.id for _, candidate in in_order if candidate.id not in done))
    alive = await context.see(new, rows) if rows else new
    first = next((candidate.id for _, candidate in chosen if candidate.id in {*alive, *done}), None)
    whole = alive
    if rows != len(context.dev):
        whole = await context.see([i for i in alive if i == first], len(context.dev))
    for candidate_id in alive:
        if candidate_id in whole:
            trials.settle(candidate_id, "complete", "saw the whole of dev")
        elif candidate_id in trials.by_id and trials.by_id[candidate_id].state == "incomplete":
            trials.settle(candidate_id, "pruned", f"{method} preferred another on the same {rows} rows")


def _evaluation_log(bridge: Bridge, job: OptimizerJob, result: OptimizerResult) -> Any:
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
    bar = import_module("tqdm").tqdm
    dspy.disable_logging()
    try:
        with redirect_stdout(io.StringIO()), patch.object(bar, "__init__", partialmethod(bar.__init__, disable=True)):
            yield
    finally:
        dspy.enable_logging()


# -- the optimizers ----------------------------------------------------------------------------------------------------


def _bootstrap(job: OptimizerJob) -> Callable[[], Any]:
    optimizer = BootstrapFewShotWithRandomSearch(
        metric=job.score,
        max_bootstrapped_demos=job.size.bootstrapped,
        max_labeled_demos=min(16, job.size.max_examples),
        num_candidate_programs=job.size.sets,
        max_errors=ENDLESS,
        metric_threshold=GOOD_ENOUGH,
        **job.threads,
    )
    return lambda: optimizer.compile(job.form.module, **job.rows)


def _mipro(job: OptimizerJob) -> Callable[[], Any]:
    size = job.size
    optimizer = MIPROv2(
        metric=job.score,
        prompt_model=job.author,
        auto=None,
        num_candidates=size.candidates,
        max_bootstrapped_demos=size.bootstrapped,
        max_labeled_demos=size.bootstrapped,
        max_errors=ENDLESS,
        seed=job.seed % 2**32,
        metric_threshold=GOOD_ENOUGH,
        **job.threads,
    )
    return lambda: optimizer.compile(
        job.form.module,
        num_trials=size.trials,
        minibatch=size.minibatch,
        minibatch_size=min(MINIBATCH, size.val),
        minibatch_full_eval_steps=FULL_EVERY,
        **job.rows,
    )


def _gepa(job: OptimizerJob) -> Callable[[], Any]:
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
        warn_on_score_mismatch=False,
        seed=job.seed,
        **job.threads,
    )
    return lambda: optimizer.compile(job.form.module, **job.rows)


METHODS: dict[str, Callable[[OptimizerJob], Callable[[], Any]]] = {
    "dspy-mipro": _mipro,
    "dspy-gepa": _gepa,
    "dspy-bootstrap": _bootstrap,
}
"""The function that runs each optimizer."""
