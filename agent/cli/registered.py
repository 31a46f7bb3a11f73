"""What is registered, on the command line: an option that takes a name, and a line of a listing. What other packages
registered counts as well."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem

from agent.errors import InputError
from agent.registry import Listed, Registry


class Registered(click.ParamType[str]):
    """A name in `registry`; imports the thing, so that one that is broken is refused here."""

    def __init__(self, registry: Registry[Any]) -> None:
        self.name, self._registry = registry.what, registry

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return f"[{'|'.join(self._registry.names())}]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            self._registry.get(value)
        except InputError as error:
            self.fail(str(error), param, ctx)
        return value

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(name) for name in self._registry.names() if name.startswith(incomplete)]


def told(one: Listed[Any]) -> str:
    """The help line of a thing, or why it cannot be used."""
    return str(one.thing.about) if one.thing is not None else f"cannot be used: {one.fault}"
