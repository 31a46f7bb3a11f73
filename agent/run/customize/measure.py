"""Scores the arms on the sealed rows, and measures what a call of each takes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from agent.gateway.prices import Price
from agent.ledger.store import Ledger
from agent.models.local import LocalModel
from agent.observer import Observer
from agent.programs.classic import ClassicProgram
from agent.prompt.prompt_candidate import PromptCandidate, TunedCandidate
from agent.run.customize.arms import ArmSpec
from agent.run.customize.elsewhere import RepliesElsewhere, elsewhere
from agent.run.customize.hosted import HostedArm
from agent.run.customize.plan import LATENCY_ROWS, CustomizePlan
from agent.run.customize.settings_search import SettingsChoice
from agent.run.customize.table import MeasuredArm, SeedScore
from agent.scoring.breakdown import summary
from agent.scoring.evaluate import Evaluator
from agent.tuning.settings import TrainedAdapter
from agent.types import Candidate, Outcome, Proposal

LATENCY_REPEAT = 1
"""Which sample of them: none that the search has bought."""
MB = 1e6
NO_MODEL = "answers without a language model"


@dataclass(frozen=True, slots=True)
class TunedArm:
    """An arm that was trained: what it is asked, its adapter, and the model that has it. `labels`: rows to train on and
    to stop early by; `choice`: how its settings were chosen; `seed` of this training."""

    spec: ArmSpec
    prompt: PromptCandidate
    adapter: TrainedAdapter
    model: LocalModel
    labels: int
    choice: SettingsChoice
    seed: int

    @property
    def candidate(self) -> TunedCandidate:
        """The prompt with the adapter."""
        return TunedCandidate.of(self.prompt, self.adapter.sha256)

    @property
    def seconds(self) -> float:
        """Of its training, and of the settings that were given up for its own."""
        return self.adapter.seconds + self.choice.seconds

    @property
    def usd(self) -> float | None:
        """Dollars of its training."""
        return 0.0

    @property
    def megabytes(self) -> float:
        """Of the adapter."""
        return self.adapter.path.stat().st_size / MB


@dataclass(frozen=True, slots=True)
class Measurement:
    """What arms are measured with.

    Args:
        plan: the comparison.
        evaluator: scores candidates.
        ledger: knows how long a call took.
        observer: gets lines.
        records: gets the methods without a language model as candidates.
        prices: of the models, as far as they are known.
        classic: the methods without a language model, which the evaluator runs; None: they take no part.
        hosted: scores the arm that a provider trained. None: there is none.
    """

    plan: CustomizePlan
    evaluator: Evaluator
    ledger: Ledger
    observer: Observer
    records: Observer
    prices: Mapping[str, Price]
    classic: ClassicProgram | None
    hosted: Evaluator | None = None

    async def sealed(self, candidate: PromptCandidate, tuned: TunedArm | HostedArm | None) -> list[Outcome]:
        """The outcomes of an arm on the sealed rows, each bought once."""
        return await self._evaluator(tuned).outcomes(candidate, self.plan.task.test, "test")

    async def measured(
        self,
        spec: ArmSpec,
        candidate: PromptCandidate,
        tuned: TunedArm | HostedArm | None,
        general: Mapping[str, RepliesElsewhere],
        seeds: Sequence[TunedArm] = (),
    ) -> MeasuredArm:
        """An arm on the sealed rows, the time of a call, and what its adapter costs elsewhere.

        Args:
            spec: the arm.
            candidate: what it is asked.
            tuned: what was trained for it. None: nothing was.
            general: what models say elsewhere, by the name of the arm, "" for the model as it is.
            seeds: the same training with other seeds.
        """
        plan, test = self.plan, self.plan.task.test
        self.observer.on_message(f"{spec.name}: {len(test)} sealed rows")
        evaluator = self._evaluator(tuned)
        outcomes = await self.sealed(candidate, tuned)
        latency = await self._latency(evaluator, candidate)
        usage = evaluator.usage_of(candidate.id)
        price = self.prices.get((tuned.model if tuned else plan.lm).name)
        usd = 1000 * price(usage) if price else None
        values = [outcome.value for outcome in outcomes]
        return MeasuredArm(
            spec.name,
            spec.about,
            spec.family,
            candidate.id,
            values,
            tuned.labels if tuned else self._labels(candidate),
            tuned.seconds if tuned else 0.0,
            usage.prompt_tokens + usage.completion_tokens,
            0.0 if plan.is_local else usd,
            latency,
            elsewhere(general[spec.name], general[""], plan.others) if tuned else None,
            tuned.megabytes if tuned else 0.0,
            train_usd=tuned.usd if tuned else 0.0,
            seeds=await self._seeds(tuned, values, seeds) if isinstance(tuned, TunedArm) and seeds else (),
        )

    async def _seeds(
        self, first: TunedArm, values: Sequence[float | None], others: Sequence[TunedArm]
    ) -> list[SeedScore]:
        """The sealed scores of the same training with each seed, that of the arm first."""
        scores = [SeedScore(first.seed, summary(values)["mean"], round(first.adapter.seconds, 1))]
        for each in others:
            self.observer.on_message(f"{each.spec.name}, seed {each.seed}: {len(values)} sealed rows")
            outcomes = await self.evaluator.outcomes(each.candidate, self.plan.task.test, "test")
            mean = summary([outcome.value for outcome in outcomes])["mean"]
            scores.append(SeedScore(each.seed, mean, round(each.adapter.seconds, 1)))
        return scores

    async def unmodelled(self) -> list[MeasuredArm]:
        """The methods without a language model, the constant answer first."""
        test, classic = self.plan.task.test, self.classic
        if classic is None:
            return []
        arms = []
        await classic.fit(test, self.evaluator.value)
        for candidate in classic.candidates():
            self.records.on_candidate_accepted(0, Proposal(candidate, {}, "yardstick", None, NO_MODEL))
            began = time.perf_counter()
            outcomes = await self.evaluator.outcomes(candidate, test, "test")
            seconds = (time.perf_counter() - began) / max(1, len(outcomes))
            values = [outcome.value for outcome in outcomes]
            arms.append(
                MeasuredArm(
                    candidate.method,
                    NO_MODEL,
                    "no model",
                    candidate.id,
                    values,
                    classic.rows(candidate),
                    latency_s=seconds,
                )
            )
        return arms

    def _evaluator(self, tuned: TunedArm | HostedArm | None) -> Evaluator:
        if not isinstance(tuned, HostedArm):
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

    def _labels(self, candidate: PromptCandidate) -> int:
        """Rows with a right answer that a prompt shows or picks from, and dev rows that its label weights are of."""
        task = self.plan.task
        shown = len(task.train) if candidate.picks else len(candidate.demos)
        fitted = len(task.dev) if candidate.weights and candidate.weights.method != "label-free" else 0
        return shown + fitted
