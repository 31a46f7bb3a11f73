"""MLflow by Python code: a pyfunc model that gives the messages for inputs.

The file itself is the model (MLflow's models from code), so nothing is pickled, and two versions can be loaded next to
each other. The proof saves and loads it as MLflow does.
"""

from __future__ import annotations

import re
from pathlib import Path

from agent.release.formats.export_format import Format, Material, Opened, installed_version
from agent.release.formats.module_proof import load_module, rendering
from agent.release.formats.python_module import module_source
from agent.release.prompt_file import PromptRelease


def registered_name(release: PromptRelease) -> str:
    """Return the release's name in letters that MLflow accepts."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", release.name) or "prompt"


def provenance_tags(release: PromptRelease) -> dict[str, str]:
    keys = ("run_id", "trial", "decision", "ledger_head")
    return {"tool": "promptassay"} | {key: str(release.provenance[key]) for key in keys if key in release.provenance}


MLFLOW_FILE = "mlflow_model.py"
_MODEL = '''

# MLflow: `MLFLOW_TRACKING_URI=... python mlflow_model.py` registers this file as a model with the alias `production`.
# `mlflow.pyfunc.load_model("models:/@name@@production").predict([{"INPUT": "..."}])` gives the messages of each row.
import mlflow

NAME = "@name@"
INPUTS = @inputs@


class ReleasedPrompt(mlflow.pyfunc.PythonModel):
    """Returns the messages of a released prompt; it calls no model."""

    def predict(self, model_input: list[dict[str, @given@]]) -> list[list[dict[str, @value@]]]:
        """Return the messages for each row of inputs."""
        return [@sent@(**{name: row[name] for name in INPUTS}) for row in model_input]


def arguments() -> dict[str, Any]:
    """Return the arguments of `mlflow.pyfunc.save_model` and `log_model`: this file as code, and metadata."""
    metadata = {"release": VERSION, "model_name": MODEL, "parameters": PARAMETERS, @tools@**@provenance@}
    return {"python_model": __file__, "pip_requirements": ["mlflow"], "metadata": metadata}


def register(alias: str = "production") -> str:
    """Log and register the model, point `alias` at it, and return its address."""
    info = mlflow.pyfunc.log_model(name="prompt", registered_model_name=NAME, **arguments())
    version = info.registered_model_version
    if alias:
        mlflow.MlflowClient().set_registered_model_alias(NAME, alias, version)
    return f"models:/{NAME}/{version}"


mlflow.models.set_model(ReleasedPrompt())
if __name__ == "__main__":
    print(register())
'''


def _load_mlflow(folder: Path, release: PromptRelease) -> Opened:
    import mlflow.pyfunc

    module, saved = load_module(folder / MLFLOW_FILE, "exported_mlflow_model"), str(folder / "mlflow_saved")
    mlflow.pyfunc.save_model(saved, **module.arguments())
    model = mlflow.pyfunc.load_model(saved)

    metadata = model.metadata.metadata
    settings = {"model": metadata["model_name"], **metadata["parameters"]}
    return Opened(rendering("mlflow", module, release, lambda given: list(model.predict([given])[0])), settings)


def _find_library(library: str) -> str:
    return installed_version(library) if installed_version("pandas") else ""


def _mlflow_files(material: Material) -> dict[str, str]:
    release = material.release
    source = module_source(
        release,
        _MODEL,
        name=registered_name(release),
        inputs=ascii(release.inputs),
        sent="sent" if release.tools else "render",
        value="Any" if release.tools else "str",
        given="Any" if release.conversation else "str",
        tools='"tools": TOOLS, ' if release.tools else "",
        provenance=ascii(provenance_tags(release)),
    )
    return {MLFLOW_FILE: source}


MLFLOW_CODE = Format(
    "mlflow",
    about="mlflow_model.py, a pyfunc model from code,",
    load=_load_mlflow,
    files=_mlflow_files,
    library="mlflow-skinny",
    install="pip install mlflow",
    find_library=_find_library,
    carries=("tools", "picks", "conversation"),
)
