"""Registries of plugins: metrics, models, export formats, kinds of program, strategies, jobs.

A plugin registers under a name. Built-in ones are known by name and module, those of other packages by entry point;
either is imported when it is looked up, or when a listing needs all.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from agent.errors import InputError, message_of
from agent.safe_text import closest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")
OURS = "promptassay"


class Listed(NamedTuple, Generic[T]):
    """One line of a listing; `thing` is None if `fault` says why it cannot be used."""

    name: str
    origin: str
    thing: T | None
    fault: str = ""


class Registry(Generic[T]):
    """The plugins of one sort: built-in ones by module (`homes`), and other packages' by entry point (`group`)."""

    def __init__(
        self, what: str, group: str, homes: Mapping[str, str], aliases: Mapping[str, str] | None = None
    ) -> None:
        self.what, self.group = what, group
        self._homes, self._aliases = dict(homes), dict(aliases or {})
        self._known: dict[str, tuple[T, str]] = {}

    def add(self, name: str, thing: T, module: str) -> None:
        """Register what `module` defines, also repeatedly. Raises InputError for a name that is taken."""
        holder = self._homes.get(self._aliases.get(name, name)) or (
            self._known[name][1] if name in self._known else module
        )
        if holder != module:
            raise InputError(f"{module}: {holder} has a {self.what} called {name!r} already; take another name")
        self._known[name] = thing, module

    def get(self, name: str) -> T:
        """Return the plugin of that name, imported on demand. Raises InputError."""
        name = self._aliases.get(name, name)
        if name in self._known:
            return self._known[name][0]
        if name in self._homes:
            import_module(self._homes[name])
        elif found := self._foreign().get(name):
            self._load(name, found)
        else:
            close = closest(name, self.names(), 0.5)
            hint = f"; did you mean {close}?" if close else ";"
            raise InputError(f"no {self.what} is called {name!r}{hint} there are {', '.join(self.names())}")
        return self._known[name][0]

    def __contains__(self, name: object) -> bool:
        """Return whether the name is known, usable or not; imports nothing."""
        known = (self._homes, self._aliases, self._known)
        return isinstance(name, str) and (any(name in names for names in known) or name in self._foreign())

    def origin(self, name: str) -> str:
        """Return promptassay, a package as `NAME VERSION`, or a module of the running program."""
        if name in self._homes:
            return OURS
        return _packages(self._foreign().get(name, [])) or f"module {self._known[name][1]}"

    def names(self) -> tuple[str, ...]:
        """Return all names without importing: built-in ones in order, then the others sorted."""
        return (*self._homes, *sorted({*self._foreign(), *self._known} - {*self._homes, *self._aliases}))

    def all(self, names: Iterable[str] | None = None) -> Iterator[Listed[T]]:
        """Import and list all plugins, or those named, unusable ones with their fault."""
        foreign = self._foreign()
        for name in self.names() if names is None else names:
            origin = self.origin(name)
            try:
                yield Listed(name, origin, self.get(name))
            except InputError as error:
                yield Listed(name, origin, None, str(error))
            ours = {name, *(alias for alias, of in self._aliases.items() if of == name)} if name in self._homes else ()
            for taken in sorted({*ours} & {*foreign}):
                yield Listed(taken, _packages(foreign[taken]), None, f"left out: {OURS} has a {self.what} of that name")

    def usable(self) -> dict[str, T]:
        """Import everything and return the plugins that can be used, by name."""
        return {one.name: one.thing for one in self.all() if one.thing is not None}

    def _foreign(self) -> dict[str, list[EntryPoint]]:
        if not _is_in_packages(self.group):
            return {}
        from importlib.metadata import entry_points  # takes longer than all else that `optimize --help` does

        # looked up each time: a path may have been added
        found: dict[str, list[EntryPoint]] = {}
        for point in entry_points(group=self.group):
            if point not in (same := found.setdefault(point.name, [])):
                same.append(point)
        return found

    def _load(self, name: str, places: list[EntryPoint]) -> None:
        if len(places) > 1:
            raise InputError(f"the {self.what} {name!r} is in {_packages(places)}; uninstall all but one of them")
        whose = f"the {self.what} {name!r} of the package {_packages(places)}"
        try:
            places[0].load()
        except (Exception, SystemExit) as error:
            why = " ".join(message_of(error).split())[:300]
            raise InputError(f"{whose} cannot be loaded: {why}; fix or uninstall the package") from error
        if name not in self._known:
            raise InputError(f"{whose} is not there: {places[0].value} registers nothing of that name")


def _is_in_packages(group: str) -> bool:
    """Return whether a package on the path may have entry points of a group. Paths that are no folders may."""
    for path in sys.path:
        try:
            folders = [each for each in os.listdir(path or ".") if each.endswith((".dist-info", ".egg-info"))]
        except FileNotFoundError:
            continue
        except OSError:
            return True
        for folder in folders:
            try:
                with open(os.path.join(path, folder, "entry_points.txt"), "rb") as file:
                    if group.encode() in file.read():
                        return True
            except OSError:
                continue  # it has none
    return False


def _packages(places: Iterable[EntryPoint]) -> str:
    return " and ".join(f"{point.dist.name} {point.dist.version}" for point in places if point.dist)
