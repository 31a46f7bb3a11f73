"""A prompt for MLflow's registry: its messages as JSON, and a script that registers them. Knows MLflow's two renderers.

MLflow fills `{{ name }}` one input after the other, so a value that holds another input's mark would be filled again,
and no mark can be written literally. Where a template holds a Jinja tag it uses Jinja2 instead, in one pass. So a
prompt with one input and no braces in its text stays plain; any other begins with an empty Jinja tag. A prompt that
looks something up becomes a model in Python (`mlflow_code.py`).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from agent.extras import command
from agent.release.formats.escaping import jinja
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
from agent.release.formats.mlflow_code import CODE, provenance_tags, registered_name
from agent.release.runtime import PromptRelease

FILE = "mlflow_prompt.json"
SCRIPT = "register_mlflow.py"
_TAG = "{% if true %}{% endif %}"
_SOURCE = '''"""Registers mlflow_prompt.json, which lies beside this file, and points the alias `production` at it.

    MLFLOW_TRACKING_URI=... python register_mlflow.py

In production: mlflow.genai.load_prompt("prompts:/NAME@production").format(INPUT="...") gives the messages.
"""

import json
from pathlib import Path

import mlflow


def register(alias="production"):
    data = json.loads(Path(__file__).with_name("mlflow_prompt.json").read_bytes())
    prompt = mlflow.genai.register_prompt(**data)
    if alias:
        mlflow.genai.set_prompt_alias(data["name"], alias, prompt.version)
    return prompt


if __name__ == "__main__":
    print(register().uri)
'''


def _marked(parts: Parts) -> str:
    return "".join(f"{{{{{part[0]}}}}}" if isinstance(part, tuple) else part for part in parts)


def _registered(folder: Path) -> Any:
    """As the registry gives it back: its own PromptVersion, made of what is registered."""
    from mlflow.entities.model_registry import PromptVersion

    data = json.loads((folder / FILE).read_bytes())
    return PromptVersion(data["name"], 1, data["template"], model_config=data.get("model_config"))


def _settings(folder: Path, release: PromptRelease) -> Settings:
    config = _registered(folder).model_config or {}
    return {"model" if key == "model_name" else key: value for key, value in config.items()}


def _load(folder: Path, release: PromptRelease) -> Render:
    prompt = _registered(folder)

    def render(values: Values) -> Sent:
        messages = prompt.format(**values)
        return [{"role": message["role"], "content": message["content"]} for message in messages]

    return render


@export_format(
    "mlflow",
    about="mlflow_prompt.json and register_mlflow.py: for MLflow's prompt registry (MLflow 3)",
    as_code=CODE,
    load=_load,
    settings=_settings,
    library="mlflow-skinny",
    install=command("exports"),
    unfit=no_lone_surrogates,
)
def files(material: Material) -> dict[str, str]:
    release = material.release
    messages = parts_of(release)
    plain = len(release.inputs) <= 1 and not any(
        re.search(r"\{\{|\{%|\{#|\{\Z", part) for _, parts in messages for part in parts if isinstance(part, str)
    )
    template = [{"role": role, "content": _marked(parts) if plain else jinja(parts)} for role, parts in messages]
    if not plain:
        template[0]["content"] = _TAG + template[0]["content"]
    tags = {"release": release.version, **provenance_tags(release)}
    config: dict[str, Any] = {"model_name": release.model} if release.model else {}
    config |= {key: release.parameters[key] for key in ("temperature", "max_tokens") if key in release.parameters}
    data = {
        "name": registered_name(release),
        "template": template,
        "commit_message": f"release {release.version}",
        "tags": tags,
    }
    if config:
        data["model_config"] = config
    return {FILE: json.dumps(data, indent=2, ensure_ascii=False) + "\n", SCRIPT: _SOURCE}
