"""The loop: the one file that knows the order of things.

    plan -> baseline (trial 0) -> rounds (pool, choose, race) -> finalists on the whole of dev -> sealed test -> release

Every step is a pure function of task, seed and replies; the ledger is written as it happens and never read to decide.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agent.errors import BudgetExhausted, InputError, ModelError, RunRefused
from agent.gateway.budget import Account
from agent.gateway.gateway import Gateway
from agent.gateway.prices import Price, price_of
from agent.ledger.store import Ledger, tool_version, utc_now
from agent.prompt.candidate import baseline, why_rejected
from agent.prompt.render import template
from agent.prompt.techniques import TECHNIQUES, Rewrite, builtin_rewrites
from agent.release.export import write_release
from agent.release.runtime import PromptRelease
from agent.scoring.evaluate import Evaluator, values
from agent.scoring.metrics import build_metrics
from agent.scoring.stats import PairedRace, mean_ci, minimum_detectable_gain, paired_difference, selection_corrected
from agent.search.plan import Effort, Plan, make_plan, survivors
from agent.search.pool import Entry, Parent, PoolMaker, first_children
from agent.search.propose import STYLES as PROPOSAL_STYLES
from agent.search.propose import Failure, Scored, failures_of, read_proposal, request_messages, why_refused
from agent.search.race import best_of, clearly_behind, ranked
from agent.search.study import Point, Seen, choose, shrunk
from agent.types import LM, Budget, Candidate, Outcome, Request, Task, Trial, TrialState, content_id

PARENTS = 4
PROPOSAL_TOKENS = 200
SIGNIFICANT = 0.05
UNSCORED_AT_MOST = 0.2  # of a trial's rows; more and the trial fails


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user chose for a run. `price` is given for models whose price nobody knows."""

    seed: int = 0
    budget: Budget = field(default_factory=Budget)
    effort: Effort = "standard"
    trials: int | None = None
    max_concurrency: int | None = None
    use_cache: bool = True
    price: Price | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    runs_folder: Path = Path("runs")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where a run stands, for whoever watches."""

    stage: str
    plan: Plan
    account: Account
    trials: int
    pruned: int
    best: tuple[float, float, float] | None
    note: str = ""


Watch = Callable[[Snapshot], None]


def new_run_id() -> str:
    """UTC second and four random letters: sorts by time, never collides."""
    return utc_now()[:19].replace("-", "").replace(":", "") + "-" + secrets.token_hex(3)


def prices_for(models: Sequence[LM], settings: Settings) -> dict[str, Price]:
    """A price for each model. Raises InputError when a cap in dollars meets a model whose price nobody knows."""
    prices = {}
    for model in models:
        price = settings.price or price_of(model.name)
        if price is not None:
            prices[model.name] = price
        elif settings.budget.max_cost is not None:
            raise InputError(
                f"{model.name}: nobody knows its price; give --price IN,OUT ($ per million tokens) or cap --max-calls"
            )
    return prices


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
    ) -> None:
        self.id = new_run_id()
        self.task, self.target, self.proposer = task, target, proposer
        self.ledger, self.settings = ledger, settings
        self.plan = make_plan(task, settings.budget, settings.effort, proposer is not None)
        self.account = Account(settings.budget)
        self._watch = watch
        self._rng = random.Random(f"{settings.seed}/{task.name}")
        self._dev = task.dev[: self.plan.dev_rows]
        self._test = task.test[: self.plan.test_rows]
        self._metrics = build_metrics(task)
        prices = prices_for([target, *([proposer] if proposer else [])], settings)
        self._gateway = Gateway(
            ledger, self.id, self.account, prices, settings.max_concurrency, settings.use_cache, self._tell
        )
        self._entries: dict[str, Entry] = {}
        self._outcomes: dict[str, list[Outcome]] = {}
        self._trials: dict[str, Trial] = {}
        self._refused: set[str] = set()
        self._baseline = baseline(task)
        self._round = 0
        self._stage = "baseline"
        self.noise = 0.0

    # -- the order of things ------------------------------------------------------------------------------------------

    async def execute(self) -> dict[str, Any]:
        self.ledger.begin_run(
            self.id,
            self.task,
            self.target.name,
            self.proposer.name if self.proposer else "",
            self.settings.seed,
            asdict(self.settings.budget),
            self.settings.tags,
        )
        status = "complete"
        try:
            self._evaluator = Evaluator(self.task, self._gateway, self.target, self._metrics, self._record)
            self.ledger.set_plan(self.id, self.plan.as_dict())
            try:
                await self._search()
            except BudgetExhausted as stop:
                status = "budget"
                self.ledger.event(self.id, "budget_exhausted", {"why": str(stop)})
            return await self._conclude(status)
        except (asyncio.CancelledError, KeyboardInterrupt):
            self._close_open_trials("the run was interrupted")
            self.ledger.end_run(self.id, "interrupted", {"calls": self.account.total_paid.calls})
            raise
        except Exception as error:
            self._close_open_trials(f"the run failed: {error}")
            self.ledger.end_run(self.id, "failed", {"error": f"{type(error).__name__}: {error}"})
            raise

    async def _search(self) -> None:
        await self._evaluate_baseline()
        rewrites = list(builtin_rewrites(self.task))
        pools = PoolMaker(self.task, self._rng)
        while self._room(self.plan.round_calls + self.plan.final_calls) and not self._enough_trials():
            self._round += 1
            self._stage = f"round {self._round}"
            parents = self._parents()
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
            before = set(self._entries)
            self._admit(entries)
            if not set(self._entries) - before:
                break
            await self._race_round([i for i in must if i in self._entries])
        await self._finish_finalists()

    async def _evaluate_baseline(self) -> None:
        place = {"layout": "zero-shot/turns", "instruction": "own", "demos": "none"}
        entry = Entry(self._baseline, Point(self._baseline.id, place), "baseline", None, "the user's own prompt")
        problem = why_rejected(self._baseline, self.task)
        if problem:
            raise InputError(f"{self.task.folder}/task.toml:1: the instruction cannot be the baseline: {problem}")
        self._add(entry, "")
        self._open(self._baseline.id)
        outcomes = await self._evaluator.outcomes(self._baseline, self._dev, "dev")
        self._outcomes[self._baseline.id] = outcomes
        self._settle(self._baseline.id, "complete", "the user's own prompt")
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
            if entry.candidate.id in self._entries or entry.candidate.id in self._refused:
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
            self._entries[candidate.id] = entry

    async def _race_round(self, must: Sequence[str]) -> None:
        known = {i: Seen(trial.mean, trial.n) for i, trial in self._trials.items() if trial.mean is not None}
        known |= {i: Seen(0.0, 0) for i in self._trials if i not in known}
        must = [i for i in must if i not in known][: self.plan.batch - 2]
        points = [entry.point for entry in self._entries.values() if entry.candidate.id not in must]
        seed = int(content_id("s", [self.settings.seed, self._round])[2:], 16)
        chosen = [*must, *choose(points, known, self.plan.batch - len(must), seed)]
        for candidate_id in chosen:
            self._open(candidate_id)
        field_ = chosen
        for rung, rows in enumerate(self.plan.rungs):
            field_ = await self._see(field_, rows)
            scores = self._vectors(field_)
            race = PairedRace(max(2, len(self._trials)))
            keep = survivors(len(chosen)) if rung == 0 else len(field_)
            verdict = best_of(scores, keep, race)
            for candidate_id, reason in verdict.pruned.items():
                self._settle(candidate_id, "pruned", reason)
            field_ = list(verdict.survivors)
            self._tell()
        for candidate_id in field_:
            self._settle(candidate_id, "pruned", f"not among the finalists after {self.plan.rungs[-1]} rows")

    async def _see(self, candidates: Sequence[str], rows: int) -> list[str]:
        """Takes candidates to `rows` rows of dev, in the common order; those that fail are closed and left out."""

        async def one(candidate_id: str) -> str | None:
            try:
                seen = await self._evaluator.outcomes(self._entries[candidate_id].candidate, self._dev[:rows], "dev")
            except RunRefused:
                raise
            except ModelError as error:
                self._settle(candidate_id, "failed", str(error))
                return None
            self._outcomes[candidate_id] = seen
            unscored = [outcome for outcome in seen if outcome.value is None]
            if len(unscored) > UNSCORED_AT_MOST * len(seen):
                why = next(iter(unscored[0].scores)).reason
                self._settle(candidate_id, "failed", f"{len(unscored)} of {len(seen)} rows unscored: {why}")
                return None
            self._settle(candidate_id, "incomplete", f"{rows} rows so far")
            return candidate_id

        jobs = [asyncio.ensure_future(one(candidate_id)) for candidate_id in candidates]
        try:
            return [found for found in await asyncio.gather(*jobs) if found is not None]
        except BaseException:
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)
            raise

    async def _finish_finalists(self) -> None:
        self._stage = "finalists"
        rung = self.plan.rungs[-1]
        # in the order of the trials, not of the replies: equal scores must rank alike in every run
        enough = [i for i, t in self._trials.items() if t.state != "failed" and len(self._outcomes.get(i, ())) >= rung]
        scores = self._vectors([i for i in enough if i != self._baseline.id], rung)
        finalists = ranked(scores)[: self.plan.finalists]
        race = PairedRace(max(2, len(self._trials)))
        for rows in sorted({min(self.plan.dev_rows, (rung + self.plan.dev_rows) // 2), self.plan.dev_rows}):
            finalists = await self._see(finalists, rows)
            verdict = clearly_behind(self._vectors(finalists), race)
            for candidate_id, reason in verdict.pruned.items():
                self._settle(candidate_id, "pruned", reason)
            finalists = list(verdict.survivors)
            self._tell()
        for candidate_id in finalists:
            self._settle(candidate_id, "complete", "saw the whole of dev")

    # -- proposals ----------------------------------------------------------------------------------------------------

    def _parents(self) -> list[Parent]:
        """The best candidates so far, by a mean drawn towards the middle when few rows were seen."""
        known = {i: Seen(t.mean, t.n) for i, t in self._trials.items() if t.mean is not None and t.state != "failed"}
        prior = sum(seen.mean for seen in known.values()) / len(known) if known else 0.0
        order = sorted(known, key=lambda i: -shrunk(known[i], prior))
        return [Parent(self._entries[i], tuple(self._outcomes[i])) for i in order[:PARENTS]]

    async def _proposals(self, parents: Sequence[Parent]) -> list[Rewrite]:
        """Instructions from the proposer, each checked. One that fails to answer costs the run nothing but the call."""
        if self.proposer is None:
            return []
        best: dict[str, float] = {}
        for candidate_id, trial in self._trials.items():
            if trial.mean is not None:
                text = self._entries[candidate_id].candidate.instruction
                best[text] = max(best.get(text, 0.0), trial.mean)
        history = [Scored(text, score) for text, score in sorted(best.items(), key=lambda item: item[1])][-5:]
        failures = failures_of(self.task, self._dev, parents[0].outcomes, 5) if parents else []
        requests = [self._proposal_request(number, history, failures) for number in range(self.plan.proposals)]
        replies = await asyncio.gather(*[self._ask_proposer(self.proposer, request) for request in requests])
        found = []
        for number, reply in enumerate(replies, 1):
            if reply is None:
                continue
            instruction = read_proposal(reply)
            refused = why_refused(instruction, self.task)
            kind = "proposal_refused" if refused else "proposal"
            self.ledger.event(self.id, kind, {"round": self._round, "why": refused, "instruction": instruction[:2000]})
            if not refused:
                found.append(Rewrite(f"proposed-{self._round}.{number}", instruction, self._style(number - 1)))
        return found

    def _style(self, number: int) -> str:
        return PROPOSAL_STYLES[(self._round * self.plan.proposals + number) % len(PROPOSAL_STYLES)]

    def _proposal_request(self, number: int, history: Sequence[Scored], failures: Sequence[Failure]) -> Request:
        messages = request_messages(self.task, history, failures, self._style(number), self._rng)
        seed = self.settings.seed * 1000 + self._round * 10 + number
        return Request(messages, PROPOSAL_TOKENS, temperature=0.7, seed=seed)

    async def _ask_proposer(self, proposer: LM, request: Request) -> str | None:
        try:
            return (await self._gateway.complete("proposer", proposer, request)).text
        except (BudgetExhausted, RunRefused):
            raise
        except ModelError as error:
            self.ledger.event(self.id, "proposal_failed", {"round": self._round, "error": str(error)})
            return None

    async def _rationales(self) -> dict[str, str]:
        """Worked solutions of the target on train rows; only those that end in the right answer are kept."""
        tried = [
            i for i, e in self._entries.items() if e.candidate.technique == "chain-of-thought" and i in self._trials
        ]
        if "few-shot-cot" not in self.task.space.techniques or not tried:
            return {}
        best = max(tried, key=lambda i: self._trials[i].mean or 0.0)
        if not self._trials[best].mean:
            return {}
        rows = self.task.train[: 3 * max(self.task.space.demo_counts, default=0)]
        room = self.plan.calls - self.plan.test_calls - self.plan.final_calls - self.account.total_used.calls
        outcomes = await self._evaluator.outcomes(self._entries[best].candidate, rows[: max(0, room // 4)], "train")
        return {o.example_id: _rationale(o.prediction.raw) for o in outcomes if (o.value or 0.0) >= 1.0}

    # -- the end ------------------------------------------------------------------------------------------------------

    async def _conclude(self, status: str) -> dict[str, Any]:
        """Opens the sealed test once, for baseline and winner, and writes the result down."""
        self._close_open_trials("the budget ended first")
        winner = self._winner()
        self._stage = "sealed test"
        self._tell()
        self.ledger.event(
            self.id, "test_opened", {"winner": winner.id, "baseline": self._baseline.id, "rows": len(self._test)}
        )
        try:
            base = await self._evaluator.outcomes(self._baseline, self._test, "test")
            best = (
                base if winner.id == self._baseline.id else await self._evaluator.outcomes(winner, self._test, "test")
            )
        except BudgetExhausted as stop:
            raise BudgetExhausted(f"{stop} The sealed test was not finished, so nothing is promoted.") from stop
        pairs = [
            (w.value, b.value) for w, b in zip(best, base, strict=True) if w.value is not None and b.value is not None
        ]
        lift = paired_difference([w for w, _ in pairs], [b for _, b in pairs], self.settings.seed)
        promote = winner.id != self._baseline.id and lift.p_value < SIGNIFICANT and lift.diff > 0
        result = self._result(status, winner, [w for w, _ in pairs], [b for _, b in pairs], lift, promote)
        ended = {key: result[key] for key in ("status", "decision", "lift", "winner", "calls")}
        result["ledger_head"] = self.ledger.end_run(self.id, status, ended)
        return result

    def _winner(self) -> Candidate:
        """The best of those that saw the whole of dev; equal scores go to the one with fewer demos."""
        complete = [i for i, trial in self._trials.items() if trial.state == "complete"]
        if not complete:
            return self._baseline
        best = max(
            complete,
            key=lambda i: (self._trials[i].mean or 0.0, i == self._baseline.id, -len(self._entries[i].candidate.demos)),
        )
        return self._entries[best].candidate

    def _result(
        self, status: str, winner: Candidate, won: list[float], based: list[float], lift: Any, promote: bool
    ) -> dict[str, Any]:
        complete = [i for i, trial in self._trials.items() if trial.state == "complete"]
        states = [trial.state for trial in self._trials.values()]
        corrected: float | None = None
        if complete:
            table = list(self._vectors(complete).values())
            if table[0] and winner.id in complete:
                corrected = selection_corrected(table, complete.index(winner.id), self.settings.seed)
        base_trial, win_trial = self._trials.get(self._baseline.id), self._trials.get(winner.id)
        paid, usage = self.account.paid, self.account.usage
        return {
            "run_id": self.id,
            "task": self.task.name,
            "status": status,
            "model": self.target.name,
            "seed": self.settings.seed,
            "baseline": {"dev": base_trial and base_trial.mean, "test": _mean(based)},
            "winner": {
                "candidate_id": winner.id,
                "technique": winner.technique,
                "format": winner.format,
                "n_demos": len(winner.demos),
                "instruction": winner.instruction,
                "dev": win_trial and win_trial.mean,
                "dev_corrected": corrected,
                "test": _mean(won),
                "prompt_tokens": self._prompt_tokens(winner),
            },
            "lift": {
                "diff": lift.diff,
                "ci95": list(lift.ci95),
                "p_value": lift.p_value,
                "wins": lift.wins,
                "losses": lift.losses,
                "ties": lift.ties,
                "n": lift.n,
            },
            "decision": "promote" if promote else "keep_baseline",
            "trials": {state: states.count(state) for state in ("complete", "pruned", "failed")},
            "calls": {
                **{role: paid[role].calls if role in paid else 0 for role in ("target", "proposer", "judge")},
                "cached": self.account.cached,
            },
            "tokens": {
                "prompt": usage.prompt_tokens,
                "cached_prompt": usage.cached_prompt_tokens,
                "completion": usage.completion_tokens,
            },
            "cost_usd": self.account.total_paid.usd,
            "seconds": round(self.account.seconds, 1),
            "release": None,
            "ledger_head": "",
        }

    def release(self, result: Mapping[str, Any]) -> PromptRelease:
        """What goes to production: the winner when it is promoted, else the user's own prompt, with its provenance."""
        promoted = result["decision"] == "promote"
        candidate = self._entries[result["winner"]["candidate_id"]].candidate if promoted else self._baseline
        return PromptRelease(
            name=self.task.name,
            messages=template(candidate, self.task.signature),
            inputs=tuple(field.name for field in self.task.signature.inputs),
            outputs=self.task.signature.outputs,
            format=candidate.format,
            reasoning=TECHNIQUES[candidate.technique].reasoning,
            model=self.target.name,
            parameters={"max_tokens": self._evaluator.max_tokens(candidate), "temperature": 0.0},
            provenance={
                "run_id": self.id,
                "trial": self._trials[candidate.id].number,
                "candidate_id": candidate.id,
                "decision": result["decision"],
                "test": (result["winner"] if promoted else result["baseline"])["test"],
                "baseline_test": result["baseline"]["test"],
                "lift": result["lift"],
                "hashes": dict(self.task.hashes),
                "tool": tool_version(),
                "created_utc": utc_now(),
                "ledger_head": result["ledger_head"],
            },
        )

    # -- bookkeeping --------------------------------------------------------------------------------------------------

    def _room(self, calls: int) -> bool:
        """Whether `calls` more fit before what the sealed test needs. Counts cached calls as if they were paid."""
        if self.account.out_of_time():
            raise BudgetExhausted("the time limit is reached")
        used = self.account.total_used
        left = self.plan.calls - self.plan.test_calls - used.calls
        share = 1 - 1.5 * self.plan.test_calls / self.plan.calls
        budget = self.settings.budget
        per_call = used.tokens / max(1, used.calls)
        fits_tokens = budget.max_tokens is None or used.tokens + calls * per_call <= budget.max_tokens * share
        per_usd = used.usd / max(1, used.calls)
        fits_usd = budget.max_cost is None or used.usd + calls * per_usd <= budget.max_cost * share
        return calls <= left and fits_tokens and fits_usd

    def _enough_trials(self) -> bool:
        return self.settings.trials is not None and len(self._trials) >= self.settings.trials

    def _open(self, candidate_id: str) -> None:
        trial = Trial(len(self._trials), self._round, candidate_id, "incomplete", 0, None)
        self._trials[candidate_id] = trial
        self.ledger.put_trial(self.id, trial)

    def _settle(self, candidate_id: str, state: TrialState, reason: str) -> None:
        old = self._trials[candidate_id]
        scored = values(self._outcomes.get(candidate_id, []))
        mean, low, high = mean_ci(scored) if scored else (None, None, None)
        ci95 = None if low is None or high is None else (low, high)
        trial = Trial(old.number, old.round, candidate_id, state, len(scored), mean, ci95, reason)
        self._trials[candidate_id] = trial
        self.ledger.put_trial(self.id, trial)
        self._tell()

    def _vectors(self, candidates: Sequence[str], rows: int | None = None) -> dict[str, list[float]]:
        """Score vectors over the rows (of the first `rows`) that every one of the candidates has a score for."""
        table = {i: [outcome.value for outcome in self._outcomes[i][:rows]] for i in candidates}
        length = min((len(row) for row in table.values()), default=0)
        shared = [n for n in range(length) if all(row[n] is not None for row in table.values())]
        return {i: [value for n in shared if (value := row[n]) is not None] for i, row in table.items()}

    def _close_open_trials(self, reason: str) -> None:
        for candidate_id, trial in self._trials.items():
            if trial.state == "incomplete":
                self._settle(candidate_id, "incomplete", reason)

    def _record(self, split: Any, outcomes: list[Outcome]) -> None:
        self.ledger.put_outcomes(self.id, split, outcomes)

    def _prompt_tokens(self, candidate: Candidate) -> int:
        """Tokens of the prompt without the row's own text and the chat template."""
        return sum(self.target.count_tokens(m.content) for m in template(candidate, self.task.signature))

    def _tell(self, note: str = "") -> None:
        finished = [
            t for t in self._trials.values() if t.mean is not None and t.ci95 is not None and t.n >= self.plan.rungs[-1]
        ]
        top = max(finished, key=lambda t: t.mean or 0.0, default=None)
        best = (top.mean, *top.ci95) if top and top.mean is not None and top.ci95 else None
        pruned = sum(trial.state == "pruned" for trial in self._trials.values())
        self._watch(Snapshot(self._stage, self.plan, self.account, len(self._trials), pruned, best, note))

    def detectable(self) -> float:
        """The smallest gain over the baseline that the test rows can show with 80 % power, in score."""
        trial = self._trials.get(self._baseline.id)
        return minimum_detectable_gain(self.plan.test_rows, trial.mean if trial and trial.mean is not None else 0.5)


async def optimize(
    task: Task,
    target: LM,
    proposer: LM | None,
    ledger: Ledger,
    settings: Settings,
    watch: Watch = lambda snapshot: None,
) -> dict[str, Any]:
    """Runs the loop and writes the release into `settings.runs_folder`/<run id>. Returns the result object."""
    run = Run(task, target, proposer, ledger, settings, watch)
    result = await run.execute()
    path = write_release(run.release(result), settings.runs_folder / run.id)
    result["release"] = str(path)
    ledger.put_result(run.id, result)
    return result


def _mean(scores: Sequence[float]) -> float | None:
    return sum(scores) / len(scores) if scores else None


def _rationale(reply: str) -> str:
    """A worked solution without its last "Answer:" line."""
    lines = reply.strip().splitlines()
    for number in range(len(lines) - 1, -1, -1):
        if lines[number].strip().strip("*").casefold().startswith("answer"):
            return "\n".join(lines[:number]).strip()
    return "\n".join(lines[:-1]).strip()
