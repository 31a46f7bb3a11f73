"""A model that answers from a file, for tests and demonstrations.

The file is JSON Lines. Each line has `reply` and, optionally, `match` (a text in the last message) or `contains` (one
anywhere in the request). The first line that fits answers; one without a condition always fits; no line is an error.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agent.errors import InputError, RunRefused
from agent.models.model_registry import model
from agent.types import Completion, Request, Usage


class ScriptedModel:
    """Replies from the script at `path`, with words as tokens; `calls` keeps each request for inspection."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.calls: list[Request] = []
        self._lines = _read(path)

    @property
    def concurrency(self) -> int | None:
        return 16

    async def complete(self, request: Request) -> Completion:
        self.calls.append(request)
        last = request.messages[-1].content if request.messages else ""
        whole = "\n".join(message.content for message in request.messages)
        for line in self._lines:
            if line.get("match", "") in last and line.get("contains", "") in whole:
                usage = Usage(self.count_tokens(whole), self.count_tokens(line["reply"]))
                return Completion(text=line["reply"], finish="stop", usage=usage, model=self.name)
        raise RunRefused(
            f"{self.name}: no line of the script fits the message {last[:60]!r}; add one without a condition"
        )

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    async def close(self) -> None:
        return None


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text("utf-8-sig").split("\n")  # not splitlines: U+2028 may stand inside a text
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the script cannot be read ({error}); give a JSON Lines file of replies") from error
    script = []
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except ValueError as error:
            raise InputError(f"{path}:{number}: not JSON ({error}); each line is an object with `reply`") from error
        conditions = [line.get("match", ""), line.get("contains", "")] if isinstance(line, dict) else [None]
        if not isinstance(line, dict) or not all(isinstance(text, str) for text in [line.get("reply"), *conditions]):
            raise InputError(f"{path}:{number}: needs a text `reply` and, if given, texts `match` and `contains`")
        script.append(line)
    return script


@model(
    "scripted",
    form="scripted/FILE",
    about="replies from a JSON Lines file, for tests",
    own_files=lambda rest: (Path(rest),),
)
def script(name: str, rest: str) -> ScriptedModel:
    return ScriptedModel(name, Path(rest))
