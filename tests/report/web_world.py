"""A browser without a screen: the real application, its cookies, its links, and what a page may be made of."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
from starlette.testclient import TestClient

from agent.report.web.app import Web, make
from tests.report.pages import CONTROL, WEB_ATTRIBUTES, WEB_TAGS, Page, only

PORT = 8799
BASE = f"http://127.0.0.1:{PORT}"
DB = Path("runs/ledger.db")
SVG = {"svg", "defs", "g", "path", "use", "text", "clippath", "rect", "image"}


def rows(sql: str, *values: Any) -> list[Any]:
    """Rows of the ledger."""
    with closing(sqlite3.connect(f"file:{DB}?mode=ro", uri=True)) as db:
        return db.execute(sql, values).fetchall()


class Browser(TestClient):
    """A client that can open the printed link; it reads pages and JSON as tests need them."""

    def __init__(self, web: Web) -> None:
        super().__init__(web.app, BASE, follow_redirects=False)
        self.web = web

    def page(self, address: str, **params: Any) -> Page:
        """A page that must be there and must be harmless."""
        reply = self.get(address, params=params or None)
        assert reply.status_code == 200, (address, reply.text[:300])
        page = require_harmless(reply)
        assert page is not None, address
        return page

    def data(self, address: str, **params: Any) -> dict[str, Any]:
        reply = self.get(address, params=params or None)
        assert reply.status_code == 200, (address, reply.text[:300])
        found = reply.json()
        assert isinstance(found, dict)
        return found

    def form(self, address: str, **values: str) -> dict[str, str]:
        """The hidden fields of the page's form with these values."""
        hidden = (own for tag, own in self.page(address).nodes if tag == "input" and own.get("type") == "hidden")
        return {str(own["name"]): own["value"] or "" for own in hidden} | values


@contextmanager
def browsing(db: Path = DB, signed_in: bool = True, **options: Any) -> Iterator[Browser]:
    """The application over a ledger, and a client that has opened its link."""
    web = make(db, PORT, **options)
    client = Browser(web)
    try:
        if signed_in:
            client.get(web.url.removeprefix(BASE))
        yield client
    finally:
        web.close()


def require_harmless(reply: httpx.Response) -> Page | None:
    """Fails when a reply could do more than be read; the page, if it is one."""
    body = reply.content.decode("utf-8")
    assert reply.headers["x-content-type-options"] == "nosniff"
    if not reply.headers["content-type"].startswith("text/html"):
        assert not CONTROL.search(body), (reply.url, CONTROL.search(body))
        return None
    page = only(body, WEB_TAGS, WEB_ATTRIBUTES)
    for tag, attributes in page.nodes:
        assert tag != "script" or (
            attributes["src"] in ("/assets/live.js", "/assets/label.js") and not reply.url.path.startswith("/ledger")
        )
        assert tag != "link" or attributes["href"] in ("/assets/page.css", "/assets/web.css", "data:,")
        assert tag in SVG or not {"style", "xlink:href"} & set(attributes), (reply.url, tag)
    for link in page.links:
        assert urlsplit(urljoin(BASE, link))[:2] == ("http", f"127.0.0.1:{PORT}"), (reply.url, link)
    return page


def shape(address: str) -> str:
    """Addresses that differ in numbers, ids and words only have one shape; each of Datasette's tables has one."""
    parts = urlsplit(address)
    if parts.path.startswith("/ledger/"):
        return re.sub(r"(?<=/ledger/)(\w+)/.*", r"\1/N", parts.path)
    return re.sub(r"\d{8}T\d{6}-\w+|\b[ckpf]_\w+|\d+", "N", parts.path) + "?" + re.sub("=[^&]*", "", parts.query)


def crawled(client: Browser, most: int = 1) -> dict[str, httpx.Response]:
    """Each page that links lead to from the first, but at most `most` of each shape; each must be there."""
    found: dict[str, httpx.Response] = {}
    waiting, counts = ["/"], dict[str, int]()
    while waiting:
        address = waiting.pop(0)
        kind = shape(address)
        if address in found or counts.get(kind, 0) >= most:
            continue
        counts[kind] = counts.get(kind, 0) + 1
        found[address] = reply = client.get(address, follow_redirects=True)
        assert reply.status_code == 200, (address, reply.status_code, reply.text[:300])
        if (page := require_harmless(reply)) and not address.startswith("/ledger"):  # others made those pages
            here = urljoin(BASE, address)
            waiting += [urljoin(here, link).removeprefix(BASE).partition("#")[0] for link in page.links]
    return found
