"""The arms on the same train rows and the same sealed test, which is opened once, when all of them are made."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

from agent.evaluate.breakdown import summary
from agent.evaluate.evaluator import Evaluator
from agent.evaluate.score_table import Arm, Asking, score
from agent.jobs.customize.arms import ARMS, LATENCY_ROWS, CustomizePlan, MadeArm, planned_trainings, rows_a_label
from agent.jobs.customize.forgetting import Replies, forgotten, replies
from agent.jobs.customize.hosted import HostedTraining
from agent.jobs.customize.release_arm import write_arm
from agent.jobs.customize.table import CurvePoint, MeasuredArm, curve_lines, curve_text, first_rows, table
from agent.jobs.customize.training import ArmTrainings, rows_hash
from agent.jobs.observers import LedgerObserver
from agent.jobs.session import Session
from agent.observer import Observer
from agent.programs.classic import ClassicProgram
from agent.programs.prompt import PromptProgram
from agent.programs.variants import TunedProgram, adapter_of
from agent.prompt.prompt_candidate import PromptCandidate
from agent.results.customize import CustomizeResult, ProviderTraining, RowCounts, SeedScore
from agent.scoring.llm_judge import judge_builder
from agent.scoring.task_metrics import build_metrics
from agent.types import LM, Candidate, Proposal, Runner, Task

LATENCY_REPEAT = 1
"""Which sample of a call is timed: one that the search has not bought."""
NO_MODEL = "answers without a language model"


@dataclass(frozen=True, slots=True)
class Scoring:
    """What scores the arms that learnt from the train rows of a task, each row once.

    Args:
        hosted: of the arm that a provider trained, whose model answers by itself.
        classic: the methods without a language model, which the evaluator runs; None: they take no part.
        records: gets candidates.
    """

    task: Task
    program: TunedProgram
    evaluator: Evaluator
    hosted: Evaluator | None
    classic: ClassicProgram | None
    records: Observer

    def of(self, arm: MadeArm) -> Evaluator:
        return self.hosted if self.hosted is not None and arm.spec.method == "hosted" else self.evaluator

    async def sealed(self, session: Asking, *arms: MadeArm) -> list[list[float | None]]:
        """The scores of each arm on the sealed rows."""
        asked = [Arm(f"{at}", each.candidate, self.of(each)) for at, each in enumerate(arms)]
        table = await score(session, asked, self.task.test, "test")
        return [table.values(each.name) for each in asked]

    def record(self, candidate: Candidate, operator: str, about: str) -> None:
        self.records.on_candidate_accepted(0, Proposal(candidate, {}, operator, None, about))

    async def unmodelled(self) -> list[MeasuredArm]:
        """The methods without a language model, the constant answer first."""
        test, classic, arms = self.task.test, self.classic, []
        if classic is None:
            return []
        await classic.fit(test, self.evaluator.value)
        for each in classic.candidates():
            self.record(each, "yardstick", NO_MODEL)
            began = time.perf_counter()
            scores = [outcome.value for outcome in await self.evaluator.outcomes(each, test, "test")]
            seconds = (time.perf_counter() - began) / max(1, len(scores))
            labels = classic.rows(each)
            arms.append(MeasuredArm(each.method, NO_MODEL, "no model", each.id, scores, labels, latency_s=seconds))
        return arms


class Customize:
    """One comparison."""

    def __init__(self, plan: CustomizePlan, session: Session[CustomizeResult]) -> None:
        self._plan, self._session, self._task = plan, session, session.task

    async def work(self) -> CustomizeResult:
        plan, session, provider = self._plan, self._session, None

        def stopped() -> Exception | None:
            return session.gateway.stopped

        trainings = ArmTrainings(plan, session.observer, stopped)
        if plan.hosted is not None:
            provider = HostedTraining(plan.hosted, session, stopped)
            session.cancel_elsewhere = provider.abandon
        try:
            return await self._compared(trainings, provider)
        finally:
            await trainings.close()
            if provider is not None:
                await provider.close()

    async def _compared(self, trainings: ArmTrainings, provider: HostedTraining | None) -> CustomizeResult:
        plan, session, task, seed = self._plan, self._session, self._task, self._session.seed
        if plan.tuned:
            session.observer.on_message(planned_trainings(plan.tuned, plan.asked, plan.sizes)[1])
        await trainings.begin()
        some = {size: first_rows(task, size, plan.seed) for size in plan.sizes}
        asked = [(spec, part, 0) for part in [*some.values(), task] for spec in plan.tuned]
        asked += [(spec, task, at) for spec in plan.tuned for at in range(1, plan.asked.seeds)]
        made = iter(await trainings.made(asked))
        of_size = {size: [next(made) for _ in plan.tuned] for size in some}
        whole, again = [next(made) for _ in plan.tuned], list(made)
        hosted = await provider.arm() if provider else None
        scoring = self._scoring(task, [*whole, *again], hosted)
        arms = [MadeArm(ARMS[name], each, plan.lm, labels_of(each, task)) for name, each in plan.prompts.items()]
        arms += [*whole, *([hosted] if hosted else [])]
        for each in arms:
            scoring.record(each.candidate, f"arm:{each.spec.name}", each.spec.about)
        for each in again:
            scoring.record(each.candidate, f"seed:{each.spec.name}", f"seed {each.seed}")
        opened = {"arms": {each.spec.name: each.candidate.id for each in arms}, "rows": len(task.test)}
        session.observer.on_event("test_opened", opened)
        general = await self._asked(scoring, arms)
        measured = [
            await self._measured(scoring, arm, general, [each for each in again if each.spec is arm.spec])
            for arm in arms
        ]
        measured += await scoring.unmodelled()
        points = [point for size, part in some.items() for point in await self._points(part, of_size[size])]
        points += self._whole_points(measured) if points else []
        await session.ledger.commit()  # no file may name a head that a kill takes back
        for each in whole:
            at = next(at for at, one in enumerate(measured) if one.name == each.spec.name)
            path, noted = write_arm(plan, session.id, session.ledger, scoring.program, measured[at], measured[0], each)
            session.observer.on_event("released", noted)
            measured[at] = replace(measured[at], path=str(path))
        lines, advice = table(measured, rows_a_label(task), plan.asked.expected_calls, seed)
        return CustomizeResult(
            run_id=session.id,
            of_run=plan.run,
            task=task.name,
            model=plan.lm.name,
            rows=RowCounts(train=len(task.train), test=len(task.test)),
            arms=lines,
            advice=advice,
            curve=curve_lines(points),
            curve_text=curve_text(points, seed),
            settings=tuple(each.choice.record(each.spec.name) for each in whole if each.choice),
            fine_tuning=None if hosted is None else _fine_tuning(hosted),
            **session.spent(),
        )

    def _scoring(self, task: Task, tuned: Sequence[MadeArm], hosted: MadeArm | None = None) -> Scoring:
        plan, classic = self._plan, None
        models = {digest: each.model for each in tuned if (digest := adapter_of(each.candidate))}
        program = TunedProgram(task, plan.lm, (), models)
        programs: list[PromptProgram | ClassicProgram] = [PromptProgram(task, plan.lm), program]
        if plan.has_classic and ClassicProgram.suits(task):
            classic = ClassicProgram(task, "" if task.train == self._task.train else rows_hash(task.train))
            programs.append(classic)
        records = LedgerObserver(self._session.ledger, self._session.id, programs)
        metrics = build_metrics(task, {"judge": judge_builder(task, plan.judges or (plan.lm,), self._session.gateway)})
        base = plan.prompts["yours"].id

        def evaluator_of(lm: LM, runners: Sequence[Runner]) -> Evaluator:
            return Evaluator(task, self._session.gateway, lm, metrics, runners, records, graded=True, baseline_id=base)

        other = evaluator_of(hosted.model, [PromptProgram(task, hosted.model)]) if hosted else None
        return Scoring(task, program, evaluator_of(plan.lm, programs), other, classic, records)

    async def _asked(self, scoring: Scoring, arms: Sequence[MadeArm]) -> Mapping[str, Replies]:
        """The replies of trained models elsewhere, by the name of the arm, and of the base model ("").

        Where calls go as batches, the sealed rows of all arms go with them; the evaluators keep what comes.
        """
        trained = {arm.spec.name: arm.model for arm in arms if arm.spec.family == "tuned"}
        asked: dict[str, LM] = {"": self._plan.lm, **trained} if trained else {}
        found: dict[str, Replies] = {}

        async def ask(name: str, lm: LM) -> None:
            found[name] = await replies(self._session.gateway, lm, self._plan.others)

        sets: list[Callable[[], Awaitable[object]]] = [partial(ask, name, lm) for name, lm in asked.items()]
        if self._session.gateway.batches is not None:
            sets += [partial(scoring.of(arm).outcomes, arm.candidate, self._task.test, "test") for arm in arms]
        await self._session.in_sets(sets, in_turn=self._task.is_compared)
        return found

    async def _measured(
        self, scoring: Scoring, arm: MadeArm, general: Mapping[str, Replies], again: Sequence[MadeArm]
    ) -> MeasuredArm:
        """An arm and the same training with other seeds on the sealed rows, the time of a call, and what it forgot."""
        spec, candidate, seeds = arm.spec, arm.candidate, list[SeedScore]()
        self._session.observer.on_message(f"{spec.name}: {len(self._task.test)} sealed rows")
        evaluator, (scores,) = scoring.of(arm), await scoring.sealed(self._session, arm)
        latency = await self._latency(evaluator, candidate)
        usage, price = evaluator.usage_of(candidate.id), self._session.prices.get(arm.model.name)
        for each in [arm, *again] if again else []:
            if each is not arm:
                self._session.observer.on_message(f"{spec.name}, seed {each.seed}: {len(scores)} sealed rows")
            test = summary((await scoring.sealed(self._session, each))[0]).mean
            seeds.append(SeedScore(seed=each.seed, test=test, train_s=round(each.train_s, 1)))
        return MeasuredArm(
            spec.name,
            spec.about,
            spec.family,
            candidate.id,
            scores,
            arm.labels,
            arm.seconds,
            usage.prompt_tokens + usage.completion_tokens,
            0.0 if self._plan.lm.name.startswith("local/") else 1000 * price(usage) if price else None,
            latency,
            forgotten(general[spec.name], general[""], self._plan.others) if spec.family == "tuned" else None,
            arm.megabytes,
            train_usd=arm.usd,
            seeds=seeds,
        )

    async def _latency(self, evaluator: Evaluator, candidate: Candidate) -> float | None:
        """Seconds of one call, the median of a few dev rows that are asked one after the other."""
        seconds = []
        for row in self._task.dev[:LATENCY_ROWS]:
            outcome = await evaluator.outcome(candidate, row, repeat=LATENCY_REPEAT)
            if (took := self._session.ledger.seconds_of(outcome.call_key)) is not None:
                seconds.append(took)
        return median(seconds) if seconds else None

    # -- the label curve ----------------------------------------------------------------------------------------------

    async def _points(self, task: Task, tuned: Sequence[MadeArm]) -> list[CurvePoint]:
        """The arms that learn, with the train rows of this task: adapters, methods, and the prompt that picks."""
        count, arms = len(task.train), list(tuned)
        self._session.observer.on_message(f"curve: {count} train rows")
        scoring = self._scoring(task, tuned)
        if name := self._plan.picking:
            prompt = self._plan.prompts[name]
            assert prompt.picks is not None
            prompt = replace(prompt, picks=replace(prompt.picks, pool=scoring.program.pool.id))
            arms.insert(0, MadeArm(ARMS[name], prompt, self._plan.lm, count))
        for each in arms:
            scoring.record(each.candidate, f"curve:{each.spec.name}", f"with {count} train rows")
        found = await scoring.sealed(self._session, *arms)
        points = [
            CurvePoint(each.spec.name, count, scores, each.train_s) for each, scores in zip(arms, found, strict=True)
        ]
        for each in tuned:
            await each.model.close()
        return points + [CurvePoint(one.name, count, one.scores) for one in (await scoring.unmodelled())[1:]]

    def _whole_points(self, measured: Sequence[MeasuredArm]) -> list[CurvePoint]:
        """The arms of the curve with all train rows, as the table has them."""
        plan = self._plan
        learns = {*(spec.name for spec in plan.tuned), plan.picking}
        learns |= {arm.name for arm in [arm for arm in measured if arm.family == "no model"][1:]}
        return [
            CurvePoint(arm.name, len(plan.task.train), arm.scores, arm.train_s)
            for arm in measured
            if arm.name in learns
        ]


def _fine_tuning(hosted: MadeArm) -> ProviderTraining:
    return ProviderTraining(job=hosted.job, model=hosted.model.name, seconds=hosted.seconds, usd=hosted.usd)


def labels_of(candidate: PromptCandidate, task: Task) -> int:
    """Rows with a right answer that a prompt shows or picks from, and dev rows that calibrated it."""
    shown = len(task.train) if candidate.picks else len(candidate.demos)
    fitted = len(task.dev) if candidate.calibration and candidate.calibration.method != "label-free" else 0
    return shown + fitted
