"""Moves for chains: those for named texts, and examples in the last prompt.

If the last prompt takes more than the task's inputs, the user's own chain is run on some train rows first (`warmed`),
and the inputs of that prompt become those of the demo.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.programs.moves.demos import OPERATORS, DemoMaker, DemoSet, demo_kinds, demo_sizes
from agent.programs.moves.named_text_moves import OWN, NamedTextMoves
from agent.programs.moves.prompt_moves import coordinate
from agent.programs.moves.prompt_parts import fewer_examples
from agent.prompt.named_texts import as_texts
from agent.prompt.techniques import builtin_rewrites
from agent.search.context import SearchContext
from agent.search.program import Parent
from agent.search.study import Place
from agent.types import Candidate, Demo, Example, Proposal

if TYPE_CHECKING:
    from agent.programs.chain import ChainProgram


class ChainMoves(NamedTextMoves):
    def __init__(self, context: SearchContext, program: ChainProgram) -> None:
        super().__init__(context, program)
        self._prompt, self._last, self._seen = program.last, program.last.name, program.last_inputs
        if not program.answers_json:
            made = builtin_rewrites(replace(context.task, instruction=self._prompt.system))
            fitting = [
                each for each in made if not program.check(program.baseline().with_text(self._last, each.instruction))
            ]
            self.texts[self._last] += [each for each in fitting if each.instruction.strip()]
        self._kinds, self._sizes = demo_kinds(context.task), list[int]()
        self._maker: DemoMaker | None = None
        missing = sorted(self._prompt.variables - {field.name for field in context.task.signature.inputs})
        self._no_demos = f"no examples yet: {self._last} takes {missing[0]}, no input of the task" if missing else ""
        if not missing:
            self._set_demo_rows(context.task.train)

    def _set_demo_rows(self, rows: Sequence[Example]) -> None:
        if self._prompt.turn is None or not self._prompt.variables or not rows:
            return
        names = sorted(self._prompt.variables)
        train = [replace(row, inputs={name: row.inputs[name] for name in names}) for row in rows]
        task = replace(self._task, train=tuple(train))
        self._sizes, self._maker = demo_sizes(task), DemoMaker(task, self._rng)

    def demos_of(self, candidate: Candidate) -> tuple[Demo, ...]:
        return tuple(as_texts(candidate).examples.get(self._last, ()))

    def with_demos(self, candidate: Candidate, demos: tuple[Demo, ...]) -> Candidate:
        return as_texts(candidate).with_examples(self._last, demos)

    def places(self) -> Sequence[Place]:
        own = {**{coordinate(name): OWN for name in self.texts}, "kind": self._kinds[0], "size": OWN}
        places = [{**own, coordinate(self._last): text.operator} for text in self.texts[self._last][1:]]
        return places + [{**own, "kind": kind, "size": str(k)} for k in self._sizes[-3:] for kind in self._kinds[:2]]

    def space(self) -> dict[str, tuple[str, ...]]:
        return {**super().space(), "kind": self._kinds, "size": (OWN, *map(str, self._sizes))}

    def fresh(self, place: Place) -> Proposal | None:
        texts = super().fresh(place)
        if place["size"] == OWN or self._maker is None:
            return texts and replace(texts, reason="; ".join(filter(None, (texts.reason, self._no_demos))))
        drawn: DemoSet = getattr(self._maker, place["kind"])(int(place["size"]))
        made = self.with_demos(texts.candidate if texts else self._program.baseline(), drawn.demos)
        operators, reasons = ([texts.operator], [texts.reason]) if texts else ([], [])
        words = "+".join([*operators, drawn.operator]), "; ".join([*reasons, drawn.reason])
        return Proposal(made, dict(place), words[0], None, words[1])

    def operators(self, parent: Parent | None) -> list[str]:
        redrawn = parent is not None and self._maker is not None and self.demos_of(parent.proposal.candidate)
        return [*(OPERATORS if redrawn else ()), *super().operators(parent)]

    async def made(self, operator: str, parent: Parent | None, parents: Sequence[Parent]) -> list[Proposal]:
        if operator not in OPERATORS:
            return await super().made(operator, parent, parents)
        assert parent is not None
        assert self._maker is not None
        drawn = self.redrawn(self._maker, operator, parent, parents)
        return [drawn] if drawn is not None else []

    def shorter(self, old: Candidate) -> list[tuple[Candidate, str]]:
        fewer = [(self.with_demos(old, demos), why) for demos, why in fewer_examples(self.demos_of(old))]
        return [*super().shorter(old), *fewer]

    async def warmed(self, rows: int) -> None:
        """Collect the inputs of the chain's last prompt on train rows, if examples need them."""
        context, wanted, seen = self._context, self._prompt.variables, self._seen
        if not self._no_demos or self._prompt.turn is None:
            return
        train = context.task.train[: max(0, min(rows, 3 * max(demo_sizes(context.task), default=0)))]
        await context.evaluator.outcomes(context.baseline, train, "train")
        complete = [replace(row, inputs=dict(seen[row.id])) for row in train if set(seen.get(row.id, {})) == wanted]
        self._set_demo_rows([row for row in complete if all(isinstance(value, str) for value in row.inputs.values())])
        self._no_demos = ""
