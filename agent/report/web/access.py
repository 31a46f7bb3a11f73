"""Access to every page: from this machine only, with the token only, reading only, but for the forms of three pages.

An ASGI application around another; it knows no page and no SQL. What it refuses gets a page that says what to do, and
every reply its security headers. What could steer a terminal or hide in a text leaves as a visible mark.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from http.cookies import CookieError, SimpleCookie
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from agent.report.blocks import plain
from agent.report.html import render

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

WRITES = re.compile(r"/label|/run/[^/]+/(?:rate|play)|/release/[^/]+/[^/]+/play")
"""The only addresses that take a POST: labels of rows, ratings and the playground."""
FIRST_PARTS = (
    "",
    "runs",
    "run",
    "play",
    "compare",
    "audit",
    "call",
    "releases",
    "checks",
    "release",
    "aliases",
    "label",
    "assets",
    "ledger",
)
"""First parts of a path: our pages, and Datasette's for the ledger. Whatever else Datasette has is refused."""
FORM = "application/x-www-form-urlencoded"
OPEN = ("/assets/style.css", "/assets/live.js")
"""Files of the page that refuses; they need no token."""
LARGEST_POST = 65_536  # bytes
STRICT = (
    "default-src 'none'; img-src 'self' data:; style-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
OURS = STRICT + "; script-src 'self'; connect-src 'self'; style-src-attr 'unsafe-inline'"
"""Our pages: one script, which asks this server, and the style attributes of a chart."""
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
DROPPED = {*HEADERS, "content-security-policy", "content-length", "link", "server"}
NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class AccessControl:
    """Lets requests with `token` through: once in the address, which sets a cookie, or in `Authorization: Bearer`."""

    def __init__(self, app: App, token: str, port: int) -> None:
        self._app, self._token = app, token
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")}
        self._cookie = f"promptassay_{port}"  # cookies do not tell ports apart

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            reply = _Reply(send, scope)
            headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
            if headers.get("host", "").lower() not in self._hosts:
                await reply.send_page(403, "This page is only for the machine it runs on.", "Open the link as printed.")
            elif not await self._answered(scope, headers, reply):
                if refused := _refusal(scope, headers):
                    await reply.send_page(*refused)
                else:
                    await self._app(scope, _bounded(receive), reply)

    async def _answered(self, scope: Scope, headers: Mapping[str, str], reply: _Reply) -> bool:
        """Whether the request was answered: by a page that sets the cookie and goes on, or by a refusal.

        A redirect would not do: after a click in another program's page it counts as that page's request still, and a
        strict cookie does not go along.
        """
        given = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        if "token" in given:
            if scope["method"] == "GET" and self._is_token(given.pop("token")):
                where = quote(scope["path"].lstrip("/\\")) + (f"?{urlencode(given)}" if given else "")
                cookie = f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict"
                await reply.send_page(
                    200, "Signed in.", "One moment.", {"set-cookie": cookie, "refresh": f"0;url=/{where}"}
                )
            else:
                await reply.send_page(
                    403, "This link is not, or no longer, valid.", "Open the link that was printed last."
                )
            return True
        if scope["path"] in OPEN:
            return False
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if self._is_token(bearer if scheme.lower() == "bearer" else _cookies(headers).get(self._cookie, "")):
            return False
        await reply.send_page(
            403,
            "You are not signed in here.",
            "Open the link with ?token= that `optimize ui` printed. Programs send `Authorization: Bearer TOKEN`.",
        )
        return True

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode())


def _refusal(scope: Scope, headers: Mapping[str, str]) -> tuple[int, str, str] | None:
    """Status, what is wrong and what to do, for a request that is refused with the token, too; None for others."""
    path, method = scope["path"], scope["method"]
    routed = scope.get("raw_path", path.encode()).decode("latin-1").partition("?")[0]
    site = headers.get("sec-fetch-site", "none")
    if site not in ("none", "same-origin"):
        return 403, "Another page sent this request.", "Open this address yourself."
    if method == "POST":
        if not WRITES.fullmatch(routed):
            return (
                405,
                "Nothing can be written here.",
                "The ledger is only shown. Ratings and the playground have a page at each run.",
            )
        known = {f"http://{headers['host']}"} | ({"null"} if site == "same-origin" else set())  # we send no referrer
        if headers.get("origin", f"http://{headers['host']}") not in known:
            return 403, "Another page sent this form.", "Send it from its page in this web view."
        if headers.get("content-type", "").partition(";")[0].strip() != FORM:
            return 415, "This is not the form of that page.", "Send it from its page in this web view."
        if not headers.get("content-length", "").isdecimal() or int(headers["content-length"]) > LARGEST_POST:
            return 413, "This form is too large.", "Send it from its page in this web view."
    elif method not in ("GET", "HEAD"):
        return 405, "Nothing can be written here.", "The ledger is only shown."
    first = path.lstrip("/").partition("/")[0]
    end = re.search(r"\.(\w+)$", path)
    if first.removesuffix(".json") not in FIRST_PARTS or "/-/" in path:
        return 404, "There is no such page.", "Start again from the list of runs."
    if first in ("ledger", "ledger.json") and end and end[1] != "json":
        return (
            404,
            f"A .{end[1]} file is not given out.",
            "Cells of a CSV file can be formulas that a spreadsheet runs. Take .json; "
            "`optimize audit export` writes it all.",
        )
    return None


def _cookies(headers: Mapping[str, str]) -> Mapping[str, str]:
    cookies = SimpleCookie()
    try:
        cookies.load(headers.get("cookie", ""))
    except CookieError:
        return {}
    return {name: morsel.value for name, morsel in cookies.items()}


def _bounded(receive: Receive) -> Receive:
    """Disconnects where a body is longer than LARGEST_POST."""
    seen = 0

    async def bounded() -> MutableMapping[str, Any]:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        return {"type": "http.disconnect"} if seen > LARGEST_POST else message

    return bounded


class _Reply:
    """`send` with our headers; a page is held back until it is whole, so that its hidden characters can be marked."""

    def __init__(self, send: Send, scope: Scope) -> None:
        self._send, self._scope = send, scope
        self._start: MutableMapping[str, Any] = {}
        self._kind = ""
        self._body: list[bytes] = []

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            pairs = [(name.lower(), value) for name, value in message.get("headers", ())]
            headers = [(name, value) for name, value in pairs if name.decode("latin-1") not in DROPPED]
            self._kind = dict(headers).get(b"content-type", b"").decode("latin-1")
            policy = STRICT if self._scope["path"].startswith("/ledger") else OURS
            extra = {**HEADERS, "content-security-policy": policy}
            headers += [(name.encode(), value.encode()) for name, value in extra.items()]
            self._start = {**message, "headers": headers}
            return
        self._body.append(message.get("body", b""))
        if not message.get("more_body", False):
            body = _marked(b"".join(self._body), self._kind)
            self._start["headers"].append((b"content-length", str(len(body)).encode()))
            await self._send(self._start)
            await self._send({"type": "http.response.body", "body": b"" if self._scope["method"] == "HEAD" else body})

    async def send_page(self, status: int, what: str, hint: str, headers: Mapping[str, str] = NO_HEADERS) -> None:
        """A page of two sentences."""
        html = render("web/message.html", status=status, what=what, hint=hint)
        pairs = {"content-type": "text/html; charset=utf-8", **headers}.items()
        sent = [(name.encode(), value.encode()) for name, value in pairs]
        await self({"type": "http.response.start", "status": status, "headers": sent})
        await self({"type": "http.response.body", "body": html.encode()})


def _marked(body: bytes, kind: str) -> bytes:
    """The same with marks such as \\x1b in a page and \\u007f in JSON, whose other control characters are escapes.
    Lines of JSON come as plain text."""
    if kind.startswith(("application/json", "text/plain")):
        return body.replace(b"\x7f", b"\\u007f")
    if kind.startswith("text/"):
        return plain(body.decode("utf-8", "replace")).encode()
    return body
