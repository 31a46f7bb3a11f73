"""From the words of a comparison to one that is ready to start: the search behind it, its arms, and what is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.cluster import LOCAL, join_cluster, leave_cluster
from agent.errors import InputError, Problem
from agent.jobs.arguments import require_none
from agent.jobs.customize.arms import (
    ArmSpec,
    CustomizePlan,
    bare_prompt,
    planned_trainings,
    prompt_arms,
    require_arms,
    require_ray,
    require_trainer,
    why_no_soft_prompt,
    why_not_tuned,
)
from agent.jobs.customize.forgetting import other_tasks
from agent.jobs.customize.hosted import HostedPlan, hosted_plan, training_files, training_prompt, write_training_files
from agent.jobs.customize.job import Customize
from agent.jobs.customize.table import FEWEST_TRAIN, curve_sizes
from agent.jobs.launch import Launch
from agent.jobs.locations import open_history
from agent.jobs.recorded import recorded_prompt
from agent.jobs.resume import changes_since
from agent.jobs.session import Work, fetch_weights, price_of
from agent.ledger.query import History, Row, searched, started_with
from agent.models.local import LocalModel
from agent.models.openai import OpenAIModel
from agent.models.provider_jobs import TuningSettings
from agent.options.jobs import CustomizeOptions
from agent.options.shared import SpendingOptions
from agent.programs.prompt import PromptProgram
from agent.prompt.prompt_candidate import PromptCandidate, baseline
from agent.results.customize import CustomizeResult
from agent.task.examples import PLAYED


def checked(
    launch: Launch, asked: CustomizeOptions, download: Callable[[int, int], None] = lambda done, total: None
) -> tuple[list[ArmSpec], list[int]]:
    """The arms that are compared and the numbers of rows besides all, before anything is searched or trained.

    Args:
        download: is told bytes of weights as they come, where a soft prompt needs the model's tokenizer.

    Raises:
        InputError: arms are not known or cannot be trained for this task and model, or an option is wrong; all of it.
        BudgetRefused: a training at the provider may cost more than the cap with the user's own prompt.
    """
    task = launch.task
    if task.program:
        raise InputError(f"{task.name}: a program of your own; only prompts and models are compared")
    if task.user is not None:
        raise InputError(f"{task.name}: {PLAYED}; a model is trained on conversations as they were (type conversation)")
    specs, problems = require_arms(asked.arms)
    tuned = [spec for spec in specs if spec.is_trained_here]
    local = launch.model if isinstance(launch.model, LocalModel) else None
    base = local.path if local else None
    few = ""
    if len(task.train) < FEWEST_TRAIN:
        few = f"{len(task.train)} train rows are too few to train on; give at least {FEWEST_TRAIN}"
    why = (why_not_tuned(task, launch.model.name, base) or few) if tuned else ""
    if why and asked.arms:
        problems.append(Problem(f"--arms {tuned[0].name}", why))
    soft = [spec for spec in tuned if spec.method == "soft prompt"]
    if soft and not why and local:
        fetch_weights([local.name], download)
        asked_first = PromptProgram(task, local).request(bare_prompt(task), task.train[0]).messages
        if no := why_no_soft_prompt(local.path, asked_first):
            problems.append(Problem(f"--arms {soft[0].name}", no))
    problems += require_trainer(asked, tuned if asked.arms else [], base)
    sizes, wrong = curve_sizes(str(asked.curve), len(task.train))
    require_none([*problems, *wrong, *require_ray(asked, tuned)])
    if _hosted(launch, specs, asked, baseline(task)) and few:
        raise InputError(f"--arms hosted: {few}")
    return [spec for spec in specs if not why or spec not in tuned], sizes


def _hosted(
    launch: Launch, specs: Sequence[ArmSpec], asked: CustomizeOptions, best: PromptCandidate
) -> HostedPlan | None:
    """The training at the model's provider, where that is asked for. Raises what `hosted_plan` raises."""
    spec = next((spec for spec in specs if spec.method == "hosted"), None)
    if spec is None:
        return None
    options, price = launch.options, asked.train_price
    return hosted_plan(spec, launch.task, launch.model, best, price, price_of(options), options.max_cost, options.seed)


def require_cluster(asked: CustomizeOptions) -> None:
    """Ask for the cluster before a search is paid for; one of this machine is started when it is needed. Raises
    InputError where none answers."""
    if asked.ray not in (None, LOCAL):
        leave_cluster(join_cluster(asked.ray, "--ray"))


def finished_search(launch: Launch, db: Path) -> str:
    """The id of the latest complete search of this very task, rows (`--limit`), model and limit on examples
    (`--max-examples`) in the ledger; "" for none."""

    def is_same(row: Row) -> bool:
        if row["status"] != "complete" or not row["result"] or (row["options"] or {}).get("command"):
            return False
        began, asked = started_with(row), launch.asked
        if began.migrates or (began.limit, began.max_examples) != (asked.limit, asked.max_examples):
            return False
        return row["model"] == launch.model.name and not changes_since(row, launch, proposes=False)

    if not db.is_file():
        return ""
    with closing(open_history(db)) as history:
        return next((str(row["id"]) for row in history.runs() if is_same(row)), "")


def dry_run(launch: Launch, run: str, asked: CustomizeOptions, db: Path) -> dict[str, Any]:
    """What a comparison would do, JSON-ready; calls nothing.

    Args:
        run: a finished search; "": one would be made first, and how many calls follow it is not known.

    Raises:
        InputError: as `prepare_customize`.
    """
    if run:
        plan = planned(launch, run, asked, db)
        tuned, sizes, calls = plan.tuned, plan.sizes, plan.calls
        arms = [*plan.prompts] + [spec.name for spec in tuned]
        arms += ["hosted"] * (plan.hosted is not None) + ["no-model"] * plan.has_classic
    else:
        specs, sizes = checked(launch, asked)
        tuned, calls = [spec for spec in specs if spec.is_trained_here], None
        arms = [spec.name for spec in specs]
    count, line = planned_trainings(tuned, asked, sizes)
    about = {"task": launch.task.name, "model": launch.model.name, "of_run": run, "arms": arms}
    return {**about, "trainings": count, "trainings_text": line, "calls": calls}


def prepare_customize(launch: Launch, run: str, asked: CustomizeOptions, db: Path) -> Work[CustomizeResult]:
    """A comparison that is ready to start; calls nothing.

    Args:
        run: a finished search of this task and these models.

    Raises:
        InputError: the search is of another task or model, or arms cannot be trained.
    """
    plan = planned(launch, run, asked, db)
    options = comparison_options(launch)
    return Work(
        "customize",
        "customized",
        lambda session: Customize(plan, session).work(),
        plan.task,
        launch.lms(),
        options,
        plan.calls,
        options.budget_for(plan.calls),
        chained=("of_run", "model", "rows", "arms", "advice", "curve", "status"),
        seed=launch.options.seed,
        after_interrupt="interrupted; the same command goes on: replies are in the ledger, epochs in a checkpoint",
    )


def comparison_options(launch: Launch) -> SpendingOptions:
    """The options of a comparison: those of its search, whose caps on calls, tokens and time hold for itself alone."""
    return launch.asked.part(SpendingOptions).model_copy(update={"max_calls": None, "max_tokens": None})


def planned(launch: Launch, run: str, asked: CustomizeOptions, db: Path) -> CustomizePlan:
    """The plan of a comparison, as `prepare_customize` takes it."""
    specs, sizes = checked(launch, asked)
    target = launch.model
    with closing(open_history(db)) as history:
        row, best = _searched(history, run, launch)
        base = history.trials(row["id"], [0])[0]["candidate_id"]
        opened = {outcome["example_id"] for outcome in history.outcomes(row["id"], base, "test")}
        task = replace(launch.task, test=tuple(example for example in launch.task.test if example.id in opened))
        prompts = prompt_arms(history, row, specs)
    return CustomizePlan(
        task=task,
        lm=target,
        judges=launch.judges,
        run=row["id"],
        best=best,
        prompts=prompts,
        specs=specs,
        base=target.path if isinstance(target, LocalModel) else Path(),
        folder=db.parent,
        asked=asked,
        seed=launch.options.seed,
        sizes=sizes,
        hosted=_hosted(launch, specs, asked, best),
        others=other_tasks(task.name) if any(spec.is_trained_here for spec in specs) else (),
    )


def export_training(launch: Launch, run: str, folder: Path, db: Path) -> dict[str, Any]:
    """Write what a training at the provider would upload, and the commands for it; call nothing.

    Args:
        run: a finished search, whose best instruction is trained with. "": the user's own prompt is.

    Returns:
        What was written: `files`, `rows`, `tokens` (at most, in an epoch), `of_run`.

    Raises:
        InputError: the model is none that a provider trains, or the files cannot be written.
    """
    task, target, prompt, row_id = launch.task, launch.model, baseline(launch.task), ""
    if not isinstance(target, OpenAIModel):
        raise InputError(f"--export-only: {target.name}: name a provider's model, openai/NAME, with -m")
    if task.program:
        raise InputError(f"{task.name}: a program of your own; only prompts are written for training")
    if task.user is not None:
        raise InputError(f"{task.name}: {PLAYED}; write conversations as they were (type conversation)")
    if run:
        with closing(open_history(db)) as history:
            row, prompt = _searched(history, run, launch)
            row_id = row["id"]
    files = training_files(task, target, training_prompt(prompt))
    paths = write_training_files(folder, files, target, TuningSettings(seed=launch.options.seed))
    return {"files": [str(path) for path in paths], "rows": files.rows, "tokens": files.tokens, "of_run": row_id}


def _searched(history: History, run: str, launch: Launch) -> tuple[Row, PromptCandidate]:
    """A finished search of this task and model, and its winner. Raises InputError for another."""
    row = searched(history.run(run))
    if row["result"] is None:
        raise InputError(f"{row['id']}: this run has no result; `optimize resume {row['id']}` goes on with it")
    if row["model"] != launch.model.name:
        raise InputError(f"{row['id']}: a run with {row['model']}, not {launch.model.name}; give -m {row['model']}")
    if changed := changes_since(row, launch, proposes=False):
        raise InputError("\n".join(f"{row['id']}: {what}" for what in changed))
    return row, recorded_prompt(history.candidate(row["result"]["winner"]["candidate_id"]))
