"""Scores the arms on the sealed rows, and measures what a call of each takes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from agent.gateway.prices import Price
from agent.ledger.store import Ledger
from agent.observer import Observer
from agent.programs.classic import ClassicProgram
from agent.prompt.prompt_candidate import PromptCandidate
from agent.run.customize.arms import MadeArm
from agent.run.customize.elsewhere import RepliesElsewhere, elsewhere
from agent.run.customize.plan import LATENCY_ROWS, CustomizePlan
from agent.run.customize.table import MeasuredArm, SeedScore
from agent.scoring.breakdown import summary
from agent.scoring.evaluate import Evaluator
from agent.types import Candidate, Outcome, Proposal, Task

LATENCY_REPEAT = 1
"""Which sample of a call is timed: one that the search has not bought."""
NO_MODEL = "answers without a language model"


@dataclass(frozen=True, slots=True)
class Measurement:
    """What arms are measured with.

    Args:
        records: gets the methods without a language model as candidates.
        classic: these methods, which the evaluator runs; None: they take no part.
    """

    plan: CustomizePlan
    evaluator: Evaluator
    ledger: Ledger
    observer: Observer
    records: Observer
    prices: Mapping[str, Price]
    classic: ClassicProgram | None
    hosted: Evaluator | None = None

    async def sealed(self, arm: MadeArm) -> list[Outcome]:
        """The outcomes of an arm on the sealed rows, each bought once."""
        return await self._evaluator(arm).outcomes(arm.candidate, self.plan.task.test, "test")

    async def measured(
        self, arm: MadeArm, general: Mapping[str, RepliesElsewhere], seeds: Sequence[MadeArm] = ()
    ) -> MeasuredArm:
        """An arm on the sealed rows, the time of a call, and what its adapter costs elsewhere.

        Args:
            general: what models say elsewhere, by the name of the arm, "" for the base model.
        """
        spec, candidate = arm.spec, arm.candidate
        self.observer.on_message(f"{spec.name}: {len(self.plan.task.test)} sealed rows")
        evaluator = self._evaluator(arm)
        values = _values(await self.sealed(arm))
        latency = await self._latency(evaluator, candidate)
        usage, price = evaluator.usage_of(candidate.id), self.prices.get(arm.model.name)
        usd = 1000 * price(usage) if price else None
        return MeasuredArm(
            spec.name,
            spec.about,
            spec.family,
            candidate.id,
            values,
            arm.labels,
            arm.seconds,
            usage.prompt_tokens + usage.completion_tokens,
            0.0 if self.plan.is_local else usd,
            latency,
            elsewhere(general[spec.name], general[""], self.plan.others) if arm.is_tuned else None,
            arm.megabytes,
            train_usd=arm.usd,
            seeds=await self._seeds(arm, values, seeds) if seeds else (),
        )

    async def _seeds(
        self, first: MadeArm, values: Sequence[float | None], others: Sequence[MadeArm]
    ) -> list[SeedScore]:
        """The sealed scores of the same training with each seed, that of the arm first."""
        scores = [SeedScore(first.seed, summary(values)["mean"], round(first.train_s, 1))]
        for each in others:
            self.observer.on_message(f"{each.spec.name}, seed {each.seed}: {len(values)} sealed rows")
            mean = summary(_values(await self.sealed(each)))["mean"]
            scores.append(SeedScore(each.seed, mean, round(each.train_s, 1)))
        return scores

    async def unmodelled(self) -> list[MeasuredArm]:
        """The methods without a language model, the constant answer first."""
        test, classic = self.plan.task.test, self.classic
        if classic is None:
            return []
        arms = []
        await classic.fit(test, self.evaluator.value)
        for each in classic.candidates():
            self.records.on_candidate_accepted(0, Proposal(each, {}, "yardstick", None, NO_MODEL))
            began = time.perf_counter()
            values = _values(await self.evaluator.outcomes(each, test, "test"))
            seconds = (time.perf_counter() - began) / max(1, len(values))
            labels = classic.rows(each)
            arms.append(MeasuredArm(each.method, NO_MODEL, "no model", each.id, values, labels, latency_s=seconds))
        return arms

    def _evaluator(self, arm: MadeArm) -> Evaluator:
        if arm.spec.method != "hosted":
            return self.evaluator
        assert self.hosted is not None
        return self.hosted

    async def _latency(self, evaluator: Evaluator, candidate: Candidate) -> float | None:
        """Seconds of one call, the median of a few dev rows that are asked one after the other."""
        seconds = []
        for row in self.plan.task.dev[:LATENCY_ROWS]:
            outcome = await evaluator.outcome(candidate, row, repeat=LATENCY_REPEAT)
            if (took := self.ledger.seconds_of(outcome.call_key)) is not None:
                seconds.append(took)
        return median(seconds) if seconds else None


def labels_of(candidate: PromptCandidate, task: Task) -> int:
    """Rows with a right answer that a prompt shows or picks from, and dev rows that its label weights are of."""
    shown = len(task.train) if candidate.picks else len(candidate.demos)
    fitted = len(task.dev) if candidate.weights and candidate.weights.method != "label-free" else 0
    return shown + fitted


def _values(outcomes: Sequence[Outcome]) -> list[float | None]:
    return [outcome.value for outcome in outcomes]
