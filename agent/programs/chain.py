"""The kind `chain`: a user's LangChain Runnable; system texts and examples of its prompts are optimized.

A run passes `build(model)` the model whose calls go through the gateway, and refuses any other: it would bypass
the budget. The chain is made once; its prompts are replaced by those of the running candidate. To prove a release the
user's module is loaded again, as in production.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.output_parsers import JsonOutputParser
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts.chat import BaseMessagePromptTemplate

from agent.errors import InputError
from agent.models.langchain import untraced
from agent.programs.chain_file import load_chain, save_chain
from agent.programs.chain_parts import ChainPrompt, Part, find_parts
from agent.programs.kinds import ReleaseSpec, UserKind, UserProgram, read_fields, unrefused
from agent.programs.moves.chain_moves import ChainMoves
from agent.programs.own_file import plain
from agent.prompt.named_texts import as_texts
from agent.prompt.reply_parser import parse_reply
from agent.prompt.template import label_text
from agent.search.context import SearchContext
from agent.search.dspy.bridge import ROLLOUTS, Bridge
from agent.search.program import Moves
from agent.types import (
    LM,
    Call,
    Candidate,
    ChatRole,
    Completion,
    Demo,
    Example,
    Message,
    Prediction,
    Request,
    Signature,
    Task,
    canonical,
)


class ChainProgram(UserKind):
    kind = "chain"
    what, file = "a chain of prompts", "chain.json"

    def __init__(self, task: Task, lm: LM, source: UserProgram, made: Any) -> None:
        self._source, self._chain = source, made
        parts = find_parts(made)
        if not parts.prompts:
            raise source.wrong(f"{source.factory}() has no ChatPromptTemplate, so there is nothing to optimize")
        if others := [type(model).__name__ for model in parts.models if not isinstance(model, GatewayChatModel)]:
            raise source.wrong(
                f"{source.factory}() makes its own model ({others[0]}), outside the budget; "
                f"write def {source.factory}(model): and use that one"
            )
        try:
            self.laid = {name: ChainPrompt(name, prompt) for name, prompt in parts.prompts.items()}
        except InputError as error:
            raise source.wrong(str(error)) from error
        self.answers_json = isinstance(parts.parser, JsonOutputParser)  # then examples must be JSON, too
        for name, prompt in parts.prompts.items():
            own, variables = list(prompt.messages), list(prompt.input_variables)
            prompt.messages = [_Slot(of=name, own=own, variables=variables)]
        super().__init__(task, lm, {name: laid.system for name, laid in self.laid.items()})
        self.calls = len(self.laid)
        self.last_inputs: dict[str, dict[str, Any]] = {}
        """The inputs of the baseline's last prompt by row id and variable."""
        self._chains: dict[str, Any] = {}
        self._messages: dict[str, dict[str, Sequence[Any]]] = {}

    @property
    def last(self) -> ChainPrompt:
        return next(reversed(self.laid.values()))

    async def answered(
        self, candidate: Candidate, example: Example, call: Call, bridge: Bridge, repeat: int
    ) -> Prediction:
        untraced()  # the user's module may have switched it on
        own = Request((), self.max_tokens(candidate), repeat=repeat)
        if candidate.id not in self._messages:
            parts = self.parts_of(candidate)
            self._messages[candidate.id] = {name: laid.laid_out(parts[name]) for name, laid in self.laid.items()}
        row = ChainRow(bridge, call, own, self._messages[candidate.id])
        chain = self._chains.get(candidate.id, self._chain)
        token = ROW.set(row)
        try:
            output = await bridge.through(chain.ainvoke(dict(example.inputs)))
        finally:
            ROW.reset(token)
        if candidate.id == self.baseline().id:
            self.last_inputs[example.id] = row.inputs.get(self.last.name, {})
        return read(output, self.task.signature)

    def unreadable(self, problem: Exception) -> str | None:
        return str(problem.llm_output or "") if isinstance(problem, OutputParserException) else None

    def parts_of(self, candidate: Candidate) -> dict[str, Part]:
        def part(name: str, text: str) -> Part:
            is_own = name not in as_texts(candidate).examples
            return {"system": text, "demos": None if is_own else self.examples_of(candidate, name)}

        return {name: part(name, text) for name, text in as_texts(candidate).texts.items()}

    def examples_of(self, candidate: Candidate, name: str) -> Sequence[Any]:
        demos = super().examples_of(candidate, name)
        return [{"inputs": dict(demo.inputs), "answer": self.answer(demo)} for demo in demos]

    def answer(self, demo: Demo) -> str:
        """Return the right reply of the model, in the form that the chain reads."""
        fields = self.task.signature.outputs
        if self.answers_json:
            texts = {f: demo.outputs[f.name] for f in fields}
            typed = {f.name: json.loads(t) if f.type in ("number", "json") else t for f, t in texts.items()}
            return json.dumps(typed, ensure_ascii=False)
        if len(fields) == 1:
            return demo.outputs[fields[0].name]
        return "\n".join(f"{field.name}: {demo.outputs[field.name]}" for field in fields)

    def placeholders(self, name: str, text: str) -> Counter[str]:
        return self.laid[name].placeholders(text)

    def check(self, candidate: Candidate) -> str:
        texts, limit = as_texts(candidate), self.task.constraints.max_examples
        train = {row.id for row in self.task.train}
        for name, demos in texts.examples.items():
            if demos and name != self.last.name:
                return f"examples in {name}, whose answers are not known"
            if others := [demo.example_id for demo in demos if demo.example_id not in train]:
                return f"demo {others[0]} is not a train row"
        if limit is not None and texts.n_examples > limit:
            return f"{texts.n_examples} examples, more than max_examples = {limit}"
        return super().check(candidate)

    def moves(self, context: SearchContext) -> Moves:
        return ChainMoves(context, self)

    def saved(self, candidate: Candidate, path: Path, spec: ReleaseSpec) -> tuple[str, Callable[[], None]]:
        texts = {"model": self._lm.name, "parameters": dict(spec.parameters)}
        version = save_chain(path, self.parts_of(candidate), texts)

        def load() -> None:
            self._chains[candidate.id] = load_chain(path, self._source.made(chat_model))

        return version, load


def read(output: Any, signature: Signature) -> Prediction:
    if isinstance(output, BaseMessage):
        output = str(output.text)
    if isinstance(output, str):
        return parse_reply(output, signature.outputs)
    fields = plain(output)
    if not isinstance(fields, dict):
        words = f"the chain gave a {type(output).__name__}, not text, a dict or a pydantic object"
        return Prediction({}, label_text(fields) if isinstance(fields, list | float | int) else str(output), words)
    return read_fields(fields.get, signature, "dict")


CARRIED = ("max_tokens", "temperature", "seed")
_ROLES: dict[str, ChatRole] = {"system": "system", "human": "user", "ai": "assistant"}


class ChainRow:
    """The calls of a chain on one row; the same request twice is two samples."""

    def __init__(self, bridge: Bridge, call: Call, own: Request, prompts: Mapping[str, Sequence[Any]]) -> None:
        self.bridge, self.call, self.prompts, self._own = bridge, call, prompts, own
        self.inputs: dict[str, dict[str, Any]] = {}
        self._times: dict[str, count[int]] = {}

    def request(self, messages: Sequence[Any], stop: Sequence[str] | None, options: Mapping[str, Any]) -> Request:
        """Translate LangChain's messages and options. Raises InputError, which ends the run, if a part is lost."""
        texts = {name: value for name, value in options.items() if value is not None}
        lost = [name for name in texts if name not in CARRIED]
        lost += [f"{one.type} messages" for one in messages if one.type not in _ROLES]
        lost += ["tools"] * any(getattr(one, "tool_calls", None) for one in messages)
        blocks = [block for one in messages if not isinstance(one.content, str) for block in one.content]
        kinds = ["text" if isinstance(block, str) else str(block.get("type")) for block in blocks]
        lost += [kind for kind in kinds if kind != "text"]
        if lost:
            error = refusal(lost)
            self.bridge.stop(error)
            raise error
        ours = tuple(Message(_ROLES[one.type], str(one.text)) for one in messages)
        request = replace(self._own, messages=ours, stop=tuple(stop or ()), **texts)
        times = next(self._times.setdefault(canonical(request.identity()), count()))
        return replace(request, repeat=request.repeat + ROLLOUTS * times)


ROW: ContextVar[ChainRow | None] = ContextVar("row", default=None)


def refusal(lost: Sequence[str]) -> InputError:
    what = ", ".join(dict.fromkeys(lost))
    return InputError(f"the gateway cannot carry {what} of a LangChain call; write the chain without")


def _row() -> ChainRow:
    if (row := ROW.get()) is None:
        raise InputError(
            "the chain's model was called outside of a row; in your own threads, use contextvars.copy_context().run"
        )
    return row


def _result(reply: Completion) -> ChatResult:
    used = unrefused(reply).usage
    tokens = {"input_tokens": used.prompt_tokens, "output_tokens": used.completion_tokens}
    usage = {**tokens, "total_tokens": sum(tokens.values())}
    texts = {"finish_reason": reply.finish, "model_name": reply.model}
    message = AIMessage(content=reply.text, usage_metadata=usage, response_metadata=texts)
    return ChatResult(generations=[ChatGeneration(message=message)])


class GatewayChatModel(BaseChatModel):  # type: ignore[misc]
    """A LangChain model whose calls are calls of the running row."""

    @property
    def _llm_type(self) -> str:
        return "promptassay"

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
        row = _row()
        return _result(row.bridge.wait(row.call, row.request(messages, stop, kwargs)))

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
        row = _row()
        return _result(await row.bridge.ask(row.call, row.request(messages, stop, kwargs)))

    def bind_tools(self, tools: Any, *, tool_choice: Any = None, **kwargs: Any) -> Any:
        raise refusal(["tools (with_structured_output needs them, too: use JsonOutputParser)"])


class _Slot(BaseMessagePromptTemplate):  # type: ignore[misc]
    """Replaces all messages of a prompt: those of the running candidate, or the user's own."""

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


def chat_model() -> GatewayChatModel:
    untraced()
    return GatewayChatModel(cache=False)
