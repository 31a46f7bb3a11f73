"""What a strategy does, as the ledger keeps it: the `Log` that a lab is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent.ledger.store import Ledger
from agent.search.program import Describes, Entry


class RunLog:
    """Writes into the ledger which candidates a strategy makes, and what else it notes."""

    def __init__(self, ledger: Ledger, run_id: str, programs: Sequence[Describes]) -> None:
        self._ledger, self._run_id = ledger, run_id
        self._programs = {program.kind: program for program in programs}

    def candidate(self, round_: int, entry: Entry, rejected: str) -> None:
        program = self._programs[entry.candidate.kind]
        laid_out = () if rejected else program.template(entry.candidate)
        shown = program.shown(entry.candidate)
        self._ledger.add_candidate(
            self._run_id, round_, shown, laid_out, entry.operator, entry.parent_id, entry.reason, rejected
        )

    def event(self, kind: str, body: Mapping[str, Any], texts: Mapping[str, str] | None = None) -> None:
        self._ledger.event(self._run_id, kind, body, texts)
