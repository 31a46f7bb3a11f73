"""The source of new candidates: a bandit over operators, or one study over operators and their settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agent.search.context import SearchContext
from agent.search.evolve.decisions import Bandit
from agent.search.program import PROPOSED, Chooser, Moves, Parent
from agent.search.registered import BANDIT
from agent.search.study import OPERATOR, PARENT, TOLD, AskTell, MeanScore, Study, StudyTrial
from agent.types import FRESH, Proposal, content_id

PARENTS = 6
TRIES = 4  # to make one new candidate, before a step takes fewer
FRUITLESS = 3
"""Every third proposal in a row without a new candidate is drawn at random."""


def choosing(context: SearchContext, moves: Moves) -> ByBandit | ByStudy:
    return ByBandit(context, moves) if context.sampler == BANDIT else ByStudy(context, moves)


def drawn(context: SearchContext, parents: Sequence[Parent]) -> Parent | None:
    """Draw a parent, better ones more often (Thompson draws from a Beta belief about each)."""
    if not parents:
        return None
    rng = context.rng

    def draw(parent: Parent) -> float:
        score = context.trials.estimate(parent.proposal.candidate.id)
        return rng.betavariate(1.0 + score.mean * score.n, 1.0 + (1.0 - score.mean) * score.n)

    return max(parents, key=draw)


class ByBandit:
    """A bandit draws the operator, TPE proposes new designs, and a parent is drawn by its score.

    `made` admits about `count` new candidates, as a proposal of an operator may give two; `learn` takes the results of
    a step: whether each candidate that was on its first rung climbs.
    """

    def __init__(self, context: SearchContext, moves: Moves) -> None:
        self._context, self._moves, self._trials = context, moves, context.trials
        self._bandit = Bandit()

    async def made(self, count: int) -> list[str]:
        context, made = self._context, list[str]()
        parents = self._trials.parents(PARENTS)
        seed = int(content_id("s", [context.seed, context.round])[2:], 16)
        study = Study(self._moves.space(), self._scored_designs(), seed)
        for _ in range(TRIES * count):
            if len(made) >= count:
                break
            made += context.admit(await self._one(study, parents))
        return made

    async def _one(self, study: Study, parents: Sequence[Parent]) -> list[Proposal]:
        context, moves = self._context, self._moves
        parent = drawn(context, parents)
        operator = moves.due(parent) or self._bandit.draw([FRESH, *moves.operators(parent)], context.rng)
        if operator != FRESH:
            made = await moves.made(operator, parent, parents)
            if not made and operator.startswith(PROPOSED):  # a reply that cannot be used
                self._bandit.update(operator, won=False)
            return made
        proposal = moves.fresh(study.ask())
        if proposal is None or proposal.candidate.id in self._trials.proposals:
            study.refuse()
        return [proposal] if proposal is not None else []

    def _scored_designs(self) -> list[tuple[dict[str, str], MeanScore]]:
        """Without children, which owe their score to their parents."""
        designs, coordinates = [], set(self._moves.space())
        for candidate_id, score in self._trials.estimates().items():
            proposal = self._trials.proposals[candidate_id]
            if proposal.parent_id is None and coordinates <= set(proposal.place):
                designs.append((dict(proposal.place), score))
        return designs

    def learn(self, seen: Mapping[str, bool]) -> None:
        for candidate_id, climbs in seen.items():
            self._bandit.update(self._trials.proposals[candidate_id].credit, climbs)


class ByStudy:
    """One study per run proposes operator, parent, design and settings from every trial's rows and state."""

    def __init__(self, context: SearchContext, moves: Moves) -> None:
        self._context, self._moves, self._trials = context, moves, context.trials
        self._study = AskTell(context.sampler, context.seed)
        self._params: dict[str, dict[str, str | int]] = {}
        self._told: dict[str, StudyTrial] = {}
        self._fruitless = 0  # proposals in a row that gave nothing new

    async def made(self, count: int) -> list[str]:
        made, parents = list[str](), self._trials.parents(PARENTS)
        some: Sequence[Parent | None] = parents or [None]
        operators = sorted({name for parent in some for name in self._moves.operators(parent)})
        self._study.tell(self.trials(), self._moves.space(), operators, len(parents))
        for _ in range(TRIES * count):
            if len(made) >= count:
                break
            new = await self._one(parents)
            self._fruitless = 0 if new else self._fruitless + 1
            made += new
        return made

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
            with self._context.choices.by(self._setting(operator, params)):
                proposals = await moves.made(operator, parent, parents)
        admitted = self._context.admit(proposals)
        self._params |= dict.fromkeys(admitted, params)
        return admitted

    def _setting(self, operator: str, params: dict[str, str | int]) -> Chooser:
        def choose(name: str, words: Sequence[str]) -> str:
            parameter = f"{operator}.{name}"
            params[parameter] = self._study.setting(parameter, words)
            return str(params[parameter])

        return choose

    def trials(self) -> list[StudyTrial]:
        """Return every trial with known parameters, including first designs and the user's own prompt."""
        coordinates, trials = set(self._moves.space()), []
        for candidate_id, trial in self._trials.by_id.items():
            params = self._params.get(candidate_id)
            if params is None:
                proposal = self._trials.proposals[candidate_id]
                if proposal.parent_id is not None or not coordinates <= set(proposal.place):
                    continue
                params = {OPERATOR: FRESH, **{name: proposal.place[name] for name in sorted(coordinates)}}
            evidence, rungs = self._trials.evidence(candidate_id), self._context.plan.rungs
            rows = [rung for rung in rungs if rung < len(evidence)] + ([len(evidence)] if evidence else [])
            steps = {n: round(sum(evidence[:n]) / n, 6) for n in rows}
            trials.append(StudyTrial(candidate_id, params, trial.state, steps))
        return trials

    def learn(self, seen: Mapping[str, bool]) -> None:
        changed = [trial for trial in self.trials() if self._told.get(trial.candidate_id) != trial]
        if changed:
            self._told |= {trial.candidate_id: trial for trial in changed}
            body = {"sampler": self._context.sampler, "trials": [trial.as_dict() for trial in changed]}
            self._context.note(TOLD, body)
