"""What a run has measured becomes the parts of its result, and the gate decides. Pure: no model, no SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent.evaluate.evaluator import values
from agent.release.gate import blocked_by
from agent.release.result import RunResult
from agent.results.run_parts import Baseline, Cheaper, Lift, NotWorse, Untested, Winner
from agent.run.unshown_gain import TestRows, to_show
from agent.search.selection import CheaperChoice, LeftOut
from agent.stats.intervals import LossBound, loss_bound, paired_difference
from agent.types import Candidate, Outcome, Shown


@dataclass(frozen=True, slots=True)
class DevScores:
    """Mean dev scores, in [0, 1]; None: not known.

    Args:
        baseline: of the user's own prompt.
        winner: of the winner.
        corrected: the winner's, corrected for having been chosen on it.
        baseline_rows: how many rows the baseline was scored on. None: all.
    """

    baseline: float | None
    winner: float | None
    corrected: float | None
    baseline_rows: int | None = None


@dataclass(frozen=True, slots=True)
class SealedTest:
    """The outcomes of winner and baseline on the sealed rows, in the same order, with what is known of the winner.

    Args:
        prompt_tokens: the winner's length.
        tokens_a_call: of the winner, measured.
    """

    winner: Candidate
    baseline: Candidate
    won: Sequence[Outcome]
    based: Sequence[Outcome]
    shown: Shown
    prompt_tokens: int
    tokens_a_call: int
    dev: DevScores

    def sides(self, seed: int) -> dict[str, Any]:
        """The two prompts and their difference, by the names of `RunResult`."""
        shown, dev = self.shown, self.dev
        winner = Winner(
            candidate_id=self.winner.id,
            technique=shown.technique,
            format=shown.format,
            n_examples=shown.n_examples,
            instruction=shown.text,
            dev=dev.winner,
            dev_corrected=dev.corrected,
            test=_mean(values(self.won)),
            prompt_tokens=self.prompt_tokens,
            picks=shown.picks,
            passages=shown.passages,
            tokens_a_call=self.tokens_a_call,
        )
        baseline = Baseline(dev=dev.baseline, test=_mean(values(self.based)), dev_rows=dev.baseline_rows)
        return {"baseline": baseline, "winner": winner, "lift": self._lift(seed)}

    def _lift(self, seed: int) -> Lift:
        pairs = [(w.value, b.value) for w, b in zip(self.won, self.based, strict=True)]
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


def decided(result: RunResult, sealed: SealedTest, rows: TestRows) -> RunResult:
    """The result with what the gate says of its winner; `rows`: where the rows of the sealed test come from."""
    if sealed.winner.id == sealed.baseline.id and result.migration is None:
        return result
    blocks = blocked_by(result)
    gated = result.model_copy(
        update={
            "decision": "keep_baseline" if blocks else "promote",
            "blocked": tuple(block.message for block in blocks),
            "blocked_codes": tuple(block.code for block in blocks),
        }
    )
    return gated if gated.migration else gated.model_copy(update={"to_show": to_show(gated, sealed.based, rows)})


def not_worse(bound: LossBound) -> NotWorse:
    """A bound as a part of the result."""
    return NotWorse(diff=bound.diff, low=bound.low, margin=bound.margin, n=bound.n, shown=bound.is_shown)


def cheaper_part(choice: CheaperChoice, won: Sequence[Outcome], best: Sequence[Outcome], seed: int) -> Cheaper:
    """The winner against the best on dev, which costs more.

    Args:
        choice: what dev chose.
        won: the outcomes of the winner on the sealed test.
        best: those of the best on the same rows.
        seed: of the bootstrap.
    """
    bound = loss_bound([o.value for o in won], [o.value for o in best], choice.bound.margin, seed)
    return Cheaper(
        best=choice.best.id,
        saved=choice.saved,
        saved_in=choice.saved_in,
        dev=not_worse(choice.bound),
        best_test=_mean(values(best)),
        test=None if bound is None else not_worse(bound),
    )


def untested_part(left_out: LeftOut, dev_rows: int) -> Untested:
    """The prompt that led on dev and was not tested; `dev_rows`: all of the run."""
    ahead = left_out.lead
    return Untested(
        candidate_id=left_out.candidate_id,
        dev=ahead.mean,
        baseline=ahead.other,
        rows=ahead.rows,
        dev_rows=dev_rows,
        p_value=ahead.p_value,
        is_chance=left_out.is_chance,
        why=left_out.why,
        next=left_out.options,
    )


def _mean(scores: Sequence[float]) -> float | None:
    return sum(scores) / len(scores) if scores else None
