"""A LangChain prompt template in Python, for what its JSON cannot hold: the exported module, and a class around it.

With label weights it also has `label`, which reads a reply by its log-probabilities: `prompt | model | label`. Where
the input decides, too, it has `labelled` instead: `labelled(model)` is the whole chain.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.extras import command
from agent.prompt.label_weights import LabelWeights
from agent.release.export import as_given
from agent.release.formats.export_format import Format, Material, Render, Sent, Settings, Values
from agent.release.formats.python_module import load_module, module_source, rendered_calls
from agent.release.formats.weights_source import as_openai, from_openai, require_same_answers
from agent.release.prompt_file import PromptRelease

FILE = "langchain_prompt.py"
ROLES = {"system": "system", "human": "user", "ai": "assistant"}
_TEMPLATE = '''

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
    """The label of a reply by the label weights, and its confidence."""
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


def _reading(weights: LabelWeights | None) -> str:
    """What reads a reply by label weights; "" without any."""
    if weights is None:
        return ""
    if weights.reads_input:
        return _LABEL.replace("@chain@", "labelled(model).invoke(inputs)") + _WITH_INPUT
    return _LABEL.replace("@chain@", "chain = prompt | model | label") + _ALONE


def _load(folder: Path, release: PromptRelease) -> Render:
    module = load_module(folder / FILE, "exported_langchain_prompt")
    if release.weights:
        require_same_answers("langchain", _answers(module, release.weights.reads_input), release)

    def render(values: Values) -> Sent:
        given = as_given(release, values)
        if release.tools:
            return rendered_calls("langchain", module, given, _as_openai(module.prompt.invoke(given)))
        sent = module.prompt.invoke(given).to_messages()
        return [{"role": ROLES[message.type], "content": message.content} for message in sent]

    return render


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


def _settings(folder: Path, release: PromptRelease) -> Settings:
    return from_openai(load_module(folder / FILE, "exported_langchain_prompt").prompt.metadata)


def _files(material: Material) -> dict[str, str]:
    release = material.release
    template = _TEMPLATE.replace("@inputs@", ascii(list(release.inputs)))
    template = template.replace("@sent@", "sent" if release.tools else "render")
    template = template.replace("@tools@", ".bind_tools(TOOLS)" if release.tools else "")
    template = template.replace("@metadata@", ascii(as_openai(release.parameters)))
    return {FILE: module_source(release) + template + _reading(release.weights)}


CODE = Format(
    "langchain",
    about="langchain_prompt.py, a template in Python,",
    load=_load,
    files=_files,
    settings=_settings,
    library="langchain-core",
    install=command("langchain"),
    carries_picks=True,
    carries_conversation=True,
    carries_weights=True,
    carries_tools=True,
    settings_note="a template sends no parameters; give them to your model, as in ChatOpenAI(**prompt.metadata)",
)
