"""Whether a finished cell is still one of its files: its scores are not shown beside those of other rows or prompts."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from agent.errors import AgentError
from agent.ledger.query import started_with
from agent.run.locations import open_history
from agent.run.resume import task_changes
from agent.run.tasks import task_of
from agent.types import Task


@dataclass(slots=True)
class Files:
    """The files of cells as they are now. Each task and each model's own file is read once."""

    _tasks: dict[str, Task | AgentError] = field(default_factory=dict)
    _digests: dict[str, str] = field(default_factory=dict)

    def changes(self, db: Path, run_id: str) -> list[str]:
        """What is not as it was when a run began, a line each. Raises InputError for files that cannot be read now.

        Args:
            db: the ledger of a cell.
            run_id: its run.
        """
        from agent.models.model_registry import file_digest

        with closing(open_history(db)) as history:
            run = history.run(run_id)
        words, model = started_with(run), run["model"]
        key = json.dumps({**words, "model": None, "strategy": None}, sort_keys=True)
        if key not in self._tasks:
            try:
                self._tasks[key] = task_of(words)
            except AgentError as error:
                self._tasks[key] = error
        task = self._tasks[key]
        if isinstance(task, AgentError):
            raise task
        if model not in self._digests:
            self._digests[model] = file_digest(model)
        is_other_file = words.get("model_digest", "") != self._digests[model]
        return task_changes(run, task) + [f"the file behind {model} changed"] * is_other_file
