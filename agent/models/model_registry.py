"""Model names: their registered forms, and what a name implies before any call.

A form is one function that registers itself:

    @model("house", form="house/NAME", about="our own server")
    def house(name: str, rest: str) -> LM: ...

`name` is the whole name, which the model keeps, and `rest` the part after the slash, never "". The function starts and
connects to nothing, and raises InputError if `rest` is invalid.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from agent.errors import InputError, RunRefused
from agent.models.hosted import HostedModel
from agent.registry import Registry
from agent.safe_file import sha256_of
from agent.types import LM

DEFAULT_MODEL = "local/smollm2-135m"
NO_FILE = "no such model file; `optimize models list` shows the models that can be fetched"

Function = TypeVar("Function", bound=Callable[[str, str], LM])
Faults = Callable[[str], list[str]]


def _no_files(rest: str) -> tuple[Path, ...]:
    return ()


def missing(paths: Sequence[Path]) -> list[str]:
    """Return a line for each missing file."""
    return [f"{path}: {NO_FILE}" for path in paths if not path.is_file()]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelForm:
    """A registered form; `own_files`: the user's files named by the rest of a name.

    A form that `leads_elsewhere` may contain an address, confirmed before it is called if it comes from a foreign file.
    """

    prefix: str
    form: str
    about: str
    make: Callable[[str, str], LM]
    own_files: Callable[[str], tuple[Path, ...]] = _no_files
    faults: Faults
    leads_elsewhere: bool = True


MODELS: Registry[ModelForm] = Registry(
    "kind of model",
    "promptassay.models",
    {
        "local": "agent.models.local",
        "ray": "agent.models.ray_engines",
        "openai": "agent.models.openai",
        "anthropic": "agent.models.anthropic",
        "openai-compatible": "agent.models.openai",
        "langchain": "agent.models.langchain",
        "scripted": "agent.models.recorded",
        "recorded": "agent.models.recorded",
    },
)


def model(prefix: str, *, faults: Faults | None = None, **about: Any) -> Callable[[Function], Function]:
    """Register the function below as the maker of models `prefix/...`. Other arguments are as in `ModelForm`."""

    def register(make: Function) -> Function:
        own_files = about.get("own_files", _no_files)
        found = faults or (lambda rest: missing(own_files(rest)))
        MODELS.add(prefix, ModelForm(prefix=prefix, make=make, faults=found, **about), make.__module__)
        return make

    return register


def create_model(name: str) -> LM:
    """Create the model named `name` without starting or connecting. Raises InputError for an unknown form."""
    kind, _, rest = name.partition("/")
    if not rest:
        owner = next((prefix for prefix, start in _FAMILIES.items() if re.match(start, name)), "")
        meant = f"did you mean {owner}/{name}? Or " if owner else ""
        raise InputError(f"{name!r} is not a model name; {meant}use one of: {_forms()}")
    if kind not in MODELS:
        raise InputError(f"{name!r}: unknown kind {kind!r}; use one of: {_forms()}")
    return MODELS.get(kind).make(name, rest)


_FAMILIES = {"openai": r"(gpt|chatgpt)-\w|o[1-9](-|$)", "anthropic": r"claude-\w", "local": r"smollm2-|.*\.gguf$"}
"""Patterns of well-known model names by kind, to complete a name typed without its kind."""


def _forms() -> str:
    return ", ".join(form.form for form in MODELS.usable().values())


def check_keys(lms: Sequence[LM]) -> None:
    """Raise InputError with all missing keys of several models, before any is paid."""
    if len(lms) < 2:
        return
    missing = []
    for lm in lms:
        try:
            if isinstance(lm, HostedModel):
                lm.check_key()
        except RunRefused as refusal:
            missing.append(f"{lm.name}: {refusal}")
    if missing:
        raise InputError("\n".join(missing))


async def probe_models(lms: Iterable[LM]) -> None:
    """Ask providers about their models in parallel. Raises InputError with a line per model that cannot work."""
    probes = (lm.probe() for lm in lms if isinstance(lm, HostedModel))
    errors = [each for each in await asyncio.gather(*probes, return_exceptions=True) if isinstance(each, BaseException)]
    if fault := next((error for error in errors if not isinstance(error, RunRefused)), None):
        raise fault
    if errors:
        raise InputError("\n".join(map(str, errors)))


def own_files(name: str) -> tuple[Path, ...]:
    """Return the user's files behind a model, existing or not. Such are a GGUF, an adapter, a script."""
    kind, _, rest = name.partition("/")
    return MODELS.get(kind).own_files(rest) if kind in MODELS else ()


def leads_elsewhere(name: str) -> bool:
    """Return whether a model's name contains an address to call or a file to open."""
    kind = name.partition("/")[0]
    return kind in MODELS and (MODELS.get(kind).leads_elsewhere or bool(own_files(name)))


def file_digest(name: str) -> str:
    """Return the SHA-256 of the user's file behind a model; "" without one.

    Several files give that of their digests.
    """
    digests = [sha256_of(path) for path in own_files(name) if path.is_file()]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest() if digests else ""


def require_files(names: Sequence[str]) -> None:
    """Raise InputError with all of the user's files that are missing or unusable."""
    forms = [(MODELS.get(kind), rest) for kind, _, rest in (name.partition("/") for name in names) if kind in MODELS]
    if faults := list(dict.fromkeys(fault for form, rest in forms for fault in form.faults(rest))):
        raise InputError("\n".join(faults))
