"""From the words of a comparison to one that is ready to start: the search behind it, its arms, and what is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cluster import LOCAL, join_cluster, leave_cluster
from agent.errors import InputError, Problem
from agent.ledger.query import History, Row, searched
from agent.models.fine_tuning import TuningSettings
from agent.models.local import LocalModel
from agent.models.openai import OpenAIModel
from agent.programs.prompt import PromptProgram
from agent.prompt.prompt_candidate import baseline
from agent.run.arguments import require_none
from agent.run.customize.arms import ArmSpec, bare_prompt, prompt_arms, require_arms, why_no_soft_prompt, why_not_tuned
from agent.run.customize.curve import FEWEST_TRAIN, curve_sizes
from agent.run.customize.elsewhere import other_tasks
from agent.run.customize.hosted import HostedPlan, hosted_plan, require_affordable
from agent.run.customize.hosted_files import training_files, training_prompt, write_training_files
from agent.run.customize.job import Customize
from agent.run.customize.plan import CustomizePlan, Trainings, require_ray, require_trainer
from agent.run.launch import Launch, budget_of
from agent.run.locations import open_history
from agent.run.recorded import recorded_prompt
from agent.run.resume import changes_since
from agent.run.session import PreparedJob, fetch_weights
from agent.task.conversations import PLAYED
from agent.task.words import seconds as read_seconds
from agent.tuning.settings import MOST_SETTINGS, FullSettings, LoraSettings, SoftPromptSettings, Trainer

if TYPE_CHECKING:
    from agent.types import Task

TRIED_SETTINGS = 3
"""How many settings of each training are tried on dev, where nothing else is asked for."""
MOST_SEEDS = 10


@dataclass(frozen=True, slots=True)
class ComparisonAsked:
    """What the user asked for.

    Args:
        arms: their names; none: all that take part by default.
        train_seconds: the most that training may take, each arm by itself. None: as long as it takes.
        expected_calls: calls in the life of the prompt. None: as many as it takes.
        seed: of the training, at least 0.
        curve: the numbers of train rows that arms learn from besides all, such as "24,75,all"; "": no curve.
        train_price: of training at a provider, dollars per million tokens. None: not known.
        trainer: what trains adapters here.
        weights: a Hugging Face folder of the model, to train on. None: the weights of the model's own file.
        settings: how many settings of each training are tried on dev, 1 to MOST_SETTINGS.
        seeds: how often each arm is trained with the settings that were chosen, 1 to MOST_SEEDS.
        ray: the address of a Ray cluster that trains. None: this process does, but for `tune`.
        tune: how many settings of each training are drawn and stopped early by Ray Tune, in the place of `settings`,
            2 to MOST_DRAWN. 0: none is drawn.
    """

    arms: Sequence[str] = ()
    train_seconds: str | None = None
    expected_calls: int | None = None
    seed: int = 0
    curve: str = ""
    train_price: float | None = None
    trainer: str = "numpy"
    weights: Path | None = None
    settings: int = TRIED_SETTINGS
    seeds: int = 1
    ray: str | None = None
    tune: int = 0

    @property
    def tried(self) -> int:
        """How many settings of each training are tried on dev."""
        return self.tune or self.settings

    @property
    def cluster(self) -> str | None:
        """The address of the cluster that trains; None: none does."""
        return self.ray or (LOCAL if self.tune else None)


@dataclass(frozen=True, slots=True)
class Checked:
    """What was asked for, checked: the arms, how they are trained, and the numbers of rows besides all."""

    specs: Sequence[ArmSpec]
    settings: LoraSettings
    soft: SoftPromptSettings
    full: FullSettings
    trainer: Trainer
    curve: Sequence[int]


def checked(
    launch: Launch, asked: ComparisonAsked, download: Callable[[int, int], None] = lambda done, total: None
) -> Checked:
    """What is compared, before anything is searched or trained.

    Args:
        launch: task and models.
        asked: what the user asked for.
        download: is told bytes of weights as they come, where a soft prompt needs the model's tokenizer.

    Raises:
        InputError: arms are not known or cannot be trained for this task and model, or an option is wrong; all of it.
    """
    task, problems = launch.task, []
    if task.program:
        raise InputError(f"{task.name}: a program of your own; only prompts and models are compared")
    if task.user is not None:
        raise InputError(f"{task.name}: {PLAYED}; a model is trained on conversations as they were (type conversation)")
    specs, unknown = require_arms(asked.arms)
    problems += unknown
    tuned = [spec for spec in specs if spec.is_trained_here]
    local = launch.target if isinstance(launch.target, LocalModel) else None
    base = local.path if local else None
    why = why_not_tuned(task, launch.target.name, base) if tuned else ""
    if tuned and not why and len(task.train) < FEWEST_TRAIN:
        why = f"{len(task.train)} train rows are too few to train on; give at least {FEWEST_TRAIN}"
    if why and asked.arms:
        problems.append(Problem(f"--arms {tuned[0].name}", why))
    soft = [spec for spec in tuned if spec.method == "soft prompt"]
    if soft and not why and local:
        fetch_weights([local.name], download)
        asked_first = PromptProgram(task, local).request(bare_prompt(task), task.train[0]).messages
        if no := why_no_soft_prompt(local.path, asked_first):
            problems.append(Problem(f"--arms {soft[0].name}", no))
    trainer, not_here = require_trainer(asked.trainer, asked.weights, tuned if asked.arms else [], base)
    problems += not_here
    curve, wrong = curve_sizes(asked.curve, len(task.train))
    if asked.expected_calls is not None and asked.expected_calls < 1:
        wrong.append(Problem("--expected-calls", f"{asked.expected_calls}: write a number of at least 1"))
    wrong += [
        Problem(f"--{name}", f"{value}: write a number from 1 to {most}")
        for name, value, most in (("settings", asked.settings, MOST_SETTINGS), ("seeds", asked.seeds, MOST_SEEDS))
        if not 1 <= value <= most
    ]
    wrong += require_ray(asked.ray is not None, asked.tune, tuned)
    seconds = None
    try:
        seconds = None if asked.train_seconds is None else read_seconds(asked.train_seconds)
    except ValueError as error:
        wrong.append(Problem(f"--train-time {asked.train_seconds}", str(error)))
    require_none([*problems, *wrong])
    require_hosted(launch, specs, asked)
    kept = [spec for spec in specs if not why or spec not in tuned]
    return Checked(
        kept,
        LoraSettings(seed=asked.seed, max_seconds=seconds),
        SoftPromptSettings(seed=asked.seed, max_seconds=seconds),
        FullSettings(seed=asked.seed, max_seconds=seconds),
        trainer,
        curve,
    )


def require_hosted(launch: Launch, specs: Sequence[ArmSpec], asked: ComparisonAsked) -> HostedPlan | None:
    """The training at the model's provider, where that is asked for. Raises InputError or BudgetRefused where it cannot
    be, or may cost more than the cap with the user's own prompt."""
    spec = next((spec for spec in specs if spec.method == "hosted"), None)
    if spec is None:
        return None
    task, settings = launch.task, launch.settings
    most = settings.budget.max_cost
    plan = hosted_plan(spec, launch.target, asked.train_price, settings.price, most, asked.seed)
    if len(task.train) < FEWEST_TRAIN:
        few = f"{len(task.train)} train rows are too few to train on; give at least {FEWEST_TRAIN}"
        raise InputError(f"--arms {spec.name}: {few}")
    require_affordable(plan, training_files(task, launch.target, training_prompt(baseline(task))), most)
    return plan


def require_cluster(asked: ComparisonAsked) -> None:
    """Asks for the cluster before a search is paid for; one of this machine is started when it is needed. Raises
    InputError where none answers."""
    if asked.ray not in (None, LOCAL):
        leave_cluster(join_cluster(asked.ray, "--ray"))


def finished_search(launch: Launch, limit: str | None, db: Path) -> str:
    """The id of the latest complete search of this very task, rows (`--limit`), model and limit on demos
    (`--max-demos`) in the ledger; "" for none."""
    if not db.is_file():
        return ""
    with closing(open_history(db)) as history:
        for row in history.runs():
            options, most = row["options"] or {}, launch.settings.options.get("max_demos")
            if _is_same(row, launch) and options.get("limit") == limit and options.get("max_demos") == most:
                return str(row["id"])
    return ""


def _is_same(row: Row, launch: Launch) -> bool:
    options = row["options"] or {}
    if row["status"] != "complete" or not row["result"] or options.get("command") or options.get("migrates"):
        return False
    return row["model"] == launch.target.name and not changes_since(row, launch, proposes=False)


def dry_run(launch: Launch, run: str, asked: ComparisonAsked, options: Mapping[str, Any], db: Path) -> dict[str, Any]:
    """What a comparison would do, JSON-ready; calls nothing.

    Args:
        launch, asked, options, db: as of `prepare_customize`.
        run: a finished search; "": one would be made first, and how many calls follow it is not known.

    Raises:
        InputError: as `prepare_customize`.
    """
    if run:
        plan = planned(launch, run, asked, options, db)
        arms = [arm.spec.name for arm in plan.prompts] + list(plan.trainings.arms)
        arms += ["hosted"] * (plan.hosted is not None) + ["no-model"] * plan.classic
        trainings, calls = plan.trainings, plan.calls
    else:
        what = checked(launch, asked)
        arms, calls = [spec.name for spec in what.specs], None
        tuned = [spec.name for spec in what.specs if spec.is_trained_here]
        trainings = Trainings(tuned, asked.tried, asked.seeds, len(what.curve))
    about = {"task": launch.task.name, "model": launch.target.name, "of_run": run, "arms": arms}
    return {**about, "trainings": trainings.count, "trainings_text": trainings.line, "calls": calls}


def prepare_customize(
    launch: Launch, run: str, asked: ComparisonAsked, options: Mapping[str, Any], db: Path
) -> PreparedJob:
    """A comparison that is ready to start; calls nothing.

    Args:
        launch: task and models.
        run: a finished search of them.
        asked: what the user asked for.
        options: of the command; has the caps.
        db: the ledger.

    Raises:
        InputError: the search is of another task or model, or arms cannot be trained.
    """
    plan = planned(launch, run, asked, options, db)
    return PreparedJob(lambda resources: Customize(plan, resources), launch.lms(), budget_of(options, plan.calls))


def planned(launch: Launch, run: str, asked: ComparisonAsked, options: Mapping[str, Any], db: Path) -> CustomizePlan:
    """The plan of a comparison, as `prepare_customize` takes it."""
    what = checked(launch, asked)
    specs = what.specs
    with closing(open_history(db)) as history:
        row = searched(history.run(run))
        _require_same(row, launch)
        task = replace(launch.task, test=_tested(history, row, launch.task))
        prompts = prompt_arms(history, row, specs)
        best = recorded_prompt(history.candidate(row["result"]["winner"]["candidate_id"]))
    target = launch.target
    tuned = tuple(spec for spec in specs if spec.is_trained_here)
    if hosted := require_hosted(launch, specs, asked):
        files = training_files(task, target, training_prompt(best))
        require_affordable(hosted, files, options["max_cost"])
    return CustomizePlan(
        task,
        target,
        launch.judges,
        row["id"],
        best,
        tuple(prompts),
        tuned,
        any(spec.method == "no model" for spec in specs),
        target.path if isinstance(target, LocalModel) else Path(),
        db.parent,
        what.settings,
        what.soft,
        what.full,
        what.trainer,
        asked.weights,
        asked.expected_calls,
        what.curve,
        hosted,
        asked.tried,
        asked.seeds,
        other_tasks(task.name) if tuned else (),
        asked.cluster if tuned else None,
        asked.tune > 0,
    )


def export_training(launch: Launch, asked: ComparisonAsked, run: str, folder: Path, db: Path) -> dict[str, Any]:
    """Writes what a training at the provider would upload, and the commands for it; calls nothing.

    Args:
        launch: task and model.
        asked: has the seed.
        run: a finished search, whose best instruction is trained with. "": the user's own prompt is.
        folder: gets the files.
        db: the ledger.

    Returns:
        What was written: `files`, `rows`, `tokens` (at most, in an epoch), `of_run`.

    Raises:
        InputError: the model is none that a provider trains, or the files cannot be written.
    """
    task, target, prompt, row_id = launch.task, launch.target, baseline(launch.task), ""
    if not isinstance(target, OpenAIModel):
        raise InputError(f"--export-only: {target.name}: name a provider's model, openai/NAME, with -m")
    if task.program:
        raise InputError(f"{task.name}: a program of your own; only prompts are written for training")
    if task.user is not None:
        raise InputError(f"{task.name}: {PLAYED}; write conversations as they were (type conversation)")
    if run:
        with closing(open_history(db)) as history:
            row = searched(history.run(run))
            _require_same(row, launch)
            prompt, row_id = recorded_prompt(history.candidate(row["result"]["winner"]["candidate_id"])), row["id"]
    files = training_files(task, target, training_prompt(prompt))
    paths = write_training_files(folder, files, target, TuningSettings(seed=asked.seed))
    return {"files": [str(path) for path in paths], "rows": files.rows, "tokens": files.tokens, "of_run": row_id}


def _require_same(row: Row, launch: Launch) -> None:
    if row["result"] is None:
        raise InputError(f"{row['id']}: this run has no result; `optimize resume {row['id']}` goes on with it")
    if row["model"] != launch.target.name:
        raise InputError(f"{row['id']}: a run with {row['model']}, not {launch.target.name}; give -m {row['model']}")
    if changed := changes_since(row, launch, proposes=False):
        raise InputError("\n".join(f"{row['id']}: {what}" for what in changed))


def _tested(history: History, row: Row, task: Task) -> tuple[Any, ...]:
    """The sealed rows that the search opened."""
    base = history.trials(row["id"], [0])[0]["candidate_id"]
    opened = {outcome["example_id"] for outcome in history.outcomes(row["id"], base, "test")}
    return tuple(example for example in task.test if example.id in opened)
