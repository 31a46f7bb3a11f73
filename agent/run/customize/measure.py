"""Scores the arms on the sealed rows, and measures what a call of each takes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

from agent.gateway.gateway import Gateway
from agent.gateway.prices import Price
from agent.ledger.store import Ledger
from agent.models.local import LocalModel
from agent.observer import Observer
from agent.programs.classic import ClassicProgram
from agent.prompt.prompt_candidate import PromptCandidate
from agent.run.customize.arms import ArmSpec
from agent.run.customize.elsewhere import answers, elsewhere
from agent.run.customize.plan import LATENCY_ROWS, CustomizePlan
from agent.run.customize.table import MeasuredArm
from agent.scoring.evaluate import Evaluator
from agent.tuning.settings import TrainedAdapter
from agent.types import Candidate, Proposal

LATENCY_REPEAT = 1
"""Which sample of them: none that the search has bought."""
MB = 1e6
NO_MODEL = "answers without a language model"


@dataclass(frozen=True, slots=True)
class TunedArm:
    """An arm that was trained: what it is asked, its adapter, and the model that has it; `labels` train rows."""

    spec: ArmSpec
    prompt: PromptCandidate
    adapter: TrainedAdapter
    model: LocalModel
    labels: int


@dataclass(frozen=True, slots=True)
class Measurement:
    """What arms are measured with.

    Args:
        plan: the comparison.
        evaluator: scores candidates.
        gateway: for questions that are no rows.
        ledger: knows how long a call took.
        observer: gets lines.
        records: gets the methods without a language model as candidates.
        price: of the model; None: not known.
        classic: the methods without a language model, which the evaluator runs; None: they take no part.
    """

    plan: CustomizePlan
    evaluator: Evaluator
    gateway: Gateway
    ledger: Ledger
    observer: Observer
    records: Observer
    price: Price | None
    classic: ClassicProgram | None

    async def measured(self, spec: ArmSpec, candidate: PromptCandidate, tuned: TunedArm | None) -> MeasuredArm:
        """An arm on the sealed rows, the time of a call, and what its adapter costs elsewhere."""
        plan, test = self.plan, self.plan.task.test
        self.observer.on_message(f"{spec.name}: {len(test)} sealed rows")
        outcomes = await self.evaluator.outcomes(candidate, test, "test")
        latency = await self._latency(candidate)
        usage = self.evaluator.usage_of(candidate.id)
        usd = 1000 * self.price(usage) if self.price else None
        general = None
        if tuned is not None:
            base = await answers(self.gateway, plan.lm)
            general = elsewhere(await answers(self.gateway, tuned.model), base)
        return MeasuredArm(
            spec.name,
            spec.about,
            spec.family,
            candidate.id,
            [outcome.value for outcome in outcomes],
            tuned.labels if tuned else self._labels(candidate),
            tuned.adapter.seconds if tuned else 0.0,
            usage.prompt_tokens + usage.completion_tokens,
            0.0 if plan.is_local else usd,
            latency,
            general,
            tuned.adapter.path.stat().st_size / MB if tuned else 0.0,
        )

    async def unmodelled(self) -> list[MeasuredArm]:
        """The methods without a language model, the constant answer first."""
        test, classic = self.plan.task.test, self.classic
        if classic is None:
            return []
        arms = []
        await classic.fit(test)
        for candidate in classic.candidates():
            self.records.on_candidate_accepted(0, Proposal(candidate, {}, "yardstick", None, NO_MODEL))
            began = time.perf_counter()
            outcomes = await self.evaluator.outcomes(candidate, test, "test")
            seconds = (time.perf_counter() - began) / max(1, len(outcomes))
            values = [outcome.value for outcome in outcomes]
            arms.append(
                MeasuredArm(
                    candidate.method, NO_MODEL, "no model", candidate.id, values, classic.rows, latency_s=seconds
                )
            )
        return arms

    async def _latency(self, candidate: Candidate) -> float | None:
        """Seconds of one call, the median of a few dev rows that are asked one after the other."""
        seconds = []
        for row in self.plan.task.dev[:LATENCY_ROWS]:
            outcome = await self.evaluator.outcome(candidate, row, repeat=LATENCY_REPEAT)
            if (took := self.ledger.seconds_of(outcome.call_key)) is not None:
                seconds.append(took)
        return median(seconds) if seconds else None

    def _labels(self, candidate: PromptCandidate) -> int:
        """Rows with a right answer that a prompt shows or picks from, and dev rows that its label weights are of."""
        task = self.plan.task
        shown = len(task.train) if candidate.picks else len(candidate.demos)
        fitted = len(task.dev) if candidate.weights and candidate.weights.method != "label-free" else 0
        return shown + fitted
