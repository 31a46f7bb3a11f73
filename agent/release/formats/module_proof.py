"""The proof of an exported module: it renders, sends, reads and decides exactly as the release does."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from agent.errors import ReleaseError
from agent.models.tool_calling import openai_messages
from agent.prompt.label_calibration import Tokens
from agent.prompt.parts.picks import PickedDemos
from agent.prompt.reply_parser import parse_reply
from agent.release.export import HOSTILE, as_given, probe_rows, tried_rows
from agent.release.formats.export_format import Opened, Render, Sent, Settings, Values, as_sent
from agent.release.prompt_file import PromptRelease
from agent.shipped import Message, Prediction
from agent.task.tools import read_tools
from agent.types import Request


def load_module(path: Path, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def opened_module(name: str, module: Any, release: PromptRelease) -> Opened:
    """Return how an exported module renders and reads. Raises ReleaseError if it reads otherwise than the run."""
    for reply in _replies(release):
        got, want = module.parse(reply), parse_reply(reply, release.outputs, reasoning=release.reasoning)
        if (dict(got.fields), got.error) != (dict(want.fields), want.error):
            raise ReleaseError(f"{name}: parse drifts: {got!a:.80} for {reply!a:.60}, not {want!a:.80}")

    def read(values: Values, reply: str) -> Prediction:
        found = module.parse(reply)
        return Prediction(dict(found.fields), found.raw, found.error)

    send = module.sent if release.tools else module.render
    settings = {"model": module.MODEL, **module.PARAMETERS, **sent_with(module)}
    return Opened(rendering(name, module, release, lambda given: send(**given)), settings, read)


def sent_with(module: Any) -> Settings:
    """Return the JSON schema that an exported module sends, as a setting."""
    form = getattr(module, "RESPONSE_FORMAT", None)
    return {"json_schema": form["json_schema"]["schema"]} if form else {}


def rendering(
    name: str, module: Any, release: PromptRelease, send: Callable[[dict[str, Any]], Sequence[Mapping[str, Any]]]
) -> Render:
    """Return a module's `render` by what it would `send`. It refuses calls of examples unlike the run's."""

    def render(values: Values) -> Sent:
        given = as_given(release, values)
        if not release.tools:
            return as_sent(send(given))
        found = [dict(message) for message in module.render(**given)]
        messages = tuple(Message(message["role"], message["content"]) for message in found)
        tools = tuple(read_tools(module.TOOLS)[0])
        if _plain(send(given)) != _plain(openai_messages(Request(messages, 1, tools=tools))):
            raise ReleaseError(f"{name}: does not send the calls of the examples as the run did")
        return found

    return render


def _plain(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for message in messages:
        functions = [(call["id"], call["function"]) for call in message.get("tool_calls") or ()]
        written = [(i, function["name"], json.loads(function["arguments"])) for i, function in functions]
        found.append({**message, "content": message.get("content") or "", "tool_calls": written})
    return found


def _replies(release: PromptRelease) -> Iterator[str]:
    yield from (message.content for message in release.messages if message.role == "assistant")
    values = {"number": "1,234.5", "json": '{"a": [1]}', "text": "Said so."}
    lines = [f"{each.name}: {each.choices[-1] if each.choices else values.get(each.type)}" for each in release.outputs]
    yield from ("\n".join(lines), f"<think>So.</think>\n{lines[0] if lines else ''}", *values.values())
    yield from (choice for each in release.outputs for choice in each.choices)
    yield from HOSTILE


def require_same_answers(
    name: str,
    answer: Callable[..., Any],
    release: PromptRelease,
    unfit: Callable[[PromptRelease, Values], str] = lambda release, values: "",
) -> None:
    """Require that an exported `answer` decides as the release does; skips `unfit` inputs. Raises ReleaseError."""
    field, decides = release.outputs[0], bool(release.reads_input)
    replies, picks = list(_weighed_replies(field.choices)), release.part(PickedDemos)
    texts = [row.text for row in picks.rows[: len(replies)]] if picks else []
    made = [*probe_rows(release.inputs), *(dict.fromkeys(release.inputs, text) for text in texts)]
    rows = islice(cycle(tried_rows(release, made)), max(len(replies), len(made)))
    for tokens, values in zip(cycle(replies), rows, strict=False):
        if decides and unfit(release, values):
            continue
        found = release.read("", tokens, release.row(values))
        want = (found.fields[field.name], found.confidence) if found.fields else None
        got = answer(tokens, as_given(release, values)) if decides else answer(tokens)
        if (got and got[0]) != (want and want[0]) or (got and want and abs(got[1] - (want[1] or 0)) > 1e-9):
            raise ReleaseError(f"{name}: its calibration drifts: {got!a:.80} for {tokens!a:.80}, not {want!a:.80}")


def _weighed_replies(labels: Sequence[str]) -> Iterator[Tokens]:
    yield [[("\u2603", 0.0)]]
    for at, label in enumerate(labels):
        others = [(other, -1.0 - 0.1 * place) for place, other in enumerate(labels) if other != label]
        yield [[(label, -0.2 - 0.1 * at), *others]]
        half = max(1, len(label) // 2)
        yield [[(label[:half], math.log(0.6)), *others], [(label[half:], -0.1), ("x", -3.0)]]
