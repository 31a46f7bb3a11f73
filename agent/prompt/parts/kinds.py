"""The registry of parts: how a part is searched, bound to the rows of a task, and read from a released file.

A candidate holds the settings of its parts; what runs is made of them by `bind`, and of a released file by `load`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from agent.errors import InputError
from agent.prompt.parts.part import PromptPart
from agent.registry import Registry
from agent.safe_data import read_as
from agent.shipped import Field

if TYPE_CHECKING:
    from agent.prompt.parts.calibration import Opinion
    from agent.prompt.prompt_candidate import PromptCandidate
    from agent.types import Demo, Signature, Task, Tool

T = TypeVar("T")
Made = TypeVar("Made", bound="type[PartKind] | type[PromptPart]")


class WrongPart(ValueError):
    """An error in a released file, and the key that has it."""

    def __init__(self, key: str, what: str) -> None:
        super().__init__(what)
        self.key = key


@dataclass(frozen=True)
class FileHead:
    """The head of a released file, for a part that is read from it. `data`: its keys; `folder`: where it is."""

    data: Mapping[str, Any]
    folder: Path
    parts: dict[str, PromptPart] = field(default_factory=dict)
    """What was read so far, by the kind's name."""

    def part(self, key: str) -> PromptPart:
        """Return the part of a section, read once. Raises WrongPart."""
        kind = PARTS.get(key)
        if kind.name not in self.parts:
            try:
                self.parts[kind.name] = kind.load(self)
            except WrongPart:
                raise
            except (InputError, ValueError) as error:
                raise WrongPart(key, str(error)) from None
        return self.parts[kind.name]

    def table(self, key: str) -> tuple[dict[str, Any], Any]:
        """Return a section that is a table, and its rows. Raises WrongPart."""
        try:
            found = dict(read_as(dict[str, Any], self.data[key], key))
        except ValueError as error:
            raise WrongPart(key, str(error)) from None
        return found, found.pop("rows", None)

    @property
    def contents(self) -> list[str]:
        return [message.content for message in self.data["messages"]]


class TaskParts:
    """What the prompts of one task share, such as the index of a pool; each is made when first needed."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._made: dict[Any, Any] = {}

    def of(self, kind: Callable[[Task], T]) -> T:
        """Return the only `kind(task)`."""
        if kind not in self._made:
            self._made[kind] = kind(self.task)
        found: T = self._made[kind]
        return found


class PartKind:
    """How a part is searched, bound to a task and read from a file: here one whose settings are the part `made` itself.

    `name`: the field of a candidate that holds the settings, and the key in a released file. `headings`: by the keys of
    sections that have rows, their headings in prompt.md. `words`: what it is called where its contribution is shown.
    """

    name: str = ""
    made: type[PromptPart] = PromptPart
    settings: Any = None
    """The class of its settings, if they are not the part itself."""
    headings: ClassVar[Mapping[str, str]] = {}
    words: str = ""
    must_prove: bool = False
    """Whether a candidate with it has to prove itself against those without."""
    only_reads: bool = False
    """Whether the request is the same without it."""

    def __init__(self, made: type[PromptPart] | None = None) -> None:
        self.made = made or self.made
        self.name = self.name or self.made.name
        self.words = self.words or self.name

    @property
    def about(self) -> str:
        """The first line of its file."""
        file = sys.modules[(self.made if type(self) is PartKind else type(self)).__module__]
        return (file.__doc__ or self.name).partition("\n")[0]

    # -- settings

    def as_dict(self, settings: Any) -> Any:
        """Return the settings, JSON-ready, for the candidate's id."""
        return settings.data()[self.name] if isinstance(settings, PromptPart) else settings.as_dict()

    def restored(self, data: Any) -> Any:
        """Return the settings of what the ledger holds. Raises ValueError."""
        return self.settings.of(data) if hasattr(self.settings, "of") else read_as(self.settings, data, self.name)

    def shown(self, settings: Any, tools: Sequence[Tool]) -> dict[str, Any]:
        """Return fields of `Summary`, or a `note` after the instruction; `tools`: the task's own."""
        return {"note": str(settings)} if isinstance(settings, PromptPart) else {self.name: self.as_dict(settings)}

    def examples(self, settings: Any) -> int:
        """Return how many examples it shows at most."""
        return 0

    def texts(self, settings: Any) -> Iterable[str]:
        """Return every text of it that a model may have written."""
        return ()

    def needs_vectors(self, settings: Any) -> bool:
        """Return whether it compares rows by vectors."""
        return False

    def learnt_from(self, settings: Any, task: Task) -> Iterable[str]:
        """Return the ids of rows whose right answers it uses or shows."""
        return ()

    def opinion(self, shared: TaskParts) -> Opinion | None:
        """Return its vote on a label next to the model's, if any."""
        return None

    def features(self, settings: Any) -> dict[tuple[str, str], float]:
        """Return columns for the model of the parts (`search/effects.py`)."""
        return {(self.name, str(self.as_dict(settings))): 1.0}

    # -- in a candidate

    def without(self, winner: PromptCandidate, baseline: PromptCandidate) -> tuple[str, PromptCandidate] | None:
        """Return the part's name and the winner without it; None if that changes nothing."""
        own = baseline.part(self.name)
        return None if winner.part(self.name) == own else (self.words, winner.having(**{self.name: own}))

    def why_rejected(self, settings: Any, prompt: PromptCandidate, task: Task) -> str:
        """Return the hard rule that a candidate breaks by it, or ""."""
        return ""

    def why_other(self, settings: Any, prompt: PromptCandidate, shared: TaskParts) -> str:
        """Return why the settings belong to another task, or ""."""
        return ""

    # -- in the messages

    def answers(self, settings: Any, signature: Signature, demos: Sequence[Demo]) -> tuple[Signature, Sequence[Demo]]:
        """Return outputs and examples as the messages show them."""
        return signature, demos

    def said(self, settings: Any, outputs: tuple[Field, ...]) -> str:
        """Return the words of the part after the instruction, or ""."""
        return ""

    def reply_tokens(self, settings: Any, outputs: int) -> int:
        """Return how many tokens it adds to a reply at most; `outputs`: their number."""
        return 0

    # -- as what runs

    def bind(self, settings: Any, prompt: PromptCandidate, shared: TaskParts) -> PromptPart | None:
        """Return what runs the settings; None if the messages do."""
        return settings if isinstance(settings, PromptPart) else None

    def load(self, head: FileHead) -> PromptPart:
        """Read the part from its sections of a released file. Raises ValueError."""
        made: PromptPart = read_as(self.made, head.data[self.name], self.name)
        return made


# -- the registry, and walks over the parts of a candidate or a prompt -------------------------------------------------

HOMES = {
    "demos": "agent.prompt.parts.examples",
    "picks": "agent.prompt.parts.picks",
    "passages": "agent.prompt.parts.passages",
    "tool_texts": "agent.prompt.parts.tools",
    "shape": "agent.prompt.parts.shape",
    "adapter": "agent.prompt.parts.adapter",
    "calibration": "agent.prompt.parts.calibration",
}
"""The modules of our parts, by the fields of a candidate."""
ALIASES = {"tools": "tool_texts", "classifier": "calibration"}
"""Their other keys in a released file."""
PARTS: Registry[PartKind] = Registry("part of a prompt", "promptassay.parts", HOMES, ALIASES)
SECTIONS = ("calibration", "adapter", "tools", "picks", "passages", "classifier", "shape")
"""The keys of our parts in a released file."""


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
    parts = {"demos": prompt.demos, **prompt.settings}
    for name in (*HOMES, *(name for name in parts if name not in HOMES)):
        if settings := parts.get(name):
            yield PARTS.get(name), settings


def bound(prompt: PromptCandidate, shared: TaskParts) -> tuple[PromptPart, ...]:
    """Return the parts that run a candidate."""
    parts = list(held(prompt))
    if shared.task.tools and prompt.part("tool_texts") is None:  # then it calls the task's own
        parts.append((PARTS.get("tool_texts"), None))
    made = (kind.bind(settings, prompt, shared) for kind, settings in parts)
    return tuple(one for one in made if one is not None)


def is_section(key: str) -> bool:
    """Return whether a key of a released file belongs to an installed part."""
    return key in SECTIONS or (key not in HOMES and key in PARTS)
