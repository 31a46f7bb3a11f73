"""The base of all results. Knows no job.

Attributes and JSON keys have the same names and the same order; the JSON Schema of each model is in docs/json.md.
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
    """A field that is None, and not printed, where a result has nothing of it."""
    return Field(None, exclude_if=_is_none)


def hidden(default: Any = ...) -> Any:
    """A field that is not printed."""
    return Field(default, exclude=True)


def called(name: str) -> Any:
    """A field that has this name in JSON, where Python has no such name."""
    return Field(validation_alias=name, serialization_alias=name)


def _is_none(value: object) -> bool:
    return value is None


class Result(BaseModel):
    """A frozen part of a result. Refuses unknown keys, and numbers that JSON has no word for.

    A result that its command prints may have `blocks()`, the blocks that are printed; those of others are made by the
    report (`job_blocks`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, serialize_by_alias=True)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Raises InputError where a key is missing or unknown, or a value has another type."""
        try:
            return cls.model_validate(found)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise InputError(
                f"a result of another version: {where}: {first['msg']}; use the version of promptassay that wrote it"
            ) from error

    def to_json(self) -> dict[str, Any]:
        """The object that `--json` prints: the keys of a class first, then those that it inherits."""
        found, fields = self.model_dump(mode="json"), type(self).model_fields
        names = dict.fromkeys(name for each in type(self).__mro__ for name in vars(each).get("__annotations__", ()))
        keys = [fields[name].serialization_alias or name for name in names if name in fields]
        return {key: found[key] for key in dict.fromkeys([*keys, *found]) if key in found}


class TwoSided(Result, Generic[_S]):
    """A part with something of each of the two prompts."""

    def side(self, name: SideName) -> _S:
        """What it has of one prompt."""
        found: _S = getattr(self, name)
        return found


class Tokens(Result):
    """Tokens by kind; `cached_prompt` are those of `prompt` that a provider had cached."""

    prompt: int
    cached_prompt: int = 0
    completion: int


class CostedResult(Result):
    """A result with what it cost; these keys come last in JSON.

    Args:
        calls: by role, and `cached`: those answered from the ledger.
        limited: requests refused with status 429, which are no calls.
        overspent: by how much a cap was passed, and why; "" for not.
        cost_usd: in US dollars, without the models of `unpriced`.
        lost_usd: the most that failed calls may have cost of it.
        seconds: of wall time.
        ledger_head: the hash of the ledger's last event.
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
        """By role, without those answered from the ledger."""
        return {role: count for role, count in self.calls.items() if role != "cached"}


class Mean(Result):
    """A mean score in [0, 1] over `n` rows; None where no row has one."""

    mean: float | None = None
    ci95: Interval | None = None
    n: int = 0


class WasNow(Result, Generic[_S]):
    """The same figure of the reference and of today."""

    was: _S
    now: _S
