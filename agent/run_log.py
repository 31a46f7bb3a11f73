"""What a strategy does, as the ledger keeps it: the `Log` that a lab is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.ledger.store import Ledger
from agent.prompt.render import template
from agent.search.pool import Entry
from agent.types import Task


class RunLog:
    """Writes a strategy's doings into the ledger."""

    def __init__(self, ledger: Ledger, run_id: str, task: Task) -> None:
        self._ledger, self._run_id, self._task = ledger, run_id, task

    def candidate(self, round_: int, entry: Entry, rejected: str) -> None:
        candidate = entry.candidate
        laid_out = () if rejected else template(candidate, self._task.signature)
        self._ledger.add_candidate(
            self._run_id, round_, candidate, laid_out, entry.operator, entry.parent_id, entry.reason, rejected
        )

    def event(self, kind: str, body: Mapping[str, Any], texts: Mapping[str, str] | None = None) -> None:
        self._ledger.event(self._run_id, kind, body, texts)
