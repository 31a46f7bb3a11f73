"""Whole texts by models: instructions of the proposer, and worked solutions of the target.

Rows, replies and a judge's reasons are untrusted: they stand between random marks (`prompt/fence.py`).
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from agent.programs.moves import asking
from agent.programs.moves.asking import Data, Question, Read, messages_about
from agent.programs.moves.evidence import FAILURE, MOST_OF_A_FAILURE, Tried, cut, inputs_of, labels_of
from agent.prompt.prompt_candidate import as_prompt
from agent.prompt.reply_parser import reasons_of
from agent.search.context import SearchContext
from agent.search.costs import BYTES_A_TOKEN, proposal_tokens
from agent.types import Completion, Message, Task

MOST_OF_A_ROW = 600  # letters that are shown of its inputs, and of its labels
SHOWN_ROWS = 3
HISTORY = 5  # instructions that are shown with their scores
FAILURES = 5  # that are shown
STYLES = (
    "Say what separates the answers that are mixed up in the failures.",
    "Write it shorter than the best one, and keep what matters.",
    "Give clear steps for deciding, in the order in which to look at them.",
    "Describe each possible answer in a few words.",
)


def whole_question(
    task: Task, tried: Tried, failures: Sequence[str], style: str, rng: random.Random, several: int = 1
) -> Question:
    messages = request_messages(task, tried[-HISTORY:], failures, style, rng, several)
    return Question(messages, whole_reader(task, several), proposal_tokens(task, several), asking.FREE)


def whole_reader(task: Task, several: int = 1) -> Callable[[Completion], Read]:
    """Return what reads one or several whole instructions from a reply."""

    def read(reply: Completion) -> Read:
        texts = read_proposals(reply, several)
        refused = {text: asking.why_refused(text, task) or asking.why_labels_lost(text, task) for text in texts}
        usable = [text for text in texts if not refused[text]]
        if (cut_off := asking.why_not_whole(reply)) or usable:
            return usable, cut_off
        return (), next(filter(None, refused.values()), "no instruction")

    return read


def request_messages(
    task: Task, history: Tried, failures: Sequence[str], style: str, rng: random.Random, several: int = 1
) -> tuple[Message, ...]:
    """Ask for `several` instructions; `failures` are lines of `Wrong`."""
    shown = rng.sample(task.train, min(SHOWN_ROWS, len(task.train)))
    kinds = [f"one of: {', '.join(each.choices)}" if each.choices else each.type for each in task.signature.outputs]
    outputs = [f"{each.name} ({kind})" for each, kind in zip(task.signature.outputs, kinds, strict=True)]
    before = [
        asking.task_line(task),
        f"Input: {', '.join(field.name for field in task.signature.inputs)}. Output: {', '.join(outputs)}.",
        _summary(task),
    ]
    lines: list[str | Sequence[str]] = [
        "Examples of the data:",
        *(Data(f"{cut(inputs_of(row), MOST_OF_A_ROW)} => {cut(labels_of(row), MOST_OF_A_ROW)}") for row in shown),
        "Instructions that were tried, with their scores from 0 to 1:",
        *((f"{mean:.2f}: ", Data(cut(instruction, asking.MAX_CHARACTERS))) for instruction, mean in history),
    ]
    if failures:
        lines += ["Where the best one fails:", *map(Data, failures)]
    system = "You improve the instruction of a prompt."
    if several == 1:
        system += " You answer with the instruction only."
        lines += [f"Write one better instruction. {style}", "Put it between <instruction> and </instruction>."]
    else:
        reflect = "First say in two or three sentences why these replies are wrong. Then write" if failures else "Write"
        lines += [
            f"{reflect} {several} better instructions that differ in what they tell the reader. {style}",
            "Put each between <instruction> and </instruction>.",
        ]
    return messages_about(system, lines, before=before)


def read_proposal(reply: str) -> str:
    """Return the instruction in a proposer's reply: between the tags, or the whole reply.

    >>> read_proposal("Here: <instruction>Name the team.</instruction>")
    'Name the team.'
    """
    match = re.search(r"<instruction>(.*?)(?:</instruction>|\Z)", reply, re.DOTALL | re.IGNORECASE)
    return (match[1] if match else reply).strip()


def read_proposals(reply: Completion, several: int) -> list[str]:
    if several == 1:
        return [read_proposal(reply.text)]
    # `|\Z`: without it a reply of many tags that are never closed takes time in the square of its length
    found = re.findall(r"<instruction>(.*?)(</instruction>|\Z)", reply.text, re.DOTALL | re.IGNORECASE)
    return [text.strip() for text, end in found if end][:several]


def _summary(task: Task) -> str:
    lengths = sorted(sum(len(text.split()) for text in row.inputs.values()) for row in task.train)
    parts = [f"{len(lengths)} rows of {lengths[0]} to {lengths[-1]} words, {lengths[len(lengths) // 2]} in the middle"]
    for field in task.signature.outputs:
        if field.choices:
            counts = Counter(str(row.labels[field.name]) for row in task.train)
            parts.append(f"{field.name}: " + ", ".join(f"{name} {counts[name]}" for name in field.choices))
    return "Data: " + "; ".join(parts) + "."


def longest_request(task: Task) -> int:
    """Bound the letters of the longest proposer request in a search of this task."""
    rows = sorted(task.train, key=lambda row: len(inputs_of(row)) + len(labels_of(row)))[-SHOWN_ROWS:]
    instruction = max(task.instruction, "x" * proposal_tokens(task) * BYTES_A_TOKEN, key=len)
    failure = FAILURE.format(*["x" * MOST_OF_A_FAILURE] * 4)
    longest, tried = replace(task, train=tuple(rows)), [(instruction, 1.0)] * HISTORY
    messages = request_messages(longest, tried, [failure] * FAILURES, max(STYLES, key=len), random.Random(0))
    return sum(len(message.content) for message in messages)


async def rationales(context: SearchContext, rows: int) -> dict[str, str]:
    """Collect right worked solutions of the target on up to `rows` train rows, by id."""
    trials = context.trials
    tried = [
        i
        for i, proposal in trials.proposals.items()
        if as_prompt(proposal.candidate).technique == "chain-of-thought" and trials.mean(i)
    ]
    compared = any(judge.judge.setup.mode == "pairwise" for judge in context.evaluator.judges())  # not on train rows
    if "few-shot-cot" not in context.task.space.techniques or not tried or compared:
        return {}
    best = max(tried, key=lambda i: trials.mean(i) or 0.0)
    outcomes = await context.evaluator.outcomes(trials.candidate(best), context.task.train[: max(0, rows)], "train")
    outputs = context.task.signature.outputs
    right = [o for o in outcomes if (o.value or 0.0) >= 1.0]
    return {o.example_id: reasons for o in right if (reasons := reasons_of(o.prediction.raw, outputs))}
