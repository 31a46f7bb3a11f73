"""Six journeys in Chromium: pages and report fit, are quiet and readable; forms work by mouse and by keys."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn

from agent.jobs.playground import Playground
from agent.ledger.query import History
from agent.options.shared import CapOptions
from agent.release.runtime import load_prompt
from agent.report.html import report_html
from agent.report.view import RunView
from agent.report.web.app import Web, bind, make
from agent.task.label_log import current_labels
from tests.cli.label_world import label_place, topic_of
from tests.cli.world import TOPICS
from tests.report.chromium import needs_chromium, unreadable
from tests.report.hostile import add_runs
from tests.report.pages import Page as ReadPage
from tests.report.test_web import addresses
from tests.report.web_world import DB

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = needs_chromium

LOOKS = ((390, "light"), (1280, "dark"))
"""Widths and colour schemes, each once: axe takes a second per page."""
CUT = "Math.max(0, ...[...document.querySelectorAll('.scroll')].map(one => one.scrollWidth - one.clientWidth))"
"""How much of the widest table is hidden."""
TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
UNFOLD = "document.querySelectorAll('details').forEach(one => { one.open = true })"
TAGS = "[...document.querySelectorAll('*')].map(one => one.tagName.toLowerCase())"
Runs = Mapping[str, str]


@contextmanager
def served(max_calls: int = 4) -> Iterator[Web]:
    """A web view on a free port, in a thread, with a cap on its calls."""
    socket = bind(0)
    asker = Playground(DB, CapOptions(max_calls=max_calls, max_cost=0.5, price=(1, 2)))
    web = make(DB, socket.getsockname()[1], asker=asker, labelling=label_place(Path("tasks/mails")))
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
def opened(browser: Browser, home: str, width: int, **context: Any) -> Iterator[tuple[Page, list[str]]]:
    """A page, and what went wrong on it: requests to others, messages, dialogs, failed answers."""
    wrong: list[str] = []
    here = home.partition("/?")[0]
    with browser.new_context(viewport={"width": width, "height": 900}, **context) as own:
        page = own.new_page()
        page.on("request", lambda one: None if one.url.startswith((here, "data:")) else wrong.append(f"asks {one.url}"))
        page.on("console", lambda message: wrong.append(f"says {message.text}"))
        page.on("dialog", lambda dialog: wrong.append(f"dialog {dialog.message}"))
        page.on("pageerror", lambda error: wrong.append(f"fails {error}"))
        page.goto(home)
        if here != home:
            page.wait_for_url(f"{here}/")
        yield page, wrong


def test_every_page_fits_is_quiet_and_readable(browser: Browser, runs: Runs) -> None:
    """In the dark without the pages' policy, so that axe can run: escaping alone must hold; else nothing is refused."""
    pages = addresses(runs["search"], load_prompt("rows@production").version, 1, runs["first"])
    pages = {path: address for path, address in pages.items() if not path.endswith("/live")}
    faults: dict[str, Any] = {}
    with served() as web:
        here = web.url.partition("/?")[0]
        for width, scheme in LOOKS:
            is_dark = scheme == "dark"
            with opened(browser, web.url, width, bypass_csp=is_dark, color_scheme=scheme) as (page, wrong):
                for name, address in {**pages, "SQL": "/ledger", "table": "/ledger/runs"}.items():
                    reply = page.goto(f"{here}{address}")
                    assert reply is not None
                    assert reply.status == 200, address
                    page.evaluate(UNFOLD)
                    wide = page.evaluate(TOO_WIDE) + (page.evaluate(CUT) if name == "/releases" else 0)
                    hard = unreadable(page) if is_dark else []  # a report is read in the light
                    if found := [*hard, *wrong, *([f"{wide} px too wide"] if wide > 0 else [])]:
                        faults[f"{name} {width} {scheme}"] = found
                    wrong.clear()
    assert faults == {}


def test_the_playground_from_a_row_to_the_ledger_and_to_its_cap(browser: Browser, runs: Runs) -> None:
    with served(max_calls=3) as web, opened(browser, web.url, 1280) as (page, wrong):
        here = web.url.partition("/?")[0]
        page.goto(f"{here}/run/{runs['search']}")
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
        assert "This input: at most 2 calls, $" in page.locator("main").inner_text()

        page.get_by_role("button", name="Ask the model").click()
        page.get_by_text("Answered by").wait_for()
        assert "label: delivery" in page.get_by_role("region", name="best found").inner_text()
        assert "1 of 3 calls" in page.locator("main").inner_text()
        page.reload()
        assert "1 of 3 calls" in page.locator("main").inner_text(), "a reload asks nothing"

        page.get_by_label("text").fill("another one")
        page.get_by_role("button", name="Only fill in the prompts").click()
        assert page.get_by_role("button", name="Ask the model").is_disabled()
        assert "the cap is used up: 1 of 3 calls are left" in page.locator("main").inner_text()
        page.go_back()
        page.get_by_role("link", name="its call").last.click()
        assert typed in page.locator("main").inner_text()
        assert wrong == []


def pressed(page: Page, key: str) -> None:
    """Presses a key and waits for the next page. Before a page's script ran nobody listens for a key."""
    before = page.locator("article.row").inner_text()
    page.wait_for_load_state()
    page.keyboard.press(key)
    page.wait_for_function("text => document.querySelector('article.row')?.innerText !== text", arg=before)


def test_keys_label_take_back_and_skip_on_a_narrow_screen(browser: Browser, runs: Runs) -> None:
    with served() as web, opened(browser, web.url, 390) as (page, wrong):
        page.goto(f"{web.url.partition('/?')[0]}/label")
        page.get_by_role("button", name="Begin").click()
        for _ in range(3):
            text = page.locator("article.row .text").inner_text().removeprefix("text: ")
            pressed(page, str(list(TOPICS).index(topic_of(text)) + 1))
        pressed(page, "u")
        assert "its label was taken back" in page.locator("article.row").inner_text()
        pressed(page, "s")
        pressed(page, "4")
        assert page.evaluate(TOO_WIDE) <= 0
        assert wrong == []
        task = label_place(Path("tasks/mails")).task
        events = task.log.events()
        assert [event.label is None for event in events] == [False, False, False, True, False]
        assert {event.labeller for event in events} == {"ann"}
        right = [row for row, of in current_labels(events).items() if of["ann"].label == topic_of(task.by_id[row].text)]
        assert len(right) >= 2


def report_of(run_id: str, more: str = "") -> str:
    """The address of a file with the report of a run."""
    html = report_html(RunView(History(DB), run_id)).replace("<main>", f"<main>{more}")
    Path("page.html").write_text(html, "utf-8")
    return Path("page.html").resolve().as_uri()


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_a_report_is_quiet_narrow_and_readable(browser: Browser, runs: Runs, width: int, scheme: str) -> None:
    home = report_of(runs["search"])
    with opened(browser, home, width, bypass_csp=True, color_scheme=scheme) as (page, wrong):
        page.evaluate(UNFOLD)
        assert (unreadable(page), wrong, page.evaluate(TOO_WIDE)) == ([], [], 0)
        assert width > 640 or page.evaluate(CUT) == 0, "tables are cards then"


def test_a_browser_reads_hostile_texts_as_our_parser_does(browser: Browser, runs: Runs) -> None:
    with ThreadPoolExecutor(1) as apart:  # Playwright has a loop in this thread
        apart.submit(add_runs, DB).result()
    with opened(browser, report_of("evil"), 390, bypass_csp=True) as (page, wrong):
        assert page.evaluate(TAGS) == ReadPage(Path("page.html").read_text("utf-8")).structure
        assert (wrong, page.evaluate(TOO_WIDE)) == ([], 0)


def test_the_policy_of_a_report_stops_a_script_and_paper_shows_what_is_folded(browser: Browser, runs: Runs) -> None:
    attack = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">"
    with opened(browser, report_of(runs["search"], attack), 718) as (page, _):
        assert page.title().startswith("rows: Better")
        folded = page.locator("details td").first
        page.emulate_media(media="print")
        assert folded.is_visible()
        page.emulate_media(media="screen")
        assert not folded.is_visible()
