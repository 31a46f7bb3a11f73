"""The hard rules for prompt candidates. Pure."""

from __future__ import annotations

import re

from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.render import NOT_FOR_DSPY
from agent.prompt.techniques import TECHNIQUES
from agent.prompt.template import marks, placeholder
from agent.retrieval.passages import CONTEXT
from agent.types import Task, canonical

_SURROGATE = re.compile(r"[\ud800-\udfff]")


def why_rejected(candidate: PromptCandidate, task: Task) -> str:
    """Why this candidate must not be tried; "" where it may.

    Every input placeholder of the user's instruction is kept, demos come from train only, and the limits of
    [constraints] hold. The size in tokens takes a model and is checked elsewhere.
    """
    names = [field.name for field in task.signature.inputs]
    if not candidate.instruction.strip():
        return "the instruction is empty"
    texts = " ".join(candidate.tool_texts.texts) if candidate.tool_texts else ""
    if _SURROGATE.search(candidate.role + candidate.instruction + texts):
        return "the instruction holds a lone surrogate, which is no text"
    needed, present = marks(task.instruction, names), marks(candidate.instruction, names)
    if lost := needed - present:
        return f"lost the placeholder {', '.join('{{' + name + '}}' for name in sorted(lost))}"
    if present and (missing := set(names) - present):
        return f"has no place for {', '.join(sorted(missing))}"
    if marks(candidate.instruction, [CONTEXT]) and CONTEXT not in names and task.knowledge:
        if not candidate.passages:
            return f"has the place {placeholder(CONTEXT)} for passages and looks none up"
        if candidate.format.startswith("dspy-"):
            return f"the instruction has its own place for passages, which the format {candidate.format} cannot keep"
    if present and candidate.format.startswith("dspy-"):
        return f"the instruction lays out its own input, and so does the format {candidate.format}"
    if candidate.format.startswith("dspy-") and any(mark in canonical(candidate.parts()) for mark in NOT_FOR_DSPY):
        return f"holds a text that the format {candidate.format} reads as a mark of its own"
    if problem := forbidden_in(f"{candidate.role} {candidate.instruction} {texts}", task):
        return problem
    if candidate.tool_texts and (problem := candidate.tool_texts.why_other(task.tools)):
        return problem
    if TECHNIQUES[candidate.technique].demos != bool(candidate.n_demos):
        return f"technique {candidate.technique} with {candidate.n_demos} demos"
    if candidate.picks and TECHNIQUES[candidate.technique].reasoning:
        return f"technique {candidate.technique}: a picked demo has no reasons to show"
    limit = task.constraints.max_demos
    if limit is not None and candidate.n_demos > limit:
        return f"{candidate.n_demos} demos, more than max_demos = {limit}"
    train = {example.id for example in task.train}
    if others := [demo.example_id for demo in candidate.demos if demo.example_id not in train]:
        return f"demo {others[0]} is not a train row"
    return ""


def forbidden_in(text: str, task: Task) -> str:
    """The rule that `text` breaks by a forbidden text of [constraints], case folded; "" for none."""
    folded = text.casefold()
    return next((f"holds the forbidden text {w!r}" for w in task.constraints.forbidden if w.casefold() in folded), "")
