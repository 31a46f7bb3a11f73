"""When a candidate may be tried at all. Knows no model and no score."""

from __future__ import annotations

import re

from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.render import NOT_FOR_DSPY
from agent.prompt.techniques import TECHNIQUES
from agent.prompt.template import marks
from agent.types import Task, canonical

SURROGATE = re.compile(r"[\ud800-\udfff]")


def baseline(task: Task) -> PromptCandidate:
    """The user's own prompt as it is: zero-shot, the input as the user's turn."""
    return PromptCandidate(technique="zero-shot", format="turns", instruction=task.instruction)


def why_rejected(candidate: PromptCandidate, task: Task) -> str:
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
    if candidate.format.startswith("dspy-") and any(mark in canonical(candidate.parts()) for mark in NOT_FOR_DSPY):
        return f"holds a text that the format {candidate.format} reads as a mark of its own"
    if problem := forbidden_in(f"{candidate.role} {candidate.instruction}", task):
        return problem
    if TECHNIQUES[candidate.technique].demos != bool(candidate.demos):
        return f"technique {candidate.technique} with {len(candidate.demos)} demos"
    limit = task.constraints.max_demos
    if limit is not None and len(candidate.demos) > limit:
        return f"{len(candidate.demos)} demos, more than max_demos = {limit}"
    train = {example.id for example in task.train}
    if strangers := [demo.example_id for demo in candidate.demos if demo.example_id not in train]:
        return f"demo {strangers[0]} is not a train row"
    return ""


def forbidden_in(text: str, task: Task) -> str:
    """Which forbidden text of [constraints] this holds, whatever the case; "" for none."""
    folded = text.casefold()
    return next((f"holds the forbidden text {w!r}" for w in task.constraints.forbidden if w.casefold() in folded), "")
