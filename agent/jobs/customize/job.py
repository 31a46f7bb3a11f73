"""`optimize customize`: compare prompts, trained models and methods without a language model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

from agent.cluster import LOCAL, join_cluster, leave_cluster
from agent.errors import InputError
from agent.jobs.customize.compare import compare
from agent.jobs.customize.hosted import require_service, training_files, training_prompt, write_training_files
from agent.jobs.customize.plan import CustomizePlan, finished_search, planned, require_prompts, searched_for
from agent.jobs.launch import Launch, prepare, search_of
from agent.jobs.locations import open_history
from agent.jobs.registry import After, job
from agent.jobs.work import Work
from agent.models.openai import OpenAIModel
from agent.models.provider_jobs import TuningSettings
from agent.observer import Observer
from agent.options.jobs import CustomizeOptions
from agent.options.option import JobOptions, option
from agent.options.run import RecordedOptions, RunOptions
from agent.options.shared import COMPARISON, LedgerOption, PlanOption, SpendingOptions
from agent.prompt.prompt_candidate import baseline
from agent.report.blocks import Block, text
from agent.results.base import Result, hidden
from agent.results.customize import CustomizeResult
from agent.search.registered import STRATEGIES
from agent.tracking.tracker import TRACKERS


class ExportOption(JobOptions):
    """Writes training files instead of comparing."""

    export_only: Path | None = option(
        None,
        "Write training files and the commands to start a training into DIR; call nothing.",
        COMPARISON,
        metavar="DIR",
    )


@job("customize", asks="comparing the arms", tracks=True, registries={"strategy": STRATEGIES, "track": TRACKERS})
def customize(
    task: str,
    options: CustomizeOptions,
    search: RunOptions,
    files: ExportOption,
    plan: PlanOption,
    ledger: LedgerOption,
    *,
    observer: Observer,
) -> Work[CustomizeResult] | After[CustomizeResult] | PlannedComparison | ExportedRows:
    """Compare prompts, trained models and no language model on one sealed test.

    TASK is as for `optimize run`. Prompts come from a finished search of the task, or a new one. Adapters (LoRA) and
    soft prompts are trained here, on the CPU, for local models; `--arms full` trains all weights of a copy; `--arms
    hosted` uploads your rows, and the model's provider trains it. The table shows the score, cost and time of each arm,
    and a stated rule recommends one. After a kill or an interrupt, run the same command to continue.
    """
    db, recorded = ledger.db, search.changed_to(RecordedOptions, task=task)
    launch = prepare(recorded, db, observer)
    if files.export_only is not None:
        return _export(launch, options.run or finished_search(launch, db), files.export_only, db)
    if plan.dry_run:
        return _dry_run(planned(launch, options.run or finished_search(launch, db), options, db, observer))
    return comparison(launch, partial(prepare, recorded, db, is_new=False), options, db, observer)


def comparison(
    launch: Launch, again: Callable[[], Launch], asked: CustomizeOptions, db: Path, observer: Observer
) -> Work[CustomizeResult] | After[CustomizeResult]:
    """Prepare a comparison, after a search unless a finished one exists. Raises what `planned` raises.

    `again` prepares the same run, as the models of a search are closed after it.
    """
    plan = planned(launch, asked.run or finished_search(launch, db), asked, db, observer)
    if plan.run:
        return _work(plan)
    if asked.ray not in (None, LOCAL):
        leave_cluster(join_cluster(asked.ray, "--ray"))
    if "hosted" in asked.arms:
        require_service(launch.model)
    return After(search_of(launch), lambda result: _work(planned(again(), result.run_id, asked, db)))


def _work(plan: CustomizePlan) -> Work[CustomizeResult]:
    launch = plan.launch
    options = launch.asked.part(SpendingOptions).model_copy(update={"max_calls": None, "max_tokens": None})
    return Work(
        "customize",
        "customized",
        lambda session: compare(session, plan),
        plan.task,
        launch.lms(),
        options,
        plan.calls,
        options.budget_for(plan.calls),
        chained=("of_run", "model", "rows", "arms", "advice", "curve", "status"),
        use_cache=launch.options.cache,
        seed=launch.options.seed,
        after_interrupt="interrupted; run the same command to continue: replies and epochs are saved",
    )


class PlannedComparison(Result):
    """The plan of a comparison; `of_run`: the search behind it, "" before one exists."""

    task: str
    model: str
    of_run: str
    arms: tuple[str, ...]
    trainings: int
    trainings_text: str
    calls: int | None
    said: str = hidden()

    def blocks(self) -> Iterator[Block]:
        yield text(f"{self.task} on {self.model}: {', '.join(self.arms)}", self.trainings_text, self.said, exact=True)


class ExportedRows(Result):
    """Training files, and the run whose instruction they use ("": your own prompt)."""

    files: tuple[str, ...]
    rows: int
    tokens: int
    of_run: str

    def blocks(self) -> Iterator[Block]:
        whose = f"the best instruction of {self.of_run}" if self.of_run else "your own prompt (no finished search yet)"
        said = f"{self.rows:,} train rows, at most {self.tokens:,} tokens per epoch, with {whose}"
        yield text(said, *self.files, exact=True)


def _dry_run(plan: CustomizePlan) -> PlannedComparison:
    said = "first a search (`optimize run --dry-run` shows its calls), then the comparison"
    if plan.run:
        said = f"at most {plan.calls:,} calls; prompts from {plan.run}"
    count, trainings = plan.trainings
    return PlannedComparison(
        task=plan.task.name,
        model=plan.launch.model.name,
        of_run=plan.run,
        arms=tuple(plan.names),
        trainings=count,
        trainings_text=trainings,
        calls=plan.calls if plan.run else None,
        said=said,
    )


def _export(launch: Launch, run: str, folder: Path, db: Path) -> ExportedRows:
    task, target, prompt, row_id = launch.task, launch.model, baseline(launch.task), ""
    if not isinstance(target, OpenAIModel):
        raise InputError(f"--export-only: {target.name}: name a provider's model, openai/NAME, with -m")
    require_prompts(task)
    if run:
        with closing(open_history(db)) as history:
            row, prompt = searched_for(history, run, launch)
            row_id = row["id"]
    files = training_files(task, target, training_prompt(prompt))
    paths = [*map(str, write_training_files(folder, files, target, TuningSettings(seed=launch.options.seed)))]
    return ExportedRows(files=tuple(paths), rows=files.rows, tokens=files.tokens, of_run=row_id)
