"""Labelling in the browser: by keys, on a narrow screen, and refused for whoever is not asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from agent.report.web.app import Web, make
from agent.report.web.people_pages import LabelPlace
from agent.task import label_session
from agent.task.label_files import LabelledTask
from agent.task.label_log import LabelLog, current_labels
from tests.cli.label_world import label_place, topic_of, write_label_task
from tests.cli.world import TOPICS
from tests.conftest import Made
from tests.report.chromium import needs_chromium
from tests.report.pages import Page as ReadPage
from tests.report.test_web_browser import DB, TOO_WIDE, opened, served
from tests.report.web_world import BASE, PORT, signed_in

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.report.conftest import Playable

FOLDER = Path("tasks/mails")
FIELDS = ("csrftoken", "labeller", "row", "chosen", "skipped")


@asynccontextmanager
async def labelling() -> AsyncIterator[tuple[httpx.AsyncClient, Web]]:
    """A client that is signed in where the task `mails` is labelled."""
    write_label_task(FOLDER)
    web = make(DB, PORT, labelling=label_place(FOLDER))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=web.app), base_url=BASE, timeout=60) as client:
        await client.get(web.url.removeprefix(BASE))
        try:
            yield client, web
        finally:
            web.close()


async def form_of(client: httpx.AsyncClient, address: str = "/label?labeller=ann") -> dict[str, str]:
    page = ReadPage((await client.get(address)).text)
    return {name: page.field(name) for name in FIELDS}


async def test_a_label_a_skip_and_an_undo_are_in_the_file(two_runs: Made) -> None:
    async with labelling() as (client, _):
        form = await form_of(client)
        reply = await client.post("/label", data=form | {"action": "label:billing"})
        assert (reply.status_code, reply.headers["location"]) == (303, "/label?labeller=ann")
        second = await form_of(client)
        assert second["row"] != form["row"]
        after = await client.post("/label", data=second | {"action": "skip"})
        third = await form_of(client, after.headers["location"])
        assert len({form["row"], second["row"], third["row"]}) == 3
        back = await client.post("/label", data=third | {"action": "undo"})
        again = await form_of(client, back.headers["location"])
        assert again["row"] == form["row"]
    events = LabelledTask(FOLDER).log.events()
    assert [event.label for event in events] == ["billing", None]
    assert current_labels(events) == {}


async def test_nobody_else_labels_and_nothing_but_a_label_of_the_task_is_taken(two_runs: Made) -> None:
    async with labelling() as (client, web):
        form = await form_of(client) | {"action": "label:billing"}
        without = {name: value for name, value in form.items() if name != "csrftoken"}
        assert (await client.post("/label", data=without)).status_code == 403
        assert (await client.post("/label", data=form, headers={"origin": "http://evil.example"})).status_code == 403
        assert (await client.post("/label", data=form, headers={"sec-fetch-site": "cross-site"})).status_code == 403
        assert (await client.post("/label", json=form)).status_code == 415
        for wrong in (
            {"action": "label:money"},
            {"row": "row_0"},
            {"labeller": ""},
            {"labeller": "a\x1b[2J"},
            {"action": "delete"},
        ):
            assert (await client.post("/label", data=form | wrong)).status_code == 400, wrong
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=web.app), base_url=BASE) as stranger:
            assert (await stranger.get("/label")).status_code == 403
            assert (await stranger.post("/label", data=form)).status_code == 403
    assert not (FOLDER / "labels.jsonl").exists()


async def test_without_a_task_to_label_there_is_no_such_page(two_runs: Made) -> None:
    async with signed_in(DB) as (client, _):
        reply = await client.get("/label")
        assert reply.status_code == 404
        assert "optimize label TASK --web" in reply.text


async def test_a_page_reads_the_labels_once_and_estimates_agreement_only_where_no_row_is_left(
    two_runs: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    for owner, name in ((LabelLog, "events"), (label_session, "kappa"), (TfidfVectorizer, "fit_transform")):
        monkeypatch.setattr(owner, name, noted(done, name, getattr(owner, name)))
    async with labelling() as (client, web):
        place = web.site.labelling
        assert isinstance(place, LabelPlace)
        rows = [row.id for row in place.task.rows]
        for labeller in ("ann", "ben", "cat"):
            assert (await client.get(f"/label.json?labeller={labeller}")).json()["shown"]
        assert done == ["events", "fit_transform", "events", "events"], "all labellers share one matrix"
        for labeller in ("ann", "ben"):
            place.task.log.add_all([(row, "billing") for row in rows[:-1]], labeller, "")
        done.clear()
        page = (await client.get("/label.json?labeller=ann")).json()
        assert (page["shown"]["row"], page["agreement"], done) == (rows[-1], [], ["events"])
        done.clear()
        last = (await client.get(f"/label?labeller=ann&skipped={rows[-1]}")).text
        assert "agreement of ann and ben on 59 rows" in last
        assert done == ["events", "kappa"]


def noted(done: list[str], name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which notes its name each time."""

    def called(*args: Any, **named: Any) -> Any:
        done.append(name)
        return call(*args, **named)

    return called


async def test_the_last_label_can_be_taken_back_where_no_row_is_left(two_runs: Made) -> None:
    async with labelling() as (client, web):
        place = web.site.labelling
        assert isinstance(place, LabelPlace)
        rows = [row.id for row in place.task.rows]
        place.task.log.add_all([(row, "billing") for row in rows[1:]], "ann", "")
        page = ReadPage((await client.get(f"/label?labeller=ann&skipped={rows[0]}")).text)
        assert "No row is left for ann but 1 skipped" in page.text
        form = {name: page.field(name) for name in ("csrftoken", "labeller", "skipped")}
        back = await client.post("/label", data=form | {"action": "undo"})
        assert (await form_of(client, back.headers["location"]))["row"] == rows[-1]


async def test_a_hostile_row_is_text(two_runs: Made) -> None:
    async with labelling() as (client, _):
        first = (await form_of(client))["row"]
        path = FOLDER / "unlabelled.jsonl"
        lines = path.read_text("utf-8").splitlines()
        evil = "<script>alert(1)</script><img src=x onerror=alert(1)> \\u001b[31m"
        changed = [line.replace('"text": "', f'"text": "{evil}') if first in line else line for line in lines]
        path.write_text("\n".join(changed) + "\n", "utf-8")
    web = make(DB, PORT, labelling=label_place(FOLDER))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=web.app), base_url=BASE, timeout=60) as client:
        await client.get(web.url.removeprefix(BASE))
        text = (await client.get(f"/label?labeller=ann&again={first}")).text
        web.close()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "\x1b" not in text


def pressed(page: Page, key: str) -> None:
    """Presses a key and waits for the next page. Before a page's script ran nobody listens for a key."""
    before = page.locator("article.row").inner_text()
    page.wait_for_load_state()
    page.keyboard.press(key)
    page.wait_for_function("text => document.querySelector('article.row')?.innerText !== text", arg=before)


@needs_chromium
@pytest.mark.usefixtures("playable_made")
def test_keys_label_take_back_and_skip_on_a_narrow_screen(browser: Browser, playable: Playable) -> None:
    topics = list(TOPICS)
    with served() as web, opened(browser, web, 390) as (page, wrong):
        page.goto(f"{web.url.partition('/?')[0]}/label")
        page.get_by_role("button", name="Begin").click()
        for _ in range(3):
            text = page.locator("article.row .text").inner_text().removeprefix("text: ")
            pressed(page, str(topics.index(topic_of(text)) + 1))
        pressed(page, "u")
        assert "its label was taken back" in page.locator("article.row").inner_text()
        pressed(page, "s")
        pressed(page, "4")
        assert page.evaluate(TOO_WIDE) <= 0
        assert wrong == []
        task = LabelledTask(FOLDER)
        events = task.log.events()
        assert [event.label is None for event in events] == [False, False, False, True, False]
        assert {event.labeller for event in events} == {"ann"}
        given = current_labels(events)
        assert len(given) == 3
        right = [row for row, of in given.items() if of["ann"].label == topic_of(task.by_id[row].text)]
        assert len(right) >= 2
