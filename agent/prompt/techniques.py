"""Prompting techniques: what each adds to an instruction, built-in rewrites that cost no call, and the hard rules for
candidates. Pure.

Source: few-shot, Brown et al. 2020; chain-of-thought, Wei et al. 2022, zero-shot Kojima et al. 2022; role, Shanahan et
al. 2023.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from agent.prompt.label_calibration import LABELS_FIRST
from agent.prompt.parts.kinds import held
from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.template import escape, marks, placeholder
from agent.retrieval.passages import CONTEXT
from agent.safe_text import SURROGATE
from agent.types import Field, Signature, Task, TechniqueName, canonical

_REASONS = re.compile(
    r"step[ -]by[ -]step"
    r"|(?<!not )(?<!n't )(?<!n’t )(?<!never )\b"
    r"(?:(?:think|reason) (?:(?:it|this) )?(?:about|through|first|before|carefully|aloud|out loud)"
    r"|explain (?:your (?:reasoning|thinking)|why|how))\b",
    re.IGNORECASE,
)
_ANSWER_LINE = re.compile(
    r"\b(?:after|with|by|form|format|line|as|say|write)\b[^\n:]{0,20}[\"'“‘`*]+(?:final )?answer[\"'”’`*]*:",
    re.IGNORECASE,
)  # a line that merely begins with it is the place for the answer


@dataclass(frozen=True, slots=True)
class Technique:
    """Whether a technique has examples, and reasoning before the answer."""

    demos: bool
    reasoning: bool


TECHNIQUES: dict[TechniqueName, Technique] = {
    "zero-shot": Technique(demos=False, reasoning=False),
    "few-shot": Technique(demos=True, reasoning=False),
    "chain-of-thought": Technique(demos=False, reasoning=True),
    "few-shot-cot": Technique(demos=True, reasoning=True),
}


@dataclass(frozen=True, slots=True)
class Rewrite:
    """An instruction and its origin. `credit`: the operator of the search that had a model write it, if one did."""

    operator: str
    instruction: str
    reason: str
    credit: str = ""


def reasoning_suffix(signature: Signature) -> str:
    """Return the sentence that asks for reasoning and for the place of the answer."""
    if len(signature.outputs) == 1:
        return f'Think step by step. Then write the {_words(signature.outputs[0])} on the last line, after "Answer:".'
    names = ", ".join(f'"{field.name}:"' for field in signature.outputs)
    return f"Think step by step. Then write each result on its own line: {names}."


def answers_last(candidate: PromptCandidate) -> bool:
    """Return whether the answer comes last, after `Answer:`, by the technique or the instruction."""
    return TECHNIQUES[candidate.technique].reasoning or _asks(candidate, _ANSWER_LINE)


def reasons_first(candidate: PromptCandidate) -> bool:
    """Return whether a reply begins with reasons, by `answers_last` or words like "step by step"."""
    return answers_last(candidate) or _asks(candidate, _REASONS)


def labels_first(candidate: PromptCandidate, outputs: Sequence[Field]) -> bool:
    """Return whether a reply begins with a label: one choice output, no heading, no reasons."""
    alone = len(outputs) == 1 and bool(outputs[0].choices)
    return alone and candidate.format in LABELS_FIRST and not reasons_first(candidate)


def _asks(candidate: PromptCandidate, words: re.Pattern[str]) -> bool:
    return not candidate.n_examples and _holds(candidate.instruction, words)


@lru_cache(1024)
def _holds(instruction: str, words: re.Pattern[str]) -> bool:
    return words.search(instruction) is not None


def _words(field: Field) -> str:
    return field.name.replace("_", " ")


def form_sentence(signature: Signature) -> str:
    """Write one sentence on the form of the answer, by declared type."""
    if len(signature.outputs) != 1:
        return "Answer with one line per field: " + ", ".join(f"{field.name}: ..." for field in signature.outputs) + "."
    field = signature.outputs[0]
    forms = {
        "choice": "with exactly one of the listed labels and nothing else",
        "number": "with one number only, no unit and no explanation",
        "json": "with one JSON object only, no text around it",
        "text": f"with the {_words(field)} only",
    }
    return f"Answer {forms[field.type]}."


def builtin_rewrites(task: Task) -> tuple[Rewrite, ...]:
    """Vary the instruction: with the answer's form, with listed choices, shortened."""
    signature, own = task.signature, task.instruction.strip()
    choices = [field for field in signature.outputs if field.choices]
    names = [field.name for field in signature.inputs]
    listed = escape("\n".join(f"- {choice}" for field in choices for choice in field.choices), names)
    goal = (
        escape(task.description.strip(), names) or f"Given {', '.join(map(_words, signature.inputs))}, give the answer."
    )
    rewrites = [Rewrite("form", f"{own}\n{form_sentence(signature)}", "says the form of the answer at the end")]
    if not marks(own, names):
        short = f"{goal} {form_sentence(signature)}"
        if choices:
            short = f"{goal}\nLabels:\n{listed}\n{form_sentence(signature)}"
        rewrites.append(
            Rewrite("short", short, "the task in one sentence: fewer words leave more room for the examples")
        )
        rewrites.append(Rewrite("bare", goal, "lets the examples speak for the form"))
    elif choices:
        rewrites.append(Rewrite("list", f"{own}\nLabels:\n{listed}", "lists every label again at the end"))
    return tuple(rewrites)


# -- the hard rules for candidates -------------------------------------------------------------------------------------


NOT_FOR_DSPY = ("\ue0f7", "<<CUSTOM-TYPE-START-IDENTIFIER>>")
"""Texts that a candidate of a DSPy layout must not hold: our own sentinel, and what DSPy reads as an attachment."""


def why_rejected(candidate: PromptCandidate, task: Task) -> str:
    """Return why this candidate must not be tried, or "". The limit in tokens is checked elsewhere."""
    names = [field.name for field in task.signature.inputs]
    if not candidate.instruction.strip():
        return "the instruction is empty"
    parts = list(held(candidate))
    texts = " ".join(text for kind, settings in parts for text in kind.texts(settings))
    if SURROGATE.search(candidate.role + candidate.instruction + texts):
        return "the instruction holds a lone surrogate, which is no text"
    needed, present = marks(task.instruction, names), marks(candidate.instruction, names)
    if lost := needed - present:
        return f"lost the placeholder {', '.join('{{' + name + '}}' for name in sorted(lost))}"
    if present and (missing := set(names) - present):
        return f"has no place for {', '.join(sorted(missing))}"
    if marks(candidate.instruction, [CONTEXT]) and CONTEXT not in names and task.knowledge:
        if CONTEXT not in candidate.marks("context"):
            return f"has the place {placeholder(CONTEXT)} for passages and looks none up"
        if candidate.format.startswith("dspy-"):
            return f"the instruction has its own place for passages, which the format {candidate.format} cannot keep"
    if present and candidate.format.startswith("dspy-"):
        return f"the instruction lays out its own input, and so does the format {candidate.format}"
    if candidate.format.startswith("dspy-") and any(mark in canonical(candidate.parts()) for mark in NOT_FOR_DSPY):
        return f"holds a text that the format {candidate.format} reads as one of its marks"
    if problem := forbidden_in(f"{candidate.role} {candidate.instruction} {texts}", task):
        return problem
    if TECHNIQUES[candidate.technique].demos != bool(candidate.n_examples):
        return f"technique {candidate.technique} with {candidate.n_examples} examples"
    limit = task.constraints.max_examples
    if limit is not None and candidate.n_examples > limit:
        return f"{candidate.n_examples} examples, more than max_examples = {limit}"
    return next((why for kind, own in parts if (why := kind.why_rejected(own, candidate, task))), "")


def forbidden_in(text: str, task: Task) -> str:
    """Name the forbidden text of [constraints] in `text`; "" if none. Case is ignored."""
    folded = text.casefold()
    return next((f"holds the forbidden text {w!r}" for w in task.constraints.forbidden if w.casefold() in folded), "")
