"""The server of `optimize ui`: routes, Datasette below them, and the server on loopback.

Each of our pages is built once and sent as HTML or, under .json, as the same data.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import secrets
import socket
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from pydantic_core import to_jsonable_python
from starlette.datastructures import URL, QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from agent.errors import InputError
from agent.ledger.query import History
from agent.report import html
from agent.report.web import (
    labelling_pages,
    ledger_pages,
    playground_page,
    registry_pages,
    row_pages,
    run_pages,
    trial_pages,
)
from agent.report.web.access import LARGEST_POST, MOST_FIELDS, SQL, AccessControl, bearer_of
from agent.report.web.only_datasette import Datasette
from agent.report.web.page_request import Page, PageRequest, PlaygroundAsker, Site
from agent.report.web.sql_database import LedgerDatabase
from agent.stats.intervals import paired_difference

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
METHODS = ("GET", "POST")
RUN = "/run/{run}"
RELEASE = "/release/{name}/{version}"


# -- pages ---


@dataclass(frozen=True, slots=True)
class Address:
    """A route. `page` runs in a thread with an open ledger.

    `post` handles the form of the page and returns the next address or page; None: no form that writes or calls.
    """

    path: str
    page: Callable[[PageRequest], Page]
    post: Callable[[PageRequest], str | Page] | None = None


ROUTES = (
    Address("/", ledger_pages.runs),
    Address("/runs", ledger_pages.runs),
    Address(RUN, run_pages.run),
    Address(f"{RUN}/report", run_pages.report),
    Address(f"{RUN}/live", run_pages.live),
    Address(f"{RUN}/trial/{{number}}", trial_pages.trial),
    Address(f"{RUN}/rate", labelling_pages.rate, post=labelling_pages.post_rating),
    Address(f"{RUN}/rows", row_pages.sealed),
    Address(f"{RUN}/play", playground_page.play, post=playground_page.post),
    Address(f"{RUN}/events", ledger_pages.events),
    Address("/play", playground_page.latest),
    Address("/compare", row_pages.compared),
    Address("/audit", ledger_pages.audit),
    Address("/releases", registry_pages.releases),
    Address(RELEASE, registry_pages.release),
    Address(f"{RELEASE}/play", playground_page.play, post=playground_page.post),
    Address("/checks/{name}", ledger_pages.checks),
    Address("/aliases", registry_pages.aliases),
    Address("/label", labelling_pages.label, post=labelling_pages.post_label),
    Address("/call/{call}", ledger_pages.call),
)


async def _answer(at: Address, site: Site, as_json: bool, request: Request) -> Response:
    if request.method != "POST":
        return await asyncio.to_thread(_read, at, site, as_json, request)
    form = QueryParams((await request.body()).decode("utf-8", "replace"))
    if len(form.multi_items()) > MOST_FIELDS:
        raise HTTPException(400, f"A form may have at most {MOST_FIELDS} fields.")
    is_ours = hmac.compare_digest(form.get("csrftoken", "").encode(), site.csrf.encode())
    if at.post is None or not (is_ours or bearer_of(request)):
        raise HTTPException(403, "This form was not sent from its page; open the page and send it again.")
    return await asyncio.to_thread(_write, at.post, site, form, request)


def _read(at: Address, site: Site, as_json: bool, request: Request) -> Response:
    with closing(History(site.db, verified=True)) as history:
        page = at.page(PageRequest(site, history, request.path_params, request.query_params))
        return _as_json(page) if as_json else _shown(page, site, request.url)


def _write(post: Callable[[PageRequest], str | Page], site: Site, form: QueryParams, request: Request) -> Response:
    with closing(History(site.db, verified=True)) as history:
        posted = post(PageRequest(site, history, request.path_params, form))
        return RedirectResponse(posted, 303) if isinstance(posted, str) else _shown(posted, site, request.url)


def _as_json(page: Page) -> Response:
    sections = [section.as_dict() for section in page.sections if section]
    data = {**page.data, "title": page.title, "sections": sections, "sql": page.sql}
    return Response(json.dumps(data, indent=1, default=to_jsonable_python), media_type="application/json")


def _shown(page: Page, site: Site, url: URL) -> Response:
    sections = html.page_sections(page.sections)
    also = f"{url.path.rstrip('/') or '/runs'}.json{'?' if url.query else ''}{url.query}"
    shown = html.render("web/page.html", page=page, sections=sections, csrf=site.csrf, also=also)
    return HTMLResponse(shown, page.status)


# -- the application ---


@dataclass(frozen=True, slots=True)
class Web:
    """The application, its token and link; `close` ends its child processes."""

    app: ASGIApp
    site: Site
    token: str
    url: str
    close: Callable[[], None]


def make(
    db: Path,
    port: int,
    opener: Callable[[Path], History] = History,
    releases: Path | None = None,
    asker: PlaygroundAsker | None = None,
    labelling: labelling_pages.LabelPlace | None = None,
) -> Web:
    """Return the application for a ledger, which is verified here once. Raises LedgerError.

    Args:
        opener: opens and verifies the ledger.
        releases: the registry; by default the folder `releases` next to the ledger.
        asker: calls models for the playground; None: calls are off.
        labelling: the task to label; None: no such page.
    """
    site = Site(db, ledger_pages.check_at_start(db, opener), releases or db.parent / "releases", asker, labelling)
    token = secrets.token_urlsafe(24)
    templates = str(html.FOLDER / "templates/web/datasette")
    datasette = Datasette([], memory=True, settings=dict(SETTINGS), template_dir=templates)
    datasette.remove_database("_memory")
    ledger = LedgerDatabase(datasette, db)
    datasette.add_database(ledger, name=NAME)
    sql = datasette.app()

    async def others(scope: Scope, receive: Receive, send: Send) -> None:
        if not SQL.fullmatch(scope["path"]):
            raise HTTPException(404, "There is no such page.")
        await sql(scope, receive, send)

    pages: list[BaseRoute] = [
        Route(f"{at.path}{end}", partial(_answer, at, site, bool(end)), methods=METHODS)
        for end in (".json", "")  # first: what ends in it is no part of a name
        for at in ROUTES
    ]
    pages.append(Mount("/assets", StaticFiles(directory=str(html.FOLDER / "static"))))
    app = Router(pages, redirect_slashes=False, default=others, max_body_size=LARGEST_POST)
    return Web(AccessControl(app, token, port), site, token, f"http://127.0.0.1:{port}/?token={token}", ledger.close)


# -- the server ---


def bind(port: int) -> socket.socket:
    """Return a loopback socket on `port`, or on a free one for 0. Raises InputError if the port is taken."""
    try:
        return socket.create_server(("127.0.0.1", port))  # listens: a request before the server runs waits
    except OSError as error:
        raise InputError(f"--port {port}: cannot be used ({error.strerror}); leave it out for a free one") from error


def warm(site: Site) -> None:
    """Draw the latest run in advance, so that the first page is fast."""

    paired_difference([0.0, 1.0], [0.0, 0.0], 0)
    with closing(History(site.db, verified=True)) as history, suppress(Exception):  # a bad run must not hide the others
        for run in history.runs()[:1]:
            page = run_pages.run(PageRequest(site, history, {"run": run["id"]}))
            _shown(page, site, URL(f"/run/{run['id']}"))


def serve(web: Web, on: socket.socket) -> None:
    """Serve `web` on a bound socket until a signal; raise KeyboardInterrupt after Ctrl-C."""

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            # cancel answers in progress, without uvicorn's messages about them
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
