"""Chooses the settings of a training by Ray Tune: all are begun, and ASHA stops those that dev loss speaks against.

Source: Li et al., "A System for Massively Parallel Hyperparameter Tuning" (2020), section 3 (ASHA), as Ray Tune
has it, with epochs as the resource and half of the settings kept at the epochs 1, 2, 4 and so on.
"""

from __future__ import annotations

import asyncio
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from queue import SimpleQueue
from typing import Any

from agent.errors import AgentError, InputError, TrainingDiverged, error_lines
from agent.run.customize.on_ray import LOOK_SECONDS, RayTrainings
from agent.run.customize.order import TrainingOrder, carry_out
from agent.run.customize.settings_search import ASHA, DIVERGED, SettingsChoice, TriedSettings, choice_of
from agent.run.sweep.processes import RETRIES
from agent.tuning.settings import Step, TrainingSettings

Heard = Callable[[int, Sequence[Step]], None]
"""Gets the number of a setting, from 0, and the steps of an epoch; no steps: what it raises ends the search."""
KEPT = 2
"""One of so many settings goes on at each of ASHA's epochs."""
ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no files of its own
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints a box at any verbosity
}


def on_node(config: Mapping[str, int], orders: Sequence[TrainingOrder]) -> None:
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

    def run(self, orders: Sequence[TrainingOrder], cluster: RayTrainings) -> None:
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

        needs = cluster.resources(orders[0].trainer, orders[0].settings)
        sent = tune.with_parameters(on_node, orders=list(orders))
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


async def choose_by_asha(
    settings: Sequence[TrainingSettings], orders: Sequence[TrainingOrder], cluster: RayTrainings, heard: Heard
) -> SettingsChoice:
    """Trains settings on a cluster, as many at once as it has room for, until ASHA or dev has stopped each.

    Args:
        settings: at least 2; of equals the first is chosen. The cap on seconds of the first holds for all together.
        orders: of these settings, in their order, each with its share of the cap.
        cluster: whose nodes train.
        heard: gets steps as they come, and is asked whether the run goes on.

    Raises:
        TrainingDiverged: all of them diverged.
        InputError: a node refuses the training.
        AgentError: the workers of a setting died too often.
    """
    tried, search = [TriedSettings(each) for each in settings], _Search()
    work = asyncio.ensure_future(asyncio.to_thread(search.run, orders, cluster))
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
    return choice_of(settings[0].max_seconds, tried, min(tried, key=lambda each: (each.diverged, each.dev_loss)))
