"""Chooses the settings of a training on dev, here or on a cluster.

By halving all settings are trained a little, the better half continues, until one is left. Each continues where it
stopped, so that the search costs the epochs of those that are given up. On a cluster drawn settings are all begun, and
Ray Tune stops those that dev loss speaks against (ASHA).

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
from typing import TYPE_CHECKING, Any, TypeVar

from agent.cluster import RETRIES
from agent.errors import AgentError, InputError, TrainingDiverged, error_lines
from agent.jobs.customize.on_ray import LOOK_SECONDS, NodeOrder, RayTrainings, carry_out
from agent.results.customize import ArmSettings, SettingsTried
from agent.training.settings import Step, TrainedAdapter, TrainingSettings

if TYPE_CHECKING:
    from agent.jobs.customize.training import TrainingOrder

T = TypeVar("T")
Train = Callable[[TrainingSettings, str], Awaitable[TrainedAdapter]]
"""Trains with settings; the text says which they are."""
HALVING, ASHA, DIVERGED = "halving", "ASHA", "diverged"
LEAST_SECONDS = 1e-3
"""Of a cap, which cannot be 0."""


@dataclass(slots=True)
class TriedSettings:
    """Settings that were tried.

    Args:
        settings: without caps.
        dev_loss: the least over them, in nats; inf: no epoch ended.
        ended: why it was not trained further: as of a trained adapter, or one of HALVING, ASHA, DIVERGED. "": it was
            chosen.
        why: the message of the error, where it diverged.
    """

    settings: TrainingSettings
    epochs: int = 0
    dev_loss: float = math.inf
    seconds: float = 0.0
    diverged: bool = False
    ended: str = ""
    why: str = ""

    def told(self) -> SettingsTried:
        """As the result says it; a loss that is not known is None."""
        return SettingsTried(
            learning_rate=getattr(self.settings, "learning_rate", None),
            rank=getattr(self.settings, "rank", None),
            epochs=self.epochs,
            dev_loss=round(self.dev_loss, 5) if math.isfinite(self.dev_loss) else None,
            seconds=round(self.seconds, 1),
            diverged=self.diverged,
            ended=self.ended,
        )


@dataclass(frozen=True, slots=True)
class SettingsChoice:
    """What the search chose.

    Args:
        chosen: the settings, with what is left of a cap on seconds.
        tried: all of them; () where there was one alone.
    """

    chosen: TrainingSettings
    tried: Sequence[TriedSettings]
    seconds: float

    @staticmethod
    def of(most: float | None, tried: Sequence[TriedSettings], best: TriedSettings) -> SettingsChoice:
        """Chooses the best under a cap on seconds. Raises TrainingDiverged where it diverged, as then all did."""
        if best.diverged:
            raise TrainingDiverged(best.why)
        others = sum(each.seconds for each in tried if each is not best)
        return SettingsChoice(_capped(most, tried, best), tried if len(tried) > 1 else (), others)


def choice_record(arm: str, choice: SettingsChoice) -> ArmSettings:
    """What was chosen of what; `tried` is empty where there was one."""
    return ArmSettings(arm=arm, chosen=asdict(choice.chosen), tried=tuple(each.told() for each in choice.tried))


async def each_of(works: Sequence[Callable[[], Awaitable[T]]], at_once: bool) -> list[T]:
    """The results of all, made one after the other or at once; the first error ends the others."""
    if not at_once:
        return [await work() for work in works]
    running = [asyncio.ensure_future(work()) for work in works]
    try:
        return list(await asyncio.gather(*running))
    finally:
        for one in running:
            one.cancel()
        await asyncio.wait(running)


def _capped(most: float | None, tried: Sequence[TriedSettings], own: TriedSettings) -> TrainingSettings:
    """Settings with the seconds that others leave of the cap; where they leave none a training ends after a step, or
    at the checkpoint that it has."""
    if most is None:
        return own.settings
    left = most - sum(each.seconds for each in tried if each is not own)
    return replace(own.settings, max_seconds=max(left, LEAST_SECONDS))


# -- halving ----------------------------------------------------------------------------------------------------------


async def choose_settings(settings: Sequence[TrainingSettings], train: Train, at_once: bool = False) -> SettingsChoice:
    """Trains settings until dev has chosen one of them; one alone is chosen at once.

    Args:
        settings: at least one; of equals the first is chosen. The cap on seconds of the first holds for all together.
        train: trains to where `pause_after` says, from where it was.
        at_once: whether those of a round are trained side by side; under a cap on seconds they are not.

    Raises:
        TrainingDiverged: all of them diverged.
    """
    tried = [TriedSettings(each) for each in settings]
    most, left, epochs = settings[0].max_seconds, list(tried), 1

    async def judge(each: TriedSettings, until: int) -> None:
        number = f"setting {tried.index(each) + 1} of {len(tried)}"
        try:
            made = await train(replace(_capped(most, tried, each), pause_after=until), number)
        except TrainingDiverged as error:
            each.diverged, each.ended, each.why = True, DIVERGED, str(error)
            return
        scores = made.scores[:until]  # a training that went further before has more
        each.seconds, each.epochs = made.seconds, len(scores)
        each.dev_loss = -max(scores, default=-math.inf)

    while len(left) > 1:
        await each_of([partial(judge, each, epochs) for each in left], at_once and most is None)
        ranked = sorted(left, key=lambda each: (each.diverged, each.dev_loss))  # of equals the first
        is_last = epochs >= ranked[0].settings.epochs
        left, epochs = ranked[: 1 if is_last else math.ceil(len(ranked) / 2)], 2 * epochs
        for each in ranked[len(left) :]:
            each.ended = each.ended or HALVING
    return SettingsChoice.of(most, tried, left[0])


# -- ASHA by Ray Tune -------------------------------------------------------------------------------------------------

Heard = Callable[[int, Sequence[Step]], None]
"""Gets the number of a setting, from 0, and the steps of an epoch; no steps: what it raises ends the search."""
KEPT = 2
"""One of this many settings continues at each of ASHA's epochs."""
ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # which would write files
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints a box at any verbosity
}


async def choose_by_asha(
    settings: Sequence[TrainingSettings], orders: Sequence[TrainingOrder], cluster: RayTrainings, heard: Heard
) -> SettingsChoice:
    """Trains settings on a cluster, as many at once as it has room for, until ASHA or dev has stopped each.

    Args:
        settings: at least 2; of equals the first is chosen. The cap on seconds of the first holds for all together.
        heard: gets steps as they come, and is asked whether the run continues.

    Raises:
        TrainingDiverged: all of them diverged.
        InputError: a node refuses the training.
        AgentError: the workers of a setting died too often.
    """
    tried, search, sent = (
        [TriedSettings(each) for each in settings],
        _Search(),
        [cluster.order(each) for each in orders],
    )
    work = asyncio.ensure_future(asyncio.to_thread(search.run, sent, cluster))
    try:
        while not work.done():
            await asyncio.wait({work}, timeout=LOOK_SECONDS)
            search.hand_on(tried, heard)
        work.result()
        search.hand_on(tried, heard)
    finally:
        search.is_left = True
        await asyncio.wait({work})
    for each in tried:
        each.ended = each.ended or ("epochs" if each.epochs == each.settings.epochs else ASHA)
    return SettingsChoice.of(
        settings[0].max_seconds, tried, min(tried, key=lambda each: (each.diverged, each.dev_loss))
    )


def on_tune_node(config: Mapping[str, int], orders: Sequence[NodeOrder]) -> None:
    """What a worker of Tune does: one setting, with a report after each epoch and one of how it ended."""
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
    """A search in its thread; the run's own thread takes what it reports."""

    reports: SimpleQueue[tuple[int, Mapping[str, Any]]] = field(default_factory=SimpleQueue)
    is_left: bool = False

    def __reduce__(self) -> tuple[type[_Search], tuple[()]]:
        return _Search, ()  # Tune puts a copy of its callbacks into its folder, which nobody reads

    def run(self, orders: Sequence[NodeOrder], cluster: RayTrainings) -> None:
        """Until each setting has ended. Raises AgentError where the workers of one died too often."""
        os.environ.update(ENVIRONMENT)
        from ray import tune
        from ray.tune.schedulers import ASHAScheduler

        search, most = self, max(order.settings.epochs for order in orders)

        class Reports(tune.Callback):  # type: ignore[misc]
            def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any) -> None:
                search.reports.put((trial.config["setting"], dict(result)))

        class Left(tune.Stopper):  # type: ignore[misc]
            def __call__(self, trial_id: str, result: Any) -> bool:
                return False

            def stop_all(self) -> bool:
                return search.is_left

        needs = cluster.resources(orders[0])
        sent = tune.with_parameters(on_tune_node, orders=list(orders))
        with tempfile.TemporaryDirectory(prefix="promptassay-") as folder:
            grid = tune.Tuner(
                tune.with_resources(sent, {"cpu": needs["num_cpus"], "gpu": needs["num_gpus"]}),
                param_space={"setting": tune.grid_search(list(range(len(orders))))},
                tune_config=tune.TuneConfig(
                    metric="dev_loss",
                    mode="min",
                    scheduler=ASHAScheduler(time_attr="epoch", max_t=most + 1, reduction_factor=KEPT),
                    reuse_actors=True,
                ),
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

    def hand_on(self, tried: Sequence[TriedSettings], heard: Heard) -> None:
        """Puts what was reported since the last time into `tried`, and hands on its steps."""
        heard(0, ())
        while not self.reports.empty():
            number, report = self.reports.get()
            each = tried[number]
            if "error" in report:
                raise InputError(report["error"])
            if "ended" in report:
                each.ended, each.diverged = report["ended"], report["ended"] == DIVERGED
                each.why = report.get("why", "")
                continue
            each.epochs, each.seconds = max(each.epochs, report["epoch"]), report["seconds"]
            each.dev_loss = min(each.dev_loss, report["dev_loss"])
            heard(number, [Step(*step) for step in report["steps"]])
