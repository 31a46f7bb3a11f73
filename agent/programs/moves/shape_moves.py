"""Moves of the shape of a JSON answer, and the operator of the proposer on the descriptions of its fields."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from agent.metrics.json_values import expected_and_got, field_value
from agent.programs.moves.asking import Ask, Draft, continued, retold, value_question
from agent.programs.moves.evidence import Evidence
from agent.programs.moves.part_moves import OWN, Made, VariantMaker
from agent.prompt.parts.kinds import PARTS
from agent.prompt.parts.shape import LAYOUTS, REASONS, AnswerShape, answer_schema, shaped_schema
from agent.prompt.prompt_candidate import PromptCandidate, as_prompt, baseline
from agent.search.program import Choices
from agent.search.study import Place
from agent.types import Example, Outcome, Task

MOST_VALUES, MOST_LETTERS = 3, 40  # example values of a field, and the letters of each
FEWEST_ROWS, MOST_ROWS = 2, 5  # with a wrong value, for a description of the proposer
WrongValues = list[tuple[Example, str]]  # rows, each with the wanted and the given value


def field_names(task: Task) -> tuple[str, ...]:
    """Return the fields whose shape a search moves; () for none."""
    outputs, is_used = task.signature.outputs, task.space.shape and not task.tools
    is_json = len(outputs) == 1 or re.search(r"\bjson\b", task.instruction, re.IGNORECASE)
    schema = answer_schema(outputs) if is_used and is_json else None
    return tuple(schema["properties"]) if schema else ()


def wrong_fields(task: Task, outcomes: Sequence[Outcome], dev: Mapping[str, Example]) -> dict[str, WrongValues]:
    """Return the fields with wrong values, the worst first, with rows and values."""
    names, found = field_names(task), dict[str, WrongValues]()
    for outcome in outcomes if names else ():
        row, said = dev.get(outcome.example_id), outcome.prediction.fields
        if row is None or outcome.value is None:
            continue
        (got, label) = (_answer(task, each) for each in (said, row.labels))
        for name in names if said else ():
            if field_value(got, label, name) < 1:
                found.setdefault(name, []).append((row, expected_and_got(got, label, name)))
    return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))


def _answer(task: Task, fields: Mapping[str, object]) -> Mapping[str, object]:
    outputs = task.signature.outputs
    value = fields if len(outputs) > 1 else fields.get(outputs[0].name)
    return value if isinstance(value, Mapping) else {}


def about_field(task: Task, shape: AnswerShape, name: str) -> str:
    """Return the description of a field in a shape."""
    return str(shaped_schema(task.signature.outputs, shape)["properties"][name].get("description", ""))


VARIANTS = (
    ("types", AnswerShape("types")),
    ("example", AnswerShape("example")),
    ("strict", AnswerShape(strict=True)),
    ("reasons", AnswerShape("types", "first")),
    ("reasons", AnswerShape("types", "first", strict=True)),
)
"""The shapes of new designs; of two with one name the later, if the task's own prompt can have it."""


class ShapeMaker(VariantMaker):
    part = coordinate = "shape"

    def __init__(self, task: Task, choices: Choices, rng: random.Random) -> None:
        self._task, self._rng, self._names = task, rng, field_names(task)
        self._dev = {row.id: row for row in task.dev}
        own = baseline(task)
        variants = {name: shape for name, shape in VARIANTS if self._fits(shape, own)}
        super().__init__(choices, {OWN: None, **variants} if self._names else {})

    def _fits(self, shape: AnswerShape, prompt: PromptCandidate) -> bool:
        return not PARTS.get(self.part).why_rejected(shape, prompt, self._task)

    def at(self, place: Place) -> AnswerShape | None:
        """Return the shape of a design, without what its technique and format exclude."""
        shape: AnswerShape | None = super().at(place)
        return shape.fitted(place["technique"], place["format"]) if shape else None

    def operators(self, prompt: PromptCandidate) -> list[str]:
        return [] if prompt.format.startswith("dspy-") else ["shape"]

    def child(self, operator: str, old: PromptCandidate, outcomes: Sequence[Outcome]) -> Made | None:
        now = old.part("shape") or AnswerShape()
        others = [(made, why) for made, why in self._changes(now, outcomes) if made != now and self._fits(made, old)]
        if not others:
            return None
        made, reason = self._choices.one("shape", others, lambda change: change[1].split(":")[0])
        return old.having(shape=made.fitted(old.technique, old.format)), reason

    def _changes(self, now: AnswerShape, outcomes: Sequence[Outcome]) -> Iterator[tuple[AnswerShape, str]]:
        order = list(now.order or self._names)
        yield from ((replace(now, layout=name), f"the fields are shown as: {name}") for name in LAYOUTS)
        yield from ((replace(now, reasons=name), f"reasons: {name}") for name in REASONS)
        yield replace(now, strict=not now.strict), f"the schema is {'not ' * now.strict}sent"
        visible = replace(now, layout="types") if now.layout == "none" and not now.strict else now
        yield replace(visible, order=tuple(self._rng.sample(order, len(order)))), "another order of the fields"
        wrong = [*wrong_fields(self._task, outcomes, self._dev)]
        if wrong:
            rest = [name for name in order if name != wrong[0]]
            yield replace(visible, order=(wrong[0], *rest)), f"the field that is wrong most comes first: {wrong[0]}"
            yield replace(visible, order=(*rest, wrong[0])), f"the field that is wrong most comes last: {wrong[0]}"
        for name in (*wrong, *self._names):
            about, examples = about_field(self._task, now, name), self._examples.get(name)
            if examples and examples not in about:
                yield now.with_text(name, continued(about, examples)), f"example values: {name}"
                break
        if now.texts:
            gone = self._rng.choice(now.texts)
            yield replace(now, texts=tuple(text for text in now.texts if text != gone)), f"own description: {gone[0]}"

    @cached_property
    def _examples(self) -> dict[str, str]:
        answers, found = [_answer(self._task, row.labels) for row in self._task.train], dict[str, str]()
        for name in self._names:
            counts = Counter(json.dumps(each[name], ensure_ascii=False) for each in answers if name in each)
            if values := [value for value, _ in counts.most_common() if len(value) <= MOST_LETTERS][:MOST_VALUES]:
                found[name] = f"For example {' or '.join(values)}."
        return found


# -- field_text: how the value of a field is found that comes out wrong ------------------------------------------------


def wrong_field(evidence: Evidence) -> tuple[str, WrongValues] | None:
    """Return the field that is wrong most often and was not asked for yet."""
    if as_prompt(evidence.best.proposal.candidate).format.startswith("dspy-"):
        return None
    wrong = wrong_fields(evidence.task, evidence.best.outcomes, evidence.dev).items()
    several = {name: rows[:MOST_ROWS] for name, rows in wrong if len(rows) >= FEWEST_ROWS}
    return next((each for each in several.items() if ("field_text", "", each[0]) not in evidence.history.asked), None)


async def field_text(evidence: Evidence, found: tuple[str, WrongValues], ask: Ask) -> list[Draft]:
    name, rows = found
    evidence.history.asked.add(("field_text", "", name))
    shape = as_prompt(evidence.best.proposal.candidate).part("shape") or AnswerShape()
    own = about_field(evidence.task, shape, name)

    def made(text: str) -> AnswerShape:
        return shape.with_text(name, continued(own, text))

    about = f"{name} comes out wrong ({len(rows)} rows): its description says how it is found"
    question = value_question("field", "a JSON answer", name, rows, evidence.task)
    return await retold(evidence, ask, question, made, about, *(row.id for row, _ in rows))
