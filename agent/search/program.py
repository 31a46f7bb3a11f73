"""The interface of a kind of candidate to a search; the kinds are in `programs/`, and a search knows none."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

from agent.gateway.gateway import Gateway, ModelClient
from agent.prompt.label_calibration import LabelCalibration
from agent.prompt.parts.calibration import Opinion
from agent.search.study import Feature, Place
from agent.types import LM, Candidate, Example, Message, Outcome, Proposal, Runner, Summary, Task

if TYPE_CHECKING:
    from agent.search.context import SearchContext
    from agent.search.dspy.bridge import DspyForm


T = TypeVar("T")
Chooser = Callable[[str, Sequence[str]], str]
"""(setting name, options) -> one of them; any other word means a random choice."""


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
        """Choose an option. `name`: of the choice; `word`: of an option, constant within a run."""
        if self._chooser is not None and len(options) > 1:
            words = [word(option) for option in options]
            chosen = self._chooser(name, sorted(set(words)))
            if chosen in words:
                return options[words.index(chosen)]
        return self._rng.choice(options)


PROPOSED = "proposed"  # the operator for candidates of the proposer


@dataclass(frozen=True, slots=True)
class Parent:
    """A good candidate, with its outcomes so far."""

    proposal: Proposal
    outcomes: tuple[Outcome, ...]


class Moves(Protocol):
    """How a kind makes new candidates: at a place in its space of designs, or from good ones."""

    def designs(self) -> list[Proposal]:
        """Return the first candidates of a search."""

    def space(self) -> dict[str, tuple[str, ...]]:
        """Return the current choices of each coordinate of the space of designs."""

    def fresh(self, place: Place) -> Proposal | None:
        """Make a candidate at this place; None if there can be none."""

    def operators(self, parent: Parent | None) -> list[str]:
        """Return the operators that can be used now, with `parent` if any."""

    def due(self, parent: Parent | None) -> str:
        """Return the operator that must come next, before the bandit's choice; "" for none."""

    async def made(self, operator: str, parent: Parent | None, parents: Sequence[Parent]) -> list[Proposal]:
        """Make new candidates by one of `operators`; none if there is nothing to change."""

    async def warmed(self, rows: int) -> None:
        """Spend up to `rows` rows on what later moves need. Called once, after the first step."""


class Describes(Runner, Protocol):
    """A kind whose candidates can be shown."""

    def shown(self, candidate: Candidate) -> Summary:
        """Return the candidate for display."""

    def template(self, candidate: Candidate) -> tuple[Message, ...]:
        """Return the messages with `{{field}}` for the row; for dynamic ones a text for display."""

    async def close(self) -> None:
        """End what its rows needed, such as processes."""
        return


class Program(Describes, Protocol):
    """One kind of candidate for one task and one target model, with defaults for optional features."""

    task: Task
    calls: int  # the least calls per row
    is_fixed: bool  # whether a row always takes `calls` calls of `prompt_tokens` each
    file: ClassVar[str] = ""  # that it releases, if it is no prompt
    drops_idle_parts: bool = False  # whether a winner keeps only changes that add to its gain on dev
    models: tuple[LM, ...] = ()  # the models that a row calls in addition to the target
    target: LM | None = None  # what answers rows in place of the model of the run

    def baseline(self) -> Candidate:
        """Return the user's own candidate."""

    def references(self) -> dict[str, Candidate]:
        """Return further baselines by name, for the sealed test."""
        return {}

    def check(self, candidate: Candidate) -> str:
        """Return why this candidate must not be tried (the hard rules), or ""."""

    def prompt_tokens(self, candidate: Candidate) -> int:
        """Count the prompt's tokens without the row's own text and the chat template."""

    def max_tokens(self, candidate: Candidate) -> int:
        """Return the most tokens of a reply."""

    def broken(self, outcomes: Sequence[Outcome]) -> str:
        """Return why these baseline outcomes on dev are unusable, or ""."""
        return ""

    def place(self, candidate: Candidate) -> Place:
        """Return the baseline's place in the space of designs."""
        return {}

    def most_prompt_tokens(self, candidate: Candidate) -> int:
        """Return `prompt_tokens` of the longest prompt, if it varies by row."""
        return self.prompt_tokens(candidate)

    def features(self, candidate: Candidate) -> Mapping[Feature, float]:
        """Return the columns of the model of the parts (`effects.py`)."""
        return {}

    def ablations(self, candidate: Candidate, baseline: Candidate) -> dict[str, Candidate]:
        """Return one candidate without each part that differs from the baseline; may break hard rules."""
        return {}

    def changed_texts(self, candidate: Candidate, baseline: Candidate) -> tuple[str, ...]:
        """Return the names of the texts that differ; () of a kind with one text."""
        return ()

    def documents(self, candidate: Candidate, example: Example) -> tuple[str, ...] | None:
        """Return the documents of the passages on a row, nearest first; None without retrieval."""
        return None

    def calibrated(self, candidate: Candidate, calibration: LabelCalibration) -> Candidate | None:
        """Return the calibrated candidate. None if it has one or replies do not begin with a label."""
        return None

    def opinions(self, candidate: Candidate, trained: bool = False) -> list[Opinion]:
        """Return the parts that vote on labels, and a classifier `trained` on train. No row votes on itself."""
        return []

    def client(self, gateway: Gateway) -> ModelClient:
        """Return the client that sends the run's calls."""
        return gateway

    def moves(self, context: SearchContext) -> Moves:
        raise NotImplementedError(f"{type(self).__name__}: only DSPy's optimizers change it")

    def for_dspy(self, context: SearchContext) -> DspyForm:
        """Return the kind in the form that DSPy's optimizers need."""
        raise NotImplementedError(f"{type(self).__name__}: DSPy's optimizers do not support it")
