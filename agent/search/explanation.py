"""The parts of the winner, and the contribution of each to its gain over the baseline.

A part contributes the score that is lost when the baseline's part replaces it; the kind names the parts
(`Program.ablations`). Ablations that were scored on the winner's rows are measured, paired; the others are estimated
from all scores of the run (`effects.py`). If the interval holds both signs, no sign is claimed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from agent.errors import BudgetExhausted
from agent.evaluate import answer_counts, breakdown
from agent.evaluate.breakdown import BASELINE, WINNER
from agent.evaluate.evaluator import values, why_unscored
from agent.evaluate.score_table import ScoreTable
from agent.evaluate.verdict import better
from agent.prompt.parts.shape import shape_changes
from agent.prompt.parts.tools import tool_changes
from agent.results.breakdown import Consistency, JudgeTrust, Retrieval, Variety
from agent.results.run_parts import Carried, Change, Lift, OtherBaseline, PromptSize, ProposerUse, ToShow, Winner
from agent.search.context import SearchContext
from agent.search.effects import PartsModel, ScoredCandidate
from agent.search.plan import calls_for
from agent.search.program import PROPOSED, Program
from agent.search.selection import OTHER_CAPS, within_noise
from agent.search.study import Feature
from agent.search.trials import Trials, by_operator
from agent.stats.intervals import both_scored, paired_difference
from agent.stats.power import shown
from agent.stats.preflight import rows_to_show
from agent.types import Budget, Candidate, Outcome, Proposal, Summary

Scores = Sequence[float | None]
FEWEST_ROWS = 10
WIDTH = 1.96


def attribution(
    winner: Candidate,
    ablations: Mapping[str, Candidate],
    table: Sequence[ScoredCandidate],
    features: Callable[[Candidate], Mapping[Feature, float]],
    optimism: float = 0.0,
    seed: int = 0,
) -> list[Carried]:
    """Estimate the contribution of each part of the winner, largest first, in points to hundredths.

    `optimism`: how much choosing the best flatters the winner on these rows, in score: measured intervals reach down by
    it, estimates shrink by themselves.
    """
    rows = {scored.candidate_id: scored.values for scored in table}
    model: PartsModel | None = None
    parts = []
    for part, without in ablations.items():
        pairs = _pairs(rows.get(winner.id), rows.get(without.id))
        if pairs:
            diff = paired_difference([mine for mine, _ in pairs], [theirs for _, theirs in pairs], seed)
            points, low, high = diff.diff, diff.ci95[0] - max(0.0, optimism), diff.ci95[1]
        elif not features(winner):
            continue
        else:
            model = model or PartsModel(table)
            points, error = model.difference(features(winner), features(without))
            low, high = points - WIDTH * error, points + WIDTH * error
        ci95 = round(100 * low, 2), round(100 * high, 2)
        how: Literal["measured", "estimated", "unknown"]
        how = "unknown" if low <= 0 <= high else "measured" if pairs else "estimated"
        parts.append((points, Carried(part=part, points=round(100 * points, 2), ci95=ci95, how=how, rows=len(pairs))))
    return [part for _, part in sorted(parts, key=lambda each: -each[0])]


def _pairs(mine: Scores | None, theirs: Scores | None) -> list[tuple[float, float]]:
    if mine is None or theirs is None or len(theirs) < len(mine):
        return []
    pairs = both_scored(mine, theirs)
    return pairs if len(pairs) >= FEWEST_ROWS else []


def scored_candidates(program: Program, trials: Trials) -> list[ScoredCandidate]:
    return [
        ScoredCandidate(i, program.features(trials.candidate(i)), [o.value for o in outcomes])
        for i, outcomes in trials.outcomes.items()
    ]


async def ablate(context: SearchContext, winner: Candidate) -> None:
    """Score the winner without each of its parts, as far as the budget pays."""
    trials = context.trials
    for part, made in context.program.ablations(winner, context.baseline).items():
        rows = context.plan.dev_rows - len(trials.outcomes.get(made.id, ()))
        cost = context.costs.of_rows(winner.id, rows) + context.costs.through_test(winner.id)
        if rows > context.spare() or cost > context.costs.affordable():
            continue
        if made.id not in trials.proposals:
            reason = f"the winner with the {part} of the user's own prompt: what does that part carry?"
            context.admit([Proposal(made, trials.proposals[winner.id].place, f"without:{part}", winner.id, reason)])
        if made.id in trials.proposals:
            try:
                await context.see([made.id], context.plan.dev_rows)
            except BudgetExhausted:
                await context.gateway.drain()
                return


def _optimism(context: SearchContext, winner: Candidate, corrected: float | None) -> float:
    return 0.0 if corrected is None else max(0.0, (context.trials.mean(winner.id) or 0.0) - corrected)


async def without_idle_parts(context: SearchContext, winner: Candidate, corrected: float | None) -> Candidate:
    """Ablate the winner; if its kind wants that, drop parts without a gain."""
    trials, kept = context.trials, winner
    optimism = _optimism(context, winner, corrected)
    while True:
        await ablate(context, kept)
        fewer = context.program.ablations(kept, context.baseline) if context.program.drops_idle_parts else {}
        means = {
            part: trials.mean(made.id) or 0.0
            for part, made in fewer.items()
            if made.id in trials.in_state("complete") and made.id != context.baseline.id
            if within_noise(trials.scores(made.id), trials.scores(winner.id), optimism)
        }
        if not means:
            return kept
        part = max(means, key=means.__getitem__)
        kept = fewer[part]
        context.note("part_dropped", {"part": part, "candidate_id": kept.id})
        context.observer.on_message(f"{part}: yours stays, as the change adds no gain on dev")


def carried(context: SearchContext, winner: Candidate, corrected: float | None) -> list[Carried]:
    """Return the contribution of each part of the winner; [] for the user's own. `corrected`: its dev score."""
    if winner.id == context.baseline.id:
        return []
    optimism = _optimism(context, winner, corrected)
    ablations = context.program.ablations(winner, context.baseline)
    table = scored_candidates(context.program, context.trials)
    return attribution(winner, ablations, table, context.program.features, optimism, context.seed)


def changed(context: SearchContext, winner: Candidate) -> Change | None:
    """Describe how the winner differs from the user's own prompt; None if that won."""
    program, baseline = context.program, context.baseline
    if winner.id == baseline.id:
        return None
    new, own = program.shown(winner), program.shown(baseline)

    def side(candidate: Candidate, found: Summary) -> PromptSize:
        return PromptSize(
            technique=found.technique,
            format=found.format,
            n_examples=found.n_examples,
            prompt_tokens=program.prompt_tokens(candidate),
            tokens_a_call=context.evaluator.tokens_a_call(candidate.id),
            role=found.role,
        )

    return Change(
        winner=side(winner, new),
        baseline=side(baseline, own),
        instruction=new.text != own.text,
        keeps=new.text != own.text and bool(own.text.strip()) and own.text.strip() in new.text,
        tools=tuple(change.what for change in tool_changes(new.tool_texts)),
        answer=shape_changes(new.shape),
        texts=program.changed_texts(winner, baseline),
    )


def proposer_use(context: SearchContext, winner: Candidate, ended: str) -> ProposerUse:
    """Summarize the proposals and their fates. `ended`: why the search ended early."""
    trials, noted, log = context.trials, context.noted, context.proposal_log
    if context.proposer is None:
        return ProposerUse(why_not="there is no proposer")
    places = {i: trials.proposals[i].place.values() for i in trials.by_id}
    tried = [i for i, place in places.items() if any(choice.startswith(f"{PROPOSED}-") for choice in place)]
    proposals = log.fates(trials, winner.id)
    why_not = ""
    if context.asked == 0:
        early = f"the search had ended before: {context.stopped}" if context.stopped else "the search asked for none"
        is_search = len(trials.by_id) > 1 or bool(context.stopped)
        why_not = early if is_search else "nothing was searched"
        why_not = "the search ended before its plan was done" if ended else why_not
    return ProposerUse(
        model=context.proposer.name,
        planned=context.plan.proposals,
        asked=context.asked,
        refused=noted["proposal_refused"],
        failed=noted["proposal_failed"],
        tried=len(tried) if context.asked <= log.calls else None,
        finalists=sum(trials.by_id[candidate_id].state == "complete" for candidate_id in tried),
        won=winner.id in tried,
        why_not=why_not,
        points=_over_others(trials, tried),
        operators=tuple(by_operator(proposals)),
        proposals=tuple(proposals),
    )


def _over_others(trials: Trials, tried: Sequence[str]) -> float | None:
    seen = [i for i, trial in trials.by_id.items() if trials.outcomes.get(i) and trial.state != "failed"]
    best = trials.furthest([i for i in seen if i in tried])
    other = trials.furthest([i for i in seen if i not in tried])
    gains = [one - two for one, two in trials.common(best, other)]
    return 100 * sum(gains) / len(gains) if gains else None


# -- the sealed test --------------------------------------------------------------------------------------------------


def again(side: str) -> str:
    """Return the arm name of the repeats of a side."""
    return f"{side} again"


def explained(
    context: SearchContext, table: ScoreTable, winner: Candidate, judges: Sequence[JudgeTrust], ended: str
) -> dict[str, Any]:
    """Describe winner, proposer and sealed test as fields of `RunResult`. `ended`: why the search ended early."""
    task, seed, outputs = context.task, context.seed, context.task.signature.outputs
    texts = [field.name for field in outputs if field.type == "text"]
    steady = {side: breakdown.consistency(table.passes(again(side))) for side in (WINNER, BASELINE)}
    return {
        "change": changed(context, winner),
        "proposer": proposer_use(context, winner, ended),
        "answers": answer_counts.row_counts(table),
        "labels": answer_counts.by_label(table, outputs),
        "tools": answer_counts.by_tool(table, outputs[0], task.tools),
        "fields": breakdown.by_field(table, outputs, task.metrics, seed),
        "metrics": breakdown.by_metric(table, task.metrics, seed),
        "slices": breakdown.by_slice(table, task.slices, seed),
        "consistency": Consistency(**steady) if context.plan.repeats > 1 else None,
        "variety": [
            Variety(field=name, **breakdown.both(table, partial(breakdown.variety, field=name))) for name in texts
        ],
        "retrieval": _retrieval(context, table, winner),
        "judges": judges,
    }


def _retrieval(context: SearchContext, table: ScoreTable, winner: Candidate) -> Retrieval | None:
    task = context.task
    if task.knowledge is None:
        return None
    sides = {WINNER: winner, BASELINE: context.baseline}
    looked_up = {side: partial(context.program.documents, candidate) for side, candidate in sides.items()}
    return answer_counts.retrieval_figures(table, task.knowledge, task.signature.outputs[0].name, looked_up)


def tested(context: SearchContext, winner: Candidate, table: ScoreTable, corrected: float | None) -> Winner:
    """Describe the winner with its scores. `corrected`: its dev score."""
    program, evaluator, found = context.program, context.evaluator, context.program.shown(winner)
    return Winner(
        candidate_id=winner.id,
        technique=found.technique,
        format=found.format,
        n_examples=found.n_examples,
        instruction=found.text,
        dev=context.trials.mean(winner.id),
        dev_corrected=corrected,
        test=sealed_mean(table, WINNER),
        prompt_tokens=program.prompt_tokens(winner),
        picks=found.picks,
        passages=found.passages,
        tokens_a_call=evaluator.tokens_a_call(winner.id),
        calls_a_row=None if program.is_fixed else round(evaluator.calls_a_row(winner.id), 2),
    )


def sealed_mean(table: ScoreTable, arm: str) -> float | None:
    """Return the mean of an arm's first answers."""
    scores = values(table.first(arm))
    return sum(scores) / len(scores) if scores else None


def other_baseline(table: ScoreTable, name: str, reference: Candidate, winner: Candidate, seed: int) -> OtherBaseline:
    """Compare the winner with a further baseline, the arm `name`."""
    gained = None if reference.id == winner.id else better(table, WINNER, name, seed)
    return OtherBaseline(
        name=name,
        candidate_id=reference.id,
        test=sealed_mean(table, name),
        lift=None if gained is None else gained.figures,
        why="" if values(table.first(name)) else why_unscored(table.first(name)[0]),
    )


def to_show(context: SearchContext, lift: Lift, based: Sequence[Outcome], budget: Budget) -> ToShow | None:
    """Return the sample size needed to confirm a gain. None if it was significant; `based`: the baseline's answers."""
    scores = values(based)
    if lift.diff <= 0 or shown(lift.ci95, lift.p_value) > 0 or not scores:
        return None
    there, used = len(context.task.test), len(based)
    needed = rows_to_show(lift.diff, scores)
    wanted = needed if needed is not None and used < needed < there else there
    caps = tuple(f"--{name.replace('_', '-')}" for name in OTHER_CAPS if getattr(budget, name) is not None)
    is_paid = wanted <= used
    return ToShow(
        gain=lift.diff,
        rows_needed=needed,
        rows_tested=used,
        rows_there=there,
        max_calls=None if is_paid else calls_for(wanted, context.task, context.plan),
        other_caps=() if is_paid else caps,
    )
