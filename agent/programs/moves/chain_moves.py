"""Moves for chains: texts of each prompt, examples in the last one, changes of good ones.

If the last prompt takes more than the task's inputs, the user's own chain is run on some train rows first (`warmed`),
and the inputs of that prompt become those of the demo.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agent.programs.chain_parts import as_chain
from agent.programs.moves.asking import Asker, replies_to
from agent.programs.moves.author import FAILURES, STYLES, whole_question
from agent.programs.moves.demos import OPERATORS, DemoMaker, DemoSet, demo_kinds, demo_sizes
from agent.programs.moves.evidence import Tried, best_instructions, wrong_rows
from agent.programs.moves.prompt_moves import TextMoves, at, coordinate
from agent.programs.moves.prompt_parts import fewer_examples, shorter_texts
from agent.prompt.techniques import Rewrite, builtin_rewrites
from agent.search.context import SearchContext
from agent.search.program import PROPOSED, Parent
from agent.search.study import Place
from agent.types import FRESH, Candidate, Demo, Example, Proposal, Task

if TYPE_CHECKING:
    from agent.programs.chain import ChainProgram

OWN = "own"


class ChainMoves(TextMoves):
    def __init__(self, context: SearchContext, program: ChainProgram) -> None:
        self._context, self._program, self._proposals = context, program, 0
        self._kinds, self._last, last = demo_kinds(context.task), program.last.name, program.last
        texts = {name: [Rewrite(OWN, laid.system, "the user's words")] for name, laid in program.laid.items()}
        if not program.answers_json:
            made = builtin_rewrites(self._task_of(self._last))
            texts[self._last] += [r for r in made if r.instruction.strip() and not last.wrong(r.instruction)]
        super().__init__(context.task, context.rng, context.choices, texts)
        self._maker: DemoMaker | None = None
        self._sizes: list[int] = []
        missing = sorted(last.variables - {field.name for field in context.task.signature.inputs})
        self._no_demos = f"; no examples yet: {self._last} takes {missing[0]}, no input of the task" if missing else ""
        if not missing:
            self._set_demo_rows(context.task.train)

    def _task_of(self, name: str) -> Task:
        laid, task = self._program.laid[name], self._context.task
        if len(self._program.laid) == 1:
            return replace(task, instruction=laid.system)
        places = ", ".join(f"{{{one}}}" for one in sorted(laid.variables) if f"{{{one}}}" in laid.system)
        about = f"{task.description} It is done by a chain of the prompts {', '.join(self._program.laid)}. "
        about += f"The instruction asked for is the one of {name}{f', which must hold {places}' if places else ''}."
        return replace(task, description=about.strip(), instruction=laid.system)

    def _set_demo_rows(self, rows: Sequence[Example]) -> None:
        last = self._program.last
        if last.turn is None or not last.variables or not rows:
            return
        train = [replace(row, inputs={name: row.inputs[name] for name in sorted(last.variables)}) for row in rows]
        task = replace(self._context.task, train=tuple(train))
        self._sizes, self._maker = demo_sizes(task), DemoMaker(task, self._context.rng)

    def text_of(self, candidate: Candidate, name: str) -> str:
        return as_chain(candidate).texts(name).system

    def with_text(self, candidate: Candidate, name: str, text: str) -> Candidate:
        return as_chain(candidate).with_texts(name, system=text)

    def demos_of(self, candidate: Candidate) -> tuple[Demo, ...]:
        return as_chain(candidate).texts(self._last).demos or ()

    def with_demos(self, candidate: Candidate, demos: tuple[Demo, ...]) -> Candidate:
        return as_chain(candidate).with_texts(self._last, demos=demos)

    def places(self) -> Sequence[Place]:
        places = [self._place({self._last: text.operator}) for text in self.texts[self._last][1:]]
        return places + [self._place({}, kind, str(k)) for k in self._sizes[-3:] for kind in self._kinds[:2]]

    def _place(self, texts: Place, kind: str = "", size: str = OWN) -> Place:
        words = {coordinate(name): texts.get(name, OWN) for name in self.texts}
        return {**words, "kind": kind or self._kinds[0], "size": size}

    def space(self) -> dict[str, tuple[str, ...]]:
        return {**super().space(), "kind": self._kinds, "size": (OWN, *map(str, self._sizes))}

    def fresh(self, place: Place) -> Proposal | None:
        made: Candidate = self._program.baseline()
        operators, reasons, credit = list[str](), list[str](), FRESH
        for name in self.texts:
            text = self.text_at(name, place[coordinate(name)])
            if text.operator != OWN:
                made = self.with_text(made, name, text.instruction)
                operators.append(f"{name}:{text.operator}")
                credit = PROPOSED if text.is_proposed else credit
                reasons.append(at(name, f"{text.reason}{self._no_demos}"))
        if place["size"] != OWN and self._maker is not None:
            drawn: DemoSet = getattr(self._maker, place["kind"])(int(place["size"]))
            made = self.with_demos(made, drawn.demos)
            operators.append(drawn.operator)
            reasons.append(drawn.reason)
        if not operators:
            return None
        return Proposal(made, dict(place), "+".join(operators), None, "; ".join(reasons), credit)

    def operators(self, parent: Parent | None) -> list[str]:
        operators = list[str]()
        if parent is not None:
            if self._maker is not None and self.demos_of(parent.proposal.candidate):
                operators += OPERATORS
            operators.append("compress")
            if any(len(texts) > 1 for texts in self.texts.values()):
                operators.append("instruction")
        if self._context.proposer is not None and self._proposals < self._context.plan.proposals:
            operators.append(PROPOSED)
        return operators

    def due(self, parent: Parent | None) -> str:
        """Request one proposal for each prompt as soon as there is a candidate to change."""
        is_due = self._proposals < len(self.texts) and parent is not None and PROPOSED in self.operators(parent)
        return PROPOSED if is_due else ""

    async def made(self, operator: str, parent: Parent | None, parents: Sequence[Parent]) -> list[Proposal]:
        if operator == PROPOSED:
            return await self._proposed(parent, parents)
        assert parent is not None
        proposal = None
        if operator == "compress":
            proposal = self._shorter(parent)
        elif operator == "instruction":
            proposal = self.reworded(parent)
        elif self._maker is not None:
            proposal = self.redrawn(self._maker, operator, parent, parents)
        return [proposal] if proposal is not None else []

    async def warmed(self, rows: int) -> None:
        """Collect the inputs of the chain's last prompt on train rows, if examples need them."""
        context, last, seen = self._context, self._program.last, self._program.last_inputs
        if not self._no_demos or last.turn is None:
            return
        train = context.task.train[: max(0, min(rows, 3 * max(demo_sizes(context.task), default=0)))]
        await context.evaluator.outcomes(context.baseline, train, "train")
        complete = [
            replace(row, inputs=dict(seen[row.id])) for row in train if set(seen.get(row.id, {})) == last.variables
        ]
        self._set_demo_rows([row for row in complete if all(isinstance(value, str) for value in row.inputs.values())])
        self._no_demos = ""

    async def _proposed(self, parent: Parent | None, parents: Sequence[Parent]) -> list[Proposal]:
        self._proposals += 1
        names = list(self.texts)
        name = names[-1 - (self._proposals - 1) % len(names)]
        tried = best_instructions(self._context.trials, lambda candidate: self.text_of(candidate, name))
        text = await rewritten(self._context, self._task_of(name), tried, parents, self._proposals)
        if text is None:
            return []
        if self._program.laid[name].wrong(text.instruction):  # logged with the reason when it is admitted
            alone = self.with_text(self._program.baseline(), name, text.instruction)
            return [Proposal(alone, self._place({}), f"{name}:{text.operator}", None, text.reason, PROPOSED)]
        self.texts[name].append(text)
        fresh = self.fresh(self._place({name: text.operator}))
        child = self.instructed(parent, text, name) if parent else None
        return [proposal for proposal in (child, fresh) if proposal is not None]

    def _shorter(self, parent: Parent) -> Proposal | None:
        task, old = self._context.task, as_chain(parent.proposal.candidate)
        shorter: list[tuple[str, dict[str, Any], str]] = []
        for prompt in old.prompts:
            laid = self._program.laid[prompt.name]
            short = [(text, why) for text, why in shorter_texts(prompt.system, task) if not laid.wrong(text)]
            shorter += [("text", {"name": prompt.name, "system": text}, why) for text, why in short]
            fewer = fewer_examples(prompt.demos or ())
            shorter += [("examples", {"name": prompt.name, "demos": demos}, why) for demos, why in fewer]
        if not shorter:
            return None
        what, changes, why = self._context.rng.choice(shorter)
        made = old.with_texts(**changes)
        return self.child_of(parent, made, f"compress:{what}", at(changes["name"], why), "compress")


async def rewritten(
    context: SearchContext, task: Task, tried: Tried, parents: Sequence[Parent], number: int
) -> Rewrite | None:
    """Ask for a new instruction, grounded on `tried` ones and on failures. `number` decides the style."""
    if context.proposer is None:
        return None
    failures = [each.line for each in wrong_rows(context.dev, parents[0].outcomes)[:FAILURES]] if parents else []
    style = STYLES[number % len(STYLES)]
    question = whole_question(task, tried, failures, style, context.rng)
    for text in await replies_to(Asker(context, PROPOSED), question):
        context.note("proposal", {"round": context.round, "why": ""}, {"instruction": text})
        return Rewrite(f"proposed-{number}", text, f"the proposer was asked: {style}", is_proposed=True)
    return None
