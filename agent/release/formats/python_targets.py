"""LangChain and MLflow by Python code, for a prompt that their templates cannot hold: the exported module and a class.

LangChain: a template class around the module. With calibration it also has `label`, which reads a reply by its
log-probabilities: `prompt | model | label`. Where the input decides, too, it has `labelled` instead: `labelled(model)`
is the whole chain.

MLflow: a pyfunc model that gives the messages for inputs. The file itself is the model (MLflow's models from code), so
nothing is pickled, and two versions can be loaded side by side. The proof saves and loads it as MLflow does.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from agent.extras import command
from agent.release.export import as_given
from agent.release.formats.export_format import Format, Material, Opened, Sent, Values, installed_version
from agent.release.formats.python_module import (
    as_openai,
    from_openai,
    load_module,
    module_source,
    rendered_calls,
    require_same_answers,
)
from agent.release.prompt_file import PromptRelease

# -- LangChain ---------------------------------------------------------------------------------------------------------

LANGCHAIN_FILE = "langchain_prompt.py"
_ROLES = {"system": "system", "human": "user", "ai": "assistant"}
_CLASS = '''

# LangChain: `chain = prompt | ChatOpenAI(model=..., **prompt.metadata)@tools@`; `prompt.invoke({"INPUT": "..."})`.
from langchain_core.messages import BaseMessage, convert_to_messages
from langchain_core.prompts.chat import BaseChatPromptTemplate


class ReleasedPrompt(BaseChatPromptTemplate):
    """The messages of a released prompt, as a prompt template of LangChain."""

    def format_messages(self, **values: Any) -> list[BaseMessage]:
        """The messages for an input."""
        return convert_to_messages(@sent@(**{name: values[name] for name in self.input_variables}))

    def pretty_repr(self, html: bool = False) -> str:
        """Which prompt it is."""
        return f"released prompt {VERSION}"


prompt = ReleasedPrompt(input_variables=@inputs@, metadata=@metadata@)
'''
_LABEL = '''

# `@chain@` gives {"label": ..., "confidence": ...}.
from langchain_core.exceptions import OutputParserException
from langchain_core.runnables import RunnableLambda, RunnablePassthrough


def _label(reply: BaseMessage, *inputs: dict[str, Any]) -> dict[str, Any]:
    """The label of a reply by the calibration, and its confidence."""
    content = (reply.response_metadata.get("logprobs") or {}).get("content")
    if not content:
        raise OutputParserException(
            "the reply has no log-probabilities; ask the model for them, as in ChatOpenAI(model=..., **prompt.metadata)"
        )
    tokens = [[(top["token"], top["logprob"]) for top in place["top_logprobs"]] for place in content]
    found = answer(tokens, *inputs)
    if found is None:
        raise OutputParserException("the reply does not begin with a label", llm_output=str(reply.content))
    return {"label": found[0], "confidence": found[1]}


'''
_ALONE = "label = RunnableLambda(_label)\n"
_WITH_INPUT = '''\
def labelled(model: Any) -> Any:
    """The chain from an input to its label; the model must give log-probabilities (`prompt.metadata`)."""
    both = {"reply": prompt | model, "inputs": RunnablePassthrough()}
    return both | RunnableLambda(lambda found: _label(found["reply"], found["inputs"]))
'''


def _reading(release: PromptRelease) -> str:
    if not release.reads_tokens:
        return ""
    if release.reads_input:
        return _LABEL.replace("@chain@", "labelled(model).invoke(inputs)") + _WITH_INPUT
    return _LABEL.replace("@chain@", "chain = prompt | model | label") + _ALONE


def _load_langchain(folder: Path, release: PromptRelease) -> Opened:
    from langchain_core.messages import convert_to_openai_messages

    module = load_module(folder / LANGCHAIN_FILE, "exported_langchain_prompt")
    if release.reads_tokens:
        require_same_answers("langchain", _answers(module, bool(release.reads_input)), release)

    def render(values: Values) -> Sent:
        given = as_given(release, values)
        sent = module.prompt.invoke(given).to_messages()
        if release.tools:
            return rendered_calls("langchain", module, given, convert_to_openai_messages(sent))
        return from_langchain(sent)

    return Opened(render, from_openai(module.prompt.metadata))


def from_langchain(messages: Any) -> Sent:
    """Messages of LangChain in our roles."""
    return [{"role": _ROLES[message.type], "content": message.content} for message in messages]


def _answers(module: Any, with_inputs: bool) -> Any:
    """How the module reads replies, from their log-probabilities, through messages as LangChain's models give them."""

    def answer(tokens: Any, inputs: Any = None) -> tuple[str, float] | None:
        content = [
            {"token": place[0][0], "top_logprobs": [{"token": token, "logprob": log} for token, log in place]}
            for place in tokens
        ]
        reply = module.convert_to_messages([{"role": "assistant", "content": "x"}])[0]
        reply.response_metadata["logprobs"] = {"content": content}
        try:
            chain = module.labelled(module.RunnableLambda(lambda _: reply)) if with_inputs else module.label
            found = chain.invoke(inputs if with_inputs else reply)
        except module.OutputParserException:
            return None
        return found["label"], found["confidence"]

    return answer


def _langchain_files(material: Material) -> dict[str, str]:
    release = material.release
    template = _CLASS.replace("@inputs@", ascii(list(release.inputs)))
    template = template.replace("@sent@", "sent" if release.tools else "render")
    template = template.replace("@tools@", ".bind_tools(TOOLS)" if release.tools else "")
    template = template.replace("@metadata@", ascii(as_openai(release.parameters)))
    return {LANGCHAIN_FILE: module_source(release) + template + _reading(release)}


LANGCHAIN_CODE = Format(
    "langchain",
    about="langchain_prompt.py, a template in Python,",
    load=_load_langchain,
    files=_langchain_files,
    library="langchain-core",
    install=command("langchain"),
    settings_note="a template sends no parameters; give them to your model, as in ChatOpenAI(**prompt.metadata)",
    carries=("tools", "calibration", "picks", "conversation", "more"),
)


# -- MLflow ------------------------------------------------------------------------------------------------------------


def registered_name(release: PromptRelease) -> str:
    """The name of the release, in letters that MLflow takes."""
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


def _load_mlflow(folder: Path, release: PromptRelease) -> Opened:
    import mlflow.pyfunc

    module, saved = load_module(folder / MLFLOW_FILE, "exported_mlflow_model"), str(folder / "mlflow_saved")
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


def _mlflow_files(material: Material) -> dict[str, str]:
    release = material.release
    source = _MODEL.replace("@name@", registered_name(release)).replace("@inputs@", ascii(release.inputs))
    source = source.replace("@sent@", "sent" if release.tools else "render")
    source = source.replace("@value@", "Any" if release.tools else "str")
    source = source.replace("@given@", "Any" if release.conversation else "str")
    source = source.replace("@tools@", '"tools": TOOLS, ' if release.tools else "")
    return {MLFLOW_FILE: module_source(release) + source.replace("@provenance@", ascii(provenance_tags(release)))}


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
