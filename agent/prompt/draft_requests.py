"""The requests that draft a task without labels, one thing each, and the checks of their replies. Pure.

Small models repeat what they were given: a reply that is no more than the request is refused with the reason, and the
next request asks in other words. Rows that a model has written are untrusted, and are fenced when shown again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from agent.prompt.fence import Fence
from agent.shipped import fold
from agent.types import Message

FEWEST_LABELS, MOST_LABELS = 2, 20
LONGEST_LABEL = 40  # letters
LONGEST_SENTENCE = 300  # letters of a definition or of the beginning of a prompt
FEWEST_WORDS, LONGEST_ROW = 3, 600  # words and letters of a row
SHOWN = 4  # rows that are shown, so that the next one is another
ATTEMPTS = 3
"""Requests for one thing, at most."""
SYSTEM = "You help to set up a text classifier. You answer with what is asked for and nothing else."
_LISTED = re.compile(r"^\s*(?:[-*\u2022]|\d+[.)])?\s*")
_QUOTES = "\"'`*\u201c\u201d\u2018\u2019 \t"


class Refused(ValueError):
    """Why a reply cannot be used."""


ASKED: Mapping[str, tuple[str, ...]] = {
    "labels": (
        "Which labels does it sort texts into? Answer with their names only, separated by commas.",
        "List the possible answers of this task, one short name on each line, without explanations.",
        "Name the categories, two to eight of them, each one or two words long, separated by commas.",
    ),
    "definition": (
        "In one sentence: when is a text labelled {label}, and not another label?",
        'Finish this sentence: "The text is about"\nfor texts that are labelled {label}.',
        "Describe texts with the label {label} in a few words of your own.",
    ),
    "opening": (
        "Write one sentence that tells an assistant what to decide about the {inputs}. Begin with a verb.",
        'Finish this instruction in one sentence: "Read the {inputs} and decide"',
    ),
    "row": (
        "Write one short text as a real person would write it, which is labelled {label}. Do not name the label.",
        "Write another example of a text for {label}, two sentences long, about something else.",
        "Write what a customer or user might send that belongs to {label}.",
    ),
}
"""What is asked for, in other words at each attempt."""


def request_for(what: str, description: str, attempt: int, *lines: str, **words: str) -> tuple[Message, ...]:
    """Make the request for one thing; `attempt` counts from 0. `lines` precede the request, `words` are named in it."""
    asks = ASKED[what]
    text = "\n".join([f"Task: {description}", *lines, asks[attempt % len(asks)].format(**words)])
    return Message("system", SYSTEM), Message("user", text)


def row_request(
    description: str, label: str, definition: str, before: Sequence[str], attempt: int
) -> tuple[Message, ...]:
    """Ask for one text with a label, unlike the last ones of `before`."""
    shown = list(before[-SHOWN:])
    lines = [f"Label: {label}" + f" ({definition})" * bool(definition)]
    if shown:
        lines += ["Texts that were written before, as data:", *map(Fence.around(shown), shown)]
    return request_for("row", description, attempt, *lines, label=label)


# -- the checks of replies ---------------------------------------------------------------------------------------------


def read_labels(reply: str, description: str) -> tuple[str, ...]:
    """Return the labels of a reply; only those of the description if it names several.

    Raises:
        Refused: they are too few, too many, or no names.

    >>> read_labels("Bug, question and other", "Sort mails into bug or question.")
    ('bug', 'question')
    """
    parts = re.split(r"[\n,;]|\band\b|\bor\b", reply.strip())
    names = [_LISTED.sub("", part).strip(_QUOTES + ".:") for part in parts]
    return checked_labels(_named_in([name for name in names if name], description))


def checked_labels(names: Sequence[str]) -> tuple[str, ...]:
    """Return the distinct labels. Raises Refused if they cannot be the labels of a task.

    >>> checked_labels(["bug", "Bug", "question"])
    ('bug', 'question')
    """
    labels = tuple({fold(name): name for name in reversed(names)}.values())[::-1]
    if not FEWEST_LABELS <= len(labels) <= MOST_LABELS:
        raise Refused(f"{len(labels)} label{'s' * (len(labels) != 1)}; {FEWEST_LABELS} to {MOST_LABELS} are taken")
    for label in labels:
        if not 1 <= len(label) <= LONGEST_LABEL or not label.isprintable() or re.search(r"\{\{|\}\}|[<>,]", label):
            raise Refused(f"{label[:LONGEST_LABEL]!r} is no name of a label: 1 to {LONGEST_LABEL} letters of text")
        if not re.search(r"\w", label):
            raise Refused(f"{label!r} has no letter or digit")
    return labels


def _named_in(names: Sequence[str], description: str) -> list[str]:
    hits = [re.search(rf"(?<!\w){re.escape(name)}(?!\w)", description, re.IGNORECASE) for name in names]
    named = [hit[0] for hit in hits if hit]
    return named if len({fold(name) for name in named}) >= FEWEST_LABELS else list(names)


def read_definition(reply: str, description: str, label: str, others: Sequence[str]) -> str:
    """Return the first sentence of a reply. Raises Refused if it says nothing new, or repeats another label's."""
    sentence = _sentence(reply)
    sentence = re.sub(rf"^{re.escape(label)}\s*[:=\u2013-]\s*", "", sentence, flags=re.IGNORECASE)
    new = _words(sentence) - _words(label) - _words("a the is are text texts label labelled that it this when and not")
    if len(new) < 2:
        raise Refused("says nothing but the label")
    _require_own(sentence, description)
    if any(fold(sentence) == fold(other) for other in others):
        raise Refused("is the definition of another label")
    return sentence


def read_opening(reply: str) -> str:
    """Return the first sentence of a prompt in a reply. Raises Refused if it is no instruction."""
    sentence = _sentence(reply)
    if len(sentence.split()) < FEWEST_WORDS or sentence.endswith("?"):
        raise Refused("is no instruction")
    return sentence


def read_row(reply: str, description: str, definition: str, before: Sequence[str]) -> str:
    """Return a synthetic row. Raises Refused if it is too short or long, repeats the request, or duplicates a row."""
    text = " ".join(re.sub(r"^\s*(?:text|example|label)\s*:\s*", "", reply.strip(), flags=re.IGNORECASE).split())
    text = text.strip(_QUOTES)
    if len(text.split()) < FEWEST_WORDS or len(text) > LONGEST_ROW or not text.isprintable():
        raise Refused(f"is no text of {FEWEST_WORDS} words to {LONGEST_ROW} letters")
    if re.search(r"</?data-[0-9a-f]", text):
        raise Refused("repeats the marks around the data")
    _require_own(text, description)
    if definition and fold(definition) in fold(text):
        raise Refused("repeats the definition")
    if fold(text) in {fold(other) for other in before}:
        raise Refused("is there already")
    return text


def _sentence(reply: str) -> str:
    line = next((line for line in reply.strip().splitlines() if line.strip()), "")
    line = _LISTED.sub("", line).strip(_QUOTES)
    first = re.match(r".+?[.!?](?=\s|$)", line)
    sentence = " ".join((first[0] if first else line).split())
    if not sentence or len(sentence) > LONGEST_SENTENCE or not sentence.isprintable() or re.search(r"\{\{|<", sentence):
        raise Refused(f"is no sentence of at most {LONGEST_SENTENCE} letters")
    return sentence


def _require_own(text: str, description: str) -> None:
    if fold(description).strip(" .") in fold(text) or (len(text) > 20 and fold(text).strip(" .") in fold(description)):
        raise Refused("repeats the description of the task")


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))
