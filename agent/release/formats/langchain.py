"""LangChain: a ChatPromptTemplate as JSON, in the form that its own `dumps` writes and its `loads` reads.

Every literal brace is doubled, or LangChain takes it for a variable; examples are ordinary messages, since few-shot
templates do not serialise; f-string templates, since mustache escapes values as HTML.

A prompt that looks something up or weighs labels becomes Python: the exported module, and a template class around it.
With calibration it also has `label`, which reads a reply by its log-probabilities: `prompt | model | label`. Where
the input decides, too, it has `labelled` instead: `labelled(model)` is the whole chain.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from agent.errors import ReleaseError
from agent.extras import command
from agent.prompt.calibration import LabelCalibration
from agent.release.export import as_given
from agent.release.formats.export_format import (
    Format,
    Material,
    Opened,
    Parts,
    Sent,
    Values,
    export_format,
    no_lone_surrogates,
    parts_of,
)
from agent.release.formats.python_module import (
    as_openai,
    from_openai,
    load_module,
    module_source,
    rendered_calls,
    require_same_answers,
)
from agent.release.runtime import PromptRelease

# -- in Python ---------------------------------------------------------------------------------------------------------

CODE_FILE = "langchain_prompt.py"
ROLES = {"system": "system", "human": "user", "ai": "assistant"}
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


def _reading(calibration: LabelCalibration | None) -> str:
    if calibration is None:
        return ""
    if calibration.reads_input:
        return _LABEL.replace("@chain@", "labelled(model).invoke(inputs)") + _WITH_INPUT
    return _LABEL.replace("@chain@", "chain = prompt | model | label") + _ALONE


def _load_code(folder: Path, release: PromptRelease) -> Opened:
    module = load_module(folder / CODE_FILE, "exported_langchain_prompt")
    if release.calibration:
        require_same_answers("langchain", _answers(module, release.calibration.reads_input), release)

    def render(values: Values) -> Sent:
        given = as_given(release, values)
        if release.tools:
            return rendered_calls("langchain", module, given, _as_openai(module.prompt.invoke(given)))
        sent = module.prompt.invoke(given).to_messages()
        return [{"role": ROLES[message.type], "content": message.content} for message in sent]

    return Opened(render, from_openai(module.prompt.metadata))


def _as_openai(prompt: Any) -> Any:
    from langchain_core.messages import convert_to_openai_messages

    return convert_to_openai_messages(prompt.to_messages())


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


def _code_files(material: Material) -> dict[str, str]:
    release = material.release
    template = _CLASS.replace("@inputs@", ascii(list(release.inputs)))
    template = template.replace("@sent@", "sent" if release.tools else "render")
    template = template.replace("@tools@", ".bind_tools(TOOLS)" if release.tools else "")
    template = template.replace("@metadata@", ascii(as_openai(release.parameters)))
    return {CODE_FILE: module_source(release) + template + _reading(release.calibration)}


CODE = Format(
    "langchain",
    about="langchain_prompt.py, a template in Python,",
    load=_load_code,
    files=_code_files,
    library="langchain-core",
    install=command("langchain"),
    settings_note="a template sends no parameters; give them to your model, as in ChatOpenAI(**prompt.metadata)",
    carries=("tools", "calibration", "picks", "conversation"),
)


# -- as JSON -----------------------------------------------------------------------------------------------------------

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


def _load(folder: Path, release: PromptRelease) -> Opened:
    from langchain_core.load import loads

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # loads is in beta
        template: Any = loads((folder / FILE).read_text("utf-8"), allowed_objects="core")
    unused = set(template.input_variables) - set(release.inputs)
    if unused:
        raise ReleaseError(f"{FILE}: LangChain takes {', '.join(sorted(unused))} for a variable")

    def render(values: Values) -> Sent:
        return [
            {"role": ROLES[message.type], "content": message.content} for message in template.format_messages(**values)
        ]

    return Opened(render, dict(template.metadata or {}))


@export_format(
    "langchain",
    about='langchain.json: a ChatPromptTemplate; langchain_core.load.loads(text, allowed_objects="core")',
    as_code=CODE,
    load=_load,
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
