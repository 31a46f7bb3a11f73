"""Which path shows what: each of our pages is gathered once, and leaves as a page or, under .json, as the same data."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

from agent.errors import AgentError, InputError
from agent.ledger.query import History
from agent.report import page
from agent.report.web import audit, rating, runs, trials
from agent.report.web.ask import Ask, Site

RUN = r"/run/(?P<run>[^/]+?)"
MOST_FIELDS = 200
STATIC: Mapping[str, tuple[tuple[str, ...], str]] = {
    "style.css": (("page.css", "web.css"), "text/css; charset=utf-8"),
    "live.js": (("live.js",), "text/javascript; charset=utf-8"),
}


@dataclass(frozen=True, slots=True)
class Page:
    """`gather` is called in a thread with an open ledger; `template` is "" for what only programs ask for."""

    path: str
    template: str
    gather: Callable[[Ask], dict[str, Any]]


PAGES = (
    Page("/(?:runs)?", "runs.html", runs.runs),
    Page(RUN, "run.html", runs.run),
    Page(f"{RUN}/live", "", runs.live),
    Page(f"{RUN}/trial/(?P<number>[0-9]+)", "trial.html", trials.trial),
    Page(f"{RUN}/rate", "rate.html", rating.rate),
    Page(f"{RUN}/events", "events.html", audit.events),
    Page("/compare", "compare.html", runs.compared),
    Page("/audit", "audit.html", audit.audit),
    Page("/call/(?P<call>[^/.]+)", "call.html", audit.call),
)


def routes(site: Site) -> list[tuple[str, Callable[..., Any]]]:
    """Datasette's form: a pattern for the whole path, and a function of the request."""
    found: list[tuple[str, Callable[..., Any]]] = [
        (rf"{each.path}(?P<json>\.json)?$", _view(each, site)) for each in PAGES
    ]
    return [*found, (r"/assets/(?P<name>[\w.]+)$", _static)]


def _view(each: Page, site: Site) -> Callable[..., Any]:
    async def view(request: Any) -> Any:
        from datasette.utils.asgi import Response

        names = {name: unquote(value) for name, value in request.url_vars.items() if value is not None}
        as_json = names.pop("json", "") == ".json"
        if request.method == "POST":
            form = dict(_fields((await request.post_body()).decode("utf-8", "replace")))
            return Response.redirect(await asyncio.to_thread(_saved, site, names, form), status=303)
        args: dict[str, list[str]] = {}
        for name, value in _fields(request.query_string):
            args.setdefault(name, []).append(value)
        csrf = request.scope["csrftoken"]() if each.gather is rating.rate and not as_json else ""
        text = await asyncio.to_thread(_shown, each, site, names, args, as_json or not each.template, csrf)
        if as_json or not each.template:
            return Response(text, content_type="application/json; charset=utf-8")
        return Response.html(text)

    return view


def _shown(
    each: Page, site: Site, names: Mapping[str, str], args: Mapping[str, list[str]], as_json: bool, csrf: str
) -> str:
    with closing(History(site.db, verified=True)) as history:
        ask = Ask(site, history, names, args)
        data = each.gather(ask)
        if as_json:
            return json.dumps(data, indent=1)
        drawn = runs.chart(ask) if each.gather is runs.run else ""
    return page.render(f"web/{each.template}", **data, chart=drawn, csrf=csrf)


def _fields(text: str) -> list[tuple[str, str]]:
    """Names and values of an address or a form. Raises BadRequest where there are more than any page asks for."""
    from datasette.utils.asgi import BadRequest

    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="replace")
    except ValueError as error:
        raise BadRequest(f"More than {MOST_FIELDS} fields: no page has so many") from error


def _saved(site: Site, names: Mapping[str, str], form: Mapping[str, str]) -> str:
    with site.writing, closing(History(site.db, verified=True)) as history:
        return rating.save(Ask(site, history, names), form)


def _static(request: Any) -> Any:
    from datasette.utils.asgi import NotFound, Response

    name = request.url_vars["name"]
    if name not in STATIC:
        raise NotFound("There is no such file")
    parts, kind = STATIC[name]
    return Response("\n".join((page.FOLDER / "static" / part).read_text("utf-8") for part in parts), content_type=kind)


def failed(request: Any, error: Exception) -> Any:
    """The answer to a request that raised: what is wrong, in the form that was asked for, never a traceback."""
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
    return Response.html(page.render("web/said.html", status=status, what=what, hint=""), status=status)
