"""The texts of prompts: complete, and as a word diff of two."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal

from agent.ledger.query import ERASED
from agent.prompt.parts.tools import TextChange, tool_changes

NO_TEXT = "(no description)"
Kind = Literal["same", "gone", "new"]
CONTEXT = 12
"""Equal words and blanks shown around a change."""
COMPARED = 2500
"""Compared words between the first and the last change; later ones count as replaced."""
WORD_MARKS = {"same": "{}", "gone": "[-{}-]", "new": "{{+{}+}}"}
_PIECES = re.compile(r"\s+|\[\w+\]|\w+|[^\w\s]")
_WORDS = re.compile(r"\s+|\[\w+\]\s*|\w+\s*|[^\w\s]\s*")  # its own blank would be like every other blank


def prompt_text(candidate: Mapping[str, Any]) -> str:
    """Return a candidate's messages by role without its examples; ERASED if its text was erased."""
    template = candidate["template"]
    if not template:
        return ERASED
    if candidate["format"] != "inline" and candidate["demos"]:
        after = 2 if candidate.get("picks") else 1  # the place of the picked demos stands between these and the input
        first = len(template) - after - 2 * len(candidate["demos"])
        demos = {"role": "", "content": f"({len(candidate['demos'])} examples)"}
        template = [*template[:first], demos, *template[-after:]]
    return "\n".join(_headed(candidate, part) for part in template)


def _headed(candidate: Mapping[str, Any], part: Mapping[str, str]) -> str:
    """Return a message below its role. The texts of a user's program are no messages."""
    has_role = part["role"] and candidate.get("technique") != "program"
    return f"[{part['role']}]\n{part['content']}" if has_role else part["content"]


def text_changes(candidate: Mapping[str, Any]) -> list[TextChange]:
    """Return the tool texts that a candidate changes."""
    if (shown := candidate.get("tool_texts")) is not None:
        return tool_changes(shown)
    return [TextChange("texts of tools", ERASED, ERASED)] if candidate.get("tool_texts_hash") else []


def tool_differences(one: Mapping[str, Any], two: Mapping[str, Any]) -> list[TextChange]:
    """Return the differences between the tool texts of two candidates of one task."""
    first, second = ({change.what: change for change in text_changes(each)} for each in (one, two))
    found = []
    for what in dict.fromkeys([*first, *second]):
        before = first[what].after if what in first else second[what].before
        after = second[what].after if what in second else first[what].before
        if before != after:
            found.append(TextChange(what, before, after))
    return found


def compared_texts(one: Mapping[str, Any], two: Mapping[str, Any]) -> tuple[str, str]:
    """Return two prompts as by `prompt_text`, followed by the tool texts that differ."""
    texts, changed = (prompt_text(one), prompt_text(two)), tool_differences(one, two)
    if not changed:
        return texts
    first = "\n".join(f"{change.what}: {change.before or NO_TEXT}" for change in changed)
    second = "\n".join(f"{change.what}: {change.after or NO_TEXT}" for change in changed)
    return f"{texts[0]}\n[tools]\n{first}", f"{texts[1]}\n[tools]\n{second}"


def whole_prompt(candidate: Mapping[str, Any]) -> str:
    """Return a candidate's messages by role, examples included, and tool texts. ERASED if its text was erased."""
    parts = [_headed(candidate, part) for part in candidate["template"] or ()] or [ERASED]
    own = "\n".join(f"{change.what}: {change.after or NO_TEXT}" for change in text_changes(candidate))
    return "\n\n".join([*parts, *([f"[tools]\n{own}"] if own else [])])


def change_lines(candidate: Mapping[str, Any]) -> list[str]:
    """Return the changed tool texts, a line each, after the task's own texts."""
    return [f"{each.what}: {each.before or NO_TEXT} -> {each.after or NO_TEXT}" for each in text_changes(candidate)]


# -- words that changed ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TextStretch:
    """A stretch of text: in both versions, only in the first (`gone`), or only in the second (`new`)."""

    kind: Kind
    text: str


def word_diff(one: str, two: str) -> str:
    """Return `two` with removed words as [-old-] and added ones as {+new+}. Long equal parts are omitted."""
    return "".join(WORD_MARKS[change.kind].format(change.text) for change in changes(one, two, CONTEXT))


def changes(one: str, two: str, keep: int | None = None) -> list[TextStretch]:
    """Return the word changes from text `one` to `two`.

    Args:
        keep: equal words and blanks kept around a change; the rest becomes an ellipsis. None keeps all.
    """
    pieces = (piece for gone, new in _stretches(one, two) for piece in _pieces(gone, new))
    runs = [(kind, [text for _, text in group]) for kind, group in groupby(pieces, key=itemgetter(0))]
    return [
        TextStretch(kind, _shortened(texts, at == 0, at == len(runs) - 1, keep if kind == "same" else None))
        for at, (kind, texts) in enumerate(runs)
    ]


def _stretches(one: str, two: str) -> Iterator[tuple[str, str]]:
    first, second = (_WORDS.findall(text) for text in (one, two))
    start, end = _alike(first, second)
    yield "".join(first[:start]), "".join(second[:start])
    old, new = (words[start : len(words) - end] for words in (first, second))
    matcher = difflib.SequenceMatcher(None, old[:COMPARED], new[:COMPARED], autojunk=False)
    for _, a0, a1, b0, b1 in matcher.get_opcodes():
        yield "".join(old[a0:a1]), "".join(new[b0:b1])
    yield "".join(old[COMPARED:]), "".join(new[COMPARED:])
    yield "".join(first[len(first) - end :]), "".join(second[len(second) - end :])


def _pieces(gone: str, new: str) -> Iterator[tuple[Kind, str]]:
    # common words at both ends make equal pieces
    first, second = (_PIECES.findall(text) for text in (gone, new))
    start, end = _alike(first, second)
    yield from (("same", piece) for piece in first[:start])
    yield from (("gone", piece) for piece in first[start : len(first) - end])
    yield from (("new", piece) for piece in second[start : len(second) - end])
    yield from (("same", piece) for piece in first[len(first) - end :])


def _alike(one: Sequence[str], two: Sequence[str]) -> tuple[int, int]:
    # length of the common start, and of the common end after it
    start = next((at for at, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))
    ends = zip(reversed(one[start:]), reversed(two[start:]), strict=False)
    return start, next((at for at, (a, b) in enumerate(ends) if a != b), min(len(one), len(two)) - start)


def _shortened(words: Sequence[str], is_first: bool, is_last: bool, keep: int | None) -> str:
    if keep is None or len(words) <= 2 * keep + 4:
        return "".join(words)
    before = "" if is_first else "".join(words[:keep])
    after = "" if is_last else "".join(words[-keep:])
    return f"{before} … {after}"
