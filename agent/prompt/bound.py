"""A prompt with bound parts: what a search runs, what is released, and what ships.

Imports only the standard library and the light parts of this package; the code of a part is imported if a prompt has
it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from agent.conversation import AS_TURNS
from agent.errors import ReleaseError, RowRefused
from agent.prompt.parts.part import PromptPart, Row, in_order
from agent.prompt.template import PICKED, fill_messages, turns_input
from agent.shipped import Field, FormatName, Message, Prediction, Tool

if TYPE_CHECKING:
    from agent.retrieval.vectors import PoolVectors
    from agent.types import Completion, Request

P = TypeVar("P", bound=PromptPart)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundPrompt:
    """A template, the way to read its replies, and its parts.

    `messages`: their contents hold `{{field}}` for each of `inputs`, anything else is literal. `reasoning`: whether the
    answer comes last in a reply.
    """

    name: str
    model: str
    messages: tuple[Message, ...]
    inputs: tuple[str, ...]
    outputs: tuple[Field, ...]
    format: FormatName
    reasoning: bool
    parts: tuple[PromptPart, ...] = ()

    def __post_init__(self) -> None:
        parts = [part for part in self.parts if part.name != "conversation"]
        if self.conversation:
            from agent.prompt.parts.conversation import Conversing  # most prompts have none

            parts.append(Conversing(self.conversation))
        object.__setattr__(self, "parts", in_order(parts))

    def part(self, kind: type[P]) -> P | None:
        """Return the part of a kind, if any."""
        return next((part for part in self.parts if isinstance(part, kind)), None)

    @property
    def target(self) -> str:
        """Return the name of the model that answers, with its adapter's path."""
        name = self.model
        for part in self.parts:
            name = part.target(name)
        return name

    @property
    def conversation(self) -> str:
        """Return the input that is a conversation, sent as messages; "" for none."""
        return turns_input(self.messages)

    @property
    def compared(self) -> tuple[str, ...]:
        """The names by which inputs are compared, see `Signature.compared`."""
        return tuple(name + AS_TURNS * (name == self.conversation) for name in self.inputs)

    @property
    def embeddings(self) -> str:
        """The provider's model that embeds inputs; "" if none is needed."""
        vectors = self._vectors
        return vectors.model if vectors and vectors.is_provided else ""

    @property
    def _vectors(self) -> PoolVectors | None:
        return next((part.vectors for part in self.parts if part.vectors), None)

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools that go with every request."""
        return tuple(tool for part in self.parts for tool in part.tools)

    @property
    def takes_rows(self) -> bool:
        """Whether confirmed rows of a user are shown."""
        return any(part.example() for part in self.parts)

    @property
    def reads_tokens(self) -> bool:
        """Whether log-probabilities decide how a reply is read."""
        return any(part.reads_tokens for part in self.parts)

    @property
    def reads_input(self) -> str:
        """Describe how the input decides when a reply is read; "" if it does not."""
        return next((part.reads_input for part in self.parts if part.reads_input), "")

    def some_vector(self) -> Sequence[float] | None:
        """Return the first row's vector, to prove files without calling the provider."""
        return self._vectors.vector(0) if self._vectors and self.embeddings else None

    # -- what is sent --------------------------------------------------------------------------------------------------

    def row(self, values: Mapping[str, str], **more: Any) -> Row:
        """Make the input of the parts; `more`: fields of `Row`."""
        return Row(values, self.compared, **more)

    def values(self, row: Row, *, examples: bool = True) -> dict[str, Any]:
        """Return the values of the marks in the messages; `examples`: also the picked ones."""
        found: dict[str, Any] = dict(row.values)
        for part in self.parts:
            if examples or part.place != "examples":
                found |= part.values(row)
        return found

    def render(self, row: Row) -> tuple[Message, ...]:
        """Render the messages for an input. Raises ReleaseError for a vector that is missing or does not fit."""
        if row.vector is not None and not self._vectors:
            raise ReleaseError("this prompt picks no examples by vectors; omit vector=...")
        values = self.values(row)
        picked = values.pop(PICKED, None)
        filled = fill_messages(self.messages, values, picked)
        for part in self.parts:
            filled = part.messages(filled, row)
        return filled

    def fill(self, values: Mapping[str, str], vector: Sequence[float] | None = None) -> tuple[Message, ...]:
        """Do `render` for values; `vector` as of `Row`."""
        return self.render(self.row(values, vector=vector))

    def request(self, row: Row, **how: Any) -> Request:
        """Make the request for an input; `how`: its other fields, such as max_tokens."""
        from agent.types import Request

        request = Request(self.render(row), **how)
        for part in self.parts:
            request = part.request(request, row)
        return request

    # -- what is read --------------------------------------------------------------------------------------------------

    def read(
        self, text: str, tokens: Sequence[Any] = (), row: Row | None = None, exact: Sequence[float] = ()
    ) -> Prediction:
        """Read a reply; never raises. `tokens`, `exact`: see `label_logs`; `row`: None if the input is unknown."""
        from agent.prompt.label_calibration import label_logs, read_reply  # takes time, and not all who render parse

        logs = label_logs(tokens, self.outputs, self.reasoning, exact)
        prediction = read_reply(text, (), self.outputs, self.reasoning, None, exact=logs or ())
        for part in self.parts:
            prediction = part.read(logs, row, prediction)
        return prediction

    def shares(self, reply: Completion, row: Row) -> tuple[float, ...]:
        """Return the calibrated probability of each label; () unless the reply begins with one."""
        from agent.prompt.label_calibration import label_logs, share_of_all

        logs = label_logs(reply.logprobs, self.outputs, self.reasoning, reply.label_logprobs) or ()
        for part in self.parts if logs else ():
            logs = part.weighed(logs, row)
        return tuple(share_of_all(logs, at) for at in range(len(logs)))

    async def read_aside(self, completion: Completion, row: Row, *refused: str) -> Prediction:
        """Do `read`, in a thread for a long reply. Raises RowRefused if the provider refused."""
        from agent.worker import run_aside

        if completion.finish == "refusal":
            raise RowRefused.by_provider(completion.text, *refused)
        text, tokens, exact = completion.text, completion.logprobs, completion.label_logprobs
        return await run_aside(len(text), lambda: self.read(text, tokens, row, exact))
