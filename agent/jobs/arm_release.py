"""An arm of a run, ready to be promoted: what is released, whether the gate lets it through, and what speaks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.release.file_release import FileRelease
    from agent.release.prompt_file import PromptRelease


@dataclass(frozen=True, slots=True)
class ArmRelease:
    """What of a run may be promoted beside its winner.

    Args:
        run_id: the run.
        arm: its name there.
        candidate_id: what was scored.
        release: what becomes a version.
        blocked: why the gate does not let it through.
        evidence: what the ledger keeps of it, JSON-ready.
    """

    run_id: str
    arm: str
    candidate_id: str
    release: PromptRelease | FileRelease
    blocked: Sequence[str]
    evidence: Mapping[str, Any]
