"""What the best prompts of a run answer on rows without a label: where they disagree, a label says which is better.

Their calls go through the gateway, under a cap that the user gives. The answers are kept with the run of the ledger
that asked them; `optimize label` looks them up there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from agent.errors import BudgetExhausted, InputError
from agent.evaluate.evaluator import Evaluator
from agent.ledger.query import Row, is_calibrated, started_with
from agent.options.shared import CapOptions
from agent.programs.kinds import program_for
from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.template import label_text
from agent.results.rows import LabelResult
from agent.run.job import Job, Resources
from agent.run.launch import earlier_prices
from agent.run.locations import open_history
from agent.run.prompt_rows import Readable
from agent.run.recorded import recorded_prompt
from agent.run.session import PreparedJob
from agent.run.tasks import task_of
from agent.task.label_files import LabelledTask
from agent.task.label_session import LabelQueue, disagreement
from agent.types import LM, Example, Task

KIND = "label_answers"
MOST_PROMPTS = 3
"""Prompts that are asked: the user's own and the best others."""
AT_ONCE = 100
"""Rows that are begun together. Not all of them: where the budget ends, those that were begun may lack an answer."""


class LabelAnswers(Job[LabelResult]):
    """Each prompt on each row."""

    command, kind, done = "label", KIND, "answered_unlabelled"
    chained = ("of_run", "prompts", "apart", "status")

    def __init__(
        self,
        task: Task,
        prompts: Sequence[PromptCandidate],
        rows: Sequence[Example],
        of_run: str,
        lm: LM,
        resources: Resources,
    ) -> None:
        super().__init__(task, (lm.name,), resources)
        self._prompts, self._rows, self._of_run, self._lm = prompts, rows, of_run, lm

    @property
    def planned(self) -> int:
        return len(self._prompts) * len(self._rows)

    async def work(self) -> LabelResult:
        evaluator = Evaluator(self.task, self._gateway, self._lm, [Readable()], [program_for(self.task, self._lm)])
        field = self.task.signature.outputs[0].name
        answers: dict[str, tuple[str, ...]] = {}
        for start in range(0, len(self._rows), AT_ONCE):
            some = self._rows[start : start + AT_ONCE]
            calls = [evaluator.outcome(prompt, row) for row in some for prompt in self._prompts]
            outcomes = iter(await self.gathered(calls))
            for row in some:
                given = islice(outcomes, len(self._prompts))
                known = [each.prediction.fields.get(field) for each in given if each is not None]
                if len(known) == len(self._prompts):
                    answers[row.id] = tuple("" if value is None else label_text(value) for value in known)
            if self._stopped:  # the budget has ended
                break
        if not answers:
            raise BudgetExhausted(self._stopped)
        return LabelResult(
            run_id=self.id,
            of_run=self._of_run,
            task=self.task.name,
            folder=self.task.folder,
            prompts=len(self._prompts),
            answers=answers,
            apart=sum(disagreement(given) > 0 for given in answers.values()),
            status="budget" if self._stopped else "complete",
            **self.spent(),
        )

    def for_chain(self, result: LabelResult) -> Mapping[str, Any]:
        return {**super().for_chain(result), "rows": len(result.answers)}


def prepare_answers(labelled: LabelledTask, options: CapOptions, db: Path) -> PreparedJob[LabelResult]:
    """Finds the prompts of the last run of this task and the rows to ask; calls nothing.

    Args:
        labelled: the task.
        options: has the caps.
        db: the ledger.

    Raises:
        InputError: there is no such run, no row is left, or the cap is too small for one row.
    """
    from agent.models.model_registry import create_model

    with closing(open_history(db)) as history:
        run = next((row for row in history.runs() if _is_of(row, labelled)), None)
        if run is None:
            raise InputError(
                f"{labelled.name}: no run of this task in {db} yet; label rows, then `optimize run {labelled.folder}`"
            )
        trials = [trial for trial in history.trials(run["id"]) if trial["state"] == "complete"]
        own = [trial for trial in trials if trial["number"] == 0]
        others = [
            trial for trial in trials if trial["number"] and trial["mean"] is not None and not is_calibrated(trial)
        ]
        best = sorted(others, key=lambda trial: (-trial["mean"], trial["number"]))
        found = [history.candidate(trial["candidate_id"]) for trial in [*own, *best]]
        whole = [row for row in found if not (row["picks"] or row["passages"])]  # these look up rows of that run
        prompts = [recorded_prompt(row) for row in whole[:MOST_PROMPTS]]
    begun = started_with(run)
    if len(prompts) < 2:
        raise InputError(f"{run['id']}: fewer than two prompts of it can be asked without its rows; run the task again")
    most = options.max_calls // len(prompts) if options.max_calls else len(labelled.rows)
    rows = _rows(labelled, most)
    if not rows:
        raise InputError(f"{labelled.name}: no row is left to ask, or --max-calls is below {len(prompts)}, for one row")
    task, lm = task_of(begun.model_copy(update={"task": str(labelled.folder)})), create_model(run["model"])
    budget = options.budget_for(len(prompts) * len(rows))
    return PreparedJob(
        lambda resources: LabelAnswers(task, prompts, rows, run["id"], lm, resources),
        [lm],
        budget,
        prices=earlier_prices(begun, run["model"]),
    )


def _is_of(run: Row, labelled: LabelledTask) -> bool:
    """Whether it is a search of this very folder that ended."""
    is_search = bool(run["options"]) and "command" not in run["options"] and run["status"] in ("complete", "budget")
    return is_search and Path(run["folder"]).resolve() == labelled.folder.resolve()


def _rows(labelled: LabelledTask, most: int) -> list[Example]:
    """At most so many rows without a label, spread over all of them."""
    labels = labelled.labels(labelled.log.events())
    queue = LabelQueue([row.text for row in labelled.rows], {})
    left = [at for at, row in enumerate(labelled.rows) if row.id not in labels]
    taken = {at: "" for at, row in enumerate(labelled.rows) if row.id in labels}
    found: list[Example] = []
    while left and len(found) < most:
        at = queue.pick(taken, left)
        left.remove(at)
        taken[at] = ""
        found.append(Example(labelled.rows[at].id, labelled.rows[at].inputs, {}))
    return found


def answers_of(labelled: LabelledTask, db: Path) -> dict[str, tuple[str, ...]]:
    """By row what the prompts of the run that was asked last answered, of all that they were asked; nothing where none
    were."""
    from agent.ledger.connect import is_there

    if not is_there(db):
        return {}
    folder = labelled.folder.resolve()
    with closing(open_history(db)) as history:
        results = [run["result"] or {} for run in history.runs()]  # the latest first
    asked = [LabelResult.from_json(each) for each in results if each.get("kind") == KIND]
    here = [each for each in asked if Path(each.folder).resolve() == folder]
    return {
        row: given
        for result in reversed(here)
        if result.of_run == here[0].of_run
        for row, given in result.answers.items()
    }
