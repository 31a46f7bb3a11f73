"""The pages of runs lead a newcomer: what was searched, what came of it, which prompt it is, how two of them differ."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from agent.ledger.query import History
from agent.ledger.store import Ledger, NewRun
from agent.report import wording
from agent.report.prompt_texts import whole_prompt
from agent.report.terms import TERMS
from agent.report.view import RunView
from tests.cli.world import compatible, files, good_json, knowing
from tests.conftest import Made
from tests.report.pages import Page
from tests.report.test_web import data, page
from tests.report.web_world import signed_in
from tests.toys import make_task
from tests.wire import WireServer

DB = Path("runs/ledger.db")


def add_runs(*runs: tuple[str, dict[str, str], str, dict[str, str] | None, str]) -> None:
    """Runs of a toy task, each as id, options, status, result and error."""
    with closing(Ledger(DB)) as ledger:
        for run_id, options, status, result, error in runs:
            ledger.begin_run(NewRun(run_id, make_task(), "m", "", 0, {}, {}, options=options))
            ledger.end_run(run_id, status, 1.0, result, error=error)
        asyncio.run(ledger.commit())


def winner_number(run_id: str, candidate_id: str) -> int:
    with closing(sqlite3.connect(f"file:{DB}?mode=ro", uri=True)) as db:
        ((number,),) = db.execute(
            "SELECT number FROM trials WHERE run_id = ? AND candidate_id = ?", (run_id, candidate_id)
        )
    return int(number)


def test_searches_come_before_other_jobs_and_each_says_what_came_of_it(two_runs: Made) -> None:
    check = {"kind": "check", "gate": "passed"}
    add_runs(
        ("checked", {"command": "check"}, "complete", check, ""),
        ("moved", {"command": "transfer"}, "failed", None, "m: HTTP 500"),
        ("broken", {}, "failed", None, "m: HTTP 401; set a key"),
    )
    first, second = (result["run_id"] for result in two_runs)

    async def look() -> None:
        async with signed_in(DB) as (client, _):
            listed = (await data(client, "/runs.json"))["runs"]
            assert [line["id"] for line in listed] == ["broken", second, first, "moved", "checked"]
            assert [line["is_search"] for line in listed] == [True, True, True, False, False]
            assert [line["job"] for line in listed] == ["search", "search", "search", "transfer", "check"]
            shown = await page(client, "/")
            searches, jobs = shown.words.split("Other jobs")
            points = " → ".join(wording.points(two_runs[0][side]["test"]) for side in ("baseline", "winner"))
            assert f"{points} " in searches
            assert "better, released" in searches
            assert "failed m: HTTP 401; set a key" in searches
            assert "failed m: HTTP 500" in jobs
            assert "check: passed" in jobs
            ticks = [a["value"] for tag, a in shown.nodes if tag == "input" and a.get("name") == "pick"]
            assert ticks == ["broken", second, first]
            links = set(shown.links)
            assert {f"/run/{first}/report", f"/run/{first}#prompt", "/run/checked"} <= links
            assert "/run/checked/report" not in links

    asyncio.run(look())


async def test_an_empty_ledger_says_what_to_type(here: Path) -> None:
    Ledger(DB).close()
    async with signed_in(DB) as (client, _):
        shown = await page(client, "/")
        assert "optimize run support_triage" in shown.words
        assert "table" not in shown.structure


async def test_where_the_own_prompt_is_kept_nothing_was_compared(here: Path) -> None:
    """A gain of 0 with an interval would say that two prompts were tested."""
    with WireServer(knowing) as server:
        command = [*files(120), "-m", compatible(server), "--max-calls", "200", "-q"]
        kept = await asyncio.to_thread(good_json, *command)
    assert kept["decision"] == "keep_baseline"
    assert kept["lift"]["ci95"][0] < 0 < kept["lift"]["ci95"][1]
    async with signed_in(DB) as (client, _):
        (line,) = (await client.get("/runs.json")).json()["runs"]
        assert line["lift"] is None
        assert "+0.0" not in Page((await client.get("/")).text).words


async def test_the_trials_of_both_prompts_are_marked_in_words(two_runs: Made) -> None:
    run_id, number = two_runs[0]["run_id"], winner_number(two_runs[0]["run_id"], two_runs[0]["winner"]["candidate_id"])
    async with signed_in(DB) as (client, _):
        found = await data(client, f"/run/{run_id}.json")
        assert [(each["number"], each["which"]) for each in found["marked"]] == [
            (0, "your prompt"),
            (number, "best found"),
        ]
        words = (await page(client, f"/run/{run_id}?sort=score")).words
        assert f"best found trial {number}" in words
        assert "complete best found" in words
        shown = await page(client, f"/run/{run_id}/trial/{number}")
        marked = {trial["number"]: trial["which"] for trial in found["board"]["trials"] if trial["which"]}
        assert marked.items() <= {0: "your prompt", number: "best found"}.items()
        assert f"Trial {number}: best found" in shown.words


async def test_both_prompts_stand_on_the_page_of_a_run_in_full(two_runs: Made) -> None:
    run_id = two_runs[0]["run_id"]
    with closing(History(DB)) as history:
        view = RunView(history, run_id)
        prompts = [whole_prompt(candidate or {}) for candidate in (view.winner, view.baseline)]
        demos = (view.winner or {})["demos"]
    assert demos
    assert all(str(value) in prompts[0] for demo in demos for value in demo["inputs"].values())
    async with signed_in(DB) as (client, _):
        found = await data(client, f"/run/{run_id}.json")
        assert [each["text"] for each in found["prompts"]] == prompts
        for address in (f"/run/{run_id}", f"/run/{run_id}/report"):
            shown = await page(client, address)
            assert all(prompt in shown.text for prompt in prompts), address
            assert TERMS["sealed test"] in shown.words


async def test_the_report_of_a_run_is_a_page_without_a_style_of_its_own(two_runs: Made) -> None:
    run_id = two_runs[0]["run_id"]
    check = ("checked", {"command": "check"}, "complete", {"kind": "check", "gate": "passed"}, "")
    await asyncio.to_thread(add_runs, check, ("broken", {}, "failed", None, "m: HTTP 401; set a key"))
    async with signed_in(DB) as (client, _):
        shown = await page(client, f"/run/{run_id}/report")
        assert "style" not in shown.structure
        assert shown.structure.count("svg") == 4
        assert len(shown.tables["Sealed rows that got better"]) > 1
        assert (await data(client, f"/run/{run_id}/report.json"))["result"]["decision"] == "promote"
        assert (await client.get("/run/checked/report")).status_code == 404
        assert "No result: this run is failed. m: HTTP 401" in (await page(client, "/run/broken/report")).words


async def test_a_comparison_shows_scores_and_the_rows_that_differ(two_runs: Made) -> None:
    run_id, lift = two_runs[0]["run_id"], two_runs[0]["lift"]
    number = winner_number(run_id, two_runs[0]["winner"]["candidate_id"])
    address = f"/compare?pick={run_id}:0&pick={run_id}:{number}"
    async with signed_in(DB) as (client, _):
        found = await data(client, address.replace("?", ".json?"))
        shown = await page(client, address)
        test = found["rows"]["test"]
        assert test["total"] == lift["wins"] + lift["losses"] == found["paired"]["test"]["wins"] + lift["losses"]
        assert len(test["rows"]) == min(test["total"], 50)
        for row in test["rows"]:
            assert row["change"] == row["two"]["value"] - row["one"]["value"] != 0
            assert row["inputs"]["text"] in shown.words
            assert row["labels"]["label"] in shown.words
        assert [side["what"] for side in found["sides"]] == ["trial 0", f"trial {number}"]
        for side, name in zip(found["sides"], ("baseline", "winner"), strict=True):
            assert side["scores"]["dev"]["mean"] == two_runs[0][name]["dev"]
            assert wording.points(side["scores"]["test"]["mean"]) in shown.words


async def test_one_or_three_ticks_are_answered_in_words(two_runs: Made) -> None:
    first, second = (result["run_id"] for result in two_runs)
    async with signed_in(DB) as (client, _):
        assert "Only one was ticked" in (await page(client, f"/compare?pick={first}")).words
        shown = await page(client, f"/compare?pick={first}&pick={second}&pick={first}:0")
        assert "3 were ticked; the first two are compared." in shown.words
        assert "ticked" not in (await page(client, "/compare")).words.replace("Or tick two", "")
