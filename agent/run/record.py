"""What happens in a run, as the ledger keeps it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent.ledger.store import Ledger
from agent.observer import Observer
from agent.search.program import Describes
from agent.types import Outcome, Proposal, SplitName, Trial


class LedgerObserver(Observer):
    """Writes candidates, outcomes, trials and events of one run into the ledger; `programs` describe the candidates.

    A method raises LedgerError when the disk refuses.
    """

    def __init__(self, ledger: Ledger, run_id: str, programs: Sequence[Describes] = ()) -> None:
        self._ledger, self._run_id = ledger, run_id
        self._programs = {program.kind: program for program in programs}

    def on_event(self, kind: str, body: Mapping[str, Any], texts: Mapping[str, str] | None = None) -> None:
        self._ledger.event(self._run_id, kind, body, texts)

    def on_outcome_recorded(self, split: SplitName, outcome: Outcome) -> None:
        self._ledger.put_outcome(self._run_id, split, outcome)

    def on_trial_updated(self, trial: Trial) -> None:
        self._ledger.put_trial(self._run_id, trial)

    def on_candidate_accepted(self, round_: int, proposal: Proposal) -> None:
        self._add(round_, proposal, "")

    def on_candidate_rejected(self, round_: int, proposal: Proposal, reason: str) -> None:
        self._add(round_, proposal, reason)

    def _add(self, round_: int, proposal: Proposal, rejected: str) -> None:
        program = self._programs[proposal.candidate.kind]
        laid_out = () if rejected else program.template(proposal.candidate)
        shown = program.shown(proposal.candidate)
        self._ledger.add_candidate(
            self._run_id, round_, shown, laid_out, proposal.operator, proposal.parent_id, proposal.reason, rejected
        )
