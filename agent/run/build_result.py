"""What a run has measured becomes its result, and the gate decides. Pure: no model, no SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from agent.gateway.budget import Account
from agent.release.gate import blocked_by
from agent.release.json_part import typed
from agent.release.result import RunResult
from agent.release.result_details import Cheaper, NotWorse, Untested
from agent.release.result_parts import Baseline, Cost, Lift, Release, Winner
from agent.run.unshown_gain import TestRows, to_show
from agent.scoring.evaluate import values
from agent.search.selection import CheaperChoice
from agent.search.untested import LeftOut
from agent.stats.intervals import paired_difference
from agent.stats.noninferiority import LossBound, loss_bound
from agent.types import Candidate, Outcome, Shown


@dataclass(frozen=True, slots=True)
class SealedTest:
    """What the sealed test showed: winner and baseline on the same rows, in the same order. `shown`: the winner, and
    `prompt_tokens`, its length."""

    winner: Candidate
    baseline: Candidate
    won: Sequence[Outcome]
    based: Sequence[Outcome]
    shown: Shown
    prompt_tokens: int


def build_result(
    sealed: SealedTest,
    *,
    run_id: str,
    task: str,
    status: Literal["complete", "budget"],
    model: str,
    seed: int,
    dev: tuple[float | None, float | None, float | None],
    states: Sequence[str],
    account: Account,
    ledger: Path,
    ledger_head: str,
    parts: Mapping[str, Any],
    test_rows: TestRows,
    baseline_rows: int | None = None,
    tokens_a_call: int = 0,
) -> RunResult:
    """The result before its release is written: no `parameters`, and the release without a place.

    Args:
        sealed: the sealed test.
        dev: mean of baseline, of winner, and the winner's corrected for having been chosen; each in [0, 1] or None.
        states: of the trials.
        parts: what else is known, by the names of `RunResult` and JSON-ready: with it the gate decides.
        test_rows: what the rows of the sealed test come from.
        baseline_rows: dev rows of the baseline; None: all.
        tokens_a_call: of the winner, measured.
    """
    paid, usage = account.paid, account.usage
    is_own = sealed.winner.id == sealed.baseline.id and "migration" not in parts
    shown = sealed.shown
    result = RunResult(
        run_id=run_id,
        task=task,
        status=status,
        model=model,
        seed=seed,
        baseline=Baseline(dev[0], _mean(values(sealed.based)), baseline_rows),
        winner=Winner(
            sealed.winner.id,
            shown.technique,
            shown.format,
            shown.n_demos,
            shown.text,
            dev[1],
            dev[2],
            _mean(values(sealed.won)),
            sealed.prompt_tokens,
            shown.picks,
            shown.passages,
            tokens_a_call,
        ),
        lift=_lift(sealed, seed),
        decision="keep_baseline",
        trials={state: list(states).count(state) for state in ("complete", "pruned", "failed", "incomplete")},
        cost=Cost(
            {
                **{role: paid[role].calls if role in paid else 0 for role in ("target", "proposer", "judge")},
                **({"embedding": paid["embedding"].calls} if "embedding" in paid else {}),
            },
            account.cached,
            usage.prompt_tokens,
            usage.cached_prompt_tokens,
            usage.completion_tokens,
            account.limited,
            account.overspent(),
            account.total_paid.usd,
            account.lost_usd,
            tuple(account.unpriced),
            round(account.seconds, 1),
        ),
        release=Release(Path()),
        ledger_head=ledger_head,
        is_own=is_own,
        ledger=ledger,
        **typed(RunResult, parts),
    )
    if is_own:
        return result
    blocks = blocked_by(result)
    return replace(
        result,
        decision="keep_baseline" if blocks else "promote",
        blocked=tuple(block.message for block in blocks),
        blocked_codes=tuple(block.code for block in blocks),
        to_show=None if result.migration else to_show(result, sealed.based, test_rows),
    )


def not_worse(bound: LossBound) -> NotWorse:
    """A bound as a part of the result."""
    return NotWorse(bound.diff, bound.low, bound.margin, bound.n, bound.is_shown)


def cheaper_part(choice: CheaperChoice, won: Sequence[Outcome], best: Sequence[Outcome], seed: int) -> dict[str, Any]:
    """The winner beside the best on dev, which costs more, JSON-ready.

    Args:
        choice: what dev chose.
        won: the outcomes of the winner on the sealed test.
        best: those of the best on the same rows.
        seed: of the bootstrap.
    """
    bound = loss_bound([o.value for o in won], [o.value for o in best], choice.bound.margin, seed)
    found = Cheaper(
        choice.best.id,
        choice.saved,
        choice.saved_in,
        not_worse(choice.bound),
        _mean(values(best)),
        None if bound is None else not_worse(bound),
    )
    return found.to_json()


def untested_part(left_out: LeftOut, dev_rows: int) -> dict[str, Any]:
    """The prompt that led on dev and was not tested, JSON-ready; `dev_rows`: all of the run."""
    ahead = left_out.lead
    return Untested(
        left_out.candidate_id,
        ahead.mean,
        ahead.other,
        ahead.rows,
        dev_rows,
        ahead.p_value,
        left_out.is_chance,
        left_out.why,
        left_out.options,
    ).to_json()


def _lift(sealed: SealedTest, seed: int) -> Lift:
    pairs = [(w.value, b.value) for w, b in zip(sealed.won, sealed.based, strict=True)]
    both = [(w, b) for w, b in pairs if w is not None and b is not None]
    lost = [b for w, b in pairs if w is None and b is not None]
    lift = paired_difference([w for w, _ in both], [b for _, b in both], seed)
    return Lift(
        lift.diff,
        lift.ci95,
        lift.p_value,
        lift.wins,
        lift.losses,
        lift.ties,
        lift.n,
        _mean([b for _, b in both]),
        _mean([w for w, _ in both]),
        lost=len(lost),
        diff_if_wrong=(lift.diff * len(both) - sum(lost)) / (len(both) + len(lost)),
    )


def _mean(scores: Sequence[float]) -> float | None:
    return sum(scores) / len(scores) if scores else None
