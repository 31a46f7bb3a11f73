"""What a search asks of a kind of candidate. The kinds themselves are in `programs/`; a search knows none of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from agent.gateway.gateway import Gateway
from agent.scoring.evaluate import Door
from agent.search.analysis.effects import Feature
from agent.search.study import Place
from agent.types import FRESH as FRESH
from agent.types import Candidate, Message, Outcome, Runner, Shown, Task
from agent.types import Proposal as Proposal

if TYPE_CHECKING:
    from agent.search.context import SearchContext
    from agent.search.dspy.strategies import DspyForm


PROPOSED = "proposed"
"""The operator that asks the proposer."""


@dataclass(frozen=True, slots=True)
class Parent:
    """A candidate that did well, with what it did on the rows it saw."""

    proposal: Proposal
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class Ablation:
    """The winner with one part as in the baseline."""

    part: str
    candidate: Candidate


class Moves(Protocol):
    """How a kind makes new candidates: at a place in its space of designs, or out of one that did well."""

    def designs(self) -> list[Proposal]:
        """Good starting points."""
        ...

    def space(self) -> dict[str, tuple[str, ...]]:
        """The choices of each coordinate of the space of designs, as things stand."""
        ...

    def fresh(self, place: Place) -> Proposal | None:
        """A candidate of this place; None where there can be none."""
        ...

    def operators(self, parent: Parent | None) -> list[str]:
        """What can be done now, with `parent` if there is one."""
        ...

    def due(self, parent: Parent | None) -> str:
        """The operator that comes next whatever has paid so far; "" for none."""
        ...

    async def made(self, operator: str, parent: Parent | None, parents: Sequence[Parent]) -> list[Proposal]:
        """New candidates by one of `operators`; none where it finds nothing to change."""
        ...

    async def warmed(self, rows: int) -> None:
        """Called once, when the first candidates were seen: may spend up to `rows` rows on what later moves need."""
        ...


class Describes(Runner, Protocol):
    """A kind whose candidates can be written down."""

    def shown(self, candidate: Candidate) -> Shown:
        """The candidate as people read it."""
        ...

    def template(self, candidate: Candidate) -> tuple[Message, ...]:
        """Its messages with `{{field}}` where the row goes; of a kind that makes them while it runs, what people read
        in their place."""
        ...


class Program(Describes, Protocol):
    """One kind of candidate for one task and one target model."""

    @property
    def task(self) -> Task:
        """The task as the kind sees it; its instruction is what stands for the user's own prompt."""
        ...

    @property
    def calls(self) -> int:
        """Model calls that a row takes, at least."""
        ...

    @property
    def is_fixed(self) -> bool:
        """Whether a row always takes `calls` calls and `prompt_tokens` is what each of them sends."""
        ...

    def baseline(self) -> Candidate:
        """The user's own."""
        ...

    def check(self, candidate: Candidate) -> str:
        """Why this candidate must not be tried, or "" when it may: the hard rules."""
        ...

    def broken(self, outcomes: Sequence[Outcome]) -> str:
        """Why what the baseline said on dev is no baseline at all; "" where it is one."""
        ...

    def place(self, candidate: Candidate) -> Place:
        """Where the user's own stands in the space of designs."""
        ...

    def prompt_tokens(self, candidate: Candidate) -> int:
        """Tokens of the prompt without the row's own text and the chat template."""
        ...

    def max_tokens(self, candidate: Candidate) -> int:
        """The most tokens of a reply."""
        ...

    def ablations(self, winner: Candidate, baseline: Candidate) -> list[Ablation]:
        """One candidate for each part that the winner does not share with the baseline; they may break hard rules."""
        ...

    def features(self, candidate: Candidate) -> Mapping[Feature, float]:
        """The candidate as columns of the model of the parts (`analysis/effects.py`); none where the kind has no such
        columns, so that of a part that was not tried nothing is said."""
        ...

    def strategy(self, name: str | None) -> str:
        """The strategy of that name, or the kind's own choice for None. Raises InputError for one that cannot work."""
        ...

    def door(self, gateway: Gateway) -> Door:
        """What the run's calls go through."""
        ...

    def moves(self, context: SearchContext) -> Moves:
        """How our own search makes candidates of this kind."""
        ...

    def for_dspy(self, context: SearchContext) -> DspyForm:
        """What DSPy's optimizers work on."""
        ...
