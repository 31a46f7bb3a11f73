"""The agent of a data file: `--agent FILE.py:NAME` and `--texts FILE`, or a function and a mapping of Python."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.errors import InputError
from agent.options.run import RecordedOptions
from agent.programs.agent_call import registered_agent
from agent.safe_data import parse_json
from agent.safe_file import decoded, read_bytes
from agent.safe_text import quoted, shown
from agent.task.agent_texts import KIND, how_to_write, text_faults, text_files
from agent.task.checks import function_in
from agent.task.schema import AGENT
from agent.types import Rollouts, Task, canonical

AGENT_PART, TEXTS_PART = "agent", "texts"  # of a task's hashes


def require_texts(options: RecordedOptions) -> None:
    """Raise InputError for an agent without texts, or with a prompt."""
    if options.prompt is not None:
        raise InputError("--agent: its instructions are its --texts; leave out --prompt")
    if not options.texts:
        raise InputError("--agent: needs --texts FILE: what may change, as a JSON object of names and texts")


def with_agent(task: Task, options: RecordedOptions) -> Task:
    """Return the task of a data file as that of the named agent. Raises InputError."""
    name, texts = options.agent or "", texts_in(Path(options.texts or ""))
    if options.agent_source:
        known = registered_agent(name)
        digest, rollouts = known.digest if known else options.agent_source, Rollouts(function=name, kind=KIND)
    else:
        path, _, function = name.rpartition(":")
        if not re.fullmatch(AGENT, f"{Path(path).name}:{function}"):
            raise InputError(f"--agent {quoted(name)}: write FILE.py:NAME, such as agent.py:run")
        source = read_bytes(Path(path))
        function_in(decoded(source, path), function, shown(Path(path)), how_to_write(function), 3, may_wait=True)
        digest, rollouts = hashlib.sha256(source).hexdigest(), Rollouts(f"{Path(path).resolve()}:{function}", kind=KIND)
    hashes = {AGENT_PART: digest, TEXTS_PART: hashlib.sha256(canonical(texts).encode()).hexdigest()}
    told = "\n\n".join(texts.values())
    return replace(
        task, program=name, texts=texts, rollouts=rollouts, instruction=told, hashes={**task.hashes, **hashes}
    )


def texts_in(path: Path) -> dict[str, str]:
    """Read texts by name: a JSON object, or a folder of .txt and .md files. Raises InputError."""
    if path.is_dir():
        found: Any = {name: decoded(read_bytes(file), shown(file)) for name, file in text_files(path).items()}
    else:
        try:
            found = parse_json(decoded(read_bytes(path), shown(path)))
        except ValueError as error:
            raise InputError(f"{shown(path)}:1: is not JSON: {error}") from None
    if wrong := text_faults(found):
        raise InputError("\n".join(f"{shown(path)}: {what}" for what in wrong))
    return dict(found)
