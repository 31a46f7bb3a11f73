"""What a run has measured becomes the parts of its result, and the gate decides. Pure: no model, no SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from agent.evaluate.answer_counts import retrieval_figures
from agent.evaluate.breakdown import Pair
from agent.evaluate.evaluator import values
from agent.release.gate import blocked_by, shown
from agent.release.result import RunResult
from agent.results.breakdown import Retrieval
from agent.results.run_parts import Baseline, Cheaper, Lift, NotWorse, ToShow, Winner
from agent.search.context import SearchContext
from agent.search.plan import Plan, calls_for
from agent.search.selection import OTHER_CAPS, CheaperChoice
from agent.stats.intervals import LossBound, loss_bound, paired_difference
from agent.stats.preflight import rows_to_show
from agent.types import Budget, Candidate, Outcome, Task


@dataclass(frozen=True, slots=True)
class DevScores:
    """Mean dev scores, in [0, 1]; None: not known.

    `corrected`: the winner's, corrected for having been chosen on it. `baseline_rows`: how many rows the baseline was
    scored on; None: all.
    """

    baseline: float | None
    winner: float | None
    corrected: float | None
    baseline_rows: int | None = None


def two_prompts(context: SearchContext, winner: Candidate, pair: Pair, dev: DevScores, seed: int) -> dict[str, Any]:
    """The two prompts on the sealed rows and their difference, by the names of `RunResult`."""
    found = context.program.shown(winner)
    return {
        "baseline": Baseline(dev=dev.baseline, test=_mean(values(pair.based)), dev_rows=dev.baseline_rows),
        "winner": Winner(
            candidate_id=winner.id,
            technique=found.technique,
            format=found.format,
            n_examples=found.n_examples,
            instruction=found.text,
            dev=dev.winner,
            dev_corrected=dev.corrected,
            test=_mean(values(pair.won)),
            prompt_tokens=context.program.prompt_tokens(winner),
            picks=found.picks,
            passages=found.passages,
            tokens_a_call=context.evaluator.tokens_a_call(winner.id),
        ),
        "lift": _lift(pair, seed),
    }


def _lift(pair: Pair, seed: int) -> Lift:
    pairs = [(w.value, b.value) for w, b in zip(pair.won, pair.based, strict=True)]
    both = [(w, b) for w, b in pairs if w is not None and b is not None]
    lost = [b for w, b in pairs if w is None and b is not None]
    lift = paired_difference([w for w, _ in both], [b for _, b in both], seed)
    return Lift(
        diff=lift.diff,
        ci95=lift.ci95,
        p_value=lift.p_value,
        wins=lift.wins,
        losses=lift.losses,
        ties=lift.ties,
        lost=len(lost),
        diff_if_wrong=(lift.diff * len(both) - sum(lost)) / (len(both) + len(lost)),
        n=lift.n,
        baseline=_mean([b for _, b in both]),
        winner=_mean([w for w, _ in both]),
    )


def decided(result: RunResult, based: Sequence[Outcome], task: Task, plan: Plan, budget: Budget) -> RunResult:
    """The result with what the gate says of its winner.

    `based`: the outcomes of the user's own prompt on the sealed test, whose rows `task`, `plan` and `budget` allowed.
    """
    blocks = blocked_by(result)
    gated = result.model_copy(
        update={
            "decision": "keep_baseline" if blocks else "promote",
            "blocked": tuple(block.message for block in blocks),
            "blocked_codes": tuple(block.code for block in blocks),
        }
    )
    if gated.migration:
        return gated
    return gated.model_copy(update={"to_show": _to_show(gated, based, task, plan, budget)})


def _to_show(result: RunResult, based: Sequence[Outcome], task: Task, plan: Plan, budget: Budget) -> ToShow | None:
    """Sample size and calls that confirm a gain as large as the one measured; None where it was shown or is no gain."""
    lift, scores = result.lift, values(based)
    if result.is_own or lift.diff <= 0 or shown(lift.ci95, lift.p_value) > 0 or not scores:
        return None
    there, tested = len(task.test), len(based)
    needed = rows_to_show(lift.diff, scores)
    wanted = needed if needed is not None and tested < needed < there else there
    caps = tuple(f"--{name.replace('_', '-')}" for name in OTHER_CAPS if getattr(budget, name) is not None)
    is_paid = wanted <= tested
    return ToShow(
        gain=lift.diff,
        rows_needed=needed,
        rows_tested=tested,
        rows_there=there,
        max_calls=None if is_paid else calls_for(wanted, task, plan),
        other_caps=() if is_paid else caps,
    )


def retrieval_part(context: SearchContext, pair: Pair, winner: Candidate) -> Retrieval | None:
    """How passages were looked up on the sealed test; None for a task without documents."""
    task = context.task
    if task.knowledge is None:
        return None
    sides = {"winner": winner, "baseline": context.baseline}
    looked_up = {side: partial(context.program.documents, candidate) for side, candidate in sides.items()}
    return retrieval_figures(pair, task.knowledge, task.signature.outputs[0].name, looked_up)


def not_worse(bound: LossBound) -> NotWorse:
    """A bound as a part of the result."""
    return NotWorse(diff=bound.diff, low=bound.low, margin=bound.margin, n=bound.n, shown=bound.is_shown)


def cheaper_part(choice: CheaperChoice, won: Sequence[Outcome], best: Sequence[Outcome], seed: int) -> Cheaper:
    """The winner against the best on dev, which costs more, by their outcomes on the sealed test."""
    bound = loss_bound([o.value for o in won], [o.value for o in best], choice.bound.margin, seed)
    return Cheaper(
        best=choice.best.id,
        saved=choice.saved,
        saved_in=choice.saved_in,
        dev=not_worse(choice.bound),
        best_test=_mean(values(best)),
        test=None if bound is None else not_worse(bound),
    )


def _mean(scores: Sequence[float]) -> float | None:
    return sum(scores) / len(scores) if scores else None
