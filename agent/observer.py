"""The events of a run: one interface for those that store it and those that show it.

The record of calls (reserve, send, settle) is not part of it: the gateway waits for the disk there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.types import Outcome, Proposal, SplitName, Trial


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """Progress of a training; losses in nats, `left` in seconds, None before the first step."""

    name: str
    epoch: int
    epochs: int
    step: int
    steps: int
    losses: Sequence[float]
    seconds: float
    left: float | None


class Observer:
    """Ignores all events. Methods are called in the run's thread and must be quick; what they raise ends the run."""

    def on_message(self, line: str) -> None:
        """Handle a line for the user."""

    def on_event(self, kind: str, body: Mapping[str, Any], texts: Mapping[str, str] | None = None) -> None:
        """Handle an event for the ledger: a JSON-ready `body` and erasable `texts` by name."""

    def on_call_settled(self) -> None:
        """Handle a call that was answered, by its model or from the ledger."""

    def on_outcome_recorded(self, split: SplitName, outcome: Outcome) -> None:
        """Handle the first score of a candidate on a row."""

    def on_candidate_accepted(self, round_: int, proposal: Proposal) -> None:
        """Handle a candidate that joined the pool, or a baseline without a model."""

    def on_candidate_rejected(self, round_: int, proposal: Proposal, reason: str) -> None:
        """Handle a candidate that broke a hard rule and is not tried."""

    def on_trial_updated(self, trial: Trial) -> None:
        """Handle a new trial, or a change of its state, rows or score."""

    def on_stage_started(self, name: str, round_: int) -> None:
        """Handle the next stage of the search."""

    def on_evaluation_ended(self, candidates: Sequence[str]) -> None:
        """Handle candidates scored on their dev rows; `candidates` are the ids that did not fail."""

    def on_training_progress(self, progress: TrainingProgress) -> None:
        """Handle the progress of a training, about every half second and at its end."""


NO_OBSERVER = Observer()


class Observers(Observer):
    """Forwards all events to each of `observers`, in order."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def add(self, observer: Observer) -> None:
        """Forward all events from now on to one more observer."""
        self._observers = (*self._observers, observer)


def _forward(name: str) -> Callable[..., None]:
    def forward(self: Observers, *arguments: Any) -> None:
        for each in self._observers:
            getattr(each, name)(*arguments)

    return forward


for _name in [name for name in vars(Observer) if name.startswith("on_")]:
    setattr(Observers, _name, _forward(_name))
