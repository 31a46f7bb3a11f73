"""A LangChain ChatPromptTemplate as JSON, in the form that its own `dumps` writes and its `loads` reads.

Every literal brace is doubled, or LangChain takes it for a variable; demos are ordinary messages, since few-shot
templates do not serialise; f-string templates, since mustache escapes values as HTML. A prompt that looks something up
or weighs labels becomes Python (`langchain_code.py`).
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from agent.errors import ReleaseError
from agent.extras import command
from agent.release.formats.export_format import (
    Material,
    Parts,
    Render,
    Sent,
    Settings,
    Values,
    export_format,
    no_lone_surrogates,
    parts_of,
)
from agent.release.formats.langchain_code import CODE, ROLES
from agent.release.runtime import PromptRelease

FILE = "langchain.json"
_CLASSES = {
    "system": "SystemMessagePromptTemplate",
    "user": "HumanMessagePromptTemplate",
    "assistant": "AIMessagePromptTemplate",
}


def _made(kind: list[str], fields: dict[str, Any]) -> dict[str, Any]:
    return {"lc": 1, "type": "constructor", "id": kind, "kwargs": fields}


def _template(parts: Parts) -> str:
    return "".join(
        f"{{{part[0]}}}" if isinstance(part, tuple) else part.replace("{", "{{").replace("}", "}}") for part in parts
    )


def _template_in(folder: Path) -> Any:
    from langchain_core.load import loads

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # loads is in beta
        return loads((folder / FILE).read_text("utf-8"), allowed_objects="core")


def _settings(folder: Path, release: PromptRelease) -> Settings:
    return dict(_template_in(folder).metadata or {})


def _load(folder: Path, release: PromptRelease) -> Render:
    template = _template_in(folder)
    unused = set(template.input_variables) - set(release.inputs)
    if unused:
        raise ReleaseError(f"{FILE}: LangChain takes {', '.join(sorted(unused))} for a variable")

    def render(values: Values) -> Sent:
        return [
            {"role": ROLES[message.type], "content": message.content} for message in template.format_messages(**values)
        ]

    return render


@export_format(
    "langchain",
    about='langchain.json: a ChatPromptTemplate; langchain_core.load.loads(text, allowed_objects="core")',
    as_code=CODE,
    load=_load,
    settings=_settings,
    library="langchain-core",
    install=command("langchain"),
    unfit=no_lone_surrogates,
    settings_note="a template sends no parameters; give them to your model, as in ChatOpenAI(**template.metadata)",
)
def files(material: Material) -> dict[str, str]:
    messages = [
        _made(
            ["langchain", "prompts", "chat", _CLASSES[role]],
            {
                "prompt": _made(
                    ["langchain", "prompts", "prompt", "PromptTemplate"],
                    {
                        "input_variables": sorted({part[0] for part in parts if isinstance(part, tuple)}),
                        "template": _template(parts),
                        "template_format": "f-string",
                    },
                )
            },
        )
        for role, parts in parts_of(material.release)
    ]
    used = {part[0] for _, parts in parts_of(material.release) for part in parts if isinstance(part, tuple)}
    whole = _made(
        ["langchain", "prompts", "chat", "ChatPromptTemplate"],
        {"input_variables": sorted(used), "messages": messages, "metadata": dict(material.release.parameters)},
    )
    return {FILE: json.dumps(whole, indent=2, ensure_ascii=False) + "\n"}
