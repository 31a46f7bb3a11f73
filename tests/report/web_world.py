"""A browser without a screen: the real application, its cookies, its links, and what a page may be made of."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx

from agent.report.web.app import Web, make
from tests.report.pages import CONTROL, WEB_ATTRIBUTES, WEB_TAGS, Page, only

PORT = 8799
BASE = f"http://127.0.0.1:{PORT}"
SVG = {"svg", "defs", "g", "path", "use", "text", "clippath", "rect", "image"}


@asynccontextmanager
async def signed_in(db: Path) -> AsyncIterator[tuple[httpx.AsyncClient, Web]]:
    """A client that has opened the printed link."""
    web = make(db, PORT)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=web.app), base_url=BASE, timeout=60) as client:
        first = await client.get(web.url.removeprefix(BASE))
        assert (first.status_code, first.headers["refresh"]) == (200, "0;url=/")
        try:
            yield client, web
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
        assert tag != "script" or (attributes["src"] == "/assets/live.js" and not reply.url.path.startswith("/ledger"))
        assert tag != "link" or attributes["href"] in ("/assets/style.css", "data:,")
        assert tag in SVG or not {"style", "xlink:href"} & set(attributes), (reply.url, tag)
    for link in page.links:
        assert urlsplit(urljoin(BASE, link))[:2] == ("http", f"127.0.0.1:{PORT}"), (reply.url, link)
    return page


def shape(address: str) -> str:
    """Addresses that differ in numbers, ids and words only have one shape; each of Datasette's tables has one."""
    parts = urlsplit(address)
    if parts.path.startswith("/ledger/"):
        return re.sub(r"(?<=/ledger/)(\w+)/.*", r"\1/N", parts.path)
    return re.sub(r"\d+|k_\w+", "N", parts.path) + "?" + re.sub("=[^&]*", "", parts.query)


async def crawl(client: httpx.AsyncClient, most: int = 3) -> dict[str, httpx.Response]:
    """Every page that links lead to from the first, but of each shape at most so many; each must be there."""
    found: dict[str, httpx.Response] = {}
    waiting, counts = ["/"], dict[str, int]()
    while waiting:
        address = waiting.pop(0)
        kind = shape(address)
        if address in found or counts.get(kind, 0) >= most:
            continue
        counts[kind] = counts.get(kind, 0) + 1
        found[address] = reply = await client.get(address, follow_redirects=True)
        assert reply.status_code == 200, (address, reply.status_code, reply.text[:300])
        if page := require_harmless(reply):
            here = urljoin(BASE, address)
            waiting += [urljoin(here, link).removeprefix(BASE).partition("#")[0] for link in page.links]
    return found
