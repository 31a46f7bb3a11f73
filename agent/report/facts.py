"""What is said of a run in words, the same on every surface: terminal, report, web page, notebook. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Result = Mapping[str, Any]
SHOWN = 0.05
"""A p-value below which a difference counts as shown."""


def stopped_before_search(result: Result) -> bool:
    """Whether the preflight found that nothing can be won, and was listened to: only the user's prompt was tried."""
    found = result.get("preflight") or {}
    return found.get("worth") is False and sum(result["trials"].values()) == 1


def verdict(result: Result) -> str:
    """Did it get better? One sentence without its full stop, for the result of a search."""
    lift = result["lift"]
    gained = f"{100 * lift['diff']:+.1f} points on {lift['n']} sealed test rows"
    if stopped_before_search(result):
        return "Keep your prompt: nothing can be won, so nothing was searched"
    if result["decision"] == "promote":
        return f"Better: {gained}"
    if lift["wins"] + lift["losses"] == 0:
        return "Keep your prompt: nothing better was found"
    if lift["diff"] > 0 and lift["p_value"] < SHOWN:
        return f"Held back: {gained}"
    return f"Keep your prompt: {gained} is not significant"


def certainty(result: Result) -> str:
    """How sure that is: interval and p-value of the paired difference."""
    lift = result["lift"]
    low, high = (100 * value for value in lift["ci95"])
    return f"95 % CI {low:+.1f} to {high:+.1f}, p = {lift['p_value']:.2g}"


def decision(result: Result) -> str:
    """One or two words for a list of runs, whatever kind of run it was."""
    if result.get("kind") == "judge_calibration":
        return f"calibration: {'trusted' if result['trusted'] else 'not trusted'}"
    if result.get("kind") == "check":
        return f"check: {result['gate']}"
    return str(result.get("decision") or result.get("kind") or "")


def prompt_text(candidate: Mapping[str, Any]) -> str:
    """A candidate's messages without its demo turns, each under its role."""
    template = candidate["template"]
    if candidate["format"] != "inline" and candidate["demos"]:
        first = len(template) - 1 - 2 * len(candidate["demos"])
        template = [*template[:first], {"role": "", "content": f"({len(candidate['demos'])} demos)"}, template[-1]]
    headings = [f"[{message['role']}]\n" if message["role"] else "" for message in template]
    return "\n".join(heading + message["content"] for heading, message in zip(headings, template, strict=True))


# -- words that changed -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Change:
    """A stretch of text that two versions share, that only the first has (`gone`), or only the second (`new`)."""

    kind: Literal["same", "gone", "new"]
    text: str


def changes(one: str, two: str, keep: int | None = None) -> list[Change]:
    """From `one` to `two` by words. `keep`: so many equal words and blanks are left beside a change, the rest of a long
    equal stretch becomes an ellipsis; None keeps all."""
    first, second = (re.findall(r"\s+|\w+|[^\w\s]", text) for text in (one, two))
    found: list[Change] = []
    for kind, a0, a1, b0, b1 in difflib.SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        if kind == "equal":
            found.append(Change("same", _shortened(first[a0:a1], a0 == 0, a1 == len(first), keep)))
            continue
        found += [Change("gone", "".join(first[a0:a1]))] if a1 > a0 else []
        found += [Change("new", "".join(second[b0:b1]))] if b1 > b0 else []
    return found


def _shortened(words: Sequence[str], is_first: bool, is_last: bool, keep: int | None) -> str:
    if keep is None or len(words) <= 2 * keep + 4:
        return "".join(words)
    before = "" if is_first else "".join(words[:keep])
    after = "" if is_last else "".join(words[-keep:])
    return f"{before} … {after}"
