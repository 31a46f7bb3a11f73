"""A prompt with bound parts: what a search runs, what is released, and what ships.

Imports only the standard library and the light parts of this package; the code of a part is imported if a prompt has
it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent.conversation import AS_TURNS
from agent.errors import ReleaseError
from agent.prompt.parts.part import PromptPart, Row
from agent.prompt.template import PICKED, fill_messages, fill_picked, turns_input
from agent.shipped import Field, FormatName, Message, Prediction, Tool

if TYPE_CHECKING:
    from agent.prompt.calibration import LabelCalibration
    from agent.prompt.parts.adapter import ReleasedAdapter
    from agent.prompt.parts.passages import ReleasedPassages
    from agent.prompt.parts.picks import PickedDemos
    from agent.retrieval.linear import LabelClassifier
    from agent.types import Completion, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundPrompt:
    """A template, the way to read its replies, and its parts.

    Args:
        name: of the task.
        model: the model that answers; with an `adapter` its base.
        messages: templates: their contents hold `{{field}}` for each of `inputs`, anything else is literal.
        reasoning: whether the answer comes last in a reply.
        calibration, classifier, picks, passages, adapter, tools: its parts (`parts/`); `more`: those of other packages.
    """

    name: str
    model: str
    messages: tuple[Message, ...]
    inputs: tuple[str, ...]
    outputs: tuple[Field, ...]
    format: FormatName
    reasoning: bool
    calibration: LabelCalibration | None = None
    classifier: LabelClassifier | None = None
    picks: PickedDemos | None = None
    passages: ReleasedPassages | None = None
    adapter: ReleasedAdapter | None = None
    tools: tuple[Tool, ...] = ()
    more: tuple[PromptPart, ...] = ()
    parts: tuple[PromptPart, ...] = field(init=False, compare=False, repr=False)
    """All of these, as they run."""

    def __post_init__(self) -> None:
        fields = (self.calibration, self.classifier, self.picks, self.passages, self.adapter, self.tools, self.more)
        parts: tuple[PromptPart, ...] = ()
        if any(fields) or self.conversation:
            from agent.prompt.parts.kinds import parts_in

            parts = parts_in(self)
        object.__setattr__(self, "parts", parts)

    @property
    def target(self) -> str:
        """The callable name of the model that answers, with the path of the adapter, if any."""
        name = self.model
        for part in self.parts:
            name = part.target(name)
        return name

    @property
    def conversation(self) -> str:
        """The name of the input that is a conversation, whose messages are sent; "" for none."""
        return turns_input(self.messages)

    @property
    def compared(self) -> tuple[str, ...]:
        """The names by which inputs are compared, see `Signature.compared`."""
        return tuple(name + AS_TURNS * (name == self.conversation) for name in self.inputs)

    @property
    def embeddings(self) -> str:
        """The provider's model that embeds inputs; "" if none is needed."""
        return next((part.embeddings for part in self.parts if part.embeddings), "")

    @property
    def takes_rows(self) -> bool:
        """Whether confirmed rows of a user are shown."""
        return any(part.takes_rows for part in self.parts)

    @property
    def reads_tokens(self) -> bool:
        """Whether log-probabilities decide how a reply is read."""
        return any(part.reads_tokens for part in self.parts)

    @property
    def reads_input(self) -> str:
        """How the input decides when a reply is read, as a sentence; "" if it does not."""
        return next((part.reads_input for part in self.parts if part.reads_input), "")

    def some_vector(self) -> Sequence[float] | None:
        """Return the first row's vector, to prove files without calling the provider."""
        return next((part.some_vector() for part in self.parts if part.embeddings), None)

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
        """Render the messages for an input, exactly as they were scored unless there are rows of a user.

        Raises:
            ReleaseError: A vector is missing, does not fit or is not needed.
        """
        if row.vector is not None and not any(part.takes_vector for part in self.parts):
            raise ReleaseError("this prompt picks no examples by vectors; omit vector=...")
        values = self.values(row)
        picked = values.pop(PICKED, None)
        filled = fill_messages(self.messages, values) if picked is None else fill_picked(self.messages, values, picked)
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
        """Read a reply; never raises, whatever the model wrote.

        Args:
            tokens: Its log-probabilities; without them no label is calibrated.
            row: The input; None if unknown.
            exact: The log-probability of each label, from a model that scores labels; then `tokens` are ignored.
        """
        from agent.prompt.calibration import read_reply  # takes time, and not all who render parse

        prediction = read_reply(text, tokens, self.outputs, self.reasoning, None, (), exact)
        logs = self._label_logs(tokens, exact) if self.parts else None
        for part in self.parts:
            prediction = part.read(logs, row, prediction)
        return prediction

    def _label_logs(self, tokens: Sequence[Any], exact: Sequence[float]) -> Sequence[float] | None:
        from agent.prompt.calibration import label_scores

        labels = self.outputs[0].choices if len(self.outputs) == 1 and not self.reasoning else ()
        if not labels or not (tokens or exact):
            return None
        return exact if len(exact) == len(labels) else label_scores(tokens, labels)

    async def read_aside(self, completion: Completion, row: Row, *refused: str) -> Prediction:
        """Do `read`, in a thread for a long reply. Raises RowRefused if the provider refused."""
        from agent.errors import RowRefused
        from agent.worker import run_aside

        if completion.finish == "refusal":
            raise RowRefused.by_provider(completion.text, *refused)
        text, tokens, exact = completion.text, completion.logprobs, completion.label_logprobs
        return await run_aside(len(text), lambda: self.read(text, tokens, row, exact))
