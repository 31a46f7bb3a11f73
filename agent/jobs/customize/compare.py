"""Makes the arms from the same train rows, then opens one sealed test for all of them."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from statistics import median

from agent.evaluate.breakdown import summary
from agent.evaluate.evaluator import Evaluator
from agent.evaluate.score_table import Arm, score
from agent.jobs.customize.arms import ARMS, MadeArm
from agent.jobs.customize.forgetting import Replies, forgotten, replies
from agent.jobs.customize.hosted import HostedMaker
from agent.jobs.customize.plan import LATENCY_ROWS, CustomizePlan
from agent.jobs.customize.release_arm import write_arm
from agent.jobs.customize.table import Scored, curve_lines, curve_text, first_rows, rows_a_label, seed_spread, table
from agent.jobs.customize.trainer import TrainingMaker
from agent.jobs.customize.training import rows_hash
from agent.jobs.observers import LedgerObserver
from agent.jobs.session import Session
from agent.programs.classic import ClassicProgram
from agent.programs.prompt import PromptProgram
from agent.programs.variants import TunedProgram, adapter_of
from agent.results.customize import ComparedArm, CurveScore, CustomizeResult, ProviderTraining, RowCounts, SeedScore
from agent.scoring.llm_judge import judge_builder
from agent.scoring.task_metrics import build_metrics
from agent.types import LM, Candidate, Proposal, Runner, Task

LATENCY_REPEAT = 1
"""Sample of a call that is timed: one that the search has not bought."""
NO_MODEL = "answers without a language model"


async def compare(session: Session[CustomizeResult], plan: CustomizePlan) -> CustomizeResult:
    """Make the arms, score them on the sealed rows, release the trained ones, and advise."""
    task, seeds = session.task, range(1, plan.asked.seeds)
    some = [first_rows(task, size, plan.launch.options.seed) for size in plan.sizes]
    async with AsyncExitStack() as stack:
        training = TrainingMaker(plan, session)
        provider = HostedMaker(plan.hosted, session) if plan.hosted else None
        if provider:
            stack.push_async_callback(provider.close)
        stack.push_async_callback(training.close)
        if plan.tuned:
            session.observer.on_message(plan.trainings[1])
        wanted = [(spec, part, 0) for part in [*some, task] for spec in plan.tuned]
        made = await training.make([*wanted, *((spec, task, seed) for spec in plan.tuned for seed in seeds)])
        few, whole, again = made[: len(wanted)], made[len(wanted) - len(plan.tuned) : len(wanted)], made[len(wanted) :]
        hosted = [await provider.make()] if provider else []
        arms = [*plan.prompt_arms([ARMS[name] for name in plan.prompts], task), *whole, *hosted]
        scoring = Scoring(plan, session, task, [*whole, *again, *hosted])
        for each in arms:
            scoring.record(each.candidate, f"arm:{each.spec.name}", each.spec.about)
        for each in again:
            scoring.record(each.candidate, f"seed:{each.spec.name}", f"seed {each.seed}")
        opened = {"arms": {each.spec.name: each.candidate.id for each in arms}, "rows": len(task.test)}
        session.observer.on_event("test_opened", opened)
        general = await scoring.asked_elsewhere(arms)
        measured = [await scoring.measured(each, general, again) for each in arms]
        unmodelled = await scoring.unmodelled()
        measured += unmodelled
        points = list[Scored[CurveScore]]()
        for at, part in enumerate(some):
            tuned = few[at * len(plan.tuned) : (at + 1) * len(plan.tuned)]
            picking = plan.prompt_arms([spec for spec in plan.learning if spec.method == "prompt"], part)
            points += await Scoring(plan, session, part, tuned).points([*picking, *tuned])
            for each in tuned:
                await each.model.close()
        if points:
            learn = {spec.name for spec in plan.learning} | {arm.line.arm for arm in unmodelled[1:]}
            points += [_point(arm, len(task.train)) for arm in measured if arm.line.arm in learn]
        await session.ledger.commit()  # no file may name a head that a kill takes back
        for each in whole:
            at = next(at for at, one in enumerate(measured) if one.line.arm == each.spec.name)
            path, noted = write_arm(plan, session, scoring.program, measured[at], measured[0], each)
            session.observer.on_event("released", noted)
            measured[at] = replace(measured[at], line=measured[at].line.model_copy(update={"path": str(path)}))
    lines, advice = table(measured, rows_a_label(task), plan.asked.expected_calls, session.seed)
    return CustomizeResult(
        run_id=session.id,
        of_run=plan.run,
        task=task.name,
        model=plan.launch.model.name,
        rows=RowCounts(train=len(task.train), test=len(task.test)),
        arms=lines,
        advice=advice,
        curve=curve_lines(points),
        curve_text=curve_text(points, session.seed),
        settings=tuple(each.choice.record(each.spec.name) for each in whole if each.choice),
        fine_tuning=next(
            (ProviderTraining(job=one.job, model=one.model.name, seconds=one.seconds, usd=one.usd) for one in hosted),
            None,
        ),
        **session.spent(),
    )


class Scoring:
    """Scores arms that learned from the train rows of a task, each sealed row once.

    Args:
        task: with all train rows, or the first of them.
        tuned: arms whose model is not the plan's.
    """

    def __init__(
        self, plan: CustomizePlan, session: Session[CustomizeResult], task: Task, tuned: Sequence[MadeArm]
    ) -> None:
        self._plan, self._session, self._task = plan, session, task
        self._lm, launch = plan.launch.model, plan.launch
        models = {digest: each.model for each in tuned if (digest := adapter_of(each.candidate))}
        self.program = TunedProgram(task, self._lm, (), models)
        runners: list[PromptProgram | ClassicProgram] = [PromptProgram(task, self._lm), self.program]
        self._classic = None
        if plan.has_classic and ClassicProgram.suits(task):
            is_whole = task.train == session.task.train
            self._classic = ClassicProgram(task, "" if is_whole else rows_hash(task.train))
            runners.append(self._classic)
        self._records = LedgerObserver(session.ledger, session.id, runners)
        judge = judge_builder(task, launch.judges or (self._lm,), session.gateway)
        metrics, base = build_metrics(task, {"judge": judge}), plan.prompts["yours"].id

        def evaluator(lm: LM, programs: Sequence[Runner]) -> Evaluator:
            gateway, records = session.gateway, self._records
            return Evaluator(task, gateway, lm, metrics, programs, records, graded=True, baseline_id=base)

        self._evaluator = evaluator(self._lm, runners)
        hosted = (each.model for each in tuned if each.spec.method == "hosted")
        self._hosted = next((evaluator(lm, [PromptProgram(task, lm)]) for lm in hosted), self._evaluator)

    def record(self, candidate: Candidate, operator: str, about: str) -> None:
        self._records.on_candidate_accepted(0, Proposal(candidate, {}, operator, None, about))

    def _of(self, arm: MadeArm) -> Evaluator:
        return self._hosted if arm.spec.method == "hosted" else self._evaluator

    async def _sealed(self, *arms: MadeArm) -> list[list[float | None]]:
        asked = [Arm(f"{at}", each.candidate, self._of(each)) for at, each in enumerate(arms)]
        found = await score(self._session, asked, self._task.test, "test")
        return [found.values(each.name) for each in asked]

    async def asked_elsewhere(self, arms: Sequence[MadeArm]) -> Mapping[str, Replies]:
        """Ask the base model ("") and each trained model about other tasks.

        With a batch API the sealed rows of all arms join the batch; the evaluators keep the replies.
        """
        session, trained = self._session, {arm.spec.name: arm.model for arm in arms if arm.spec.family == "tuned"}
        asked: dict[str, LM] = {"": self._lm, **trained} if trained else {}
        found: dict[str, Replies] = {}

        async def ask(name: str, lm: LM) -> None:
            found[name] = await replies(session.gateway, lm, self._plan.others)

        sets: list[Callable[[], Awaitable[object]]] = [partial(ask, name, lm) for name, lm in asked.items()]
        if session.gateway.batches is not None:
            sets += [partial(self._of(arm).outcomes, arm.candidate, self._task.test, "test") for arm in arms]
        await session.in_sets(sets, in_turn=self._task.is_compared)
        return found

    async def measured(
        self, arm: MadeArm, general: Mapping[str, Replies], again: Sequence[MadeArm]
    ) -> Scored[ComparedArm]:
        """Score an arm and its further seeds, time a call, and measure forgetting."""
        session, spec, seeds = self._session, arm.spec, list[SeedScore]()
        session.observer.on_message(f"{spec.name}: {len(self._task.test)} sealed rows")
        (scores,), evaluator = await self._sealed(arm), self._of(arm)
        latency = await self._latency(arm)
        usage, price = evaluator.usage_of(arm.candidate.id), session.prices.get(arm.model.name)
        for each in [arm, *same] if (same := [each for each in again if each.spec is spec]) else []:
            if each is not arm:
                session.observer.on_message(f"{spec.name}, seed {each.seed}: {len(scores)} sealed rows")
            test = summary((await self._sealed(each))[0]).mean
            seeds.append(SeedScore(seed=each.seed, test=test, train_s=round(each.train_s, 1)))
        return Scored.of(
            ComparedArm,
            scores,
            arm=spec.name,
            about=spec.about,
            family=spec.family,
            candidate_id=arm.candidate.id,
            labels=arm.labels,
            train_s=arm.seconds,
            train_usd=arm.usd,
            tokens_per_call=usage.tokens,
            usd_per_1000=0.0 if self._lm.name.startswith("local/") else 1000 * price(usage) if price else None,
            latency_s=latency,
            elsewhere=forgotten(general[spec.name], general[""], self._plan.others) if spec.family == "tuned" else None,
            seeds=seed_spread(seeds),
            megabytes=arm.megabytes,
        )

    async def _latency(self, arm: MadeArm) -> float | None:
        seconds = []
        for row in self._task.dev[:LATENCY_ROWS]:
            outcome = await self._of(arm).outcome(arm.candidate, row, repeat=LATENCY_REPEAT)
            if (took := self._session.ledger.seconds_of(outcome.call_key)) is not None:
                seconds.append(took)
        return median(seconds) if seconds else None

    async def unmodelled(self) -> list[Scored[ComparedArm]]:
        """Score the methods without a language model, the constant answer first."""
        test, classic, arms = self._task.test, self._classic, list[Scored[ComparedArm]]()
        if classic is None:
            return []
        await classic.fit(test, self._evaluator.value)
        for each in classic.candidates():
            self.record(each, "yardstick", NO_MODEL)
            began = time.perf_counter()
            scores = [outcome.value for outcome in await self._evaluator.outcomes(each, test, "test")]
            seconds = (time.perf_counter() - began) / max(1, len(scores))
            about = {"arm": each.method, "about": NO_MODEL, "family": "no model", "candidate_id": each.id}
            arms.append(Scored.of(ComparedArm, scores, **about, labels=classic.rows(each), latency_s=seconds))
        return arms

    async def points(self, arms: Sequence[MadeArm]) -> list[Scored[CurveScore]]:
        """Score the arms that learn from the train rows of this task."""
        count = len(self._task.train)
        self._session.observer.on_message(f"curve: {count} train rows")
        for each in arms:
            self.record(each.candidate, f"curve:{each.spec.name}", f"with {count} train rows")
        found = zip(arms, await self._sealed(*arms), strict=True)
        points = [
            Scored.of(CurveScore, scores, arm=each.spec.name, labels=count, train_s=round(each.train_s, 1))
            for each, scores in found
        ]
        return points + [_point(each, count) for each in (await self.unmodelled())[1:]]


def _point(arm: Scored[ComparedArm], count: int) -> Scored[CurveScore]:
    return Scored.of(CurveScore, arm.scores, arm=arm.line.arm, labels=count, train_s=round(arm.line.train_s, 1))
