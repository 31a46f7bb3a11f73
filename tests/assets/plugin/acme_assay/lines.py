"""The format `lines`: a message a line, as JSON, with `{{input}}` marks."""

from __future__ import annotations

import json
from pathlib import Path

from agent.prompt.template import fill
from agent.release.formats.export_format import Material, Opened, Sent, Values, export_format
from agent.release.runtime import PromptRelease

FILE = "messages.jsonl"


def load(folder: Path, release: PromptRelease) -> Opened:
    messages = [json.loads(line) for line in (folder / FILE).read_text("utf-8").splitlines()]

    def render(values: Values) -> Sent:
        return [{"role": one["role"], "content": fill(one["content"], values)} for one in messages]

    return Opened(render)


@export_format("lines", about="messages.jsonl: a message a line", load=load)
def files(material: Material) -> dict[str, str]:
    return {FILE: "".join(json.dumps(message.as_dict()) + "\n" for message in material.release.messages)}
