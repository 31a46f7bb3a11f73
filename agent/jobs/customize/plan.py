"""What a comparison compares, what prevents it, and how many calls it takes. Calls nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from agent.cluster import LOCAL
from agent.errors import InputError, Problem
from agent.jobs.arguments import require_none
from agent.jobs.customize.arms import ARMS, ArmSpec, MadeArm, prompt_arms
from agent.jobs.customize.forgetting import QUESTIONS, other_tasks
from agent.jobs.customize.hosted import HostedPlan, hosted_plan
from agent.jobs.customize.table import FEWEST_TRAIN, curve_sizes
from agent.jobs.customize.trainer import require_ray, training_problems
from agent.jobs.launch import Launch
from agent.jobs.locations import open_history
from agent.jobs.recorded import recorded_prompt
from agent.jobs.resume import changes_since
from agent.ledger.query import History, Row, searched, started_with
from agent.observer import NO_OBSERVER, Observer
from agent.options.jobs import CustomizeOptions
from agent.prompt.parts.kinds import TaskParts
from agent.prompt.parts.picks import of_pool
from agent.prompt.prompt_candidate import PromptCandidate, baseline
from agent.safe_text import near
from agent.scoring.llm_judge import judge_calls
from agent.task.examples import PLAYED
from agent.types import Task

LATENCY_ROWS = 5
"""Dev rows that are asked in turn to time a call."""


@dataclass(frozen=True, kw_only=True)
class CustomizePlan:
    """What is compared.

    Args:
        launch: the task with the sealed rows that the search opened, and the models.
        run: the search that the prompts come from; "" before one exists.
        best: its winner.
        prompts: by arm, `yours` first.
        folder: of the ledger; it also keeps adapters, checkpoints and releases.
        sizes: smaller numbers of train rows that the arms also learn from, ascending.
        hosted: the arm that the model's provider trains, if any.
    """

    launch: Launch
    asked: CustomizeOptions
    run: str
    best: PromptCandidate
    prompts: Mapping[str, PromptCandidate]
    specs: Sequence[ArmSpec]
    folder: Path
    sizes: Sequence[int]
    hosted: HostedPlan | None

    @property
    def task(self) -> Task:
        return self.launch.task

    @property
    def tuned(self) -> list[ArmSpec]:
        """Arms to train here."""
        return [spec for spec in self.specs if spec.is_trained_here]

    @property
    def has_classic(self) -> bool:
        """Whether methods without a language model take part."""
        return any(spec.method == "no model" for spec in self.specs)

    @property
    def names(self) -> list[str]:
        """Names of the arms that take part."""
        tuned = [spec.name for spec in self.tuned]
        return [*self.prompts, *tuned, *["hosted"] * (self.hosted is not None), *["no-model"] * self.has_classic]

    @cached_property
    def others(self) -> tuple[Task, ...]:
        """Shipped tasks whose rows tuned arms are also asked."""
        return other_tasks(self.task.name) if self.tuned else ()

    @property
    def ray(self) -> str | None:
        """Address of the Ray cluster that trains; None: this process trains."""
        return (self.asked.ray or (LOCAL if self.asked.tune else None)) if self.tuned else None

    @property
    def learning(self) -> list[ArmSpec]:
        """Return the arms of the label curve that need calls."""
        picks = [name for name, prompt in self.prompts.items() if prompt.must_prove]
        picking = "retrieved" if "retrieved" in picks else next(iter(picks), "")
        return [*([ARMS[picking]] if picking else []), *self.tuned]

    def prompt_arms(self, specs: Sequence[ArmSpec], task: Task) -> list[MadeArm]:
        """Return the arms of a search for a task with these train rows."""
        made = []
        for spec in specs:
            prompt = self.prompts[spec.name]
            if task is not self.task:
                prompt = of_pool(prompt, TaskParts(task))
            made.append(MadeArm(spec, prompt, self.launch.model, len(prompt.learnt_from(task))))
        return made

    @property
    def trainings(self) -> tuple[int, str]:
        """Number of trainings, and a description in a line."""
        tuned, asked, sizes = self.tuned, self.asked, len(self.sizes)
        if not tuned:
            return 0, "no training on this machine"
        count = len(tuned) * (asked.tried + asked.seeds - 1 + sizes)
        parts = [f"{asked.tried} settings on dev"] * (asked.tried > 1) + [f"{asked.seeds} seeds"] * (asked.seeds > 1)
        parts += [f"{sizes} smaller numbers of rows"] * bool(sizes)
        names = ", ".join(spec.name for spec in tuned)
        return count, f"{count} trainings ({names}{': ' if parts else ''}{', '.join(parts)})"

    @property
    def calls(self) -> int:
        """Calls at most."""
        judged, trained = 1 + judge_calls(self.task), len(self.tuned)
        tuned = trained + (self.hosted is not None)
        rows = (len(self.task.test) + LATENCY_ROWS) * judged * (len(self.prompts) + tuned)
        general = (len(QUESTIONS) + sum(len(task.dev) for task in self.others)) * (1 + tuned) if tuned else 0
        again = trained * (self.asked.seeds - 1) + len(self.sizes) * len(self.learning)
        return rows + general + again * len(self.task.test) * judged


def planned(
    launch: Launch, run: str, asked: CustomizeOptions, db: Path, observer: Observer = NO_OBSERVER
) -> CustomizePlan:
    """Plan a comparison and check all options.

    Without a finished search (`run` "") the user's own prompt replaces those that a search will find.

    Raises:
        InputError: all problems of arms and options; or the search is of another task or model.
        BudgetRefused: a training at the provider may cost more than the cap.
    """
    task, best = launch.task, baseline(launch.task)
    require_prompts(task)
    specs, problems = require_arms(asked.arms)
    tuned = [spec for spec in specs if spec.is_trained_here]
    few = ""
    if len(task.train) < FEWEST_TRAIN:
        few = f"{len(task.train)} train rows are too few to train on; give at least {FEWEST_TRAIN}"
    why, against = training_problems(launch, asked, tuned, few, observer)
    sizes, wrong = curve_sizes(str(asked.curve), len(task.train))
    require_none([*problems, *against, *wrong, *require_ray(asked, tuned)])
    prompts: Mapping[str, PromptCandidate] = {spec.name: best for spec in specs if spec.method == "prompt"}
    if run:
        with closing(open_history(db)) as history:
            row, best = searched_for(history, run, launch)
            run, base = row["id"], history.trials(row["id"], [0])[0]["candidate_id"]
            opened = {outcome["example_id"] for outcome in history.outcomes(run, base, "test")}
            task = replace(task, test=tuple(example for example in task.test if example.id in opened))
            prompts = prompt_arms(history, row, specs)
    hosted = next((hosted_plan(spec, launch, asked, best) for spec in specs if spec.method == "hosted"), None)
    if hosted and few:
        raise InputError(f"--arms hosted: {few}")
    return CustomizePlan(
        launch=replace(launch, task=task),
        asked=asked,
        run=run,
        best=best,
        prompts=prompts,
        specs=[spec for spec in specs if not why or spec not in tuned],
        folder=db.parent,
        sizes=sizes,
        hosted=hosted,
    )


# -- the search behind it ---------------------------------------------------------------------------------------------


def finished_search(launch: Launch, db: Path) -> str:
    """Return the latest complete search of this task, rows, limits and model. "" for none."""

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


def require_prompts(task: Task) -> None:
    """Raise InputError for a task with its own program or a simulated user."""
    if task.program:
        raise InputError(f"{task.name}: it has its own program; only prompts and models are compared")
    if task.user is not None:
        raise InputError(f"{task.name}: {PLAYED}; train on recorded conversations (type conversation)")


def searched_for(history: History, run: str, launch: Launch) -> tuple[Row, PromptCandidate]:
    """Return a finished search of this task and model, and its winner. Raises InputError for another."""
    row = searched(history.run(run))
    if row["result"] is None:
        raise InputError(f"{row['id']}: this run has no result; continue it with `optimize resume {row['id']}`")
    if row["model"] != launch.model.name:
        raise InputError(f"{row['id']}: a run with {row['model']}, not {launch.model.name}; give -m {row['model']}")
    if changed := changes_since(row, launch, proposes=False):
        raise InputError("\n".join(f"{row['id']}: {what}" for what in changed))
    return row, recorded_prompt(history.candidate(row["result"]["winner"]["candidate_id"]))


def require_arms(names: Sequence[str]) -> tuple[list[ArmSpec], list[Problem]]:
    """Return the named arms with `yours`, and problems. Without names: the default arms."""
    unknown = [
        Problem(f"--arms {name:.60}", f"no arm of this name{near(name, list(ARMS))}")
        for name in names
        if name not in ARMS
    ]
    wanted = names or [spec.name for spec in ARMS.values() if spec.by_default]
    return [spec for spec in ARMS.values() if spec.name in wanted or spec.name == "yours"], unknown
