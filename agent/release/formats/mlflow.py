"""MLflow: a prompt for its registry, its messages as JSON, and a script that registers them.

MLflow fills `{{ name }}` one input after the other, so a value that holds another input's mark would be filled again,
and no mark can be written literally. Where a template holds a Jinja tag it uses Jinja2 instead, in one pass. So a
prompt with one input and no braces in its text stays plain; any other begins with an empty Jinja tag.

A prompt that looks something up becomes a model in Python: the exported module, and a pyfunc model around it that gives
the messages for inputs. The file itself is the model (MLflow's models from code), so nothing is pickled, and two
versions can be loaded side by side. The proof saves and loads it as MLflow does.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from agent.extras import command
from agent.release.export import as_given
from agent.release.formats.export_format import (
    Format,
    Material,
    Opened,
    Parts,
    Sent,
    Values,
    chosen,
    export_format,
    installed_version,
    no_lone_surrogates,
    parts_of,
)
from agent.release.formats.python_module import load_module, module_source, rendered_calls
from agent.release.formats.templates import jinja
from agent.release.runtime import PromptRelease


def registered_name(release: PromptRelease) -> str:
    """The name of the release, in letters that MLflow takes."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", release.name) or "prompt"


def _provenance_tags(release: PromptRelease) -> dict[str, str]:
    keys = ("run_id", "trial", "decision", "ledger_head")
    return {"tool": "promptassay"} | {key: str(release.provenance[key]) for key in keys if key in release.provenance}


# -- in Python ---------------------------------------------------------------------------------------------------------

CODE_FILE = "mlflow_model.py"
_MODEL = '''

# MLflow: `MLFLOW_TRACKING_URI=... python mlflow_model.py` registers this file as a model with the alias `production`.
# `mlflow.pyfunc.load_model("models:/@name@@production").predict([{"INPUT": "..."}])` gives the messages of each row.
import mlflow

NAME = "@name@"
INPUTS = @inputs@


class ReleasedPrompt(mlflow.pyfunc.PythonModel):
    """Gives the messages of a released prompt; it calls no model."""

    def predict(self, model_input: list[dict[str, @given@]]) -> list[list[dict[str, @value@]]]:
        """The messages for each row of inputs."""
        return [@sent@(**{name: row[name] for name in INPUTS}) for row in model_input]


def arguments() -> dict[str, Any]:
    """What `mlflow.pyfunc.save_model` and `log_model` take: this file as code, and what else belongs to the prompt."""
    metadata = {"release": VERSION, "model_name": MODEL, "parameters": PARAMETERS, @tools@**@provenance@}
    return {"python_model": __file__, "pip_requirements": ["mlflow"], "metadata": metadata}


def register(alias: str = "production") -> str:
    """Logs and registers the model and points `alias` at it; gives its address."""
    info = mlflow.pyfunc.log_model(name="prompt", registered_model_name=NAME, **arguments())
    version = info.registered_model_version
    if alias:
        mlflow.MlflowClient().set_registered_model_alias(NAME, alias, version)
    return f"models:/{NAME}/{version}"


mlflow.models.set_model(ReleasedPrompt())
if __name__ == "__main__":
    print(register())
'''


def _load_code(folder: Path, release: PromptRelease) -> Opened:
    import mlflow.pyfunc

    module, saved = load_module(folder / CODE_FILE, "exported_mlflow_model"), str(folder / "mlflow_saved")
    mlflow.pyfunc.save_model(saved, **module.arguments())
    model = mlflow.pyfunc.load_model(saved)

    def render(values: Values) -> Sent:
        given = as_given(release, values)
        (sent,) = model.predict([given])
        if release.tools:
            return rendered_calls("mlflow", module, given, sent)
        return [{"role": message["role"], "content": message["content"]} for message in sent]

    metadata = model.metadata.metadata
    return Opened(render, {"model": metadata["model_name"], **metadata["parameters"]})


def _find_library(library: str) -> str:
    """MLflow, which loads such a model where pandas is installed."""
    return installed_version(library) if installed_version("pandas") else ""


def _code_files(material: Material) -> dict[str, str]:
    release = material.release
    source = _MODEL.replace("@name@", registered_name(release)).replace("@inputs@", ascii(release.inputs))
    source = source.replace("@sent@", "sent" if release.tools else "render")
    source = source.replace("@value@", "Any" if release.tools else "str")
    source = source.replace("@given@", "Any" if release.conversation else "str")
    source = source.replace("@tools@", '"tools": TOOLS, ' if release.tools else "")
    return {CODE_FILE: module_source(release) + source.replace("@provenance@", ascii(_provenance_tags(release)))}


CODE = Format(
    "mlflow",
    about="mlflow_model.py, a pyfunc model from code,",
    load=_load_code,
    files=_code_files,
    library="mlflow-skinny",
    install="pip install mlflow",
    find_library=_find_library,
    carries=("tools", "picks", "conversation"),
)


# -- as JSON -----------------------------------------------------------------------------------------------------------

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


def _load(folder: Path, release: PromptRelease) -> Opened:
    from mlflow.entities.model_registry import PromptVersion

    data = json.loads((folder / FILE).read_bytes())
    prompt = PromptVersion(data["name"], 1, data["template"], model_config=data.get("model_config"))

    def render(values: Values) -> Sent:
        messages = prompt.format(**values)
        return [{"role": message["role"], "content": message["content"]} for message in messages]

    config = prompt.model_config or {}
    return Opened(render, {"model" if key == "model_name" else key: value for key, value in config.items()})


@export_format(
    "mlflow",
    about="mlflow_prompt.json and register_mlflow.py: for MLflow's prompt registry (MLflow 3)",
    as_code=CODE,
    load=_load,
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
    tags = {"release": release.version, **_provenance_tags(release)}
    config: dict[str, Any] = {"model_name": release.model} if release.model else {}
    config |= chosen(release, {"temperature": "temperature", "max_tokens": "max_tokens"})
    data = {
        "name": registered_name(release),
        "template": template,
        "commit_message": f"release {release.version}",
        "tags": tags,
    }
    if config:
        data["model_config"] = config
    return {FILE: json.dumps(data, indent=2, ensure_ascii=False) + "\n", SCRIPT: _SOURCE}
