"""The playground renders what would be sent, asks only where it may, and every answer is a call of the ledger."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.errors import InputError, Interrupted
from agent.jobs.playground import Playground
from agent.ledger import trail
from agent.ledger.query import History
from agent.ledger.store import Ledger
from agent.options.shared import CapOptions
from agent.release.promotion import ReleaseRegistry
from agent.release.runtime import load_prompt
from agent.report.view import RunView
from agent.report.web.app import bind, make
from tests.cli.world import good, refused
from tests.report.conftest import Playable
from tests.report.hostile import PAYLOADS
from tests.report.pages import Page
from tests.report.test_web_gate import COMMAND
from tests.report.web_world import BASE, PORT, require_harmless, signed_in
from tests.wire import Fault

DB = Path("runs/ledger.db")
TEXT = "the courier lost my parcel\nand then <b>the</b> invoice {{text}}"


@asynccontextmanager
async def asking(max_calls: int | None = 50, max_cost: float | None = 0.5) -> AsyncIterator[httpx.AsyncClient]:
    """A browser that has opened a web view which may ask."""
    web = make(DB, PORT, asker=Playground(DB, CapOptions(max_calls=max_calls, max_cost=max_cost, price=(1, 2))))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=web.app), base_url=BASE, timeout=60) as client:
        await client.get(web.url.removeprefix(BASE))
        try:
            yield client
        finally:
            web.close()


async def form_of(client: httpx.AsyncClient, address: str, **values: str) -> dict[str, str]:
    page = Page((await client.get(address)).text)
    return {"csrftoken": page.field("csrftoken"), "row": "", "action": "ask", "in.text": TEXT, **values}


async def ask(client: httpx.AsyncClient, address: str, **values: str) -> httpx.Response:
    """The page after the button was pressed."""
    form = await form_of(client, address, **values)
    return await client.post(address, data=form, follow_redirects=True, headers={"origin": BASE})


def rows(sql: str, *values: Any) -> list[Any]:
    with sqlite3.connect(f"file:{DB}?mode=ro", uri=True) as db:
        return db.execute(sql, values).fetchall()


# -- rendering ---


async def test_a_row_is_rendered_as_the_run_sent_it(playable: Playable) -> None:
    """Both prompts, message by message, without a call, a key or a cap."""
    sent = len(playable.server.requests)
    async with signed_in(DB) as (client, _):
        address = f"/run/{playable.run_id}/play"
        picks = (await client.get(f"{address}.json")).json()["pick"]["rows"]
        with closing(History(DB)) as history:  # your own prompt need not have seen all of them
            own = RunView(history, playable.run_id).baseline
            assert own is not None
            seen = {f"dev:{row['example_id']}" for row in history.outcomes(playable.run_id, own["id"], "dev")}
        dev = next(pick["row"] for pick in picks if pick["row"] in seen)
        data = (await client.get(f"{address}.json?row={dev}")).json()
        assert [prompt["side"] for prompt in data["prompts"]] == ["baseline", "winner"]
    with closing(History(DB)) as history:
        view = RunView(history, playable.run_id)
        for prompt, candidate in zip(data["prompts"], (view.baseline, view.winner), strict=True):
            assert candidate is not None
            outcomes = history.outcomes(playable.run_id, candidate["id"], "dev")
            (key,) = [row["call_key"] for row in outcomes if f"dev:{row['example_id']}" == dev]
            request = trail.request_of(history, key)
            assert request is not None
            assert prompt["messages"] == request["messages"]
    assert len(playable.server.requests) == sent


async def test_a_prompt_made_of_the_ledger_is_the_one_that_was_released(playable: Playable) -> None:
    """Where the file of the run holds another prompt; the version of what the ledger has is the same."""
    released = load_prompt(f"rows@{playable.version}").release
    address = f"/run/{playable.run_id}/play.json"
    async with signed_in(DB) as (client, _):
        before = (await client.get(address)).json()["prompts"]
    replace(released, provenance={**released.provenance, "candidate_id": "c_other"}).write(DB.parent / playable.run_id)
    async with signed_in(DB) as (client, _):
        after = (await client.get(address)).json()["prompts"]
    assert after == before
    assert after[1]["version"] == playable.version


async def test_a_prompt_that_picks_is_tried_from_its_release_alone(playable: Playable) -> None:
    """The rows that it picks from are not in the ledger."""
    released = load_prompt(f"rows@{playable.other}").release
    address = f"/run/{playable.picking}/play"
    async with signed_in(DB) as (client, _):
        _, winner = (await client.get(f"{address}.json")).json()["prompts"]
        assert winner["version"] == playable.other
    replace(released, provenance={**released.provenance, "candidate_id": "c_other"}).write(DB.parent / playable.picking)
    async with signed_in(DB) as (client, _):
        reply = await client.get(address)
        assert "with its rows or passages is gone" in reply.text


async def test_a_row_that_was_changed_is_that_row_no_more(playable: Playable) -> None:
    """And one that is as it was needs not be sent along, however long it is."""
    address = f"/run/{playable.run_id}/play"
    async with asking() as client:
        row = (await client.get(f"{address}.json")).json()["pick"]["rows"][0]["row"]
        page = Page((await client.get(f"{address}?row={row}")).text)
        assert f"row {row} · right label" in page.words
        assert not any(a.get("type") == "hidden" and a.get("name") == "in.text" for _, a in page.nodes)
        form = {"csrftoken": page.field("csrftoken"), "row": row, "action": "ask"}
        reply = await client.post(address, data=form, follow_redirects=True, headers={"origin": BASE})
        assert f"row {row} · right label" in Page(reply.text).words
        changed = await client.get(address, params={"row": row, "in.text": "changed"})
        assert "right label" not in Page(changed.text).words


async def test_the_menu_and_a_button_lead_to_the_playground(playable: Playable) -> None:
    async with signed_in(DB) as (client, _):
        page = Page((await client.get(f"/run/{playable.run_id}")).text)
        assert "/play" in page.links
        assert f"/run/{playable.run_id}/play" in page.links
        newest = (await client.get("/runs.json")).json()["runs"][0]["id"]
        latest = (await client.get("/play.json")).json()
        assert latest == (await client.get(f"/run/{newest}/play.json")).json()
        assert f'action="/run/{newest}/play#prompts"' in (await client.get("/play")).text


async def test_without_a_run_the_playground_says_what_to_type(here: Path) -> None:
    Ledger(DB).close()
    async with signed_in(DB) as (client, _):
        assert "No prompt to try yet" in Page((await client.get("/play")).text).words


async def test_a_typed_text_is_filled_in_exactly(playable: Playable) -> None:
    """A browser sends CR LF; marks and markup stay text."""
    for address in (f"/run/{playable.run_id}/play", f"/release/rows/{playable.version}/play"):
        async with signed_in(DB) as (client, _):
            typed = {"action": "show", "in.text": TEXT.replace("\n", "\r\n")}
            form = await form_of(client, address, **typed)
            reply = await client.post(address, data=form, headers={"origin": BASE})
            assert reply.status_code == 200
            require_harmless(reply)
            data = (await client.get(f"{address}.json", params={"in.text": TEXT})).json()
            for prompt in data["prompts"]:
                assert prompt["messages"][-1]["content"] == TEXT
        assert load_prompt(f"rows@{playable.version}").render(text=TEXT) == data["prompts"][-1]["messages"]


async def test_a_row_of_the_sealed_test_cannot_be_picked(playable: Playable) -> None:
    address = f"/run/{playable.run_id}/play"
    async with signed_in(DB) as (client, _):
        sealed = (await client.get(f"/run/{playable.run_id}/rows.json")).json()["rows"]
        picks = (await client.get(f"{address}.json")).json()["pick"]
        texts = json.dumps(picks)
        assert picks["place"]["count"] > 0
        assert not any(row["inputs"]["text"] in texts for row in sealed)
        reply = await client.get(f"{address}?row=test:{sealed[0]['example_id']}")
        assert (reply.status_code, "sealed test are not offered" in reply.text) == (404, True)


# -- asking ---


async def test_without_leave_nothing_is_asked(playable: Playable) -> None:
    sent, runs = len(playable.server.requests), rows("SELECT COUNT(*) FROM runs")
    address = f"/run/{playable.run_id}/play"
    async with signed_in(DB) as (client, _):
        page = Page((await client.get(address)).text)
        assert "optimize ui --allow-calls" in page.words
        assert any(tag == "button" and "disabled" in own for tag, own in page.nodes)
        reply = await ask(client, address)
        assert (reply.status_code, "--allow-calls" in reply.text) == (503, True)
    assert len(playable.server.requests) == sent
    assert rows("SELECT COUNT(*) FROM runs") == runs


@pytest.mark.parametrize("kind", ["run", "release"])
async def test_an_answer_is_a_call_of_the_ledger_and_is_bought_once(playable: Playable, kind: str) -> None:
    address = f"/run/{playable.run_id}/play" if kind == "run" else f"/release/rows/{playable.version}/play"
    prompts = 2 if kind == "run" else 1
    sent = len(playable.server.requests)
    async with asking() as client:
        quote = (await client.get(f"{address}.json", params={"in.text": TEXT})).json()["asking"]["quote"]
        assert (quote["calls"], quote["problem"]) == (prompts, "")
        reply = await ask(client, address)
        assert reply.status_code == 200, reply.text
        page = require_harmless(reply)
        assert page is not None
        assert len(playable.server.requests) == sent + prompts
        (run_id,) = rows("SELECT id FROM runs ORDER BY started_utc DESC, id DESC LIMIT 1")[0]
        calls = rows("SELECT id, state, cost_usd FROM calls WHERE run_id = ?", run_id)
        assert [state for _, state, _ in calls] == ["ok"] * prompts
        assert 0 < sum(usd for *_, usd in calls) <= quote["usd"]
        assert "delivery" in page.words
        data = (await client.get(f"{address}.json?asked={run_id}")).json()
        assert data["inputs"] == [{"name": "text", "value": TEXT}]
        assert {prompt["answer"]["call"] for prompt in data["prompts"]} == {number for number, *_ in calls}
        assert data["prompts"][-1]["answer"]["fields"] == {"label": "delivery"}
        assert data["asking"]["left"]["calls"] == 50 - prompts
        assert data["asking"]["left"]["usd"] == pytest.approx(0.5 - sum(usd for *_, usd in calls))
        again = await ask(client, address)
        assert f"{prompts} from the ledger" in Page(again.text).words
        assert len(playable.server.requests) == sent + prompts
    shown = good("show", run_id)
    assert f"playground of {'rows@' + playable.version if kind == 'release' else playable.run_id}" in shown
    good("audit", "verify")
    assert TEXT not in json.dumps(rows("SELECT body FROM events WHERE run_id = ?", run_id))


async def test_a_cap_that_is_used_up_refuses_before_anything_is_sent(playable: Playable) -> None:
    sent = len(playable.server.requests)
    address = f"/run/{playable.run_id}/play"
    async with asking(max_calls=3, max_cost=None) as client:
        assert (await ask(client, address)).status_code == 200
        refused_ = await ask(client, address, **{"in.text": "another text"})
        assert refused_.status_code == 503
        assert "1 of 3 calls are left" in Page(refused_.text).words
        assert "another text" in refused_.text
    async with asking(max_calls=None, max_cost=0.000001) as client:
        refused_ = await ask(client, address, **{"in.text": "another text"})
        assert (refused_.status_code, "the cap is used up: $" in refused_.text) == (503, True)
    assert len(playable.server.requests) == sent + 2


async def test_a_model_that_fails_is_one_line_on_the_page_and_counts(playable: Playable) -> None:
    playable.answers.append(
        lambda messages, body: Fault(401, body={"error": {"message": "no <b>such</b> key\nat all"}})
    )
    async with asking() as client:
        reply = await ask(client, f"/run/{playable.run_id}/play")
        assert reply.status_code == 503
        page = require_harmless(reply)
        assert page is not None
        (line,) = [part for part in page._texts if part.startswith("Not asked: ")]
        assert "\n" not in line
        assert "no <b>such</b> key" in line
        assert "b" not in page.structure
    (status,) = rows("SELECT status FROM runs ORDER BY started_utc DESC, id DESC LIMIT 1")[0]
    assert status == "failed"


async def test_a_hostile_reply_stays_text(playable: Playable) -> None:
    said = " ".join(PAYLOADS)
    playable.answers.append(lambda messages, body: said)
    async with asking() as client:
        reply = await ask(client, f"/run/{playable.run_id}/play", **{"in.text": said[:2000]})
        assert reply.status_code == 200
        require_harmless(reply)


async def test_pages_of_others_cannot_ask_a_model(playable: Playable) -> None:
    sent = len(playable.server.requests)
    async with asking() as client:
        for address in (f"/run/{playable.run_id}/play", f"/release/rows/{playable.version}/play"):
            form = await form_of(client, address)
            without = {name: value for name, value in form.items() if name != "csrftoken"}
            assert (await client.post(address, data=without)).status_code == 403
            assert (await client.post(address, data=form | {"csrftoken": "x"})).status_code == 403
            assert (await client.post(address, json=form)).status_code == 415
            for headers in ({"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
                assert (await client.post(address, data=form, headers=headers)).status_code == 403
            assert (await client.post(address, data=form | {"in.text": "x" * 70_000})).status_code == 413
            assert (await client.get(f"{address}?action=ask", params={"in.text": TEXT})).status_code == 200
        client.cookies.clear()
        assert (await client.post(address, data=form)).status_code == 403
    assert len(playable.server.requests) == sent


async def test_a_release_from_elsewhere_sends_you_to_no_address_of_its_own(playable: Playable) -> None:
    """A model that only the file names is not asked; the ledger has never named it."""
    release = replace(
        load_prompt(f"rows@{playable.version}").release, model="openai-compatible/x@http://127.0.0.1:9/v1"
    )
    ReleaseRegistry(DB.parent / "releases").promote(release, "foreign", None, evidence={})
    async with asking() as client:
        reply = await ask(client, f"/release/rows/{release.version}/play")
        assert (reply.status_code, "has named it before" in reply.text) == (503, True)


async def test_a_ledger_that_another_process_writes_refuses_the_question(playable: Playable) -> None:
    sent = len(playable.server.requests)
    async with asking() as client:
        with closing(Ledger(DB)):
            reply = await ask(client, f"/run/{playable.run_id}/play")
        assert (reply.status_code, TEXT.split("\n")[0] in reply.text) == (503, True)
        assert "Not asked: " in Page(reply.text).words
        assert (await ask(client, f"/run/{playable.run_id}/play")).status_code == 200
    assert len(playable.server.requests) == sent + 2


async def test_an_empty_input_is_not_asked(playable: Playable) -> None:
    async with asking() as client:
        reply = await ask(client, f"/run/{playable.run_id}/play", **{"in.text": "  "})
        assert (reply.status_code, "text: empty" in reply.text) == (503, True)


@contextmanager
def unanswered(playable: Playable) -> Iterator[threading.Event]:
    """The model answers nothing while the block lasts; the event says that it was asked."""
    arrived, ends = threading.Event(), threading.Event()

    def never(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        arrived.set()
        ends.wait(30)
        return "billing"

    playable.answers.append(never)
    try:
        yield arrived
    finally:
        ends.set()


def test_the_end_of_the_server_ends_what_is_being_asked(playable: Playable) -> None:
    """At once, though the model never answers; the run stands as interrupted."""
    playground = Playground(DB, CapOptions(max_calls=5))
    prompts = {"release": load_prompt(f"rows@{playable.version}")}
    raised: list[BaseException] = []

    def question() -> None:
        try:
            playground.ask(f"rows@{playable.version}", prompts, {"text": "never seen before"})
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=question)
    with unanswered(playable) as arrived:
        thread.start()
        assert arrived.wait(20)
        playground.stop()
        thread.join(10)
        assert not thread.is_alive()
    assert isinstance(raised[0], Interrupted)
    assert playground.left["calls"] == 4
    with pytest.raises(Interrupted):
        playground.ask("x", prompts, {"text": "a"})


def test_a_ctrl_c_of_the_command_ends_a_question_that_nobody_answers(playable: Playable) -> None:
    command = [*COMMAND, "--allow-calls", "--max-calls", "5"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with (
        unanswered(playable) as arrived,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as ui,
        ThreadPoolExecutor() as pool,
    ):
        assert ui.stdout is not None
        try:
            url = json.loads(ui.stdout.readline())["url"]
            base = url.partition("/?")[0]
            with httpx.Client(base_url=base, timeout=60, trust_env=False) as client:
                client.get(url)
                address = f"/release/rows/{playable.version}/play"
                token = Page(client.get(address).text).field("csrftoken")
                form = {"csrftoken": token, "row": "", "action": "ask", "in.text": TEXT}
                question = pool.submit(client.post, address, data=form)
                assert arrived.wait(30)
                ui.send_signal(signal.SIGINT)
                _, said = ui.communicate(timeout=20)
                assert question.exception() is not None or question.result().status_code >= 500
        finally:
            ui.kill()
    assert ui.returncode == 0, said
    assert said.splitlines()[-1].startswith("ended; nothing was changed but ratings, and the calls of the playground")
    ((status,),) = rows("SELECT status FROM runs ORDER BY started_utc DESC, id DESC LIMIT 1")
    assert status == "interrupted"


def test_a_cap_of_the_environment_is_no_reason_to_refuse_the_web_view(
    playable: Playable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPTIMIZE_MAX_COST", "1")
    with bind(0) as taken:
        port = str(taken.getsockname()[1])
        assert "cannot be used" in refused(2, "ui", "--no-open", "--port", port)[0]


def test_a_question_waits_half_a_minute_for_a_provider_that_is_down() -> None:
    assert Playground(DB, CapOptions(max_calls=1))._options.longest_wait == 30


def test_calls_need_a_cap_and_a_cap_needs_calls(playable: Playable) -> None:
    with pytest.raises(InputError, match="give a cap"):
        Playground(DB, CapOptions())
    for number in ("nan", "inf"):
        said = refused(2, "ui", "--no-open", "--allow-calls", "--max-cost", number)[-1]
        assert "write a number of US dollars from 0 to" in said
    assert "give a cap with it" in refused(2, "ui", "--no-open", "--allow-calls")[0]
    assert "asks nobody without --allow-calls" in refused(2, "ui", "--no-open", "--max-cost", "1")[0]
