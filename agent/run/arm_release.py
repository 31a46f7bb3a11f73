"""An arm of a run, ready to be promoted: what is released, whether the gate lets it through, and what speaks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import GateFailed
from agent.ledger.provenance import user
from agent.run.locations import open_ledger, releases_folder

if TYPE_CHECKING:
    from agent.release.file_release import FileRelease
    from agent.release.prompt_file import PromptRelease
    from agent.run.promote import Promotion


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

    def promote(self, alias: str, override: bool, reason: str, actor: str, db: Path) -> Promotion:
        """Keeps it as a version and moves the alias to it. Raises GateFailed where the gate does not let it through
        and is not overridden, and what `promote` raises."""
        from agent.release.promotion import ReleaseRegistry
        from agent.run.promote import Promotion

        if self.blocked and not override:
            lines = [f"{self.run_id}: {why}" for why in self.blocked]
            raise GateFailed("\n".join([*lines, "not promoted; --override --reason WHY promotes all the same"]))
        release, reason, actor = self.release, reason.strip(), actor or user()
        registry = ReleaseRegistry(releases_folder(db))
        with closing(open_ledger(db)) as book:
            evidence = {
                "run_id": self.run_id,
                "arm": self.arm,
                **self.evidence,
                "overridden": list(self.blocked),
                "ledger": book.id(),
                "ledger_head": book.head(),
            }
            change = registry.promote(release, alias, book, actor=actor, reason=reason, evidence=evidence)
        return Promotion(
            self.run_id,
            release.name,
            alias,
            release.version,
            self.candidate_id,
            self.arm,
            registry.root / release.name / release.version,
            None,
            change is not None,
            change.before if change else release.version,
            tuple(self.blocked),
            reason,
            actor,
        )
