"""The report in a real browser: nothing is asked for, nothing runs, nothing is wider than the screen, all read it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent.ledger.query import History
from agent.report.html import report_html
from agent.report.view import RunView
from tests.conftest import Made
from tests.report.chromium import needs_chromium
from tests.report.pages import Page
from tests.report.test_hostile import made_up

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [needs_chromium, pytest.mark.usefixtures("made")]  # made first: Playwright's loop runs in this thread


def look(browser: "Browser", html: str, width: int, **context: Any) -> dict[str, Any]:
    """What the browser made of the page with every fold open, and what axe has against it."""
    from axe_playwright_python.sync_playwright import Axe

    Path("page.html").write_text(html, "utf-8")
    asked: list[str] = []
    said: list[str] = []
    with browser.new_context(viewport={"width": width, "height": 900}, bypass_csp=True, **context) as own:
        page = own.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.goto(Path("page.html").resolve().as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
        tags = page.evaluate("[...document.querySelectorAll('*')].map(one => one.tagName.toLowerCase())")
        too_wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        scrolls = "[...document.querySelectorAll('.scroll')].filter(one => one.scrollWidth > one.clientWidth).length"
        scrolled = page.evaluate(scrolls)
        found = Axe().run(page).response["violations"]
    return {
        "asked": [url for url in asked if not url.endswith("page.html")],
        "said": said,
        "tags": tags,
        "too_wide": too_wide,
        "scrolled": scrolled,
        "violations": [(one["id"], one["nodes"][0]["html"][:200]) for one in found],
    }


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
def test_a_report_is_quiet_narrow_and_readable_in_both_themes(
    browser: "Browser", two_runs: Made, width: int, scheme: str
) -> None:
    html = report_html(RunView(History(Path("runs/ledger.db")), two_runs[0]["run_id"]))
    found = look(browser, html, width, color_scheme=scheme)
    assert found["violations"] == []
    assert (found["asked"], found["said"], found["too_wide"]) == ([], [], 0)
    if width < 640:  # tables are cards then
        assert found["scrolled"] == 0


def test_a_browser_reads_hostile_texts_as_our_parser_does(browser: "Browser") -> None:
    """With the page's own policy out of force, so that escaping alone must hold."""
    made_up(Path("ledger.db"))
    html = report_html(RunView(History(Path("ledger.db"))))
    found = look(browser, html, 390)
    assert found["tags"] == Page(html).structure
    assert (found["asked"], found["said"], found["too_wide"]) == ([], [], 0)


def test_the_policy_of_the_page_stops_a_script_that_got_in(browser: "Browser", two_runs: Made) -> None:
    html = report_html(RunView(History(Path("runs/ledger.db")), two_runs[0]["run_id"]))
    attack = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">"
    Path("page.html").write_text(html.replace("<main>", f"<main>{attack}"), "utf-8")
    page = browser.new_page()
    page.goto(Path("page.html").resolve().as_uri())
    assert page.title().startswith("rows: Better")
    page.close()


def test_paper_shows_what_is_folded_away(browser: "Browser", two_runs: Made) -> None:
    Path("page.html").write_text(report_html(RunView(History(Path("runs/ledger.db")), two_runs[0]["run_id"])), "utf-8")
    page = browser.new_page(viewport={"width": 718, "height": 900})
    page.emulate_media(media="print")
    page.goto(Path("page.html").resolve().as_uri())
    folded = page.locator("details td").first
    assert folded.is_visible()
    page.emulate_media(media="screen")
    assert not folded.is_visible()
    page.close()
