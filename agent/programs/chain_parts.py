"""The prompts in a LangChain chain: read, replaced, saved and restored.

    chain = load_chain("chain.json", build(ChatOpenAI(model="...")))

A part is `{"system": text, "demos": None or [{"inputs": {...}, "answer": text}]}`. The text is a template if the
prompt's own text places values (f-strings only), else it is literal. Examples replace the prompt's own few-shot block,
or follow its system messages: each is the prompt's last message with `inputs`, and the answer.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

from agent.errors import InputError, ReleaseError
from agent.prompt.named_texts import why_unfit
from agent.release.prompt_file import MAX_FILE, only_release_errors
from agent.safe_data import parse_json, read_as
from agent.safe_file import new_files, read_file
from agent.types import content_id

Part = Mapping[str, Any]


def is_chain(made: Any) -> bool:
    """Tell whether the user's factory gave a Runnable; it cannot without LangChain loaded."""
    core = sys.modules.get("langchain_core.runnables")
    return core is not None and isinstance(made, core.Runnable)


@dataclass(frozen=True, slots=True)
class ChainParts:
    """The parts of a chain in the order of its steps; `parser` is the last output parser."""

    prompts: Mapping[str, Any]
    models: Sequence[Any]
    parser: Any


def find_parts(chain: Any) -> ChainParts:
    """Find every prompt, model and parser. A prompt without a name is named by its number."""
    from langchain_core.language_models import BaseLanguageModel
    from langchain_core.output_parsers import BaseOutputParser
    from langchain_core.prompts import ChatPromptTemplate

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
    from langchain_core.language_models import BaseLanguageModel
    from langchain_core.prompts import BasePromptTemplate
    from langchain_core.runnables import Runnable, RunnableLambda

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
    from langchain_core.messages import SystemMessage
    from langchain_core.prompts import SystemMessagePromptTemplate

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
        from langchain_core.prompts import HumanMessagePromptTemplate

        last = self.messages[-1] if self.messages else None
        return last if isinstance(last, HumanMessagePromptTemplate) else None

    def placeholders(self, system: str) -> Counter[str]:
        """Count the variables that a system text places. Raises ValueError for no f-string."""
        return _fields(system) if self._is_template else Counter()

    def laid_out(self, part: Part) -> list[Any]:
        from langchain_core.messages import AIMessage, SystemMessage
        from langchain_core.prompts import FewShotChatMessagePromptTemplate as Block

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


def save_chain(path: Path, parts: Mapping[str, Part], texts: Mapping[str, Any]) -> str:
    version = content_id("v", parts)
    text = json.dumps({"version": version, **texts, "prompts": parts}, ensure_ascii=False, indent=2)
    with new_files(path.parent) as folder:
        (folder / path.name).write_text(text + "\n", "utf-8")
    return version


@dataclass(frozen=True)
class _FileDemo:
    inputs: Mapping[str, str]
    answer: str


@dataclass(frozen=True)
class _FilePart:
    system: str
    demos: tuple[_FileDemo, ...] | None


def load_chain(path: str | Path, chain: Any) -> Any:
    """Put the prompts of a chain.json into a chain.

    Args:
        path: of the file.
        chain: the result of your `build(model)`, which is returned.

    Raises:
        ReleaseError: the file cannot be read, was edited, or is of another chain.
    """
    where = f"{path!s:.300}: "
    with only_release_errors(path):
        data = parse_json(read_file(Path(path), MAX_FILE).decode("utf-8"))
    try:
        read_as(Mapping[str, _FilePart], parts := data["prompts"], "prompts")
    except (LookupError, TypeError, ValueError) as error:
        raise ReleaseError(f"{where}is no chain.json; give the file that a run released") from error
    if data.get("version") != content_id("v", parts):
        raise ReleaseError(f"{where}was edited after release; restore the released file")
    prompts = find_parts(chain).prompts
    if set(prompts) != set(parts):
        raise ReleaseError(f"{where}the chain has the prompts {', '.join(prompts)}, and the file {', '.join(parts)}")
    for name, prompt in prompts.items():
        try:
            laid = ChainPrompt(name, prompt)
        except InputError as error:
            raise ReleaseError(f"{where}{error}") from error
        if wrong := why_unfit(name, laid.system, parts[name]["system"], laid.placeholders):
            raise ReleaseError(f"{where}{wrong}")
        for demo in parts[name]["demos"] or ():
            if laid.turn is None or set(demo["inputs"]) != laid.variables:
                raise ReleaseError(f"{where}the prompt {name} has no place for examples of {', '.join(demo['inputs'])}")
        prompt.messages = laid.laid_out(parts[name])
    return chain
