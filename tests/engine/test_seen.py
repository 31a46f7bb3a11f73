"""A real run of support_triage as a person sees it: its progress while it runs, each page, filters, a trial, three
ratings, the report. The embedded model and a real browser."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from agent.models.weights import weights_path
from tests.child import ROOT
from tests.report.chromium import needs_chromium, unreadable

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [
    pytest.mark.long,
    pytest.mark.engine,
    pytest.mark.skipif(not weights_path("smollm2-135m").is_file(), reason="no weights here: run `make setup`"),
    needs_chromium,
]
COMMAND = [sys.executable, "-c", "from agent.cli import main; main()"]
RUN = ["run", "support_triage", "--max-calls", "110", "--limit", "60-14-14", "-q", "--json"]
MINUTES = 60_000  # milliseconds


@dataclass
class Seen:
    """The folder of a shop whose run is active, its web pages at `base`, and what a browser said and asked for."""

    folder: Path
    base: str
    page: Page
    run: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    @property
    def run_id(self) -> str:
        found = json.loads(self.optimize("runs", "--json"))["runs"][0]["id"]
        assert isinstance(found, str)
        return found

    @property
    def home(self) -> str:
        return f"{self.base}/run/{self.run_id}"

    def optimize(self, *words: str) -> str:
        done = subprocess.run([*COMMAND, *words], cwd=self.folder, env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def watch(self, page: Page) -> Page:
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        return page


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPTIMIZE_")}
    return {**kept, "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def seen(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("shop")
    shutil.copytree(ROOT / "tasks" / "support_triage", folder / "tasks" / "support_triage")
    run = subprocess.Popen([*COMMAND, *RUN], cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True)
    ui: subprocess.Popen[str] | None = None
    try:
        while not trial_begun(folder / "runs" / "ledger.db"):
            assert run.poll() is None
            time.sleep(0.2)
        ui = subprocess.Popen(
            [*COMMAND, "ui", "--json"], cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True
        )
        assert ui.stdout is not None
        link = json.loads(ui.stdout.readline())["url"]
        page = browser.new_page()
        found = Seen(folder, f"http://{urlsplit(link).netloc}", page, run)
        outside = folder / "link.html"  # as from a chat or a mail: the click comes from another page
        outside.write_text(f'<a href="{link}">look</a>', "utf-8")
        found.watch(page).goto(outside.as_uri())
        page.get_by_role("link", name="look").click()
        page.get_by_role("heading", name="Runs").wait_for()
        yield found
        page.close()
    finally:
        for process in (ui, run):
            if process is not None:
                process.kill()
                process.wait()
                assert process.stdout is not None
                process.stdout.close()


def trial_begun(ledger: Path) -> bool:
    if not ledger.is_file():
        return False
    done = subprocess.run(
        [*COMMAND, "history", "--json", "--db", str(ledger)], capture_output=True, text=True, env=environment()
    )
    return done.returncode == 0 and bool(json.loads(done.stdout)["trials"])


# -- in the order in which a person would do it -----------------------------------------------------------------------


def test_progress_moves_while_the_run_goes_on_and_turns_into_the_result_by_itself(seen: Seen) -> None:
    page = seen.page
    page.get_by_role("link", name=seen.run_id).click()
    first = int(page.locator("[data-show=calls]").inner_text())
    page.wait_for_function(
        "first => Number(document.querySelector('[data-show=calls]').textContent) > first", arg=first, timeout=MINUTES
    )
    assert page.locator("progress").get_attribute("max") == "110"
    page.locator("section#live").wait_for(state="detached", timeout=8 * MINUTES)
    assert seen.run.stdout is not None
    result = json.loads(seen.run.stdout.read())
    assert seen.run.wait(60) == 0
    score = page.get_by_role("region", name="Scores").get_by_role("row").last
    assert f"{100 * result['winner']['test']:.1f}" in score.inner_text()
    assert page.locator("svg.chart").first.is_visible()


def test_the_trials_are_filtered_and_one_is_opened_next_to_the_users_prompt(seen: Seen) -> None:
    page = seen.page
    page.goto(seen.home)
    board = page.locator("section[aria-labelledby=board] [data-name=state]")
    everything = board.count()
    page.get_by_label("state").select_option("pruned")
    page.get_by_role("button", name="Show", exact=True).click()
    states = board.all_inner_texts()
    assert 0 < len(states) < everything
    assert {state.split()[0] for state in states} == {"pruned"}
    page.get_by_label("instruction has").fill("no instruction says this")
    page.get_by_role("button", name="Show", exact=True).click()
    assert page.get_by_text("No trial passes these filters").is_visible()
    page.get_by_role("link", name="all", exact=True).click()
    page.get_by_role("link", name="1", exact=True).click()
    trial = json.loads(seen.optimize("history", "--json"))["trials"][1]
    assert page.get_by_role("heading", level=1).inner_text().startswith("Trial 1 ")
    rows = page.locator("article.row")
    assert rows.count() == trial["n"]
    assert rows.first.get_by_text("your prompt").is_visible()


def test_three_answers_are_rated_blind_and_kept(seen: Seen) -> None:
    page = seen.page
    page.goto(seen.home)
    page.get_by_role("link", name="Rate its answers").click()
    page.get_by_label("Who rates?").fill("ann")
    page.get_by_role("button", name="Begin").click()
    candidates = {trial["candidate_id"] for trial in json.loads(seen.optimize("history", "--json"))["trials"]}
    for number, mark in enumerate((5, 1, 3), start=1):
        assert not any(candidate in page.content() for candidate in candidates)
        for group in page.locator("fieldset").all():
            group.get_by_label(str(mark), exact=True).check()
        page.get_by_role("button", name="Save and continue").click()
        page.get_by_text(f"{number} rated by ann").wait_for()
    lines = (seen.folder / "runs" / seen.run_id / "ratings.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["rating"] for line in lines] == [5, 1, 3]
    assert {json.loads(line)["rater"] for line in lines} == {"ann"}


def test_two_runs_can_be_compared_from_their_tick_boxes(seen: Seen) -> None:
    page = seen.page
    page.goto(seen.home)
    for box in page.get_by_role("checkbox").all()[:2]:
        box.check()
    page.get_by_role("button", name="Compare the two that are ticked").click()
    assert page.get_by_role("heading", name="Side by side").is_visible()


@pytest.mark.parametrize("width", [1280, 390])
def test_each_page_is_quiet_fits_and_is_open_to_everybody(seen: Seen, browser: Browser, width: int) -> None:
    seen.optimize("report", "-o", "report.html")
    run = seen.home
    places = ["/", "/compare", "/audit", "/call/1", "/ledger", "/ledger/trials", "/ledger?sql=select+*+from+runs"]
    addresses = [f"{seen.base}{place}" for place in places]
    addresses += [run, f"{run}/trial/0", f"{run}/trial/1", f"{run}/rate", f"{run}/rate?rater=bob", f"{run}/events"]
    addresses += [f"{seen.base}/compare?a={seen.run_id}&b={seen.run_id}:1", (seen.folder / "report.html").as_uri()]
    seen.said.clear()
    seen.asked.clear()
    with browser.new_context(
        viewport={"width": width, "height": 900}, bypass_csp=True, storage_state=seen.page.context.storage_state()
    ) as context:
        page = seen.watch(context.new_page())
        for address in addresses:
            reply = page.goto(address)
            assert address.startswith("file:") or (reply is not None and reply.status == 200), address
            assert (address, unreadable(page)) == (address, [])
            assert (address, page.evaluate("document.documentElement.scrollWidth")) == (address, width)
    assert seen.said == []
    assert [url for url in seen.asked if not url.startswith((f"{seen.base}/", "file:"))] == []
