"""The result object that --json prints and the ledger keeps, and the release made from it. Pure: no model, no SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from agent.gateway.budget import Account
from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.render import template
from agent.prompt.techniques import answers_last
from agent.release.gate import blocked_by
from agent.release.runtime import PromptRelease
from agent.scoring.evaluate import values
from agent.stats.intervals import paired_difference
from agent.types import Candidate, Outcome, Shown, Task


@dataclass(frozen=True, slots=True)
class Opening:
    """What the sealed test showed: winner and baseline on the same rows, in the same order."""

    winner: Candidate
    baseline: Candidate
    won: Sequence[Outcome]
    based: Sequence[Outcome]


def result_object(
    opening: Opening,
    *,
    run_id: str,
    task: Task,
    status: str,
    model: str,
    seed: int,
    dev: tuple[float | None, float | None, float | None],
    shown: Shown,
    prompt_tokens: int,
    states: Sequence[str],
    account: Account,
    ledger_head: str,
    told: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """`dev`: mean of baseline, of winner, and the winner's corrected for having been chosen; `shown`: the winner.
    `told`: more that is known of the score, such as its parts and judges; with it the gate decides (`gate.py`). The
    keys are fixed."""
    pairs = [(w.value, b.value) for w, b in zip(opening.won, opening.based, strict=True)]
    both = [(w, b) for w, b in pairs if w is not None and b is not None]
    lost = [b for w, b in pairs if w is None and b is not None]
    lift = paired_difference([w for w, _ in both], [b for _, b in both], seed)
    winner, paid, usage = opening.winner, account.paid, account.usage
    result = {
        "run_id": run_id,
        "task": task.name,
        "status": status,
        "model": model,
        "seed": seed,
        "baseline": {"dev": dev[0], "test": _mean(values(opening.based))},
        "winner": {
            "candidate_id": winner.id,
            "technique": shown.technique,
            "format": shown.format,
            "n_demos": shown.n_demos,
            "instruction": shown.text,
            "dev": dev[1],
            "dev_corrected": dev[2],
            "test": _mean(values(opening.won)),
            "prompt_tokens": prompt_tokens,
        },
        "lift": {
            "diff": lift.diff,
            "ci95": list(lift.ci95),
            "p_value": lift.p_value,
            "wins": lift.wins,
            "losses": lift.losses,
            "ties": lift.ties,
            "lost": len(lost),
            "diff_if_wrong": (lift.diff * len(both) - sum(lost)) / (len(both) + len(lost)),
            "n": lift.n,
            "baseline": _mean([b for _, b in both]),
            "winner": _mean([w for w, _ in both]),
        },
        "decision": "keep_baseline",
        "trials": {state: list(states).count(state) for state in ("complete", "pruned", "failed", "incomplete")},
        "calls": {
            **{role: paid[role].calls if role in paid else 0 for role in ("target", "proposer", "judge")},
            "cached": account.cached,
        },
        "tokens": {
            "prompt": usage.prompt_tokens,
            "cached_prompt": usage.cached_prompt_tokens,
            "completion": usage.completion_tokens,
        },
        "limited": account.limited,
        "overspent": account.overspent(),
        "cost_usd": account.total_paid.usd,
        "lost_usd": account.lost_usd,
        "unpriced": list(account.unpriced),
        "seconds": round(account.seconds, 1),
        "release": None,
        "ledger_head": ledger_head,
        **told,
    }
    result["blocked"] = blocked_by(result) if winner.id != opening.baseline.id else []
    if winner.id != opening.baseline.id and not result["blocked"]:
        result["decision"] = "promote"
    return result


def release_of(
    result: Mapping[str, Any],
    candidate: PromptCandidate,
    task: Task,
    trial: int,
    parameters: Mapping[str, Any],
    origin: Mapping[str, str],
) -> PromptRelease:
    """What goes to production: `candidate` with the `parameters` to call with and its provenance. `origin`: tool,
    created_utc, and the id of the ledger."""
    won = candidate.id == result["winner"]["candidate_id"]
    return PromptRelease(
        name=task.name,
        messages=template(candidate, task.signature),
        inputs=tuple(field.name for field in task.signature.inputs),
        outputs=task.signature.outputs,
        format=candidate.format,
        reasoning=answers_last(candidate),
        model=result["model"],
        parameters=dict(parameters),
        provenance={
            "run_id": result["run_id"],
            "trial": trial,
            "candidate_id": candidate.id,
            "decision": result["decision"],
            "test": (result["winner"] if won else result["baseline"])["test"],
            "baseline_test": result["baseline"]["test"],
            "lift": result["lift"],
            "hashes": dict(task.hashes),
            **origin,
            "ledger_head": result["ledger_head"],
        },
    )


def _mean(scores: Sequence[float]) -> float | None:
    return sum(scores) / len(scores) if scores else None
