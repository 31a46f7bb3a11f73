"""The body of a request to Anthropic's Messages API, with `system` apart and `{{input}}` where the row's values go.

A model of another provider is left out. Knows nothing of the SDK: the file is plain JSON, and the marks are filled as
ours are, literally and in one pass.
"""

from __future__ import annotations

import json
from pathlib import Path

from agent.errors import ReleaseError
from agent.prompt.template import fill
from agent.release.completion import parameters_of
from agent.release.formats.export_format import Material, Render, Sent, Settings, Values, export_format, hosted_name
from agent.release.runtime import PromptRelease

FILE = "anthropic.json"


def _load(folder: Path, release: PromptRelease) -> Render:
    body = json.loads((folder / FILE).read_bytes())

    def render(values: Values) -> Sent:
        system = [{"role": "system", "content": fill(body["system"], values)}] if "system" in body else []
        return system + [
            {"role": message["role"], "content": fill(message["content"], values)} for message in body["messages"]
        ]

    return render


def _settings(folder: Path, release: PromptRelease) -> Settings:
    """All that is sent beside the messages."""
    body = json.loads((folder / FILE).read_bytes())
    names = {"stop_sequences": "stop"}
    settings = {names.get(key, key): value for key, value in body.items() if key not in ("system", "messages")}
    return {**settings, "model": f"anthropic/{settings['model']}"} if "model" in settings else settings


@export_format(
    "anthropic",
    about="anthropic.json: the body of a Messages request, system apart, with {{input}} marks",
    load=_load,
    settings=_settings,
)
def files(material: Material) -> dict[str, str]:
    release = material.release
    messages = [message.as_dict() for message in release.messages]
    system = messages.pop(0)["content"] if messages[0]["role"] == "system" else None
    if any(message["role"] == "system" for message in messages) or not messages or messages[0]["role"] != "user":
        raise ReleaseError(
            f"{release.name!r}: anthropic takes one system text, then turns that start with the user's, but "
            f"the roles here are {', '.join(message.role for message in release.messages)}; use --format messages"
        )
    parameters = parameters_of(release)
    known = {"max_tokens": parameters["max_tokens"]}  # its API asks for one
    if "temperature" in release.parameters:
        known["temperature"] = parameters["temperature"]
    if parameters["stop"]:
        known["stop_sequences"] = parameters["stop"]
    model = hosted_name(release.model, "anthropic")
    named = {"model": model} if model else {}
    body = {**named, **known, **({} if system is None else {"system": system}), "messages": messages}
    return {FILE: json.dumps(body, indent=2, ensure_ascii=False) + "\n"}
