"""What a proposer answered: read by its form and refused with the reason where it cannot be used. Pure.

A reply is a model's own text about rows that anyone may have written: it is one short line, without marks, control
characters and placeholders, copies no row and does not repeat the request.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from agent.programs.moves.compress import held
from agent.programs.moves.propose import why_copied, why_repeating
from agent.prompt.fence import defused
from agent.types import Completion, Message, Task

MOST_LETTERS = 240  # of a part in one line
FEWEST_WORDS = 3
MOST_STEPS = 6
ECHOED_WORDS = 6  # of the request, in a row
MOST_BEFORE = 40  # letters before the words that a reply was asked to begin with
_QUOTES = " \t\"'*“”‘’"
_SENTENCE = re.compile(r"(?<=[.!?])\s")
_STEP = re.compile(r"(?:\d+[.)]|[-*•])\s*+(.+)")


def sentence(reply: Completion, begins: str) -> str:
    """The first sentence of a reply, without the words that it was asked to begin with and without its full stop.

    Args:
        reply: of the proposer.
        begins: the words that the request ended with; what stands before them is left out.

    Returns:
        One line; "" where the reply does not begin so.
    """
    line = next((line for line in reply.text.splitlines() if line.strip()), "")
    found = re.search(rf"(?<!\w){re.escape(begins)}(?!\w)", line, re.IGNORECASE)
    if found is None or found.start() > MOST_BEFORE:
        return ""
    rest = _SENTENCE.split(line[found.end() :].strip(_QUOTES))[0]
    return rest.replace("**", "").replace("`", "").rstrip(".!;:" + _QUOTES)


def steps(reply: Completion) -> tuple[str, ...]:
    """The steps of a numbered or dotted list."""
    lines = [match[1] for line in reply.text.splitlines() if (match := _STEP.fullmatch(line.strip()))]
    return tuple(line.replace("**", "").replace("`", "") for line in lines)


def why_cut(reply: Completion) -> str:
    """Why a reply is none, or ""."""
    if reply.finish == "refusal":
        return "the proposer refused to write it"
    return "no reply" if not reply.text.strip() else ""


def why_part_refused(text: str, task: Task, request: Sequence[Message] = ()) -> str:
    """Why one line of a proposer is not worth a call of the target, or "".

    Args:
        text: the line, as it would stand in an instruction.
        task: its rows must not stand in the line, nor its placeholders.
        request: what was asked; its own words must not come back.
    """
    words = re.findall(r"\w+", text)
    if len(words) < FEWEST_WORDS:
        return "too short to say anything"
    if len(text) > MOST_LETTERS:
        return f"{len(text)} characters, more than {MOST_LETTERS}"
    if re.search(r"</?data-[0-9a-f]", text):
        return "repeats the marks around the data"
    if "\n" in text or defused(text) != text:
        return "holds control characters or tokens of a chat template"
    if "{{" in text or "}}" in text:
        return "holds a placeholder"
    if _echoes(text, request):
        return "repeats the request"
    return why_repeating(text) or why_copied(text, task)


def _echoes(text: str, request: Sequence[Message]) -> bool:
    """Whether the line has so many words in a row of the request, without data and how to begin."""
    asked = "\n".join(re.sub(r"Begin with: .*", "", message.content) for message in request)
    asked = re.sub(r"<(data-[0-9a-f]+)>(?:[^<]|<(?!/?data-))*+</\1>", " | ", asked)
    own = [tuple(re.findall(r"\w+", line.casefold())) for line in re.split(r"[\n|]", asked)]
    grams = {line[i : i + ECHOED_WORDS] for line in own for i in range(len(line) - ECHOED_WORDS + 1)}
    said = tuple(re.findall(r"\w+", text.casefold()))
    return any(said[i : i + ECHOED_WORDS] in grams for i in range(len(said) - ECHOED_WORDS + 1))


def why_alike(text: str, others: Sequence[str]) -> str:
    """Why a definition tells nothing apart, or "": most of its words are those of another one."""
    mine = set(re.findall(r"\w+", text.casefold()))
    for other in others:
        theirs = set(re.findall(r"\w+", other.casefold()))
        if len(mine & theirs) >= 0.85 * len(mine | theirs):
            return "says the same as of another label"
    return ""


def why_labels_lost(instruction: str, task: Task, before: str = "") -> str:
    """Why an instruction may not take the place of another, or "": it names a label less than `before` or, with that
    empty, than the user's own words."""
    wanted, present = held(before or task.instruction, task), held(instruction, task)
    lost = [name for name in wanted if name not in present]
    return f"lost {', '.join(lost)}" if lost else ""
