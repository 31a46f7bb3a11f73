"""A released prompt as data, and the reader of its two files. Knows no alias, no model and no ledger.

Imports only the standard library and the light parts of this package. A file is data: nothing in it is run.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, NoReturn, get_args

from agent.errors import ReleaseError
from agent.prompt.bound import BoundPrompt
from agent.prompt.parts.part import PromptPart
from agent.safe_data import Rule, at_least, parse_json, read_as, whole
from agent.safe_file import read_file
from agent.shipped import ChatRole, Field, FormatName, Message, content_id

PROMPT_FILE = "prompt.md"
MESSAGES_FILE = "messages.json"
HELD = "held"  # inside a run's folder, the folder of a winner that was not promoted
FENCE = "+++"
MAX_FILE = 16_000_000
"""Bytes of either file: more than the longest context window."""
MOST_FIELDS = 1_000
"""The most inputs, and outputs, of a prompt."""
_ROLES = "|".join(get_args(ChatRole))
HEADING = re.compile(rf"^## ({_ROLES})[ \t\r]*$", re.MULTILINE)
HEADING_LIKE = re.compile(rf"^(?=\\*## (?:{_ROLES})[ \t\r]*$)", re.MULTILINE)  # gets one more leading backslash
_ESCAPED = re.compile(rf"^\\(?=\\*## (?:{_ROLES})[ \t\r]*$)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRelease(BoundPrompt):
    """One released prompt, the canonical form behind every export.

    `parameters` (max_tokens, temperature, stop) and `provenance` become plain JSON data: tuples are lists, keys with
    the value None are dropped, other types and non-finite numbers raise ReleaseError. `version` is the hash of
    everything that decides what is sent, to which model, and how the reply is read: all but name and provenance.
    """

    parameters: Mapping[str, Any]
    provenance: Mapping[str, Any]
    version: str = field(init=False)

    what: ClassVar = "a prompt"
    loader: ClassVar = "load_prompt"

    def __post_init__(self) -> None:
        BoundPrompt.__post_init__(self)
        for name in ("parameters", "provenance"):
            object.__setattr__(self, name, storable(getattr(self, name), name))
        object.__setattr__(self, "version", content_id("p", self._content()))

    def _content(self) -> dict[str, Any]:
        found = {
            "messages": [message.as_dict() for message in self.messages],
            "inputs": list(self.inputs),
            "outputs": [_hashed(output) for output in self.outputs],
            "format": self.format,
            "reasoning": self.reasoning,
            "model": self.model,
            "parameters": self.parameters,
        }
        for part in self.parts:
            found |= part.data()
        return found

    def data(self) -> dict[str, Any]:
        """Return the release as both files hold it: the input of `release_in`."""
        content = self._content()
        content["outputs"] = outputs_data(self.outputs)
        return {"name": self.name, "version": self.version, **content, "provenance": self.provenance}

    def write(self, folder: Path) -> Path:
        """Write and verify prompt.md and messages.json (`export.write_release`); return the path of prompt.md."""
        from agent.release.export import write_release  # a program that only loads a prompt does without

        return write_release(self, folder)


def _hashed(output: Field) -> dict[str, Any]:
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(output).items()}
    return {name: value for name, value in plain.items() if name != "optional"}


def outputs_data(outputs: Iterable[Field]) -> list[dict[str, Any]]:
    """Return outputs as a file holds them: without what they leave unsaid."""
    return [
        {name: value for name, value in _hashed(output).items() if value not in (None, "", [])} for output in outputs
    ]


def holds_prompt(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file name is a released prompt's, not a user's own program's."""
    return Path(path).name in (PROMPT_FILE, MESSAGES_FILE)


@contextmanager
def only_release_errors(what: object) -> Iterator[None]:
    """Turn OSError, ValueError and RecursionError of the block into a ReleaseError about `what`."""
    try:
        yield
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ReleaseError(
            f"{what!s:.300}: cannot be read ({reason}); give the path of what a run released, or restore the file"
        ) from error


def read_release(path: str | os.PathLike[str], *, verify: bool = True) -> PromptRelease:
    """Read a prompt.md, a messages.json, or a folder with the first.

    Raises ReleaseError, with the file (and line if known), if it cannot be read, is not a release, or (with `verify`)
    was edited: its content, or that of its adapter, does not match its version.
    """
    with only_release_errors(path):
        file = Path(path)
        if file.is_dir():
            file = file / PROMPT_FILE
    with only_release_errors(file):
        release = release_in(_text(file), file, verify=verify)
    for part in release.parts if verify else ():
        part.require_whole()
    return release


def release_in(text: str, file: Path, *, verify: bool = True) -> PromptRelease:
    """Parse the text of a prompt.md or messages.json; raises as `read_release` does."""
    data = _markdown(text, file) if text.startswith(FENCE) else _json(text, file)
    release = _release(data, text, file)
    if verify:
        require_version(
            _where(file, text, "version"), release.version, data["version"], ", or load it with verify=False"
        )
    return release


def require_version(where: object, content: str, version: object, more: str = "") -> None:
    """Raise ReleaseError unless a file has the version of its content."""
    if version != content:
        raise ReleaseError(
            f"{where}: was edited after release or truncated: content {content}, version {version!r:.60}; "
            f"restore the released file{more}"
        )


# -- reading the two forms --------------------------------------------------------------------------------------------


def _text(file: Path) -> str:
    try:
        raw = read_file(file, MAX_FILE)
    except FileNotFoundError:
        hint = f"; the folder holds no {PROMPT_FILE}" if file.parent.is_dir() and file.name == PROMPT_FILE else ""
        raise ReleaseError(f"{file}: no such file{hint}; give the path of a released prompt") from None
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ReleaseError(f"{file}:{line}: is not UTF-8 text; restore the released file") from None
    if text.startswith(f"{FENCE}\r\n"):  # a checkout rewrote the line ends; the version tells if that lost anything
        text = text.replace("\r\n", "\n")
    return text


def _markdown(text: str, file: Path) -> dict[str, Any]:
    fences = re.match(r"\+\+\+\n(.*?)^\+\+\+$\n?", text, re.DOTALL | re.MULTILINE)
    if fences is None:
        raise ReleaseError(f"{file}:1: the front matter is not between two {FENCE} lines; restore the released file")
    data = _json("\n" + fences[1], file)  # the empty line stands for the fence, so that lines count as in the file
    if "messages" in data:
        raise ReleaseError(f"{_where(file, text, 'messages')}: messages belong under their headings")
    headings = list(HEADING.finditer(text, fences.end()))
    start = headings[0].start() if headings else len(text)
    if stray := text[fences.end() : start].strip():
        line = text.count("\n", 0, text.index(stray, fences.end())) + 1
        raise ReleaseError(f"{file}:{line}: {stray[:40]!r} precedes the first heading, such as `## user`")
    end, lists = len(text), dict[str, list[Any]]()
    for key, title in reversed(sections_of(data).items()):
        end, lists[key] = _lines_of(text[:end], title, key, file)
    headings = [heading for heading in headings if heading.start() < end]
    ends = [*(heading.start() for heading in headings[1:]), end]
    data["messages"] = [
        {"role": heading[1], "content": _section(text[heading.end() : stop], last=stop == len(text))}
        for heading, stop in zip(headings, ends, strict=False)  # no heading, no message: _release refuses that
    ]
    for key, rows in lists.items():
        if isinstance(data[key], dict):
            data[key]["rows"] = rows
    return data


def _lines_of(text: str, title: str, key: str, file: Path) -> tuple[int, list[Any]]:
    start = text.rfind(f"\n{title}\n\n") + 1
    if not start:
        raise ReleaseError(f"{file}: has {key} and no section {title!r}; restore the released file")
    rows = []
    first = start + len(title) + 2
    for number, line in enumerate(text[first:].rstrip("\n").split("\n"), text.count("\n", 0, first) + 1):
        try:
            rows.append(parse_json(line))
        except ValueError as error:
            raise ReleaseError(f"{file}:{number}: invalid JSON: {error}; restore the released file") from None
    return start, rows


def _section(chunk: str, *, last: bool) -> str:
    chunk = chunk.removeprefix("\n").removeprefix("\n")
    chunk = chunk.removesuffix("\n") if last or not chunk.endswith("\n\n") else chunk[:-2]
    return _ESCAPED.sub("", chunk)


def _json(text: str, file: Path) -> dict[str, Any]:
    try:
        data = parse_json(text)
    except ValueError as error:
        line, why = getattr(error, "lineno", 0), getattr(error, "msg", error)
        raise ReleaseError(
            f"{file}{f':{line}' * bool(line)}: invalid JSON ({why}); the first line of a {PROMPT_FILE} is {FENCE}; "
            "restore the released file"
        ) from error
    if not isinstance(data, dict):
        raise ReleaseError(f"{file}:1: holds a JSON {type(data).__name__}, not the object of a {MESSAGES_FILE}")
    return data


# -- data -> release --------------------------------------------------------------------------------------------------


FEW = Rule(f"a list of at most {MOST_FIELDS:,}", lambda value: isinstance(value, list) and len(value) <= MOST_FIELDS)
_TYPES: dict[str, Any] = {
    "name": str,
    "version": str,
    "messages": tuple[Message, ...],
    "inputs": Annotated[tuple[str, ...], FEW],
    "outputs": Annotated[tuple[Field, ...], FEW],
    "format": FormatName,
    "reasoning": bool,
    "model": str,
    "parameters": dict[str, Any],
    "provenance": dict[str, Any],
}
_TEXTS = Rule("a list of texts", lambda value: isinstance(value, list) and all(isinstance(text, str) for text in value))
PARAMETERS: dict[str, tuple[Any, Rule]] = {
    "max_tokens": (1024, whole(1)),
    "temperature": (0.0, at_least(0)),
    "stop": ((), Rule("a text or a list of texts", lambda value: isinstance(value, str) or _TEXTS.holds(value))),
    "seed": (None, Rule("a whole number", lambda value: value is None or whole().holds(value))),
    "logprobs": (0, whole(0)),
    "labels": ((), _TEXTS),
}
"""The parameters that can be sent: the default of each, and what it may be."""


def _release(data: dict[str, Any], text: str, file: Path) -> PromptRelease:
    def refuse(key: str, what: str) -> NoReturn:
        raise ReleaseError(f"{_where(file, text, key)}: {what}; restore the released file")

    if missing := [key for key in _TYPES if key not in data]:
        if "texts" in data:
            raise ReleaseError(f"{file}: is a set of texts, not a prompt; load_texts loads it")
        raise ReleaseError(f"{file}: lacks {', '.join(missing)}; restore the released file")
    read = dict(data)
    for key, kind in _TYPES.items():
        try:
            read[key] = read_as(kind, data[key], key)
        except ValueError as error:
            refuse(key, str(error))
    if not read["messages"]:
        refuse("messages", "holds no messages")
    for name, value in read["parameters"].items():
        if name in PARAMETERS and not (rule := PARAMETERS[name][1]).holds(value):
            refuse("parameters", f"parameters.{name} must be {rule.words}, not {value!r:.60}")
    for at, output in enumerate(read["outputs"]):
        try:
            parse_json("null" if output.schema is None else output.schema)
        except ValueError:
            refuse("outputs", f"outputs[{at}].schema must be a JSON text, not {output.schema!r:.60}")
    parts = _parts(read, file.parent, refuse) if len(read) > len(_TYPES) else ()
    try:
        return PromptRelease(**{key: read[key] for key in _TYPES if key != "version"}, parts=parts)
    except ReleaseError as error:
        raise ReleaseError(f"{file}: {error}") from None


def _parts(read: Mapping[str, Any], folder: Path, refuse: Callable[[str, str], NoReturn]) -> tuple[PromptPart, ...]:
    from agent.prompt.parts.kinds import SECTIONS, FileHead, WrongPart, is_section  # most prompts have none

    keys = [key for key in read if key not in _TYPES]
    for key in keys:
        if not is_section(key):
            refuse(key, f"unknown key {key!r:.60}, known are {', '.join((*_TYPES, *SECTIONS))}")
    head = FileHead(read, folder)
    try:
        for key in keys:
            head.part(key)
    except WrongPart as wrong:
        refuse(wrong.key, str(wrong))
    return tuple(head.parts.values())


def sections_of(keys: Iterable[str]) -> dict[str, str]:
    """Return the headings of the sections of a prompt.md that hold rows, by key."""
    if not (others := sorted(key for key in keys if key not in _TYPES)):
        return {}
    from agent.prompt.parts.kinds import PARTS, is_section  # most prompts have none, and start faster without

    titles = ((key, PARTS.get(key).headings.get(key)) for key in others if is_section(key))
    return {key: f"## {title}" for key, title in titles if title}


def _where(file: Path, text: str, key: str) -> str:
    name = re.escape(key)
    found = re.search(rf'^  "{name}":', text, re.MULTILINE)
    line = text.count("\n", 0, found.start()) + 1 if found else 0
    return f"{file}:{line}" if line else str(file)


def storable(value: Any, where: str) -> Any:
    """Return `value` as plain JSON data, tables without the value None. Raises ReleaseError for anything else."""
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {
            str(key): storable(item, f"{where}.{key if key.isprintable() else repr(key)}")
            for key, item in value.items()
            if item is not None
        }
    if isinstance(value, list | tuple):
        return [storable(item, f"{where}[{number}]") for number, item in enumerate(value)]
    if isinstance(value, str) or (isinstance(value, int | float) and abs(value) <= sys.float_info.max):
        return json.loads(json.dumps(value))
    raise ReleaseError(
        f"{where} = {value!r:.60} cannot be stored in a release: use text, finite numbers, lists, tables with text keys"
    )
