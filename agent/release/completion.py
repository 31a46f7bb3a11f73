"""One call with a released prompt, for programs that have no client of their own. No budget, no ledger, and no retry
but for a model that was made just now and has to learn what it cannot be sent.

Knows the models by name only (`models/model_registry.py`); an SDK is imported when a call is made, never before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from agent.errors import ParameterRefused, ReleaseError, RowRefused
from agent.models.model_registry import create_model
from agent.prompt.reply_parser import parse_reply
from agent.prompt.template import fill_messages
from agent.release.prompt_file import PromptRelease
from agent.threads import aside
from agent.types import LM, Completion, Prediction, Request

UNSAID: dict[str, Any] = {"max_tokens": 1024, "temperature": 0.0, "stop": (), "seed": None}
"""The parameters that can be sent, as a release means them that says nothing of them."""


def parameters_of(release: PromptRelease) -> dict[str, Any]:
    """How the prompt wants to be sent: each of `UNSAID`. Raises a ReleaseError for a parameter that cannot be."""
    if unknown := [name for name in release.parameters if name not in UNSAID]:
        raise ReleaseError(
            f"{release.name!r}: cannot send the parameter {', '.join(unknown)}; known: {', '.join(UNSAID)}; "
            "take it out, or send render() yourself"
        )
    stop = release.parameters.get("stop", ())
    return {**UNSAID, **release.parameters, "stop": (stop,) if isinstance(stop, str) else tuple(stop)}


def request_of(release: PromptRelease, fields: Mapping[str, str]) -> Request:
    """What is sent: the messages, and the parameters that the release holds. Raises a ReleaseError."""
    return Request(messages=fill_messages(release.messages, fields), **parameters_of(release))


async def acomplete(release: PromptRelease, fields: Mapping[str, str], lm: LM | None = None) -> Prediction:
    """Raises a ModelError; RowRefused also when the model answered that it will not."""
    request = request_of(release, fields)
    model = lm or create_model(release.model)
    try:
        completion = await _sent(model, request)
    finally:
        if lm is None:
            await model.close()
    if completion.finish == "refusal":
        raise RowRefused(f"{release.model} refused to answer: {completion.text[:200]}")
    text = completion.text
    return await aside(len(text), partial(parse_reply, text, release.outputs, reasoning=release.reasoning))


async def _sent(model: LM, request: Request) -> Completion:
    for _ in ("temperature", "max_tokens"):  # what it may refuse of this request, one with each attempt
        with suppress(ParameterRefused):
            return await model.complete(request)
    return await model.complete(request)


def complete(release: PromptRelease, fields: Mapping[str, str], lm: LM | None = None) -> Prediction:
    """The same for a program without an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(acomplete(release, fields, lm))
    raise ReleaseError(
        f"{release.name!r}: complete() would block the event loop that is running; write `await "
        "prompt.acomplete(...)` there"
    )
