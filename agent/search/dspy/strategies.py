"""DSPy's own optimizers as strategies: the programs that they try are candidates.

Replies are scored by the task's own metrics. A row that the provider never answers counts as 0 for DSPy, which has no
"unscored"; on the board it stays unscored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from agent.prompt.techniques import NOT_FOR_DSPY
from agent.prompt.template import label_text
from agent.scoring.task_metrics import combine
from agent.search.context import SearchContext
from agent.search.dspy.bridge import Bridge, Meter, unlimited
from agent.search.dspy.methods import (
    OptimizerJob,
    OptimizerResult,
    TriedProgram,
    enough,
    free,
    optimize,
    train_rows,
    val_rows,
)
from agent.search.registered import Search, strategy
from agent.types import Candidate, Completion, Example, Prediction, Proposal, canonical

AUTHOR_TOKENS = 400  # of a proposed instruction or a summary, as many as a reply may have
THREADS = 16


@dataclass(frozen=True, slots=True)
class DspyForm:
    """A kind for DSPy's optimizers: a `module` that runs under `settings`, with replies of `max_tokens`.

    `read` makes a prediction of its output, `proposal` a candidate of a tried program; `paid` is the reply to a
    candidate's call on a row during the optimization, where a row takes one call.
    """

    meter: Meter
    module: Any
    settings: Mapping[str, Any]
    max_tokens: int
    read: Callable[[Any], Prediction]
    proposal: Callable[[str, TriedProgram], Proposal]
    paid: Callable[[Candidate, Example], Completion | None] = lambda candidate, row: None


def _dspy(name: str, about: str) -> Callable[[Search], Search]:
    return strategy(
        name,
        about=about,
        kinds=("prompt", "dspy"),
        counts_trials=False,
        enough=partial(enough, name),
        lacks="the task allows no examples",
        needs_proposer=name != "dspy-bootstrap",
    )


@_dspy(
    "dspy-mipro", about="DSPy's MIPROv2: sets of examples and proposed instructions, joined by Bayesian optimization."
)
async def mipro(context: SearchContext) -> None:
    await search(context, "dspy-mipro")


@_dspy("dspy-gepa", about="DSPy's GEPA: instructions that are reflected on and changed, the best of each row kept.")
async def gepa(context: SearchContext) -> None:
    await search(context, "dspy-gepa")


@_dspy("dspy-bootstrap", about="DSPy's bootstrapped few-shot examples with random search.")
async def bootstrap(context: SearchContext) -> None:
    await search(context, "dspy-bootstrap")


async def search(context: SearchContext, method: str) -> None:
    """Run DSPy's optimizer on train and on the first rows of dev, then score its choice on the whole of dev."""
    form = context.program.for_dspy(context)
    result = await _explore(context, form, method)
    chosen = _admitted(context, {tried.number: form.proposal(method, tried) for tried in result.tried}, result)
    for _, candidate in chosen:  # calls of DSPy are not paid again: their replies are scored
        for row in context.dev:
            if (reply := form.paid(candidate, row)) is not None:
                await context.evaluator.adopt(candidate, row, "dev", reply)
    await _show(context, method, chosen)


async def _explore(context: SearchContext, form: DspyForm, method: str) -> OptimizerResult:
    """The optimizer's result, within what the context has left when its choice must still be scored on all of dev."""
    bridge, meter = Bridge(form.meter), form.meter
    rows, lm = Rows(context, bridge, form.read), bridge.lm(context.target, "model", max_tokens=form.max_tokens)
    context.stage(method, 1)
    per_row = context.plan.calls_each
    calls = free(context.left(), len(context.dev), per_row)
    val = [row for row in context.dev[: val_rows(method, calls // per_row, len(context.dev))] if _is_plain(row)]
    train = train_rows([row for row in context.task.train if _is_plain(row)], calls // per_row, context.seed)
    unseen = len(context.dev) - len(val)
    limit = context.task.constraints.max_examples
    job = OptimizerJob(
        program=form.module,
        train=[rows.example(row) for row in train],
        val=[rows.example(row) for row in val],
        judge=rows.judge,
        author=bridge.lm(context.proposer or context.target, "proposer", max_tokens=AUTHOR_TOKENS, temperature=1.0),
        calls=max(0, free(context.left(), unseen, per_row)),
        seed=context.seed,
        threads=context.target.concurrency or THREADS,
        max_examples=len(train) if limit is None else limit,
        per_row=per_row,
    )
    context.pruned_externally = job.size.sifts(method)
    meter.room = lambda: free(context.left(), unseen, per_row)
    result = await optimize(bridge, method, job, {"lm": lm, **form.settings})
    await meter.settle()
    meter.room = unlimited
    if result.ended:
        context.note("strategy_ended" if result.tried else "strategy_failed", {"why": result.ended})
        context.failed = "" if result.tried else result.ended
    if bridge.failures:
        context.note("strategy_unscored", {"rows": len(bridge.failures), "why": str(bridge.failures[0])})
    return result


Chosen = list[tuple[TriedProgram, Candidate]]


def _admitted(context: SearchContext, proposals: Mapping[int, Proposal], result: OptimizerResult) -> Chosen:
    """Take the programs into the pool; return those that DSPy scored on all of its rows, the best first, or the best of
    the others."""
    context.admit(list(proposals.values()))
    ranked = [(tried, proposals[tried.number].candidate) for tried in result.ranked()]
    ranked = [(tried, candidate) for tried, candidate in ranked if candidate.id in context.board.proposals]
    return [(tried, candidate) for tried, candidate in ranked if tried.whole] or ranked[:1]


async def _show(context: SearchContext, method: str, chosen: Chosen) -> None:
    """Give each a trial on the rows on which DSPy compared them, and score the first of them on the whole of dev."""
    board = context.board
    done = board.in_state("complete")  # a program of the user's own is tried by DSPy too
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
            board.settle(candidate_id, "complete", "saw the whole of dev")
        elif candidate_id in board.trials and board.trials[candidate_id].state == "incomplete":
            board.settle(candidate_id, "pruned", f"{method} preferred another on the same {rows} rows")


class Rows:
    """A task's rows as DSPy's examples and back, and its score for them."""

    def __init__(self, context: SearchContext, bridge: Bridge, read: Callable[[Any], Prediction]) -> None:
        self._task, self._evaluator, self._bridge, self._read = context.task, context.evaluator, bridge, read
        self._rows: dict[str, Example] = {}
        for row in reversed((*context.task.train, *context.dev)):
            self._rows[canonical(self._texts(row))] = row

    def _texts(self, row: Example) -> dict[str, str]:
        outputs = {field.name: row.labels.get(field.name) for field in self._task.signature.outputs}
        return {**row.inputs, **{name: label_text(value) for name, value in outputs.items() if value is not None}}

    def example(self, row: Example) -> Any:
        import dspy

        return dspy.Example(**self._texts(row)).with_inputs(*row.inputs)

    def judge(self, example: Any, prediction: Any) -> tuple[float, str]:
        """The evaluator's score of this reply, with the reasons of what is not perfect."""
        row = self._rows[canonical(dict(example.items()))]
        answer = self._read(prediction)
        scores = self._bridge.fetch(lambda: self._evaluator.scores(row, answer))
        value = combine(scores, self._task.metrics)
        return value or 0.0, " ".join(score.reason for score in scores if score.reason) or f"score {value}"


def _is_plain(row: Example) -> bool:
    """Whether DSPy takes the row's texts for text."""
    return not any(mark in canonical([dict(row.inputs), dict(row.labels)]) for mark in NOT_FOR_DSPY)
