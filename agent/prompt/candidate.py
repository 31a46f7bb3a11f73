"""When a candidate may be tried at all. Knows no model and no score."""

from __future__ import annotations

import re

from agent.prompt.render import NOT_FOR_DSPY
from agent.prompt.techniques import TECHNIQUES
from agent.prompt.template import marks
from agent.types import Candidate, Task, canonical

SURROGATE = re.compile(r"[\ud800-\udfff]")


def baseline(task: Task) -> Candidate:
    """The user's own prompt as it is: zero-shot, the input as the user's turn."""
    return Candidate(technique="zero-shot", format="turns", instruction=task.instruction)


def why_rejected(candidate: Candidate, task: Task) -> str:
    """Why this candidate must not be tried, or "" when it may.

    Hard rules: every input placeholder of the user's instruction is kept; demos come from train only; the limits
    of [constraints] hold. The size in tokens needs a model and is checked where one is at hand.
    """
    names = [field.name for field in task.signature.inputs]
    if not candidate.instruction.strip():
        return "the instruction is empty"
    if SURROGATE.search(candidate.role + candidate.instruction):
        return "the instruction holds a lone surrogate, which is no text"
    needed, found = marks(task.instruction, names), marks(candidate.instruction, names)
    if lost := needed - found:
        return f"lost the placeholder {', '.join('{{' + name + '}}' for name in sorted(lost))}"
    if found and (missing := set(names) - found):
        return f"has no place for {', '.join(sorted(missing))}"
    if found and candidate.format.startswith("dspy-"):
        return f"the instruction lays out its own input, and so does the format {candidate.format}"
    if candidate.format.startswith("dspy-") and any(mark in canonical(candidate.as_dict()) for mark in NOT_FOR_DSPY):
        return f"holds a text that the format {candidate.format} reads as a mark of its own"
    text = " ".join((candidate.role, candidate.instruction)).casefold()
    for word in task.constraints.forbidden:
        if word.casefold() in text:
            return f"holds the forbidden text {word!r}"
    if TECHNIQUES[candidate.technique].demos != bool(candidate.demos):
        return f"technique {candidate.technique} with {len(candidate.demos)} demos"
    limit = task.constraints.max_demos
    if limit is not None and len(candidate.demos) > limit:
        return f"{len(candidate.demos)} demos, more than max_demos = {limit}"
    train = {example.id for example in task.train}
    if strangers := [demo.example_id for demo in candidate.demos if demo.example_id not in train]:
        return f"demo {strangers[0]} is not a train row"
    return ""
