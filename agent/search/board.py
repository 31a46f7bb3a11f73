"""What a run knows so far: which candidates there are, what each did on which rows, and where its trial stands.

Pure bookkeeping: knows no model, no SQL and no order of things.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from agent.observer import NO_OBSERVER, Observer
from agent.scoring.evaluate import values
from agent.scoring.label_signal import evidence
from agent.search.program import Parent
from agent.search.study import Seen, shrunk
from agent.stats.intervals import mean_ci
from agent.types import Candidate, Outcome, Proposal, Trial, TrialState


class Board:
    """`proposals`, `outcomes` and `trials` by candidate id; trials are numbered in the order in which they opened.

    Outcomes come in by `record` alone: what follows from them is worked out once and kept until the next ones come in.
    Every change of a trial goes to `observer`.
    """

    def __init__(self, observer: Observer = NO_OBSERVER) -> None:
        self.proposals: dict[str, Proposal] = {}
        self._outcomes: dict[str, list[Outcome]] = {}
        self.outcomes: Mapping[str, Sequence[Outcome]] = self._outcomes
        self.looks = 0
        """How often outcomes came in."""
        self.trials: dict[str, Trial] = {}
        self._observer = observer
        self._signals: tuple[float, float] | None = None
        """The mean signal of the wrong and of the right rows; goes with `_evidence`."""
        self._evidence: dict[str, list[float]] = {}
        self._order: list[str] = []

    def candidate(self, candidate_id: str) -> Candidate:
        """The candidate of the pool with this id. Raises KeyError for one that is not in it."""
        return self.proposals[candidate_id].candidate

    def open(self, candidate_id: str, round_: int) -> None:
        """Opens a candidate's trial, with the next number; `round_` is kept with it."""
        self._put(Trial(len(self.trials), round_, candidate_id, "incomplete", 0, None))

    def record(self, candidate_id: str, outcomes: Sequence[Outcome]) -> None:
        """Keeps all outcomes of a candidate so far, those of the first rows, in the order of the rows."""
        self._outcomes[candidate_id] = list(outcomes)
        self.looks += 1
        self._evidence.clear()
        self._order.clear()

    def settle(self, candidate_id: str, state: TrialState, reason: str) -> None:
        """Sets the state of a candidate's trial, with the mean over the rows that have a score.

        Args:
            candidate_id: a candidate whose trial was opened.
            state: where the trial stands now.
            reason: why, in words for the user.
        """
        old = self.trials[candidate_id]
        scored = values(self.outcomes.get(candidate_id, []))
        mean, low, high = mean_ci(scored) if scored else (None, None, None)
        ci95 = None if low is None or high is None else (low, high)
        self._put(Trial(old.number, old.round, candidate_id, state, len(scored), mean, ci95, reason))

    def _put(self, trial: Trial) -> None:
        self.trials[trial.candidate_id] = trial
        self._order.clear()
        self._observer.on_trial_updated(trial)

    def close_open(self, reason: str) -> None:
        """Gives every incomplete trial the reason why it stays so."""
        for candidate_id, trial in self.trials.items():
            if trial.state == "incomplete":
                self.settle(candidate_id, "incomplete", reason)

    # -- questions ----------------------------------------------------------------------------------------------------

    def in_state(self, state: TrialState) -> list[str]:
        """The ids of candidates whose trials are in this state, in the order of their trials."""
        return [i for i, trial in self.trials.items() if trial.state == state]

    def mean(self, candidate_id: str) -> float | None:
        """The mean score of a candidate's trial, in [0, 1]; None without a trial or a score."""
        trial = self.trials.get(candidate_id)
        return trial.mean if trial else None

    def prefixes(self, candidates: Sequence[str]) -> dict[str, list[float]]:
        """Score vectors over the first rows that each saw; a row without a score counts as the mean of the others.

        Args:
            candidates: ids.

        Returns:
            By candidate id: one score in [0, 1] for each row seen; none for a candidate that has no score at all.
        """
        vectors = {}
        for candidate_id in candidates:
            outcomes = self.outcomes.get(candidate_id, [])
            scored = values(outcomes)
            mean = sum(scored) / len(scored) if scored else None
            filled = [mean if outcome.value is None else outcome.value for outcome in outcomes]
            vectors[candidate_id] = [value for value in filled if value is not None]
        return vectors

    def evidence(self, candidate_id: str) -> Sequence[float]:
        """Per scored row what it says in a comparison: the score, with the model's own weight beside it.

        A candidate whose calls bring no log-probabilities (a chain of thought) gets the mean of the others at such a
        score.
        """
        if not self._evidence:
            self._signals = self._mean_signals()
        if candidate_id not in self._evidence:
            scored = [(o.value, o.signal) for o in self.outcomes.get(candidate_id, ()) if o.value is not None]
            self._evidence[candidate_id] = [
                evidence(value, self._usual(value) if signal is None else signal) for value, signal in scored
            ]
        return self._evidence[candidate_id]

    def _mean_signals(self) -> tuple[float, float] | None:
        """Over all outcomes; None where no outcome has one."""
        known = [o for outcomes in self.outcomes.values() for o in outcomes if o.signal is not None]
        right = [o.signal or 0.0 for o in known if (o.value or 0.0) >= 0.5]
        wrong = [o.signal or 0.0 for o in known if (o.value or 0.0) < 0.5]
        low = math.fsum(wrong) / len(wrong) if wrong else 0.0
        high = math.fsum(right) / len(right) if right else 1.0
        return (low, high) if known else None

    def _usual(self, value: float) -> float | None:
        """The mean signal beside this score; None where no outcome has one."""
        means = self._signals
        return None if means is None else (1 - value) * means[0] + value * means[1]

    def seen(self) -> dict[str, Seen]:
        """What is known of each candidate that was tried, from its evidence; nothing scored counts as nothing seen."""
        return {candidate_id: self.known(candidate_id) for candidate_id in self.trials}

    def known(self, candidate_id: str) -> Seen:
        """The mean of a candidate's evidence, and over how many rows."""
        rows = self.evidence(candidate_id)
        return Seen(sum(rows) / len(rows) if rows else 0.0, len(rows))

    def parents(self, count: int) -> list[Parent]:
        """The best candidates so far, at most `count`, by a mean drawn towards the middle when few rows were seen."""
        if not self._order:
            known = {i: seen for i, seen in self.seen().items() if seen.n and self.trials[i].state != "failed"}
            prior = sum(seen.mean for seen in known.values()) / len(known) if known else 0.0
            self._order = sorted(known, key=lambda i: -shrunk(known[i], prior))
        return [Parent(self.proposals[i], tuple(self.outcomes[i])) for i in self._order[:count]]

    def leader(self, rows: int) -> Trial | None:
        """The best trial of those that saw at least `rows` rows; None where there is none."""
        trials = [t for t in self.trials.values() if t.mean is not None and t.ci95 is not None and t.n >= rows]
        return max(trials, key=lambda trial: trial.mean or 0.0, default=None)
