"""The chat model that a LangChain chain of the user's own is built with: `build(model)`.

Each of its calls is a call through the gateway, of the row in `ROW`. LangChain copies the context to the tasks and
threads that it starts, so rows run side by side. LangChain's own cache is off. What a Request cannot carry (tools,
images, ...) is refused by name, and never left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from functools import cache
from itertools import count
from typing import Any

from agent.errors import InputError, RowRefused
from agent.search.dspy.bridge import ROLLOUTS, Bridge
from agent.types import Call, ChatRole, Completion, Message, Request, canonical

CARRIED = ("max_tokens", "temperature", "seed")
_ROLES: dict[str, ChatRole] = {"system": "system", "human": "user", "ai": "assistant"}


class ChainRow:
    """The calls of a chain on one row. The same request twice is two samples.

    `own` is the request where the chain sets nothing, `prompts` the candidate's messages by prompt. `inputs` collects
    the inputs of the prompts, by name and variable.
    """

    def __init__(self, bridge: Bridge, call: Call, own: Request, prompts: Mapping[str, Sequence[Any]]) -> None:
        self.prompts = prompts
        self.inputs: dict[str, dict[str, Any]] = {}
        self._bridge, self._call, self._own = bridge, call, own
        self._times: dict[str, count[int]] = {}

    def request(self, messages: Sequence[Any], stop: Sequence[str] | None, options: Mapping[str, Any]) -> Request:
        """Translate LangChain's messages and options. Raises InputError, which ends the run, rather than lose a part.
        Translate LangChain's messages and options. Raises InputError, which ends the run, rather than lose a part."""
        texts = {name: value for name, value in options.items() if value is not None}
        lost = [name for name in texts if name not in CARRIED]
        lost += [f"{one.type} messages" for one in messages if one.type not in _ROLES]
        lost += ["tools"] * any(getattr(one, "tool_calls", None) for one in messages)
        blocks = [block for one in messages if not isinstance(one.content, str) for block in one.content]
        lost += [_kind(block) for block in blocks if _kind(block) != "text"]
        if lost:
            error = refusal(lost)
            self._bridge.stop(error)
            raise error
        ours = tuple(Message(_ROLES[one.type], str(one.text)) for one in messages)
        request = replace(self._own, messages=ours, stop=tuple(stop or ()), **texts)
        times = next(self._times.setdefault(canonical(request.identity()), count()))
        return replace(request, repeat=request.repeat + ROLLOUTS * times)

    async def ask(self, request: Request) -> Completion:
        """The reply, awaited on any loop."""
        return _answered(await self._bridge.ask(self._call, request))

    def wait(self, request: Request) -> Completion:
        """The reply for a thread, which it blocks."""
        return _answered(self._bridge.wait(self._call, request))


ROW: ContextVar[ChainRow | None] = ContextVar("row", default=None)


def refusal(lost: Sequence[str]) -> InputError:
    """The error of a call with parts that a Request cannot carry."""
    what = ", ".join(dict.fromkeys(lost))
    return InputError(f"the gateway cannot carry {what} of a LangChain call; write the chain without")


def _kind(block: Any) -> str:
    return "text" if isinstance(block, str) else str(block.get("type"))


def _answered(completion: Completion) -> Completion:
    if completion.finish == "refusal":
        raise RowRefused.by_provider(completion.text)
    return completion


def _row() -> ChainRow:
    if (row := ROW.get()) is None:
        raise InputError(
            "the chain's model was asked outside of a row: ask it only when the chain runs, and hand the context on to "
            "threads of your own (contextvars.copy_context().run)"
        )
    return row


@cache
def _class() -> Any:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage
    from langchain_core.outputs import ChatGeneration, ChatResult

    def result(reply: Completion) -> Any:
        used = reply.usage
        tokens = {"input_tokens": used.prompt_tokens, "output_tokens": used.completion_tokens}
        usage = {**tokens, "total_tokens": sum(tokens.values())}
        texts = {"finish_reason": reply.finish, "model_name": reply.model}
        message = AIMessage(content=reply.text, usage_metadata=usage, response_metadata=texts)
        return ChatResult(generations=[ChatGeneration(message=message)])

    class GatewayChatModel(BaseChatModel):  # type: ignore[misc]
        """The model that a run gives a chain."""

        @property
        def _llm_type(self) -> str:
            return "promptassay"

        def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
            row = _row()
            return result(row.wait(row.request(messages, stop, kwargs)))

        async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
            row = _row()
            return result(await row.ask(row.request(messages, stop, kwargs)))

        def bind_tools(self, tools: Any, *, tool_choice: Any = None, **kwargs: Any) -> Any:
            raise refusal(["tools (with_structured_output needs them, too: use JsonOutputParser)"])

    return GatewayChatModel


@cache
def _slot_class() -> Any:
    from langchain_core.prompts.chat import BaseMessagePromptTemplate

    class Slot(BaseMessagePromptTemplate):  # type: ignore[misc]
        """Stands for all messages of a prompt: those of the candidate that runs, or the user's own."""

        of: str
        own: list[Any]
        variables: list[str]

        @property
        def input_variables(self) -> list[str]:
            return self.variables

        def format_messages(self, **kwargs: Any) -> list[Any]:
            messages: Sequence[Any] = self.own
            if (row := ROW.get()) is not None:
                messages = row.prompts[self.of]
                row.inputs[self.of] = {name: kwargs[name] for name in self.variables if name in kwargs}
            made: list[Any] = []
            for message in messages:
                made += message.format_messages(**kwargs) if hasattr(message, "format_messages") else [message]
            return made

    return Slot


def use_candidate_messages(name: str, prompt: Any) -> None:
    """Replace the messages of a prompt in the user's chain by those of the candidate that runs."""
    own, variables = list(prompt.messages), list(prompt.input_variables)
    prompt.messages = [_slot_class()(of=name, own=own, variables=variables)]


def chat_model() -> Any:
    """A `BaseChatModel` for `build(model)`."""
    from agent.models.langchain import untraced

    untraced()
    return _class()(cache=False)


def is_ours(model: Any) -> bool:
    return isinstance(model, _class())
