"""What a strategy does, as the ledger keeps it: the `Log` that a lab is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.ledger.store import Ledger
from agent.search.program import Entry, Program


class RunLog:
    """Writes into the ledger which candidates a strategy makes, and what else it notes."""

    def __init__(self, ledger: Ledger, run_id: str, program: Program) -> None:
        self._ledger, self._run_id, self._program = ledger, run_id, program

    def candidate(self, round_: int, entry: Entry, rejected: str) -> None:
        candidate = entry.candidate
        laid_out = () if rejected else self._program.template(candidate)
        shown = self._program.shown(candidate)
        self._ledger.add_candidate(
            self._run_id, round_, shown, laid_out, entry.operator, entry.parent_id, entry.reason, rejected
        )

    def event(self, kind: str, body: Mapping[str, Any], texts: Mapping[str, str] | None = None) -> None:
        self._ledger.event(self._run_id, kind, body, texts)
