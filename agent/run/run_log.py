"""What a strategy does, as the ledger keeps it: the `Log` that a context is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent.ledger.store import Ledger
from agent.search.program import Describes, Proposal


class RunLog:
    """Writes into the ledger which candidates a strategy makes, and what else it notes."""

    def __init__(self, ledger: Ledger, run_id: str, programs: Sequence[Describes]) -> None:
        self._ledger, self._run_id = ledger, run_id
        self._programs = {program.kind: program for program in programs}

    def candidate(self, round_: int, proposal: Proposal, rejected: str) -> None:
        program = self._programs[proposal.candidate.kind]
        laid_out = () if rejected else program.template(proposal.candidate)
        shown = program.shown(proposal.candidate)
        self._ledger.add_candidate(
            self._run_id, round_, shown, laid_out, proposal.operator, proposal.parent_id, proposal.reason, rejected
        )

    def event(self, kind: str, body: Mapping[str, Any], texts: Mapping[str, str] | None = None) -> None:
        self._ledger.event(self._run_id, kind, body, texts)
