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
    """Each method of the task with its scores in [0, 1], JSON-ready, the constant answer first.

    `won` are the rows of the sealed test and what the winner said to them: `diff`, `diff_ci95` and `p_value` tell how
    much better than the method it is, paired; None where no row has a score on both sides.
    """
    await program.fit([*dev, *won[0]])
    results = []
    for candidate in program.candidates():
        proposal = Proposal(candidate, {}, "yardstick", None, "answers without a language model")
        observer.on_candidate_accepted(0, proposal)
        seen = [outcome.value for outcome in await evaluator.outcomes(candidate, dev, "dev")]
        tested = [outcome.value for outcome in await evaluator.outcomes(candidate, won[0], "test")]
        scored = summary(tested)
        results.append(
            {
                "name": candidate.method,
                "candidate_id": candidate.id,
                "trained_on": program.rows,
                "dev": summary(seen)["mean"],
                "test": scored["mean"],
                "ci95": scored["ci95"],
                **difference([outcome.value for outcome in won[1]], tested, seed),
            }
        )
    return results


def exported(found: Row, task: Task, history: History) -> tuple[Yardstick, dict[str, str]]:
    """The best yardstick of a run by its score on dev, the constant answer left out, and the files of its export.

    What the files say to the dev rows is compared with what was scored. Raises InputError for a run without yardsticks,
    ReleaseError where an answer differs.
    """
    result = search_result(found["result"])
    if result is None or len(result.yardsticks) < 2:
        raise InputError(f"{found['id']}: this run has no classifier; its answer is no single choice or number")
    best = max(result.yardsticks[1:], key=lambda each: each.dev or 0.0)
    interval = list(best.ci95) if best.ci95 else None
    origin = {"run_id": found["id"], "candidate_id": best.candidate_id, "test": best.test, "ci95": interval}
    files = ClassicProgram(task).exported(best.name, origin)
    scored = {row["example_id"]: row["fields"] for row in history.outcomes(found["id"], best.candidate_id, "dev")}
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / name).write_text(text, "utf-8")
        answer = load(folder)
        for row in task.dev:
            said = answer(**row.inputs)
            if row.id in scored and list((scored[row.id] or {}).values()) != [said]:
                raise ReleaseError(
                    f"{found['id']}: on dev row {row.id} the export says {said!r:.60}, not what was scored"
                )
    return best, files
