"""A part of a prompt: something that only some prompts have, such as picked examples.

A `PromptPart` is what runs: the same object renders and reads in a search, behind a released file and in production.
`kinds.py` covers search and reading from a file. Imports the standard library and the light parts of this package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from agent.shipped import Message, Prediction, Tool

if TYPE_CHECKING:
    from pathlib import Path

    from agent.retrieval.pick import PoolRow
    from agent.retrieval.vectors import PoolVectors
    from agent.types import Request, Task

ORDER = ("calibration", "picks", "passages", "adapter", "tools", "conversation")
"""Names of parts as they follow in a prompt and its files, before any other."""
Count = Callable[[str], int]
"""Tokens of a text."""


@dataclass
class Row:
    """One input as the parts of a prompt see it.

    `compared`: the inputs that are compared with other rows, see `Signature.compared`. `id`: of a train row, which is
    never shown to itself. `own`: confirmed rows of a user, picked before those of the task; `shown`: their texts.
    `memo`: a part's findings that it needs again to read the reply.
    """

    values: Mapping[str, str]
    compared: Sequence[str]
    id: str = ""
    vector: Sequence[float] | None = None
    own: Sequence[PoolRow] = ()
    shown: Sequence[tuple[str, ...]] = ()
    memo: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def text(self) -> str:
        """The text that is compared with those of other rows."""
        from agent.retrieval.pick import text_of  # most prompts compare nothing, and start faster without

        return text_of(self.values, self.compared)


class PromptPart:
    """A part of one prompt with everything it needs to run. A hook that is not overridden changes nothing."""

    name: ClassVar[str]
    mark: ClassVar[str] = ""
    """The mark of the template that it fills."""
    place: ClassVar[str] = ""
    """Where that mark is: "examples" before the input, "context" in the instruction; "" without a mark."""
    reads_tokens: ClassVar[bool] = False
    """Whether the log-probabilities of a reply decide how it is read."""
    tools: tuple[Tool, ...] = ()
    """The tools that it sends with every request."""

    @staticmethod
    def choices(task: Task) -> Mapping[str, PromptPart]:
        """Return the parts that a search may try, by name. Built-in ones are made in `programs/moves/`."""
        return {}

    # -- what is given

    def texts_of(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Turn a program's inputs into texts. Raises ValueError."""
        return given

    def as_given(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Turn the texts of a row into a program's inputs."""
        return values

    def tried(self, rows: Iterable[Mapping[str, str]], hostile: Sequence[str]) -> Iterable[Mapping[str, str]]:
        """Make rows to prove files with, from plain ones and hostile texts."""
        return rows

    # -- what is sent

    def values(self, row: Row) -> Mapping[str, Any]:
        """Return the texts for marks of the template; for "examples" one per example."""
        return {}

    def messages(self, messages: tuple[Message, ...], row: Row) -> tuple[Message, ...]:
        """Change the rendered messages."""
        return messages

    def request(self, request: Request, row: Row) -> Request:
        """Change the request, apart from its messages."""
        return request

    def target(self, model: str) -> str:
        """Return the callable name of the model that answers."""
        return model

    # -- what is read

    @property
    def reads_input(self) -> str:
        """Describe how the input decides when a reply is read; "" if it does not."""
        return ""

    def weighed(self, logs: Sequence[float], row: Row) -> Sequence[float]:
        """Change the log-probabilities of the labels."""
        return logs

    def read(self, logs: Sequence[float] | None, row: Row | None, prediction: Prediction) -> Prediction:
        """Change how a reply was read. `logs`: see `label_logs`; `row`: None if the input is unknown."""
        return prediction

    # -- what is known of it

    def size(self, count: Count, rows: Sequence[Row], most: bool) -> int:
        """Count the tokens that it adds: on average over `rows`, or at most."""
        return 0

    def documents(self, row: Row) -> tuple[str, ...] | None:
        """Return the document of each passage it shows, nearest first; None without passages."""
        return None

    @property
    def vectors(self) -> PoolVectors | None:
        """The vectors that an input is compared with by its own."""
        return None

    def example(self) -> tuple[str, ...]:
        """Return the texts of an example, if confirmed rows of a user are shown."""
        return ()

    # -- how it is shipped

    def data(self) -> dict[str, Any]:
        """Return its sections of a released file, JSON-ready by key; `PartKind.load` is the inverse."""
        raise NotImplementedError

    @property
    def in_messages(self) -> bool:
        """Whether the messages alone hold all that it does."""
        return False

    @property
    def reply_schema(self) -> str:
        """The JSON schema of a reply, as text, or ""."""
        return ""

    def answer(self, values: Mapping[str, Any]) -> str:
        """Write right outputs as a reply; "" for that of the layout. Raises ReleaseError if they do not suffice."""
        return ""

    def files(self) -> Mapping[str, Path]:
        """Return the files to release next to the prompt, by their names there."""
        return {}

    def require_whole(self) -> None:
        """Raise ReleaseError unless `files` are complete."""

    def source(self) -> str:
        """Return the Python function of an export, or "".

        It has the part's name and maps rendered to sent messages (dicts).
        """
        return ""


def in_order(parts: Iterable[PromptPart]) -> tuple[PromptPart, ...]:
    """Return the parts as they run, and as a file has them."""
    return tuple(sorted(parts, key=lambda part: ORDER.index(part.name) if part.name in ORDER else len(ORDER)))
