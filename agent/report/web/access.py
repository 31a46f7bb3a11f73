"""Access control for every page: loopback only, token only, read-only except for the forms of three pages.

An ASGI middleware that knows no page and no SQL. Refusals say what to do, and every reply has security headers.
Control characters in a reply become visible marks.
"""

from __future__ import annotations

import hmac
import json
import re
import sqlite3
import sys
from urllib.parse import quote, urlencode

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent.errors import AgentError, InputError
from agent.report.html import render
from agent.report.web.only_datasette import Base400, DatasetteError
from agent.safe_text import plain

WRITES = re.compile(r"/label|/run/[^/]+/(?:rate|play)|/release/[^/]+/[^/]+/play")
"""The only paths that accept a POST: labels, ratings and the playground."""
SQL = re.compile(r"/ledger(?:\.json)?(?:/.*)?")
"""Datasette's pages of the ledger; all its other paths are blocked."""
FORM = "application/x-www-form-urlencoded"
OPEN = "/assets/"
"""Files of every page, also of a refusal: served without token."""
LARGEST_POST = 65_536  # bytes
MOST_FIELDS = 200
READ_ONLY = "The ledger is read-only. Each run has pages for ratings and the playground."
ONLY_JSON = (
    "Use .json, or `optimize audit export` for everything: a spreadsheet could run cells of a CSV file as formulas."
)
STRICT = (
    "default-src 'none'; img-src 'self' data:; style-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
OURS = STRICT + "; script-src 'self'; connect-src 'self'; style-src-attr 'unsafe-inline'"
"""Policy of our pages: one script, which calls this server, and style attributes of charts."""
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class AccessControl:
    """Admits requests with `token`: once in the URL, which sets a cookie, or in `Authorization: Bearer`."""

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self._app, self._token = app, token
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")}
        self._cookie = f"promptassay_{port}"  # cookies do not tell ports apart

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request, kept = Request(scope, receive), list[Message]()

        async def keep(message: Message) -> None:
            kept.append(message)

        try:
            await (self._answer(request) or _refusal(request) or self._app)(scope, receive, keep)
        except Exception as error:
            kept.clear()
            await failed(request, error)(scope, receive, keep)
        start, *parts = kept
        headers = MutableHeaders(raw=[(name.lower(), value) for name, value in start.get("headers", ())])
        body = _marked(b"".join(part.get("body", b"") for part in parts), headers.get("content-type", ""))
        for name in ("link", "server"):
            del headers[name]
        policy = STRICT if request.url.path.startswith("/ledger") else OURS
        headers |= {**HEADERS, "content-security-policy": policy, "content-length": str(len(body))}
        await send({**start, "headers": headers.raw})
        await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else body})

    def _answer(self, request: Request) -> Response | None:
        # The printed link gets a page that sets the cookie and continues: after a redirect from another
        # site the request would still count as that site's, and a strict cookie would not be sent.
        given = request.query_params
        if request.headers.get("host", "").lower() not in self._hosts:
            return page(403, "This page is only for the machine that serves it.", "Open the printed link.")
        if "token" in given:
            if request.method != "GET" or not self._is_token(given["token"]):
                return page(403, "This link is invalid or expired.", "Open the link that was printed last.")
            rest = urlencode([pair for pair in given.multi_items() if pair[0] != "token"])
            where = quote(request.scope["path"].lstrip("/\\")) + (f"?{rest}" if rest else "")
            signed_in = page(200, "Signed in.", "One moment.")
            signed_in.headers["set-cookie"] = f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict"
            signed_in.headers["refresh"] = f"0;url=/{where}"
            return signed_in
        bearer = bearer_of(request)
        if request.scope["path"].startswith(OPEN) or self._is_token(bearer or request.cookies.get(self._cookie, "")):
            return None
        return page(
            403,
            "You are not signed in.",
            "Open the ?token= link that `optimize ui` printed. Programs send `Authorization: Bearer TOKEN`.",
        )

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode())


def bearer_of(request: Request) -> str:
    """Return the bearer token, which no page of another site can send; "" without one."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return (token or "-") if scheme.lower() == "bearer" else ""


def _refusal(request: Request) -> Response | None:
    path, headers, is_post = request.scope["path"], request.headers, request.method == "POST"
    routed = request.scope.get("raw_path", path.encode()).decode("latin-1").partition("?")[0]
    writes = is_post and WRITES.fullmatch(routed)
    site = headers.get("sec-fetch-site", "none")
    size = headers.get("content-length", "")
    origins = {None, f"http://{headers['host']}", "null" if site == "same-origin" else None}  # we send no referrer
    kind = headers.get("content-type", "").partition(";")[0].strip()
    end = re.search(r"\.(\w+)$", path)
    its_page = "Send it from its page in this web view."
    refusals: tuple[tuple[object, int, str, str], ...] = (
        (site not in ("none", "same-origin"), 403, "Another page sent this request.", "Open this address yourself."),
        (not writes and request.method not in ("GET", "HEAD"), 405, "Nothing can be written here.", READ_ONLY),
        (is_post and headers.get("origin") not in origins, 403, "Another page sent this form.", its_page),
        (is_post and kind != FORM, 415, "This is not the form of that page.", its_page),
        (is_post and not (size.isdecimal() and int(size) <= LARGEST_POST), 413, "This form is too large.", its_page),
        (request.url.query.count("&") >= MOST_FIELDS, 400, f"A request may have at most {MOST_FIELDS} fields.", ""),
        ("/-/" in path, 404, "There is no such page.", ""),
        (SQL.fullmatch(path) and end and end[1] != "json", 404, "This kind of file is not served.", ONLY_JSON),
    )
    return next((page(status, what, hint) for is_refused, status, what, hint in refusals if is_refused), None)


def page(status: int, what: str, hint: str = "") -> Response:
    """Return a page of two sentences."""
    return HTMLResponse(render("web/message.html", status=status, what=what, hint=hint), status)


def failed(request: Request, error: Exception) -> Response:
    """Return the response to an exception, never a traceback; JSON for JSON paths."""
    path, status, what = request.scope["path"], 500, "Internal error; see the terminal."
    if isinstance(error, InputError):
        status, what = (400 if request.method == "POST" else 404), str(error)
    elif isinstance(error, AgentError):
        status, what = 503, str(error)
    elif isinstance(error, HTTPException):
        status, what = error.status_code, error.detail
    elif isinstance(error, Base400):
        status, what = error.status, "There is no such page." if error.status == 404 else str(error)
    elif isinstance(error, DatasetteError):
        status = 400 if error.status == 500 else error.status
        what = "The query took too long and was stopped." if error.message_is_html else str(error.message)
    elif isinstance(error, sqlite3.ProgrammingError) and path.startswith("/ledger/"):
        status, what = 404, "There is no such row: the address has too few key columns."
    elif isinstance(error, ValueError) and path.startswith("/ledger"):
        status, what = 400, "The address is invalid: a parameter is malformed."
    else:
        print(f"error: {re.sub('[^ -~]', '?', f'{type(error).__name__}: {error}')}", file=sys.stderr)
    if path.endswith(".json"):
        code = {"code": error.code} if isinstance(error, AgentError) else {}
        said = json.dumps({"ok": False, "error": what, **code, "status": status})
        return Response(said, status, media_type="application/json")
    return page(status, what)


def _marked(body: bytes, kind: str) -> bytes:
    # control characters as \x1b in pages and \u007f in JSON; lines of JSON come as plain text
    if kind.startswith(("application/json", "text/plain")):
        return body.replace(b"\x7f", b"\\u007f")
    if kind.startswith("text/"):
        return plain(body.decode("utf-8", "replace")).encode()
    return body
