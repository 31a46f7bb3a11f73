"""Declare a job once.

    @job("transfer", asks="scoring prompts on other models", required=("models",))
    def transfer(run: str, options: TransferOptions, db: Path = DB) -> Work[TransferResult]:
        '''Score the best prompts of RUN on other models.'''

Parameters that are models of options, or whose default is an `option`, are options of the command and keyword arguments
in Python; the others are arguments, optional if they have a default. A job that asks models returns `Work`; any other
returns its result, or what it shows.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args, get_origin, get_type_hints

from pydantic import create_model
from pydantic.fields import FieldInfo

from agent.errors import AgentError
from agent.jobs import JOBS
from agent.jobs.work import Work
from agent.options.kinds import File
from agent.options.option import JobOptions, option
from agent.options.shared import LedgerOption
from agent.registry import Listed, Registry
from agent.report.blocks import PageSection
from agent.results.base import Result

if TYPE_CHECKING:
    from agent.jobs.observers import Watcher

S = TypeVar("S", bound=Result | None, covariant=True)
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
DB: Any = LedgerOption.field("db")
"""The default of a parameter for the ledger."""
GIVEN = ("observer", "as_json")
"""Parameters that the framework passes: the observer, and whether a program reads the result."""


def about(one: Listed[Any]) -> str:
    """Return the help line of a registered plugin, or why it cannot be used."""
    return str(one.thing.about) if one.thing is not None else f"cannot be used: {one.fault}"


def key_option(key: str) -> Any:
    """Declare `--KEY-column`, which renames a key of a log."""
    return option(key, f"The key of the {key} in a row; a.b is b inside a.", metavar="NAME")


@dataclass(frozen=True, slots=True)
class Printed(Generic[S]):
    """A result, and what else its command does: `value` is the object of `--json`, printed as its blocks.

    Args:
        exact: printed byte for byte instead.
        sections: makes what is printed instead; not called with `--json`.
        error: raised when `--json` has the value.
        lines: printed before the value: on stdout, with `--json` on stderr; `notes` on stderr.
        later: makes the value once the lines are printed.
    """

    value: S
    exit_code: int = 0
    sections: Callable[[], Sequence[PageSection]] | None = None
    notes: Sequence[str] = ()
    exact: str | None = None
    error: AgentError | None = None
    lines: Sequence[str] = ()
    later: Callable[[], S] | None = None
    errors: Sequence[str] = ()

    def made(self) -> S:
        """Return the value; make it now if that was left for later."""
        return self.later() if self.later else self.value


@dataclass(frozen=True, slots=True)
class After(Generic[T]):
    """Work, and what follows it, such as a comparison after its search."""

    first: Work[Any]
    then: Callable[[Any], Work[Any] | Printed[Any]]

    @staticmethod
    def next(found: Any, run: Callable[[Work[Any]], Any]) -> Any:
        """Return what a job gave; run work that has a sequel, and return that."""
        return found.then(run(found.first)) if isinstance(found, After) else found


@dataclass(frozen=True)
class JobSpec:
    """A declared job; `name` is the words of its command.

    Args:
        asks: the title of its progress; "" for a search, and for a job that asks no model.
        sections: makes what is printed from the result and the ledger.
        tracks: whether its command has the options of trackers.
        registries: by option, the registry of its values.
        listed: the heading of a list at the end of its help, and its rows.
        typed: options that are not read from the environment.
    """

    name: str
    function: Callable[..., Any]
    asks: str = ""
    sections: Callable[[Any, Path], list[PageSection]] | None = None
    tracks: bool = False
    required: tuple[str, ...] = ()
    registries: Mapping[str, Registry[Any]] = field(default_factory=dict)
    listed: tuple[str, Callable[[], Iterable[tuple[str, str]]]] | None = None
    has_json: bool = True
    typed: tuple[str, ...] = ()

    @cached_property
    def parameters(self) -> list[inspect.Parameter]:
        """The parameters of the function, with their types."""
        hints = get_type_hints(self.function, include_extras=True)
        own = inspect.signature(self.function).parameters.values()
        return [each.replace(annotation=hints[each.name]) for each in own]

    @cached_property
    def arguments(self) -> list[inspect.Parameter]:
        """The parameters that are not options."""
        others = [each for each in self.parameters if each.name not in GIVEN]
        return [each for each in others if not (_is_model(each) or isinstance(each.default, FieldInfo))]

    @cached_property
    def models(self) -> dict[str, type[JobOptions]]:
        """The models of options by parameter; "": options declared as single parameters."""
        found: dict[str, type[JobOptions]] = {each.name: each.annotation for each in self.parameters if _is_model(each)}
        single: Any = {
            each.name: (File if each.annotation is Path else each.annotation, each.default)
            for each in self.parameters
            if isinstance(each.default, FieldInfo)
        }
        return {
            **({"": create_model("Options", __base__=JobOptions, **single)} if single else {}),
            **found,
        }

    @cached_property
    def takes_observer(self) -> bool:
        """Whether its function gets an `observer` that shows its work before it returns."""
        return any(each.name == "observer" for each in self.parameters)

    @cached_property
    def makes_work(self) -> bool:
        """Whether it asks models."""
        return any(get_origin(kind) in (Work, After) for kind in self._returned)

    @cached_property
    def _returned(self) -> list[Any]:
        kinds = [get_type_hints(self.function)["return"]]
        for at, kind in enumerate(kinds):  # each before those in it
            kinds[at + 1 : at + 1] = get_args(kind)
        return kinds

    @property
    def paragraphs(self) -> list[str]:
        """The docstring up to its sections, which is the help text, then each section."""
        doc = inspect.cleandoc(self.function.__doc__ or "")
        return re.split(r"\n\n(?=(?:Returns|Raises|Example):\n)", doc)

    @property
    def about(self) -> str:
        """The help text."""
        return self.paragraphs[0]

    @property
    def summary(self) -> str:
        """The first paragraph of the help text, in one line."""
        return " ".join(self.about.split("\n\n")[0].split())

    @property
    def results(self) -> list[type[Result]]:
        """The types of its results, that of its work first."""
        kinds = [kind for kind in self._returned if isinstance(kind, type) and issubclass(kind, Result)]
        return list(dict.fromkeys(kinds))

    def begin(
        self,
        arguments: Mapping[str, Any],
        parts: Iterable[JobOptions],
        observer: Watcher | None = None,
        as_json: bool = False,
    ) -> Any:
        """Call the function with its arguments and an instance of each of its models."""
        given = {"observer": observer, "as_json": as_json}
        values = {**arguments, **{each.name: given[each.name] for each in self.parameters if each.name in GIVEN}}
        for name, part in zip(self.models, parts, strict=False):
            values |= {name: part} if name else dict(part)
        return self.function(**values)


def _is_model(parameter: inspect.Parameter) -> bool:
    return isinstance(parameter.annotation, type) and issubclass(parameter.annotation, JobOptions)


def job(name: str, **about: Any) -> Callable[[F], F]:
    """Declare a function as a command's job, such as "judge calibrate". `about`: other fields of `JobSpec`."""

    def declare(function: F) -> F:
        JOBS.add(name, JobSpec(name, function, **about), function.__module__)
        return function

    return declare
