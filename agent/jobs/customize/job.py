"""The arms on the same train rows and the same sealed test, which is opened once, when all of them are made."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

from agent.evaluate.breakdown import summary
from agent.evaluate.evaluator import Evaluator
from agent.gateway.prices import Price
from agent.jobs.customize.arm_trainings import ArmTrainings
from agent.jobs.customize.arms import MadeArm, rows_a_label
from agent.jobs.customize.curve import CurvePoint, curve_lines, curve_text, first_rows
from agent.jobs.customize.elsewhere import RepliesElsewhere, elsewhere, replies
from agent.jobs.customize.hosted import HostedTrainer
from agent.jobs.customize.plan import LATENCY_ROWS, CustomizePlan, trainings
from agent.jobs.customize.release_arm import write_arm
from agent.jobs.customize.settings_search import choice_record
from agent.jobs.customize.table import MeasuredArm, table
from agent.jobs.customize.training import rows_hash
from agent.jobs.observers import LedgerObserver
from agent.jobs.session import Session
from agent.ledger.store import Ledger
from agent.observer import Observer
from agent.programs.classic import ClassicProgram
from agent.programs.prompt import PromptProgram
from agent.programs.variants import TunedProgram, adapter_of
from agent.prompt.prompt_candidate import PromptCandidate
from agent.results.customize import CustomizeResult, ProviderTraining, RowCounts, SeedScore
from agent.scoring.llm_judge import judge_builder
from agent.scoring.task_metrics import build_metrics
from agent.types import LM, Candidate, Outcome, Proposal, Runner, Task

LATENCY_REPEAT = 1
"""Which sample of a call is timed: one that the search has not bought."""
NO_MODEL = "answers without a language model"


class Customize:
    """One comparison."""

    def __init__(self, plan: CustomizePlan, session: Session[CustomizeResult]) -> None:
        self._plan, self._session, self._task = plan, session, session.task
        self._trainings = ArmTrainings(plan, session.observer, lambda: session.gateway.stopped)
        hosted = plan.hosted
        self._trainer = HostedTrainer(hosted, plan.task, plan.best, session) if hosted else None
        session.cancel_elsewhere = self._trainer.abandon if self._trainer else None

    async def work(self) -> CustomizeResult:
        try:
            return await self._compared()
        finally:
            await self._trainings.close()
            if self._trainer is not None:
                await self._trainer.close()

    async def _compared(self) -> CustomizeResult:
        plan, task, seed = self._plan, self._task, self._session.seed
        if plan.tuned:
            self._session.observer.on_message(trainings(plan.tuned, plan.asked, plan.sizes)[1])
        await self._trainings.begin()
        some = {size: first_rows(task, size, plan.seed) for size in plan.sizes}
        asked = [(spec, part, 0) for part in [*some.values(), task] for spec in plan.tuned]
        asked += [(spec, task, at) for spec in plan.tuned for at in range(1, plan.asked.seeds)]
        made = iter(await self._trainings.made(asked))
        of_size = {size: [next(made) for _ in plan.tuned] for size in some}
        whole, again = [next(made) for _ in plan.tuned], list(made)
        hosted = await self._trainer.arm(lambda: self._session.gateway.stopped) if self._trainer else None
        measurement, tuned = self._measurement(task, [*whole, *again], hosted)
        arms = [MadeArm(arm.spec, arm.candidate, plan.lm, labels_of(arm.candidate, task)) for arm in plan.prompts]
        arms += [*whole, *([hosted] if hosted else [])]
        for each in arms:
            _record(measurement, each.candidate, f"arm:{each.spec.name}", each.spec.about)
        for each in again:
            _record(measurement, each.candidate, f"seed:{each.spec.name}", f"seed {each.seed}")
        opened = {"arms": {each.spec.name: each.candidate.id for each in arms}, "rows": len(task.test)}
        self._session.observer.on_event("test_opened", opened)
        general = await self._asked(measurement, arms)
        measured = []
        for arm in arms:
            seeds = [each for each in again if each.spec is arm.spec]
            measured.append(await measurement.measured(arm, general, seeds))
        measured += await measurement.unmodelled()
        points = [point for size, part in some.items() for point in await self._points(part, of_size[size])]
        points += _whole_points(plan, measured) if points else []
        measured = await self._released(measured, whole, tuned)
        lines, advice = table(measured, rows_a_label(task), plan.asked.expected_calls, seed)
        return CustomizeResult(
            run_id=self._session.id,
            of_run=plan.run,
            task=task.name,
            model=plan.lm.name,
            rows=RowCounts(train=len(task.train), test=len(task.test)),
            arms=lines,
            advice=advice,
            curve=curve_lines(points),
            curve_text=curve_text(points, seed),
            settings=tuple(choice_record(each.spec.name, each.choice) for each in whole if each.choice),
            fine_tuning=_fine_tuning(hosted) if hosted else None,
            **self._session.spent(),
        )

    async def _asked(self, measurement: Measurement, arms: Sequence[MadeArm]) -> Mapping[str, RepliesElsewhere]:
        """What the models of trained arms say elsewhere, by the name of the arm, and the base model ("").

        Where calls go as batches, the sealed rows of all arms go with them; the evaluators keep what comes.
        """
        trained = {arm.spec.name: arm.model for arm in arms if arm.is_tuned}
        asked: dict[str, LM] = {"": self._plan.lm, **trained} if trained else {}
        found: dict[str, RepliesElsewhere] = {}

        async def ask(name: str, lm: LM) -> None:
            found[name] = await replies(self._session.gateway, lm, self._plan.others)

        sets: list[Callable[[], Awaitable[object]]] = [partial(ask, name, lm) for name, lm in asked.items()]
        if self._session.gateway.batches is not None:
            sets += [partial(measurement.sealed, arm) for arm in arms]
        await self._session.in_sets(sets, in_turn=self._task.is_compared)
        return found

    def _measurement(
        self, task: Task, tuned: Sequence[MadeArm], hosted: MadeArm | None = None
    ) -> tuple[Measurement, TunedProgram]:
        plan = self._plan
        models = {digest: each.model for each in tuned if (digest := adapter_of(each.candidate))}
        program = TunedProgram(task, plan.lm, (), models)
        programs: list[PromptProgram | ClassicProgram] = [PromptProgram(task, plan.lm), program]
        if classic := self._classic(task):
            programs.append(classic)
        records = LedgerObserver(self._session.ledger, self._session.id, programs)
        judges = judge_builder(task, plan.judges or (plan.lm,), self._session.gateway)
        metrics = build_metrics(task, {"judge": judges})
        base = plan.prompts[0].candidate.id

        def evaluator_of(lm: LM, runners: Sequence[Runner]) -> Evaluator:
            return Evaluator(task, self._session.gateway, lm, metrics, runners, records, graded=True, baseline_id=base)

        evaluator, prices = evaluator_of(plan.lm, programs), self._session.prices
        other = evaluator_of(hosted.model, [PromptProgram(task, hosted.model)]) if hosted else None
        ledger, observer = self._session.ledger, self._session.observer
        return Measurement(plan, evaluator, ledger, observer, records, prices, classic, other), program

    def _classic(self, task: Task) -> ClassicProgram | None:
        if not self._plan.has_classic or not ClassicProgram.suits(task):
            return None
        return ClassicProgram(task, "" if task.train == self._task.train else rows_hash(task.train))

    async def _points(self, task: Task, tuned: Sequence[MadeArm]) -> list[CurvePoint]:
        """The arms that learn, with the train rows of this task: adapters, methods, and the prompt that picks."""
        count = len(task.train)
        self._session.observer.on_message(f"curve: {count} train rows")
        measurement, program = self._measurement(task, tuned)
        asked: list[tuple[str, PromptCandidate, float]] = []
        if (arm := self._plan.picking) is not None and arm.candidate.picks is not None:
            picks = replace(arm.candidate.picks, pool=program.pool.id)
            asked.append((arm.spec.name, replace(arm.candidate, picks=picks), 0.0))
        asked += [(each.spec.name, each.candidate, each.train_s) for each in tuned]
        for name, candidate, _ in asked:
            _record(measurement, candidate, f"curve:{name}", f"with {count} train rows")
        found = await self._session.in_sets(
            [partial(measurement.evaluator.outcomes, candidate, task.test, "test") for _, candidate, _ in asked]
        )
        points = [
            CurvePoint(name, count, [one.value for one in outcomes], seconds)
            for (name, _, seconds), outcomes in zip(asked, found, strict=True)
        ]
        for each in tuned:
            await each.model.close()
        unmodelled = await measurement.unmodelled()
        return points + [CurvePoint(one.name, count, one.scores) for one in unmodelled[1:]]

    async def _released(
        self, measured: Sequence[MeasuredArm], tuned: Sequence[MadeArm], program: TunedProgram
    ) -> list[MeasuredArm]:
        """Writes each tuned arm as a released prompt with its adapter; the arms with the places of these."""
        await self._session.ledger.commit()  # no file may name a head that a kill takes back
        paths = {}
        for each in tuned:
            arm = next(one for one in measured if one.name == each.spec.name)
            session, base = self._session, measured[0]
            path, noted = write_arm(self._plan, session.id, session.ledger, program, arm, base, each.candidate)
            session.observer.on_event("released", noted)
            paths[arm.name] = str(path)
        return [replace(arm, path=paths.get(arm.name, "")) for arm in measured]


def _record(measurement: Measurement, candidate: PromptCandidate, operator: str, about: str) -> None:
    measurement.records.on_candidate_accepted(0, Proposal(candidate, {}, operator, None, about))


def _fine_tuning(hosted: MadeArm) -> ProviderTraining:
    return ProviderTraining(job=hosted.job, model=hosted.model.name, seconds=hosted.seconds, usd=hosted.usd)


def _whole_points(plan: CustomizePlan, measured: Sequence[MeasuredArm]) -> list[CurvePoint]:
    """The arms of the curve with all train rows, as the table has them."""
    learns = {spec.name for spec in plan.tuned} | ({plan.picking.spec.name} if plan.picking else set())
    constant = next((arm.name for arm in measured if arm.family == "no model"), "")
    return [
        CurvePoint(arm.name, len(plan.task.train), arm.scores, arm.train_s)
        for arm in measured
        if arm.name in learns or (arm.family == "no model" and arm.name != constant)
    ]


# -- measuring --------------------------------------------------------------------------------------------------------


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
        scores = [SeedScore(seed=first.seed, test=summary(values).mean, train_s=round(first.train_s, 1))]
        for each in others:
            self.observer.on_message(f"{each.spec.name}, seed {each.seed}: {len(values)} sealed rows")
            mean = summary(_values(await self.sealed(each))).mean
            scores.append(SeedScore(seed=each.seed, test=mean, train_s=round(each.train_s, 1)))
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
    """Rows with a right answer that a prompt shows or picks from, and dev rows that calibrated it."""
    shown = len(task.train) if candidate.picks else len(candidate.demos)
    fitted = len(task.dev) if candidate.calibration and candidate.calibration.method != "label-free" else 0
    return shown + fitted


def _values(outcomes: Sequence[Outcome]) -> list[float | None]:
    return [outcome.value for outcome in outcomes]
