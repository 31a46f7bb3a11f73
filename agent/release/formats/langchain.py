"""LangChain, as a template or, for a prompt that a template cannot hold, as the exported module and a template class.

With calibration the module also has `label`, which reads a reply by its log-probabilities: `prompt | model | label`.
Where the input decides, too, it has `labelled` instead: `labelled(model)` is the whole chain.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from agent.errors import ReleaseError
from agent.extras import command
from agent.release.formats.export_format import (
    Format,
    Material,
    Opened,
    Sent,
    as_openai,
    export_format,
    from_openai,
    json_text,
    no_lone_surrogates,
    openai_content,
    parts_of,
    sent_schema,
    written,
)
from agent.release.formats.module_proof import load_module, rendering, require_same_answers, sent_with
from agent.release.formats.python_module import filled, module_source
from agent.release.prompt_file import PromptRelease

LANGCHAIN_FILE = "langchain_prompt.py"
_ROLES = {"system": "system", "human": "user", "ai": "assistant"}
_CLASS = '''

# LangChain: `chain = prompt | ChatOpenAI(model=..., **prompt.metadata)@tools@`; `prompt.invoke({"INPUT": "..."})`.
from langchain_core.messages import BaseMessage, convert_to_messages
from langchain_core.prompts.chat import BaseChatPromptTemplate


class ReleasedPrompt(BaseChatPromptTemplate):
    """The messages of a released prompt, as a prompt template of LangChain."""

    def format_messages(self, **values: Any) -> list[BaseMessage]:
        """Return the messages for an input."""
        return convert_to_messages(@sent@(**{name: values[name] for name in self.input_variables}))

    def pretty_repr(self, html: bool = False) -> str:
        """Name the release."""
        return f"released prompt {VERSION}"


prompt = ReleasedPrompt(input_variables=@inputs@, metadata=@metadata@)
'''
_LABEL = '''

# `@chain@` gives {"label": ..., "confidence": ...}.
from langchain_core.exceptions import OutputParserException
from langchain_core.runnables import RunnableLambda, RunnablePassthrough


def _label(reply: BaseMessage, *inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the calibrated label of a reply, and its confidence."""
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
    """Return the chain from an input to its label; the model must give log-probabilities (`prompt.metadata`)."""
    both = {"reply": prompt | model, "inputs": RunnablePassthrough()}
    return both | RunnableLambda(lambda found: _label(found["reply"], found["inputs"]))
'''


def _reading(release: PromptRelease) -> str:
    if not release.reads_tokens:
        return ""
    if release.reads_input:
        return filled(_LABEL + _WITH_INPUT, chain="labelled(model).invoke(inputs)")
    return filled(_LABEL + _ALONE, chain="chain = prompt | model | label")


def _load_langchain(folder: Path, release: PromptRelease) -> Opened:
    from langchain_core.messages import convert_to_openai_messages

    module = load_module(folder / LANGCHAIN_FILE, "exported_langchain_prompt")
    if release.reads_tokens:
        require_same_answers("langchain", _answers(module, bool(release.reads_input)), release)

    translated = convert_to_openai_messages if release.tools else from_langchain
    send = rendering("langchain", module, release, lambda given: translated(module.prompt.invoke(given).to_messages()))
    return Opened(send, from_openai(module.prompt.metadata) | sent_with(module))


def from_langchain(messages: Any) -> Sent:
    return [{"role": _ROLES[message.type], "content": message.content} for message in messages]


def _answers(module: Any, with_inputs: bool) -> Any:

    def answer(tokens: Any, inputs: Any = None) -> tuple[str, float] | None:
        reply = module.convert_to_messages([{"role": "assistant", "content": "x"}])[0]
        reply.response_metadata["logprobs"] = {"content": openai_content(tokens)}
        try:
            chain = module.labelled(module.RunnableLambda(lambda _: reply)) if with_inputs else module.label
            found = chain.invoke(inputs if with_inputs else reply)
        except module.OutputParserException:
            return None
        return found["label"], found["confidence"]

    return answer


def _langchain_files(material: Material) -> dict[str, str]:
    release, has_schema = material.release, sent_schema(material.release)
    source = module_source(
        release,
        _CLASS + _reading(release),
        inputs=ascii(list(release.inputs)),
        sent="sent" if release.tools else "render",
        tools=".bind_tools(TOOLS)" * bool(release.tools) + ".bind(response_format=RESPONSE_FORMAT)" * bool(has_schema),
        metadata=ascii(as_openai(release.parameters)),
    )
    return {LANGCHAIN_FILE: source}


_CODE = Format(
    "langchain",
    about="langchain_prompt.py, a template in Python,",
    load=_load_langchain,
    files=_langchain_files,
    library="langchain-core",
    install=command("langchain"),
    settings_note="a template sends no parameters; give them to your model, as in ChatOpenAI(**prompt.metadata)",
    carries=("tools", "calibration", "picks", "conversation", "schema", "more"),
)


# -- LangChain: a ChatPromptTemplate as its own `dumps` writes it ------------------------------------------------------
#
# Every literal brace is doubled, or LangChain takes it for a variable. f-string templates: mustache escapes values.

_TEMPLATE_FILE = "langchain.json"
_CLASSES = {
    "system": "SystemMessagePromptTemplate",
    "user": "HumanMessagePromptTemplate",
    "assistant": "AIMessagePromptTemplate",
}


def _made(kind: str, fields: dict[str, Any]) -> dict[str, Any]:
    return {"lc": 1, "type": "constructor", "id": ["langchain", "prompts", *kind.split(".")], "kwargs": fields}


def _load_template(folder: Path, release: PromptRelease) -> Opened:
    from langchain_core.load import loads

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # loads is in beta
        template: Any = loads((folder / _TEMPLATE_FILE).read_text("utf-8"), allowed_objects="core")
    unused = set(template.input_variables) - set(release.inputs)
    if unused:
        raise ReleaseError(f"{_TEMPLATE_FILE}: LangChain takes {', '.join(sorted(unused))} for a variable")

    return Opened(lambda values: from_langchain(template.format_messages(**values)), dict(template.metadata or {}))


@export_format(
    "langchain",
    about='langchain.json: a ChatPromptTemplate; langchain_core.load.loads(text, allowed_objects="core")',
    as_code=_CODE,
    load=_load_template,
    library="langchain-core",
    install=command("langchain"),
    unfit=no_lone_surrogates,
    settings_note="a template sends no parameters; give them to your model, as in ChatOpenAI(**template.metadata)",
)
def template_files(material: Material) -> dict[str, str]:
    messages, used = [], set[str]()
    for role, parts in parts_of(material.release):
        names = {part[0] for part in parts if isinstance(part, tuple)}
        text = written(parts, lambda name: f"{{{name}}}", lambda text: text.replace("{", "{{").replace("}", "}}"))
        fields = {"input_variables": sorted(names), "template": text, "template_format": "f-string"}
        prompt = _made("prompt.PromptTemplate", fields)
        messages.append(_made(f"chat.{_CLASSES[role]}", {"prompt": prompt}))
        used |= names
    whole = {"input_variables": sorted(used), "messages": messages, "metadata": dict(material.release.parameters)}
    return {_TEMPLATE_FILE: json_text(_made("chat.ChatPromptTemplate", whole))}
