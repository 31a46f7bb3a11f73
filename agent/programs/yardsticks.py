"""What is reached without a language model, on the rows on which winner and baseline are scored. It costs no call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent.programs.classic import ClassicProgram
from agent.scoring.breakdown import difference, side
from agent.scoring.evaluate import Evaluator
from agent.search.lab import Log
from agent.search.program import Entry
from agent.types import Example, Outcome


async def measured(
    program: ClassicProgram,
    evaluator: Evaluator,
    log: Log,
    dev: Sequence[Example],
    won: tuple[Sequence[Example], Sequence[Outcome]],
    seed: int,
) -> list[dict[str, Any]]:
    """Each method of the task with its scores in [0, 1], JSON-ready, the constant answer first.

    `won` are the rows of the sealed test and what the winner said to them: `diff`, `diff_ci95` and `p_value` tell how
    much better than the method it is, paired; None where no row has a score on both sides.
    """
    await program.fit()
    found = []
    for candidate in program.candidates():
        log.candidate(0, Entry(candidate, {}, "yardstick", None, "answers without a language model"), "")
        seen = [outcome.value for outcome in await evaluator.outcomes(candidate, dev, "dev")]
        tested = [outcome.value for outcome in await evaluator.outcomes(candidate, won[0], "test")]
        scored = side(tested)
        found.append(
            {
                "name": candidate.method,
                "candidate_id": candidate.id,
                "trained_on": program.rows,
                "dev": side(seen)["mean"],
                "test": scored["mean"],
                "ci95": scored["ci95"],
                **difference([outcome.value for outcome in won[1]], tested, seed),
            }
        )
    return found
