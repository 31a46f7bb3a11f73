"""One call with a released prompt, for programs without a client of their own. No budget, no ledger, and no retry but
for a parameter that the model refuses.

Knows the models by name only (`models/model_registry.py`); an SDK is imported when a call is made, never before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from agent.errors import ParameterRefused, ReleaseError, RowRefused
from agent.models.adapters import MARK, Adapter, split_adapter
from agent.models.model_registry import create_model, file_digest, leads_elsewhere
from agent.models.weights import known_weights
from agent.prompt.calibration import logprobs_for, read_reply
from agent.release.prompt_file import PromptRelease, ReleasedAdapter
from agent.safe_text import printable
from agent.tracking.spans import program_tracer
from agent.types import LM, Completion, Message, Prediction, Request
from agent.worker import run_aside

DEFAULT_PARAMETERS: dict[str, Any] = {
    "max_tokens": 1024,
    "temperature": 0.0,
    "stop": (),
    "seed": None,
    "logprobs": 0,
    "labels": (),
}
"""The parameters that can be sent, with their values where a release does not name them."""


def parameters_of(release: PromptRelease) -> dict[str, Any]:
    """A value for each of DEFAULT_PARAMETERS. Raises a ReleaseError for a parameter that cannot be sent."""
    if unknown := [name for name in release.parameters if name not in DEFAULT_PARAMETERS]:
        raise ReleaseError(
            f"{release.name!r}: cannot send the parameter {printable(', '.join(unknown))}; known: "
            f"{', '.join(DEFAULT_PARAMETERS)}; take it out, or send render() yourself"
        )
    stop = release.parameters.get("stop", ())
    lists = {"stop": (stop,) if isinstance(stop, str) else tuple(stop)}
    return {**DEFAULT_PARAMETERS, **release.parameters, **lists, "labels": tuple(release.parameters.get("labels", ()))}


def request_of(release: PromptRelease, messages: tuple[Message, ...]) -> Request:
    """The request with these messages and the parameters of the release, and with log-probabilities where an answer
    that is not sure enough is to be left out. Raises a ReleaseError."""
    parameters = parameters_of(release)
    if "abstain_below" in release.provenance and release.outputs and not parameters["logprobs"]:
        parameters["logprobs"] = logprobs_for(release.outputs[0].choices)
    return Request(messages=messages, tools=release.tools, **parameters)


async def acomplete(
    release: PromptRelease, messages: tuple[Message, ...], lm: LM | None = None, votes: Sequence[float] = ()
) -> Prediction:
    """The answer by `lm`, or by the release's own model, made and closed here.

    Raises:
        ModelError: The call failed; RowRefused also where the model replied that it refuses.
    """
    request = request_of(release, messages)
    if lm is None and release.adapter is not None:
        require_base(release)
    model = lm or create_model(release.target)
    try:
        completion = await _complete(model, request, release)
    finally:
        if lm is None:
            await model.close()
    if completion.finish == "refusal":
        raise RowRefused.by_provider(completion.text, f"{release.model} refused to answer")
    how = (release.outputs, release.reasoning, release.calibration, votes, completion.label_logprobs)
    return await run_aside(len(completion.text), partial(read_reply, completion.text, completion.logprobs, *how))


async def _complete(model: LM, request: Request, release: PromptRelease) -> Completion:
    for _ in ("temperature", "max_tokens"):  # what it may refuse, one at each attempt
        with suppress(ParameterRefused):
            return await _traced(model, request, release)
    return await _traced(model, request, release)


async def _traced(model: LM, request: Request, release: PromptRelease) -> Completion:
    """One call, with a span where the program or its environment has set up OpenTelemetry."""
    about = {"gen_ai.prompt.name": release.name, "promptassay.prompt.version": release.version}
    with program_tracer().call(model.name, request, more=about) as span:
        completion = await model.complete(request)
        span.answered(completion)
    return completion


async def input_vector(embeddings: str, text: str) -> Sequence[float]:
    """The vector of an input by a provider's model. Raises ModelError, or InputError for an unknown one."""
    from agent.models.langchain import EmbeddingModel, embedding_request, vectors_in

    model = EmbeddingModel(embeddings)
    try:
        (vector,) = vectors_in(await model.complete(embedding_request([text])))
    finally:
        await model.close()
    return vector


def blocking(name: str, answer: Callable[[], Coroutine[Any, Any, Prediction]]) -> Prediction:
    """An answer for a program without an event loop; raises a ReleaseError where one is running."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(answer())
    raise ReleaseError(
        f"{name!r}: complete() would block the event loop that is running; write `await prompt.acomplete(...)` there"
    )


# -- the model of a released prompt: a name that calls it, with the adapter of the release where it has one ------------


def released_model(name: str) -> tuple[str, ReleasedAdapter | None]:
    """What a release says of a model: the name of its base, and its adapter where it has one.

    Raises InputError where the adapter cannot be read.
    """
    kind, _, rest = name.partition("/")
    base, path = split_adapter(rest) if kind == "local" else (rest, None)
    if path is None:
        return name, None
    adapter, base = Adapter.read(path), f"{kind}/{base}"
    return base, ReleasedAdapter(adapter.sha256, base_digest(base), path)


def base_digest(name: str) -> str:
    """The SHA-256 of the weights of a local model; "" where its file is gone."""
    return file_digest(name) if leads_elsewhere(name) else known_weights(name).running


def require_base(release: PromptRelease) -> None:
    """Raises a ReleaseError where the adapter of a release was made for other weights than its model has here."""
    if release.adapter is None:
        return
    found = base_digest(release.model)
    if found and found != release.adapter.base:
        raise ReleaseError(
            f"{release.name!r}: its adapter goes with weights of SHA-256 {release.adapter.base[:12]}..., and "
            f"{release.model} has {found[:12]}... here; use the model file that it was released with"
        )


def without_folder(release: PromptRelease, name: str) -> str:
    """The name of a model as it can be written down: the release's own without its folder."""
    if release.adapter is None or name != release.target:
        return name
    return f"{release.model}{MARK}{release.adapter.path.name}"


def in_folder(release: PromptRelease, name: str) -> str:
    """The name of a model as it can be called here: the inverse of `without_folder`."""
    return release.target if name == without_folder(release, release.target) else name


def brought(release: PromptRelease) -> set[str]:
    """The models that the file of a release makes known: its adapter, checked by its hash, is no other
    place, but a model file of somebody's own is."""
    is_beside = release.adapter is not None and not leads_elsewhere(release.model)
    return set() if is_beside else {release.target}
