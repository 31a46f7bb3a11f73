"""A GGUF model run in this process by llama.cpp, with an optional adapter: requests and replies.

Its engines are in `local_engines.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from agent.errors import BadResponse, InputError, RowRefused
from agent.models.adapters import SUFFIX, Adapter, adapter_fault, split_adapter, with_soft_tokens
from agent.models.engine import LISTED
from agent.models.local_engines import EngineCall, Engines, close_engines, open_engines
from agent.models.model_registry import missing, model
from agent.models.tool_calling import described, spoken_calls
from agent.models.weights import known_weights, weights_path
from agent.safe_text import whole_characters
from agent.turns import calls_text, turns
from agent.types import Completion, FinishReason, Message, Request, Usage, calls_schema

WEIGHTS = "sha256:"  # prefix of the endpoint of catalogued weights, followed by their hash


class LocalModel:
    """A GGUF file as a model; engines start with the first call, by default one per core."""

    def __init__(
        self,
        name: str,
        path: Path,
        engines: int | None = None,
        endpoint: str = "",
        adapter: Path | None = None,
        kind: type[Engines] = Engines,
    ) -> None:
        self.name = name
        self.path = path
        self.engines = engines or max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)
        self._weights, self._adapter_path, self._kind = endpoint, adapter, kind
        self._running: tuple[Engines, Adapter | None] | None = None
        self.count_tokens = lru_cache(maxsize=4096)(self._count_tokens)

    @property
    def scores_labels(self) -> bool:
        """Whether it returns exact log-probabilities of labels: yes, without an adapter."""
        return self._adapter_path is None

    @property
    def concurrency(self) -> int | None:
        return 64 * self.engines

    @cached_property
    def adapter(self) -> Adapter | None:
        """The adapter as first read. Raises InputError if it cannot be served."""
        if self._adapter_path is None:
            return None
        if fault := adapter_fault(self._adapter_path, self.path):
            raise InputError(fault)
        return Adapter.read(self._adapter_path)

    @cached_property
    def _soft(self) -> tuple[str, ...]:
        return self.adapter.texts if self.adapter else ()

    @property
    def endpoint(self) -> str:
        """Hash of catalogued weights, and the adapter's after a `+`."""
        return f"{self._weights or WEIGHTS}+{self.adapter.sha256}" if self.adapter else self._weights

    async def complete(self, request: Request) -> Completion:
        engines, adapter = self._start()
        text = "\0".join(message.content for message in request.messages)
        labels = () if adapter else tuple(map(without_turn_marks, request.labels))
        call = EngineCall(_body(request, self._soft), text, adapter, labels)
        reply, scores = await engines.complete(call)
        completion = replace(_completion(self.name, reply, request.logprobs, scores), seconds=call.seconds)
        if request.tools and request.tool_choice:
            return replace(completion, text=spoken_calls(completion.text, request.tools))
        return completion

    async def close(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            await asyncio.to_thread(close_engines, *running)

    def _start(self) -> tuple[Engines, Adapter | None]:
        if self._running is None:
            path = self.adapter.runs_on(self.path) if self.adapter else self.path
            self._running = open_engines(path, self.engines, self.adapter, self._kind), self.adapter
        return self._running

    def _count_tokens(self, text: str) -> int:
        engines, _ = self._start()
        return engines.count_tokens(without_turn_marks(text))


def engine_messages(messages: Sequence[Message], soft: Sequence[str]) -> list[dict[str, str]]:
    """Convert messages for the engine: without turn marks, the soft prompt's tokens first."""
    contents = with_soft_tokens([without_turn_marks(message.content) for message in messages], soft)
    return [{"role": message.role, "content": text} for message, text in zip(messages, contents, strict=True)]


def with_tools(request: Request) -> tuple[Message, ...]:
    """Describe tools in the system message, and write results as Qwen's chat template does."""
    messages = tuple(_with_results(request.messages))
    if not _can_call(request):
        return messages
    words = described(request.tools, may_speak=request.tool_choice == "auto")
    if messages[0].role != "system":
        return (Message("system", words), *messages)
    return (Message("system", f"{messages[0].content}\n\n{words}"), *messages[1:])


def _can_call(request: Request) -> bool:
    return bool(request.tools) and request.tool_choice != "none"


def _with_results(messages: Sequence[Message]) -> Iterator[Message]:
    for turn in turns(messages):
        calls = [(call.name, call.arguments) for call in turn.calls]
        yield Message(turn.role, calls_text(calls, turn.said) if calls else turn.said)
        if calls:
            results = (f"<tool_response>\n{call.result}\n</tool_response>" for call in turn.calls)
            yield Message("user", "\n".join(results))


def _body(request: Request, soft: Sequence[str] = ()) -> dict[str, Any]:
    body: dict[str, Any] = {
        "messages": engine_messages(with_tools(request), soft),
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "seed": ((request.seed or 0) + request.repeat) % 2**32,  # samples of one prompt differ
        "cache_prompt": True,
    }
    if request.stop:
        body["stop"] = list(request.stop)
    wanted = _calls_wanted(request) if _can_call(request) else request.json_schema
    if _can_call(request) and request.tool_choice == "auto":
        words = f"%json {request.json_schema}" if request.json_schema else _NO_LIST
        body["grammar"] = f"%llguidance {{}}\nstart: calls | words\nwords: {words}\ncalls: %json {wanted}"
    elif wanted is not None:
        schema = json.loads(wanted)
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema}}
    elif request.choices:
        body["grammar"] = "root ::= " + " | ".join(json.dumps(choice, ensure_ascii=False) for choice in request.choices)
    if listed := max(request.logprobs, LISTED if request.labels else 0):
        body |= {"logprobs": True, "top_logprobs": listed}
    return body


_NO_LIST = r"/[^\[](.|\n)*/"


def _calls_wanted(request: Request) -> str:
    if request.tool_choice == "":
        return calls_schema(request.tools)
    named = [tool for tool in request.tools if tool.name == request.tool_choice]
    return calls_schema(named or request.tools, least=1)


_TURN = re.compile(
    r"<(?=[|\uff5c]|/?(?:s|bos|eos|start_of_turn|end_of_turn)>)|\[(?=/?INST\])", re.IGNORECASE
)  # of SmolLM, Qwen, DeepSeek, Llama, Gemma, Mistral


def without_turn_marks(text: str) -> str:
    """Break template marks, such as [INST], with a zero-width space; drop what engines refuse."""
    clean = whole_characters(text).replace("\0", "\ufffd")
    return _TURN.sub(lambda match: f"{match[0]}\u200b", clean)


def _completion(name: str, reply: Any, listed: int, scores: tuple[float, ...] = ()) -> Completion:
    if isinstance(reply, dict) and "error" in reply:
        error = reply["error"]
        message = f"{name}: {error.get('message', error)}"
        if error.get("type") == "exceed_context_size_error":
            raise RowRefused(f"{message}; use fewer or shorter examples")
        if error.get("code") == 400:
            raise RowRefused(message)
        raise BadResponse(message)
    try:
        choice, usage = reply["choices"][0], reply["usage"]
        tokens = (choice.get("logprobs") or {}).get("content", []) if listed else []
        tops = [token["top_logprobs"][:listed] for token in tokens]
        logprobs = tuple(tuple((top["token"], float(top["logprob"])) for top in each) for each in tops)
        finish: FinishReason = "length" if choice["finish_reason"] == "length" else "stop"
        cached = usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
        counted = Usage(usage["prompt_tokens"], usage["completion_tokens"], cached)
        text = choice["message"]["content"] or ""
        return Completion(text, finish, counted, name, logprobs=logprobs, label_logprobs=scores)
    except (KeyError, IndexError, TypeError) as error:
        raise BadResponse(f"{name}: the engine's reply has no {error}") from error


def _own_files(rest: str) -> tuple[Path, ...]:
    base, adapter = split_adapter(rest)
    return tuple(path for path in (Path(base) if base.endswith(SUFFIX) else None, adapter) if path is not None)


def _faults(rest: str) -> list[str]:
    base, adapter = split_adapter(rest)
    faults = missing([Path(base)] if base.endswith(SUFFIX) else [])
    fault = adapter_fault(adapter, weights_path(base)) if adapter else ""
    return [*faults, fault] if fault else faults


@model(
    "local",
    form="local/smollm2-135m",
    about="the embedded model; also local/PATH.gguf, both with optional +ADAPTER.gguf",
    own_files=_own_files,
    faults=_faults,
    leads_elsewhere=False,
)
def embedded(name: str, rest: str, engines: int | None = None, kind: type[Engines] = Engines) -> LocalModel:
    base, adapter = split_adapter(rest)
    weights = None if base.endswith(SUFFIX) else known_weights(base)
    endpoint = f"{WEIGHTS}{weights.running[:16]}" if weights else ""
    return LocalModel(name, weights_path(base), engines, endpoint, adapter, kind)
