"""What the proposer is sent, letter for letter, and never longer than the dry run counts.

After a change on purpose: `.venv/bin/python -m tests.programs.moves.proposals.test_requests` writes the file.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from agent.programs.moves.asking import Question
from agent.programs.moves.author import longest_request
from agent.programs.moves.evidence import Evidence, InstructionHistory
from agent.programs.moves.proposer import OPERATORS
from agent.prompt.prompt_candidate import PromptCandidate
from agent.search.costs import SEVERAL, proposal_tokens
from agent.search.program import Parent
from agent.types import Outcome, Prediction, Proposal, Task
from tests.toys import TEAMS, make_task

GOLDEN = Path(__file__).with_name("requests.txt")
TASK = make_task(
    9,
    instruction=f"Read the message with care, then decide which of our teams has to answer it: {', '.join(TEAMS)}. "
    * 3,
)


class Listening:
    """Keeps questions and answers none."""

    left = 100

    def __init__(self) -> None:
        self.questions: list[Question] = []

    async def __call__(self, questions: list[Question]) -> list[tuple[str, ...]]:
        self.questions += questions
        return [("what they ask for",) for _ in questions]


def evidence(task: Task = TASK, is_strong: bool = False) -> Evidence:
    """A chain of thought that takes two labels for each other; one of its replies cannot be read."""
    candidate = PromptCandidate("chain-of-thought", "turns", task.instruction)
    said = [
        TEAMS[(TEAMS.index(str(row.labels["team"])) + row_number // 5) % 3] for row_number, row in enumerate(task.dev)
    ]
    outcomes = [
        Outcome(
            candidate.id,
            row.id,
            Prediction({"team": team}, f"I think so and so.\nAnswer: {team}", "" if number < 8 else "no label"),
            (),
            float(team == row.labels["team"]),
        )
        for number, (row, team) in enumerate(zip(task.dev, said, strict=True))
    ]
    parent = Parent(Proposal(candidate, {}, "op", None, ""), tuple(outcomes))
    dev = {row.id: row for row in task.dev}
    tried = [(task.instruction, 0.5)]
    return Evidence(task, dev, parent, [parent], InstructionHistory(task), random.Random(0), {}, dict, tried, is_strong)


async def asked(of: Evidence) -> dict[str, list[Question]]:
    """The questions of each operator."""
    found = {}
    for operator in OPERATORS:
        if operator.applies(of):
            listening = Listening()
            await operator.make(of, listening)
            found[operator.name] = listening.questions
    return found


async def shown() -> str:
    """The requests as one text."""
    lines = []
    several = await asked(evidence(is_strong=True))
    for name, questions in {**await asked(evidence()), "whole, several": several["whole"]}.items():
        lines.append(f"==== {name}: {len(questions)} questions, {questions[0].max_tokens} tokens")
        lines += [f"[{message.role}]\n{message.content}" for message in questions[0].messages]
    return "\n".join(lines) + "\n"


async def test_the_requests_are_those_of_the_file() -> None:
    assert await shown() == GOLDEN.read_text("utf-8")


@pytest.mark.parametrize("times", [1, 300])
async def test_no_request_and_no_reply_is_longer_than_the_dry_run_counts(times: int) -> None:
    def longer(text: str) -> str:
        return text + " and so on" * times

    def rows(split: tuple[object, ...]) -> tuple[object, ...]:
        return tuple(replace(row, inputs={"message": longer(row.inputs["message"])}) for row in split)  # type: ignore

    task = replace(TASK, instruction=longer(TASK.instruction), train=rows(TASK.train), dev=rows(TASK.dev))  # type: ignore
    for is_strong in (False, True):
        for name, questions in (await asked(evidence(task, is_strong))).items():
            for question in questions:
                letters = sum(len(message.content) for message in question.messages)
                assert letters <= longest_request(task), name
                assert question.max_tokens <= proposal_tokens(task, SEVERAL), name


if __name__ == "__main__":
    import asyncio

    GOLDEN.write_text(asyncio.run(shown()), "utf-8")
