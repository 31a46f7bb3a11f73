"""One request to our pages: an open ledger, URL parameters, and the server's cache."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from agent.errors import InputError
from agent.ledger.query import History, Row
from agent.release.runtime import Prompt
from agent.report.blocks import PageSection
from agent.report.checks import ChecksResult, checks_of
from agent.report.view import RunView
from agent.results.base import Result
from agent.types import Budget

T = TypeVar("T")
PAGE_ROWS = 50
CACHE_ENTRIES = 64


class LedgerCheck(Result):
    """A verification of the ledger up to an event. `moving`: a run was writing, so bytes were not compared."""

    utc: str
    seconds: float
    seq: int
    hash: str
    findings: tuple[str, ...] = ()
    moving: bool = False


@dataclass(frozen=True, slots=True)
class Quote:
    """Upper bounds of a question's calls and US dollars (None: price unknown); `problem`: why it cannot be asked, or
    ""."""

    calls: int
    usd: float | None
    problem: str = ""


PLAYGROUND = "playground"
"""Kind of a ledger run made by the playground."""


class PlaygroundAsker(Protocol):
    """Calls models for the playground, under hard caps for the whole server."""

    caps: Budget

    @property
    def left(self) -> Budget:
        """What is left of the caps."""
        ...

    def quote(self, prompts: Mapping[str, Prompt], fields: Mapping[str, str]) -> Quote:
        """Return the upper bounds for `ask`; makes no call and needs no key."""
        ...

    def ask(self, of: str, prompts: Mapping[str, Prompt], fields: Mapping[str, str]) -> str:
        """Ask each prompt of `of` once; return the run with the answers. Raises AgentError."""
        ...

    def stop(self) -> None:
        """Cancel running questions, and refuse later ones."""
        ...


@dataclass(slots=True)
class Site:
    """State of the server: the ledger's file, its checks, the cache.

    `checking` and `writing` are locks for full checks and for ratings and labels. `releases` is the registry, `asker`
    calls models for the playground (None: off), `labelling` is the task to label (None: none), `csrf` is the token of
    every form.
    """

    db: Path
    check_at_start: LedgerCheck
    releases: Path
    asker: PlaygroundAsker | None = None
    labelling: object | None = None
    whole_check: LedgerCheck | None = None
    cache: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    checking: threading.Lock = field(default_factory=threading.Lock)
    writing: threading.Lock = field(default_factory=threading.Lock)
    csrf: str = field(default_factory=secrets.token_urlsafe)


@dataclass(frozen=True, slots=True)
class PageRequest:
    """One request: `names` are the path parameters, `args` the query; `history` is closed after the answer."""

    site: Site
    history: History
    names: Mapping[str, str] = field(default_factory=dict)
    args: QueryParams = field(default_factory=QueryParams)

    def arg(self, name: str) -> str:
        """Return the last value of a parameter, stripped; "" without one."""
        return self.args.get(name, "").strip()

    def number(self, name: str, default: int = 1, low: int = 1) -> int:
        """Return a parameter as an integer of at least `low`, or the default."""
        text = self.arg(name)
        return max(low, int(text)) if text.isdecimal() and len(text) < 12 else default

    def path_number(self, name: str) -> int:
        """Return a part of the path as an integer. Raises InputError."""
        text = self.names[name]
        if not text.isdecimal() or len(text) > 18:
            raise InputError(f"{text}: not a number")
        return int(text)

    def cached(self, what: str, key: object, make: Callable[[], T]) -> T:
        """Return `make()`, cached until the next write to the ledger. So erased texts vanish at once."""
        cache = self.site.cache
        place = (self.history.select("SELECT seq FROM head")[0]["seq"], what, key)
        found: T | None = cache.get(place)
        if found is None:
            if len(cache) >= CACHE_ENTRIES:
                cache.clear()
            cache[place] = found = make()
        return found

    def query(self, *without: str) -> str:
        """Return the query without the page number and the named parameters."""
        pairs = self.args.multi_items()
        return urlencode([(name, value) for name, value in pairs if value and name not in ("page", *without)])

    def paged(self, rows: Sequence[T]) -> tuple[list[T], dict[str, Any]]:
        """Return the rows of the requested page, and its place."""
        pages = max(1, -(-len(rows) // PAGE_ROWS))
        number = min(self.number("page"), pages)
        place = {"page": number, "pages": pages, "count": len(rows), "query": self.query()}
        return list(rows[(number - 1) * PAGE_ROWS : number * PAGE_ROWS]), place


@dataclass(frozen=True, slots=True)
class Page:
    """The content of a route: blocks, and for programs the `data` behind them.

    Args:
        title: of the window.
        sql: address of its SQL query.
        foot: the last line.
        script: a file of static/ that it needs.
        status: HTTP status.
    """

    title: str
    sections: Sequence[PageSection] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    sql: str = ""
    foot: str = ""
    script: str = ""
    status: int = 200


def sql_link(sql: str, **values: object) -> str:
    """Return the address of a query on the SQL page, where it can be edited."""
    return "/ledger?" + urlencode({"sql": " ".join(sql.split()), **values})


class CachedRunView(RunView):
    """A run whose trials and costs are cached until the next write to the ledger."""

    def __init__(self, request: PageRequest) -> None:
        super().__init__(request.history, request.names["run"])
        self._request = request

    @cached_property
    def trials(self) -> list[Row]:
        return self._request.cached("trials", self.id, lambda: super(CachedRunView, self).trials)

    @cached_property
    def costs(self) -> list[Row]:
        return self._request.cached("costs", self.id, lambda: super(CachedRunView, self).costs)


def checks_named(request: PageRequest, name: str) -> ChecksResult:
    """Return the finished checks of a prompt, oldest first."""
    found = request.cached("checks", name, lambda: checks_of(request.history, name))
    return ChecksResult(name=name, checks=tuple(found))
