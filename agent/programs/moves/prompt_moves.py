"""Moves for prompts: new designs, changes of good ones, and the proposer's instructions."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from agent.programs.moves.asking import PartTexts
from agent.programs.moves.author import rationales
from agent.programs.moves.demos import OPERATORS, DemoMaker, DemoSet, demo_kinds, demo_sizes, most_examples
from agent.programs.moves.evidence import Assembled
from agent.programs.moves.part_moves import OtherPartMaker, PassageMaker, PickMaker, ToolMaker, VariantMaker
from agent.programs.moves.prompt_parts import compressions
from agent.programs.moves.proposer import BY_CREDIT, Proposer, is_worth_trying
from agent.programs.moves.shape_moves import ShapeMaker
from agent.prompt.parts.kinds import TaskParts
from agent.prompt.parts.passages import PassageLibrary
from agent.prompt.parts.picks import PickedRows
from agent.prompt.prompt_candidate import PromptCandidate, as_prompt
from agent.prompt.techniques import TECHNIQUES, Rewrite, builtin_rewrites
from agent.search.context import SearchContext
from agent.search.effects import Effect, demo_effects, recombine
from agent.search.explanation import scored_candidates
from agent.search.program import Choices, Parent
from agent.search.study import Place
from agent.types import FRESH, Candidate, Demo, Proposal, Task

FEWEST_FITTED = 12  # candidates, before effects of single demos are fitted
NO_DEMOS = DemoSet((), "none")


class TextMoves:
    """New designs and changes of candidates with texts by place, and examples in one of them.

    `texts`: the current texts by place, the user's own first; "" is the only place of a prompt.
    """

    def __init__(self, task: Task, rng: random.Random, choices: Choices, texts: Mapping[str, list[Rewrite]]) -> None:
        self._task, self._rng, self._choices, self.texts = task, rng, choices, texts

    def text_of(self, candidate: Candidate, name: str) -> str:
        raise NotImplementedError

    def with_text(self, candidate: Candidate, name: str, text: str) -> Candidate:
        raise NotImplementedError

    def demos_of(self, candidate: Candidate) -> tuple[Demo, ...]:
        raise NotImplementedError

    def with_demos(self, candidate: Candidate, demos: tuple[Demo, ...]) -> Candidate | None:
        """Return the candidate with these examples; None if it has no room for them."""
        raise NotImplementedError

    def places(self) -> Sequence[Place]:
        raise NotImplementedError

    def space(self) -> dict[str, tuple[str, ...]]:
        return {coordinate(name): tuple(text.operator for text in texts) for name, texts in self.texts.items()}

    def fresh(self, place: Place) -> Proposal | None:
        raise NotImplementedError

    def designs(self) -> list[Proposal]:
        return [proposal for place in self.places() if (proposal := self.fresh(place)) is not None]

    def text_at(self, name: str, operator: str) -> Rewrite:
        return next(text for text in self.texts[name] if text.operator == operator)

    def reworded(self, parent: Parent) -> Proposal | None:
        old = parent.proposal.candidate
        here = {name: self.text_of(old, name) for name in self.texts}
        others = [(name, text) for name in here for text in self.texts[name] if text.instruction != here[name]]
        if not others:
            return None
        name, text = self._choices.one("words", others, lambda other: at(other[0], other[1].operator))
        return self.instructed(parent, text, name)

    def instructed(self, parent: Parent, text: Rewrite, name: str = "") -> Proposal:
        made = self.with_text(parent.proposal.candidate, name, text.instruction)
        operator, credit = f"instruction:{text.operator}", text.credit or "instruction"
        return self.child_of(parent, made, operator, at(name, text.reason), credit, {coordinate(name): text.operator})

    def redrawn(self, maker: DemoMaker, operator: str, parent: Parent, parents: Sequence[Parent]) -> Proposal | None:
        def demo_set(of: Parent) -> DemoSet:
            return DemoSet(self.demos_of(of.proposal.candidate), of.proposal.operator)

        others = [demos for other in parents if other is not parent and (demos := demo_set(other)).demos]
        old = demo_set(parent)
        drawn = maker.child(operator, old, parent.outcomes, others)
        if drawn is None or not drawn.demos or drawn.demos == old.demos:
            return None
        made = self.with_demos(parent.proposal.candidate, drawn.demos)
        return self.child_of(parent, made, drawn.operator, drawn.reason) if made else None

    def child_of(
        self, parent: Parent, made: Candidate, operator: str, reason: str, credit: str = "", place: Place | None = None
    ) -> Proposal:
        old = parent.proposal
        return Proposal(made, {**old.place, **(place or {})}, operator, old.candidate.id, reason, credit or operator)


def at(name: str, words: str) -> str:
    return f"{name}: {words}" if name else words


def coordinate(name: str) -> str:
    return f"text of {name}" if name else "instruction"


# -- prompts -----------------------------------------------------------------------------------------------------------


def redraws(candidate: Candidate) -> bool:
    """Tell whether any row may be an example: only a few rows have worked solutions."""
    prompt = as_prompt(candidate)
    return bool(prompt.demos) and not TECHNIQUES[prompt.technique].reasoning


class CandidateGenerator(TextMoves):
    """Makes the candidates of one run; the same seed of `rng` makes the same ones.

    `rewrites`: the instructions so far, the user's own first. `rationales`: worked solutions by row id, verified by
    their answers, for chain-of-thought demos.
    """

    def __init__(
        self, task: Task, rng: random.Random, shared: TaskParts | None = None, choices: Choices | None = None
    ) -> None:
        choices, shared = choices or Choices(rng), shared or TaskParts(task)
        only = task.space.descriptions_only is not None
        self.rewrites = [
            Rewrite("own", task.instruction, "the user's words"),
            *([] if only else builtin_rewrites(task)),
        ]
        super().__init__(task, rng, choices, {"": self.rewrites})
        self.counts, self.kinds = demo_sizes(task), demo_kinds(task)
        self.rationales: dict[str, str] = {}
        self._picks = PickMaker(task, choices, shared.of(PickedRows), lambda: self._maker)
        self._passages, tools = PassageMaker(task, choices, shared.of(PassageLibrary)), ToolMaker(task, choices, rng)
        self._added = (self._passages, tools, ShapeMaker(task, choices, rng), OtherPartMaker(task, choices))
        self._retold = {maker.part: maker for maker in self._added if isinstance(maker, VariantMaker)}
        makers = (tools,) if only else (self._picks, *self._added)
        self._parts = [part for part in makers if part.coordinates]

    @cached_property
    def _maker(self) -> DemoMaker:
        """Made when needed: it reads every row of train."""
        return DemoMaker(self._task, self._rng)

    def text_of(self, candidate: Candidate, name: str) -> str:
        return as_prompt(candidate).instruction

    def with_text(self, candidate: Candidate, name: str, text: str) -> Candidate:
        return replace(as_prompt(candidate), instruction=text)

    def demos_of(self, candidate: Candidate) -> tuple[Demo, ...]:
        return as_prompt(candidate).demos

    def with_demos(self, candidate: Candidate, demos: tuple[Demo, ...]) -> Candidate | None:
        old = as_prompt(candidate)
        picked = old.n_examples - len(old.demos)
        is_too_long = picked > 0 and len(demos) + picked > most_examples(self._task)
        return None if is_too_long else replace(old, demos=demos)

    def places(self) -> Sequence[Place]:
        """Return each technique and wording without examples, then sets of each size and format."""
        space, own = self._task.space, self.rewrites[0].operator
        places = [
            self._place(technique, instruction=rewrite.operator, role=role)
            for technique in space.techniques
            if not TECHNIQUES[technique].demos
            for rewrite in self.rewrites[: 3 if not TECHNIQUES[technique].reasoning else 1]
            for role in ("", *space.roles[:1])[: 2 if rewrite.operator == own else 1]
        ]
        others = [how for part in self._parts if part is not self._picks for how in part.first()]
        places += [self._place(space.techniques[0], **how) for how in others]
        if "few-shot" in space.techniques and self.counts:
            drawn = self._picks.first() if self._picks.coordinates else []
            drawn += [{"kind": kind, "size": str(k)} for k in self.counts[-3:] for kind in self.kinds[:2]]
            middle = str(self.counts[len(self.counts) // 2])
            drawn += [{"format": name, "size": middle} for name in space.formats[1:]]
            places += [self._place("few-shot", **how) for how in drawn]
        return places

    def space(self) -> dict[str, tuple[str, ...]]:
        space = self._task.space
        coordinates = {
            "technique": tuple(name for name in space.techniques if self._usable(name)),
            "format": tuple(space.formats),
            "instruction": tuple(rewrite.operator for rewrite in self.rewrites),
            "role": ("", *space.roles),
            "kind": self.kinds,
            "size": tuple(str(k) for k in self.counts) or ("0",),
        }
        for part in self._parts:
            coordinates |= part.coordinates
        return coordinates

    def _usable(self, technique: str) -> bool:
        if not TECHNIQUES[technique].demos:  # type: ignore[index]
            return True
        return bool(self.counts) and (technique == "few-shot" or len(self.rationales) >= 2)

    def fresh(self, place: Place) -> Proposal | None:
        technique = place["technique"]
        if not self._usable(technique):
            return None
        kind = TECHNIQUES[technique]  # type: ignore[index]
        demos, picks = NO_DEMOS, self._picks.at(place) if technique == "few-shot" else None
        if picks is not None:
            reason = f"{picks.k} rows picked for each input by {picks.retriever}"
            demos = DemoSet((), f"picked:{picks.retriever}", reason)
        elif kind.demos and kind.reasoning:
            demos = self._worked(int(place["size"]))
        elif kind.demos:
            demos = getattr(self._maker, place["kind"])(int(place["size"]))
        if kind.demos and not demos.demos and picks is None:
            return None
        rewrite = self.text_at("", place["instruction"])
        candidate = PromptCandidate(
            technique,  # type: ignore[arg-type]
            place["format"],  # type: ignore[arg-type]
            rewrite.instruction,
            place["role"],
            demos.demos,
        ).having(picks=picks)
        more = "+role" * bool(place["role"])
        for part in self._added:
            plain, candidate = candidate, part.designed(candidate, place)
            more += part.named(place) if candidate != plain else ""
        operator = demos.operator if candidate.n_examples else f"{technique}:{rewrite.operator}{more}"
        credit = FRESH if candidate.n_examples else rewrite.credit or FRESH
        return Proposal(candidate, dict(place), operator, None, demos.reason or rewrite.reason, credit)

    def _worked(self, k: int) -> DemoSet:
        ids = self._rng.sample(sorted(self.rationales), min(k, len(self.rationales)))
        demos = [replace(self._maker.demo(i), rationale=self.rationales[i], source="target") for i in ids]
        reason = f"{len(ids)} solutions of the target's own, all right"
        return DemoSet(tuple(demos), "verified-rationales", reason)

    def place(self, candidate: PromptCandidate) -> dict[str, str]:
        where = self._place(candidate.technique, format=candidate.format)
        return {**where, **(self._passages.place_of(candidate) if self._passages.coordinates else {})}

    def _place(self, technique: str, **how: str) -> dict[str, str]:
        where = {
            "technique": technique,
            "format": self._task.space.formats[0],
            "instruction": self.rewrites[0].operator,
            "role": "",
            "kind": self.kinds[0],
            "size": str(self.counts[0] if self.counts else 0),
        }
        for part in self._parts:
            where |= part.usual
        return where | how

    def operators(self, parent: Parent) -> list[str]:
        old = as_prompt(parent.proposal.candidate)
        operators = [*OPERATORS] if redraws(old) else []
        operators += [operator for part in self._parts for operator in part.operators(old)]
        operators += ["compress"] * (self._task.space.descriptions_only is None)
        if len(self._task.space.formats) > 1:
            operators.append("format")
        if len(self.rewrites) > 1:
            operators.append("instruction")
        return operators

    def child(self, operator: str, parent: Parent, parents: Sequence[Parent]) -> Proposal | None:
        old = as_prompt(parent.proposal.candidate)
        if operator == "format":
            name = self._choices.one("layout", [name for name in self._task.space.formats if name != old.format])
            made = replace(old, format=name)
            return self.child_of(parent, made, operator, f"the same prompt laid out as {name}", place={"format": name})
        if operator == "instruction":
            return self.reworded(parent)
        for part in self._parts:
            if operator in part.operators(old):
                changed = part.child(operator, old, parent.outcomes)
                if changed is None or changed[0] == old:
                    return None
                return self.child_of(parent, changed[0], operator, changed[1], place=part.place_of(changed[0]))
        return self.redrawn(self._maker, operator, parent, parents)

    def retold(self, parent: Parent, rewrite: Rewrite, texts: PartTexts) -> Proposal:
        made = as_prompt(parent.proposal.candidate).having(**{texts.part: texts})
        name = self._retold[texts.part].coordinate
        credit, place = rewrite.credit or name, {name: rewrite.operator}
        return self.child_of(parent, made, f"{name}:{rewrite.operator}", rewrite.reason, credit, place)

    def alone(self, rewrite: Rewrite) -> Proposal | None:
        """Return the instruction without examples, if the task allows that."""
        if "zero-shot" not in self._task.space.techniques:
            return None
        return self.fresh(self._place("zero-shot", instruction=rewrite.operator))


class PromptMoves(CandidateGenerator):
    def __init__(self, task: Task, context: SearchContext, shared: TaskParts | None = None) -> None:
        super().__init__(task, context.rng, shared, context.choices)
        self._context, self._proposer = context, Proposer(context)
        self._fitted, self._known_effects = -1, dict[str, Effect]()

    def operators(self, parent: Parent | None) -> list[str]:
        context, operators = self._context, list[str]()
        if parent is not None:
            operators += super().operators(parent)
            if redraws(parent.proposal.candidate) and len(context.trials.outcomes) >= FEWEST_FITTED:
                operators.append("attributed")
        return operators + self._proposer.operators(parent)

    def due(self, parent: Parent | None) -> str:
        return self._proposer.due(parent)

    async def made(self, operator: str, parent: Parent | None, parents: Sequence[Parent]) -> list[Proposal]:
        assert parent is not None
        if operator in BY_CREDIT:
            return await self._proposed(operator, parent)
        if operator == "attributed":
            proposal = self._attributed(parent)
        elif operator == "compress":
            shorter = compressions(parent.proposal, self._context.task, self._effects())
            proposal = self._context.rng.choice(shorter) if shorter else None
        else:
            proposal = self.child(operator, parent, parents)
        return [proposal] if proposal is not None else []

    async def _proposed(self, operator: str, parent: Parent) -> list[Proposal]:
        made = []
        for draft, rewrite in await self._proposer.drafts(operator, parent):
            changed, texts = draft.parent or parent, None if isinstance(draft.made, Assembled) else draft.made
            proposal = self.retold(changed, rewrite, texts) if texts else self.instructed(changed, rewrite)
            if not await is_worth_trying(self._context, draft, proposal, changed):
                continue
            made.append(proposal)
            if texts is not None:
                self._retold[texts.part].add(rewrite.operator, texts)
                continue
            self.rewrites.append(rewrite)
            if draft.alone and (without_demos := self.alone(rewrite)):
                made.append(without_demos)
        return made

    async def warmed(self, rows: int) -> None:
        """Collect worked solutions of the target for few-shot-cot, if a chain of thought scored."""
        most = 3 * max(self.counts, default=0)
        self.rationales.update(await rationales(self._context, min(rows, most)))

    def _attributed(self, parent: Parent) -> Proposal | None:
        effects, old = self._effects(), as_prompt(parent.proposal.candidate)
        ids = recombine(effects, self._maker.groups, len(old.demos), self._context.rng)
        made = replace(old, demos=tuple(map(self._maker.demo, ids)))
        return self.child_of(parent, made, "attributed", recombined(ids, effects)) if ids else None

    def _effects(self) -> dict[str, Effect]:
        context = self._context
        if self._fitted != context.round:
            self._fitted = context.round
            self._known_effects = demo_effects(scored_candidates(context.program, context.trials))
        return self._known_effects


def recombined(ids: Sequence[str], effects: Mapping[str, Effect]) -> str:
    """Explain a set drawn by effects.

    >>> recombined(["train-3", "train-8"], {"train-3": Effect("demo", "train-3", 2.1, 0.5)})
    '2 rows, 1 of them tried before; most is expected of train-3 (+2.1)'
    """
    tried = sorted((effects[i] for i in ids if i in effects), key=lambda effect: -effect.points)
    best = " and ".join(f"{effect.name} ({effect.points:+.1f})" for effect in tried[:2] if effect.points > 0)
    known = f"{len(tried)} of them tried before" if tried else "not tried before"
    rows = f"{len(ids)} row{'' if len(ids) == 1 else 's'}"
    return f"{rows}, {known}{f'; most is expected of {best}' if best else ''}"
