"""The arm that a provider trains: its training files, what it may cost, and the model that comes of it.

It is never trained unless it is named: the rows of train and dev are uploaded to the provider, and it costs money.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from agent.errors import BudgetRefused, InputError
from agent.gateway.prices import Price, price_for, price_of
from agent.jobs.customize.arms import ArmSpec, MadeArm
from agent.jobs.customize.hosted_job import Finished, HostedTraining, TrainingFiles, training_files, training_prompt
from agent.jobs.customize.training import Stopped
from agent.jobs.session import Session
from agent.models.model_registry import create_model
from agent.models.openai import OpenAIModel
from agent.models.provider_jobs import FineTuning, TuningSettings, tuned_name
from agent.prompt.prompt_candidate import PromptCandidate
from agent.types import LM, Spend, Task, canonical


@dataclass(frozen=True, slots=True)
class HostedPlan:
    """A training at a provider.

    Args:
        train_price: dollars per million trained tokens. None: not known.
    """

    spec: ArmSpec
    model: OpenAIModel
    call_price: Price
    train_price: float | None
    settings: TuningSettings

    def most_dollars(self, files: TrainingFiles) -> float | None:
        """The most that the training may cost, by our own count of tokens. None: nobody knows the price."""
        return None if self.train_price is None else files.tokens * self.settings.epochs * self.train_price / 1e6


# -- before anything is paid ------------------------------------------------------------------------------------------


def hosted_plan(
    spec: ArmSpec,
    lm: LM,
    train_price: float | None,
    given: Price | None,
    max_cost: float | None,
    seed: int,
) -> HostedPlan:
    """The training of an arm, as far as it can be known before it.

    Args:
        train_price: dollars per million trained tokens. None: not known.

    Raises:
        InputError: with a line for each reason why this model is not trained at its provider.
    """
    flag = f"--arms {spec.name}"
    if not isinstance(lm, OpenAIModel):
        raise InputError(
            f"{flag}: {lm.name} is not trained at a provider; name openai/NAME or openai-compatible/NAME@URL"
        )
    example = tuned_name(lm.name, f"ft:{lm.name.partition('/')[2].partition('@')[0]}:you::id")
    price = price_for(example, given)
    faults = []
    if price is None:
        faults.append(f"{flag}: nobody knows what a call to the tuned model costs; give --price IN,OUT")
    if train_price is not None and not math.isfinite(train_price):
        faults.append(f"--train-price {train_price}: write dollars per million tokens")
    if train_price is None and max_cost is not None:
        faults.append(f"{flag}: with --max-cost the price of training is needed; give --train-price USD_PER_MILLION")
    if faults or price is None:
        raise InputError("\n".join(faults))
    return HostedPlan(spec, lm, price, train_price, TuningSettings(seed=seed))


def require_affordable(plan: HostedPlan, files: TrainingFiles, max_cost: float | None) -> None:
    """Raises BudgetRefused where the training alone may cost more than the cap."""
    most = plan.most_dollars(files)
    if max_cost is not None and most is not None and most > max_cost:
        raise BudgetRefused(
            f"--arms {plan.spec.name}: {files.tokens:,} tokens x {plan.settings.epochs} epochs may cost ${most:.2f}, "
            f"more than --max-cost {max_cost:g}; raise it, or use fewer rows (--limit)"
        )


def require_service(model: LM) -> None:
    """Asks the model's address for its fine-tuning API, before a search is paid. Raises RunRefused for none."""

    assert isinstance(model, OpenAIModel)

    async def check() -> None:
        api = FineTuning.of(model)
        try:
            await api.check()
        finally:
            await api.close()

    asyncio.run(check())


# -- the training -----------------------------------------------------------------------------------------------------


class HostedTrainer:
    """Trains the arm of a comparison, within its budget."""

    def __init__(self, plan: HostedPlan, task: Task, best: PromptCandidate, session: Session[Any]) -> None:
        self._plan, self._task, self._session = plan, task, session
        self._prompt = training_prompt(best)
        self._api = FineTuning.of(plan.model)
        self._training: HostedTraining | None = None
        self._made: list[OpenAIModel] = []

    async def arm(self, stopped: Stopped) -> MadeArm:
        """The arm with its tuned model; the same rows and settings are trained once, whatever run began it.

        Raises:
            BudgetExhausted: the training may cost more than is left.
            RunRefused: the provider did not train it, in its words.
        """
        plan, session = self._plan, self._session
        files = training_files(self._task, plan.model, self._prompt)
        key = training_key(plan, files)
        training = HostedTraining(plan.spec.name, self._api, key, session, stopped, plan.train_price)
        self._training = training
        finished = training.settled() or await self._paid(training, files)
        model = create_model(tuned_name(plan.model.name, finished.job.model))
        assert isinstance(model, OpenAIModel)
        self._made.append(model)
        session.prices[model.name] = price_of(model.name) or plan.call_price
        session.watcher.on_message(f"{plan.spec.name}: answered by {model.name}")
        candidate = replace(self._prompt, model=finished.job.model)
        seconds, job = finished.job.seconds or 0.0, finished.job.id
        rows = len(self._task.train)
        return MadeArm(plan.spec, candidate, model, rows, train_s=seconds, seconds=seconds, usd=finished.usd, job=job)

    async def abandon(self) -> None:
        """Cancels a job that is running, as the user leaves at once."""
        if self._training is not None:
            await self._training.abandon()

    async def close(self) -> None:
        await self._api.close()
        for model in self._made:
            await model.close()

    async def _paid(self, training: HostedTraining, files: TrainingFiles) -> Finished:
        plan, account = self._plan, self._session.account
        most = plan.most_dollars(files)
        if most is None:
            account.no_price += (f"training {plan.model.name}",)
        says = "at a price that nobody knows" if most is None else f"${most:.2f} at most"
        self._session.watcher.on_message(
            f"{plan.spec.name}: training at the provider on {files.rows} rows, {files.tokens:,} tokens at most x "
            f"{plan.settings.epochs} epochs, {says}"
        )
        worst = Spend(usd=most or 0.0)
        account.reserve(worst)
        try:
            finished = await training.finished(files, plan.settings)
        finally:
            account.release(worst)
        account.charge("model", Spend(usd=finished.usd or 0.0))
        return finished


def training_key(plan: HostedPlan, files: TrainingFiles) -> str:
    """The hash of all that a training is made of: base model with its address, rows, settings."""
    parts: Mapping[str, Any] = {
        "model": plan.model.name,
        "train": hashlib.sha256(files.train).hexdigest(),
        "validation": hashlib.sha256(files.validation).hexdigest(),
        "settings": asdict(plan.settings),
    }
    return hashlib.sha256(canonical(parts).encode()).hexdigest()
