"""The trials of a run so far: proposals, outcomes on dev rows, and states."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from agent.evaluate.evaluator import evidence, values
from agent.observer import NO_OBSERVER, Observer
from agent.prompt.label_calibration import LabelCalibration, share_of_all
from agent.prompt.parts.calibration import Opinion
from agent.results.run_parts import OperatorUse, ProposalFate
from agent.search.program import Parent, Program
from agent.search.study import MeanScore, shrunk
from agent.stats.calibration import label_free
from agent.stats.intervals import both_scored, mean_ci
from agent.stats.racing import adjusted_means
from agent.types import Candidate, Example, Field, Outcome, Proposal, Trial, TrialState


class Trials:
    """Proposals, outcomes and trials by candidate id; outcomes come in by `record` alone."""

    def __init__(self, observer: Observer = NO_OBSERVER) -> None:
        self.proposals: dict[str, Proposal] = {}
        self._outcomes: dict[str, list[Outcome]] = {}
        self.outcomes: Mapping[str, Sequence[Outcome]] = self._outcomes
        self._compared: dict[str, list[Outcome]] = {}
        self.by_id: dict[str, Trial] = {}
        self._observer = observer
        self._evidence: dict[str, list[float | None]] = {}
        self._means: dict[str, float] = {}
        self._order: list[str] = []

    def candidate(self, candidate_id: str) -> Candidate:
        return self.proposals[candidate_id].candidate

    def open(self, candidate_id: str, round_: int) -> None:
        self._put(Trial(len(self.by_id), round_, candidate_id, "incomplete", 0, None))

    def record(self, candidate_id: str, outcomes: Sequence[Outcome], compared: Sequence[Outcome] | None = None) -> None:
        """Store all outcomes on the first dev rows. `compared`: as used in comparisons."""
        later = [each for each in self._outcomes if self.by_id[each].number > self.by_id[candidate_id].number]
        for kept, given in ((self._outcomes, outcomes), (self._compared, outcomes if compared is None else compared)):
            kept[candidate_id] = list(given)
            kept.update({each: kept.pop(each) for each in later})  # in the order of trials, not of answers
        self._evidence.clear()
        self._means.clear()
        self._order.clear()

    def settle(self, candidate_id: str, state: TrialState, reason: str) -> None:
        """Set the state of a trial, its mean over scored rows, and the reason."""
        old = self.by_id[candidate_id]
        scored = values(self.outcomes.get(candidate_id, []))
        mean, low, high = mean_ci(scored) if scored else (None, None, None)
        ci95 = None if low is None or high is None else (low, high)
        self._put(Trial(old.number, old.round, candidate_id, state, len(scored), mean, ci95, reason))

    def _put(self, trial: Trial) -> None:
        self.by_id[trial.candidate_id] = trial
        self._order.clear()
        self._observer.on_trial_updated(trial)

    def close_open(self, reason: str) -> None:
        """Set the reason of every incomplete trial."""
        for candidate_id, trial in self.by_id.items():
            if trial.state == "incomplete":
                self.settle(candidate_id, "incomplete", reason)

    def in_state(self, state: TrialState) -> list[str]:
        return [i for i, trial in self.by_id.items() if trial.state == state]

    def why_failed(self) -> str:
        """Return the most frequent reason of failed trials, or ""."""
        whys = Counter(self.by_id[candidate_id].reason for candidate_id in self.in_state("failed"))
        return max(whys, key=whys.__getitem__, default="")

    def mean(self, candidate_id: str) -> float | None:
        trial = self.by_id.get(candidate_id)
        return trial.mean if trial else None

    def scores(self, candidate_id: str) -> list[float | None]:
        return [outcome.value for outcome in self.outcomes.get(candidate_id, ())]

    def furthest(self, ids: Sequence[str]) -> str:
        """Return the one that saw the most rows, the best of several; "" of none."""
        return max(ids, key=lambda i: (len(self.outcomes[i]), self.mean(i) or 0.0), default="")

    def common(self, one: str, two: str) -> list[tuple[float, float]]:
        """Return the scores of two candidates on the rows that both have a score on."""
        return both_scored(self.scores(one), self.scores(two))

    def prefixes(self, candidates: Sequence[str]) -> dict[str, list[float]]:
        """Return the scores of each candidate; a missing one becomes its mean."""
        scored = {i: values(self.outcomes.get(i, ())) for i in candidates}
        means = {i: sum(known) / len(known) for i, known in scored.items() if known}
        return {
            i: [means[i] if outcome.value is None else outcome.value for outcome in self.outcomes[i]] if known else []
            for i, known in scored.items()
        }

    def compared(self) -> dict[str, list[float | None]]:
        """Return the scores that comparisons use, by candidate id."""
        return {i: [outcome.value for outcome in outcomes] for i, outcomes in self._compared.items()}

    def evidence(self, candidate_id: str) -> Sequence[float]:
        """Return each scored row's weight; without log-probabilities with the mean signal of others."""
        return [value for value in self._by_row().get(candidate_id, ()) if value is not None]

    def _by_row(self) -> dict[str, list[float | None]]:
        if not self._evidence:
            given = [o for outcomes in self._compared.values() for o in outcomes if o.signal is not None]
            right = [o.signal or 0.0 for o in given if (o.value or 0.0) >= 0.5]
            wrong = [o.signal or 0.0 for o in given if (o.value or 0.0) < 0.5]
            low = math.fsum(wrong) / len(wrong) if wrong else 0.0
            high = math.fsum(right) / len(right) if right else 1.0

            def weight(value: float, signal: float | None) -> float:
                usual = (1 - value) * low + value * high if given else None
                return evidence(value, usual if signal is None else signal)

            self._evidence = {
                i: [None if o.value is None else weight(o.value, o.signal) for o in outcomes]
                for i, outcomes in self._compared.items()
            }
        return self._evidence

    def estimates(self) -> dict[str, MeanScore]:
        return {candidate_id: self.estimate(candidate_id) for candidate_id in self.by_id}

    def estimate(self, candidate_id: str) -> MeanScore:
        """Estimate a candidate's mean evidence, adjusted for the rows that it has seen."""
        if not self._means:
            self._means = adjusted_means(self._by_row())
        return MeanScore(self._means.get(candidate_id, 0.0), len(self.evidence(candidate_id)))

    def parents(self, count: int) -> list[Parent]:
        return [Parent(self.proposals[i], tuple(self.outcomes[i])) for i in self.ranked()[:count]]

    def ranked(self) -> Sequence[str]:
        """Return the ids with a score that did not fail, by shrunk mean, best first."""
        if not self._order:
            scored = {i: score for i, score in self.estimates().items() if score.n and self.by_id[i].state != "failed"}
            prior = sum(score.mean for score in scored.values()) / len(scored) if scored else 0.0
            self._order = sorted(scored, key=lambda i: -shrunk(scored[i], prior))
        return self._order

    def leader(self, rows: int) -> Trial | None:
        known = [t for t in self.by_id.values() if t.mean is not None and t.ci95 is not None and t.n >= rows]
        return max(known, key=lambda trial: trial.mean or 0.0, default=None)


class Calibrated:
    """Reads outcomes as calibrated without right answers, for comparisons alone.

    Finalists are calibrated, and prompts with picked examples gain most: by raw replies they would be pruned on few
    rows.
    """

    def __init__(self, program: Program) -> None:
        outputs = program.task.signature.outputs
        self._field: Field | None = outputs[0] if len(outputs) == 1 and len(outputs[0].choices) > 1 else None
        self._program = program

    def read(self, candidate: Candidate, rows: Sequence[Example], outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Return outcomes with calibrated value and signal; those without log-probabilities stay."""
        field = self._field
        scored = [o.label_scores for o in outcomes if o.label_scores is not None and o.value is not None]
        if field is None or not scored:
            return list(outcomes)
        voter = next(iter(self._program.opinions(candidate)), None)
        bias = dict(zip(field.choices, label_free(scored).bias, strict=True))
        calibration = LabelCalibration("label-free", bias, 1.0, **(voter.weighed(1.0) if voter else {}))
        if self._program.calibrated(candidate, calibration) is None:
            return list(outcomes)
        both = zip(rows, outcomes, strict=True)
        return [self._one(row, outcome, field, calibration, voter) for row, outcome in both]

    def _one(
        self, row: Example, outcome: Outcome, field: Field, calibration: LabelCalibration, voter: Opinion | None
    ) -> Outcome:
        right = row.labels[field.name]
        if outcome.label_scores is None or outcome.value is None or right not in field.choices:
            return outcome
        scores = calibration.scores(outcome.label_scores, voter.said(row) if voter else ())
        at = field.choices.index(right)
        answer = field.choices[scores.index(max(scores))]
        is_same = answer == outcome.prediction.fields.get(field.name)
        value = outcome.value if is_same else float(answer == right)
        return replace(outcome, value=value, signal=share_of_all(scores, at))


# -- the proposer's part -----------------------------------------------------------------------------------------------

Became = Literal["refused", "dropped", "waiting", "tried", "finalist", "winner"]


@dataclass(slots=True)
class ProposalLog:
    """The proposals of a search in order, and the calls of the proposer for them."""

    calls: int = 0
    records: list[ProposalFate] = field(default_factory=list)

    def open(self, operator: str, **values: Any) -> ProposalFate:
        self.records.append(ProposalFate(number=len(self.records) + 1, operator=operator, **values))
        return self.records[-1]

    def change(self, number: int, **changes: Any) -> None:
        self.records[number - 1] = self.records[number - 1].model_copy(update=changes)

    def became(self, record: ProposalFate, trials: Trials, winner_id: str = "") -> Became:
        if record.refused:
            return "refused"
        if record.became == "dropped":
            return "dropped"
        tried = _tried(record, trials)
        if not tried:
            return "waiting"
        if winner_id in tried:
            return "winner"
        return "finalist" if any(trials.by_id[i].state == "complete" for i in tried) else "tried"

    def climbed(self, record: ProposalFate, trials: Trials, first: int) -> bool:
        tried = _tried(record, trials)
        return any(len(trials.outcomes[i]) > first or trials.by_id[i].state == "complete" for i in tried)

    def fates(self, trials: Trials, winner_id: str) -> list[ProposalFate]:
        return [
            record.model_copy(
                update={
                    **(_compared(record, trials) if record.before is None else {}),
                    "became": self.became(record, trials, winner_id),
                }
            )
            for record in self.records
        ]


def _tried(record: ProposalFate, trials: Trials) -> list[str]:
    proposals = trials.proposals
    return [i for i in trials.outcomes if record.instruction and record.instruction in proposals[i].place.values()]


def _compared(record: ProposalFate, trials: Trials) -> dict[str, float | None]:
    tried = _tried(record, trials)
    scored = trials.common(record.parent_id, trials.furthest(tried)) if record.parent_id else []
    if not scored:
        return {"before": None, "after": None}
    before, after = zip(*scored, strict=True)
    return {"before": sum(before) / len(scored), "after": sum(after) / len(scored)}


def by_operator(proposals: Sequence[ProposalFate]) -> list[OperatorUse]:
    """Summarize `ProposalLog.fates` by operator, in order of first use."""
    found = []
    for name in dict.fromkeys(each.operator for each in proposals):
        mine = [each for each in proposals if each.operator == name]
        states = [each.became for each in mine]
        changes = [each.after - each.before for each in mine if each.before is not None and each.after is not None]
        found.append(
            OperatorUse(
                operator=name,
                asked=len(mine),
                refused=states.count("refused"),
                dropped=states.count("dropped"),
                tried=sum(state in ("tried", "finalist", "winner") for state in states),
                finalists=sum(state in ("finalist", "winner") for state in states),
                points=100 * sum(changes) / len(changes) if changes else None,
            )
        )
    return found
