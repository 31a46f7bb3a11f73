"""The calls of the playground of `optimize ui`: a run for each prompt and input, under caps over all."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.errors import BudgetExhausted, InputError, Interrupted
from agent.gateway.budget import Account
from agent.gateway.gateway import most_tokens_in
from agent.gateway.prices import dearest_call, prices_for
from agent.jobs.interrupts import StopSignal
from agent.jobs.models import earlier_prices, price_of
from agent.jobs.observers import Watcher
from agent.jobs.released import AskedRelease, embedding_of, models_of, require_named, rows_task, run_options
from agent.jobs.session import Session, run_work
from agent.jobs.work import Work
from agent.models.hosted import estimate_tokens
from agent.options.shared import CapOptions, SpendingOptions
from agent.prompt.parts.adapter import named_models
from agent.release.completion import request_of
from agent.release.runtime import Prompt
from agent.report.web.page_request import PLAYGROUND, Quote
from agent.results.rows import PlayedAnswer, PlayedResult
from agent.types import Budget, Example, Outcome, Spend

MAX_WAIT = "30s"
"""The longest wait for an unavailable provider; a person is watching."""
PATIENCE = 20.0
"""Seconds that a question waits for the one before."""


class Playground:
    """Asks models for the web view, one question at a time (`Asker`).

    `caps` hold for all calls and dollars; raises InputError without one.
    """

    def __init__(self, db: Path, caps: CapOptions) -> None:
        if caps.max_calls is None and caps.max_cost is None:
            raise InputError("--allow-calls: give a cap with it, --max-calls N, --max-cost DOLLARS or both")
        self._db, self.caps = db, Budget(caps.max_calls, max_cost=caps.max_cost)
        self._options, self._given = SpendingOptions(price=caps.price, max_wait=MAX_WAIT), price_of(caps)
        self._spent = Spend()
        self._known: dict[tuple[str, str], Mapping[str, Any]] = {}
        self._asking = threading.Lock()
        self._stop: StopSignal | None = None
        self._is_stopped = False

    @property
    def left(self) -> Budget:
        """What is left of the caps."""
        calls, usd = self.caps.max_calls, self.caps.max_cost
        return Budget(
            None if calls is None else max(0, calls - self._spent.calls),
            max_cost=None if usd is None else max(0.0, usd - self._spent.usd),
        )

    def quote(self, prompts: Mapping[str, Prompt], fields: Mapping[str, str]) -> Quote:
        """Return the most that a question costs, or why it cannot be asked now.

        It is what the gateway would reserve.
        """
        usd: float | None = 0.0
        try:
            for prompt in prompts.values():
                cost = self._most(prompt, fields)
                usd = None if usd is None or cost is None else usd + cost
        except InputError as error:
            return Quote(len(prompts), None, str(error))
        left = self.left
        if left.max_calls is not None and left.max_calls < len(prompts):
            problem = f"the cap is used up: {left.max_calls} of {self.caps.max_calls} calls are left"
        elif left.max_cost is not None and usd is not None and usd > left.max_cost + 1e-12:
            problem = f"the cap is used up: ${left.max_cost:.4f} of ${self.caps.max_cost:g} is left"
        else:
            return Quote(len(prompts), usd)
        return Quote(len(prompts), usd, f"{problem}; start the web view with a larger one")

    def _most(self, prompt: Prompt, fields: Mapping[str, str]) -> float | None:
        request = request_of(prompt.release, prompt.release.row(fields, vector=prompt.release.some_vector()))
        price = prices_for([prompt.model], self.caps, self._given, self._earlier(prompt)).get(prompt.model)
        tokens = most_tokens_in(estimate_tokens, request)
        return None if price is None else dearest_call(price, tokens, request.max_tokens)

    def _earlier(self, prompt: Prompt) -> Mapping[str, Any]:
        key = (str(prompt.provenance.get("run_id", "")), prompt.model)
        if key not in self._known:
            self._known[key] = earlier_prices(run_options(prompt, self._db), prompt.model)
        return self._known[key]

    def ask(self, of: str, prompts: Mapping[str, Prompt], fields: Mapping[str, str]) -> str:
        if not self._asking.acquire(timeout=PATIENCE):
            raise InputError("another question is being asked; wait for its answer, then ask again")
        try:
            if self._is_stopped:
                raise Interrupted
            if problem := self.quote(prompts, fields).problem:
                raise BudgetExhausted(problem)
            return self._asked(of, prompts, fields)
        finally:
            self._stop = None
            self._asking.release()

    def _asked(self, of: str, prompts: Mapping[str, Prompt], fields: Mapping[str, str]) -> str:
        prompt = next(iter(prompts.values()))
        require_named(
            Path(of), named_models(prompt.release), {"optimize apply PROMPT FILE -o OUT -m": [prompt.model]}, self._db
        )
        lm, _ = models_of(prompt.model, (), prompt)
        digest = hashlib.sha256(json.dumps(dict(fields), sort_keys=True).encode()).hexdigest()
        task = rows_task(prompt, self._db.parent, f"{of} in the playground", [Example("1", dict(fields), {})], digest)
        made = {each.embeddings: embedding_of(each, Path(of), self._db) for each in prompts.values()}
        embedders = {name: model for name, model in made.items() if model is not None}
        accounts: list[Account] = []

        async def outcome(asking: Session[PlayedResult], prompt: Prompt) -> Outcome:
            asked, rows = AskedRelease(prompt, lm, embedding=embedders.get(prompt.embeddings)), asking.task.dev
            evaluator, candidate, _ = await asked.evaluator(asking, rows)
            return await evaluator.outcome(candidate, rows[0])

        async def perform(asking: Session[PlayedResult]) -> PlayedResult:
            accounts.append(asking.account)
            outcomes = await asking.gathered([outcome(asking, prompt) for prompt in prompts.values()])
            if all(outcome is None for outcome in outcomes):
                raise BudgetExhausted(asking.stopped)
            asked = [
                PlayedAnswer(
                    side=side,
                    version=prompt.version,
                    call_key=found.call_key if found else "",
                    error=found.prediction.error if found else asking.stopped,
                )
                for (side, prompt), found in zip(prompts.items(), outcomes, strict=True)
            ]
            about: dict[str, Any] = {"of": of, "model": lm.name, "inputs": fields, "asked": asked}
            return PlayedResult(run_id=asking.id, **about, **asking.spent())

        work = Work(
            PLAYGROUND,
            "asked",
            perform,
            task,
            (lm, *embedders.values()),
            self._options,
            len(prompts) + len(embedders),
            self.left,
            command="ui",
            chained=_for_chain,
            prices=self._earlier(prompt),
            after_interrupt="interrupted; ask again, as every reply is in the ledger",
        )
        self._stop = StopSignal()
        try:
            return run_work(work, self._db, _Unseen(), self._stop).run_id
        finally:
            for account in accounts:
                self._spent += account.total_paid

    def stop(self) -> None:
        self._is_stopped = True
        if (stop := self._stop) is not None:
            stop.press()
            stop.press()


def _for_chain(result: PlayedResult) -> Mapping[str, Any]:
    asked = [{"side": each.side, "version": each.version, "call_key": each.call_key} for each in result.asked]
    return {"of": result.of, "model": result.model, "asked": asked}


class _Unseen(Watcher):
    signals = ()
