"""Runs in Weights & Biases: files next to the ledger (`wandb sync` sends them), or its server if configured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.tracking.tracker import Cell, TrackedStart, tracker


def mode_of(environ: Mapping[str, str]) -> str:
    """Return `offline` unless WANDB_MODE or WANDB_API_KEY is set.

    >>> mode_of({}), mode_of({"WANDB_API_KEY": "..."}), mode_of({"WANDB_MODE": "shared", "WANDB_API_KEY": "..."})
    ('offline', 'online', 'shared')
    """
    return environ.get("WANDB_MODE") or ("online" if environ.get("WANDB_API_KEY") else "offline")


@tracker(
    "wandb", about="Weights & Biases: offline in runs/tracking/wandb, unless WANDB_MODE or a key is set", extra="wandb"
)
class WandbTracker:
    """One W&B run; the project has the name of the task."""

    def __init__(self, start: TrackedStart) -> None:
        import wandb

        self._wandb: Any = wandb
        start.folder.mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(
            mode=mode_of(start.environ),
            console="off",  # what a run prints holds texts of rows
            silent=True,
            disable_code=True,
            disable_git=True,
            save_code=False,
            x_disable_stats=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
            **({"base_url": address} if (address := start.environ.get("WANDB_BASE_URL")) else {}),
        )
        self._axes: set[str] = set()
        self._run: Any = wandb.init(
            project=start.environ.get("WANDB_PROJECT") or start.project,
            entity=start.environ.get("WANDB_ENTITY"),
            name=start.run_id,
            dir=str(start.folder),
            config=dict(start.params),
            tags=[f"{name}={value}"[:64] for name, value in start.tags.items()],
            settings=settings,
        )

    def point(self, curve: str, value: float, axis: str, at: int) -> None:
        if curve not in self._axes:
            self._axes.add(curve)
            self._run.define_metric(curve, step_metric=axis)
        self._run.log({curve: value, axis: at})

    def summary(self, values: Mapping[str, float]) -> None:
        self._run.summary.update(dict(values))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        self._run.log({name: self._wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

    def file(self, path: Path) -> None:
        artifact = self._wandb.Artifact(f"{self._run.id}-{path.stem}", type="promptassay")
        artifact.add_file(str(path), name=path.name)
        self._run.log_artifact(artifact)

    def end(self, succeeded: bool) -> None:
        self._run.finish(exit_code=0 if succeeded else 1)
