"""The base classes of all results.

Attributes and JSON keys have the same names and order; docs/json.md has the JSON Schema of each model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.errors import InputError

Interval = tuple[float, float]
SideName = Literal["baseline", "winner"]
_S = TypeVar("_S")


def absent() -> Any:
    """Return a field that JSON omits when it is None."""
    return Field(None, exclude_if=_is_none)


def hidden(default: Any = ...) -> Any:
    """Return a field that JSON never holds."""
    return Field(default, exclude=True)


def called(name: str) -> Any:
    """Return a field with another name in JSON, such as one that Python reserves."""
    return Field(validation_alias=name, serialization_alias=name)


def _is_none(value: object) -> bool:
    return value is None


class Result(BaseModel):
    """A frozen part of a result; refuses unknown keys, NaN and infinity.

    A class with `blocks()` describes its own output; the report makes the blocks of all others (`job_blocks`).
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        serialize_by_alias=True,
        validate_by_name=True,
        defer_build=True,
    )

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Validate a stored result; raise InputError if a key or type does not match."""
        try:
            return cls.model_validate(found)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise InputError(
                f"{where}: {first['msg']}; the result is of another version, use the promptassay that wrote it"
            ) from error

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints: keys of the class first, then inherited ones."""
        found, fields = self.model_dump(mode="json"), type(self).model_fields
        names = dict.fromkeys(name for each in type(self).__mro__ for name in vars(each).get("__annotations__", ()))
        keys = [fields[name].serialization_alias or name for name in names if name in fields]
        return {key: found[key] for key in dict.fromkeys([*keys, *found]) if key in found}


class TwoSided(Result, Generic[_S]):
    """A part with one value for each of the two prompts."""

    def side(self, name: SideName) -> _S:
        found: _S = getattr(self, name)
        return found


class Tokens(Result):
    """Token counts; `cached_prompt` is the part of `prompt` that the provider had cached."""

    prompt: int
    cached_prompt: int = 0
    completion: int


class CostedResult(Result):
    """A result with its cost; these keys come last in JSON.

    `calls`: by role, `cached` those answered from the ledger. `limited`: requests refused with status 429. `overspent`:
    why a cap was exceeded, or "". `cost_usd`: without the models of `unpriced`; `lost_usd`: upper bound of the part
    spent on failed calls.
    """

    calls: Mapping[str, int]
    tokens: Tokens
    limited: int = 0
    overspent: str = ""
    cost_usd: float
    lost_usd: float = 0.0
    unpriced: tuple[str, ...] = ()
    seconds: float
    ledger_head: str = ""

    @property
    def calls_made(self) -> dict[str, int]:
        """Calls by role, without those answered from the ledger."""
        return {role: count for role, count in self.calls.items() if role != "cached"}


class Mean(Result):
    """A mean over `n` rows, of scores in [0, 1] or of their changes; None if no row has a score."""

    mean: float | None = None
    ci95: Interval | None = None
    n: int = 0


class WasNow(Result, Generic[_S]):
    """The same figure for the reference and for today."""

    was: _S
    now: _S
