"""Models that answer from a file and call nothing: `recorded/NAME` and `scripted/FILE`.

A recording ships with the package: gzipped JSON Lines, first the recorded model, then replies with the keys of their
requests. A request without a recorded reply is refused.

A script is for tests. Each line of JSON Lines has `reply` and, optionally, `match` (a text in the last message) or
`contains` (a text anywhere in the request). The first matching line answers; no match is an error.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from agent.errors import InputError, RowRefused, RunRefused
from agent.models.hosted import estimate_tokens
from agent.models.model_registry import DEFAULT_MODEL, model
from agent.types import Completion, Request, Usage, content_id

PREFIX = "recorded/"
RECORDINGS = Path(__file__).parents[1] / "demo"
SUFFIX = ".jsonl.gz"


@dataclass(frozen=True, slots=True)
class RecordedWeights:
    """The recorded model: `title` for people, SHA-256 of its weights, licence."""

    title: str
    sha256: str
    licence: str


@dataclass(frozen=True, slots=True)
class Recording:
    """Replies by the key of their request, and the model that gave them."""

    weights: RecordedWeights
    replies: Mapping[str, Completion]


def request_key(request: Request) -> str:
    """Return the key of a request in a recording: a hash of everything sent."""
    return content_id("q", request.identity())


class RecordedModel:
    """Replays a recording, with recorded token usage and log-probabilities."""

    scores_labels = True
    concurrency = 16

    def __init__(self, name: str, recording: Recording) -> None:
        self.name = name
        self._replies = recording.replies

    async def complete(self, request: Request) -> Completion:
        reply = self._replies.get(request_key(request))
        if reply is None:
            raise RowRefused(
                f"{self.name}: no reply to this request was recorded; use a live model, such as {DEFAULT_MODEL}"
            )
        return reply

    def count_tokens(self, text: str) -> int:
        """Estimate from above: the model's tokenizer is not shipped."""
        return estimate_tokens(text)

    async def close(self) -> None:
        return None


def note(name: str) -> str:
    """State from which model the replies are recorded; "" for a live model."""
    if not name.startswith(PREFIX):
        return ""
    try:
        weights = recording_of(name.removeprefix(PREFIX)).weights
    except InputError:  # recorded by another version
        return f"the replies are recorded, not live ({name})"
    return f"the replies are recorded, not live ({weights.title}, {weights.licence})"


@lru_cache(maxsize=1)
def recording_of(name: str) -> Recording:
    """Read the recording NAME that ships with the package. Raises InputError for an unknown name."""
    known = {path.name.removesuffix(SUFFIX): path for path in sorted(RECORDINGS.glob(f"*{SUFFIX}"))}
    if name not in known:
        raise InputError(f"{PREFIX}{name}: no such recording; use one of: {', '.join(known)}")
    return read_recording(known[name], f"{PREFIX}{name}")


def read_recording(path: Path, model_name: str) -> Recording:
    """Read a recording from `path`; its replies name `model_name` as their model."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        head, *lines = (json.loads(line) for line in file)
    return Recording(RecordedWeights(**head), {line["key"]: _completion(line, model_name) for line in lines})


def _completion(line: Mapping[str, Any], model_name: str) -> Completion:
    tops: Iterable[Any] = line.get("logprobs", ())
    logprobs = tuple(tuple((token, value) for token, value in top) for top in tops)
    return Completion(
        line["text"], line["finish"], Usage(*line["tokens"]), model_name, logprobs, tuple(line.get("labels", ()))
    )


@model(
    "recorded",
    form="recorded/NAME",
    about="recorded replies shipped with the package, for `optimize demo`",
    leads_elsewhere=False,
)
def recorded(name: str, rest: str) -> RecordedModel:
    return RecordedModel(name, recording_of(rest))


# -- scripts -----------------------------------------------------------------------------------------------------------


class ScriptedModel:
    """Replies from the script at `path`, with words as tokens; `calls` keeps each request for inspection."""

    concurrency = 16

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.calls: list[Request] = []
        self._lines = _read(path)

    async def complete(self, request: Request) -> Completion:
        self.calls.append(request)
        last = request.messages[-1].content if request.messages else ""
        whole = "\n".join(message.content for message in request.messages)
        for line in self._lines:
            if line.get("match", "") in last and line.get("contains", "") in whole:
                usage = Usage(self.count_tokens(whole), self.count_tokens(line["reply"]))
                return Completion(text=line["reply"], finish="stop", usage=usage, model=self.name)
        raise RunRefused(
            f"{self.name}: no line of the script matches the message {last[:60]!r}; add one without a condition"
        )

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    async def close(self) -> None:
        return None


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text("utf-8-sig").split("\n")  # not splitlines: a text may contain U+2028
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
        known = {"match": "", "contains": "", **line} if isinstance(line, dict) else {}
        if not all(isinstance(known.get(key), str) for key in ("reply", "match", "contains")):
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
