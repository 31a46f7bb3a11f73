"""Forms that write or ask: labels, blinded ratings, and the playground with its caps."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.errors import InputError, Interrupted, RunRefused
from agent.jobs.playground import Playground
from agent.ledger import trail
from agent.ledger.query import History
from agent.ledger.store import Ledger, NewCandidate, NewRun
from agent.options.run import RecordedOptions
from agent.options.shared import CapOptions
from agent.prompt.prompt_candidate import PromptCandidate
from agent.release.promotion import ReleaseRegistry
from agent.release.runtime import load_prompt
from agent.report.blinded import RateOptions, rating_session
from agent.report.view import RunView
from agent.report.web.app import bind, make, serve
from agent.report.web.labelling_pages import LabelPlace
from agent.task.label_log import current_labels
from agent.task.load import load_task
from agent.types import Completion, Message, Outcome, Prediction, Request, Trial
from tests.cli.label_world import label_place
from tests.cli.world import good, refused
from tests.report.hostile import PAYLOADS
from tests.report.pages import Page
from tests.report.web_world import BASE, DB, Browser, browsing, require_harmless, rows
from tests.snapshots.world import REPLIES
from tests.toys import FakeModel

MAILS = Path("tasks/mails")
TASKS = Path(__file__).resolve().parents[2] / "tasks"
TEXT = "the courier lost my parcel\nand then <b>the</b> invoice {{text}}"
Runs = Mapping[str, str]


# -- labels -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def labelling(runs: Runs) -> Iterator[tuple[Browser, LabelPlace]]:
    place = label_place(MAILS)
    with browsing(labelling=place) as client:
        yield client, place


def sent(client: Browser, form: Mapping[str, str], action: str) -> str:
    """Where a form of labels leads."""
    reply = client.post("/label", data={**form, "action": action})
    assert reply.status_code == 303, reply.text
    return reply.headers["location"]


def test_a_label_a_skip_and_an_undo_are_in_the_file(labelling: tuple[Browser, LabelPlace]) -> None:
    client, place = labelling
    assert "A name or initials of the labeller" in client.page("/label").words
    first = client.form("/label?labeller=ann")
    assert sent(client, first, "label:billing") == "/label?labeller=ann"
    second = client.form("/label?labeller=ann")
    third = client.form(sent(client, second, "skip"))
    assert len({first["row"], second["row"], third["row"]}) == 3
    assert client.form(sent(client, third, "undo"))["row"] == first["row"]
    events = place.task.log.events()
    assert ([event.label for event in events], current_labels(events)) == (["billing", None], {})
    for wrong in ({"row": "row_0"}, {"labeller": ""}, {"labeller": "a\x1b[2J"}):
        assert client.post("/label", data=first | {"action": "label:billing"} | wrong).status_code == 400, wrong
    for action in ("label:money", "delete"):
        assert client.post("/label", data=first | {"action": action}).status_code == 400


def test_where_no_row_is_left_agreement_is_told_and_the_last_label_can_be_undone(
    labelling: tuple[Browser, LabelPlace],
) -> None:
    client, place = labelling
    ids = [row.id for row in place.task.rows]
    for labeller in ("ann", "ben"):
        place.task.log.add_all([(row, "billing") for row in ids[:-1]], labeller, "")
    assert client.form("/label?labeller=ann")["row"] == ids[-1]
    assert "agreement" not in client.page("/label?labeller=ann").text, "agreement is estimated at the end alone"
    page = client.page(f"/label?labeller=ann&skipped={ids[-1]}")
    assert f"agreement of ann and ben on {len(ids) - 1} rows" in page.text
    assert "No row is left for ann but 1 skipped" in page.text
    back = sent(client, client.form(f"/label?labeller=ann&skipped={ids[-1]}"), "undo")
    assert client.form(back)["row"] == ids[-2]


# -- ratings ----------------------------------------------------------------------------------------------------------


def test_ratings_go_into_the_file_of_the_command_and_name_no_prompt(runs: Runs) -> None:
    run, file = runs["search"], DB.parent / runs["search"] / "ratings.jsonl"
    address = f"/run/{run}/rate"
    with browsing() as client:
        assert "Who rates?" in client.page(address).words
        for each in (f"{address}?rater=Ann", f"{address}.json?rater=Ann"):
            text = client.get(each).text
            assert not [c for (c,) in rows("SELECT id FROM candidates") if c in text]
            assert "trial" not in text
        of, form = int(client.page(address).words.partition("You see ")[2].partition(" ")[0]), dict[str, str]()
        for number in (1, 2, 3):
            assert f"Answer {number} of {of}" in client.page(f"{address}?rater=Ann").words
            form = client.form(f"{address}?rater=Ann", rating=str(number), action="save")
            reply = client.post(address, data=form)
            assert (reply.status_code, reply.headers["location"]) == (303, f"{address}?rater=Ann&skipped=0")
        with ThreadPoolExecutor(6) as pool:  # a double click
            again = [pool.submit(client.post, address, data=form | {"rating": "5"}) for _ in range(6)]
            assert {each.result().status_code for each in again} == {303}
        kept = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        assert [row["rating"] for row in kept] == [1, 2, 3]
        assert all({"item", "rater", "text", "label"} <= row.keys() for row in kept)
        skip = client.post(address, data=form | {"action": "skip"}).headers["location"]
        assert f"Answer 5 of {of}" in client.page(skip).words
        assert client.form(skip)["item"] != form["item"]
        stop = client.post(address, data=form | {"action": "stop"}).headers["location"]
        assert f"3 of {of} answers are rated" in client.page(stop).words
        for wrong in ({"rating": "6"}, {"rating": ""}, {"item": "i_none", "rating": "1"}, {"rating": "1", "rater": ""}):
            assert client.post(address, data=form | wrong).status_code == 400, wrong
    said = CliRunner().invoke(main, ["judge", "rate", run, "--rater", "Ann"], input="4\nq\n").output
    assert f"{of} answers, 3 rated before by Ann" in said
    assert len(file.read_text("utf-8").splitlines()) == 4


def test_no_more_prompts_are_read_than_answers_are_wanted(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    read = list[str]()
    outcomes = History.outcomes

    def counted(self: History, run_id: str, candidate_id: str, split: str) -> list[dict[str, Any]]:
        read.append(candidate_id)
        return outcomes(self, run_id, candidate_id, split)

    monkeypatch.setattr(History, "outcomes", counted)
    with closing(History(DB)) as history:
        assert len(rating_session(history, runs["search"], RateOptions(rater="Ann", count=1)).items) == 1
        assert len(read) == 1
        assert len(rating_session(history, runs["search"], RateOptions(rater="Ann")).items) > 1
        assert len(read) > 2


def test_each_criterion_of_a_rubric_gets_its_mark(here: Path) -> None:
    task = load_task(TASKS / "podcast_blurb")
    candidate, name = PromptCandidate("zero-shot", "turns", "Write a blurb."), task.signature.outputs[0].name
    with closing(Ledger(DB)) as ledger:
        ledger.begin_run(NewRun("blurbs", task, "m", options=RecordedOptions(task=task.folder).stored()))
        ledger.add_candidate("blurbs", NewCandidate(0, candidate.shown(), (Message("user", "{{notes}}"),), "baseline"))
        for row in task.dev[:6]:
            prediction = Prediction({name: f"About {row.id}"}, "")
            ledger.put_outcome("blurbs", "dev", Outcome(candidate.id, row.id, prediction, (), 0.5, f"k_{row.id}"))
        ledger.put_trial("blurbs", Trial(0, 0, candidate.id, "complete", 6, 0.5, (0.1, 0.9), "saw all rows"))
        ledger.end_run("blurbs", "complete", 1.0)
    address = "/run/blurbs/rate"
    with browsing() as client:
        page = client.page(f"{address}?rater=Ann")
        asked = {own["name"] for tag, own in page.nodes if tag == "input" and own.get("type") == "radio"}
        criteria = [part.name for part in next(iter(task.rubrics.values())).criteria]
        assert asked == {"rating", *(f"rating_{part}" for part in criteria)}
        form = client.form(f"{address}?rater=Ann", action="save")
        marks = {str(field): str(1 + number % 5) for number, field in enumerate(sorted(map(str, asked)))}
        assert client.post(address, data=form | dict(list(marks.items())[:-1])).status_code == 400
        assert client.post(address, data=form | marks).status_code == 303
        (kept,) = (json.loads(line) for line in Path("runs/blurbs/ratings.jsonl").read_text("utf-8").splitlines())
        assert {field: kept[field] for field in marks} == {field: int(mark) for field, mark in marks.items()}
        (section,) = client.data(f"{address}.json?rater=Ann&stopped=1")["sections"]
        (command,) = next(block["lines"] for block in section["blocks"] if "lines" in block)
        ratings = str(DB.parent / "blurbs/ratings.jsonl")
        assert shlex.split(command)[3:] == [task.folder, "--labels", ratings, "--judge", "m"]
        assert "Answer 2 of 6" in client.page(f"{address}?rater=Ann").words
        assert "Answer 1 of 6" in client.page(f"{address}?rater=Bob").words


# -- the playground ---------------------------------------------------------------------------------------------------


def asking(max_calls: int | None = 50, max_cost: float | None = 0.5) -> Any:
    """A web view that may ask."""
    return browsing(asker=Playground(DB, CapOptions(max_calls=max_calls, max_cost=max_cost, price=(1, 2))))


def ask(client: Browser, address: str, **values: str) -> httpx.Response:
    """The page after the button was pressed."""
    form = client.form(address, action="ask", **({"in.text": TEXT} | values))
    return client.post(address, data=form, follow_redirects=True, headers={"origin": BASE})


def messages(client: Browser, address: str, **params: str) -> dict[str, list[str]]:
    """The messages of each prompt of the playground, by its name."""
    prompts = next(each for each in client.data(address, **params)["sections"] if each["name"] == "prompts")["blocks"][
        -1
    ]
    return {each["group"]: [one["lines"][0] for one in each["blocks"] if "lines" in one] for each in prompts["blocks"]}


def played() -> Sequence[Any]:
    """The calls of the newest run."""
    newest = "SELECT id FROM runs ORDER BY started_utc DESC, id DESC LIMIT 1"
    return rows(f"SELECT run_id, id, state, cost_usd FROM calls WHERE run_id = ({newest})")


def test_a_row_is_rendered_as_the_run_sent_it_without_a_call(runs: Runs) -> None:
    address, count = f"/run/{runs['first']}/play", rows("SELECT COUNT(*) FROM runs")
    with browsing() as client:
        picks = [pick for pick, *_ in client.page(address).tables["Rows"][1:]]
        with closing(History(DB)) as history:
            view = RunView(history, runs["first"])
            seen = []
            for candidate in (view.baseline, view.winner):
                outcomes = history.outcomes(view.id, candidate["id"], "dev") if candidate else []
                seen.append({f"dev:{row['example_id']}": row["call_key"] for row in outcomes})
            row = next(pick for pick in picks if all(pick in keys for keys in seen))
            requests = [trail.request_of(history, keys[row]) or {} for keys in seen]
        assert messages(client, f"{address}.json?row={row}") == {
            side: [message["content"] for message in request["messages"]]
            for side, request in zip(("your prompt", "best found"), requests, strict=True)
        }
        page = client.page(f"{address}?row={row}")
        assert f"row {row} · right label" in page.words
        assert "in.text" not in client.form(f"{address}?row={row}"), "a long row is not sent along"
        assert "right label" not in client.page(address, row=row, **{"in.text": "changed"}).words
        sealed = client.data(f"/run/{runs['first']}/rows.json")["rows"]
        assert not {f"test:{each['example_id']}" for each in sealed} & {*picks}
        words = client.page(address).words
        assert not any(each["inputs"]["text"] in words for each in sealed)
        for wrong in (f"test:{sealed[0]['example_id']}", "dev:none"):
            assert client.get(f"{address}?row={wrong}").status_code == 404
        assert "optimize ui --allow-calls" in page.words
        assert any(tag == "button" and "disabled" in own for tag, own in page.nodes)
        reply = ask(client, address)
        assert (reply.status_code, "--allow-calls" in reply.text) == (503, True)
        newest = client.data("/play.json")
        assert newest == client.data(f"/run/{newest['of']}/play.json")
    assert rows("SELECT COUNT(*) FROM runs") == count


def test_a_typed_text_is_filled_in_exactly(runs: Runs) -> None:
    """A browser sends CR LF; marks and markup stay text."""
    version = load_prompt("rows@production").version
    with browsing() as client:
        for address in (f"/run/{runs['search']}/play", f"/release/rows/{version}/play"):
            form = client.form(address, action="show", **{"in.text": TEXT.replace("\n", "\r\n")})
            assert require_harmless(client.post(address, data=form, headers={"origin": BASE})) is not None
            (*_, sent) = messages(client, f"{address}.json", **{"in.text": TEXT}).values()
            assert sent[-1] == TEXT
    assert [message["content"] for message in load_prompt(f"rows@{version}").render(text=TEXT)] == sent


def test_a_prompt_comes_from_the_ledger_where_the_release_of_its_run_holds_another(runs: Runs) -> None:
    """But not one that picks its examples: the rows are in its release alone."""
    addresses = {name: f"/run/{runs[name]}/play" for name in ("first", "search")}
    with browsing() as client:
        before = messages(client, f"{addresses['first']}.json")
        for name in addresses:
            folder = DB.parent / runs[name]
            release = load_prompt(folder / "prompt.md").release
            replace(release, provenance={**release.provenance, "candidate_id": "c_other"}).write(folder)
        assert messages(client, f"{addresses['first']}.json") == before
        assert "with its rows or passages is gone" in client.get(addresses["search"]).text
        held = messages(client, f"/run/{runs['migrated']}/play.json")
        assert [*held] == ["the released prompt", "best found"], "of the winner that was held back"


@pytest.mark.parametrize("kind", ["run", "release"])
def test_an_answer_is_a_call_of_the_ledger_and_is_bought_once(runs: Runs, kind: str) -> None:
    version = load_prompt("rows@production").version
    address = f"/run/{runs['search']}/play" if kind == "run" else f"/release/rows/{version}/play"
    prompts = 2 if kind == "run" else 1
    with asking() as client:
        quote = client.data(f"{address}.json", **{"in.text": TEXT})["quote"]
        assert (quote["calls"], quote["problem"]) == (prompts, "")
        page = require_harmless(ask(client, address))
        assert page is not None
        calls = played()
        assert [state for _, _, state, _ in calls] == ["ok"] * prompts
        assert 0 < sum(usd for *_, usd in calls) <= quote["usd"]
        data = client.data(f"{address}.json?asked={calls[0][0]}")
        assert data["inputs"] == {"text": TEXT}
        assert {f"/call/{number}" for _, number, *_ in calls} <= set(page.links)
        assert "label: " in page.words
        assert data["left"]["max_calls"] == 50 - prompts
        assert data["left"]["max_cost"] == pytest.approx(0.5 - sum(usd for *_, usd in calls))
        assert f"{prompts} from the ledger" in Page(ask(client, address).text).words
        assert not [state for _, _, state, _ in played() if state != "cached"]
    assert f"playground of {runs['search'] if kind == 'run' else f'rows@{version}'}" in good("show", calls[0][0])
    good("audit", "verify")
    assert TEXT not in json.dumps(rows("SELECT body FROM events WHERE run_id = ?", calls[0][0]))


def test_what_cannot_be_asked_is_told_before_anything_is_sent(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"/run/{runs['search']}/play"
    with asking(max_calls=3, max_cost=None) as client:
        assert ask(client, address).status_code == 200
        count = rows("SELECT COUNT(*) FROM calls")
        reply = ask(client, address, **{"in.text": "another text"})
        assert (reply.status_code, "1 of 3 calls are left" in reply.text) == (503, True)
        assert "another text" in reply.text
    release = replace(load_prompt("rows@production").release, model="openai-compatible/x@http://127.0.0.1:9/v1")
    ReleaseRegistry(DB.parent / "releases").promote(release, "foreign", None, evidence={})
    with asking(max_calls=None, max_cost=0.000001) as client:
        assert "the cap is used up: $" in ask(client, address, **{"in.text": "another text"}).text
    with asking() as client:
        for at, text, said in (
            (address, "  ", "text: empty"),
            (f"/release/rows/{release.version}/play", "x", "has named it before"),
        ):
            reply = ask(client, at, **{"in.text": text})
            assert (reply.status_code, said in reply.text) == (503, True), said
        with closing(Ledger(DB)):  # another process writes
            assert "Not asked: " in ask(client, address, **{"in.text": "another text"}).text
    assert rows("SELECT COUNT(*) FROM calls") == count
    for words, said in (
        (("--allow-calls", "--max-cost", "nan"), "write a number of US dollars from 0 to"),
        (("--allow-calls",), "give a cap with it"),
        (("--max-cost", "1"), "asks nobody without --allow-calls"),
    ):
        assert said in refused(2, "ui", "--no-open", *words)[-1]
    monkeypatch.setenv("OPTIMIZE_MAX_COST", "1")  # of other commands: no reason to refuse the web view
    with bind(0) as taken:
        assert "cannot be used" in refused(2, "ui", "--no-open", "--port", str(taken.getsockname()[1]))[0]


def test_a_failure_and_a_hostile_reply_stay_text(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(messages: Any, body: Any) -> str:
        raise RunRefused("no <b>such</b> key\nat all")

    address, said = f"/run/{runs['search']}/play", " ".join(PAYLOADS)
    with asking() as client:
        monkeypatch.setitem(REPLIES, "learner", fails)
        reply = ask(client, address)
        page = require_harmless(reply)
        assert page is not None
        assert (reply.status_code, "b" in page.structure) == (503, False)
        assert "Not asked: " in page.words
        assert "no <b>such</b> key at all" in page.words
        monkeypatch.setitem(REPLIES, "learner", lambda messages, body: said)
        assert require_harmless(ask(client, address, **{"in.text": said[:2000]})) is not None
    assert "failed" in {status for (status,) in rows("SELECT status FROM runs")}


def test_ctrl_c_ends_the_server_and_a_question_that_nobody_answers(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    arrived = threading.Event()

    async def never(model: FakeModel, request: Request) -> Completion:
        arrived.set()
        await asyncio.sleep(60)
        raise AssertionError

    monkeypatch.setattr(FakeModel, "complete", never)
    playground, socket = Playground(DB, CapOptions(max_calls=5)), bind(0)
    web = make(DB, socket.getsockname()[1], asker=playground)
    base, _, path = web.url.partition("/?")

    def question() -> int:
        with httpx.Client(base_url=base, timeout=60, trust_env=False) as client:
            client.get(f"/?{path}")
            address = f"/release/rows/{load_prompt('rows@production').version}/play"
            token = Page(client.get(address).text).field("csrftoken")
            return client.post(address, data={"csrftoken": token, "action": "ask", "in.text": TEXT}).status_code

    def press() -> None:
        assert arrived.wait(30)
        os.kill(os.getpid(), signal.SIGINT)

    with ThreadPoolExecutor() as pool:
        asked = pool.submit(question)
        pool.submit(press)
        with pytest.raises(KeyboardInterrupt):
            serve(web, socket)
        assert asked.exception() is not None or asked.result() >= 500
    assert playground.left.max_calls == 4
    with pytest.raises(Interrupted):
        playground.ask("x", {"release": load_prompt("rows@production")}, {"text": "a"})
    assert rows("SELECT status FROM runs ORDER BY started_utc DESC, id DESC LIMIT 1") == [("interrupted",)]


def test_calls_need_a_cap() -> None:
    with pytest.raises(InputError, match="give a cap"):
        Playground(DB, CapOptions())
