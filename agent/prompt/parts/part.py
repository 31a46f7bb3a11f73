"""What a part of a prompt is: one thing that only some prompts have, such as picked examples.

A `PromptPart` is what runs: the same object renders and reads in a search, behind a released file and in production. A
`PartKind` says how a part is searched and written: a candidate holds the settings of a part, `bind` adds the rows of
the task, and `load` reads it from a released file. Imports the standard library and the light parts of this package.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from agent.shipped import Field, Message, Prediction

if TYPE_CHECKING:
    from pathlib import Path

    from agent.prompt.bound import BoundPrompt
    from agent.prompt.parts.calibration import Opinion
    from agent.prompt.prompt_candidate import PromptCandidate
    from agent.retrieval.pick import PoolRow
    from agent.types import Request, Task, Tool

T = TypeVar("T")
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


@dataclass(frozen=True)
class RawReply:
    """A reply to one request. `tokens`: its log-probabilities; `exact`: that of each label, of a model that scores
    labels; `reasoning`: whether the answer comes last."""

    text: str
    tokens: Sequence[Any]
    exact: Sequence[float]
    outputs: tuple[Field, ...]
    reasoning: bool

    @property
    def label_logs(self) -> Sequence[float] | None:
        """The log-probability of each label; None where the reply does not begin with one."""
        from agent.prompt.calibration import label_scores

        labels = self.outputs[0].choices if len(self.outputs) == 1 and not self.reasoning else ()
        if not labels or not (self.tokens or self.exact):
            return None
        return self.exact if len(self.exact) == len(labels) else label_scores(self.tokens, labels)


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

    # -- what is sent

    def values(self, row: Row) -> Mapping[str, Any]:
        """Fill marks of the template: with a text, or for "examples" with the texts of each."""
        return {}

    def messages(self, messages: tuple[Message, ...], row: Row) -> tuple[Message, ...]:
        """Change the rendered messages."""
        return messages

    def request(self, request: Request, row: Row) -> Request:
        """Change what is sent besides the messages."""
        return request

    def target(self, model: str) -> str:
        """The name of the model that answers, as it can be called here."""
        return model

    # -- what is read

    @property
    def reads_input(self) -> str:
        """What of the input decides when a reply is read, as a sentence; "" for nothing."""
        return ""

    def read(self, reply: RawReply, row: Row | None, prediction: Prediction) -> Prediction:
        """Change how a reply was read; `row` is None where the inputs are not known."""
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


class WrongPart(ValueError):
    """What is wrong with a released file, and under which of its keys."""

    def __init__(self, key: str, what: str) -> None:
        super().__init__(what)
        self.key = key


@dataclass(frozen=True)
class FileHead:
    """What a released file says, for a part that is read from it. `data`: its keys; `folder`: where it is."""

    data: Mapping[str, Any]
    folder: Path

    def table(self, key: str) -> tuple[dict[str, Any], Any]:
        """A section that is a table, and the rows in it. Raises WrongPart."""
        from agent.strict import read_as

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
        """The one `kind(task)`."""
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
    only_reads: bool = False
    """Whether the request is the same without it."""

    def __init__(self, made: type[PromptPart] | None = None) -> None:
        self.made = made or self.made
        self.name = self.name or self.made.name

    # -- settings

    def as_dict(self, settings: Any) -> Any:
        """The settings, JSON-ready: a part of the candidate's id."""
        return settings.data()[self.name] if isinstance(settings, PromptPart) else settings.as_dict()

    def shown(self, settings: Any, tools: Sequence[Tool]) -> dict[str, Any]:
        """Fields of `Shown`, or a `note` after the instruction; `tools`: the task's own."""
        return {"note": str(settings)} if isinstance(settings, PromptPart) else {self.name: self.as_dict(settings)}

    def choices(self, task: Task) -> Mapping[str, PromptPart]:
        """What a search may try, by the words for it; of our own parts their makers in `programs/moves/` know."""
        offer = getattr(self.made, "choices", None)
        return offer(task) if offer else {}

    def examples(self, settings: Any) -> int:
        """How many examples it shows at most."""
        return 0

    def texts(self, settings: Any) -> Iterable[str]:
        """Every text of it that a model may have written."""
        return ()

    def needs_vectors(self, settings: Any) -> bool:
        """Whether it compares rows by vectors."""
        return False

    def learnt_from(self, settings: Any, task: Task) -> Iterable[str]:
        """The ids of the rows whose right answers it was made of or shows."""
        return ()

    def opinion(self, shared: TaskParts) -> Opinion | None:
        """What of it may decide on a label next to the model."""
        return None

    def features(self, settings: Any) -> dict[tuple[str, str], float]:
        """Columns of the model of the parts (`search/effects.py`)."""
        return {(self.name, str(self.as_dict(settings))): 1.0}

    # -- in a candidate

    def without(self, winner: PromptCandidate, baseline: PromptCandidate) -> tuple[str, PromptCandidate] | None:
        """The name of the part, and the winner with it as in the baseline; None where it is the same."""
        own = baseline.other(self.name)
        return None if winner.other(self.name) == own else (self.name, winner.with_other(self.name, own))

    def why_rejected(self, prompt: PromptCandidate, task: Task) -> str:
        """The hard rule that a candidate with it breaks, or ""."""
        return ""

    def why_other(self, prompt: PromptCandidate, shared: TaskParts) -> str:
        """Why the candidate's settings belong to another task, or ""."""
        return ""

    # -- as what runs

    def bind(self, prompt: PromptCandidate, shared: TaskParts) -> dict[str, Any]:
        """The fields of `BoundPrompt` that run what the candidate has settings of."""
        return {"more": (prompt.other(self.name),)}

    def load(self, head: FileHead) -> dict[str, Any]:
        """The fields of `BoundPrompt` from the sections of a released file. Raises ValueError for wrong data."""
        from agent.strict import read_as

        return {"more": (read_as(self.made, head.data[self.name], self.name),)}

    def parts(self, prompt: BoundPrompt) -> Iterable[PromptPart]:
        """The parts in these fields."""
        return (getattr(prompt, self.name),)
