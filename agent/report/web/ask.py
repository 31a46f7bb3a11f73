"""One request to our pages: an open ledger, the words of the address, and what was gathered before."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

from agent.errors import InputError
from agent.ledger.query import History

T = TypeVar("T")
PAGE = 50  # rows of a list
KEPT = 64  # things gathered that are remembered


@dataclass(frozen=True, slots=True)
class Checked:
    """That the ledger was looked at: when, for how many seconds, up to which event, what does not hold. `moving`: a
    run was writing, so that its bytes could not be compared with the seal."""

    utc: str
    seconds: float
    seq: int
    hash: str
    findings: tuple[str, ...] = ()
    moving: bool = False


class Kept:
    """What was gathered, for as long as nothing is written to the ledger. For several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: OrderedDict[tuple[Any, ...], Any] = OrderedDict()

    def of(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        """`make()`, or what it gave when `key` was last asked for."""
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
                found: T = self._found[key]
                return found
        made = make()
        with self._lock:
            self._found[key] = made
            while len(self._found) > KEPT:
                self._found.popitem(last=False)
        return made


@dataclass(slots=True)
class Site:
    """What lives as long as the server: the ledger's file, how it was found, and what is remembered. The whole check,
    and writing a rating, is for one thread at a time."""

    db: Path
    opened: Checked
    verified: Checked | None = None
    kept: Kept = field(default_factory=Kept)
    verifying: threading.Lock = field(default_factory=threading.Lock)
    writing: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, slots=True)
class Ask:
    """`names` are the parts of the path, `args` the parameters behind it; `history` is closed after the answer."""

    site: Site
    history: History
    names: Mapping[str, str] = field(default_factory=dict)
    args: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def arg(self, name: str, default: str = "") -> str:
        return self.args.get(name, [default])[-1].strip()

    def number(self, name: str, default: int = 1, low: int = 1) -> int:
        """A whole number of the address; anything else is the default."""
        text = self.arg(name)
        return max(low, int(text)) if text.isdecimal() and len(text) < 12 else default

    def kept(self, what: str, key: object, make: Callable[[], T]) -> T:
        """`make()`, remembered until something is written to the ledger."""
        seq = self.history.select("SELECT seq FROM head")[0]["seq"]
        return self.site.kept.of((seq, what, key), make)


def paged(ask: Ask, rows: Sequence[T], size: int = PAGE) -> tuple[list[T], dict[str, Any]]:
    """The rows of the page that was asked for, and where that is."""
    pages = max(1, -(-len(rows) // size))
    number = min(ask.number("page"), pages)
    place = {"page": number, "pages": pages, "count": len(rows), "query": query(ask)}
    return list(rows[(number - 1) * size : number * size]), place


def query(ask: Ask, *without: str) -> str:
    """The parameters of the address, but for the page and those named."""
    kept = [(name, value) for name, values in ask.args.items() for value in values]
    return urlencode([(name, value) for name, value in kept if value and name not in ("page", *without)])


def sql_link(sql: str, **values: object) -> str:
    """The same question on the page for SQL, where it can be changed."""
    return "/ledger?" + urlencode({"sql": " ".join(sql.split()), **values})


def number_in(ask: Ask, name: str) -> int:
    text = ask.names[name]
    if not text.isdecimal() or len(text) > 18:
        raise InputError(f"{text}: not a number")
    return int(text)
