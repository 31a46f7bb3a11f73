"""A run whose task is a DSPy program of the user's own. It differs from a `Run` in what a candidate and a release are.

The plan counts runs of the program, of which each makes about as many calls as the program has predictors; how many it
makes in fact is known after trial 0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from agent.errors import BudgetExhausted, ReleaseError, RunRefused
from agent.ledger.store import Ledger
from agent.optimize import Resumed, Run, Watch
from agent.planning import Settings, means_for, plan_in_runs
from agent.prompt.template import escape
from agent.release.prompt_file import STATE_FILE
from agent.run_log import RunLog
from agent.search.dspy_program import RAISED, Program, ProgramEvaluator, count_demos, search
from agent.search.lab import Lab
from agent.search.plan import EFFORT_CALLS, Plan
from agent.search.pool import Entry
from agent.types import LM, Candidate, Message, Task, content_id

CHECKED_ROWS = 20  # of the sealed test, on which the released file is run again


def run_of(task: Task) -> Callable[..., Run]:
    """The kind of run that the task needs."""
    return ProgramRun if task.program else Run


class ProgramLog(RunLog):
    """A candidate has no messages of its own, its program makes them; people see what each predictor is told."""

    def candidate(self, round_: int, entry: Entry, rejected: str) -> None:
        shown = () if rejected else told(entry.candidate.instruction, self._task)
        self._ledger.add_candidate(
            self._run_id, round_, entry.candidate, shown, entry.operator, entry.parent_id, entry.reason, rejected
        )


def told(state: str, task: Task) -> tuple[Message, ...]:
    """One message per predictor, to read and to compare: its name, its instruction and its demos. Never sent."""
    names = [field.name for field in task.signature.inputs]
    messages = []
    for name, part in json.loads(state).items():
        demos = [json.dumps(demo, ensure_ascii=False, default=str) for demo in part["demos"]]
        messages.append(Message("system", escape("\n".join([f"{name}: {part['instruction']}", *demos]), names)))
    return tuple(messages)


class ProgramLab(Lab):
    def prompt_tokens(self, candidate: Candidate) -> int:
        """Tokens of all instructions and demos, as they are written in the state."""
        return self.target.count_tokens(candidate.instruction)


class ProgramRun(Run):
    """The program as it is against what DSPy's optimizer makes of it, paired on the sealed test."""

    def __init__(
        self,
        task: Task,
        target: LM,
        proposer: LM | None,
        ledger: Ledger,
        settings: Settings,
        watch: Watch = lambda s: None,
        resumed: Resumed | None = None,
        judges: Sequence[LM] = (),
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Raises InputError where the program cannot be made, and what `Run` raises."""
        self.program = Program(task)
        task = replace(task, instruction=self.program.own)  # the baseline
        self.per_row = self.program.calls
        super().__init__(task, target, proposer, ledger, settings, watch, resumed, judges, say)
        self._in_runs = self.plan

    def _planned(self) -> Plan:
        means = means_for(self.task, self.target, self.proposer, self.judges, self._prices)
        return plan_in_runs(self.task, self.settings, means, self.proposer is not None, self.per_row)

    async def _search(self) -> None:
        evaluator = self._evaluator
        assert isinstance(evaluator, ProgramEvaluator)
        await self._evaluate_baseline()
        outcomes = self._board.outcomes[self.lab.baseline.id]
        if all(outcome.prediction.error.startswith(RAISED) for outcome in outcomes):
            raise RunRefused(f"{self.task.program} fails on every row of dev: {outcomes[0].prediction.error}")
        used = self.account.total_used.calls
        self.per_row = max(self.per_row, math.ceil(used / self._in_runs.baseline_calls))
        self.lab = self._make_lab()
        if self._is_worth_it():
            await search(self.lab, evaluator, self.settings.strategy, self.per_row)

    def _make_evaluator(self) -> ProgramEvaluator:
        assert self._gateway is not None
        return ProgramEvaluator(self.task, self._gateway, self.target, self._metrics(), self._record, self.program)

    def _make_lab(self, kind: type[Lab] = ProgramLab, log: type[RunLog] = ProgramLog) -> Lab:
        """A lab whose plan counts calls; the run's own does so from here on."""
        runs, most = self._in_runs, self.settings.budget.max_calls or EFFORT_CALLS[self.settings.effort]
        calls = min(most, (runs.calls + 1) * self.program.calls - 1)  # of `most` a part of a run may be left over
        self.plan = replace(runs, calls=calls, calls_each=self.per_row)
        return super()._make_lab(kind, log)

    async def _conclude(self, status: str) -> dict[str, Any]:
        """Opens the sealed test once, for the program as it was and as it is now, and writes its state."""
        self._board.close_open("the budget ended first")
        winner = self._board.winner(self.lab.baseline)
        result = await self._tested(winner, status, self._corrected(winner))
        result["preflight"] = self.preflight.as_dict() if self.preflight else None
        what = {"technique": "program", "format": "program", "n_demos": count_demos(winner.instruction)}
        result["winner"] = {**result["winner"], **what}
        released = winner if result["decision"] == "promote" else self.lab.baseline
        result["parameters"] = self._parameters(released)
        result["release"] = await self._released(released)
        version = content_id("v", released.instruction)
        self.ledger.event(self.id, "released", {"version": version, "candidate_id": released.id})
        return result

    async def _released(self, candidate: Candidate) -> str:
        """Writes the state, loads the file and runs it on rows of the sealed test: it must do the same, at no new call.

        Raises ReleaseError when it does not.
        """
        evaluator = self._evaluator
        assert isinstance(evaluator, ProgramEvaluator)
        path = self.folder / STATE_FILE
        self.program.save(candidate.instruction, path)
        loaded = self.program.load(path)
        evaluator.meter.room = lambda: 0
        rows = self._test[:CHECKED_ROWS]
        for row, then in zip(rows, await evaluator.outcomes(candidate, rows, "test"), strict=True):
            if then.value is None:
                continue
            try:
                now = await evaluator.seen(loaded, candidate, row)
            except BudgetExhausted as asked:
                raise ReleaseError(f"{path}: on row {row.id} the saved program asks what was not scored") from asked
            if now.prediction != then.prediction:
                raise ReleaseError(f"{path}: on row {row.id} the saved program gives {now.prediction.raw!r:.80}")
        return str(path)
