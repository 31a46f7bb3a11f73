"""A prompt that looks rows or passages up as it is shipped: its release, what all forms of it send, an edited file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ReleaseError
from agent.programs.prompt import PromptProgram
from agent.prompt.prompt_candidate import PromptCandidate
from agent.release.export import write_release
from agent.release.formats.export_format import FORMATS, Material
from agent.release.formats.proof import verify_exports
from agent.release.formats.python_module import load_module
from agent.release.prompt_file import MESSAGES_FILE, PROMPT_FILE, PromptRelease
from agent.release.runtime import load_prompt
from agent.types import Example, Message

CARRIERS = {"md", "messages", "python", "langchain", "dspy", "mlflow", "promptfoo"}
"""The formats that look rows and passages up for each input, and render."""


def release_of(program: PromptProgram, prompt: PromptCandidate) -> PromptRelease:
    return replace(program.release(prompt, {"max_tokens": 8}, {}), name="toy", model="openai/gpt-x")


def sent_alike(
    program: PromptProgram, prompt: PromptCandidate, folder: Path, examples: Sequence[Example]
) -> Iterator[tuple[Example, tuple[Message, ...]]]:
    """Each example with the messages that the search sends, which both files and the Python module send, too."""
    assert program.check(prompt) == ""
    release = release_of(program, prompt)
    written = write_release(release, folder).parent
    (export,) = verify_exports([FORMATS.get("python")], {"python": Material(release)})
    (written / "prompt.py").write_bytes(export.texts["prompt.py"].encode())
    exported = load_module(written / "prompt.py", "exported")
    loaded = [load_prompt(written / file) for file in (PROMPT_FILE, MESSAGES_FILE)]
    assert {one.version for one in loaded} == {release.version}
    for example in examples:
        sent = program.request(prompt, example).messages
        wanted = [message.as_dict() for message in sent]
        assert [one.render(**example.inputs) for one in loaded] == [wanted, wanted]
        assert exported.render(**example.inputs) == wanted
        yield example, sent


def refused(file: Path, edit: Callable[[dict[str, Any]], object], words: str) -> str:
    """What is said of a messages.json that `edit` changed; it holds the pattern `words`."""
    data = json.loads(file.read_text("utf-8"))
    edit(data)
    file.write_text(json.dumps(data, indent=2, ensure_ascii=False), "utf-8")
    with pytest.raises(ReleaseError, match=words) as caught:
        load_prompt(file, verify=False)
    return str(caught.value)
