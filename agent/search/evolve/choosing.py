"""The source of new candidates: a bandit over operators, or one study over operators and their settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from agent.search.context import SearchContext
from agent.search.evolve.decisions import Bandit
from agent.search.program import PROPOSED, Moves, Parent
from agent.search.study import OPERATOR, PARENT, TOLD, StudyTrial
from agent.types import FRESH, content_id

if TYPE_CHECKING:
    from agent.search.samplers import Study

PARENTS = 6
TRIES = 4  # to make one new candidate, before a step takes fewer
FRUITLESS = 3  # every third proposal in a row without a new candidate is drawn at random


class Choosing:
    """Admits about `count` new candidates (`made`), and learns which of a step's climb."""

    def __init__(self, context: SearchContext, moves: Moves) -> None:
        self._context, self._moves, self._trials = context, moves, context.trials
        self._fruitless = 0  # proposals in a row that gave nothing new

    async def made(self, count: int) -> list[str]:
        made, parents = list[str](), self._trials.parents(PARENTS)
        self._begin(parents)
        for _ in range(TRIES * count):
            if len(made) >= count:
                break
            new = await self._one(parents)
            self._fruitless = 0 if new else self._fruitless + 1
            made += new
        return made

    def _begin(self, parents: Sequence[Parent]) -> None:
        raise NotImplementedError

    async def _one(self, parents: Sequence[Parent]) -> list[str]:
        raise NotImplementedError

    def learn(self, seen: Mapping[str, bool]) -> None:
        raise NotImplementedError

    def _designs(self) -> dict[str, dict[str, str]]:
        """Return the place of each tried design. A child owes its score to its parent, so it is left out."""
        coordinates = sorted(self._moves.space())
        tried = {candidate_id: self._trials.proposals[candidate_id] for candidate_id in self._trials.by_id}
        return {
            candidate_id: {name: proposal.place[name] for name in coordinates}
            for candidate_id, proposal in tried.items()
            if proposal.parent_id is None and proposal.place.keys() >= set(coordinates)
        }


class ByBandit(Choosing):
    """A bandit draws the operator, TPE proposes new designs, and a parent is drawn by its score."""

    def __init__(self, context: SearchContext, moves: Moves) -> None:
        super().__init__(context, moves)
        self._bandit = Bandit()
        self._study: Study

    def _begin(self, parents: Sequence[Parent]) -> None:
        from agent.search.samplers import Study

        seed = int(content_id("s", [self._context.seed, self._context.round])[2:], 16)
        designs = [(place, self._trials.estimate(i)) for i, place in self._designs().items()]
        self._study = Study(self._moves.space(), designs, seed)

    async def _one(self, parents: Sequence[Parent]) -> list[str]:
        context, moves = self._context, self._moves
        parent = max(parents, key=self._belief, default=None)
        has_designs = any(len(words) > 1 for words in moves.space().values())
        operators = [*([FRESH] if has_designs else []), *moves.operators(parent)]
        operator = moves.due(parent) or self._bandit.draw(operators or [FRESH], context.rng)
        if operator != FRESH:
            made = await moves.made(operator, parent, parents)
            if not made and operator.startswith(PROPOSED):  # a reply that cannot be used
                self._bandit.update(operator, won=False)
            return context.admit(made)
        proposal = moves.fresh(self._study.ask())
        if proposal is None or proposal.candidate.id in self._trials.proposals:
            self._study.refuse()
        return context.admit([proposal] if proposal is not None else [])

    def _belief(self, parent: Parent) -> float:
        """Draw from a Beta belief, so that better parents are chosen more often."""
        score = self._trials.estimate(parent.proposal.candidate.id)
        wins, losses = score.mean * score.n, (1.0 - score.mean) * score.n
        return self._context.rng.betavariate(1.0 + wins, 1.0 + losses)

    def learn(self, seen: Mapping[str, bool]) -> None:
        for candidate_id, climbs in seen.items():
            self._bandit.update(self._trials.proposals[candidate_id].credit, climbs)


class ByStudy(Choosing):
    """One study per run proposes operator, parent, design and settings."""

    def __init__(self, context: SearchContext, moves: Moves) -> None:
        from agent.search.samplers import AskTell

        super().__init__(context, moves)
        self._study = AskTell(context.options.sampler, context.seed)
        self._params: dict[str, dict[str, str | int]] = {}
        self._told: dict[str, StudyTrial] = {}

    def _begin(self, parents: Sequence[Parent]) -> None:
        some: Sequence[Parent | None] = parents or [None]
        operators = sorted({name for parent in some for name in self._moves.operators(parent)})
        self._study.tell(self.trials(), self._moves.space(), operators, len(parents))

    async def _one(self, parents: Sequence[Parent]) -> list[str]:
        moves, leader = self._moves, parents[0] if parents else None
        if due := moves.due(leader):
            params: dict[str, str | int] = {OPERATOR: due, PARENT: 0}
        else:
            params = dict(self._study.ask(by_chance=self._fruitless % FRUITLESS == FRUITLESS - 1))
        operator = str(params[OPERATOR])
        if operator == FRESH:
            design = moves.fresh({name: str(word) for name, word in params.items() if name != OPERATOR})
            proposals = [] if design is None else [design]
        else:
            able = [rank for rank, parent in enumerate(parents) if operator in moves.operators(parent)]
            if parents and not able:
                return []
            parent = None
            if able:  # the nearest that this operator can change
                params[PARENT] = min(able, key=lambda rank: (abs(rank - int(params[PARENT])), rank))
                parent = parents[int(params[PARENT])]

            def setting(name: str, words: Sequence[str]) -> str:
                parameter = f"{operator}.{name}"
                params[parameter] = self._study.setting(parameter, words)
                return str(params[parameter])

            with self._context.choices.by(setting):
                proposals = await moves.made(operator, parent, parents)
        admitted = self._context.admit(proposals)
        self._params |= dict.fromkeys(admitted, params)
        return admitted

    def trials(self) -> list[StudyTrial]:
        trials, designs = [], self._designs()
        for candidate_id, trial in self._trials.by_id.items():
            params = self._params.get(candidate_id)
            if params is None:
                if candidate_id not in designs:
                    continue
                params = {OPERATOR: FRESH, **designs[candidate_id]}
            evidence, rungs = self._trials.evidence(candidate_id), self._context.plan.rungs
            rows = [rung for rung in rungs if rung < len(evidence)] + ([len(evidence)] if evidence else [])
            steps = {n: round(sum(evidence[:n]) / n, 6) for n in rows}
            trials.append(StudyTrial(candidate_id, params, trial.state, steps))
        return trials

    def learn(self, seen: Mapping[str, bool]) -> None:
        changed = [trial for trial in self.trials() if self._told.get(trial.candidate_id) != trial]
        if changed:
            self._told |= {trial.candidate_id: trial for trial in changed}
            body = {"sampler": self._context.options.sampler, "trials": [trial.as_dict() for trial in changed]}
            self._context.note(TOLD, body)
