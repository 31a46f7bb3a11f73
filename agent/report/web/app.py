"""The server of `optimize ui`: which path shows what, Datasette with these pages in front, and the server on loopback.

Each of our pages is gathered once, and leaves as a page or, under .json, as the same data.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import socket
import sqlite3
import sys
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote

from agent.errors import AgentError, InputError
from agent.extras import require
from agent.ledger.query import History
from agent.report import html
from agent.report.web import (
    audit_page,
    checks_page,
    compare_page,
    label_page,
    playground_page,
    rating_page,
    registry_pages,
    rows_page,
    run_pages,
)
from agent.report.web.access import AccessControl, App
from agent.report.web.page_request import PageRequest, PlaygroundAsker, Posted, Site
from agent.report.web.sql_database import read_only

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
RUN = r"/run/(?P<run>[^/]+?)"
RELEASE = r"/release/(?P<name>[^/]+)/(?P<version>[pf]_[0-9a-f]{16})"
MOST_FIELDS = 200
STATIC: Mapping[str, tuple[tuple[str, ...], str]] = {
    "style.css": (("page.css", "web.css"), "text/css; charset=utf-8"),
    "live.js": (("live.js",), "text/javascript; charset=utf-8"),
    "label.js": (("label.js",), "text/javascript; charset=utf-8"),
}


# -- pages ---


@dataclass(frozen=True, slots=True)
class Route:
    """`gather` is called in a thread with an open ledger; `template` is "" for a path that only programs use; `draw`
    adds what the page has and the JSON has not, such as charts; `post` takes the page's form, None where it has none
    that writes or asks."""

    path: str
    template: str
    gather: Callable[[PageRequest], dict[str, Any]]
    draw: Callable[[PageRequest], dict[str, Any]] | None = None
    post: Callable[[Site, Mapping[str, str], Mapping[str, str]], Posted] | None = None


ROUTES = (
    Route("/(?:runs)?", "runs.html", run_pages.runs),
    Route(RUN, "run.html", run_pages.run, run_pages.drawn),
    Route(f"{RUN}/report", "report.html", run_pages.report, run_pages.report_drawn),
    Route(f"{RUN}/live", "", run_pages.live),
    Route(f"{RUN}/trial/(?P<number>[0-9]+)", "trial.html", run_pages.trial),
    Route(f"{RUN}/rate", "rate.html", rating_page.rate, post=rating_page.post),
    Route(f"{RUN}/rows", "rows.html", rows_page.rows),
    Route(f"{RUN}/play", "play.html", playground_page.play, post=playground_page.post),
    Route(f"{RUN}/events", "events.html", audit_page.events),
    Route("/play", "play.html", playground_page.latest),
    Route("/compare", "compare.html", compare_page.compared),
    Route("/audit", "audit.html", audit_page.audit),
    Route("/releases", "releases.html", registry_pages.releases),
    Route(RELEASE, "release.html", registry_pages.release),
    Route(f"{RELEASE}/play", "play.html", playground_page.play, post=playground_page.post),
    Route("/checks/(?P<name>[^/]+?)", "checks.html", checks_page.checks, checks_page.drawn),
    Route("/aliases", "aliases.html", registry_pages.aliases),
    Route("/label", "label.html", label_page.label, post=label_page.post),
    Route("/call/(?P<call>[^/.]+)", "call.html", audit_page.call),
)


def routes(site: Site) -> list[tuple[str, Callable[..., Any]]]:
    """The routes as Datasette takes them: a pattern for the whole path, and a function of the request."""
    pages = [(rf"{route.path}(?P<json>\.json)?$", _view(route, site)) for route in ROUTES]
    return [*pages, (r"/assets/(?P<name>[\w.]+)$", _static)]


def _view(route: Route, site: Site) -> Callable[..., Any]:
    async def view(request: Any) -> Any:
        from datasette.utils.asgi import Response

        names = {name: unquote(value) for name, value in request.url_vars.items() if value is not None}
        as_json = names.pop("json", "") == ".json"
        csrf = request.scope["csrftoken"]() if route.post is not None and not as_json else ""
        if request.method == "POST" and route.post is not None:
            form = dict(_fields((await request.post_body()).decode("utf-8", "replace")))
            posted = await asyncio.to_thread(route.post, site, names, form)
            if posted.page is None:
                return Response.redirect(posted.address, status=303)
            page = html.render(f"web/{route.template}", **posted.page, csrf=csrf)
            return Response.html(page, status=posted.status)
        args: dict[str, list[str]] = {}
        for name, value in _fields(request.query_string):
            args.setdefault(name, []).append(value)
        text = await asyncio.to_thread(_text, route, site, names, args, as_json or not route.template, csrf)
        if as_json or not route.template:
            return Response(text, content_type="application/json; charset=utf-8")
        return Response.html(text)

    return view


def _text(
    route: Route, site: Site, names: Mapping[str, str], args: Mapping[str, list[str]], as_json: bool, csrf: str
) -> str:
    with closing(History(site.db, verified=True)) as history:
        request = PageRequest(site, history, names, args)
        data = route.gather(request)
        if as_json:
            return json.dumps(data, indent=1)
        drawn = route.draw(request) if route.draw else {}
        return html.render(f"web/{route.template}", **{**data, **drawn}, csrf=csrf)


def _fields(text: str) -> list[tuple[str, str]]:
    """Names and values of an address or a form. Raises BadRequest where there are more than any page asks for."""
    from datasette.utils.asgi import BadRequest

    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="replace")
    except ValueError as error:
        raise BadRequest(f"More than {MOST_FIELDS} fields: no page has so many") from error


def _static(request: Any) -> Any:
    from datasette.utils.asgi import NotFound, Response

    name = request.url_vars["name"]
    if name not in STATIC:
        raise NotFound("There is no such file")
    parts, kind = STATIC[name]
    return Response("\n".join((html.FOLDER / "static" / part).read_text("utf-8") for part in parts), content_type=kind)


def failed(request: Any, error: Exception) -> Any:
    """The answer to a request that raised: what is wrong, as JSON where the path is JSON, never a traceback."""
    from datasette.utils.asgi import Base400, Response
    from datasette.views.base import DatasetteError

    status, what = 500, "Something went wrong here; the terminal says what."
    if isinstance(error, InputError):
        status, what = (400 if request.method == "POST" else 404), str(error)
    elif isinstance(error, AgentError):
        status, what = 503, str(error)
    elif isinstance(error, Base400):
        status, what = error.status, "There is no such page." if error.status == 404 else str(error)
    elif isinstance(error, DatasetteError):
        status = 400 if error.status == 500 else error.status
        what = "The question took too long and was stopped." if error.message_is_html else str(error.message)
    elif isinstance(error, sqlite3.ProgrammingError) and request.path.startswith("/ledger/"):
        status, what = 404, "There is no such row: its address has less in it than the key of its table."
    elif isinstance(error, ValueError) and request.path.startswith("/ledger"):
        status, what = 400, "This address says something that cannot be read: a parameter of it is not well formed."
    else:
        print(f"error: {re.sub('[^ -~]', '?', f'{type(error).__name__}: {error}')}", file=sys.stderr)
    if request.path.endswith(".json"):
        return Response.json({"ok": False, "error": what, "status": status}, status=status)
    return Response.html(html.render("web/message.html", status=status, what=what, hint=""), status=status)


# -- the application ---


@dataclass(frozen=True, slots=True)
class Web:
    """The application, the token that opens it, and `close`, which ends its child processes."""

    app: App
    token: str
    port: int
    site: Site
    close: Callable[[], None]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/?token={self.token}"


def make(
    db: Path,
    port: int,
    opener: Callable[[Path], History] = History,
    releases: Path | None = None,
    asker: PlaygroundAsker | None = None,
    labelling: label_page.LabelPlace | None = None,
) -> Web:
    """The application over a ledger, which is checked once, here. Raises LedgerError.

    Args:
        opener: opens the ledger and checks it.
        releases: the registry; by default the folder `releases` next to the ledger.
        asker: asks the models of the playground; None: nobody is asked.
        labelling: the task whose rows are labelled; None: no page for it.
    """
    require("ui", "optimize ui")
    site = Site(db, audit_page.check_at_start(db, opener), releases or db.parent / "releases", asker, labelling)
    token = secrets.token_urlsafe(24)
    datasette, plugins = _datasette()
    plugin = _plugin(site)
    plugins.register(plugin)
    made = datasette(
        [], memory=True, settings=dict(SETTINGS), template_dir=str(html.FOLDER / "templates/web/datasette")
    )
    made.remove_database("_memory")
    ledger = read_only(made, db)
    made.add_database(ledger, name=NAME)
    return Web(AccessControl(made.app(), token, port), token, port, site, ledger.close)


def _datasette() -> tuple[Any, Any]:
    """Datasette's class and its plugin manager, with its own plugins only: others are not even imported."""
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
            self.datasette: Any = None

        @hook
        def register_routes(self, datasette: Any) -> list[tuple[str, Callable[..., Any]]]:
            self.datasette = self.datasette or datasette
            return routes(site) if datasette is self.datasette else []

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


# -- the server ---


def bind(port: int) -> socket.socket:
    """A socket of this machine only, on `port`, or on a free one for 0. Raises InputError when it is taken."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(("127.0.0.1", port))
        bound.listen()  # a request before the server runs waits
    except OSError as error:
        bound.close()
        raise InputError(f"--port {port}: cannot be used ({error.strerror}); leave it out for a free one") from error
    return bound


def warm(site: Site) -> None:
    """Makes the first page as quick as the next: loads what draws and compares, and gathers the latest run."""
    from agent.stats.intervals import paired_difference

    paired_difference([0.0, 1.0], [0.0, 0.0], 0)

    with closing(History(site.db, verified=True)) as history:
        if runs := history.runs():
            request = PageRequest(site, history, {"run": runs[0]["id"]})
            with suppress(Exception):  # one run that cannot be shown must not hide the others
                run_pages.run(request)
                run_pages.chart(request)


def serve(web: Web, on: socket.socket) -> None:
    """Serves `web` on a bound socket until a signal, and then ends at once. Raises KeyboardInterrupt after Ctrl-C."""
    import uvicorn

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            """Cancels the answers in progress, without uvicorn's messages about them."""
            super().handle_exit(sig, frame)
            if web.site.asker is not None:
                web.site.asker.stop()
            self.force_exit = True
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)

    settings = uvicorn.Config(
        web.app, log_level="warning", access_log=False, server_header=False, lifespan="off", ws="none"
    )
    try:
        Server(settings).run(sockets=[on])
    finally:
        web.close()
