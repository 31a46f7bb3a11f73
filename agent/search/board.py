"""What a run knows so far: which candidates there are, what each did on which rows, and where its trial stands.

Pure bookkeeping: knows no model, no SQL and no order of things. Every change of a trial goes to `on_trial`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agent.scoring.evaluate import values
from agent.scoring.signal import evidence
from agent.scoring.stats import mean_ci
from agent.search.pool import Entry, Parent
from agent.search.study import Seen, shrunk
from agent.types import Candidate, Outcome, Trial, TrialState


class Board:
    """`entries`, `outcomes` and `trials` by candidate id; trials are numbered in the order in which they opened."""

    def __init__(self, on_trial: Callable[[Trial], None]) -> None:
        self.entries: dict[str, Entry] = {}
        self.outcomes: dict[str, list[Outcome]] = {}
        self.trials: dict[str, Trial] = {}
        self._on_trial = on_trial

    def candidate(self, candidate_id: str) -> Candidate:
        return self.entries[candidate_id].candidate

    def open(self, candidate_id: str, round_: int) -> None:
        self._put(Trial(len(self.trials), round_, candidate_id, "incomplete", 0, None))

    def settle(self, candidate_id: str, state: TrialState, reason: str) -> None:
        """Where the trial stands now, with the mean over the rows that have a score."""
        old = self.trials[candidate_id]
        scored = values(self.outcomes.get(candidate_id, []))
        mean, low, high = mean_ci(scored) if scored else (None, None, None)
        ci95 = None if low is None or high is None else (low, high)
        self._put(Trial(old.number, old.round, candidate_id, state, len(scored), mean, ci95, reason))

    def _put(self, trial: Trial) -> None:
        self.trials[trial.candidate_id] = trial
        self._on_trial(trial)

    def close_open(self, reason: str) -> None:
        for candidate_id, trial in self.trials.items():
            if trial.state == "incomplete":
                self.settle(candidate_id, "incomplete", reason)

    # -- questions ----------------------------------------------------------------------------------------------------

    def in_state(self, state: TrialState) -> list[str]:
        return [i for i, trial in self.trials.items() if trial.state == state]

    def mean(self, candidate_id: str) -> float | None:
        trial = self.trials.get(candidate_id)
        return trial.mean if trial else None

    def prefixes(self, candidates: Sequence[str]) -> dict[str, list[float]]:
        """Score vectors over the first rows that each saw, without the rows that any of them has no score for."""
        table = {i: [outcome.value for outcome in self.outcomes.get(i, ())] for i in candidates}
        width = max((len(row) for row in table.values()), default=0)
        whole = [n for n in range(width) if all(row[n] is not None for row in table.values() if n < len(row))]
        return {i: [value for n in whole if n < len(row) and (value := row[n]) is not None] for i, row in table.items()}

    def evidence(self, candidate_id: str) -> list[float]:
        """Per scored row what it says in a comparison: the score, with the model's own weight beside it."""
        return [evidence(o.value, o.signal) for o in self.outcomes.get(candidate_id, ()) if o.value is not None]

    def seen(self) -> dict[str, Seen]:
        """What is known of each candidate that was tried, from its evidence; nothing scored counts as nothing seen."""
        return {candidate_id: self.known(candidate_id) for candidate_id in self.trials}

    def known(self, candidate_id: str) -> Seen:
        """The mean of a candidate's evidence, and over how many rows."""
        rows = self.evidence(candidate_id)
        return Seen(sum(rows) / len(rows) if rows else 0.0, len(rows))

    def parents(self, count: int) -> list[Parent]:
        """The best candidates so far, by a mean drawn towards the middle when few rows were seen."""
        known = {i: seen for i, seen in self.seen().items() if seen.n and self.trials[i].state != "failed"}
        prior = sum(seen.mean for seen in known.values()) / len(known) if known else 0.0
        order = sorted(known, key=lambda i: -shrunk(known[i], prior))
        return [Parent(self.entries[i], tuple(self.outcomes[i])) for i in order[:count]]

    def best_instructions(self) -> list[tuple[str, float]]:
        """Each instruction with the best mean of its candidates, worst first."""
        best: dict[str, float] = {}
        for candidate_id, trial in self.trials.items():
            if trial.mean is not None:
                text = self.candidate(candidate_id).instruction
                best[text] = max(best.get(text, 0.0), trial.mean)
        return sorted(best.items(), key=lambda item: item[1])

    def leader(self, rows: int) -> Trial | None:
        """The best trial of those that saw at least `rows` rows."""
        found = [t for t in self.trials.values() if t.mean is not None and t.ci95 is not None and t.n >= rows]
        return max(found, key=lambda trial: trial.mean or 0.0, default=None)

    def winner(self, baseline: Candidate) -> Candidate:
        """The best of those that saw the whole of dev; equal scores go to the baseline, then to the fewest demos."""
        complete = self.in_state("complete")
        if not complete:
            return baseline
        best = max(complete, key=lambda i: (self.mean(i) or 0.0, i == baseline.id, -len(self.candidate(i).demos)))
        return self.candidate(best)
