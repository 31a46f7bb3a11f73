"""Writes what `agent/models/recorded.py` reads."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from agent.models.recorded import Recording
from agent.safe_file import new_file
from agent.types import Completion


def write_recording(path: Path, recording: Recording) -> None:
    """Write a recording, sorted by key, so that equal recordings are equal files."""
    lines = [
        {"title": recording.weights.title, "sha256": recording.weights.sha256, "licence": recording.weights.licence},
        *(_line(key, reply) for key, reply in sorted(recording.replies.items())),
    ]
    data = "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines)
    with new_file(path) as file:
        file.write(gzip.compress(data.encode("utf-8"), mtime=0))


def _line(key: str, reply: Completion) -> dict[str, Any]:
    usage = reply.usage
    line: dict[str, Any] = {"key": key, "text": reply.text, "finish": reply.finish}
    line["tokens"] = [usage.prompt_tokens, usage.completion_tokens, usage.cached_prompt_tokens]
    if reply.logprobs:
        line["logprobs"] = reply.logprobs
    if reply.label_logprobs:
        line["labels"] = reply.label_logprobs
    return line
