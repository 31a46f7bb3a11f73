"""One call with a released prompt, for programs without a model client.

No budget, no ledger, and no retry except for a parameter that the model refuses.

Knows the models by name only (`models/model_registry.py`); an SDK is imported when a call is made, never before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from agent.errors import ParameterRefused, ReleaseError
from agent.models.model_registry import create_model
from agent.prompt.label_calibration import logprobs_for
from agent.prompt.parts.adapter import require_base
from agent.prompt.parts.part import Row
from agent.release.prompt_file import PARAMETERS, PromptRelease
from agent.safe_text import printable
from agent.tracking.spans import program_tracer
from agent.types import LM, Completion, Prediction, Request

DEFAULT_PARAMETERS = {name: default for name, (default, _) in PARAMETERS.items()}


def parameters_of(release: PromptRelease) -> dict[str, Any]:
    """Return a value for each of DEFAULT_PARAMETERS. Raises ReleaseError for an unknown parameter."""
    if unknown := [name for name in release.parameters if name not in DEFAULT_PARAMETERS]:
        raise ReleaseError(
            f"{release.name!r}: cannot send the parameter {printable(', '.join(unknown))}; known: "
            f"{', '.join(DEFAULT_PARAMETERS)}; remove it, or send render() yourself"
        )
    stop = release.parameters.get("stop", ())
    lists = {"stop": (stop,) if isinstance(stop, str) else tuple(stop)}
    return {**DEFAULT_PARAMETERS, **release.parameters, **lists, "labels": tuple(release.parameters.get("labels", ()))}


def request_of(release: PromptRelease, row: Row) -> Request:
    """Build the request for an input; with log-probabilities if the release abstains below a confidence."""
    parameters = parameters_of(release)
    if "abstain_below" in release.provenance and release.outputs and not parameters["logprobs"]:
        parameters["logprobs"] = logprobs_for(release.outputs[0].choices)
    return release.request(row, **parameters)


async def acomplete(release: PromptRelease, row: Row, lm: LM | None = None) -> Prediction:
    """Answer an input with `lm`, or the release's own model. Raises ModelError; RowRefused for a refusal."""
    request = request_of(release, row)
    if lm is None:
        require_base(release)
    model = lm or create_model(release.target)
    try:
        completion = await _complete(model, request, release)
    finally:
        if lm is None:
            await model.close()
    return await release.read_aside(completion, row, f"{release.model} refused to answer")


async def _complete(model: LM, request: Request, release: PromptRelease) -> Completion:
    for _ in ("temperature", "max_tokens"):  # what it may refuse, one at each attempt
        with suppress(ParameterRefused):
            return await _traced(model, request, release)
    return await _traced(model, request, release)


async def _traced(model: LM, request: Request, release: PromptRelease) -> Completion:
    about = {"gen_ai.prompt.name": release.name, "promptassay.prompt.version": release.version}
    with program_tracer().call(model.name, request, more=about) as answered:
        completion = await model.complete(request)
        answered(completion)
    return completion


async def input_vector(embeddings: str, text: str) -> Sequence[float]:
    """Embed an input with a provider's model. Raises ModelError, or InputError for an unknown one."""
    from agent.models.langchain import EmbeddingModel, embedding_request, vectors_in

    model = EmbeddingModel(embeddings)
    try:
        (vector,) = vectors_in(await model.complete(embedding_request([text])))
    finally:
        await model.close()
    return vector


def blocking(name: str, answer: Callable[[], Coroutine[Any, Any, Prediction]]) -> Prediction:
    """Run `answer` for a program without an event loop. Raises ReleaseError inside one."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(answer())
    raise ReleaseError(f"{name!r}: complete() would block the running event loop; use `await prompt.acomplete(...)`")
