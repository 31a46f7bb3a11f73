"""How the search makes chains: texts of each prompt, examples in the last one, changes of good ones.

Examples are train rows with the inputs of the last prompt. Where it takes more than the task's inputs, the user's own
chain is run on some train rows first (`warmed`), and what it passed to that prompt is the demo's input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agent.programs.chain_parts import ChainCandidate, as_chain
from agent.programs.moves.asking import Asker, replies_to
from agent.programs.moves.author import FAILURES, STYLES, ScoredInstruction, best_instructions, wrong_rows
from agent.programs.moves.demos import OPERATORS, DemoMaker, DemoSet, demo_kinds, demo_sizes
from agent.programs.moves.operators import whole_question
from agent.programs.moves.prompt_parts import SHARES, dropped, least_useful, tidied, without_a_sentence
from agent.prompt.techniques import Rewrite, builtin_rewrites
from agent.search.context import SearchContext
from agent.search.program import PROPOSED, Parent
from agent.search.study import Place
from agent.types import FRESH, Demo, Example, Proposal, Task

if TYPE_CHECKING:
    from agent.programs.chain import ChainProgram


OWN = "own"


class ChainMoves:
    """The `Moves` of one run."""

    def __init__(self, context: SearchContext, program: ChainProgram) -> None:
        self._context, self._program, self._proposals = context, program, 0
        self._dev = {row.id: row for row in context.task.dev}
        self._texts = {
            name: [Rewrite(OWN, laid.system, "the user's words"), *self._builtin(name)]
            for name, laid in program.laid.items()
        }
        self._maker: DemoMaker | None = None
        self._sizes: list[int] = []
        missing = sorted(program.last.variables - {field.name for field in context.task.signature.inputs})
        self._no_demos = (
            f"; no examples yet: {program.last.name} takes {missing[0]}, no input of the task" if missing else ""
        )
        if not missing:
            self._set_demo_rows(context.task.train)

    def _builtin(self, name: str) -> list[Rewrite]:
        """Rewrites that cost no call: of the prompt that answers, where its reply is text."""
        program = self._program
        if name != program.last.name or program.answers_json:
            return []
        made = builtin_rewrites(self._task_of(name))
        return [r for r in made if r.instruction.strip() and not program.last.wrong(r.instruction)]

    def _task_of(self, name: str) -> Task:
        laid, task = self._program.laid[name], self._context.task
        if len(self._program.laid) == 1:
            return replace(task, instruction=laid.system)
        places = ", ".join(f"{{{one}}}" for one in sorted(laid.variables) if f"{{{one}}}" in laid.system)
        about = f"{task.description} It is done by a chain of the prompts {', '.join(self._program.laid)}. "
        about += f"The instruction asked for is the one of {name}{f', which must hold {places}' if places else ''}."
        return replace(task, description=about.strip(), instruction=laid.system)

    def _set_demo_rows(self, rows: Sequence[Example]) -> None:
        """Make examples of these rows from now on, with the inputs of the last prompt."""
        last = self._program.last
        if last.turn is None or not last.variables or not rows:
            return
        train = [replace(row, inputs={name: row.inputs[name] for name in sorted(last.variables)}) for row in rows]
        task = replace(self._context.task, train=tuple(train))
        self._sizes, self._maker = demo_sizes(task), DemoMaker(task, self._context.rng)

    def designs(self) -> list[Proposal]:
        last, kinds = self._program.last.name, demo_kinds(self._context.task)[:2]
        places = [self._place({last: text.operator}) for text in self._texts[last][1:]]
        places += [self._place({}, kind, str(size)) for size in self._sizes[-3:] for kind in kinds]
        return [proposal for place in places if (proposal := self.fresh(place)) is not None]

    def _place(self, texts: Place, kind: str = "", size: str = OWN) -> Place:
        words = {_text(name): texts.get(name, OWN) for name in self._texts}
        return {**words, "kind": kind or demo_kinds(self._context.task)[0], "size": size}

    def space(self) -> dict[str, tuple[str, ...]]:
        words = {_text(name): tuple(text.operator for text in texts) for name, texts in self._texts.items()}
        sizes = (OWN, *map(str, self._sizes))
        return {**words, "kind": demo_kinds(self._context.task), "size": sizes}

    def fresh(self, place: Place) -> Proposal | None:
        made, operators, reasons, credit = self._program.baseline(), list[str](), list[str](), FRESH
        for name, texts in self._texts.items():
            text = next(one for one in texts if one.operator == place[_text(name)])
            if text.operator != OWN:
                made = made.with_texts(name, system=text.instruction)
                operators.append(f"{name}:{text.operator}")
                credit = PROPOSED if text.is_proposed else credit
                reasons.append(f"{name}: {text.reason}{self._no_demos}")
        if place["size"] != OWN and self._maker is not None:
            drawn: DemoSet = getattr(self._maker, place["kind"])(int(place["size"]))
            made = made.with_texts(self._program.last.name, demos=drawn.demos)
            operators.append(drawn.operator)
            reasons.append(drawn.reason)
        if not operators:
            return None
        return Proposal(made, dict(place), "+".join(operators), None, "; ".join(reasons), credit)

    def operators(self, parent: Parent | None) -> list[str]:
        operators = list[str]()
        if parent is not None:
            if self._maker is not None and self._demos(parent).demos:
                operators += OPERATORS
            operators.append("compress")
            if any(len(texts) > 1 for texts in self._texts.values()):
                operators.append("instruction")
        if self._context.proposer is not None and self._proposals < self._context.plan.proposals:
            operators.append(PROPOSED)
        return operators

    def due(self, parent: Parent | None) -> str:
        """One proposal for each prompt as soon as there is a candidate to build on."""
        is_due = self._proposals < len(self._texts) and parent is not None and PROPOSED in self.operators(parent)
        return PROPOSED if is_due else ""

    async def made(self, operator: str, parent: Parent | None, parents: Sequence[Parent]) -> list[Proposal]:
        if operator == PROPOSED:
            return await self._proposed(parent, parents)
        assert parent is not None
        if operator == "compress":
            proposal = self._shorter(parent)
        elif operator == "instruction":
            proposal = self._reworded(parent)
        else:
            proposal = self._redrawn(operator, parent, parents)
        return [proposal] if proposal is not None else []

    async def warmed(self, rows: int) -> None:
        """Collect what the user's own chain passes to its last prompt on train rows, where examples need it."""
        if not self._no_demos or self._program.last.turn is None:
            return
        context, most = self._context, 3 * max(demo_sizes(self._context.task), default=0)
        train = context.task.train[: max(0, min(rows, most))]
        await context.evaluator.outcomes(context.baseline, train, "train")
        complete, variables = list[Example](), self._program.last.variables
        for row in train:
            inputs = self._program.last_inputs.get(row.id, {})
            if inputs and set(inputs) == variables and all(isinstance(value, str) for value in inputs.values()):
                complete.append(replace(row, inputs=dict(inputs)))
        self._set_demo_rows(complete)
        self._no_demos = ""

    async def _proposed(self, parent: Parent | None, parents: Sequence[Parent]) -> list[Proposal]:
        self._proposals += 1
        names = list(self._texts)
        name = names[-1 - (self._proposals - 1) % len(names)]
        tried = best_instructions(self._context.board, lambda candidate: as_chain(candidate).texts(name).system)
        text = await rewritten(self._context, self._task_of(name), tried, parents, self._proposals)
        if text is None:
            return []
        if self._program.laid[name].wrong(text.instruction):  # logged with the reason when it is admitted
            alone = self._program.baseline().with_texts(name, system=text.instruction)
            return [Proposal(alone, self._place({}), f"{name}:{text.operator}", None, text.reason, PROPOSED)]
        self._texts[name].append(text)
        fresh = self.fresh(self._place({name: text.operator}))
        return [proposal for proposal in (self._with(parent, name, text), fresh) if proposal is not None]

    def _with(self, parent: Parent | None, name: str, text: Rewrite) -> Proposal | None:
        if parent is None:
            return None
        made = as_chain(parent.proposal.candidate).with_texts(name, system=text.instruction)
        credit = PROPOSED if text.is_proposed else "instruction"
        operator, reason, place = f"instruction:{text.operator}", f"{name}: {text.reason}", {_text(name): text.operator}
        return self._child(parent, made, operator, credit, reason, place)

    def _reworded(self, parent: Parent) -> Proposal | None:
        old = as_chain(parent.proposal.candidate)
        others = [
            (name, text)
            for name, texts in self._texts.items()
            for text in texts
            if text.instruction != old.texts(name).system
        ]
        if not others:
            return None
        words = self._context.choices.one("words", others, lambda other: f"{other[0]}: {other[1].operator}")
        return self._with(parent, *words)

    def _shorter(self, parent: Parent) -> Proposal | None:
        task, old = self._context.task, as_chain(parent.proposal.candidate)
        shorter: list[tuple[str, dict[str, Any], str]] = []
        for prompt in old.prompts:
            laid = self._program.laid[prompt.name]
            texts = [(tidied(prompt.system), "without spare blanks and empty lines")]
            texts += [(rest, f'without "{cut[:60]}"') for cut, rest in without_a_sentence(prompt.system, task)]
            short = [(text, why) for text, why in texts if len(text) < len(prompt.system) and not laid.wrong(text)]
            shorter += [("text", {"name": prompt.name, "system": text}, why) for text, why in short]
            demos = prompt.demos or ()
            for share in SHARES:
                if gone := least_useful(demos, max(1, int(len(demos) * share)), {}):
                    kept = tuple(demo for demo in demos if demo.example_id not in gone)
                    shorter.append(("examples", {"name": prompt.name, "demos": kept}, dropped(gone, {})))
        if not shorter:
            return None
        what, changes, why = self._context.rng.choice(shorter)
        return self._child(
            parent, old.with_texts(**changes), f"compress:{what}", "compress", f"{changes['name']}: {why}", {}
        )

    def _redrawn(self, operator: str, parent: Parent, parents: Sequence[Parent]) -> Proposal | None:
        assert self._maker is not None
        others = [demos for other in parents if other is not parent and (demos := self._demos(other)).demos]
        drawn = self._maker.child(operator, self._demos(parent), parent.outcomes, self._dev, others)
        if drawn is None or not drawn.demos:
            return None
        made = as_chain(parent.proposal.candidate).with_texts(self._program.last.name, demos=drawn.demos)
        return self._child(parent, made, drawn.operator, drawn.operator, drawn.reason, {})

    def _demos(self, parent: Parent) -> DemoSet:
        demos: tuple[Demo, ...] = as_chain(parent.proposal.candidate).texts(self._program.last.name).demos or ()
        return DemoSet(demos, parent.proposal.operator)

    def _child(
        self, parent: Parent, made: ChainCandidate, operator: str, credit: str, reason: str, place: Place
    ) -> Proposal:
        where = {**parent.proposal.place, **place}
        return Proposal(made, where, operator, parent.proposal.candidate.id, reason, credit)


def _text(name: str) -> str:
    """The coordinate of a prompt's text in the space of designs."""
    return f"text of {name}"


async def rewritten(
    context: SearchContext, task: Task, tried: Sequence[ScoredInstruction], parents: Sequence[Parent], number: int
) -> Rewrite | None:
    """A new instruction, grounded on the scored history and on where the best candidate fails; None without one.

    `task`: the one whose instruction is asked for, which may be a part of the run's. `tried`: the worst first;
    `parents`: the best first. `number`: of the request in its run, at least 1; it decides the style.
    """
    if context.proposer is None:
        return None
    failures = [each.line for each in wrong_rows(context.dev, parents[0].outcomes)[:FAILURES]] if parents else []
    style = STYLES[number % len(STYLES)]
    question = whole_question(task, tried, failures, style, context.rng)
    for text in await replies_to(Asker(context, PROPOSED), question):
        context.note("proposal", {"round": context.round, "why": ""}, {"instruction": text})
        return Rewrite(f"proposed-{number}", text, f"the proposer was asked: {style}", is_proposed=True)
    return None
