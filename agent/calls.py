"""A model, its calls and what they cost. `types.py` re-exports all of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from agent.shipped import Message, Tool, content_id

CallRole = Literal["model", "proposer", "judge", "embedding"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call; `prompt_tokens` include those read from and written to the provider's cache.

    `usd`: the dollars that the reply itself names, for a model without a price per token.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_prompt_tokens: int = 0
    written_prompt_tokens: int = 0
    usd: float = dataclasses.field(default=0.0, compare=False)

    @property
    def tokens(self) -> int:
        """Tokens in and out."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_prompt_tokens + other.cached_prompt_tokens,
            self.written_prompt_tokens + other.written_prompt_tokens,
            self.usd + other.usd,
        )


def calls_schema(tools: Sequence[Tool], least: int = 0) -> str:
    """Return the JSON schema (as text) of `least` or more calls of these tools."""
    forms = [
        {
            "type": "object",
            "properties": {"name": {"const": tool.name}, "arguments": _rooted(tool.parameters, number)},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for number, tool in enumerate(tools)
    ]
    some = {"minItems": least} if least else {}
    return json.dumps({"type": "array", "items": {"anyOf": forms}, **some}, ensure_ascii=False)


def _rooted(parameters: str, number: int) -> Any:
    def followed(part: dict[str, Any]) -> dict[str, Any]:
        ref = part.get("$ref")
        return {**part, "$ref": f"{root}{ref[1:]}"} if isinstance(ref, str) and ref.startswith("#") else part

    root = f"#/items/anyOf/{number}/properties/arguments"
    return json.loads(parameters, object_hook=followed)


@dataclass(frozen=True, slots=True)
class Request:
    """One model call; all fields but `timeout` (seconds) are its identity.

    `json_schema` and `choices` request constrained decoding, `labels` their log-probabilities, where the model can.
    With `tools` the reply's text is the JSON list of the tool calls, then what else the model says; an assistant
    message that is such a list is sent as calls, and the "tool" messages below it as their results, in order.
    `tool_choice`: "" for a prompt with tools, whose answer is a list of calls; "auto", "none", "required" or the name
    of a tool for an agent, which may also answer in words.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    json_schema: str | None = None
    choices: tuple[str, ...] = ()
    logprobs: int = 0
    repeat: int = 0  # distinguishes samples of one prompt
    timeout: float = 120.0
    labels: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: str = ""

    def identity(self, endpoint: str = "") -> dict[str, Any]:
        """Return what identifies a call, JSON-ready; `endpoint` is the address if its name has none."""
        return {
            **({"endpoint": endpoint} if endpoint else {}),
            "messages": [message.as_dict() for message in self.messages],
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
            "stop": list(self.stop),
            "json_schema": self.json_schema,
            "choices": list(self.choices),
            "logprobs": self.logprobs,
            "repeat": self.repeat,
            **({"labels": list(self.labels)} if self.labels else {}),
            **({"tools": [tool.as_dict() for tool in self.tools]} if self.tools else {}),
            **({"tool_choice": self.tool_choice} if self.tool_choice else {}),
        }


FinishReason = Literal["stop", "length", "refusal", "other"]


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's reply; `seconds` without queueing (None: as long as the caller waited).

    `logprobs` has, per generated token, the most likely ones; `label_logprobs` one per label of the request.
    """

    text: str
    finish: FinishReason
    usage: Usage
    model: str
    logprobs: tuple[tuple[tuple[str, float], ...], ...] = ()
    label_logprobs: tuple[float, ...] = ()
    seconds: float | None = dataclasses.field(default=None, compare=False)


class LM(Protocol):
    """A model by the name that the user typed (`openai/gpt-x`); `complete` raises only `ModelError`, never retries.

    `concurrency`: calls that it can run at once (None: the gateway decides). Optional: `endpoint`, the address or the
    weights if the name does not say them, and `scores_labels`.
    """

    @property
    def name(self) -> str: ...

    @property
    def concurrency(self) -> int | None: ...

    async def complete(self, request: Request) -> Completion: ...

    def count_tokens(self, text: str) -> int:
        """Count the tokens of `text`, or estimate them from above."""
        ...

    async def close(self) -> None: ...


def scores_labels(lm: LM) -> bool:
    """Return whether the model gives the exact log-probability of each of a request's `labels`."""
    return bool(getattr(lm, "scores_labels", False))


def call_key(lm: LM, request: Request) -> str:
    """Hash a call: the model's name (provider, endpoint and model) and everything sent."""
    return key_of(lm.name, request.identity(endpoint_of(lm)))


def key_of(model: str, identity: Mapping[str, Any]) -> str:
    """Return `call_key` of a request's identity, as stored in the ledger."""
    return content_id("k", {"model": model, **identity})


def endpoint_of(lm: LM) -> str:
    """Return the model's address if it is not the default of its name; else ""."""
    return str(getattr(lm, "endpoint", ""))


MOST_DOLLARS = 1e9  # the largest cap in US dollars
ROOM_TO_THINK = "--thinking 2000"  # advice in messages: how to give a reasoning model room for its answer
MOST_COUNT = 2**53  # the largest cap on calls or tokens, up to which a float is exact


@dataclass(frozen=True, slots=True)
class Budget:
    """Hard caps over all roles: calls, tokens in and out, US dollars, seconds. None: no cap."""

    max_calls: int | None = None
    max_tokens: int | None = None
    max_cost: float | None = None
    time_limit: float | None = None


@dataclass(frozen=True, slots=True)
class Spend:
    """Calls, tokens (in + out) and US dollars."""

    calls: int = 0
    tokens: int = 0
    usd: float = 0.0

    def __add__(self, other: Spend) -> Spend:
        return Spend(self.calls + other.calls, self.tokens + other.tokens, self.usd + other.usd)

    def __sub__(self, other: Spend) -> Spend:
        return self + Spend(-other.calls, -other.tokens, -other.usd)
