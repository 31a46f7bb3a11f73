"""`optimize judge tune`: search for a better judge, and measure it against today's on ratings that were sealed.

The judge is the prompt of an ordinary task whose labels are people's ratings (`task/judge_task.py`), so that search,
ledger, resume, release and rollback are those of every run. What is particular comes after it: whether the tuned judge
agrees better than today's, and is not fooled more.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from agent.errors import OF_A_ROW, BudgetExhausted, InputError
from agent.evaluate import judge_trust as trust
from agent.evaluate import judge_tuning as tuning
from agent.evaluate.score_table import score
from agent.jobs.customize.plan import finished_search
from agent.jobs.judge import RATINGS, JudgedItems, about_judging, judged_arms, judged_by
from agent.jobs.launch import Launch, prepare, search_of
from agent.jobs.locations import open_history
from agent.jobs.promote import promotable
from agent.jobs.registry import DB, After, job
from agent.jobs.session import Session
from agent.jobs.work import Work
from agent.models.model_registry import DEFAULT_MODEL
from agent.observer import NO_OBSERVER, Observer
from agent.options.jobs import TuneOptions
from agent.options.option import option
from agent.options.run import RecordedOptions
from agent.options.shared import BUDGET, SpendingOptions
from agent.programs.moves.asking import Data, messages_about
from agent.programs.moves.evidence import line_of
from agent.prompt.fence import defused
from agent.release.check_report import write_text
from agent.release.completion import parameters_of
from agent.release.export import export_markdown
from agent.release.prompt_file import read_release
from agent.report.blinded import MOST_LOOKED_AT, BlindedAnswer, items_of
from agent.results.judge_tuning import Disagreement, JudgeTuningResult
from agent.results.planned_run import PlannedRun
from agent.scoring.judge_reply import object_schema
from agent.scoring.llm_judge import Judge, JudgeSetup, judge_instruction, judge_setup
from agent.scoring.tuned_judge import TAG, TunedPrompt
from agent.task.from_file import write_task_files
from agent.task.judge_files import RatedItem
from agent.task.judge_task import JudgeTask, split_items
from agent.task.label_files import json_line
from agent.types import LM, Budget, Request, Task

FEWEST = 60  # rated items, of which about 20 are sealed
MEASURED = 4  # the measurement gets a quarter of a cap on tokens or dollars
MOST_APART = 24
GROUP_TOKENS = 600
CHOSEN_FROM = 2  # times as many answers are judged as are named for rating
TUNED = ("rubric", "pairwise")  # modes of judges that can be tuned
JUDGE_FILE, NEXT_FILE = "judge.md", "to_rate.jsonl"


@dataclass(frozen=True, slots=True)
class Tuning:
    """What is tuned, and how it is measured. `task`: what it judges; `plan`: of today's judge on the sealed items."""

    task: Task
    judge: JudgeTask
    plan: trust.CalibrationPlan
    options: TuneOptions

    @property
    def calls(self) -> int:
        """The most calls of the measurement, of both judges."""
        return 2 * (self.plan.calls + CHOSEN_FROM * self.options.next) + 1

    @property
    def budget(self) -> Budget:
        """The part of the caps that the measurement gets."""
        caps = self.options.budget
        calls, tokens = caps.max_calls and self.calls, caps.max_tokens and caps.max_tokens // MEASURED
        return Budget(calls, tokens, caps.max_cost and caps.max_cost / MEASURED)

    @property
    def search(self) -> RecordedOptions:
        """The options of the search, with the rest of the caps. Raises InputError for too few calls."""
        options, kept = self.options, asdict(self.budget)
        if options.max_calls is not None and options.max_calls < (least := self.calls + FEWEST):
            raise InputError(f"--max-calls {options.max_calls}: measuring takes {self.calls}; give {least} at least")
        caps = {name: most - kept[name] for name, most in asdict(options.budget).items() if most is not None}
        own = {"model": self.plan.setup.models[0], "proposer": options.proposer, "seed": options.seed, "tag": TAG}
        return RecordedOptions(**{**options.part(SpendingOptions).as_given, **caps, **own})


@job("judge tune", asks="measuring the tuned judge")
def tune(
    task: str | None = None,
    *,
    options: TuneOptions,
    dry_run: bool = option(False, "Print the priced plan of the search; call nothing.", BUDGET),
    observer: Observer,
    db: Path = DB,
) -> After[JudgeTuningResult] | Work[JudgeTuningResult] | PlannedRun:
    """Search for a judge that agrees better with people, and measure it on sealed ratings.

    The columns of the ratings are named as for `optimize judge calibrate`. The judge becomes the prompt of the task
    tasks/NAME_judge, which is written once and then yours to edit; its search is an ordinary run. The tuned judge is
    held back if its agreement is not shown to be better than that of today's judge, or if it is fooled more: by
    non-answers, by length, style and pleas, and with pairs by their order. After `optimize promote RUN` a task names it
    under [[metrics]]: name = "judge", judge = "NAME_judge@production". Repeating the command measures without a second
    search.
    """
    if len(options.judge) > 1:
        raise InputError("--judge: tune one model at a time; a panel of tuned judges is one metric for each")
    judged, columns, plan = judged_by(task, options, FEWEST)
    if plan.setup.mode not in TUNED:
        raise InputError(f"{judged.name}: its judge goes by {plan.setup.mode}; only rubrics and pairs can be tuned")
    name, split = options.name or f"{judged.name}_judge", split_items(plan.items)
    judge = JudgeTask(name, judge_instruction(plan.setup), columns, split, defused)
    files, setup = judge.files(plan.labels), replace(plan.setup, models=plan.setup.models[:1])
    found = Tuning(judged, judge, replace(plan, setup=setup, items=split["test"], changes=tuning.CHANGES), options)
    asked = found.search

    def written(folder: Path, observer: Observer = NO_OBSERVER) -> Launch:
        if folder.is_dir():  # its task.toml is the user's
            for file, text in files.items():
                write_text(folder / file, text)
        else:
            write_task_files(folder, {"task.toml": judge.toml, **files})
        return prepare(asked.changed(task=str(folder)), db, observer)

    with TemporaryDirectory() as elsewhere:  # whatever is wrong is refused before the folder is written
        priced = written(Path(elsewhere, name)).planned()
        if dry_run:
            return priced
        if db.exists():
            open_history(db).close()
    launch = written(Path("tasks", name), observer)
    if run := finished_search(launch, db):
        return _measurement(found, run, launch, db)
    return After(search_of(launch), lambda result: _measurement(found, result.run_id, prepare(launch.asked, db), db))


def judge_first(task: Task, db: Path) -> str:
    """Return why the task's judge should be tuned before a search, or ""."""
    for spec in task.metrics if (Path(task.folder) / RATINGS).is_file() else ():
        setup, known = judge_setup(spec, task, task.model or DEFAULT_MODEL), None
        if spec.name != "judge" or setup.tuned is not None or setup.mode not in TUNED:
            continue
        if db.is_file():
            with closing(open_history(db)) as history:
                known = history.calibration(setup.id, "")
        if known is None or not known["trusted"]:
            kappa = "was never measured" if known is None else f"has kappa {known['kappa'] or 0:.2f} with people"
            return f"the judge {kappa}, so nothing it scores is promoted; first: optimize judge tune {task.name}"
    return ""


def _measurement(found: Tuning, run: str, launch: Launch, db: Path) -> Work[JudgeTuningResult]:
    lm, folder, source = launch.model, Path(launch.task.folder), promotable(run, False, db)
    release, searched = read_release(source.path), source.result
    tuned, before = TunedPrompt(release, release.version, parameters_of(release)), found.plan
    after = replace(before, setup=JudgeSetup(tuned.mode, before.setup.models, "", None, tuned))

    async def measured(asking: Session[JudgeTuningResult], plan: trust.CalibrationPlan) -> tuning.Measured:
        table = await score(asking, judged_arms(asking, plan, [lm]), ())
        return tuning.Measured.of(plan, table, trust.agreement(plan, table, about_judging(asking)).figures)

    async def perform(asking: Session[JudgeTuningResult]) -> JudgeTuningResult:
        was, now = await measured(asking, before), await measured(asking, after)
        verdict, split = tuning.better_judge(after, was, now), found.judge.split
        people, *yardsticks = tuning.comparators(after, [*split["train"], *split["dev"]])
        groups = await _disagreements(asking, launch.proposer, tuning.apart(after, now.verdicts, MOST_APART))
        judges = [Judge(plan.setup, [lm], asking.gateway) for plan in (before, after)]
        rated_run, to_rate = "", list[RatedItem]()
        with suppress(BudgetExhausted, InputError):  # the measurement stands without them
            rated_run, to_rate = await _worth_rating(found, asking, judges)
        figures = now.figures.model_dump(include={"kappa", "ci95", "trusted"})
        provenance = {**release.provenance, "judge": {**figures, "run_id": asking.id}}
        write_text(folder / JUDGE_FILE, export_markdown(replace(release, provenance=provenance)))
        if to_rate:
            write_text(folder / NEXT_FILE, "".join(json_line({"item": item.id, **item.inputs}) for item in to_rate))
        return JudgeTuningResult(
            **about_judging(asking, "proposer"),
            of_run=searched.run_id,
            labels=before.labels.name,
            model=lm.name,
            mode=tuned.mode,
            decision=searched.decision,
            before=was.figures,
            after=now.figures,
            **verdict.figures.named("gain"),
            held=verdict.messages,
            held_codes=tuple(reason.code for reason in verdict.reasons),
            people=people,
            yardsticks=tuple(yardsticks),
            disagreements=groups,
            to_rate=str(folder / NEXT_FILE) if to_rate else "",
            rated_run=rated_run,
            rated_next=len(to_rate),
            judge=str(folder / JUDGE_FILE),
        )

    return Work(
        "judge_tuning",
        "judge_calibrated",
        perform,
        launch.task,
        launch.lms(),
        found.options.part(SpendingOptions),
        found.calls,
        found.budget,
        command="judge tune",
        chained=lambda result: {**result.to_json()["after"], "held": result.held, "of_run": result.of_run},
        seed=found.options.seed,
        opening=f"today's judge and the tuned one on {len(before.items)} sealed items of {before.labels.name}",
        parent=searched.run_id,
    )


async def _disagreements(
    asking: Session[Any], proposer: LM | None, items: Sequence[tuple[RatedItem, float]]
) -> tuple[Disagreement, ...]:
    if proposer is None or not items:
        return ()
    shown = [[*(f"{name}: {text}" for name, text in item.inputs.items()), *item.answers] for item, _ in items]
    texts = ["\n".join(map(line_of, parts)) for parts in shown]
    heads = [f"{at}. people {item.mean:.2f}, judge {value:.2f}:\n" for at, (item, value) in enumerate(items, 1)]
    messages = messages_about(_GROUP, [(head, Data(text)) for head, text in zip(heads, texts, strict=True)])
    request = Request(messages, GROUP_TOKENS, json_schema=json.dumps(_GROUPS))
    try:
        reply = await asking.gateway.complete("proposer", proposer, request)
        groups = json.loads(reply.text)["groups"]
        named = {at: line_of(group["name"]) for group in reversed(groups) for at in group["items"]}
    except (*OF_A_ROW, BudgetExhausted, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ()
    found = {name: [text for at, text in enumerate(texts, 1) if named.get(at) == name] for name in named.values()}
    made = [Disagreement(name=defused(name), items=len(own), examples=tuple(own[:2])) for name, own in found.items()]
    return tuple(sorted((group for group in made if group.name and group.items), key=lambda group: -group.items))


_GROUP = (
    "You are a reviewer. A judge rated answers, from 0 (worst) to 1 (best), and people disagree with it on these. "
    "Group the numbers by why the judge is wrong, and name each group in one sentence. "
    'Write one JSON object: {"groups": [{"name": "...", "items": [1, 2]}]}'
)
_NUMBERS = {"type": "array", "maxItems": MOST_APART, "items": {"type": "integer"}}
_NAMED = object_schema({"name": {"type": "string", "maxLength": 200}, "items": _NUMBERS})
_GROUPS = object_schema({"groups": {"type": "array", "maxItems": 6, "items": _NAMED}})


async def _worth_rating(found: Tuning, asking: Session[Any], judges: Sequence[Judge]) -> tuple[str, list[RatedItem]]:
    """Return the task's last run, and its answers that divide the judges most."""
    task, count, (field, *other) = found.task, found.options.next, found.judge.columns.answers
    run, answers = "", list[BlindedAnswer]()
    with closing(open_history(asking.ledger.path)) as history:
        for row in history.runs() if count and task.dev and not other else ():
            of_task = row["task"] == task.name and row["hashes"].get("dev") == task.hashes.get("dev")
            if of_task and row["result"] and (answers := items_of(history, row["id"], task, field, MOST_LOOKED_AT)):
                run = row["id"]
                break
    known = {item.id for items in found.judge.split.values() for item in items}
    unrated = [RatedItem(each.item, each.inputs, (each.answer,)) for each in answers if each.item not in known]
    items = unrated[: CHOSEN_FROM * count]
    table = await score(asking, [JudgedItems(asking, judge, items).arm(judge.setup.id) for judge in judges], ())
    one, two = (tuning.by_item(table.first(judge.setup.id)) for judge in judges)
    rated = [(item, one[item.id], two[item.id]) for item in items if item.id in one and item.id in two]
    return run, tuning.worth_rating(rated, count)
