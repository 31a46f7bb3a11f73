"""One request to our pages: an open ledger, the parameters of the address, and the cache of the server."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
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

T = TypeVar("T")
PAGE_ROWS = 50
CACHE_ENTRIES = 64


@dataclass(frozen=True, slots=True)
class LedgerCheck:
    """A check of the ledger up to an event. `moving`: a run was writing, so that its bytes were not compared."""

    utc: str
    seconds: float
    seq: int
    hash: str
    findings: tuple[str, ...] = ()
    moving: bool = False


class PageCache:
    """The values used last, up to CACHE_ENTRIES. For several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: OrderedDict[tuple[Any, ...], Any] = OrderedDict()

    def get(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        """The value of `key`, made where it is not there."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                value: T = self._values[key]
                return value
        made = make()
        with self._lock:
            self._values[key] = made
            while len(self._values) > CACHE_ENTRIES:
                self._values.popitem(last=False)
        return made


@dataclass(frozen=True, slots=True)
class Quote:
    """What asking costs at most: calls, and US dollars, None where nobody knows the price. `problem` says why it
    cannot be asked; "" where it can."""

    calls: int
    usd: float | None
    problem: str = ""


PLAYGROUND = "playground"
"""The kind of a run of the ledger that the playground made."""


class PlaygroundAsker(Protocol):
    """Asks models for the playground, under hard caps over all that one server asks."""

    @property
    def caps(self) -> Mapping[str, float | None]:
        """The caps, by `calls` and `usd`; None for one that was not given."""
        ...

    @property
    def left(self) -> Mapping[str, float | None]:
        """What is left of the caps, by the same names."""
        ...

    def quote(self, prompts: Mapping[str, Prompt], fields: Mapping[str, str]) -> Quote:
        """What `ask` costs at most; calls nothing and needs no key."""
        ...

    def ask(self, of: str, prompts: Mapping[str, Prompt], fields: Mapping[str, str]) -> str:
        """Asks each prompt once; returns the run of the ledger that holds the answers. Raises AgentError.

        Args:
            of: the id of a run, or NAME@VERSION.
            prompts: by side: `baseline`, `winner` or `release`.
        """
        ...

    def stop(self) -> None:
        """Ends what is being asked at once; asks nothing any more."""
        ...


@dataclass(slots=True)
class Site:
    """What lives as long as the server: the ledger's file, its checks, the cache. One thread at a time makes the whole
    check (`checking`), or writes a rating or a label (`writing`). `releases` is the registry; `asker` asks the models
    of the playground, None where no call is allowed; `labelling` is the task whose rows are labelled, None for none;
    `csrf` is what every form sends back.
    """

    db: Path
    check_at_start: LedgerCheck
    releases: Path
    asker: PlaygroundAsker | None = None
    labelling: object | None = None
    whole_check: LedgerCheck | None = None
    cache: PageCache = field(default_factory=PageCache)
    checking: threading.Lock = field(default_factory=threading.Lock)
    writing: threading.Lock = field(default_factory=threading.Lock)
    csrf: str = field(default_factory=secrets.token_urlsafe)


@dataclass(frozen=True, slots=True)
class PageRequest:
    """`names` are the parts of the path, `args` the parameters behind it; `history` is closed after the answer."""

    site: Site
    history: History
    names: Mapping[str, str] = field(default_factory=dict)
    args: QueryParams = field(default_factory=QueryParams)

    def arg(self, name: str, default: str = "") -> str:
        """A parameter's last value, stripped."""
        return self.args.get(name, default).strip()

    def number(self, name: str, default: int = 1, low: int = 1) -> int:
        """A parameter as a whole number, at least `low`; anything else is the default."""
        text = self.arg(name)
        return max(low, int(text)) if text.isdecimal() and len(text) < 12 else default

    def path_number(self, name: str) -> int:
        """A part of the path as a whole number. Raises InputError."""
        text = self.names[name]
        if not text.isdecimal() or len(text) > 18:
            raise InputError(f"{text}: not a number")
        return int(text)

    def cached(self, what: str, key: object, make: Callable[[], T]) -> T:
        """`make()`, cached until something is written to the ledger, so that an erased text is never shown."""
        seq = self.history.select("SELECT seq FROM head")[0]["seq"]
        return self.site.cache.get((seq, what, key), make)

    def query(self, *without: str) -> str:
        """The parameters of the address, but for the page and those named."""
        pairs = self.args.multi_items()
        return urlencode([(name, value) for name, value in pairs if value and name not in ("page", *without)])

    def paged(self, rows: Sequence[T]) -> tuple[list[T], dict[str, Any]]:
        """The rows of the page that the address names, and which page that is."""
        pages = max(1, -(-len(rows) // PAGE_ROWS))
        number = min(self.number("page"), pages)
        place = {"page": number, "pages": pages, "count": len(rows), "query": self.query()}
        return list(rows[(number - 1) * PAGE_ROWS : number * PAGE_ROWS]), place


@dataclass(frozen=True, slots=True)
class Page:
    """What an address shows.

    Args:
        title: of the window.
        data: under .json.
        sections: makes what the page shows.
        also: the address of its JSON; "": it names none.
        sql: that of the question behind it.
        foot: stands at its end.
        script: a file of static/ that it needs.
        status: of the answer.
    """

    title: str
    data: Mapping[str, Any]
    sections: Callable[[], Iterable[PageSection]] = tuple
    also: str = ""
    sql: str = ""
    foot: str = ""
    script: str = ""
    status: int = 200


def sql_link(sql: str, **values: object) -> str:
    """The address of the same question on the page for SQL, where it can be changed."""
    return "/ledger?" + urlencode({"sql": " ".join(sql.split()), **values})


class CachedRunView(RunView):
    """A run whose trials and costs are cached until something is written to the ledger."""

    def __init__(self, request: PageRequest) -> None:
        super().__init__(request.history, request.names["run"])
        self._request = request

    @cached_property
    def trials(self) -> list[Row]:
        return self._request.cached("trials", self.id, lambda: super(CachedRunView, self).trials)

    @cached_property
    def costs(self) -> list[Row]:
        return self._request.cached("costs", self.id, lambda: super(CachedRunView, self).costs)


def is_search(run: Row) -> bool:
    """Whether a run is a search, and not a check, a calibration or the like."""
    return not (run["options"] or {}).get("command") and not (run["result"] or {}).get("kind")


def checks_named(request: PageRequest, name: str) -> ChecksResult:
    """The finished checks of a prompt, the oldest first."""
    found = request.cached("checks", name, lambda: checks_of(request.history, name))
    return ChecksResult(name=name, checks=tuple(found))
