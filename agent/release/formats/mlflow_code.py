"""An MLflow model in Python, for prompts that its registry of templates cannot hold: the exported module, and a pyfunc
model around it that gives the messages for inputs.

The file itself is the model (MLflow's models from code), so nothing is pickled, and two versions can be loaded side by
side. The proof saves and loads it as MLflow does.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from agent.release.export import as_given
from agent.release.formats.export_format import Format, Material, Render, Sent, Settings, Values, installed_version
from agent.release.formats.python_module import load_module, module_source, rendered_calls
from agent.release.prompt_file import PromptRelease

FILE = "mlflow_model.py"
_SOURCE = '''

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


def registered_name(release: PromptRelease) -> str:
    """The name of the release, in letters that MLflow takes."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", release.name) or "prompt"


def provenance_tags(release: PromptRelease) -> dict[str, str]:
    """Where the release comes from, as texts."""
    keys = ("run_id", "trial", "decision", "ledger_head")
    return {"tool": "promptassay"} | {key: str(release.provenance[key]) for key in keys if key in release.provenance}


def _loaded(folder: Path) -> Any:
    import mlflow.pyfunc

    saved = folder / "mlflow_saved"
    if not saved.exists():
        mlflow.pyfunc.save_model(str(saved), **load_module(folder / FILE, "exported_mlflow_model").arguments())
    return mlflow.pyfunc.load_model(str(saved))


def _load(folder: Path, release: PromptRelease) -> Render:
    model = _loaded(folder)

    def render(values: Values) -> Sent:
        given = as_given(release, values)
        (sent,) = model.predict([given])
        if release.tools:
            return rendered_calls("mlflow", load_module(folder / FILE, "exported_mlflow_model"), given, sent)
        return [{"role": message["role"], "content": message["content"]} for message in sent]

    return render


def _settings(folder: Path, release: PromptRelease) -> Settings:
    metadata = _loaded(folder).metadata.metadata
    return {"model": metadata["model_name"], **metadata["parameters"]}


def _find_library(library: str) -> str:
    """MLflow, which loads such a model where pandas is installed."""
    return installed_version(library) if installed_version("pandas") else ""


def _files(material: Material) -> dict[str, str]:
    release = material.release
    source = _SOURCE.replace("@name@", registered_name(release)).replace("@inputs@", ascii(release.inputs))
    source = source.replace("@sent@", "sent" if release.tools else "render")
    source = source.replace("@value@", "Any" if release.tools else "str")
    source = source.replace("@given@", "Any" if release.conversation else "str")
    source = source.replace("@tools@", '"tools": TOOLS, ' if release.tools else "")
    return {FILE: module_source(release) + source.replace("@provenance@", ascii(provenance_tags(release)))}


CODE = Format(
    "mlflow",
    about="mlflow_model.py, a pyfunc model from code,",
    load=_load,
    files=_files,
    settings=_settings,
    library="mlflow-skinny",
    install="pip install mlflow",
    find_library=_find_library,
    carries_picks=True,
    carries_tools=True,
    carries_conversation=True,
)
