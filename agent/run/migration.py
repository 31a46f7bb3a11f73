"""A migration: a run whose candidates come from another run, and whose winner need not be better than that one's.

    plan -> race of the old run's prompts on dev -> sealed test of the winner -> release

The old model's replies to the sealed rows are in the ledger and are not bought again. What is tested is that the new
model with its prompt loses less than the margin against the old model with the released one.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from agent.errors import BudgetExhausted, RunRefused
from agent.evaluate.breakdown import Pair
from agent.gateway.budget import HeldBack
from agent.ledger.provenance import tool_version, utc_now
from agent.ledger.store import Ledger
from agent.models.model_registry import create_model
from agent.programs.prompt import PromptProgram
from agent.release.export import write_release
from agent.release.prompt_file import HELD
from agent.release.result import Release, RunResult
from agent.results.run_parts import Migrated
from agent.run.build_result import DevScores, not_worse
from agent.run.embeddings import embed_rows
from agent.run.launch import Launch
from agent.run.observers import Watcher
from agent.run.optimize import Resumed, Run
from agent.search import explanation
from agent.search.calibration import add_calibrated
from agent.search.migrate import best_seen, search_from
from agent.search.pareto import Finalist, counted
from agent.stats.intervals import loss_bound
from agent.types import Candidate, Outcome


class MigrationRun(Run):
    """One migration. `execute` returns its result.

    Args:
        launch, ledger, observer, resumed: as of `Run`; the launch names the migration.

    Raises:
        InputError, BudgetRefused: as `Run`.
    """

    def __init__(
        self, launch: Launch, ledger: Ledger, observer: Watcher | None = None, resumed: Resumed | None = None
    ) -> None:
        assert launch.migration is not None
        self._migration = launch.migration
        super().__init__(launch, ledger, observer, resumed)
        sealed = self._migration.sealed
        self._test = tuple(row for row in launch.task.test if row.id in sealed)[: self.plan.test_rows]

    def _baseline(self) -> Candidate:
        return replace(self._migration.released, calibration=None)

    async def _search(self) -> None:
        rows = [*self.context.dev, *self._test]
        await embed_rows(self.program, self._gateway, self._embedder, rows)
        self._observer.on_event("migration_begun", {"of_run": self._migration.run_id, "model": self._migration.model})
        self._searched = True
        await search_from(self.context, self._migration.seeds)

    def _offers(self) -> list[Finalist]:
        """Those that saw the whole of dev: the released prompt need not have."""
        whole = self._board.in_state("complete")
        return [each for each in super()._offers() if each.candidate_id in whole]

    async def _conclude(self, status: Literal["complete", "budget"]) -> RunResult:
        if self.options.calibrate:
            await add_calibrated(self.context)
        offers = counted(self._offers())
        if not offers:
            raise RunRefused("no prompt came through the whole of dev; a larger --max-calls pays for more")
        means = {each.candidate_id: each.mean for each in offers}
        winner = best_seen(self.context, means, {each.candidate_id: each.prompt_tokens for each in offers})
        self._board.close_open("the budget ended first")
        result = await self._tested(winner, status, self._corrected(winner))
        result = result.model_copy(update={"parameters": self._parameters(winner)})
        await self.ledger.commit()  # no file may name a head that a kill takes back
        if result.decision == "promote":
            written = await self._write(result, winner, self.folder)
            self._observer.on_event("released", {"version": written.version, "candidate_id": winner.id})
            return result.model_copy(update={"release": Release(written.path)})
        held = await self._write(result, winner, self.folder / HELD)
        kept, version = self._write_old(result)
        versions = {"version": version, "candidate_id": self._migration.released.id, "held": held.version}
        self._observer.on_event("released", versions)
        parameters = dict(self._migration.parameters)
        return result.model_copy(update={"release": Release(kept), "parameters": parameters})

    def _origin(self) -> dict[str, str]:
        old = self._migration
        lineage = {"parent_version": old.version, "parent_run": old.run_id, "parent_model": old.model}
        return {**super()._origin(), **lineage}

    def _write_old(self, result: RunResult) -> tuple[Path, str]:
        """Writes the released prompt as it was, for its own model, and returns its file and version."""
        old = self._migration
        program = PromptProgram(self.task, create_model(old.model))
        program.pool, program.library = self.program.pool, self.program.library  # type: ignore[attr-defined]
        provenance = {
            "run_id": old.run_id,
            "trial": old.trial,
            "candidate_id": old.released.id,
            "test": result.baseline.test,
            "hashes": dict(self.task.hashes),
            "tool": tool_version(),
            "created_utc": utc_now(),
            "ledger": self.ledger.id(),
        }
        release = program.release(old.released, old.parameters, provenance)
        return write_release(release, self.folder), release.version

    async def _tested(
        self, winner: Candidate, status: Literal["complete", "budget"], corrected: float | None
    ) -> RunResult:
        """Opens the sealed test for the winner. Raises BudgetExhausted when it cannot be finished."""
        old, seed = self._migration, self.options.seed
        self.context.stage("sealed test", self.context.round)
        self.account.hold_back(HeldBack())
        based = [old.sealed[row.id] for row in self._test]
        self._observer.on_event("test_opened", {"winner": winner.id, "against": old.run_id, "rows": len(self._test)})
        try:
            with self._gateway.together():
                won = await self._evaluator.outcomes(winner, self._test, "test")
        except BudgetExhausted as stop:
            raise BudgetExhausted(f"{stop}. The sealed test was not finished, so nothing is promoted") from stop
        self._require_scored(won, based)
        bound = loss_bound([o.value for o in won], [o.value for o in based], old.margin, seed)
        assert bound is not None
        yardsticks = await self._yardsticks(won)
        pair = Pair(self._test, won, based)
        sides: dict[str, list[list[Outcome]]] = {"winner": [list(won)], "baseline": [based]}
        known = [value for row in self.context.dev if (value := old.dev.get(row.id)) is not None]
        dev = sum(known) / len(known) if known else None
        return self._result(
            self._sealed(winner, won, old.released, based, DevScores(dev, self._board.mean(winner.id), corrected)),
            status,
            {
                "migration": Migrated(
                    run=old.run_id,
                    candidate_id=old.released.id,
                    version=old.version,
                    model=old.model,
                    test=not_worse(bound),
                ),
                "yardsticks": yardsticks,
                **explanation.explained(replace(self.task, repeats=1), pair, sides, self._trust(), seed),
            },
        )


def run_of(launch: Launch, ledger: Ledger, observer: Watcher | None = None, resumed: Resumed | None = None) -> Run:
    """The run of a launch: a search, or a migration, which asks no proposer."""
    return (Run if launch.migration is None else MigrationRun)(launch, ledger, observer, resumed)
