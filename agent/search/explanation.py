"""The parts of the winner, and the contribution of each to its gain over the baseline.

A part contributes the score that is lost when the baseline's part replaces it; the kind names the parts
(`Program.ablations`). Ablations that were scored on the winner's rows are measured, paired; the others are estimated
from all scores of the run (`effects.py`). If the interval holds both signs, no sign is claimed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from agent.errors import BudgetExhausted
from agent.evaluate import answer_counts, breakdown
from agent.evaluate.breakdown import BASELINE, WINNER
from agent.evaluate.score_table import ScoreTable
from agent.prompt.parts.tools import tool_changes
from agent.results.breakdown import Consistency, JudgeTrust, Variety
from agent.results.run_parts import Carried, Change, PromptSize, ProposerUse
from agent.search.context import SearchContext
from agent.search.effects import Feature, PartsModel, ScoredCandidate
from agent.search.program import PROPOSED, Ablation, Program
from agent.search.trials import Trials, by_operator
from agent.stats.intervals import paired_difference
from agent.types import Candidate, Outcome, Proposal, Task

FEWEST_ROWS = 10
WIDTH = 1.96


def attribution(
    winner: Candidate,
    ablations: Sequence[Ablation],
    table: Sequence[ScoredCandidate],
    features: Callable[[Candidate], Mapping[Feature, float]],
    optimism: float = 0.0,
    seed: int = 0,
) -> list[Carried]:
    """Estimate the contribution of each part of the winner, largest first, in points to hundredths.

    `ablations`: the winner without each part in turn. `features`: a candidate as columns of the model; empty if nothing
    can be estimated. `optimism`: how much choosing the best flatters the winner on these rows, in score: measured
    intervals reach down by it, estimates shrink by themselves.
    """
    rows = {scored.candidate_id: scored for scored in table}
    model: PartsModel | None = None
    parts = []
    for ablation in ablations:
        pairs = _pairs(rows.get(winner.id), rows.get(ablation.candidate.id))
        if pairs:
            diff = paired_difference([mine for mine, _ in pairs], [theirs for _, theirs in pairs], seed)
            points, low, high = diff.diff, diff.ci95[0] - max(0.0, optimism), diff.ci95[1]
        elif not features(winner):
            continue
        else:
            model = model or PartsModel(table)
            points, error = model.difference(features(winner), features(ablation.candidate))
            low, high = points - WIDTH * error, points + WIDTH * error
        ci95 = round(100 * low, 2), round(100 * high, 2)
        how: Literal["measured", "estimated", "unknown"]
        how = "unknown" if low <= 0 <= high else "measured" if pairs else "estimated"
        part = Carried(part=ablation.part, points=round(100 * points, 2), ci95=ci95, how=how, rows=len(pairs))
        parts.append((points, part))
    return [part for _, part in sorted(parts, key=lambda each: -each[0])]


def _pairs(winner: ScoredCandidate | None, other: ScoredCandidate | None) -> list[tuple[float, float]]:
    if winner is None or other is None or len(other.values) < len(winner.values):
        return []
    both = zip(winner.values, other.values, strict=False)
    pairs = [(mine, theirs) for mine, theirs in both if mine is not None and theirs is not None]
    return pairs if len(pairs) >= FEWEST_ROWS else []


def scored_candidates(program: Program, trials: Trials) -> list[ScoredCandidate]:
    return [
        ScoredCandidate(i, program.traits(trials.candidate(i)).features(), [o.value for o in outcomes])
        for i, outcomes in trials.outcomes.items()
    ]


async def ablate(context: SearchContext, winner: Candidate) -> None:
    """Score the winner without each of its parts, as far as the budget pays."""
    for ablation in context.program.traits(winner).ablations(context.baseline):
        made = ablation.candidate
        rows = context.plan.dev_rows - len(context.trials.outcomes.get(made.id, ()))
        cost = context.costs.of_rows(winner.id, rows) + context.costs.through_test(winner.id)
        if rows > context.spare() or cost > context.costs.affordable():
            continue
        if made.id not in context.trials.proposals:
            where = context.trials.proposals[winner.id].place
            reason = f"the winner with the {ablation.part} of the user's own prompt: what does that part carry?"
            context.admit([Proposal(made, where, f"without:{ablation.part}", winner.id, reason)])
        if made.id in context.trials.proposals:
            try:
                await context.see([made.id], context.plan.dev_rows)
            except BudgetExhausted:
                await context.gateway.drain()
                return


def carried(context: SearchContext, winner: Candidate, corrected: float | None) -> list[Carried]:
    """Return the contribution of each part of the winner; [] for the user's own.

    `corrected`: its dev score; None: unknown.
    """
    if winner.id == context.baseline.id:
        return []
    mean = context.trials.mean(winner.id) or 0.0
    optimism = max(0.0, mean - corrected) if corrected is not None else 0.0
    ablations = context.program.traits(winner).ablations(context.baseline)
    table = scored_candidates(context.program, context.trials)

    def features(candidate: Candidate) -> Mapping[Feature, float]:
        return context.program.traits(candidate).features()

    return attribution(winner, ablations, table, features, optimism, context.seed)


def changed(context: SearchContext, winner: Candidate) -> Change | None:
    """Describe how the winner differs from the user's own prompt; None if that won."""
    program, baseline = context.program, context.baseline
    if winner.id == baseline.id:
        return None

    def side(candidate: Candidate) -> PromptSize:
        shown = program.shown(candidate)
        return PromptSize(
            technique=shown.technique,
            format=shown.format,
            n_examples=shown.n_examples,
            prompt_tokens=program.prompt_tokens(candidate),
            tokens_a_call=context.evaluator.tokens_a_call(candidate.id),
            role=shown.role,
        )

    own, new = program.shown(baseline).text, program.shown(winner).text
    texts = program.shown(winner).tool_texts
    return Change(
        winner=side(winner),
        baseline=side(baseline),
        instruction=new != own,
        keeps=new != own and bool(own.strip()) and own.strip() in new,
        tools=tuple(change.what for change in tool_changes(texts)) if texts else (),
    )


def proposer_use(context: SearchContext, winner: Candidate, ended: str) -> ProposerUse:
    """Summarize the proposals and their fates. `ended`: why the search ended before its plan."""
    trials, noted = context.trials, context.noted
    if context.proposer is None:
        return ProposerUse(why_not="there is no proposer")

    def is_proposed(candidate_id: str) -> bool:
        place = trials.proposals[candidate_id].place
        return any(choice.startswith(f"{PROPOSED}-") for choice in place.values())

    tried = [candidate_id for candidate_id in trials.by_id if is_proposed(candidate_id)]
    log = context.proposal_log
    is_counted = context.asked <= log.calls
    proposals = log.fates(trials, winner.id)
    why_not = ""
    if context.asked == 0:
        early = f"the search had ended before: {context.stopped}" if context.stopped else "the search asked for none"
        is_search = len(trials.by_id) > 1 or bool(context.stopped)
        why_not = (
            "the search ended before its plan was done" if ended else early if is_search else "nothing was searched"
        )
    return ProposerUse(
        model=context.proposer.name,
        planned=context.plan.proposals,
        asked=context.asked,
        refused=noted["proposal_refused"],
        failed=noted["proposal_failed"],
        tried=len(tried) if is_counted else None,
        finalists=sum(trials.by_id[candidate_id].state == "complete" for candidate_id in tried),
        won=winner.id in tried,
        why_not=why_not,
        points=_over_others(trials, tried),
        operators=tuple(by_operator(proposals)),
        proposals=tuple(proposals),
    )


def _over_others(trials: Trials, tried: Sequence[str]) -> float | None:
    """Lead of the best candidate with a proposed instruction over the best without, in points.

    None without common rows.
    """

    def best(ids: Iterable[str]) -> Sequence[Outcome]:
        seen = [i for i in ids if trials.outcomes.get(i) and trials.by_id[i].state != "failed"]
        most = max((len(trials.outcomes[i]) for i in seen), default=0)
        full = [i for i in seen if len(trials.outcomes[i]) == most]
        return trials.outcomes[max(full, key=lambda i: trials.mean(i) or 0.0)] if full else ()

    pairs = zip(best(tried), best(i for i in trials.by_id if i not in tried), strict=False)
    gains = [one.value - two.value for one, two in pairs if one.value is not None and two.value is not None]
    return 100 * sum(gains) / len(gains) if gains else None


def again(side: str) -> str:
    """Return the arm name of the repeats of a side."""
    return f"{side} again"


def explained(task: Task, table: ScoreTable, judges: Sequence[JudgeTrust], seed: int) -> dict[str, Any]:
    """Break down the sealed test by side, metric and slice, as fields of `RunResult`."""
    texts = [field.name for field in task.signature.outputs if field.type == "text"]
    steady = {side: breakdown.consistency(table.passes(again(side))) for side in (WINNER, BASELINE)}
    return {
        "answers": answer_counts.row_counts(table),
        "labels": answer_counts.by_label(table, task.signature.outputs),
        "tools": answer_counts.by_tool(table, task.signature.outputs[0], task.tools),
        "metrics": breakdown.by_metric(table, task.metrics, seed),
        "slices": breakdown.by_slice(table, task.slices, seed),
        "consistency": Consistency(**steady) if task.repeats > 1 else None,
        "variety": [
            Variety(
                field=name,
                winner=breakdown.variety(table.first(WINNER), name),
                baseline=breakdown.variety(table.first(BASELINE), name),
            )
            for name in texts
        ],
        "judges": judges,
    }
