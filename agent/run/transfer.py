"""A run's best prompts on other models: the same candidates, the same dev rows, a score for each pair.

It says which prompt travels and which was made for one model. Dev rows chose these prompts, so their scores on the
run's own model flatter them, and are not tested; on the others they are what they are. The sealed test is never
touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.errors import BudgetExhausted
from agent.programs.catalog import program_for
from agent.run.job import Job, Means
from agent.scoring.evaluate import Evaluator
from agent.scoring.llm_judge import judge_builder, judge_calls
from agent.scoring.task_metrics import build_metrics
from agent.stats.intervals import mean_ci, paired_difference
from agent.types import LM, Candidate, Task

Scores = Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Entrant:
    """A candidate of the run: its trial, and what it scored there on each dev row, in their order."""

    trial: int
    candidate: Candidate
    scores: tuple[float | None, ...]


class Transfer(Job):
    """`entrants` begin with the baseline; `own` is the run's model, whose scores are taken from the ledger."""

    command = kind = "transfer"
    done = "transferred"

    def __init__(
        self,
        task: Task,
        entrants: Sequence[Entrant],
        own: str,
        run: str,
        lms: Sequence[LM],
        judges: Sequence[LM],
        means: Means,
    ) -> None:
        super().__init__(task, [lm.name for lm in lms], means)
        self._entrants, self._own, self._run, self._lms, self._judges = entrants, own, run, lms, judges

    @staticmethod
    def calls(task: Task, entrants: int, models: int) -> int:
        """What it may take at most."""
        return models * entrants * len(task.dev) * (1 + judge_calls(task))

    @property
    def planned(self) -> int:
        return self.calls(self.task, len(self._entrants), len(self._lms))

    async def work(self) -> dict[str, Any]:
        columns: dict[str, Sequence[Scores]] = {self._own: [entrant.scores for entrant in self._entrants]}
        for lm in self._lms:
            columns[lm.name] = await self._column(lm)
        own, *others = (self._told(name, found) for name, found in columns.items())
        _test(own, others)
        return {
            "kind": self.kind,
            "run_id": self.id,
            "of_run": self._run,
            "task": self.task.name,
            "rows": len(self.task.dev),
            "candidates": [self._shown(each) for each in self._entrants],
            "models": [{"own": name == self._own, **told} for name, told in zip(columns, (own, *others), strict=True)],
            **self.cost(),
            "status": "budget" if self._stopped else "complete",
            "ledger_head": self._ledger.head(),
        }

    def _shown(self, entrant: Entrant) -> dict[str, Any]:
        shown = program_for(self.task, self._lms[0]).shown(entrant.candidate)
        return {
            "candidate_id": entrant.candidate.id,
            "trial": entrant.trial,
            "technique": shown.technique,
            "format": shown.format,
            "n_demos": shown.n_demos,
            "instruction": shown.text,
        }

    def noted(self, result: Mapping[str, Any]) -> Mapping[str, Any]:
        ids = [each["candidate_id"] for each in result["candidates"]]
        return {"of_run": self._run, "candidates": ids, "models": result["models"], "status": result["status"]}

    async def _column(self, lm: LM) -> list[Scores]:
        """Each candidate's scores on one model; where the budget ends, none for what was not finished."""
        judges = judge_builder(self.task, self._judges or (lm,), self._gateway)
        metrics = build_metrics(self.task, {"judge": judges})
        base = self._entrants[0].candidate.id
        program = program_for(self.task, lm)
        evaluator = Evaluator(
            self.task, self._gateway, lm, metrics, lambda split, outcome: None, [program], baseline_id=base
        )
        found: list[Scores] = []
        for entrant in self._entrants:
            try:
                outcomes = await evaluator.outcomes(entrant.candidate, self.task.dev, "dev")
            except BudgetExhausted as stop:
                self._stopped = str(stop)
                await self._gateway.drain()
                found.append(())
            else:
                found.append([outcome.value for outcome in outcomes])
        return found

    def _told(self, model: str, column: Sequence[Scores]) -> dict[str, Any]:
        """One model: each candidate's score with interval and rank, and the paired difference to the baseline."""
        cells = [self._cell(scores, column[0]) for scores in column]
        means = [cell["mean"] for cell in cells]
        for cell in cells:
            known = [mean for mean in means if mean is not None]
            cell["rank"] = None if cell["mean"] is None else 1 + sum(mean > cell["mean"] + 1e-12 for mean in known)
        return {"model": model, "scores": cells}

    def _cell(self, scores: Scores, base: Scores) -> dict[str, Any]:
        known = [value for value in scores if value is not None]
        if not known:
            return {"mean": None, "ci95": None, "n": 0, "unscored": len(scores), "lift": None}
        mean, low, high = mean_ci(known)
        told = {"mean": mean, "ci95": [low, high], "n": len(known), "unscored": len(scores) - len(known), "lift": None}
        both = [(a, b) for a, b in zip(scores, base, strict=False) if a is not None and b is not None]
        if scores is base or not both:
            return told
        found = paired_difference([a for a, _ in both], [b for _, b in both], self._means.seed)
        lift = {"diff": found.diff, "ci95": list(found.ci95), "p_value": found.p_value, "p_holm": None, "n": found.n}
        return {**told, "lift": lift}


def _test(own: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> None:
    """Holm's step-down (1979) over all cells, as of many some look different by chance; the run's own column, whose
    scores chose the prompts, has no p-value."""
    for lift in _lifts(own):
        lift["p_value"] = None
    lifts = [lift for told in others for lift in _lifts(told)]
    least = 0.0
    for place, lift in enumerate(sorted(lifts, key=lambda lift: float(lift["p_value"]))):
        lift["p_holm"] = least = min(1.0, max(least, (len(lifts) - place) * lift["p_value"]))


def _lifts(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [cell["lift"] for cell in told["scores"] if cell["lift"] is not None]
