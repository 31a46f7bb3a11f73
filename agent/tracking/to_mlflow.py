"""Runs in MLflow: a database next to the ledger, or the server that MLFLOW_TRACKING_URI names."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.tracking.tracker import Cell, TrackedStart, tracker

MOST_LETTERS = 5000
"""Maximum length of a tag or parameter in MLflow."""


@tracker("mlflow", about="MLflow: runs/tracking/mlflow.db, or where MLFLOW_TRACKING_URI says", extra="mlflow")
class MlflowTracker:
    """One MLflow run; the experiment has the name of the task."""

    def __init__(self, start: TrackedStart) -> None:
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it says how it makes its database
        address = start.environ.get("MLFLOW_TRACKING_URI", "")
        store, place = address, None
        if not address:
            folder = start.folder / "mlflow"
            folder.mkdir(parents=True, exist_ok=True)
            store, place = f"sqlite:///{(start.folder / 'mlflow.db').resolve()}", folder.resolve().as_uri()
        self._client = MlflowClient(tracking_uri=store)
        known = self._client.get_experiment_by_name(start.project)
        experiment = known.experiment_id if known else self._client.create_experiment(start.project, place)
        self._run = self._client.create_run(experiment, run_name=start.run_id, tags=dict(start.tags)).info.run_id
        for name, value in start.params.items():
            self._client.log_param(self._run, name, str(value)[:MOST_LETTERS])

    def point(self, curve: str, value: float, axis: str, at: int) -> None:
        self._client.log_metric(self._run, curve, value, int(time.time() * 1000), at)

    def summary(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._client.log_metric(self._run, name, value)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        by_column = {"columns": list(columns), "data": [list(row) for row in rows]}  # as mlflow.load_table reads it
        self._client.log_dict(self._run, by_column, f"{name}.json")

    def file(self, path: Path) -> None:
        self._client.log_artifact(self._run, str(path))

    def end(self, succeeded: bool) -> None:
        self._client.set_terminated(self._run, "FINISHED" if succeeded else "FAILED")
