"""How a part of a prompt is searched, bound to the rows of a task, and read from a released file.

A candidate holds the settings of its parts; what runs is made of them by `bind`, and of a released file by `load`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from agent.prompt.parts.part import PromptPart
from agent.safe_data import read_as

if TYPE_CHECKING:
    from agent.prompt.bound import BoundPrompt
    from agent.prompt.parts.calibration import Opinion
    from agent.prompt.prompt_candidate import PromptCandidate
    from agent.types import Task, Tool

T = TypeVar("T")


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
    sections that have rows, their headings in prompt.md.
    """

    name: str = ""
    made: type[PromptPart] = PromptPart
    headings: ClassVar[Mapping[str, str]] = {}
    must_prove: bool = False
    """Whether a candidate with it has to prove itself against those without."""
    words: str = ""
    """What it is called where its contribution is shown; "" for `name`."""
    only_reads: bool = False
    """Whether the request is the same without it."""

    def __init__(self, made: type[PromptPart] | None = None) -> None:
        self.made = made or self.made
        self.name = self.name or self.made.name

    @property
    def about(self) -> str:
        """The first line of its file."""
        file = sys.modules[(self.made if type(self) is PartKind else type(self)).__module__]
        return (file.__doc__ or self.name).partition("\n")[0]

    # -- settings

    def as_dict(self, settings: Any) -> Any:
        """Return the settings, JSON-ready, for the candidate's id."""
        return settings.data()[self.name] if isinstance(settings, PromptPart) else settings.as_dict()

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
        return None if winner.part(self.name) == own else (self.words or self.name, winner.with_part(self.name, own))

    def why_rejected(self, prompt: PromptCandidate, task: Task) -> str:
        """Return the hard rule that a candidate breaks by it, or ""."""
        return ""

    def why_other(self, prompt: PromptCandidate, shared: TaskParts) -> str:
        """Return why the candidate's settings belong to another task, or ""."""
        return ""

    # -- as what runs

    def bind(self, prompt: PromptCandidate, shared: TaskParts) -> dict[str, Any]:
        """Return the fields of `BoundPrompt` that run the candidate's settings."""
        return {"more": (prompt.part(self.name),)}

    def load(self, head: FileHead) -> dict[str, Any]:
        """Read the fields of `BoundPrompt` from sections of a released file. Raises ValueError."""
        return {"more": (read_as(self.made, head.data[self.name], self.name),)}

    def parts(self, prompt: BoundPrompt) -> Iterable[PromptPart]:
        """Return the parts in these fields."""
        return (getattr(prompt, self.name),)
