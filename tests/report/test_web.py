"""All routes at once: each page answers, as HTML and JSON, stays harmless over hostile texts and needs the token."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from agent.release.promotion import ReleaseRegistry
from agent.release.runtime import load_prompt
from agent.report.web.app import ROUTES
from agent.safe_text import plain
from tests.cli.label_world import label_place
from tests.report.hostile import PAYLOADS, add_runs
from tests.report.web_world import DB, Browser, browsing, crawled, require_harmless

DATASETTE = ("/ledger", "/ledger/runs", "/ledger.json?sql=select+1", "/ledger?sql=select+1")
Site = tuple[Browser, Mapping[str, str]]


def addresses(run: str, version: str, call: int, two: str) -> dict[str, str]:
    """An address of each route."""
    release = f"/release/rows/{version}"
    return {
        "/": "/",
        "/runs": "/runs",
        "/run/{run}": f"/run/{run}",
        "/run/{run}/report": f"/run/{run}/report",
        "/run/{run}/live": f"/run/{run}/live",
        "/run/{run}/trial/{number}": f"/run/{run}/trial/1",
        "/run/{run}/rate": f"/run/{run}/rate?rater=Ann",
        "/run/{run}/rows": f"/run/{run}/rows",
        "/run/{run}/play": f"/run/{two}/play",
        "/run/{run}/events": f"/run/{run}/events",
        "/play": "/play",
        "/compare": f"/compare?a={run}&b={two}",
        "/audit": "/audit",
        "/releases": "/releases",
        "/release/{name}/{version}": release,
        "/release/{name}/{version}/play": f"{release}/play",
        "/checks/{name}": "/checks/rows",
        "/aliases": "/aliases",
        "/label": "/label?labeller=Ann",
        "/call/{call}": f"/call/{call}",
    }


def add_hostile() -> str:
    """Payloads in runs, in a release and in the rows to label; the version of the release."""
    add_runs(DB)
    released = load_prompt("rows@production").release
    evil = " ".join(PAYLOADS[::5])
    first, *others = released.messages
    messages = (replace(first, content=f"{first.content} {evil}"), *others)
    provenance = {**released.provenance, "promoted": {"actor": evil, "reason": evil}}
    release = replace(released, messages=messages, provenance=provenance)
    ReleaseRegistry(DB.parent / "releases").promote(release, "evil", None, evidence={}, actor=evil, reason=evil)
    rows = Path("tasks/mails/unlabelled.jsonl")
    told = [json.loads(line) for line in rows.read_text("utf-8").splitlines()]
    rows.write_text("".join(json.dumps({**row, "text": f"{row['text']} {evil}"}) + "\n" for row in told), "utf-8")
    return release.version


@pytest.fixture
def site(runs: Mapping[str, str]) -> Iterator[Site]:
    """The web view over the recorded world with payloads everywhere, and an address of each route."""
    version = add_hostile()
    with browsing(labelling=label_place(Path("tasks/mails"))) as client:
        (call,) = client.get("/ledger.json?sql=select+max(id)+from+calls").json()["rows"][0]
        yield client, addresses("evil", version, int(call), runs["first"])


def test_every_page_answers_as_html_and_json_with_security_headers(site: Site) -> None:
    client, pages = site
    assert set(pages) == {route.path for route in ROUTES}
    for address in pages.values():
        at, mark, query = address.partition("?")
        for each in (address, f"{at}.json{mark}{query}"):
            reply = client.get(each)
            assert reply.status_code == 200, (each, reply.text[:300])
            assert (require_harmless(reply) is None) == (each != address), each
            policy = reply.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'")
            assert {"frame-ancestors 'none'", "base-uri 'none'"} <= set(policy.split("; "))
            assert "'unsafe-inline'" not in policy.replace("style-src-attr 'unsafe-inline'", "")
            names = ("x-content-type-options", "referrer-policy", "cache-control", "x-frame-options")
            assert [reply.headers[name] for name in names] == ["nosniff", "no-referrer", "no-store", "DENY"]
    for address in ("/", "/runs.json", "/ledger/runs"):
        head = client.head(address)
        assert (head.status_code, head.content, head.headers["cache-control"]) == (200, b"", "no-store")
    for address in DATASETTE:
        reply = client.get(address)
        assert reply.status_code == 200
        assert "script-src" not in reply.headers["content-security-policy"]
        require_harmless(reply)


def test_without_the_token_no_address_answers(site: Site) -> None:
    client, pages = site
    client.cookies.clear()
    for address in (*pages.values(), *DATASETTE, "/nothing"):
        reply = client.get(address)
        assert (reply.status_code, "optimize ui" in reply.text) == (403, True), address
        assert client.post(address, data={"action": "ask"}).status_code == 403


def test_payloads_are_shown_whole_and_as_text(site: Site) -> None:
    client, pages = site
    words, sources = "", ""
    for address in (*pages.values(), "/run/evil-2", "/compare?a=evil:0&b=evil:1", "/ledger/blobs?_size=1000"):
        reply = client.get(address)
        words += page.words if (page := require_harmless(reply)) else ""
        at, mark, query = address.partition("?")
        sources += json.dumps(client.get(f"{at}.json{mark}{query}").json())
    shown = [payload for payload in PAYLOADS if " ".join(plain(payload).split()) in words]
    given = [payload for payload in PAYLOADS if json.dumps(payload)[1:-1] in sources]
    assert sorted({*PAYLOADS} - {*shown}) == sorted({*PAYLOADS} - {*given}) == []


def test_every_link_leads_to_a_page_and_nothing_is_written(runs: Mapping[str, str]) -> None:
    def written() -> dict[str, str]:
        files = [path for path in sorted(Path("runs").rglob("*")) if path.is_file()]
        kept = [path for path in files if not path.name.endswith(("-wal", "-shm", ".lock"))]  # of SQLite, for readers
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}

    before = written()
    with browsing() as client:
        found = crawled(client)
        assert client.get("/audit?verify=now").status_code == 200
    for start in (
        "/run/",
        "/compare?",
        "/audit",
        "/call/",
        "/ledger/events/",
        "/ledger?sql=",
        "/runs.json",
        "/checks/",
    ):
        assert any(address.startswith(start) for address in found), start
    assert written() == before
