"""What replies would say if label weights decided: by that, candidates are compared while a search goes on.

A finalist is scored with label weights as well (`label_weighting.py`); one that picks its examples gains most there.
Compared by what the replies say as they stand, such a prompt is cut on few rows. So each row is read here with weights
that need no right answer, over the rows that the candidate has seen, and with the votes of its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agent.prompt.label_weights import LabelWeights, Neighbours, share_of_all
from agent.retrieval.votes import NEIGHBOURS
from agent.search.program import Program
from agent.stats.calibration import label_free
from agent.types import Candidate, Example, Field, Outcome


class Calibrated:
    """Reads outcomes on dev rows with label weights, for comparisons alone.

    A task without a single output with labels leaves outcomes unchanged. `with_neighbours`: whether those that pick
    examples get a twin with neighbours.
    """

    def __init__(self, program: Program, with_neighbours: bool) -> None:
        outputs = program.task.signature.outputs
        self._field: Field | None = outputs[0] if len(outputs) == 1 and len(outputs[0].choices) > 1 else None
        self._program, self._with_neighbours = program, with_neighbours

    def read(self, candidate: Candidate, rows: Sequence[Example], outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Give outcomes the value and the signal that they would have; those without log-probabilities stay."""
        field = self._field
        scored = [o.label_scores for o in outcomes if o.label_scores is not None and o.value is not None]
        if field is None or not scored:
            return list(outcomes)
        near = Neighbours(NEIGHBOURS, 1.0) if self._with_neighbours and self._program.picks(candidate) else None
        weights = LabelWeights("label-free", dict(zip(field.choices, label_free(scored).bias, strict=True)), 1.0, near)
        if self._program.weighted(candidate, weights) is None:
            return list(outcomes)
        return [self._one(candidate, row, outcome, field, weights) for row, outcome in zip(rows, outcomes, strict=True)]

    def _one(
        self, candidate: Candidate, row: Example, outcome: Outcome, field: Field, weights: LabelWeights
    ) -> Outcome:
        right = row.labels[field.name]
        if outcome.label_scores is None or outcome.value is None or right not in field.choices:
            return outcome
        votes = self._program.votes(candidate, row, NEIGHBOURS) if weights.neighbours else None
        scores = weights.scores(outcome.label_scores, votes or ())
        at = field.choices.index(right)
        answer = field.choices[scores.index(max(scores))]
        is_same = answer == outcome.prediction.fields.get(field.name)
        value = outcome.value if is_same else float(answer == right)
        return replace(outcome, value=value, signal=share_of_all(scores, at))
