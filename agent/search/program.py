"""What a search needs of a kind of candidate; the kinds themselves are in `programs/`, and a search knows none."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from agent.gateway.gateway import Gateway, ModelClient
from agent.prompt.calibration import LabelCalibration
from agent.prompt.parts.calibration import Opinion
from agent.search.effects import Feature
from agent.search.registered import DEFAULT
from agent.search.study import Place
from agent.types import LM, Candidate, Example, Message, Outcome, Proposal, Runner, Shown, Task

if TYPE_CHECKING:
    from agent.search.context import SearchContext
    from agent.search.dspy.strategies import DspyForm


T = TypeVar("T")
Chooser = Callable[[str, Sequence[str]], str]
"""name of the setting, words to choose from -> one of them; any other word leaves it to chance."""


class Choices:
    """Chooses settings at random, or by a chooser while one is set."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._chooser: Chooser | None = None

    @contextmanager
    def by(self, chooser: Chooser) -> Iterator[None]:
        """Let `chooser` choose while the block runs."""
        self._chooser = chooser
        try:
            yield
        finally:
            self._chooser = None

    def one(self, name: str, options: Sequence[T], word: Callable[[T], str] = str) -> T:
        """Choose one of the options, at least one.

        `name`: the same for the same kind of choice. `word`: what an option is called, the same in the whole run.
        """
        if self._chooser is not None and len(options) > 1:
            words = [word(option) for option in options]
            chosen = self._chooser(name, sorted(set(words)))
            if chosen in words:
                return options[words.index(chosen)]
        return self._rng.choice(options)


PROPOSED = "proposed"
"""The operator whose candidates the proposer writes."""


@dataclass(frozen=True, slots=True)
class Parent:
    """A good candidate, with its outcomes so far."""

    proposal: Proposal
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class Ablation:
    """The winner with one `part` as in the baseline."""

    part: str
    candidate: Candidate


class Traits:
    """What a search may ask about a candidate without running it; a kind overrides what its candidates have."""

    def features(self) -> Mapping[Feature, float]:
        """Columns of the model of the parts (`effects.py`)."""
        return {}

    def ablations(self, baseline: Candidate) -> list[Ablation]:
        """One candidate for each part that it does not share with the baseline; they may break hard rules."""
        return []

    def documents(self, example: Example) -> tuple[str, ...] | None:
        """The document of each passage that it shows on a row, the nearest first; None where it looks up none."""
        return None

    def calibrated(self, calibration: LabelCalibration) -> Candidate | None:
        """The candidate with this calibration; None where its replies do not begin with a label, or it has one."""
        return None

    def voters(self) -> list[Opinion]:
        """What of its parts may decide on a label next to the model, never a row about itself."""
        return []

    def opinions(self) -> list[Opinion]:
        """`voters`, and a classifier of the train rows; the first call trains it."""
        return []


class Moves(Protocol):
    """How a kind makes new candidates: at a place in its space of designs, or from good ones."""

    def designs(self) -> list[Proposal]:
        """The first candidates of a search."""
        ...

    def space(self) -> dict[str, tuple[str, ...]]:
        """The choices of each coordinate of the space of designs, as of now."""
        ...

    def fresh(self, place: Place) -> Proposal | None:
        """A candidate at this place; None where there can be none."""
        ...

    def operators(self, parent: Parent | None) -> list[str]:
        """The operators that can be used now, with `parent` if any."""
        ...

    def due(self, parent: Parent | None) -> str:
        """The operator that must come next, whatever the bandit says; "" for none."""
        ...

    async def made(self, operator: str, parent: Parent | None, parents: Sequence[Parent]) -> list[Proposal]:
        """New candidates by one of `operators`; none where there is nothing to change."""
        ...

    async def warmed(self, rows: int) -> None:
        """Called once, after the first step: may spend up to `rows` rows on what later moves need."""
        ...


class Describes(Runner, Protocol):
    """A kind whose candidates can be shown."""

    def shown(self, candidate: Candidate) -> Shown:
        """The candidate as people read it."""
        ...

    def template(self, candidate: Candidate) -> tuple[Message, ...]:
        """Its messages with `{{field}}` where the row goes; of a kind that makes them while it runs, a text to read."""
        ...


class Program(Describes, Protocol):
    """One kind of candidate for one task and one target model. What most kinds do not have is answered here."""

    task: Task
    """Its instruction stands for the user's own prompt."""
    calls: int
    """Model calls that a row takes, at least."""
    is_fixed: bool
    """Whether a row always takes `calls` calls and `prompt_tokens` is what each of them sends."""
    models: tuple[LM, ...] = ()
    """The models that a row asks besides the target."""

    def baseline(self) -> Candidate:
        """The user's own candidate."""
        ...

    def check(self, candidate: Candidate) -> str:
        """Why this candidate must not be tried (the hard rules), or ""."""
        ...

    def prompt_tokens(self, candidate: Candidate) -> int:
        """Tokens of the prompt without the row's own text and the chat template."""
        ...

    def max_tokens(self, candidate: Candidate) -> int:
        """The most tokens of a reply."""
        ...

    def broken(self, outcomes: Sequence[Outcome]) -> str:
        """Why these outcomes of the baseline on dev are not usable, or ""."""
        return ""

    def place(self, candidate: Candidate) -> Place:
        """The baseline's place in the space of designs."""
        return {}

    def most_prompt_tokens(self, candidate: Candidate) -> int:
        """`prompt_tokens` of the longest prompt of the candidate, where it differs from row to row."""
        return self.prompt_tokens(candidate)

    def traits(self, candidate: Candidate) -> Traits:
        """What a search may ask about a candidate without running it."""
        return Traits()

    def strategy(self, name: str | None) -> str:
        """The strategy of that name, or the kind's own choice for None. Raises InputError for one that cannot work."""
        return name or DEFAULT

    def client(self, gateway: Gateway) -> ModelClient:
        """What sends the run's calls."""
        return gateway

    def moves(self, context: SearchContext) -> Moves:
        """The moves of our own search."""
        raise NotImplementedError(f"{type(self).__name__}: only DSPy's optimizers change it")

    def for_dspy(self, context: SearchContext) -> DspyForm:
        """The kind as DSPy's optimizers need it."""
        raise NotImplementedError(f"{type(self).__name__}: DSPy's optimizers do not know it")
