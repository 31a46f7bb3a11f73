"""What a hosted model makes of bodies that a server sends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from agent.errors import ModelError
from agent.models.hosted import HostedModel
from agent.types import Completion, Request
from tests.wire import Fault, WireServer


async def replies(
    make: Callable[[WireServer], HostedModel], request: Request, bodies: Sequence[dict[str, Any]]
) -> list[Completion | ModelError]:
    """The completion or the error of each body, in their order."""
    left, found = iter(bodies), list[Completion | ModelError]()
    with WireServer(lambda messages, sent: Fault(body=next(left))) as server:
        model = make(server)
        for _ in bodies:
            try:
                found.append(await model.complete(request))
            except ModelError as error:
                found.append(error)
        await model.close()
    return found


def completed(found: Sequence[Completion | ModelError]) -> list[Completion]:
    """The completions; an error among them is raised."""
    for each in found:
        if isinstance(each, ModelError):
            raise each
    return [each for each in found if isinstance(each, Completion)]


def assert_read(
    found: Sequence[Completion | ModelError], wanted: Sequence[tuple[str, str]], errors: Sequence[tuple[type, str]]
) -> None:
    """First completions with these texts and finishes, then errors with these words."""
    assert [(each.text, each.finish) for each in completed(found[: len(wanted)])] == list(wanted)
    for error, (kind, says) in zip(found[len(wanted) :], errors, strict=True):
        assert isinstance(error, kind)
        assert says in str(error)
