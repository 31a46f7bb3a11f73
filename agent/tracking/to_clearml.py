"""Runs in ClearML: a zipped session next to the ledger (`Task.import_offline_session` sends it), or its server."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.tracking.tracker import Cell, TrackedStart, tracker

ADDRESSES = ("CLEARML_API_HOST", "CLEARML_WEB_HOST", "CLEARML_API_ACCESS_KEY", "CLEARML_CONFIG_FILE")
PATCHED = (
    "detect_repository",  # it would take the source of the program that runs, and changes that are not committed
    "matplotlib",
    "tensorflow",
    "tensorboard",
    "pytorch",
    "megengine",
    "xgboost",
    "scikit",
    "fastai",
    "lightgbm",
    "hydra",
    "gradio",
    "catboost",
    "joblib",
    "jsonargparse",
)
"""Automatic recordings of ClearML, all switched off."""


def is_offline(environ: Mapping[str, str]) -> bool:
    """Return whether nothing may be sent: no server in the environment or in ~/clearml.conf.

    >>> is_offline({"CLEARML_API_HOST": "https://clearml.example"}), is_offline({"HOME": "/nowhere"})
    (False, True)
    """
    if environ.get("CLEARML_OFFLINE_MODE", "").lower() in ("1", "true"):
        return True
    home = Path(environ.get("HOME") or Path.home())
    return not any(environ.get(name) for name in ADDRESSES) and not (home / "clearml.conf").is_file()


@tracker("clearml", about="ClearML: offline in runs/tracking/clearml, unless its server is configured", extra="clearml")
class ClearmlTracker:
    """One ClearML task; the project has the name of our task."""

    def __init__(self, start: TrackedStart) -> None:
        from clearml import Task, logger, task

        for module in (logger, task):  # stdout is for our JSON, and its lines have no switch
            vars(module)["print"] = lambda *_: None
        if is_offline(start.environ):
            os.environ.setdefault("CLEARML_CACHE_DIR", str((start.folder / "clearml").resolve()))
            Task.set_offline(offline_mode=True)
        self._task: Any = Task.init(
            project_name=start.project,
            task_name=start.run_id,
            tags=[f"{name}={value}" for name, value in start.tags.items()],
            reuse_last_task_id=False,
            output_uri=False,
            auto_connect_arg_parser=False,
            auto_connect_frameworks=dict.fromkeys(PATCHED, False),
            auto_connect_streams=False,  # what a run prints holds texts of rows
            auto_resource_monitoring=False,
        )
        self._task.set_parameters({f"promptassay/{name}": value for name, value in start.params.items()})
        self._logger: Any = self._task.get_logger()

    def point(self, curve: str, value: float, axis: str, at: int) -> None:
        self._logger.report_scalar(curve, axis, value=value, iteration=at)

    def summary(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._logger.report_single_value(name, value)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        self._logger.report_table(name, name, iteration=0, table_plot=[list(columns), *(list(row) for row in rows)])

    def file(self, path: Path) -> None:
        self._task.upload_artifact(path.stem, artifact_object=str(path), wait_on_upload=True)

    def end(self, succeeded: bool) -> None:
        if not succeeded:
            self._task.mark_failed(force=True)
        self._task.close()
