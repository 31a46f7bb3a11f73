"""Chooses the settings of a training on dev.

Halving trains all settings a little, and the better half continues from its checkpoints until one is left, so the
search costs only the epochs of the settings it drops. On a cluster all settings start, and Ray Tune (ASHA) stops those
with a high dev loss.

Source: Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization" (2016),
section 3, with dev losses as what is compared and epochs as the resource; Li et al., "A System for Massively Parallel
Hyperparameter Tuning" (2020), section 3, as Ray Tune has it, with half of the settings kept at the epochs 1, 2, 4 ...
"""

from __future__ import annotations

import asyncio
import math
import os
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from functools import partial
from queue import SimpleQueue
from typing import Any

from agent.cluster import RETRIES
from agent.errors import AgentError, InputError, TrainingDiverged, error_lines
from agent.jobs.customize.on_ray import LOOK_SECONDS, NodeOrder, RayTrainings, carry_out
from agent.jobs.customize.training import Executor, Stopped, WatchedTraining, each_of, trained
from agent.observer import Observer
from agent.options.jobs import CustomizeOptions
from agent.results.customize import ArmSettings, SettingsTried
from agent.training.loop import TrainingOrder
from agent.training.settings import Step, TrainedAdapter, TrainingSettings, drawn, variants

Train = Callable[[TrainingSettings, str], Awaitable[TrainedAdapter]]
"""Trains with settings; the text names them."""
HALVING, ASHA, DIVERGED = "halving", "ASHA", "diverged"
LEAST_SECONDS = 1e-3
"""Lowest cap, because 0 is refused."""


@dataclass(slots=True)
class TriedSettings:
    """Settings that were tried, without caps, and their progress.

    Args:
        dev_loss: lowest of the epochs, in nats; inf: no epoch ended.
        ended: why training stopped, as of a trained adapter, or HALVING, ASHA, DIVERGED; "": chosen.
        why: the error message of a divergence.
    """

    settings: TrainingSettings
    epochs: int = 0
    dev_loss: float = math.inf
    seconds: float = 0.0
    ended: str = ""
    why: str = ""

    @property
    def rank(self) -> tuple[bool, float]:
        """Sort key: the lowest is best, and of equals the first."""
        return self.ended == DIVERGED, self.dev_loss

    def record(self) -> SettingsTried:
        return SettingsTried(
            learning_rate=getattr(self.settings, "learning_rate", None),
            rank=getattr(self.settings, "rank", None),
            epochs=self.epochs,
            dev_loss=round(self.dev_loss, 5) if math.isfinite(self.dev_loss) else None,
            seconds=round(self.seconds, 1),
            diverged=self.ended == DIVERGED,
            ended=self.ended,
        )


@dataclass(frozen=True, slots=True)
class SettingsChoice:
    """The chosen settings, with what is left of the cap on seconds.

    Args:
        tried: () where only one was given.
        seconds: of the settings that were dropped.
    """

    chosen: TrainingSettings
    tried: Sequence[TriedSettings]
    seconds: float

    @staticmethod
    def of(most: float | None, tried: Sequence[TriedSettings], best: TriedSettings) -> SettingsChoice:
        """Choose the best under a cap on seconds. Raises TrainingDiverged if all diverged."""
        if best.ended == DIVERGED:
            raise TrainingDiverged(best.why)
        others = sum(each.seconds for each in tried if each is not best)
        return SettingsChoice(_capped(most, tried, best), tried if len(tried) > 1 else (), others)

    def record(self, arm: str) -> ArmSettings:
        return ArmSettings(arm=arm, chosen=asdict(self.chosen), tried=tuple(each.record() for each in self.tried))


def _capped(most: float | None, tried: Sequence[TriedSettings], own: TriedSettings) -> TrainingSettings:
    if most is None:
        return own.settings
    left = most - sum(each.seconds for each in tried if each is not own)
    return replace(own.settings, max_seconds=max(left, LEAST_SECONDS))


async def chosen_settings(
    arm: str, order: TrainingOrder, asked: CustomizeOptions, observer: Observer, stopped: Stopped, executor: Executor
) -> SettingsChoice:
    """Choose the settings of an arm on dev, by halving or by ASHA."""
    if not asked.tune:

        async def train(settings: TrainingSettings, about: str) -> TrainedAdapter:
            return await trained(f"{arm}, {about}", replace(order, settings=settings), observer, stopped, executor)

        return await choose_settings(variants(order.settings, asked.tried), train, executor.at_once)
    assert isinstance(executor, RayTrainings)
    settings, most = drawn(order.settings, asked.tried), order.settings.max_seconds
    share = None if most is None else most / len(settings)
    watched = []
    for number, each in enumerate(settings, 1):
        own = replace(order, settings=replace(each, max_seconds=share))
        watched.append(WatchedTraining(f"{arm}, setting {number} of {len(settings)}", own, observer, stopped))
    return await choose_by_asha(settings, watched, executor)


# -- halving ----------------------------------------------------------------------------------------------------------


async def choose_settings(settings: Sequence[TrainingSettings], train: Train, at_once: bool = False) -> SettingsChoice:
    """Train settings by successive halving until one is left; of equals the first.

    The first cap on seconds holds for all together, and under a cap they train one at a time. `train` continues up to
    `pause_after`. Raises TrainingDiverged where all diverged.
    """
    tried = [TriedSettings(each) for each in settings]
    most, left, epochs = settings[0].max_seconds, list(tried), 1

    async def judge(each: TriedSettings, until: int) -> None:
        number = f"setting {tried.index(each) + 1} of {len(tried)}"
        try:
            made = await train(replace(_capped(most, tried, each), pause_after=until), number)
        except TrainingDiverged as error:
            each.ended, each.why = DIVERGED, str(error)
            return
        scores = made.scores[:until]  # an earlier training may have gone further
        each.seconds, each.epochs, each.dev_loss = made.seconds, len(scores), -max(scores, default=-math.inf)

    while len(left) > 1:
        await each_of([partial(judge, each, epochs) for each in left], at_once and most is None)
        ranked = sorted(left, key=lambda each: each.rank)
        is_last = epochs >= ranked[0].settings.epochs
        left, epochs = ranked[: 1 if is_last else math.ceil(len(ranked) / 2)], 2 * epochs
        for each in ranked[len(left) :]:
            each.ended = each.ended or HALVING
    return SettingsChoice.of(most, tried, left[0])


# -- ASHA by Ray Tune -------------------------------------------------------------------------------------------------

KEPT = 2
"""One of this many settings continues at each of ASHA's epochs."""
ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # which would write files
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints a box at any verbosity
}


async def choose_by_asha(
    settings: Sequence[TrainingSettings], watched: Sequence[WatchedTraining], cluster: RayTrainings
) -> SettingsChoice:
    """Train 2 settings or more in parallel until ASHA or dev stops each.

    Ranks them as `choose_settings`. Raises AgentError where a node refuses or its workers died too often.
    """
    tried, search = [TriedSettings(each) for each in settings], _Search()
    sent = [cluster.order(each.order) for each in watched]
    work = asyncio.ensure_future(asyncio.to_thread(search.run, sent, cluster))
    try:
        while not work.done():
            await asyncio.wait({work}, timeout=LOOK_SECONDS)
            search.hand_on(tried, watched)
        work.result()
        search.hand_on(tried, watched)
    finally:
        search.is_left = True
        await asyncio.wait({work})
    for each in tried:
        each.ended = each.ended or ("epochs" if each.epochs == each.settings.epochs else ASHA)
    return SettingsChoice.of(settings[0].max_seconds, tried, min(tried, key=lambda each: each.rank))


def on_tune_node(config: Mapping[str, int], orders: Sequence[NodeOrder]) -> None:
    """Train one setting in a Tune worker; report after each epoch and at the end."""
    from ray import tune

    order, steps = orders[config["setting"]], list[Step]()

    def on_epoch(epoch: int, score: float, seconds: float) -> None:
        own = [astuple(step) for step in steps]
        steps.clear()
        tune.report({"epoch": epoch, "dev_loss": -score, "seconds": seconds, "steps": own})  # ASHA may end it here

    try:
        said: dict[str, str] = {"ended": carry_out(order, steps.append, on_epoch).ended}
    except TrainingDiverged as error:
        said = {"ended": DIVERGED, "why": str(error)}
    except AgentError as error:
        said = {"error": str(error)}
    tune.report({"epoch": order.settings.epochs + 1, "dev_loss": math.inf, **said})


@dataclass(slots=True)
class _Search:
    """Runs in a thread; the main thread takes its reports."""

    reports: SimpleQueue[tuple[int, Mapping[str, Any]]] = field(default_factory=SimpleQueue)
    is_left: bool = False

    def __reduce__(self) -> tuple[type[_Search], tuple[()]]:
        return _Search, ()  # Tune pickles its callbacks into its folder, unread

    def run(self, orders: Sequence[NodeOrder], cluster: RayTrainings) -> None:
        """Train until each setting has ended. Raises AgentError where workers died too often."""
        os.environ.update(ENVIRONMENT)
        from ray import tune
        from ray.tune.schedulers import ASHAScheduler

        search, most, needs = self, max(order.settings.epochs for order in orders), cluster.resources(orders[0])

        class Reports(tune.Callback):  # type: ignore[misc]
            def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any) -> None:
                search.reports.put((trial.config["setting"], dict(result)))

        class Left(tune.Stopper):  # type: ignore[misc]
            def __call__(self, trial_id: str, result: Any) -> bool:
                return False

            def stop_all(self) -> bool:
                return search.is_left

        sent = tune.with_parameters(on_tune_node, orders=list(orders))
        asha = ASHAScheduler(time_attr="epoch", max_t=most + 1, reduction_factor=KEPT)
        with tempfile.TemporaryDirectory(prefix="promptassay-") as folder:
            grid = tune.Tuner(
                tune.with_resources(sent, {"cpu": needs["num_cpus"], "gpu": needs["num_gpus"]}),
                param_space={"setting": tune.grid_search(list(range(len(orders))))},
                tune_config=tune.TuneConfig(metric="dev_loss", mode="min", scheduler=asha, reuse_actors=True),
                run_config=tune.RunConfig(
                    name="settings",
                    storage_path=folder,  # of this machine alone: checkpoints are ours
                    failure_config=tune.FailureConfig(max_failures=RETRIES),
                    callbacks=[Reports()],
                    stop=Left(),
                    verbose=0,
                ),
            ).fit()
        if grid.errors and not self.is_left:
            last = error_lines(grid.errors[0])[-1]
            raise AgentError(f"a training failed {1 + RETRIES} times on --ray {cluster.address}: {last}")

    def hand_on(self, tried: Sequence[TriedSettings], watched: Sequence[WatchedTraining]) -> None:
        """Process new reports and pass on their steps."""
        watched[0].on_steps()
        while not self.reports.empty():
            number, report = self.reports.get()
            each = tried[number]
            if "error" in report:
                raise InputError(report["error"])
            if "ended" in report:
                each.ended, each.why = report["ended"], report.get("why", "")
                continue
            each.epochs, each.seconds = max(each.epochs, report["epoch"]), report["seconds"]
            each.dev_loss = min(each.dev_loss, report["dev_loss"])
            watched[number].on_steps(*(Step(*step) for step in report["steps"]))
            watched[number].look()
