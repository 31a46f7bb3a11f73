"""Repeats the trainings of a comparison from the ledger, and compares the files."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from agent.errors import InputError
from agent.extras import require
from agent.jobs.customize.arms import ARMS, SETTINGS
from agent.jobs.customize.trainer import ADAPTERS, training_order
from agent.jobs.customize.training import row_hash, rows_hash
from agent.jobs.launch import prepare
from agent.jobs.recorded import recorded_prompt
from agent.jobs.resume import require_unchanged
from agent.ledger.query import History, Row, started_with
from agent.models.local import LocalModel
from agent.training.loop import TrainingOrder
from agent.training.parameters import read_lora
from agent.training.settings import LoraSettings


@dataclass(frozen=True, slots=True)
class Retrained:
    """A repeated training.

    Args:
        adapter, adapter_was: SHA-256 of the file now and then.
        dev_loss, dev_loss_was: lowest loss of an epoch, in nats; None: no epoch ended.
        weights: largest difference of a weight; None: equal, not LoRA, or the old file is gone.
    """

    arm: str
    labels: int
    seed: int
    adapter: str
    adapter_was: str
    dev_loss: float | None
    dev_loss_was: float | None
    weights: float | None
    numpy: str
    numpy_was: str

    @property
    def is_same(self) -> bool:
        return self.adapter == self.adapter_was

    @property
    def drift(self) -> str:
        """The differences in one line."""
        parts = [f"{self.arm} on {self.labels} rows, seed {self.seed}: the adapter is {self.adapter[:16]}"]
        parts[0] += f", it was {self.adapter_was[:16]}"
        if self.dev_loss is not None and self.dev_loss_was is not None:
            by = self.dev_loss - self.dev_loss_was
            parts.append(f"dev loss {self.dev_loss:.5f}, it was {self.dev_loss_was:.5f} ({by:+.5f})")
        parts += [f"weights differ by at most {self.weights:.2g}"] if self.weights is not None else []
        parts += [f"numpy {self.numpy}, it was {self.numpy_was}"] if self.numpy != self.numpy_was else []
        return "; ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "same": self.is_same}


def retrain(row: Row, history: History, say: Callable[[str], None]) -> list[Retrained]:
    """Train each adapter of a comparison again in a temporary folder; send nothing.

    Raises InputError where nothing was trained here, or the task, its rows or the model's file changed.
    """
    planned, done = (history.facts(kind, run_ids=[row["id"]]) for kind in ("training", "trained"))
    if not done or len(planned) != len(done):
        raise InputError(f"{row['id']}: this comparison trained no adapter here; there is nothing to repeat")
    search = history.run(row["result"]["of_run"])
    with tempfile.TemporaryDirectory(prefix="reproduce-") as name:
        launch = prepare(started_with(search), Path(name) / "ledger.db", is_new=False)
        require_unchanged(search, launch, "put it back to reproduce it")
        if not (isinstance(launch.model, LocalModel) and launch.model.path.is_file()):
            raise InputError(f"{row['id']}: {launch.model.name}: its weights are missing, so nothing can be trained")
        best = recorded_prompt(history.candidate(search["result"]["winner"]["candidate_id"]))
        rows, made = {row_hash(example): example for example in launch.task.train}, []
        for before, after in zip(planned, done, strict=True):
            plan, was = before["body"], after["body"]
            if set(plan["rows"]) - set(rows) or plan["dev"] != rows_hash(launch.task.dev):
                what = "the task no longer has the rows it was trained on"
                raise InputError(f"{row['id']}: {plan['arm']}: {what}")
            say(f"{plan['arm']}, seed {plan['seed']}: training on {len(plan['rows'])} rows again")
            if plan["trainer"] != "numpy":
                require("tune", f"{row['id']}: {plan['arm']}, trained by {plan['trainer']}")
            settings = replace(SETTINGS[ARMS[plan["arm"]].method](**was["settings"]), max_seconds=None)
            if was["ended"] == "seconds":
                settings = replace(settings, max_tokens=was["tokens"])
            order = training_order(
                plan["arm"],
                launch.task,
                [rows[digest] for digest in plan["rows"]],
                launch.model,
                best,
                settings=settings,
                folder=Path(name),
                trainer=plan["trainer"],
                weights=plan["weights"] and Path(plan["weights"]),
            )
            now, kept = order.train(), history.path.parent / ADAPTERS
            is_same = now.sha256 == was["adapter"]
            made.append(
                Retrained(
                    str(plan["arm"]),
                    int(plan["labels"]),
                    int(plan["seed"]),
                    now.sha256,
                    str(was["adapter"]),
                    round(-max(now.scores), 5) if now.scores else None,
                    min(was["dev_losses"], default=None),
                    None if is_same else _weights(now.path, kept, was["adapter"], order),
                    version("numpy"),
                    str(was["numpy"]),
                )
            )
    return made


def _weights(now: Path, kept: Path, digest: str, order: TrainingOrder) -> float | None:
    was = kept / f"adapter-{digest[:16]}.gguf"
    if not isinstance(order.settings, LoraSettings) or not re.fullmatch(r"[0-9a-f]{64}", digest) or not was.is_file():
        return None
    return float(abs(read_lora(now, order.base).flat - read_lora(was, order.base).flat).max())
