"""Parts of prompts that models write: the proposer instructions, the target worked solutions.

Each is checked before it is worth a call of the target; a proposer that fails costs the run only that call.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from agent.errors import ModelError, RunRefused
from agent.programs.moves.pool import as_prompt
from agent.programs.moves.proposals.checks import why_labels_lost
from agent.programs.moves.propose import (
    FAILURES,
    HISTORY,
    MOST_OF_A_FAILURE,
    SHOWN_ROWS,
    STYLES,
    Failure,
    ScoredInstruction,
    failures_of,
    inputs_of,
    labels_of,
    read_proposal,
    request_messages,
    why_not_whole,
    why_refused,
)
from agent.prompt.reply_parser import reasons_of
from agent.prompt.techniques import Rewrite
from agent.search.board import Board
from agent.search.call_costs import BYTES_A_TOKEN, proposal_tokens
from agent.search.context import SearchContext
from agent.search.program import Parent
from agent.types import Candidate, Request, Task


async def rewritten(
    context: SearchContext, task: Task, tried: Sequence[ScoredInstruction], parents: Sequence[Parent], number: int
) -> Rewrite | None:
    """A new instruction, grounded on the scored history and on where the best candidate fails.

    Args:
        context: the search.
        task: the task whose instruction is asked for, which may be a part of the run's.
        tried: instructions with their scores, the worst first.
        parents: the best candidates, the best first.
        number: of the request in its run, at least 1; it decides style and seed.

    Returns:
        The instruction; None where there is no proposer, or its reply cannot be used.
    """
    if context.proposer is None:
        return None
    failures = failures_of(context.dev, parents[0].outcomes, FAILURES) if parents else []
    style = STYLES[number % len(STYLES)]
    messages = request_messages(task, tried[-HISTORY:], failures, style, context.rng)
    request = Request(messages, proposal_tokens(task), temperature=0.7, seed=context.seed * 1000 + number)
    context.proposal_log.calls += 1
    try:
        reply = await context.gateway.complete("proposer", context.proposer, request)
    except RunRefused:
        raise
    except ModelError as error:
        context.note("proposal_failed", {"round": context.round, "error": str(error)})
        return None
    instruction = read_proposal(reply.text)
    refused = why_not_whole(reply) or why_refused(instruction, task) or why_labels_lost(instruction, task)
    kind = "proposal_refused" if refused else "proposal"
    context.note(kind, {"round": context.round, "why": refused}, {"instruction": instruction})
    if refused:
        return None
    return Rewrite(f"proposed-{number}", instruction, f"the proposer was asked: {style}", is_proposed=True)


def best_instructions(
    board: Board, text_of: Callable[[Candidate], str] = lambda candidate: as_prompt(candidate).instruction
) -> list[ScoredInstruction]:
    """Each instruction with the best mean of its candidates, worst first; `text_of` takes it out of a candidate."""
    best: dict[str, float] = {}
    for candidate_id, trial in board.trials.items():
        if trial.mean is not None:
            text = text_of(board.candidate(candidate_id))
            best[text] = max(best.get(text, 0.0), trial.mean)
    return [ScoredInstruction(text, mean) for text, mean in sorted(best.items(), key=lambda item: item[1])]


def longest_request(task: Task) -> int:
    """Letters of the longest request to the proposer that a search of this task may make, by an upper estimate."""
    rows = sorted(task.train, key=lambda row: len(inputs_of(row)) + len(labels_of(row)))[-SHOWN_ROWS:]
    instruction = max(task.instruction, "x" * proposal_tokens(task) * BYTES_A_TOKEN, key=len)
    failure = Failure(*["x" * MOST_OF_A_FAILURE] * 4)
    messages = request_messages(
        replace(task, train=tuple(rows)),
        [ScoredInstruction(instruction, 1.0)] * HISTORY,
        [failure] * FAILURES,
        max(STYLES, key=len),
        random.Random(0),
    )
    return sum(len(message.content) for message in messages)


async def rationales(context: SearchContext, rows: int) -> dict[str, str]:
    """Worked solutions of the target on up to `rows` train rows, by row id; only those that end in the right answer."""
    board = context.board
    tried = [
        i
        for i, proposal in board.proposals.items()
        if as_prompt(proposal.candidate).technique == "chain-of-thought" and i in board.trials and board.trials[i].mean
    ]
    compared = any(judge.judge.setup.mode == "pairwise" for judge in context.evaluator.judges())  # not on train rows
    if "few-shot-cot" not in context.task.space.techniques or not tried or compared:
        return {}
    best = max(tried, key=lambda i: board.mean(i) or 0.0)
    outcomes = await context.evaluator.outcomes(board.candidate(best), context.task.train[: max(0, rows)], "train")
    outputs = context.task.signature.outputs
    right = [o for o in outcomes if (o.value or 0.0) >= 1.0]
    return {o.example_id: reasons for o in right if (reasons := reasons_of(o.prediction.raw, outputs))}
