"""The prompts in a LangChain chain: read and replaced.

A part is `{"system": text, "demos": None or [{"inputs": {...}, "answer": text}]}`. The text is a template if the
prompt's own text places values (f-strings only), else it is literal. Examples replace the prompt's own few-shot block,
or follow its system messages: each is the prompt's last message with `inputs`, and the answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any

from langchain_core.language_models import BaseLanguageModel
from langchain_core.messages import AIMessage, SystemMessage
from langchain_core.output_parsers import BaseOutputParser
from langchain_core.prompts import (
    BasePromptTemplate,
    ChatPromptTemplate,
    HumanMessagePromptTemplate,
    SystemMessagePromptTemplate,
)
from langchain_core.prompts import FewShotChatMessagePromptTemplate as Block
from langchain_core.runnables import Runnable, RunnableLambda

from agent.errors import InputError

Part = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ChainParts:
    """The parts of a chain in the order of its steps; `parser` is the last output parser."""

    prompts: Mapping[str, Any]
    models: Sequence[Any]
    parser: Any


def find_parts(chain: Any) -> ChainParts:
    """Find every prompt, model and parser. A prompt without a name is named by its number."""
    prompts: dict[str, Any] = {}
    models, parser = [], None
    for one in _walk(chain, set()):
        if isinstance(one, ChatPromptTemplate):
            name = one.name or f"prompt {len(prompts) + 1}"
            prompts[name if name not in prompts else f"{name} {len(prompts) + 1}"] = one
        elif isinstance(one, BaseLanguageModel):
            models.append(one)
        elif isinstance(one, BaseOutputParser):
            parser = one
    return ChainParts(prompts, models, parser)


def _walk(one: Any, visited: set[int]) -> Iterator[Any]:
    if isinstance(one, Mapping):
        inside = list(one.values())
    elif isinstance(one, list | tuple):
        inside = list(one)
    elif not isinstance(one, Runnable) or id(one) in visited:
        return
    else:
        visited.add(id(one))
        yield one
        if isinstance(one, BaseLanguageModel | BasePromptTemplate):
            return
        if isinstance(one, RunnableLambda):
            functions = [getattr(one, name, None) for name in ("func", "afunc")]
            inside = [*one.deps, *(getattr(function, "__self__", None) for function in functions)]
        else:
            inside = [getattr(one, name, None) for name in getattr(type(one), "model_fields", {})]
    for each in inside:
        yield from _walk(each, visited)


def _is_system(message: Any) -> bool:
    return isinstance(message, SystemMessage | SystemMessagePromptTemplate)


class ChainPrompt:
    """A prompt as the user wrote it, which renders a part into messages."""

    def __init__(self, name: str, prompt: Any) -> None:
        self.name = name
        self.messages: tuple[Any, ...] = tuple(prompt.messages)
        self.variables = frozenset(prompt.input_variables)
        self._partials = dict(prompt.partial_variables)
        self._at = next((n for n, message in enumerate(self.messages) if _is_system(message)), None)
        self._is_template = False
        self.system = self._read()

    def _read(self) -> str:
        if self._at is None:
            return ""
        message = self.messages[self._at]
        if (template := getattr(message, "prompt", None)) is None:
            if isinstance(message.content, str):
                return message.content
        elif isinstance(text := getattr(template, "template", None), str):
            if template.template_format == "f-string":
                self._is_template = bool(_fields(text))
                return text if self._is_template else "".join(part[0] for part in Formatter().parse(text))
            if "{{" not in text and "{%" not in text:
                return text
        raise InputError(f"the system message of {self.name} is no text or f-string, so it cannot be replaced")

    @property
    def turn(self) -> Any:
        """Return the message that a demo repeats. None unless the prompt ends with a user message."""
        last = self.messages[-1] if self.messages else None
        return last if isinstance(last, HumanMessagePromptTemplate) else None

    def placeholders(self, system: str) -> Counter[str]:
        """Count the variables that a system text places. Raises ValueError for no f-string."""
        return _fields(system) if self._is_template else Counter()

    def laid_out(self, part: Part) -> list[Any]:
        messages = list(self.messages)
        if self._at is not None and part["system"] != self.system:
            old, text = messages[self._at], part["system"]
            messages[self._at] = SystemMessage(text)
            if self._is_template:
                messages[self._at] = old.model_copy(update={"prompt": old.prompt.model_copy(update={"template": text})})
        block = next((n for n, message in enumerate(messages) if isinstance(message, Block)), None)
        if part["demos"] is not None:
            behind = next((n for n, message in enumerate(messages) if not _is_system(message)), len(messages))
            shots = []
            for demo in part["demos"]:
                partials = {name: value() if callable(value) else value for name, value in self._partials.items()}
                shots += [self.turn.format(**partials, **demo["inputs"]), AIMessage(demo["answer"])]
            start = behind if block is None else block
            messages[start : start + (block is not None)] = shots
        if self._at is None and part["system"]:
            messages.insert(0, SystemMessage(part["system"]))
        return messages


def _fields(text: str) -> Counter[str]:
    fields = [(name, form, how) for _, name, form, how in Formatter().parse(text) if name is not None]
    return Counter(f"{{{name}{f'!{how}' if how else ''}{f':{form}' if form else ''}}}" for name, form, how in fields)
