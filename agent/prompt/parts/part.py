"""What a part of a prompt is: one thing that only some prompts have, such as picked examples.

A `PromptPart` is what runs: the same object renders and reads in a search, behind a released file and in production.
`kind.py` has how it is searched and read from a file. Imports the standard library and the light parts of this package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from agent.shipped import Message, Prediction

if TYPE_CHECKING:
    from pathlib import Path

    from agent.retrieval.pick import PoolRow
    from agent.types import Request, Task

Count = Callable[[str], int]
"""Tokens of a text."""


@dataclass
class Row:
    """One input as the parts of a prompt see it.

    Args:
        values: a text for each input.
        compared: the names of the inputs that are compared with other rows, as of `Signature.compared`.
        id: that of a train row, which is never shown to itself; "" in production.
        vector: of the input, where a provider makes it.
        own: confirmed rows of a user, which are picked before those of the task.
        shown: the texts of each of `own` in the prompt.
        memo: what a part found for this row and needs again when the reply is read.
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
        """What is compared with the texts of other rows."""
        from agent.retrieval.pool import text_of  # most prompts compare nothing, and start faster without

        return text_of(self.values, self.compared)


class PromptPart:
    """A part of one prompt with all that it needs to run. A hook that is not overridden changes nothing."""

    name: ClassVar[str]
    mark: ClassVar[str] = ""
    """The mark of the template that it fills."""
    place: ClassVar[str] = ""
    """Where that mark is: "examples" before the input, "context" in the instruction; "" without a mark."""
    takes_rows: ClassVar[bool] = False
    """Whether confirmed rows of a user are shown."""
    reads_tokens: ClassVar[bool] = False
    """Whether the log-probabilities of a reply decide how it is read."""

    @staticmethod
    def choices(task: Task) -> Mapping[str, PromptPart]:
        """What a search may try, by the words for it; of our own parts their makers in `programs/moves/` know."""
        return {}

    # -- what is given

    def texts_of(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Turn what a program gives for the inputs into texts. Raises ValueError."""
        return given

    def as_given(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Turn the texts of a row into what a program gives."""
        return values

    def tried(self, rows: Iterable[Mapping[str, str]], hostile: Sequence[str]) -> Iterable[Mapping[str, str]]:
        """The rows that files are proved with, made of plain ones and of hostile texts."""
        return rows

    # -- what is sent

    def values(self, row: Row) -> Mapping[str, Any]:
        """Fill marks of the template: with a text, or for "examples" with the texts of each."""
        return {}

    def messages(self, messages: tuple[Message, ...], row: Row) -> tuple[Message, ...]:
        """Change the rendered messages."""
        return messages

    def request(self, request: Request, row: Row) -> Request:
        """Change what is sent in addition to the messages."""
        return request

    def target(self, model: str) -> str:
        """The name of the model that answers, as it can be called here."""
        return model

    # -- what is read

    @property
    def reads_input(self) -> str:
        """What of the input decides when a reply is read, as a sentence; "" for nothing."""
        return ""

    def read(self, logs: Sequence[float] | None, row: Row | None, prediction: Prediction) -> Prediction:
        """Change how a reply was read.

        `logs`: the log-probability of each label; None where the reply does not begin with one. `row`: the input; None
        where it is not known.
        """
        return prediction

    # -- what is known of it

    def size(self, count: Count, rows: Sequence[Row], most: bool) -> int:
        """Tokens that it adds to the template: on average over `rows`, or at most with any input."""
        return 0

    def documents(self, row: Row) -> tuple[str, ...] | None:
        """The document of each passage that it shows, the nearest first; None where it looks up none."""
        return None

    @property
    def takes_vector(self) -> bool:
        return False

    @property
    def embeddings(self) -> str:
        """The provider's model that the vector of an input comes from; "" where it needs none."""
        return ""

    def example(self) -> tuple[str, ...]:
        """The texts of one of the examples that it may show, where it `takes_rows`."""
        return ()

    def some_vector(self) -> Sequence[float] | None:
        """A vector to prove files with, where an input's would have to be asked for."""
        return None

    # -- how it is shipped

    def whole(self) -> PromptPart:
        """The same part with everything worked out, as it is written."""
        return self

    def data(self) -> dict[str, Any]:
        """Its sections of a released file, JSON-ready by their keys; `PartKind.load` is the inverse."""
        raise NotImplementedError

    def files(self) -> Mapping[str, Path]:
        """Files that are released next to the prompt, by their names there."""
        return {}

    def require_whole(self) -> None:
        """Raises a ReleaseError unless `files` are there with every byte."""

    def source(self) -> str:
        """Python source of a function of the part's name, from rendered messages (as dicts) to those that are sent;
        exports to Python hold it. "" where `messages` changes none."""
        return ""
