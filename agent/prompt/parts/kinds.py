"""The registry of parts, and walks over those of a candidate or a prompt. Knows parts by name only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from agent.errors import InputError
from agent.prompt.parts.conversation import Conversing
from agent.prompt.parts.kind import FileHead, PartKind, TaskParts, WrongPart
from agent.prompt.parts.part import PromptPart
from agent.registry import Registry

if TYPE_CHECKING:
    from agent.prompt.bound import BoundPrompt
    from agent.prompt.prompt_candidate import PromptCandidate

HOMES = {
    "demos": "agent.prompt.parts.examples",
    "picks": "agent.prompt.parts.picks",
    "passages": "agent.prompt.parts.passages",
    "tool_texts": "agent.prompt.parts.tools",
    "adapter": "agent.prompt.parts.adapter",
    "calibration": "agent.prompt.parts.calibration",
}
"""The modules of our parts, by the fields of a candidate."""
ALIASES = {"tools": "tool_texts", "classifier": "calibration"}
"""Their other keys in a released file."""
PARTS: Registry[PartKind] = Registry("part of a prompt", "promptassay.parts", HOMES, ALIASES)
SECTIONS = ("calibration", "adapter", "tools", "picks", "passages", "classifier")
"""The keys of our parts in a released file."""
IN_FILES = ("calibration", "picks", "passages", "adapter", "tools")
"""The fields of a bound prompt, in the order of a released file."""

Made = TypeVar("Made", bound=type[PartKind] | type[PromptPart])


def part(made: Made) -> Made:
    """Register a kind, or a part without rows: its settings are what runs."""
    kind = made() if issubclass(made, PartKind) else PartKind(made)
    PARTS.add(kind.name, kind, made.__module__)
    return made


def others() -> dict[str, PartKind]:
    """Return the usable parts of other packages, by name."""
    names = [name for name in PARTS.names() if name not in HOMES]
    return {one.name: one.thing for one in PARTS.all(names) if one.thing is not None}


def held(prompt: PromptCandidate) -> Iterator[tuple[PartKind, Any]]:
    """Yield the parts of a candidate, with its settings."""
    for name in HOMES:
        if settings := getattr(prompt, name, None):
            yield PARTS.get(name), settings
    for own in prompt.more:
        yield PARTS.get(own.name), own


def bound(prompt: PromptCandidate, shared: TaskParts) -> dict[str, Any]:
    """Return the fields of `BoundPrompt` for a candidate."""
    names = (*HOMES, *(own.name for own in prompt.more))
    return _joined(PARTS.get(name).bind(prompt, shared) for name in names)


def parts_in(prompt: BoundPrompt) -> tuple[PromptPart, ...]:
    """Return the parts of a bound prompt."""
    kinds = [PARTS.get(name) for name in IN_FILES if getattr(prompt, name)]
    turns = (Conversing(prompt.conversation),) if prompt.conversation else ()
    return (*(one for kind in kinds for one in kind.parts(prompt)), *turns, *prompt.more)


def is_section(key: str) -> bool:
    """Return whether a key of a released file belongs to an installed part."""
    return key in SECTIONS or (key not in HOMES and key in PARTS)


def headings_of(keys: Iterable[str]) -> dict[str, str]:
    """Return the headings of sections with rows, in the order of prompt.md."""
    return {key: title for key in sorted(keys) if is_section(key) and (title := PARTS.get(key).headings.get(key))}


def loaded(keys: Iterable[str], head: FileHead) -> dict[str, Any]:
    """Read the fields of `BoundPrompt` from sections of a released file. Raises WrongPart."""
    ordered = sorted(keys, key=lambda key: IN_FILES.index(key) if key in IN_FILES else len(IN_FILES))
    keys = {ALIASES.get(key, key): key for key in reversed(ordered)}
    return _joined(_loaded(name, key, head) for name, key in reversed(keys.items()))


def _loaded(name: str, key: str, head: FileHead) -> dict[str, Any]:
    try:
        return PARTS.get(name).load(head)
    except WrongPart:
        raise
    except (InputError, ValueError) as error:
        raise WrongPart(key, str(error)) from None


def _joined(all_fields: Iterable[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for fields in all_fields:
        found |= {name: (*found.get(name, ()), *value) if name == "more" else value for name, value in fields.items()}
    return found
