"""Datasette over a ledger with our routes in front and the gate before it, and the server that shows it on loopback."""

from __future__ import annotations

import logging
import secrets
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from agent.errors import InputError
from agent.extras import require
from agent.ledger.query import History
from agent.report import page
from agent.report.web.ask import Ask, Site
from agent.report.web.audit import opened
from agent.report.web.database import read_only
from agent.report.web.gate import App, Gate
from agent.report.web.routes import failed, routes

F = TypeVar("F", bound=Callable[..., Any])
NAME = "ledger"  # of the database in Datasette's addresses
SETTINGS: Mapping[str, Any] = {
    "default_page_size": 50,
    "max_returned_rows": 1000,
    "sql_time_limit_ms": 2000,
    "num_sql_threads": 2,
    "allow_facet": False,
    "suggest_facets": False,
    "allow_download": False,
    "allow_csv_stream": False,
    "default_cache_ttl": 0,
}
LONGEST_CELL = 2048
OTHER_HANDLERS = ("datasette.handle_exception", "datasette.forbidden")
"""Datasette's own, which print every error with the values of all variables, and show pages with scripts."""


@dataclass(frozen=True, slots=True)
class Web:
    """The application, what opens it, and what ends its child processes."""

    app: App
    token: str
    port: int
    site: Site
    close: Callable[[], None]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/?token={self.token}"


def make(db: Path, port: int, opener: Callable[[Path], History] = History) -> Web:
    """The ledger is checked once, here, by `opener`. Raises LedgerError when it is not what was written."""
    require("ui", "optimize ui")
    site = Site(db, opened(db, opener))
    token = secrets.token_urlsafe(24)
    datasette, plugins = _datasette()
    plugin = _plugin(site)
    plugins.register(plugin)
    made = datasette(
        [], memory=True, settings=dict(SETTINGS), template_dir=str(page.FOLDER / "templates/web/datasette")
    )
    made.remove_database("_memory")
    ledger = read_only(made, db)
    made.add_database(ledger, name=NAME)
    return Web(Gate(made.app(), token, port), token, port, site, ledger.close)


def _datasette() -> tuple[Any, Any]:
    """Datasette and its plugins, of which only its own are there: what else is installed is not even imported."""
    before = getattr(sys, "_called_from_test", None)
    sys._called_from_test = True  # type: ignore[attr-defined]  # its one switch that leaves installed plugins out
    try:
        from datasette.app import Datasette
        from datasette.plugins import DEFAULT_PLUGINS, pm
    finally:
        if before is None:
            del sys._called_from_test  # type: ignore[attr-defined]
    for name, _ in pm.list_name_plugin():
        if name in OTHER_HANDLERS or not (name in DEFAULT_PLUGINS or name.startswith("promptassay ")):
            pm.unregister(name=name)
    return Datasette, pm


def _plugin(site: Site) -> Any:
    """Our pages for one Datasette, the next that is made."""
    from datasette import hookimpl

    hook: Callable[[F], F] = hookimpl

    class Plugin:
        __name__ = "agent.report.web"

        def __init__(self) -> None:
            self.mine: Any = None

        @hook
        def register_routes(self, datasette: Any) -> list[tuple[str, Callable[..., Any]]]:
            self.mine = self.mine or datasette
            return routes(site) if datasette is self.mine else []

        @hook
        def render_cell(self, value: Any) -> str | None:
            """Text as it is: nothing in a cell becomes a link."""
            if not isinstance(value, str) or not value:
                return None
            return value if len(value) <= LONGEST_CELL else value[:LONGEST_CELL] + "…"

        @hook
        def handle_exception(self, request: Any, exception: Exception) -> Any:
            return failed(request, exception)

        @hook
        def forbidden(self, request: Any, message: str) -> Any:
            return failed(request, InputError(message))

    return Plugin()


def bind(port: int) -> socket.socket:
    """A socket of this machine only, on `port`, or on a free one for 0. Raises InputError when it is taken."""
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind(("127.0.0.1", port))
        found.listen()  # whoever comes before the server runs waits
    except OSError as error:
        found.close()
        raise InputError(f"--port {port}: cannot be used ({error.strerror}); leave it out for a free one") from error
    return found


def warm(site: Site) -> None:
    """Makes the first page as quick as the next: loads what draws and compares, and gathers the latest run."""
    from agent.report.web import runs
    from agent.stats.intervals import paired_difference

    paired_difference([0.0, 1.0], [0.0, 0.0], 0)

    with closing(History(site.db, verified=True)) as history:
        if found := history.runs():
            ask = Ask(site, history, {"run": found[0]["id"]})
            with suppress(Exception):  # one run that cannot be shown must not hide the others
                runs.run(ask)
                runs.chart(ask)


def serve(web: Web, on: socket.socket) -> None:
    """Answers until the process is told to stop, and then at once. Raises KeyboardInterrupt after Ctrl-C."""
    import uvicorn

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            """What is being answered is called off; what uvicorn has to say of that helps nobody."""
            super().handle_exit(sig, frame)
            self.force_exit = True
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)

    settings = uvicorn.Config(
        web.app, log_level="warning", access_log=False, server_header=False, lifespan="off", ws="none"
    )
    try:
        Server(settings).run(sockets=[on])
    finally:
        web.close()
