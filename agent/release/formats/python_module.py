"""A Python module with `render`, `parse` and no dependency. Knows how to write it; values enter as list items only.

A prompt whose examples are picked, or whose passages are looked up, for each input comes with its rows and passages,
and with the very code that did so in the run.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import keyword
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.conversation import AS_TURNS, as_text
from agent.errors import ReleaseError
from agent.models.tool_calling import openai_messages, openai_tools
from agent.prompt.template import PICKED
from agent.release.export import as_given
from agent.release.formats import calls_source
from agent.release.formats.export_format import (
    Material,
    Opened,
    Values,
    export_format,
    parts_of,
)
from agent.release.formats.reading_source import (
    reply_source,
    require_same_answers,
    require_same_replies,
    weights_source,
)
from agent.release.runtime import PromptRelease
from agent.retrieval import linear, passages, pick
from agent.task.tools import read_tools
from agent.types import Message, Prediction, Request

FILE = "prompt.py"
_PICKING = """
_INDEX = PoolIndex([PoolRow(*row[:4]) for row in ROWS])


def _texts(*values: str) -> list[tuple[str, ...]]:
    return [ROWS[at][4] for at in _INDEX.pick("\\n".join(values), PICKS, HEAD)]


def _turns(*values: str) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": role, "content": text} for texts in _texts(*values) for role, text in zip(roles, texts)]
"""
_ROLES = '("user", "assistant")'
_SENDING = """

def _said(messages: str | list[dict[str, str]]) -> str:
    return user_text(messages) if isinstance(messages, str) else waiting_text(messages)


def _sent(before: list[dict[str, str]], messages: str | list[dict[str, str]]) -> list[dict[str, str]]:
    turns: Any = [(each["role"], each["content"]) for each in before]
    return [{"role": role, "content": content} for role, content in after(turns, _said(messages))]
"""
_LOOKING_UP = """
_PASSAGES = PoolIndex([PoolRow(str(at), text, "", "") for at, text in enumerate(PASSAGES)])


def _context(*values: str) -> str:
    found = _PASSAGES.nearest("\\n".join(values), LOOKUP["retriever"], LOOKUP["k"])
    return passage_block(LOOKUP["tag"], [PASSAGES[at] for at in found])
"""


def _text(text: str) -> str:
    """A string literal, a line of the text in each line; what is not printable is written as an escape."""
    lines = [_literal(line) for line in text.split("\n")]
    lines = [line[:-1] + '\\n"' for line in lines[:-1]] + lines[-1:]
    kept = [line for line in lines if line != '""'] or ['""']
    return "\n            ".join(kept)


def _literal(line: str) -> str:
    body = line.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in body) + '"'


def load_module(path: Path, name: str) -> Any:
    """Imports a module that an export has just written."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _load(folder: Path, release: PromptRelease) -> Opened:
    module = load_module(folder / FILE, "exported_prompt")
    if release.calibration:
        require_same_answers("python", module.answer, release)
    require_same_replies("python", module.parse, release)

    def render(values: Values) -> list[dict[str, str]]:
        given = as_given(release, values)
        if release.tools:
            return rendered_calls("python", module, given, module.sent(**given))
        return list(module.render(**given))

    def read(values: Values, reply: str) -> Prediction:
        found = module.parse(reply)
        return Prediction(dict(found.fields), found.raw, found.error)

    return Opened(render, {"model": module.MODEL, **module.PARAMETERS}, read)


@export_format(
    "python",
    about="prompt.py: `render(input=...)` gives the messages, `parse(reply)` the answer; needs nothing but Python",
    load=_load,
    carries=("tools", "calibration", "picks", "conversation"),
)
def files(material: Material) -> dict[str, str]:
    return {FILE: module_source(material.release) + reply_source(material.release)}


def module_source(release: PromptRelease) -> str:
    """The module, which targets that call Python extend.

    Raises a ReleaseError where an input cannot be an argument of a function, or examples are picked by vectors.
    """
    if release.picks is not None and release.picks.vectors is not None:
        raise ReleaseError(
            f"{release.name!r}: picks its examples by vectors of {release.picks.vectors.model}, which a module without "
            "dependencies cannot make; export it as md or messages, and load it with load_prompt"
        )
    spoken = release.conversation
    taken = ("_texts", "_turns", "_context", *(("_said", "_sent", "last_said") if spoken else ()))
    bad = [name for name in release.inputs if keyword.iskeyword(name) or not name.isidentifier() or name in taken]
    if bad:
        raise ReleaseError(f"{release.name!r}: the input {bad[0]!r} cannot be an argument of a Python function")
    kind = "str | list[dict[str, str]]" if spoken else "str"
    arguments = f"*, {', '.join(f'{name}: {kind}' for name in release.inputs)}" if release.inputs else ""
    lines = [
        f"# {ascii(release.name)[1:-1]}, {release.version}",
        *_head(release),
        f"MODEL = {release.model!a}",
        f"PARAMETERS: dict[str, Any] = {dict(release.parameters)!a}",
        f"VERSION = {release.version!a}",
        *_tools(release),
        *_picking(release),
        "",
        "",
        f"def render({arguments}) -> list[dict[str, str]]:",
        '    """The messages to send, exactly as they were scored."""',
        "    return _sent([" if spoken else "    return [",
    ]
    asked = [f"last_said(_said({spoken}))"] if spoken else list(release.inputs)
    texts = f"({', '.join(asked)})"
    for role, parts in parts_of(release):
        if parts == [(PICKED,)] and release.format != "inline":
            lines.append(f"        *_turns{texts},")
            continue
        if spoken and parts == [(f"{spoken}{AS_TURNS}",)]:
            continue
        pieces = [_piece(part, asked) for part in parts] or ['""']
        lines += [f'        {{"role": "{role}", "content": "".join((', *[f"            {piece}," for piece in pieces]]
        lines += ["        ))},"]
    lines.append(f"    ], {spoken})" if spoken else "    ]")
    if release.tools:
        given = ", ".join(f"{name}={name}" for name in release.inputs)
        about = '    """The messages to send with TOOLS, as OpenAI takes them: examples as calls with results."""'
        lines += ["", "", f"def sent({arguments}) -> list[dict[str, Any]]:", about]
        lines.append(f"    return called(render({given}))")
    return "\n".join(lines) + "\n" + weights_source(release)


def rendered_calls(
    name: str, module: Any, given: Mapping[str, Any], got: Sequence[Mapping[str, Any]]
) -> list[dict[str, str]]:
    """The messages of a module whose prompt has tools. Raises a ReleaseError unless `got`, in OpenAI's form, has the
    calls of the examples as the run sent them."""
    found = [dict(message) for message in module.render(**given)]
    messages = tuple(Message(message["role"], message["content"]) for message in found)
    tools = tuple(read_tools(module.TOOLS)[0])
    if _plain(got) != _plain(openai_messages(Request(messages, 1, tools=tools))):
        raise ReleaseError(f"{name}: does not send the calls of the examples as the run did")
    return found


def _plain(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages, whatever content comes with calls and however their arguments are spaced."""
    found = []
    for message in messages:
        calls = [(call["id"], call["function"]) for call in message.get("tool_calls") or ()]
        functions = [(i, function["name"], json.loads(function["arguments"])) for i, function in calls]
        found.append({**message, "content": message.get("content") or "", "tool_calls": functions})
    return found


def _piece(part: str | tuple[str], names: Sequence[str]) -> str:
    """A part of a message as an expression; `names` are the arguments of what picks."""
    inputs = f"({', '.join(names)})"
    if isinstance(part, str):
        return _text(part)
    if part[0] == passages.CONTEXT and part[0] not in names:
        return f"_context{inputs}"
    return f"*(texts[0] for texts in _texts{inputs})" if part[0] == PICKED else part[0]


def _head(release: PromptRelease) -> list[str]:
    """The start of the module: of a prompt that picks or takes a conversation, the code for that.

    Annotations are no texts here: a dataclass would look for its module, which not every loader registers.
    """
    needed = [pick.__file__] if release.picks is not None or release.passages is not None else []
    needed += [linear.__file__] if release.classifier is not None else []
    needed += [inspect.getfile(as_text)] if release.conversation else []
    if needed:
        return [*(Path(file).read_text("utf-8") for file in needed), _SENDING if release.conversation else ""]
    return [
        '"""The messages of a released prompt. Needs only Python."""',
        "",
        "from typing import Any",
        "",
    ]


def _tools(release: PromptRelease) -> list[str]:
    if not release.tools:
        return []
    code = Path(calls_source.__file__).read_text("utf-8").partition("from typing import Any\n")[2]
    return [f"TOOLS: list[dict[str, Any]] = {openai_tools(release.tools)!a}", "", "import json", code.rstrip("\n")]


def _picking(release: PromptRelease) -> list[str]:
    return [*_passages(release), *_picks(release)]


def _passages(release: PromptRelease) -> list[str]:
    if (found := release.passages) is None:
        return []
    how = {"retriever": found.settings.retriever, "k": found.settings.k, "tag": found.index.tag}
    return [
        f"ABOUT_PASSAGES = {passages.ABOUT_PASSAGES!a}",
        "",
        inspect.getsource(passages.passage_block),
        f"LOOKUP: Any = {how!a}",
        "PASSAGES = [",
        *(f"    {passage.text!a}," for passage in found.passages),
        "]",
        _LOOKING_UP.rstrip("\n"),
    ]


def _picks(release: PromptRelease) -> list[str]:
    picks = release.picks
    if picks is None:
        return []
    rows = [
        f"    {(row.id, row.text, row.label, row.group, shown)!a},"
        for row, shown in zip(picks.rows, picks.shown, strict=True)
    ]
    return [
        f"PICKS = Picks(**{picks.picks.as_dict()!a})",
        f"HEAD = {picks.head!a}",
        "ROWS: list[Any] = [",
        *rows,
        "]",
        (_PICKING.replace(_ROLES, f"{_ROLES} * MOST_MESSAGES") if release.conversation else _PICKING).rstrip("\n"),
    ]
