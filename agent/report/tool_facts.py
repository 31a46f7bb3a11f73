"""The texts of tools of prompts, tool by tool, in words: those of two prompts side by side. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.ledger.query import ERASED
from agent.prompt.tool_texts import TextChange, tool_changes
from agent.report.facts import prompt_text

NONE = "(no description)"


def text_changes(candidate: Mapping[str, Any]) -> list[TextChange]:
    """What a candidate of the ledger says of tools in the place of the task's own texts."""
    if "tool_texts" not in candidate:
        return []
    shown = candidate["tool_texts"]
    return [TextChange("texts of tools", ERASED, ERASED)] if shown is None else tool_changes(shown)


def tool_differences(one: Mapping[str, Any], two: Mapping[str, Any]) -> list[TextChange]:
    """What differs between two candidates of one task, by tool and argument."""
    first, second = ({change.what: change for change in text_changes(each)} for each in (one, two))
    found = []
    for what in dict.fromkeys([*first, *second]):
        before = first[what].after if what in first else second[what].before
        after = second[what].after if what in second else first[what].before
        if before != after:
            found.append(TextChange(what, before, after))
    return found


def compared_texts(one: Mapping[str, Any], two: Mapping[str, Any]) -> tuple[str, str]:
    """Two prompts as `prompt_text` gives them, with the texts of tools that differ under them."""
    texts, changed = (prompt_text(one), prompt_text(two)), tool_differences(one, two)
    if not changed:
        return texts
    first = "\n".join(f"{change.what}: {change.before or NONE}" for change in changed)
    second = "\n".join(f"{change.what}: {change.after or NONE}" for change in changed)
    return f"{texts[0]}\n[tools]\n{first}", f"{texts[1]}\n[tools]\n{second}"


def whole_prompt(candidate: Mapping[str, Any]) -> str:
    """All messages of a candidate, examples among them, each under its role, and its own texts of tools; ERASED when
    its text was erased."""
    parts = [f"[{part['role']}]\n{part['content']}" for part in candidate["template"] or ()] or [ERASED]
    own = "\n".join(f"{change.what}: {change.after or NONE}" for change in text_changes(candidate))
    return "\n\n".join([*parts, *([f"[tools]\n{own}"] if own else [])])


def change_lines(candidate: Mapping[str, Any]) -> list[str]:
    """The texts of tools of one prompt, a line each, after those of the task."""
    return [f"{each.what}: {each.before or NONE} -> {each.after or NONE}" for each in text_changes(candidate)]
