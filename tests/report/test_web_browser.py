"""The web view in a real browser: every page fits, is quiet and readable; the playground from a row to the ledger."""

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn

from agent.jobs.playground import Playground
from agent.options.shared import CapOptions
from agent.report.web.app import ROUTES, Web, bind, make
from tests.cli.label_world import label_place, write_label_task
from tests.cli.test_prompt_check import checked
from tests.cli.world import learner
from tests.report.chromium import needs_chromium
from tests.report.conftest import Playable
from tests.wire import WireServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [needs_chromium, pytest.mark.usefixtures("playable_made")]  # first: Playwright's loop runs in this thread

DB = Path("runs/ledger.db")
LOOKS = ((390, "light"), (1280, "dark"))
"""Widths of the screen and colour schemes, each once: axe takes a second a page."""
CUT = "Math.max(...[...document.querySelectorAll('.scroll')].map(one => one.scrollWidth - one.clientWidth))"
"""How much of the widest table is hidden."""
TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@contextmanager
def served(max_calls: int = 4) -> Iterator[Web]:
    """A web view on a free port, in a thread, that may ask so many calls."""
    socket = bind(0)
    folder = Path("tasks/mails")
    if not folder.exists():
        write_label_task(folder)
    asker = Playground(DB, CapOptions(max_calls=max_calls, max_cost=0.5, price=(1, 2)))
    web = make(DB, socket.getsockname()[1], asker=asker, labelling=label_place(folder))
    server = uvicorn.Server(uvicorn.Config(web.app, log_level="warning", access_log=False, lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.should_exit = True
        thread.join(20)
        web.close()
        socket.close()


@contextmanager
def opened(browser: "Browser", web: Web, width: int, **context: Any) -> Iterator[tuple["Page", list[str]]]:
    """A page that is signed in, and what went wrong on it: requests to others, messages, dialogs, failed answers."""
    wrong: list[str] = []
    here = web.url.partition("/?")[0]
    with browser.new_context(viewport={"width": width, "height": 900}, **context) as own:
        page = own.new_page()
        page.on("request", lambda one: None if one.url.startswith((here, "data:")) else wrong.append(f"asks {one.url}"))
        page.on("console", lambda message: wrong.append(f"says {message.text}"))
        page.on("dialog", lambda dialog: wrong.append(f"dialog {dialog.message}"))
        page.on("pageerror", lambda error: wrong.append(f"fails {error}"))
        page.goto(web.url)
        page.wait_for_url(f"{here}/")
        yield page, wrong


def addresses(playable: Playable) -> dict[str, str]:
    """An address of each page, by its path; that of checks has one first."""
    with WireServer(learner) as server, ThreadPoolExecutor(1) as apart:  # Playwright has a loop in this thread
        apart.submit(checked, server, f"rows@{playable.version}", "--repeats", "1").result()
    run = f"/run/{playable.run_id}"
    with sqlite3.connect(f"file:{DB}?mode=ro", uri=True) as db:
        ((call,),) = db.execute("SELECT MIN(id) FROM calls WHERE run_id = ?", (playable.run_id,)).fetchall()
        runs = [name for (name,) in db.execute("SELECT id FROM runs WHERE parent IS NULL ORDER BY started_utc LIMIT 2")]
    return {
        "/": "/",
        "/run/{run}": run,
        "/run/{run}/report": f"{run}/report",
        "/run/{run}/trial/{number}": f"{run}/trial/1",
        "/run/{run}/rows": f"{run}/rows",
        "/run/{run}/play": f"{run}/play",
        "/run/{run}/rate": f"{run}/rate?rater=Ann",
        "/run/{run}/events": f"{run}/events",
        "/compare": f"/compare?a={runs[0]}&b={runs[1]}",
        "/releases": "/releases",
        "/checks/{name}": "/checks/rows",
        "/release/{name}/{version}": f"/release/rows/{playable.version}",
        "/release/{name}/{version}/play": f"/release/rows/{playable.version}/play",
        "/play": "/play",
        "/runs": "/runs",
        "/aliases": "/aliases",
        "/label": "/label?labeller=Ann",
        "/audit": "/audit",
        "/call/{call}": f"/call/{call}",
    }


def serious(page: "Page") -> list[tuple[str, str]]:
    """What axe has against a page that keeps somebody from reading it."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [(one["id"], one["nodes"][0]["html"][:200]) for one in found if one["impact"] in ("serious", "critical")]


def test_every_page_fits_is_quiet_and_readable(browser: "Browser", playable: Playable) -> None:
    """Without the pages' policy, so that axe can run: escaping alone must hold."""
    pages = addresses(playable)
    assert set(pages) == {route.path for route in ROUTES if not route.is_data}
    faults: dict[str, Any] = {}
    with served() as web:
        here = web.url.partition("/?")[0]
        for width, scheme in LOOKS:
            with opened(browser, web, width, bypass_csp=True, color_scheme=scheme) as (page, wrong):
                for name, address in {**pages, "SQL": "/ledger", "table": "/ledger/runs"}.items():
                    reply = page.goto(f"{here}{address}")
                    assert reply is not None
                    assert reply.status == 200, address
                    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
                    wide = page.evaluate(TOO_WIDE)
                    if name == "/releases":
                        wide = max(wide, page.evaluate(CUT))
                    if found := [*serious(page), *wrong, *([f"{wide} px too wide"] if wide > 0 else [])]:
                        faults[f"{name} {width} {scheme}"] = found
                    wrong.clear()
    assert faults == {}


def test_the_policy_of_the_pages_holds_nothing_up(browser: "Browser", playable: Playable) -> None:
    """With it in force, no page says that something was refused."""
    with served() as web, opened(browser, web, 1280) as (page, wrong):
        for address in addresses(playable).values():
            page.goto(f"{web.url.partition('/?')[0]}{address}")
            assert wrong == [], address


def test_the_playground_from_a_row_to_the_ledger_and_to_its_cap(browser: "Browser", playable: Playable) -> None:
    sent = len(playable.server.requests)
    with served(max_calls=3) as web, opened(browser, web, 1280) as (page, wrong):
        here = web.url.partition("/?")[0]
        page.goto(f"{here}/run/{playable.run_id}")
        page.get_by_role("link", name="Try the prompt").click()
        page.get_by_role("region", name="Rows").get_by_role("link").first.click()
        row = page.get_by_label("text").input_value()
        for side in ("your prompt", "best found"):
            assert row in page.get_by_role("region", name=side).inner_text()

        typed = 'two\nlines & <b>"quotes"</b>: my parcel and the courier'
        page.get_by_label("text").fill(typed)
        page.get_by_role("button", name="Only fill in the prompts").click()
        assert typed in page.get_by_role("region", name="best found").inner_text()
        assert page.get_by_label("text").input_value() == typed
        assert len(playable.server.requests) == sent
        assert "This input: at most 2 calls, $" in page.locator("main").inner_text()

        page.get_by_label("text").fill(typed := typed + " again")
        page.get_by_role("button", name="Ask the model").click()
        page.get_by_text("Answered by").wait_for()
        assert len(playable.server.requests) == sent + 2
        assert playable.server.requests[-1].body["messages"][-1]["content"] == typed
        assert "label: delivery" in page.get_by_role("region", name="best found").inner_text()
        assert "1 of 3 calls" in page.locator("main").inner_text()
        assert page.get_by_label("text").input_value() == typed
        page.reload()
        assert len(playable.server.requests) == sent + 2

        page.get_by_label("text").fill("another one")
        page.get_by_role("button", name="Only fill in the prompts").click()
        assert page.get_by_role("button", name="Ask the model").is_disabled()
        assert "the cap is used up: 1 of 3 calls are left" in page.locator("main").inner_text()
        page.go_back()
        page.get_by_role("link", name="its call").last.click()
        assert typed in page.locator("main").inner_text()
        assert wrong == []
    with sqlite3.connect(f"file:{DB}?mode=ro", uri=True) as db:
        last = "SELECT id FROM runs ORDER BY started_utc DESC, id DESC LIMIT 1"
        (count,) = db.execute(f"SELECT COUNT(*) FROM calls WHERE state = 'ok' AND run_id = ({last})").fetchone()
    assert count == 2
