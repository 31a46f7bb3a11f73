"""What is reached without a language model, on the rows on which winner and baseline are scored. It costs no call."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.errors import InputError, ReleaseError
from agent.ledger.query import History, Row
from agent.observer import Observer
from agent.programs.classic import ClassicProgram
from agent.programs.classifiers import load
from agent.release.result import search_result
from agent.release.result_parts import Yardstick
from agent.scoring.breakdown import difference, summary
from agent.scoring.evaluate import Evaluator
from agent.types import Example, Outcome, Proposal, Task


async def measured(
    program: ClassicProgram,
    evaluator: Evaluator,
    observer: Observer,
    dev: Sequence[Example],
    won: tuple[Sequence[Example], Sequence[Outcome]],
    seed: int,
) -> list[dict[str, Any]]:
    """Scores each method of the task, the constant answer first.

    Args:
        program: the methods.
        evaluator: scores them.
        observer: gets each as a candidate.
        dev: rows of dev.
        won: the rows of the sealed test, and the winner's outcomes on them.
        seed: of the bootstrap.

    Returns:
        JSON-ready, by method: its scores in [0, 1], and `diff`, `diff_ci95` and `p_value`, the winner's gain over it,
        paired; None where no row has a score on both sides.
    """
    await program.fit([*dev, *won[0]])
    results = []
    for candidate in program.candidates():
        proposal = Proposal(candidate, {}, "yardstick", None, "answers without a language model")
        observer.on_candidate_accepted(0, proposal)
        on_dev = [outcome.value for outcome in await evaluator.outcomes(candidate, dev, "dev")]
        tested = [outcome.value for outcome in await evaluator.outcomes(candidate, won[0], "test")]
        scored = summary(tested)
        results.append(
            {
                "name": candidate.method,
                "candidate_id": candidate.id,
                "trained_on": program.rows,
                "dev": summary(on_dev)["mean"],
                "test": scored["mean"],
                "ci95": scored["ci95"],
                **difference([outcome.value for outcome in won[1]], tested, seed),
            }
        )
    return results


def exported(run: Row, task: Task, history: History) -> tuple[Yardstick, dict[str, str]]:
    """The best yardstick of a run by its score on dev, without the constant answer, and the files of its export.

    Raises:
        InputError: the run has no yardsticks.
        ReleaseError: the files answer a dev row otherwise than was scored.
    """
    result = search_result(run["result"])
    if result is None or len(result.yardsticks) < 2:
        raise InputError(f"{run['id']}: this run has no classifier; its answer is no single choice or number")
    best = max(result.yardsticks[1:], key=lambda each: each.dev or 0.0)
    interval = list(best.ci95) if best.ci95 else None
    origin = {"run_id": run["id"], "candidate_id": best.candidate_id, "test": best.test, "ci95": interval}
    files = ClassicProgram(task).exported(best.name, origin)
    scored = {row["example_id"]: row["fields"] for row in history.outcomes(run["id"], best.candidate_id, "dev")}
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / name).write_text(text, "utf-8")
        answer = load(folder)
        for row in task.dev:
            given = answer(**row.inputs)
            if row.id in scored and list((scored[row.id] or {}).values()) != [given]:
                raise ReleaseError(
                    f"{run['id']}: on dev row {row.id} the export says {given!r:.60}, not what was scored"
                )
    return best, files
