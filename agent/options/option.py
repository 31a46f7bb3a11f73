"""Declare an option once: default, range, unit, group and help are fields of a frozen pydantic model."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Self, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from agent.errors import Problem, ProblemsError

SEVERAL = object()
"""Marks a repeatable option."""
T = TypeVar("T", bound="JobOptions")
_SHOWN = 60
"""Longest refused value that a message repeats, in characters."""
_ENDLESS = 2**53
"""From here on, a message names an upper limit only if it is exceeded."""


@dataclass(frozen=True, slots=True)
class TextReading:
    """How a command line's text becomes the value of an option."""

    metavar: str
    parse: Callable[[str], Any]
    write: str


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a job, as its model declares it."""

    name: str
    field: FieldInfo
    reading: TextReading | None
    """How a command line's text is parsed, if one word is not enough."""
    group: str
    short: str
    flag: str
    metavar: str
    unit: str
    is_everyday: bool
    table: str
    """The table of task.toml that may set it; "": `[run]`."""

    @property
    def help(self) -> str:
        """The help text; `{name}` in it is another option."""
        return " ".join((self.field.description or "").split())

    @property
    def about(self) -> str:
        """Return the help of a keyword argument. A flag that switches off says what False does."""
        text = with_names(self.help, lambda name: f"`{name}`")
        return f"False: {text[:1].lower()}{text[1:]}" if self.field.default is True else text

    @property
    def kind(self) -> Any:
        """The type without None, and without its notes."""
        annotation = self.field.annotation
        kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
        return next(each for each in kinds if each is not type(None))

    @property
    def choices(self) -> tuple[str, ...]:
        """The allowed words; () for other types."""
        return tuple(get_args(self.kind)) if get_origin(self.kind) is Literal else ()

    @property
    def is_repeatable(self) -> bool:
        """Whether it may be given repeatedly."""
        return SEVERAL in self.field.metadata

    def bound(self, name: Literal["ge", "gt", "le"]) -> float | None:
        """Return a limit of its range."""
        return next((getattr(note, name) for note in self.field.metadata if hasattr(note, name)), None)

    def parse(self, text: str) -> Any:
        """Parse a command line's text. Raises ValueError."""
        if self.reading is not None:
            return self.reading.parse(text)
        return {int: int, float: float, Path: Path}.get(self.kind, str)(text)

    def expected(self, value: Any = None) -> str:
        """Say what to write instead of `value`."""
        if self.reading is not None:
            return self.reading.write
        if self.choices:
            return f"write one of {', '.join(self.choices)}"
        if self.kind is bool:
            return "write true or false"
        if self.kind not in (int, float):
            return "write a path" if self.kind is Path else "write a text"
        what = "a whole number" if self.kind is int else "a number"
        return f"write {what}{f' of {self.unit}' if self.unit else ''}{self._range(value)}"

    def _range(self, value: Any) -> str:
        least, above, most = self.bound("ge"), self.bound("gt"), self.bound("le")
        if most is not None and most >= _ENDLESS:
            if isinstance(value, int | float) and value > most:
                return f" of at most {_number(most)}"
            most = None
        if least is not None:
            return f" of at least {_number(least)}" if most is None else f" from {_number(least)} to {_number(most)}"
        if above is not None:
            return f" above {_number(above)}" + ("" if most is None else f" and at most {_number(most)}")
        return ""


def with_names(text: str, spell: Callable[[str], str]) -> str:
    """Replace each `{name}` of an option in a text by its spelling; `{{name}}` becomes `{name}`."""
    return re.sub(r"\{\{(\w+)\}\}|\{(\w+)\}", lambda found: f"{{{found[1]}}}" if found[1] else spell(found[2]), text)


def option(
    default: Any,
    help: str | None = None,
    group: str = "",
    *,
    short: str = "",
    flag: str = "",
    metavar: str = "",
    unit: str = "",
    everyday: bool = False,
    table: str = "",
    **limits: Any,
) -> Any:
    """Declare an option as a field of `JobOptions`; `limits`: ge, gt and le.

    The help may also be a docstring below the field. `{name}` in it is another option as each surface writes it; only
    `everyday` options show in `--help`.
    """
    about: Any = {"group": group, "short": short, "flag": flag, "metavar": metavar, "unit": unit}
    about |= {"everyday": everyday, "table": table}
    return Field(
        default=default,
        description=help,
        json_schema_extra={"about": about, "limits": dict[str, Any](limits)},
        **limits,
    )


class JobOptions(BaseModel):
    """Options of a job: frozen, checked, and JSON-ready by `stored`."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        arbitrary_types_allowed=True,
        protected_namespaces=(),
        defer_build=True,
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        helps = _helps(cls.__module__)
        for name, field in cls.model_fields.items():
            field.description = field.description or helps.get((cls.__name__, name))

    @classmethod
    def field(cls, name: str, **changes: Any) -> Any:
        """Copy a field for another model, with `changes` to the arguments of `option`."""
        field = cls.model_fields[name]
        extra: Any = field.json_schema_extra
        same = {"default": field.default, "help": field.description, **extra["about"], **extra["limits"]}
        return option(**{**same, **changes})

    @classmethod
    def declared(cls) -> dict[str, Option]:
        """Return every option by name, in the order of declaration."""
        return _declared(cls)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Check values and make options. Raises ProblemsError."""
        try:
            return cls(**values)
        except ValidationError:
            wrong = cls.problems(values)
            raise ProblemsError(tuple(Problem(name, what) for name, what in wrong.items())) from None

    @classmethod
    def given(cls, values: Mapping[str, Any], spelled: Callable[[str], str] = str) -> Self:
        """Make options from a user's values, check contradictions, and spell names the user's way."""
        made = cls.of(values)
        if wrong := made.conflicts():
            raise ProblemsError(tuple(Problem(spelled(each.where), with_names(each.what, spelled)) for each in wrong))
        return made

    def conflicts(self) -> list[Problem]:
        """Return the contradictions between options, by name; `{name}` in a sentence is another option."""
        return []

    @classmethod
    def problems(cls, values: Mapping[str, Any]) -> dict[str, str]:
        """Return what is wrong with each value, by name; the same words for every surface."""
        found: dict[str, str] = {}
        try:
            cls.model_validate(dict(values))
        except ValidationError as error:
            for each in error.errors():
                name = str(each["loc"][0])
                option = cls.declared().get(name)
                said = each["type"] == "value_error" and each.get("ctx", {}).get("error")
                what = str(said) if said else option.expected(values[name]) if option else "unknown option"
                found.setdefault(name, f"{_shown(values[name])}: {what}" if option else what)
        return {name: found[name] for name in values if name in found}

    @classmethod
    def spelled(cls, name: str) -> str:
        """Return the flag of an option."""
        return cls.declared()[name].flag

    def stored(self) -> dict[str, Any]:
        """Return all that `of` needs, JSON-ready, for the ledger."""
        return self.model_dump(mode="json")

    @property
    def as_given(self) -> dict[str, Any]:
        """The given values, by name."""
        return {name: getattr(self, name) for name in self.model_fields_set}

    def filled(self, defaults: Mapping[str, Any]) -> Self:
        """Return a copy with `defaults` for options that were not given."""
        return self.of({**defaults, **self.as_given})

    def completed(self, defaults: Mapping[str, Any]) -> Self:
        """Return a copy with `defaults` for options without a value. They may switch a flag off."""
        is_open = {name: (own := getattr(self, name)) is None or own is True for name in defaults}
        return self.model_copy(update={name: value for name, value in defaults.items() if is_open[name]})

    def changed(self, **values: Any) -> Self:
        """Return a checked copy with other values."""
        return self.of({**self.as_given, **values})

    def changed_to(self, model: type[T], **values: Any) -> T:
        """Return the given options as those of a larger model, with other values."""
        return model(**{**self.as_given, **values})

    def part(self, model: type[T]) -> T:
        """Return the options that another model also has, as that model."""
        return model(**{name: getattr(self, name) for name in model.model_fields if name in type(self).model_fields})


@cache
def _helps(module: str) -> Mapping[tuple[str, str], str]:
    """Return the docstrings below the fields of a module's classes. Pydantic reads the file for each class."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except OSError:  # no source is installed
        return {}
    found = {}
    for model in (each for each in tree.body if isinstance(each, ast.ClassDef)):
        for field, below in pairwise(model.body):
            match field, below:
                case ast.AnnAssign(target=ast.Name(name)), ast.Expr(value=ast.Constant(str(text))):
                    found[model.name, name] = inspect.cleandoc(text)
    return found


@cache
def _declared(model: type[JobOptions]) -> dict[str, Option]:
    found = {}
    for name, field in model.model_fields.items():
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        about: Any = extra.get("about")
        if about is None:
            continue
        flag = about["flag"] or f"--{'no-' * (field.default is True)}{name.replace('_', '-')}"
        reading = next((note for note in field.metadata if isinstance(note, TextReading)), None)
        metavar = about["metavar"] or (reading.metavar if reading else "")
        words = (about["group"], about["short"], flag, metavar, about["unit"], about["everyday"], about["table"])
        found[name] = Option(name, field, reading, *words)
    return found


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:g}"


def _shown(value: Any) -> str:
    text = f"{value:.15g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
