"""The loop: the one file that knows the order of things.

    plan -> baseline (trial 0) -> a strategy's search on dev -> sealed test -> release

Every step is a pure function of task, seed and replies; the ledger is written as it happens and never read to decide.
That is what makes a run resumable: it walks the same way again, and each call that was settled answers from the ledger.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from agent.errors import BudgetExhausted, InputError, RunRefused
from agent.evaluate.answer_counts import retrieval_figures
from agent.evaluate.breakdown import Pair, confidence_report
from agent.evaluate.evaluator import Evaluator, why_unscored
from agent.gateway.budget import Account, HeldBack
from agent.ledger.provenance import new_run_id, tool_version, utc_now
from agent.ledger.query import run_folder
from agent.ledger.resume_state import ResumeState
from agent.ledger.store import Ledger
from agent.programs.classic import ClassicProgram
from agent.programs.kinds import ReleaseSpec, WrittenRelease
from agent.programs.yardsticks import measured
from agent.release.prompt_file import HELD
from agent.release.result import Release, RunResult
from agent.results.breakdown import Calibration, JudgeTrust, Retrieval
from agent.results.run_parts import Yardstick
from agent.run.build_result import DevScores, SealedTest, cheaper_part, decided, untested_part
from agent.run.embeddings import embed_rows
from agent.run.job import LedgerRun, Resources
from agent.run.launch import Launch
from agent.run.locations import ledger_option
from agent.run.observers import Snapshot, Watcher
from agent.run.unshown_gain import TestRows
from agent.scoring.llm_judge import judge_builder, trust_record
from agent.scoring.task_metrics import build_metrics
from agent.search import explanation, selection
from agent.search.board import Board, Calibrated
from agent.search.calibration import add_calibrated, best_readings
from agent.search.context import UNSCORED_AT_MOST, RunTools, SearchCase, SearchContext, sealed_rows
from agent.search.pareto import Finalist
from agent.search.plan import Means, Plan
from agent.search.registered import DEFAULT, STRATEGIES, Strategy
from agent.search.selection import LeftOut, untested
from agent.stats.intervals import smallest_margin
from agent.stats.preflight import Assessment, assess, rows_to_detect
from agent.stats.selection import selection_corrected
from agent.types import (
    Candidate,
    Example,
    Outcome,
    Proposal,
    Shown,
    SplitName,
    TrialState,
    scores_labels,
)

CHOOSABLE = ("complete", "pruned")
BASELINE_UNSCORED_AT_MOST = 0.5  # more and there is nothing to compare with
PROVED_ROWS = 20  # of the sealed test, on which a program that was written is run again


@dataclass(frozen=True, slots=True)
class Resumed:
    """A run to go on with: its id, and the plan that it was made with."""

    run_id: str
    plan: Plan


class Run(LedgerRun[RunResult]):
    """One optimization. `execute` returns its result.

    Args:
        launch: task, models, program and options.
        ledger: where all of it is written down; what the run writes lies next to it.
        observer: shows the run.
        resumed: the run to continue; None: a new one.

    Raises:
        InputError: the task's program cannot be made, or a model has no price.
        BudgetRefused: the budget cannot compare two prompts.
    """

    roles = ("model", "proposer", "judge")

    def __init__(
        self, launch: Launch, ledger: Ledger, observer: Watcher | None = None, resumed: Resumed | None = None
    ) -> None:
        self._launch, self.program, self._embedder = launch, launch.program, launch.embedder
        self._own = self._baseline()
        self.target, self.proposer, self.judges = launch.target, launch.proposer, launch.judges or (launch.target,)
        self.options, self._watcher = launch.options, observer or Watcher()
        prices = launch.prices()
        self.plan = resumed.plan if resumed else launch.plan()
        self._planned_runs = self.plan
        """The plan as it was made: where a row takes no fixed number of calls, it counts runs of the program."""
        task = self.program.task
        self._classic = ClassicProgram(task) if ClassicProgram.suits(task) else None
        self._kinds = [self.program, *([self._classic] if self._classic else [])]
        resources = Resources(
            resumed.run_id if resumed else new_run_id(),
            ledger,
            prices,
            self.options,
            self._watcher,
            self.options.seed,
            self.options.cache,
        )
        super().__init__(task, launch.models, resources, self._kinds)
        self.folder = run_folder(ledger.path.parent, self.id)
        self._resumes = resumed is not None
        self._test = sealed_rows(task, self.plan)
        self._board = Board(self._observer)
        self._evaluator: Evaluator
        self.context: SearchContext
        self._ended = ""
        """Why the search ended before its plan did."""
        self._leader: Shown | None = None
        self.preflight: Assessment | None = None
        self._cheaper: selection.CheaperChoice | None = None
        """A winner that costs less than the best on dev."""
        self._untested: LeftOut | None = None
        self._searched = False

    @property
    def _strategy(self) -> Strategy:
        return STRATEGIES.get(self.options.strategy or DEFAULT)

    @property
    def comes_back(self) -> str:
        return f"`optimize resume {self.id}{ledger_option(self.ledger.path)}`"

    def _baseline(self) -> Candidate:
        """The candidate of trial 0."""
        return self.program.baseline()

    # -- the order of things ------------------------------------------------------------------------------------------

    async def _perform(self) -> RunResult:
        self._evaluator = Evaluator(
            self.task,
            self.program.client(self._gateway),
            self.target,
            build_metrics(self.task, {"judge": judge_builder(self.task, self.judges, self._gateway)}),
            self._kinds,
            self._observer,
            graded=self._strategy.uses_logprobs,
            baseline_id=self._own.id,
        )
        self.context = self._make_context(self.program.calls)
        self._report()
        status: Literal["complete", "budget"] = "complete"
        try:
            await self._search()
        except BudgetExhausted as stop:
            await self._gateway.drain()
            if not self.context.baseline_rows:  # not even the user's own prompt: there is nothing to test
                raise
            status, self._ended = "budget", str(stop)
            self._observer.on_event("budget_exhausted", {"why": str(stop)})
        result = await self._conclude(status)
        self.ledger.end_run(self.id, status, self.account.seconds, result.to_json())
        return result

    def _begin(self) -> ResumeState | None:
        budget = self.options.budget
        if self._resumes:
            past = self.ledger.resume_run(self.id, asdict(budget))
            self.account = Account(budget, past, self._unpriced)
            return past
        proposer = self.proposer.name if self.proposer else ""
        asked = self._launch.asked
        self._begin_new(self.target.name, proposer, asked.tag, asked.stored(), self._launch.parent)
        self.ledger.set_plan(self.id, asdict(self.plan))
        return None

    def _spent(self) -> dict[str, Any]:
        return {"calls": self.account.total_paid.calls}

    async def _search(self) -> None:
        """Trial 0, and then the strategy, where there is something to win, with what the sealed test leaves."""
        await embed_rows(self.program, self._gateway, self._embedder, [*self.context.dev, *self._test])
        await self._evaluate_baseline()
        a_row = self.program.calls
        if not self.program.is_fixed:  # how many calls a row takes is known now
            rows = (self.context.baseline_rows + self.plan.noise_rows) * self.plan.per_row
            a_row = max(a_row, math.ceil(self.account.total_used.calls / rows))
        if not self.program.is_fixed or self._planned_runs.test_rows != self.plan.test_rows:
            self.context = self._make_context(a_row)
        worth = self.options.anyway or self.preflight is None or self.preflight.worth
        if self.context.more() and worth:
            self._searched = True
            await self._strategy.search(self.context)

    def _make_context(self, calls_each: int) -> SearchContext:
        """What the strategy is handed, with the plan in calls; the sealed test's share is kept from then on."""
        self.plan = self._planned_runs
        if not self.program.is_fixed:
            most = Means(self.options.budget, self.options.effort).calls
            self.plan = self._planned_runs.in_calls(most, self.program.calls, calls_each)
        self.account.hold_back(HeldBack(self.plan.test_calls, self.plan.test_share))
        options = self.options
        case = SearchCase(
            task=self.task,
            plan=self.plan,
            seed=options.seed,
            program=self.program,
            target=self.target,
            proposer=self.proposer,
            trials=options.trials,
            sampler=options.sampler,
            pruner=options.pruner,
        )
        tools = RunTools(self._gateway, self._evaluator, self.account, self._observer)
        calibrated = Calibrated(self.program) if options.calibrate else None
        return SearchContext(case, tools, self._board, self._own, calibrated)

    async def _ahead(self, sets: Sequence[tuple[Candidate, Sequence[Example], SplitName, int]]) -> None:
        """Where calls go as batches, asks candidates on rows of a split before their turn, so that all go as one; the
        evaluator keeps what comes. What the budget does not pay is told in its turn."""
        if self._gateway.batches is None:
            return
        with suppress(BudgetExhausted):
            await self._sets([partial(self._evaluator.outcomes, *each) for each in sets], self.task.is_compared)

    async def _evaluate_baseline(self) -> None:
        context, board = self.context, self._board
        if problem := self.program.check(context.baseline):
            raise InputError(f"{self.task.folder}/task.toml:1: the instruction cannot be the baseline: {problem}")
        place = self.program.place(context.baseline)
        context.adopt(Proposal(context.baseline, place, "baseline", None, "the user's own prompt"))
        board.open(context.baseline.id, 0)
        first, noisy = context.dev[: self.plan.first_rows], context.dev[: self.plan.noise_rows]
        await self._ahead([(context.baseline, first, "dev", 0), (context.baseline, noisy, "dev", 1)])
        scores = await self._own_scores(self.plan.first_rows)
        again = await self._evaluator.outcomes(context.baseline, noisy, "dev", repeat=1)
        repeated = [outcome.value for outcome in again]
        self._choose_sealed_rows(scores)
        self.preflight = assess(scores, repeated, len(self._test), self.task.is_compared)
        missing = sum(score is None for score in scores)
        is_doubtful = missing > UNSCORED_AT_MOST * len(scores) or not self.preflight.worth
        if len(scores) < len(context.dev) and is_doubtful:  # nothing is left out because of a few rows
            scores = await self._own_scores(len(context.dev))
            self.preflight = assess(scores, repeated, len(self._test), self.task.is_compared)
        self._observer.on_event("preflight", {"rows": len(again), **self.preflight.as_dict()})
        self._observer.on_evaluation_ended([context.baseline.id])

    async def _own_scores(self, rows: int) -> list[float | None]:
        """Scores the user's own prompt on the first `rows` rows of dev. Raises RunRefused where that says nothing."""
        context, board = self.context, self._board
        outcomes = await self._evaluator.outcomes(context.baseline, context.dev[:rows], "dev")
        if broken := self.program.broken(outcomes):
            raise RunRefused(broken)
        unscored = [outcome for outcome in outcomes if outcome.value is None]
        if len(unscored) > BASELINE_UNSCORED_AT_MOST * len(outcomes):
            why = why_unscored(unscored[0])
            raise RunRefused(f"your own prompt got no score on {len(unscored)} of {len(outcomes)} rows: {why}")
        context.record(context.baseline.id, outcomes)
        state: TrialState = "complete" if len(outcomes) == len(context.dev) else "incomplete"
        board.settle(context.baseline.id, state, "the user's own prompt")
        return [outcome.value for outcome in outcomes]

    def _choose_sealed_rows(self, scores: Sequence[float | None]) -> None:
        """Leaves test rows that the decision does not need to the search, by the user's own prompt's scores on dev: the
        rows themselves stand in an order that nothing changes."""
        known, plan = [score for score in scores if score is not None], self._planned_runs
        if plan.detect is None or not plan.finalists or not known or self.task.is_compared:
            return
        needed = rows_to_detect(plan.detect, known)
        self._planned_runs = plan.tested_for(needed)
        if self._planned_runs.test_rows < plan.test_rows:
            self._test = sealed_rows(self.task, self._planned_runs)
            self._observer.on_event("sealed_rows_chosen", {"needed": needed, "rows": len(self._test)})

    # -- the end ------------------------------------------------------------------------------------------------------

    async def _conclude(self, status: Literal["complete", "budget"]) -> RunResult:
        """Opens the sealed test once, for baseline and winner (and the best, where a cheaper one is the winner), and
        writes the release."""
        if self._searched and self.options.calibrate:
            await add_calibrated(self.context)
        winner = self._chosen()
        tested = {winner.id, *([self._cheaper.best.id] if self._cheaper else [])}
        self._untested = untested(self.context, tested, self.options.prefer, self.options.budget)
        corrected = self._corrected(winner)
        if status == "complete" and winner.id != self.context.baseline.id:
            self.context.stage("attribution", self.context.round)
            await explanation.ablate(self.context, winner)
        self._board.close_open("the budget ended first")
        result = await self._tested(winner, status, corrected)
        released = winner if result.decision == "promote" else self.context.baseline
        result = result.model_copy(update={"parameters": self._parameters(released)})
        await self.ledger.commit()  # no file may name a head that a kill takes back
        written = await self._write(result, released, self.folder)
        versions = {"version": written.version, "candidate_id": released.id}
        if released.id != winner.id:
            versions["held"] = (await self._write(result, winner, self.folder / HELD)).version
        self._observer.on_event("released", versions)
        return result.model_copy(update={"release": Release(written.path)})

    def _chosen(self) -> Candidate:
        """The candidate that goes to the sealed test, and in `_cheaper` whether it goes there in the place of the
        best."""
        margin, how = self.options.margin / 100, self.options.prefer
        offers = best_readings(self.context, self._offers())
        if how != "cheap":
            return selection.chosen(self.context, offers, how)
        best = selection.chosen(self.context, offers, "best")
        self._cheaper = selection.cheaper(self.context, offers, best, margin)
        if self._cheaper is not None:
            return self._cheaper.winner
        points, rows = f"{100 * margin:g} points", len(self.context.dev)
        self._observer.on_message(
            f"prefer cheap: no cheaper prompt is shown to lose less than {points} on {rows} dev rows, so the best is "
            f"tested (two of one quality pass from about --margin {100 * smallest_margin(rows):.0f} on)"
        )
        self.plan = self.context.plan = replace(self.plan, tested=2)  # what a third prompt would take may be spent
        return best

    def _parameters(self, candidate: Candidate) -> dict[str, Any]:
        """What a candidate was scored with."""
        cap: dict[str, Any] = {"max_tokens": self.program.max_tokens(candidate)}
        if self.program.shown(candidate).calibration:
            cap["logprobs"] = self._evaluator.logprobs
            if scores_labels(self.target):
                cap["labels"] = list(self.task.signature.outputs[0].choices)
        return cap if self.ledger.refuses_temperature(self.target.name) else {**cap, "temperature": 0.0}

    async def _write(self, result: RunResult, candidate: Candidate, folder: Path) -> WrittenRelease:
        """Writes a candidate as a release, with its provenance."""
        spec = ReleaseSpec(
            result,
            self._board.trials[candidate.id].number,
            self._parameters(candidate),
            self._origin(),
            folder,
            self._evaluator,
            self._test[:PROVED_ROWS],
        )
        return await self.program.write(candidate, spec)

    def _origin(self) -> dict[str, str]:
        """What a release says of where it comes from, beside its run."""
        return {"tool": tool_version(), "created_utc": utc_now(), "ledger": self.ledger.id()}

    def _offers(self) -> list[Finalist]:
        """All that saw the whole of dev."""
        price = self._resources.prices.get(self.target.name)
        return selection.finalists(self.context, price, self.ledger.latencies(self.id))

    async def _tested(
        self, winner: Candidate, status: Literal["complete", "budget"], corrected: float | None
    ) -> RunResult:
        """Opens the sealed test. Raises BudgetExhausted when it cannot be finished."""
        board, baseline = self._board, self.context.baseline
        self.context.stage("sealed test", self.context.round)
        self.account.hold_back(HeldBack())
        opened = {"winner": winner.id, "baseline": baseline.id, "rows": len(self._test)}
        opened |= {"best": self._cheaper.best.id} if self._cheaper else {}
        self._observer.on_event("test_opened", opened)
        tested = [baseline, winner, *([self._cheaper.best] if self._cheaper else [])]
        repeated = [(each, k) for each in tested[:2] for k in range(1, self.plan.repeats)]
        steady_rows = self._test[: self.plan.steady_rows]
        await self._ahead(
            [(each, self._test, "test", 0) for each in tested]
            + [(each, steady_rows, "test", k) for each, k in repeated]
        )
        try:
            base = await self._evaluator.outcomes(baseline, self._test, "test")
            won = base if winner.id == baseline.id else await self._evaluator.outcomes(winner, self._test, "test")
            best = await self._evaluator.outcomes(self._cheaper.best, self._test, "test") if self._cheaper else []
            steady = {each.id: await self._samples(each) for each in (winner, baseline)}
        except BudgetExhausted as stop:
            raise BudgetExhausted(f"{stop}. The sealed test was not finished, so nothing is promoted") from stop
        self._require_scored(won, base)
        yardsticks = await self._yardsticks(won)
        sides = {"winner": steady[winner.id], "baseline": steady[baseline.id]}
        is_whole = board.trials[baseline.id].state == "complete"
        rows = None if is_whole else self.context.baseline_rows
        dev = DevScores(board.mean(baseline.id), board.mean(winner.id), corrected, rows)
        return self._result(
            self._sealed(winner, won, baseline, base, dev),
            status,
            {
                "yardsticks": yardsticks,
                "uncorrected": self._uncorrected(winner),
                **explanation.explained(
                    self.task, Pair(self._test, won, base), sides, self._trust(), self.options.seed
                ),
                "preflight": self.preflight.as_dict() if self.preflight else None,
                "attribution": explanation.carried(self.context, winner, corrected),
                "cheaper": cheaper_part(self._cheaper, won, best, self.options.seed) if self._cheaper else None,
                "untested": untested_part(self._untested, len(self.context.dev)) if self._untested else None,
            },
        )

    def _sealed(
        self,
        winner: Candidate,
        won: Sequence[Outcome],
        baseline: Candidate,
        based: Sequence[Outcome],
        dev: DevScores,
    ) -> SealedTest:
        """What the sealed test showed of two candidates."""
        program, tokens = self.program, self._evaluator.tokens_a_call(winner.id)
        return SealedTest(
            winner, baseline, won, based, program.shown(winner), program.prompt_tokens(winner), tokens, dev
        )

    def _result(self, sealed: SealedTest, status: Literal["complete", "budget"], parts: Mapping[str, Any]) -> RunResult:
        """The result before its release is written. `parts`: other fields of it."""
        context, winner = self.context, sealed.winner
        ended = self._ended or context.failed
        pair, sides = Pair(self._test, sealed.won, sealed.based), {"winner": winner, "baseline": context.baseline}
        states = [trial.state for trial in self._board.trials.values()]
        explained: dict[str, Any] = {
            "change": explanation.changed(context, winner),
            "proposer": explanation.proposer_use(context, winner, ended),
            "retrieval": self._retrieval(pair, sides),
            "pareto": selection.pareto(self._offers(), winner),
            "calibration": self._confidence(winner, sealed.won),
            **parts,
        }
        result = RunResult(
            run_id=self.id,
            task=self.task.name,
            status=status,
            model=self.target.name,
            seed=self.options.seed,
            **sealed.sides(self.options.seed),
            decision="keep_baseline",
            trials={state: states.count(state) for state in ("complete", "pruned", "failed", "incomplete")},
            release=Release(Path()),
            ledger=self.ledger.path,
            search_ended=ended,
            failed_because=self._board.why_failed(),
            human_score=self.task.human_score,
            **explained,
            **self.spent(),
        )
        return decided(result, sealed, TestRows(self.task, self.plan, self.options.budget))

    async def _yardsticks(self, won: Sequence[Outcome]) -> list[Yardstick]:
        """What is reached without a language model, beside the winner's outcomes on the sealed test; none where no such
        method suits the task."""
        if self._classic is None:
            return []
        tested, seed = (self._test, won), self.options.seed
        return await measured(self._classic, self._evaluator, self._observer, self.context.dev, tested, seed)

    def _trust(self) -> list[JudgeTrust]:
        """The trust record of each judge."""
        return [
            trust_record(judge, self.ledger.calibration(judge.judge.setup.id, self.id), self.task.name)
            for judge in self._evaluator.judges()
        ]

    @staticmethod
    def _require_scored(won: Sequence[Outcome], base: Sequence[Outcome]) -> None:
        """Raises RunRefused where no row of the sealed test has a score on both sides."""
        pairs = list(zip(won, base, strict=True))
        if all(one.value is None or other.value is None for one, other in pairs):
            why = why_unscored(next(outcome for pair in pairs for outcome in pair if outcome.value is None))
            raise RunRefused(f"no row of the sealed test got a score with both prompts: {why}")

    def _confidence(self, winner: Candidate, won: Sequence[Outcome]) -> Calibration | None:
        """How far the winner's confidences can be trusted; None without any, and where calibration is switched off
        and no precision is wanted."""
        precision = self.task.precision
        if not self.options.calibrate and precision is None:
            return None
        dev = self._board.outcomes.get(winner.id, ())
        found = confidence_report(won, dev, self.program.shown(winner).calibration, precision)
        if found is None and precision is not None:
            self._observer.on_message("precision: answers without log-probabilities, so nothing says where to abstain")
        return found

    async def _samples(self, candidate: Candidate) -> list[list[Outcome]]:
        """Some test rows, asked as often as the task wants; the first time was the test itself."""
        rows = self._test[: self.plan.steady_rows]
        return [await self._evaluator.outcomes(candidate, rows, "test", repeat=k) for k in range(self.plan.repeats)]

    def _corrected(self, winner: Candidate) -> float | None:
        """The winner's dev score without what choosing the best of all that were tried adds to it. None for the user's
        own prompt, and where `_uncorrected` says why.

        A candidate that had not seen all of dev when the budget ended, or failed, could not be chosen; one that was cut
        could.
        """
        board = self._board
        tried = board.prefixes([i for i, trial in board.trials.items() if trial.n and trial.state in CHOOSABLE])
        if winner.id == self.context.baseline.id or not tried.get(winner.id) or self._uncorrected(winner):
            return None
        return selection_corrected(list(tried.values()), list(tried).index(winner.id), self.options.seed)

    def _uncorrected(self, winner: Candidate) -> str:
        """Why its dev score cannot be corrected; "" where it can."""
        board = self._board
        if winner.id != self.context.baseline.id and self.context.pruned_externally:
            return f"{self.options.strategy} dropped programs by parts of dev, and what that adds is not known"
        better = any((board.mean(i) or 0.0) > (board.mean(winner.id) or 0.0) for i in board.in_state("complete"))
        if better and self.context.noted[selection.NOT_PROVED]:
            return (
                "a prompt that picks its examples scored higher on dev, and is not shown there to be better than the "
                "best with fixed ones"
            )
        return "the best found was chosen by another rule than the best on dev" if better else ""

    def _retrieval(self, pair: Pair, sides: Mapping[str, Candidate]) -> Retrieval | None:
        """How passages were looked up on the sealed test; None for a task without documents."""
        task = self.task
        if task.knowledge is None:
            return None
        shown = {side: partial(self.program.documents, candidate) for side, candidate in sides.items()}
        return retrieval_figures(pair, task.knowledge, task.signature.outputs[0].name, shown)

    # -- bookkeeping --------------------------------------------------------------------------------------------------

    def _shown(self, candidate_id: str) -> Shown:
        """The best candidate so far, made for people once as long as it stays the same."""
        if self._leader is None or self._leader.id != candidate_id:
            self._leader = self.program.shown(self._board.candidate(candidate_id))
        return self._leader

    def _report(self) -> None:
        """Hands the watcher a snapshot."""
        top = self._board.leader(self.plan.rungs[-2:][0])
        best = (top.mean, *top.ci95) if top and top.mean is not None and top.ci95 else None
        gateway = self._gateway
        self._watcher.on_snapshot(
            Snapshot(
                self.context.stage_name,
                self.plan,
                self.account,
                len(self._board.trials),
                len(self._board.in_state("pruned")),
                best,
                gateway.retries.count,
                gateway.width(self.target),
                self.context.round,
                self._shown(top.candidate_id) if top else None,
                self.context.baseline.id,
                self._board.mean(self.context.baseline.id),
            )
        )
