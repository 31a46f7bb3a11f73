"""Moves of parts from other packages: each is a coordinate in the space of designs."""

from __future__ import annotations

from collections.abc import Sequence

from agent.programs.moves.part_moves import NONE, Made
from agent.prompt.parts.kinds import others
from agent.prompt.parts.part import PromptPart
from agent.prompt.prompt_candidate import PromptCandidate
from agent.search.program import Choices
from agent.search.study import Place
from agent.types import Outcome, Task


class OtherPartMaker:
    def __init__(self, task: Task, choices: Choices) -> None:
        self._choices = choices
        self._offers = {name: offer for name, kind in others().items() if (offer := kind.made.choices(task))}
        self.is_used = bool(self._offers)

    def space(self) -> dict[str, tuple[str, ...]]:
        return {name: (NONE, *offer) for name, offer in self._offers.items()}

    def place(self, **words: str) -> dict[str, str]:
        return {**dict.fromkeys(self._offers, NONE), **words}

    def place_of(self, prompt: PromptCandidate) -> dict[str, str]:
        words = {name: {part: word for word, part in offer.items()} for name, offer in self._offers.items()}
        return self.place(**{part.name: words[part.name][part] for part in prompt.more if part.name in words})

    def first(self) -> list[dict[str, str]]:
        return [self.place(**{name: next(iter(offer))}) for name, offer in self._offers.items()]

    def at(self, place: Place) -> tuple[PromptPart, ...]:
        chosen = {name: place.get(name, NONE) for name in self._offers}
        return tuple(self._offers[name][word] for name, word in chosen.items() if word != NONE)

    def operators(self, prompt: PromptCandidate) -> list[str]:
        return [*self._offers]

    def child(self, operator: str, old: PromptCandidate, outcomes: Sequence[Outcome]) -> Made:
        offer, now = self._offers[operator], old.part(operator)
        word = self._choices.one(operator, [word for word in (NONE, *offer) if offer.get(word) != now])
        return old.with_part(operator, offer.get(word)), f"{operator}: {word}"
