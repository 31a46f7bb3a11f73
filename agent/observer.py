"""What happens in a run, as it happens: the one interface of those that write it down and those that show it.

The durable record of calls (reserve, send, settle) is not among it: the gateway waits for the disk there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.types import Outcome, Proposal, SplitName, Trial


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """How far a training is; losses in nats, `left` in seconds, None before the first step."""

    name: str
    epoch: int
    epochs: int
    step: int
    steps: int
    losses: Sequence[float]
    seconds: float
    left: float | None


class Observer:
    """Ignores all that happens; a subclass overrides what it is for.

    Methods are called in the run's thread, in order, and must be quick. What they raise ends the run.
    """

    def on_message(self, line: str) -> None:
        """There is a line for the user."""

    def on_event(self, kind: str, body: Mapping[str, Any], texts: Mapping[str, str] | None = None) -> None:
        """Note an event that the ledger keeps: a JSON-ready `body`, and `texts` by name that can be erased."""

    def on_call_settled(self) -> None:
        """A call was answered, by its model or from the ledger; the account has it."""

    def on_outcome_recorded(self, split: SplitName, outcome: Outcome) -> None:
        """A candidate was scored on a row for the first time."""

    def on_candidate_accepted(self, round_: int, proposal: Proposal) -> None:
        """A candidate came into the pool, or a yardstick was made."""

    def on_candidate_rejected(self, round_: int, proposal: Proposal, reason: str) -> None:
        """A candidate broke a hard rule and is not tried."""

    def on_trial_updated(self, trial: Trial) -> None:
        """A trial was opened, or its state, its rows or its score changed."""

    def on_stage_started(self, name: str, round_: int) -> None:
        """The search came to its next stage."""

    def on_evaluation_ended(self, candidates: Sequence[str]) -> None:
        """Candidates were taken to their rows of dev; `candidates` are the ids of those that did not fail."""

    def on_training_progress(self, progress: TrainingProgress) -> None:
        """A training continues; called about every half second, and when it has ended."""


NO_OBSERVER = Observer()


class Observers(Observer):
    """Passes all that happens on to each of `observers`, in their order."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def add(self, observer: Observer) -> None:
        """Passes all that happens from now on to one more."""
        self._observers = (*self._observers, observer)


def _forward(name: str) -> Callable[..., None]:
    def forward(self: Observers, *arguments: Any) -> None:
        for each in self._observers:
            getattr(each, name)(*arguments)

    return forward


for _name in [name for name in vars(Observer) if name.startswith("on_")]:
    setattr(Observers, _name, _forward(_name))
