"""`optimize init --describe`: a task out of a sentence. A proposer drafts labels, definitions, prompt and rows.

    labels -> a definition for each -> the first sentence of the prompt -> synthetic rows, where no file has any

Each is asked for alone and checked; what cannot be used is asked for again in other words, and left out in the end.
No draft is a label: only what people say with `optimize label` comes into train, dev and test.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from agent.errors import BadResponse, BudgetExhausted, InputError, RowRefused
from agent.models.model_registry import DEFAULT_MODEL, create_model
from agent.options.jobs import InitOptions
from agent.prompt.draft_requests import (
    ATTEMPTS,
    Refused,
    definition_request,
    labels_request,
    opening_request,
    read_definition,
    read_labels,
    read_opening,
    read_row,
    row_request,
)
from agent.results.rows import DraftResult
from agent.run.draft_files import DraftPlan, labels_given, require_choice, write_draft
from agent.run.job import Job, Resources
from agent.run.labelling import TEXT, read_unlabelled, verdict_lines
from agent.run.session import PreparedJob
from agent.run.tasks import new_folder
from agent.task.columns import DataColumn
from agent.task.label_files import SYNTHETIC, UnlabelledRow, rows_text
from agent.task.scoring_rule import Asked
from agent.task.task_text import slug, words
from agent.task.words import counted, listed, shown
from agent.types import (
    LM,
    Budget,
    Constraints,
    Field,
    Message,
    Request,
    SearchSpace,
    Signature,
    Task,
    content_id,
)

T = TypeVar("T")
KIND = "draft"
REPLY_TOKENS = 160
GUESSED_LABELS = 6  # for the plan, where the labels are not known


class Drafting(Job[DraftResult]):
    """One draft. Writes the folder when all is there."""

    command, kind, done = "init", KIND, "drafted"
    chained = ("rows", "synthetic", "refused", "labels_from", "status", "model")

    def __init__(self, plan: DraftPlan, lm: LM, resources: Resources) -> None:
        super().__init__(_stand_in(plan), (lm.name,), resources)
        self._plan, self._lm = plan, lm
        self._refused: list[str] = []

    @staticmethod
    def calls(plan: DraftPlan) -> int:
        """The calls that it makes where each first reply can be used."""
        return (not plan.labels) + (len(plan.labels) or GUESSED_LABELS) + 1 + plan.synthetic

    @property
    def planned(self) -> int:
        return self.calls(self._plan)

    async def work(self) -> DraftResult:
        plan = self._plan
        labels = plan.labels or await self._labels()
        definitions: dict[str, str] = {}
        opening, rows = "", list(plan.rows)
        try:
            for label in labels:
                others = list(definitions.values())
                definitions[label] = await self._definition(labels, label, others)
            opening = await self._opening()
            rows += await self._rows(labels, definitions)
        except BudgetExhausted as stop:
            self._stopped = str(stop)
        if not rows:
            raise BudgetExhausted(self._stopped or "no row could be drafted; give your own rows with --from FILE")
        confirmed = write_draft(plan, labels, definitions, opening, rows)
        return DraftResult(
            run_id=self.id,
            task=self.task.name,
            folder=str(plan.folder),
            model=self._lm.name,
            labels={label: definitions.get(label, "") for label in labels},
            labels_from="the user" if plan.labels else _origin(labels, plan.description),
            opening=opening,
            rows=len(rows),
            synthetic=sum(row.source == SYNTHETIC for row in rows),
            confirmed=confirmed,
            refused=len(self._refused),
            why_refused=tuple(_grouped(self._refused)),
            wanted=tuple(verdict_lines(len(labels))),
            status="budget" if self._stopped else "complete",
            **self.spent(),
        )

    def for_chain(self, result: DraftResult) -> Mapping[str, Any]:
        return {**super().for_chain(result), "labels": len(result.labels)}

    async def _labels(self) -> tuple[str, ...]:
        about = self._plan.description
        found = await self._asked(lambda n: labels_request(about, n), lambda text: read_labels(text, about))
        if found is None:
            raise InputError(
                f"{self._lm.name} named no labels that can be used ({self._refused[-1]}); give them: --labels a,b,c"
            )
        return found

    async def _definition(self, labels: Sequence[str], label: str, others: Sequence[str]) -> str:
        about = self._plan.description
        return (
            await self._asked(
                lambda n: definition_request(about, labels, label, n),
                lambda text: read_definition(text, about, label, others),
            )
            or ""
        )

    async def _opening(self) -> str:
        inputs = tuple(map(words, self._plan.inputs)) or (TEXT,)
        return await self._asked(lambda n: opening_request(self._plan.description, inputs, n), read_opening) or ""

    async def _rows(self, labels: Sequence[str], definitions: Mapping[str, str]) -> list[UnlabelledRow]:
        """The synthetic rows, of each label in turn; where the budget ends, those that there are."""
        about, rows, texts = self._plan.description, list[UnlabelledRow](), list[str]()
        by_label: dict[str, list[str]] = {label: [] for label in labels}
        for number in range(self._plan.synthetic):
            label = labels[number % len(labels)]
            meaning, before = definitions[label], by_label[label]
            try:
                text = await self._asked(
                    lambda n, label=label, meaning=meaning, before=before, at=number: (  # type: ignore[misc]
                        row_request(about, label, meaning, before, at + n)
                    ),
                    lambda text, meaning=meaning: read_row(text, about, meaning, texts),  # type: ignore[misc]
                    1 + number,
                )
            except BudgetExhausted as stop:
                self._stopped = str(stop)
                break
            if text is not None:
                before.append(text)
                texts.append(text)
                inputs = {TEXT: text}
                rows.append(UnlabelledRow(content_id("row", inputs), inputs, SYNTHETIC, label))
        return rows

    async def _asked(
        self, ask: Callable[[int], tuple[Message, ...]], read: Callable[[str], T], seed: int = 0
    ) -> T | None:
        """What `read` makes of the first reply that can be used; None where none of ATTEMPTS can."""
        for attempt in range(ATTEMPTS):
            heat = (
                0.9 if seed else 0.7 * (attempt > 0)
            )  # rows are to differ; all else is first asked for without chance
            request = Request(ask(attempt), REPLY_TOKENS, temperature=heat, seed=1000 * seed + attempt)
            try:
                reply = await self._gateway.complete("proposer", self._lm, request)
                return read(reply.text)
            except (Refused, RowRefused, BadResponse) as error:
                self._refused.append(str(error))
        return None


def prepare_draft(name: str, options: InitOptions, asked: Asked) -> tuple[PreparedJob[DraftResult], str]:
    """Checks name, file and labels before anything is called.

    Args:
        name: of the folder.
        options: of the command.
        asked: `--input` and `--ignore`.

    Returns:
        The job, and what will be asked, in a line.

    Raises:
        InputError: a word is wrong, the folder is there, or the file has no rows.
    """
    description = " ".join(options.describe.split())
    if len(description.split()) < 3 or not description.isprintable():
        raise InputError('--describe: say in a sentence what the task is, such as "Sort mails into bug or question"')
    target = next(iter(options.target), "label")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,63}", target) or target in (TEXT, "id", "source", "drafted"):
        raise InputError(f"--target {target}: give a name of letters, digits and underscores, such as label")
    require_choice(asked)
    labels = labels_given(options.labels)
    plan = DraftPlan(new_folder(name), description, target, labels, _columns(target), (), options.rows)
    if options.source:
        columns, rows, confirmed = read_unlabelled(options.source, target, asked)
        plan = replace(plan, columns=columns, rows=tuple(rows), synthetic=0, confirmed=confirmed)
    lm = create_model(options.model or DEFAULT_MODEL)
    job = PreparedJob(
        lambda resources: Drafting(plan, lm, resources), [lm], options.budget_for(ATTEMPTS * Drafting.calls(plan))
    )
    source = options.source
    have = f"{counted(len(plan.rows) or plan.synthetic, 'row')} {f'of {shown(source)}' if source else 'to write'}"
    return job, f"{plan.folder.name}: {lm.name} drafts {listed(labels) or 'labels'}, definitions and a prompt; {have}"


def _columns(target: str) -> tuple[DataColumn, ...]:
    return (DataColumn(TEXT, TEXT, "input", "drafted"), DataColumn(target, target, "target", "the label"))


def _origin(labels: Sequence[str], description: str) -> str:
    """Whether the labels stand in the description, which the user wrote."""
    text = description.casefold()
    return "the description" if all(label.casefold() in text for label in labels) else "the model"


def _grouped(reasons: Sequence[str], most: int = 5) -> list[str]:
    """Each reason once, the most frequent first, with how often it came.

    >>> _grouped(["is there already", "is no instruction", "is there already"])
    ['is there already, 2 times', 'is no instruction']
    """
    return [reason + f", {count} times" * (count > 1) for reason, count in Counter(reasons).most_common(most)]


def _stand_in(plan: DraftPlan) -> Task:
    """The task as the ledger has it while it is drafted."""
    inputs = tuple(Field(name) for name in plan.inputs or (TEXT,))
    digest = hashlib.sha256(rows_text(plan.rows).encode()).hexdigest()
    return Task(
        slug(plan.folder.name),
        plan.description,
        Signature(inputs, (Field(plan.target),)),
        "",
        (),
        SearchSpace((), (), ()),
        Constraints(),
        Budget(),
        (),
        (),
        (),
        str(plan.folder),
        hashes={"unlabelled": digest},
    )
