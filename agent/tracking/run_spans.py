"""A run as spans: the run, its trials below it, and their calls below these. Calls without a trial, such as a
proposer's, stand below the run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from agent.observer import Observer
from agent.tracking.spans import SCOPE, OtelTracer, end_failed
from agent.types import Trial


class RunSpans(Observer, OtelTracer):
    """The spans of one run.

    Args:
        provider: of OpenTelemetry.
        environ: as of `OtelTracer`.
        task: the task's name.
        run_id: of the ledger.
    """

    def __init__(self, provider: Any, environ: Mapping[str, str], task: str, run_id: str) -> None:
        super().__init__(provider.get_tracer(SCOPE), environ)
        known = {"promptassay.run.id": run_id, "promptassay.task.name": task}
        self._run = self._tracer.start_span(f"promptassay run {task}", attributes=known)
        self._trials: dict[str, Any] = {}  # the open span of each candidate
        self._updated: dict[str, int] = {}  # when it changed last, in nanoseconds since 1970

    def on_trial_updated(self, trial: Trial) -> None:
        span = self._trials.get(trial.candidate_id)
        if span is None:
            span = self._tracer.start_span(f"promptassay trial {trial.number}", self._below(self._run))
            self._trials[trial.candidate_id] = span
        known = {
            "promptassay.trial.number": trial.number,
            "promptassay.trial.state": trial.state,
            "promptassay.trial.rows": trial.n,
            "promptassay.candidate.id": trial.candidate_id,
            **({} if trial.mean is None else {"gen_ai.evaluation.score.value": trial.mean}),
        }
        span.set_attributes(known)
        self._updated[trial.candidate_id] = time.time_ns()

    def parent(self, candidate_id: str) -> Any:
        if candidate_id in self._updated:
            self._updated[candidate_id] = time.time_ns()
        return self._below(self._trials.get(candidate_id, self._run))

    def end(self, error: BaseException | None = None) -> None:
        """Ends all spans: a trial's when it last changed or began a call."""
        for candidate_id, span in self._trials.items():
            span.end(self._updated[candidate_id])
        if error is not None:
            end_failed(self._run, error)
        self._run.end()

    @staticmethod
    def _below(span: Any) -> Any:
        from opentelemetry.trace import set_span_in_context

        return set_span_in_context(span)
