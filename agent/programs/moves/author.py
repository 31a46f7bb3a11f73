"""Asks models for parts of prompts: the proposer for instructions, the target for worked solutions. Knows no SQL.

What comes back is checked before it is worth a call of the target; one that fails to answer costs the run nothing but
that call.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.errors import ModelError, RunRefused
from agent.programs.moves.pool import prompt_of
from agent.programs.moves.propose import (
    STYLES,
    Failure,
    Scored,
    failures_of,
    longest_request,
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
from agent.types import LM, Completion, Request, Task

HISTORY = 5
FAILURES = 5


async def proposed(context: SearchContext, parents: Sequence[Parent], number: int) -> Rewrite | None:
    """A new instruction, grounded on the scored history and on where the best candidate fails; None where there is no
    proposer, or nothing that can be used came of it.

    `number` tells the askings of a run apart: it steers style and seed.
    """
    return await rewritten(context, context.task, best_instructions(context.board), parents, number)


async def rewritten(
    context: SearchContext, task: Task, tried: Sequence[Scored], parents: Sequence[Parent], number: int
) -> Rewrite | None:
    """The same for the instruction of `task`, which may be a part of the run's own; `tried` are known, worst first."""
    if context.proposer is None:
        return None
    failures = failures_of(task, context.dev, parents[0].outcomes, FAILURES) if parents else []
    reply = await _ask(context, context.proposer, _request(context, task, number, tried[-HISTORY:], failures))
    if reply is None:
        return None
    instruction = read_proposal(reply.text)
    refused = why_not_whole(reply) or why_refused(instruction, task)
    kind = "proposal_refused" if refused else "proposal"
    context.note(kind, {"round": context.round, "why": refused}, {"instruction": instruction})
    return (
        None
        if refused
        else Rewrite(f"proposed-{number}", instruction, f"the proposer was asked: {_style(number)}", is_proposed=True)
    )


def best_instructions(board: Board) -> list[Scored]:
    """Each instruction with the best mean of its candidates, worst first."""
    best: dict[str, float] = {}
    for candidate_id, trial in board.trials.items():
        if trial.mean is not None:
            text = prompt_of(board.candidate(candidate_id)).instruction
            best[text] = max(best.get(text, 0.0), trial.mean)
    return [Scored(text, mean) for text, mean in sorted(best.items(), key=lambda item: item[1])]


def most_told(task: Task) -> int:
    """Letters of the longest request to the proposer that a search of this task may make, by an upper estimate."""
    return longest_request(task, HISTORY, proposal_tokens(task) * BYTES_A_TOKEN, FAILURES)


def _style(number: int) -> str:
    return STYLES[number % len(STYLES)]


def _request(
    context: SearchContext, task: Task, number: int, history: Sequence[Scored], failures: Sequence[Failure]
) -> Request:
    messages = request_messages(task, history, failures, _style(number), context.rng)
    seed = context.seed * 1000 + number
    return Request(messages, proposal_tokens(task), temperature=0.7, seed=seed)


async def _ask(context: SearchContext, proposer: LM, request: Request) -> Completion | None:
    try:
        return await context.gateway.complete("proposer", proposer, request)
    except RunRefused:
        raise
    except ModelError as error:
        context.note("proposal_failed", {"round": context.round, "error": str(error)})
        return None


async def rationales(context: SearchContext, rows: int) -> dict[str, str]:
    """Worked solutions of the target on up to `rows` train rows, by row id; only those that end in the right answer."""
    board = context.board
    tried = [
        i
        for i, proposal in board.proposals.items()
        if prompt_of(proposal.candidate).technique == "chain-of-thought" and i in board.trials and board.trials[i].mean
    ]
    compared = any(judge.judge.setup.mode == "pairwise" for judge in context.evaluator.judges())
    if (
        "few-shot-cot" not in context.task.space.techniques or not tried or compared
    ):  # train rows have no answer of theirs
        return {}
    best = max(tried, key=lambda i: board.mean(i) or 0.0)
    outcomes = await context.evaluator.outcomes(board.candidate(best), context.task.train[: max(0, rows)], "train")
    outputs = context.task.signature.outputs
    right = [o for o in outcomes if (o.value or 0.0) >= 1.0]
    return {o.example_id: reasons for o in right if (reasons := reasons_of(o.prediction.raw, outputs))}
