"""The loop: the one file that knows the order of things.

    plan -> baseline (trial 0) -> rounds (pool, choose, race) -> finalists on the whole of dev -> sealed test -> release

Every step is a pure function of task, seed and replies; the ledger is written as it happens and never read to decide.
That is what makes a run resumable: it walks the same way again, and each call that was settled answers from the ledger.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agent.errors import AgentError, BudgetExhausted, InputError, Interrupted, LedgerError, ModelError, RunRefused
from agent.gateway.budget import Account, Kept
from agent.gateway.gateway import MAX_WAIT, Gateway
from agent.gateway.prices import Price, price_of, prices_version
from agent.ledger.origin import command_line, origin, tool_version, utc_now
from agent.ledger.past import Past
from agent.ledger.store import Ledger
from agent.prompt.candidate import baseline, why_rejected
from agent.prompt.render import template
from agent.prompt.techniques import Rewrite, builtin_rewrites
from agent.release.export import write_release
from agent.release.result import Opening, release_of, result_object
from agent.scoring.evaluate import Evaluator, all_or_stop
from agent.scoring.metrics import build_metrics
from agent.scoring.stats import PairedRace, selection_corrected
from agent.search.board import Board
from agent.search.plan import Effort, Plan, make_plan, survivors
from agent.search.pool import Entry, Parent, PoolMaker, first_children
from agent.search.propose import STYLES as PROPOSAL_STYLES
from agent.search.propose import Failure, Scored, failures_of, read_proposal, request_messages, why_refused
from agent.search.race import best_of, clearly_behind, ranked
from agent.search.study import Point, choose
from agent.types import LM, Budget, Candidate, Outcome, Request, SplitName, Task, content_id

PARENTS = 4
PROPOSAL_TOKENS = 200
UNSCORED_AT_MOST = 0.2  # of a trial's rows; more and the trial fails
BASELINE_UNSCORED_AT_MOST = 0.5  # more and there is nothing to compare with


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user chose for a run. `price` is given for models whose price nobody knows; `max_wait` is in seconds;
    `options` are the command line's words, from which the run can be resumed; `parent` the run that this one forks.
    """

    seed: int = 0
    budget: Budget = field(default_factory=Budget)
    effort: Effort = "standard"
    trials: int | None = None
    max_concurrency: int | None = None
    use_cache: bool = True
    price: Price | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    runs_folder: Path = Path("runs")
    max_wait: float = MAX_WAIT
    parent: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where a run stands, for whoever watches."""

    stage: str
    plan: Plan
    account: Account
    trials: int
    pruned: int
    best: tuple[float, float, float] | None
    retries: int = 0
    width: int = 0


Watch = Callable[[Snapshot], None]


def new_run_id() -> str:
    """UTC second and four random letters: sorts by time, never collides."""
    return utc_now()[:19].replace("-", "").replace(":", "") + "-" + secrets.token_hex(3)


def prices_for(models: Sequence[LM], settings: Settings) -> dict[str, Price]:
    """A price for each model. Raises InputError for one that nobody knows, unless calls and not dollars are capped."""
    prices = {}
    for model in models:
        price = settings.price or price_of(model.name)
        if price is not None:
            prices[model.name] = price
        elif settings.budget.max_cost is not None or settings.budget.max_calls is None:
            raise InputError(
                f"{model.name}: nobody knows its price; give --price IN,OUT ($ per million tokens), put it into "
                "prices.toml, or cap --max-calls instead of dollars"
            )
    return prices


@dataclass(frozen=True, slots=True)
class Resumed:
    """A run to go on with: its id, and the plan that it was made with."""

    run_id: str
    plan: Plan


class Run:
    """One optimization. `execute` returns the result object of the command line's --json."""

    def __init__(
        self,
        task: Task,
        target: LM,
        proposer: LM | None,
        ledger: Ledger,
        settings: Settings,
        watch: Watch = lambda s: None,
        resumed: Resumed | None = None,
    ) -> None:
        self.id = resumed.run_id if resumed else new_run_id()
        self.task, self.target, self.proposer = task, target, proposer
        self.ledger, self.settings = ledger, settings
        self.plan = resumed.plan if resumed else make_plan(task, settings.budget, settings.effort, proposer is not None)
        self.account = Account(settings.budget)
        self._prices = prices_for([target, *([proposer] if proposer else [])], settings)
        self._resumes = resumed is not None
        self._watch = watch
        self._rng = random.Random(f"{settings.seed}/{task.name}")
        self._dev = task.dev[: self.plan.dev_rows]
        self._test = task.test[: self.plan.test_rows]
        self._board = Board(lambda trial: self.ledger.put_trial(self.id, trial))
        self._refused: set[str] = set()
        self._baseline = baseline(task)
        self._round = 0
        self._stage = "baseline"
        self._gateway: Gateway | None = None
        self._evaluator: Evaluator
        self.noise = 0.0

    # -- the order of things ------------------------------------------------------------------------------------------

    async def execute(self) -> dict[str, Any]:
        """Raises Interrupted after `interrupt`, and whatever ended the run; it can then be resumed."""
        past = self._begin()
        self._gateway = gateway = Gateway(
            self.ledger,
            self.id,
            self.account,
            self._prices,
            self.settings.max_concurrency,
            self.settings.use_cache,
            self._tell,
            past=past,
            max_wait=self.settings.max_wait,
        )
        try:
            metrics = build_metrics(self.task)
            self._evaluator = Evaluator(self.task, gateway, self.target, metrics, self._record)
            self.account.keep(Kept(self.plan.test_calls, self._test_share))
            status = "complete"
            try:
                await self._search()
            except BudgetExhausted as stop:
                status = "budget"
                await gateway.drain()
                self.ledger.event(self.id, "budget_exhausted", {"why": str(stop)})
            result = await self._conclude(status)
            self.ledger.end_run(self.id, status, self.account.seconds, result)
            await self.ledger.commit()
            return result
        except (Interrupted, asyncio.CancelledError, KeyboardInterrupt) as stop:
            await self._leave("interrupted", stop)
            raise Interrupted from stop
        except Exception as error:
            await self._leave("failed", error)
            raise

    def interrupt(self) -> int:
        """Lets no more calls out; `execute` ends when those in flight have landed. Returns how many these are."""
        if self._gateway is None:
            return 0
        self._gateway.stop(Interrupted())
        return self._gateway.in_flight()

    def _begin(self) -> Past | None:
        budget = asdict(self.settings.budget)
        if self._resumes:
            past = self.ledger.resume_run(self.id, budget)
            self.account = Account(self.settings.budget, past.paid, past.seconds)
            return past
        self.ledger.begin_run(
            self.id,
            self.task,
            self.target.name,
            self.proposer.name if self.proposer else "",
            self.settings.seed,
            budget,
            self.settings.tags,
            parent=self.settings.parent,
            origin=origin(Path(self.task.folder), command_line()),
            options=self.settings.options,
            prices=prices_version(),
        )
        self.ledger.set_plan(self.id, asdict(self.plan))
        return None

    async def _leave(self, status: str, why: BaseException) -> None:
        """Ends a run that did not finish: what is in flight lands first, so that it need not be bought again."""
        assert self._gateway is not None
        self._gateway.stop(why if isinstance(why, Exception) else Interrupted())
        await self._gateway.drain()
        try:
            words = str(why) if isinstance(why, AgentError) else f"{type(why).__name__}: {why}"
            self.ledger.event(self.id, "stopped", {"why": words, "calls": self.account.total_paid.calls})
            self.ledger.end_run(self.id, status, self.account.seconds)
            await self.ledger.commit()
        except LedgerError:
            pass  # the disk is why it ends; the next opening of the ledger notes that the run was cut off

    async def _search(self) -> None:
        await self._evaluate_baseline()
        rewrites = list(builtin_rewrites(self.task))
        pools = PoolMaker(self.task, self._rng)
        while self._room(self.plan.round_calls + self.plan.final_calls) and not self._enough_trials():
            self._round += 1
            self._stage = f"round {self._round}"
            parents = self._board.parents(PARENTS)
            entries: list[Entry] = []
            must: list[str] = []
            if self._round == 1:
                entries += pools.designs(rewrites)
                must = [entry.candidate.id for entry in entries]
                entries += pools.fresh(rewrites, per_count=4)
            else:
                proposals = await self._proposals(parents)
                rewrites += proposals
                if not pools.rationales:
                    pools.rationales.update(await self._rationales())
                    entries += pools.reasoned()
                entries += pools.instructed(proposals, parents[:1])
                entries += pools.children(parents, rewrites)
                must = first_children(entries, parents)
                entries += pools.fresh(rewrites, per_count=1, parents=parents)
            before = set(self._board.entries)
            self._admit(entries)
            if not set(self._board.entries) - before:
                break
            await self._race_round([i for i in must if i in self._board.entries])
        await self._finish_finalists()

    async def _evaluate_baseline(self) -> None:
        place = {"layout": "zero-shot/turns", "instruction": "own", "demos": "none"}
        entry = Entry(self._baseline, Point(self._baseline.id, place), "baseline", None, "the user's own prompt")
        problem = why_rejected(self._baseline, self.task)
        if problem:
            raise InputError(f"{self.task.folder}/task.toml:1: the instruction cannot be the baseline: {problem}")
        self._add(entry, "")
        self._board.open(self._baseline.id, self._round)
        outcomes = await self._evaluator.outcomes(self._baseline, self._dev, "dev")
        unscored = [outcome for outcome in outcomes if outcome.value is None]
        if len(unscored) > BASELINE_UNSCORED_AT_MOST * len(outcomes):
            why = unscored[0].scores[0].reason
            raise RunRefused(f"your own prompt got no score on {len(unscored)} of {len(outcomes)} rows: {why}")
        self._board.outcomes[self._baseline.id] = outcomes
        self._board.settle(self._baseline.id, "complete", "the user's own prompt")
        if self.plan.noise_rows:
            again = await self._evaluator.outcomes(self._baseline, self._dev[: self.plan.noise_rows], "dev", repeat=1)
            flips = sum(one.value != two.value for one, two in zip(outcomes, again, strict=False))
            self.noise = flips / self.plan.noise_rows
            self.ledger.event(self.id, "noise_floor", {"rows": len(again), "flips": flips})

    # -- a round ------------------------------------------------------------------------------------------------------

    def _admit(self, entries: Sequence[Entry]) -> None:
        """Takes candidates into the pool; those that break a hard rule are logged with the reason, never repaired."""
        limit = self.task.constraints.max_prompt_tokens
        for entry in entries:
            if entry.candidate.id in self._board.entries or entry.candidate.id in self._refused:
                continue
            rejected = why_rejected(entry.candidate, self.task)
            if not rejected and limit is not None and (size := self._prompt_tokens(entry.candidate)) > limit:
                rejected = f"{size} prompt tokens, more than max_prompt_tokens = {limit}"
            self._add(entry, rejected)

    def _add(self, entry: Entry, rejected: str) -> None:
        candidate = entry.candidate
        laid_out = () if rejected else template(candidate, self.task.signature)
        self.ledger.add_candidate(
            self.id, self._round, candidate, laid_out, entry.operator, entry.parent_id, entry.reason, rejected
        )
        if rejected:
            self._refused.add(candidate.id)
        else:
            self._board.entries[candidate.id] = entry

    async def _race_round(self, must: Sequence[str]) -> None:
        known = self._board.seen()
        must = [i for i in dict.fromkeys(must) if i not in known][: self.plan.batch - 2]
        points = [entry.point for entry in self._board.entries.values() if entry.candidate.id not in must]
        seed = int(content_id("s", [self.settings.seed, self._round])[2:], 16)
        chosen = [*must, *choose(points, known, self.plan.batch - len(must), seed)]
        for candidate_id in chosen:
            self._board.open(candidate_id, self._round)
        field_ = chosen
        for rung, rows in enumerate(self.plan.rungs):
            field_ = await self._see(field_, rows)
            scores = self._board.vectors(field_)
            race = PairedRace(max(2, len(self._board.trials)))
            keep = survivors(len(chosen)) if rung == 0 else len(field_)
            verdict = best_of(scores, keep, race)
            for candidate_id, reason in verdict.pruned.items():
                self._board.settle(candidate_id, "pruned", reason)
            field_ = list(verdict.survivors)
            self._tell()
        for candidate_id in field_:
            self._board.settle(candidate_id, "pruned", f"not among the finalists after {self.plan.rungs[-1]} rows")

    async def _see(self, candidates: Sequence[str], rows: int) -> list[str]:
        """Takes candidates to `rows` rows of dev, in the common order; those that fail are closed and left out."""

        async def one(candidate_id: str) -> str | BudgetExhausted | None:
            try:
                seen = await self._evaluator.outcomes(self._board.candidate(candidate_id), self._dev[:rows], "dev")
            except BudgetExhausted as stop:
                return stop  # those that still fit are finished, so that the end does not depend on who came first
            except RunRefused:
                raise
            except ModelError as error:
                self._board.settle(candidate_id, "failed", str(error))
                return None
            self._board.outcomes[candidate_id] = seen
            unscored = [outcome for outcome in seen if outcome.value is None]
            if len(unscored) > UNSCORED_AT_MOST * len(seen):
                why = next(iter(unscored[0].scores)).reason
                self._board.settle(candidate_id, "failed", f"{len(unscored)} of {len(seen)} rows unscored: {why}")
                return None
            self._board.settle(candidate_id, "incomplete", f"{rows} rows so far")
            return candidate_id

        jobs = [asyncio.ensure_future(one(candidate_id)) for candidate_id in candidates]
        try:
            return [found for found in all_or_stop(await asyncio.gather(*jobs)) if found is not None]
        except BaseException:
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)
            raise

    async def _finish_finalists(self) -> None:
        self._stage = "finalists"
        rung = self.plan.rungs[-1]
        # in the order of the trials, not of the replies: equal scores must rank alike in every run
        enough = [
            i
            for i, t in self._board.trials.items()
            if t.state != "failed" and len(self._board.outcomes.get(i, ())) >= rung
        ]
        scores = self._board.vectors([i for i in enough if i != self._baseline.id], rung)
        finalists = ranked(scores)[: self.plan.finalists]
        race = PairedRace(max(2, len(self._board.trials)))
        for rows in sorted({min(self.plan.dev_rows, (rung + self.plan.dev_rows) // 2), self.plan.dev_rows}):
            finalists = await self._see(finalists, rows)
            verdict = clearly_behind(self._board.vectors(finalists), race)
            for candidate_id, reason in verdict.pruned.items():
                self._board.settle(candidate_id, "pruned", reason)
            finalists = list(verdict.survivors)
            self._tell()
        for candidate_id in finalists:
            self._board.settle(candidate_id, "complete", "saw the whole of dev")

    # -- proposals ----------------------------------------------------------------------------------------------------

    async def _proposals(self, parents: Sequence[Parent]) -> list[Rewrite]:
        """Instructions from the proposer, each checked. One that fails to answer costs the run nothing but the call."""
        if self.proposer is None:
            return []
        history = [Scored(text, score) for text, score in self._board.best_instructions()][-5:]
        failures = failures_of(self.task, self._dev, parents[0].outcomes, 5) if parents else []
        requests = [self._proposal_request(number, history, failures) for number in range(self.plan.proposals)]
        asked = await asyncio.gather(*[self._ask_proposer(self.proposer, request) for request in requests])
        replies = all_or_stop(asked)
        found = []
        for number, reply in enumerate(replies, 1):
            if reply is None:
                continue
            instruction = read_proposal(reply)
            refused = why_refused(instruction, self.task)
            kind = "proposal_refused" if refused else "proposal"
            self.ledger.event(self.id, kind, {"round": self._round, "why": refused}, {"instruction": instruction})
            if not refused:
                found.append(Rewrite(f"proposed-{self._round}.{number}", instruction, self._style(number - 1)))
        return found

    def _style(self, number: int) -> str:
        return PROPOSAL_STYLES[(self._round * self.plan.proposals + number) % len(PROPOSAL_STYLES)]

    def _proposal_request(self, number: int, history: Sequence[Scored], failures: Sequence[Failure]) -> Request:
        messages = request_messages(self.task, history, failures, self._style(number), self._rng)
        seed = self.settings.seed * 1000 + self._round * 10 + number
        return Request(messages, PROPOSAL_TOKENS, temperature=0.7, seed=seed)

    async def _ask_proposer(self, proposer: LM, request: Request) -> str | BudgetExhausted | None:
        try:
            assert self._gateway is not None
            return (await self._gateway.complete("proposer", proposer, request)).text
        except BudgetExhausted as stop:
            return stop
        except RunRefused:
            raise
        except ModelError as error:
            self.ledger.event(self.id, "proposal_failed", {"round": self._round, "error": str(error)})
            return None

    async def _rationales(self) -> dict[str, str]:
        """Worked solutions of the target on train rows; only those that end in the right answer are kept."""
        tried = [
            i
            for i, e in self._board.entries.items()
            if e.candidate.technique == "chain-of-thought" and i in self._board.trials
        ]
        if "few-shot-cot" not in self.task.space.techniques or not tried:
            return {}
        best = max(tried, key=lambda i: self._board.trials[i].mean or 0.0)
        if not self._board.trials[best].mean:
            return {}
        rows = self.task.train[: 3 * max(self.task.space.demo_counts, default=0)]
        room = self.plan.calls - self.plan.test_calls - self.plan.final_calls - self.account.total_used.calls
        outcomes = await self._evaluator.outcomes(
            self._board.entries[best].candidate, rows[: max(0, room // 4)], "train"
        )
        return {o.example_id: _rationale(o.prediction.raw) for o in outcomes if (o.value or 0.0) >= 1.0}

    # -- the end ------------------------------------------------------------------------------------------------------

    async def _conclude(self, status: str) -> dict[str, Any]:
        """Opens the sealed test once, for baseline and winner, and writes the release."""
        board = self._board
        board.close_open("the budget ended first")
        winner = board.winner(self._baseline)
        self._stage = "sealed test"
        self._tell()
        self.account.keep(Kept())
        opened = {"winner": winner.id, "baseline": self._baseline.id, "rows": len(self._test)}
        self.ledger.event(self.id, "test_opened", opened)
        try:
            base = await self._evaluator.outcomes(self._baseline, self._test, "test")
            won = base if winner.id == self._baseline.id else await self._evaluator.outcomes(winner, self._test, "test")
        except BudgetExhausted as stop:
            raise BudgetExhausted(f"{stop}. The sealed test was not finished, so nothing is promoted") from stop
        result = result_object(
            Opening(winner, self._baseline, won, base),
            run_id=self.id,
            task=self.task,
            status=status,
            model=self.target.name,
            seed=self.settings.seed,
            dev=(board.mean(self._baseline.id), board.mean(winner.id), self._corrected(winner)),
            prompt_tokens=self._prompt_tokens(winner),
            states=[trial.state for trial in board.trials.values()],
            account=self.account,
            ledger_head=self.ledger.head(),
        )
        released = winner if result["decision"] == "promote" else self._baseline
        release = release_of(
            result,
            released,
            self.task,
            board.trials[released.id].number,
            self._evaluator.max_tokens(released),
            {"tool": tool_version(), "created_utc": utc_now()},
        )
        result["release"] = str(write_release(release, self.settings.runs_folder / self.id))
        self.ledger.event(self.id, "released", {"version": release.version, "candidate_id": released.id})
        return result

    def _corrected(self, winner: Candidate) -> float | None:
        """The winner's dev score without what choosing the best of several adds to it."""
        complete = self._board.in_state("complete")
        table = list(self._board.vectors(complete).values())
        if winner.id not in complete or not table[0]:
            return None
        return selection_corrected(table, complete.index(winner.id), self.settings.seed)

    # -- bookkeeping --------------------------------------------------------------------------------------------------

    def _room(self, calls: int) -> bool:
        """Whether `calls` more fit before what the sealed test needs. Counts cached calls as if they were paid."""
        used = self.account.total_used
        left = self.plan.calls - self.plan.test_calls - used.calls
        share = 1 - self._test_share
        budget = self.settings.budget
        per_call = used.tokens / max(1, used.calls)
        fits_tokens = budget.max_tokens is None or used.tokens + calls * per_call <= budget.max_tokens * share
        per_usd = used.usd / max(1, used.calls)
        fits_usd = budget.max_cost is None or used.usd + calls * per_usd <= budget.max_cost * share
        return calls <= left and fits_tokens and fits_usd

    @property
    def _test_share(self) -> float:
        """The part of tokens, dollars and time that the sealed test may need: its share of the calls, and half more."""
        return min(0.9, 1.5 * self.plan.test_calls / self.plan.calls)

    def _enough_trials(self) -> bool:
        return self.settings.trials is not None and len(self._board.trials) >= self.settings.trials

    def _record(self, split: SplitName, outcome: Outcome) -> None:
        self.ledger.put_outcome(self.id, split, outcome)

    def _prompt_tokens(self, candidate: Candidate) -> int:
        """Tokens of the prompt without the row's own text and the chat template."""
        return sum(self.target.count_tokens(m.content) for m in template(candidate, self.task.signature))

    def _tell(self) -> None:
        top = self._board.leader(self.plan.rungs[-1])
        best = (top.mean, *top.ci95) if top and top.mean is not None and top.ci95 else None
        gateway = self._gateway
        self._watch(
            Snapshot(
                self._stage,
                self.plan,
                self.account,
                len(self._board.trials),
                len(self._board.in_state("pruned")),
                best,
                gateway.retries.count if gateway else 0,
                gateway.width(self.target) if gateway else 0,
            )
        )


def _rationale(reply: str) -> str:
    """A worked solution without its last "Answer:" line."""
    lines = reply.strip().splitlines()
    for number in range(len(lines) - 1, -1, -1):
        if lines[number].strip().strip("*").casefold().startswith("answer"):
            return "\n".join(lines[:number]).strip()
    return "\n".join(lines[:-1]).strip()
