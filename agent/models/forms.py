"""Which forms of a model's name there are: the word before the slash, and who makes a model of what stands behind it.

A form is one function that registers itself:

    @model("house", form="house/NAME", about="our own server")
    def house(name: str, rest: str) -> LM: ...

`name` is the whole name, which the model keeps as its own, and `rest` what follows the slash, never "". It starts and
connects to nothing, and raises InputError where `rest` is no such name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from agent.registry import Registry
from agent.types import LM

Make = Callable[[str, str], LM]
Function = TypeVar("Function", bound=Make)
OwnFile = Callable[[str], Path | None]


def no_file(rest: str) -> Path | None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelForm:
    """A registered form. `own_file`: the user's own file behind such a name, there or not. `leads_elsewhere`: a name of
    this form may hold an address to ask, so that one out of somebody else's file is not asked unseen."""

    prefix: str
    form: str
    about: str
    make: Make
    own_file: OwnFile = no_file
    leads_elsewhere: bool = True


MODELS: Registry[ModelForm] = Registry(
    "kind of model",
    "promptassay.models",
    {
        "local": "agent.models.local",
        "openai": "agent.models.openai",
        "anthropic": "agent.models.anthropic",
        "openai-compatible": "agent.models.openai",
        "langchain": "agent.models.langchain",
        "scripted": "agent.models.scripted",
    },
)


def model(
    prefix: str, *, form: str, about: str, own_file: OwnFile = no_file, leads_elsewhere: bool = True
) -> Callable[[Function], Function]:
    """Registers the function below as the maker of models called `prefix/...`; see `ModelForm`."""

    def register(make: Function) -> Function:
        made = ModelForm(
            prefix=prefix, form=form, about=about, make=make, own_file=own_file, leads_elsewhere=leads_elsewhere
        )
        MODELS.add(prefix, made, make.__module__)
        return make

    return register
