"""Export formats: the interface, the registry behind `--format`, and helpers of several formats.

Each is imported only when requested. Knows no library of a target.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from agent.errors import ReleaseError
from agent.extras import version_of
from agent.prompt.template import fill_messages, split
from agent.registry import Registry
from agent.release.prompt_file import PromptRelease
from agent.safe_text import SURROGATE
from agent.task.examples import PLAYED
from agent.types import Prediction, Task

Values = Mapping[str, str]
"""The inputs of a row by name."""
Sent = list[dict[str, str]]
"""Messages that a target sends, as {"role", "content"}."""
Render = Callable[[Values], Sent]
Parse = Callable[[Values, str], Prediction]
"""From a row and its reply to what the target reads in the reply."""
Settings = dict[str, Any]
"""What an export holds in addition to the messages, by our names: `model`, `max_tokens`, `temperature`, ..."""
Parts = list[str | tuple[str]]
"""A message: a str is fixed text, a 1-tuple the name of an input."""
Content = str | bytes
"""Of a file of an export: text, or bytes that are written as they are."""
Files = TypeVar("Files", bound=Callable[["Material"], Mapping[str, str | bytes]])

_BOTH = {"max_tokens": "max_tokens", "temperature": "temperature"}


@dataclass(frozen=True, slots=True)
class Opened:
    """Written files as the target opens them.

    `render`: a row as the target sends it (None: it is no template). `settings`: what the files hold in addition to
    messages. `parse`: how the target reads replies (None: that is left to the program).
    """

    render: Render | None
    settings: Settings = field(default_factory=dict)
    parse: Parse | None = None


@dataclass(frozen=True, slots=True)
class Material:
    """The source of an export. `task` is set for the formats that write rows (`needs_task`)."""

    release: PromptRelease
    task: Task | None = None

    @property
    def rows(self) -> Task:
        """The task. Raises ReleaseError without one, or if its rows do not hold the model's turns."""
        if self.task is None:
            raise ReleaseError(f"{self.release.name!r}: this format writes rows of the task; pass the task")
        if self.task.user is not None:
            raise ReleaseError(f"{self.release.name!r}: {PLAYED}, and this format writes rows; take another format")
        return self.task


_LOOKS = "a template cannot {} for each input; export as md, messages, python, langchain, dspy, mlflow or promptfoo"
REFUSALS: Mapping[str, tuple[str, str]] = {
    "adapter": (
        "adapter",
        "{name} has an adapter, which this target cannot hold; export as llama-server or peft, or use load_prompt",
    ),
    "tools": (
        "tools",
        "{name} calls tools, which this target cannot hold; export as md, messages, python, langchain, mlflow or tools",
    ),
    "calibration": (
        "calibration",
        "{name} has a calibration, which this target cannot hold; export as md, messages, python, langchain or dspy",
    ),
    "picks": ("picks", _LOOKS.format("pick examples")),
    "passages": ("picks", _LOOKS.format("retrieve passages")),
    "shape": (
        "schema",
        "{name} sends a JSON schema, unlike this target; export as md, openai, anthropic, langchain or pydantic",
    ),
    "conversation": (
        "conversation",
        "{name} takes a conversation, unlike this target; export as md, messages, python, langchain or promptfoo",
    ),
}
"""By the name of a part the word of `Format.carries` for it, and why a format without it refuses."""
OTHER = (
    "more",
    "{name} has a part of another package, unlike this target; export as md, messages, python or langchain",
)


def no_files(material: Material) -> dict[str, Content]:
    """Fail: the default `files` of a format that decorates no function yet."""
    raise NotImplementedError


def fits_all(release: PromptRelease, values: Values) -> str:
    """Return "": the default `unfit` of a target that holds any text."""
    return ""


def installed_version(library: str) -> str:
    """Return `name version` of an installed distribution, or ""."""
    return f"{library} {found}" if (found := version_of(library)) else ""


@dataclass(frozen=True, slots=True)
class Format:
    """One target. As a decorator it registers the function below it, which returns file contents by name; that function
    may raise ReleaseError if the target cannot hold the prompt.
    """

    name: str
    _: KW_ONLY
    about: str
    load: Callable[[Path, PromptRelease], Opened]
    """Loads the written files with the target's own library."""
    files: Callable[[Material], Mapping[str, Content]] = no_files
    library: str = ""
    """Name of the library's distribution, "" for none."""
    install: str = ""
    """The command that installs the library."""
    unfit: Callable[[PromptRelease, Values], str] = fits_all
    """Why the target cannot hold these values, or "". The user is warned; all other values must stay byte-equal."""
    needs_task: bool = False
    carries: Collection[str] = ()
    """The parts that the target can hold, by the words of REFUSALS."""
    find_library: Callable[[str], str] = installed_version
    """Name and version of the installed library, "" where it is missing."""
    settings_note: str = ""
    """For a target that sends messages only: how to pass the parameters to the model."""
    proof: str = ""
    """For a format that renders nothing: what `files` proved by itself."""
    write: Callable[[Material], Sequence[Path]] | None = None
    """For a format that is a change of the user's own files: make it, and return the changed files."""
    as_code: Format | None = None
    """The same target as Python code, for a release that a template cannot hold."""

    def lacking(self, release: PromptRelease) -> list[str]:
        """Return a reason for each part of the release that the target cannot hold."""
        names = [part.name for part in release.parts if not part.in_messages]
        ordered = sorted(names, key=lambda name: [*REFUSALS, name].index(name))
        found: dict[str, str] = {}
        for carried, why in (REFUSALS.get(name, OTHER) for name in ordered):
            if carried not in self.carries:
                found.setdefault(carried, why.format(name=repr(release.name)))
        return [*found.values()]

    def fitting(self, release: PromptRelease) -> Format:
        """Return this format, or `as_code` if this one cannot hold the release."""
        return self.as_code if self.as_code and self.lacking(release) else self

    def __call__(self, files: Files) -> Files:
        FORMATS.add(self.name, replace(self, files=files), files.__module__)
        return files


export_format = Format

FORMATS: Registry[Format] = Registry(
    "format",
    "promptassay.formats",
    {
        "md": "agent.release.formats.native",
        "messages": "agent.release.formats.native",
        "anthropic": "agent.release.formats.native",
        "openai": "agent.release.formats.native",
        "pydantic": "agent.release.formats.structured",
        "langchain": "agent.release.formats.langchain",
        "dspy": "agent.release.formats.dspy",
        "promptfoo": "agent.release.formats.promptfoo",
        "prompty": "agent.release.formats.templates",
        "dotprompt": "agent.release.formats.templates",
        "mlflow": "agent.release.formats.templates",
        "llm": "agent.release.formats.templates",
        "python": "agent.release.formats.python_module",
        "llama-server": "agent.release.formats.adapters",
        "peft": "agent.release.formats.adapters",
        "tools": "agent.release.formats.native",
        "skills": "agent.release.formats.skills",
        "finetune-jsonl": "agent.release.formats.native",
    },
)


def parts_of(release: PromptRelease) -> list[tuple[str, Parts]]:
    """Return role and parts of each message; `PICKED` and `CONTEXT` count as inputs."""
    names = [*release.inputs, *release.compared, *(part.mark for part in release.parts if part.mark)]
    return [(message.role, split(message.content, names)) for message in release.messages]


def written(parts: Parts, mark: Callable[[str], str], escape: Callable[[str], str] = str) -> str:
    """Write a message for a target: `mark` for inputs, `escape` for fixed text."""
    return "".join(mark(part[0]) if isinstance(part, tuple) else escape(part) for part in parts)


def json_text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def as_sent(messages: Iterable[Mapping[str, Any]]) -> Sent:
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def no_lone_surrogates(release: PromptRelease, values: Values) -> str:
    """Return why UTF-8 cannot hold the values, or ""."""
    return "half a character (a lone surrogate)" if any(map(SURROGATE.search, values.values())) else ""


def unfit_by(problem: Callable[[str], str]) -> Callable[[PromptRelease, Values], str]:
    """Make the `unfit` of a UTF-8 target. It loses messages for which `problem` gives a reason."""

    def unfit(release: PromptRelease, values: Values) -> str:
        filled = (problem(message.content) for message in fill_messages(release.messages, values))
        return no_lone_surrogates(release, values) or next(filter(None, filled), "")

    return unfit


def settings_of(release: PromptRelease) -> Settings:
    schema = sent_schema(release)
    return {"model": release.model, **release.parameters, **({"json_schema": schema} if schema else {})}


def sent_schema(release: PromptRelease) -> Any:
    """Return the JSON schema that goes with every request, or None."""
    return json.loads(text) if (text := schema_text(release)) else None


def schema_text(release: PromptRelease) -> str:
    return next((part.reply_schema for part in release.parts if not part.in_messages and part.reply_schema), "")


def chosen(release: PromptRelease, names: Mapping[str, str] = _BOTH) -> dict[str, Any]:
    """Return the parameters that the release sets, by the target's names. `names`: theirs by ours."""
    return {theirs: release.parameters[ours] for ours, theirs in names.items() if ours in release.parameters}


def yaml_options(release: PromptRelease, indent: str, names: Mapping[str, str] = _BOTH) -> list[str]:
    return [f"{indent}{key}: {value}" for key, value in chosen(release, names).items()]


def renamed(settings: Mapping[str, Any], names: Mapping[str, str]) -> Settings:
    """Return a target's settings by our names. `names`: theirs by ours."""
    ours = {theirs: name for name, theirs in names.items()}
    return {ours.get(key, key): value for key, value in settings.items()}


def openai_content(tokens: Sequence[Any]) -> list[dict[str, Any]]:
    return [
        {"token": place[0][0], "top_logprobs": [{"token": token, "logprob": log} for token, log in place]}
        for place in tokens
    ]


def as_openai(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the parameters of a release as OpenAI does, such as `logprobs`.

    >>> as_openai({"max_tokens": 8, "logprobs": 6})
    {'max_tokens': 8, 'logprobs': True, 'top_logprobs': 6}
    """
    found = dict(parameters)
    if count := found.pop("logprobs", 0):
        found |= {"logprobs": True, "top_logprobs": count}
    return found


def from_openai(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Invert `as_openai`.

    >>> from_openai({"max_tokens": 8, "logprobs": True, "top_logprobs": 6})
    {'max_tokens': 8, 'logprobs': 6}
    """
    found = dict(parameters)
    if found.pop("logprobs", False):
        found["logprobs"] = found.pop("top_logprobs", 0)
    return found


def hosted_name(model: str, provider: str) -> str:
    """Return the model's name without its `provider`; "" if it belongs to another.

    >>> hosted_name("openai/gpt-x", "openai"), hosted_name("openai/gpt-x", "anthropic")
    ('gpt-x', '')
    """
    owner, _, name = model.partition("/")
    return name if owner == provider else ""


def compatible_parts(model: str) -> tuple[str, str]:
    """Split `openai-compatible/NAME@ADDRESS` into name and address; "" for a missing one."""
    name, _, address = hosted_name(model, "openai-compatible").partition("@")
    return name, address
