"""A browser without a screen: the real application, its cookies, its links, and what a page may be made of."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx

from agent.report.web.app import Web, make

PORT = 8799
BASE = f"http://127.0.0.1:{PORT}"
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
NEVER = {"iframe", "object", "embed", "base", "style", "video", "audio", "frame", "template"}
LINKS = {"href", "src", "action", "formaction", "xlink:href"}


class Page(HTMLParser):
    """`nodes`: each element with its attributes. `links`: what it points to. `text`: what is to be read."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.nodes: list[tuple[str, dict[str, str]]] = []
        self.parts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.nodes.append((tag, {name: value or "" for name, value in attrs}))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_data(self, data: str) -> None:
        self.parts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.parts).split())

    @property
    def links(self) -> Iterator[str]:
        for tag, attributes in self.nodes:
            for name in LINKS & attributes.keys():
                if not (tag == "use" or attributes[name].startswith("data:,")):
                    yield attributes[name]

    def field(self, name: str) -> str:
        return next(a["value"] for tag, a in self.nodes if tag == "input" and a.get("name") == name)


@asynccontextmanager
async def signed_in(db: Path) -> AsyncIterator[tuple[httpx.AsyncClient, Web]]:
    """A client that has opened the printed link."""
    web = make(db, PORT)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=web.app), base_url=BASE, timeout=60) as client:
        first = await client.get(web.url.removeprefix(BASE))
        assert (first.status_code, first.headers["location"]) == (303, "/")
        yield client, web


def require_harmless(reply: httpx.Response) -> Page | None:
    """Fails when a reply could do more than be read; the page, if it is one."""
    kind, body = reply.headers["content-type"], reply.content.decode("utf-8")
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert not CONTROL.search(body), (reply.url, CONTROL.search(body))
    if not kind.startswith("text/html"):
        return None
    page = Page(body)
    for tag, attributes in page.nodes:
        assert tag not in NEVER, (reply.url, tag)
        assert tag != "script" or attributes.get("src") == "/assets/live.js", reply.url
        assert not any(name.startswith("on") for name in attributes), (reply.url, attributes)
        assert tag != "meta" or "http-equiv" not in attributes
    for link in page.links:
        assert urlsplit(urljoin(BASE, link))[:2] == ("http", f"127.0.0.1:{PORT}"), (reply.url, link)
    return page


def shape(address: str) -> str:
    """Addresses that differ in numbers, ids and words only have one shape; each of Datasette's tables has one."""
    parts = urlsplit(address)
    if parts.path.startswith("/ledger/"):
        return re.sub(r"(?<=/ledger/)(\w+)/.*", r"\1/N", parts.path)
    return re.sub(r"\d+|k_\w+", "N", parts.path) + "?" + re.sub("=[^&]*", "", parts.query)


async def crawl(client: httpx.AsyncClient, most: int = 8) -> dict[str, httpx.Response]:
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
