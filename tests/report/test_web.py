"""The web pages show what the ledger holds, by filters and as JSON, and take ratings into the file of `judge rate`."""

import asyncio
import hashlib
import json
import shlex
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from agent.cli import main
from agent.ledger.store import Ledger, NewCandidate, NewRun, Reservation
from agent.options.jobs import RecordedOptions
from agent.prompt.prompt_candidate import PromptCandidate
from agent.release.result import RunResult
from agent.report import wording
from agent.task.load import load_task
from agent.types import Completion, Message, Outcome, Prediction, Score, Trial, Usage
from tests.conftest import Made
from tests.report.pages import Page
from tests.report.web_world import crawl, signed_in
from tests.toys import ask, make_task

DB = Path("runs/ledger.db")
TASKS = Path(__file__).resolve().parents[2] / "tasks"


def rows(sql: str, *values: Any) -> list[Any]:
    with sqlite3.connect(f"file:{DB}?mode=ro", uri=True) as db:
        return db.execute(sql, values).fetchall()


async def data(client: httpx.AsyncClient, address: str) -> dict[str, Any]:
    reply = await client.get(address)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("application/json")
    found = reply.json()
    assert isinstance(found, dict)
    return found


async def page(client: httpx.AsyncClient, address: str) -> Page:
    reply = await client.get(address)
    assert reply.status_code == 200, reply.text
    return Page(reply.text)


async def test_every_link_leads_to_a_page_of_ours_and_nothing_is_written(two_runs: Made) -> None:
    before = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in DB.parent.glob("ledger.db*")}
    files = sorted(str(path) for path in DB.parent.rglob("*"))
    async with signed_in(DB) as (client, _):
        found = await crawl(client)
        assert (await client.get("/audit?verify=now")).status_code == 200
    starts = (
        "/run/",
        "/compare?",
        "/audit",
        "/call/",
        "/ledger/events/",
        "/ledger?sql=",
        "/runs.json",
        "/ledger/calls",
    )
    for start in starts:
        assert any(address.startswith(start) for address in found), start
    for name, digest in before.items():
        if not name.endswith(("-wal", "-shm")):
            assert hashlib.sha256(DB.with_name(name).read_bytes()).hexdigest() == digest, name
    made = {"-wal", "-shm", ".lock"}  # of SQLite, for any reader
    assert [p for p in map(str, sorted(DB.parent.rglob("*"))) if not p.endswith(tuple(made))] == [
        p for p in files if not p.endswith(tuple(made))
    ]


async def test_the_list_and_a_run_say_what_the_command_printed(two_runs: Made) -> None:
    async with signed_in(DB) as (client, _):
        listed = (await data(client, "/runs.json"))["runs"]
        shown = await page(client, "/")
        for result in two_runs:
            (line,) = [each for each in listed if each["id"] == result["run_id"]]
            assert (line["baseline"], line["winner"]) == (result["baseline"]["test"], result["winner"]["test"])
            assert (line["lift"]["diff"], line["decision"]) == (result["lift"]["diff"], result["decision"])
            assert f"{100 * result['winner']['test']:.1f}" in shown.words
            one = await page(client, f"/run/{result['run_id']}")
            assert wording.verdict(RunResult.from_json(result)) in one.words
            assert wording.certainty(RunResult.from_json(result)) in one.words
            assert any(tag == "svg" for tag, _ in one.nodes)
            assert not any(tag == "script" for tag, _ in one.nodes)  # a run that has ended needs none


async def test_a_run_shows_its_answers_by_label_and_what_to_type_next(two_runs: Made) -> None:
    result = two_runs[0]
    async with signed_in(DB) as (client, _):
        shown = await page(client, f"/run/{result['run_id']}")
        sections = (await data(client, f"/run/{result['run_id']}.json"))["sections"]
    (by_label,) = result["labels"]
    table = {row[0]: row[1:] for row in shown.tables["By label of label, on the sealed test"]}
    for score in by_label["winner"]["scores"]:
        assert table[score["label"]][0] == str(score["support"])
        assert table[score["label"]][-1] == wording.points(score["recall"])
    blocks = {section["name"]: section["blocks"] for section in sections}
    for line in (line for name in ("verdict", "prompt") for each in blocks[name] for line in each.get("lines", ())):
        assert line[1:] in shown.text
    for what, command in blocks["next"][-1]["rows"]:
        assert what[1:] in shown.text
        assert command in shown.text
        assert result["run_id"] in command


@pytest.mark.parametrize(
    ("query", "where", "order"),
    [
        ("", "1", "mean DESC, number"),
        ("state=complete", "state = 'complete'", "mean DESC, number"),
        ("technique=few-shot&sort=trial", "technique = 'few-shot'", "number"),
        ("least=40.5", "mean >= 0.405", "mean DESC, number"),
        ("text=EDITION&sort=tokens&order=up", "instruction LIKE '%edition%'", "tokens, number"),
        ("operator=baseline", "number = 0", "number"),
        ("state=nothing", "0", "1"),
    ],
)
async def test_the_trials_are_filtered_and_sorted_by_the_address(
    two_runs: Made, query: str, where: str, order: str
) -> None:
    run_id = two_runs[0]["run_id"]
    tokens = "(SELECT SUM(prompt_tokens + completion_tokens) FROM calls k WHERE k.candidate_id = t.candidate_id AND "
    tokens += "k.run_id = t.run_id AND k.state <> 'cached') AS tokens"
    wanted = rows(
        f"SELECT number, {tokens} FROM trials t JOIN prompts c ON c.id = t.candidate_id "
        f"WHERE run_id = ? AND {where} ORDER BY {order}",
        run_id,
    )
    async with signed_in(DB) as (client, _):
        board = (await data(client, f"/run/{run_id}.json?{query}"))["board"]
        assert [trial["number"] for trial in board["trials"]] == [number for number, _ in wanted][:50]
        assert board["place"]["count"] == len(wanted)
        links = list((await page(client, f"/run/{run_id}?{query}")).links)
    for number, _ in wanted[:50]:
        assert f"/run/{run_id}/trial/{number}" in links


async def test_a_trial_stands_next_to_the_baseline_and_flips_are_found(two_runs: Made) -> None:
    run_id, winner = two_runs[0]["run_id"], two_runs[0]["winner"]["candidate_id"]
    ((number,),) = rows("SELECT number FROM trials WHERE run_id = ? AND candidate_id = ?", run_id, winner)
    both = rows(
        "SELECT a.example_id, a.value, b.value FROM outcomes a JOIN outcomes b USING (run_id, split, example_id) JOIN "
        "trials t ON t.run_id = a.run_id AND t.number = 0 AND t.candidate_id = a.candidate_id "
        "WHERE a.run_id = ? AND a.split = 'dev' AND b.candidate_id = ?",
        run_id,
        winner,
    )
    right = {row for row, base, own in both if own > base}
    wrong = {row for row, base, own in both if own < base}
    assert right
    async with signed_in(DB) as (client, _):
        for name, wanted in (("right", right), ("wrong", wrong)):
            found = await data(client, f"/run/{run_id}/trial/{number}.json?rows={name}")
            assert found["counts"][name]["rows"] == len(wanted)
            assert {row["example_id"] for row in found["rows"]} <= wanted
            assert len(found["rows"]) == min(len(wanted), 50)
        found = await data(client, f"/run/{run_id}/trial/{number}.json?rows=right")
        shown = (await page(client, f"/run/{run_id}/trial/{number}?rows=right")).words
        for row in found["rows"]:
            assert row["one"]["reply"] in shown
            assert row["two"]["reply"] in shown
            assert row["inputs"]["text"] in shown
            assert row["labels"]["label"] == row["two"]["fields"]["label"]
        assert (await client.get(f"/run/{run_id}/trial/99999")).status_code == 404
        assert (await client.get("/run/nothing")).status_code == 404


async def test_two_trials_are_compared_as_the_command_does(two_runs: Made) -> None:
    run_id, winner = two_runs[0]["run_id"], two_runs[0]["winner"]["candidate_id"]
    ((number,),) = rows("SELECT number FROM trials WHERE run_id = ? AND candidate_id = ?", run_id, winner)
    first, second = f"{run_id}:0", f"{run_id}:{number}"
    printed = json.loads(CliRunner().invoke(main, ["compare", first, second, "--json"]).stdout)
    assert printed["paired"]["dev"]["diff"] > 0
    async with signed_in(DB) as (client, _):
        found = await data(client, f"/compare.json?a={first}&b={second}")
        assert {split: test for split, test in found["paired"].items() if test} == printed["paired"]
        assert {name: fact["a"] for name, fact in found["facts"].items()} == {
            k: v["a"] for k, v in printed["facts"].items()
        }
        shown = await page(client, f"/compare?pick={first}&pick={second}")
        assert f"{100 * printed['paired']['dev']['diff']:+.1f} points" in shown.words
        assert any(tag == "ins" for tag, _ in shown.nodes)
        assert "no run nothing" in (await page(client, f"/compare?a=nothing&b={second}")).words
        other = two_runs[1]["run_id"]
        assert "no paired test" in (await page(client, f"/compare?a={run_id}&b={other}")).words


async def test_ratings_go_into_the_file_of_the_command_and_both_can_be_mixed(two_runs: Made) -> None:
    run_id = two_runs[0]["run_id"]
    file, address = DB.parent / run_id / "ratings.jsonl", f"/run/{run_id}/rate"
    async with signed_in(DB) as (client, _):
        assert "Who rates?" in (await page(client, address)).words
        form: dict[str, str] = {}
        for number in range(3):
            shown = await page(client, f"{address}?rater=Ann")
            assert f"Answer {number + 1} of 40" in shown.words
            form = {name: shown.field(name) for name in ("csrftoken", "rater", "item", "skipped")}
            reply = await client.post(address, data=form | {"rating": str(number + 1), "action": "save"})
            assert (reply.status_code, reply.headers["location"]) == (303, f"{address}?rater=Ann&skipped=0")
        again = [
            client.post(address, data=form | {"rating": "5", "action": "save"}) for _ in range(6)
        ]  # a double click
        assert {reply.status_code for reply in await asyncio.gather(*again)} == {303}
        kept = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        assert [row["rating"] for row in kept] == [1, 2, 3]
        assert all({"item", "rater", "text", "label"} <= row.keys() for row in kept)
        skip = await client.post(address, data=form | {"action": "skip"})
        other = await page(client, skip.headers["location"])
        assert "Answer 5 of 40" in other.words
        assert other.field("item") != form["item"]
        stop = await client.post(address, data=form | {"action": "stop"})
        assert "3 of 40 answers are rated" in (await page(client, stop.headers["location"])).words
        for wrong in ({"rating": "6"}, {"rating": ""}, {"item": "i_none", "rating": "1"}, {"rating": "1", "rater": ""}):
            assert (await client.post(address, data=form | {"action": "save"} | wrong)).status_code == 400
    said = CliRunner().invoke(main, ["judge", "rate", run_id, "--rater", "Ann"], input="4\nq\n").output
    assert "40 answers, 3 rated before by Ann" in said
    assert "4 of 40 rated by Ann" in said
    async with signed_in(DB) as (client, _):
        assert "Answer 5 of 40" in (await page(client, f"{address}?rater=Ann")).words
    assert len(file.read_text("utf-8").splitlines()) == 4


async def test_who_rates_is_not_told_which_prompt_wrote_an_answer(two_runs: Made) -> None:
    run_id = two_runs[0]["run_id"]
    async with signed_in(DB) as (client, _):
        for address in (f"/run/{run_id}/rate?rater=Ann", f"/run/{run_id}/rate.json?rater=Ann"):
            text = (await client.get(address)).text
            assert not [c for (c,) in rows("SELECT id FROM candidates") if c in text]
            assert "trial" not in text


async def test_the_audit_names_the_head_and_what_does_not_hold(two_runs: Made) -> None:
    async with signed_in(DB) as (client, _):
        head = rows("SELECT seq, hash FROM head")[0]
        found = await data(client, "/audit.json")
        assert (found["head"]["seq"], found["head"]["hash"], found["verified"]) == (*head, None)
        assert (found["opened"]["seq"], found["opened"]["moving"]) == (head[0], False)
        found = await data(client, "/audit.json?verify=now")
        assert (found["verified"]["whole"], found["verified"]["seq"]) == (True, head[0])
        with sqlite3.connect(DB) as db:
            db.execute("UPDATE trials SET mean = 1.0 WHERE number = 0")
        found = await data(client, "/audit.json?verify=now")
        assert not found["verified"]["whole"]
        assert "a row of trials is not what event" in (await page(client, "/audit")).words


async def test_events_come_in_pages_and_a_call_is_shown_whole(two_runs: Made) -> None:
    run_id = two_runs[0]["run_id"]
    seen: list[int] = []
    async with signed_in(DB) as (client, _):
        after: int | None = 0
        while after is not None:
            found = await data(client, f"/run/{run_id}/events.json?after={after}")
            seen += [event["seq"] for event in found["events"]]
            after = found["next"]
        assert seen == [seq for (seq,) in rows("SELECT seq FROM events WHERE run_id = ? ORDER BY seq", run_id)]
        ((number, key),) = rows("SELECT id, call_key FROM calls WHERE state = 'ok' AND run_id = ? LIMIT 1", run_id)
        found = await data(client, f"/call/{number}.json?events=1")
        assert [event["kind"] for event in found["events"]] == ["call_reserved", "call_ok"]
        assert (await data(client, f"/call/{key}.json"))["call"]["id"] == number
        shown = (await page(client, f"/call/{number}")).words
        assert " ".join(found["request"]["messages"][-1]["content"].split()) in shown
        assert found["reply"]["text"] in shown


async def test_a_run_is_followed_while_another_process_writes_and_its_log_can_be_emptied(here: Path) -> None:
    """Also by Datasette's pages, which hold no connection between two questions."""
    ledger, task = Ledger(DB), make_task()
    ledger.begin_run(NewRun("live", task, "m"))
    ledger.set_plan("live", {"calls": 9})
    candidate = PromptCandidate("zero-shot", "turns", "Answer with one team.")
    ledger.add_candidate("live", NewCandidate(0, candidate.shown(), (Message("user", "{{message}}"),), "baseline"))
    await ledger.commit()
    async with signed_in(DB) as (client, _):
        assert "is running" in (await page(client, "/run/live")).words
        assert "while a run was writing" in (await page(client, "/audit")).words
        assert any(a.get("src") == "/assets/live.js" for tag, a in (await page(client, "/run/live")).nodes)
        seen = []
        for number in range(3):
            call = await ledger.reserve(
                Reservation("live", "model", "m", f"k_{number}", candidate.id, 1, ask("x"), 0.0, 10)
            )
            await ledger.settle("live", call, Completion("billing", "stop", Usage(7, 2), "m"), 0.5, 0.1)
            score = (Score("exact_match", 1.0, ""),)
            outcome = Outcome(
                candidate.id, f"dev-{number}", Prediction({"team": "billing"}, ""), score, 1.0, f"k_{number}"
            )
            ledger.put_outcome("live", "dev", outcome)
            await ledger.commit()
            seen.append(await data(client, "/run/live/live.json"))
            assert (await client.get("/ledger/calls")).status_code == 200
        assert [now["calls"] for now in seen] == [1, 2, 3]
        assert [now["tokens"] for now in seen] == [9, 18, 27]
        assert {(now["status"], now["planned"], now["best"]) for now in seen} == {("running", 9, None)}
        ledger.put_trial("live", Trial(0, 0, candidate.id, "complete", 3, 1.0, (0.4, 1.0), "saw all rows"))
        await ledger.commit()
        now = await data(client, "/run/live/live.json")
        assert (now["best"], now["trials"]) == (1.0, {"complete": 1})
        assert now["changes"] > seen[-1]["changes"]
        assert any(tag == "svg" for tag, _ in (await page(client, "/run/live")).nodes)
        ledger.close()
        assert DB.with_name("ledger.db-wal").stat().st_size == 0 if DB.with_name("ledger.db-wal").exists() else True
        assert (await data(client, "/run/live/live.json"))["status"] == "killed"
        assert "optimize resume live" in (await page(client, "/run/live")).words


@pytest.mark.parametrize(
    ("status", "said"),
    [("interrupted", "this run is interrupted. optimize resume old"), ("failed", "optimize resume old"),
     ("running", "this run is killed. optimize resume old")],
)  # fmt: skip
async def test_a_run_that_did_not_end_says_how_to_go_on_even_while_another_is_written(
    here: Path, status: str, said: str
) -> None:
    ledger, task = Ledger(DB), make_task()
    ledger.begin_run(NewRun("old", task, "m"))
    if status != "running":
        ledger.end_run("old", status, 1.0)
    ledger.begin_run(NewRun("new", task, "m"))
    await ledger.commit()
    async with signed_in(DB) as (client, _):
        assert said in (await page(client, "/run/old")).words
        assert (await data(client, "/run/new/live.json"))["status"] == "running"
        assert (await data(client, "/run/old/live.json"))["status"] == status.replace("running", "killed")
    ledger.close()


async def test_a_text_that_was_erased_is_not_shown_from_memory(two_runs: Made) -> None:
    run_id = two_runs[0]["run_id"]
    ((text,),) = rows(
        "SELECT instruction FROM prompts JOIN trials ON candidate_id = id WHERE number = 0 AND run_id = ?", run_id
    )
    addresses = (f"/run/{run_id}", f"/run/{run_id}.json", f"/run/{run_id}/trial/0")
    async with signed_in(DB) as (client, _):
        for address in addresses:
            assert text in (await client.get(address)).text
        erased = ["audit", "erase", "--containing", text, "--actor", "Ann", "--reason", "asked for", "--yes"]
        done = await asyncio.to_thread(CliRunner().invoke, main, erased)
        assert done.exit_code == 0, done.output
        for address in addresses:
            reply = await client.get(address)
            assert reply.status_code == 200
            assert text not in reply.text
        assert "The result of this run was erased." in (await page(client, addresses[0])).words
        assert (await data(client, addresses[1]))["result"] is None
        await crawl(client)  # every page that is left renders


@pytest.mark.parametrize("kind", ["judge_calibration", "check"])
async def test_a_result_of_another_shape_is_told_and_stays_text(here: Path, kind: str) -> None:
    ledger = Ledger(DB)
    ledger.begin_run(NewRun("errand", make_task(), "m"))
    ledger.end_run("errand", "complete", 1.0, {"kind": kind, "trusted": True, "gate": "pass", "words": "seven <b>"})
    ledger.close()
    async with signed_in(DB) as (client, _):
        shown = await page(client, "/run/errand")
        assert "another version" in shown.words
        assert not any(tag == "b" for tag, _ in shown.nodes)
        assert (await page(client, "/")).words.count("errand") == 1
        assert "cannot be compared" in (await page(client, "/compare?a=errand&b=errand")).words


async def test_each_criterion_of_a_rubric_gets_its_mark(here: Path) -> None:
    task = load_task(TASKS / "podcast_blurb")
    ledger, candidate = Ledger(DB), PromptCandidate("zero-shot", "turns", "Write a blurb.")
    ledger.begin_run(NewRun("blurbs", task, "m", "", 0, {}, {}, options=RecordedOptions(task=task.folder).stored()))
    ledger.add_candidate("blurbs", NewCandidate(0, candidate.shown(), (Message("user", "{{notes}}"),), "baseline"))
    name = task.signature.outputs[0].name
    for row in task.dev[:6]:
        prediction = Prediction({name: f"About {row.id}"}, "")
        ledger.put_outcome("blurbs", "dev", Outcome(candidate.id, row.id, prediction, (), 0.5, f"k_{row.id}"))
    ledger.put_trial("blurbs", Trial(0, 0, candidate.id, "complete", 6, 0.5, (0.1, 0.9), "saw all rows"))
    ledger.end_run("blurbs", "complete", 1.0)
    ledger.close()
    criteria = [part.name for part in next(iter(task.rubrics.values())).criteria]
    assert len(criteria) > 1
    async with signed_in(DB) as (client, _):
        shown = await page(client, "/run/blurbs/rate?rater=Ann")
        asked = {a["name"] for tag, a in shown.nodes if tag == "input" and a.get("type") == "radio"}
        assert asked == {"rating", *(f"rating_{part}" for part in criteria)}
        form = {field: shown.field(field) for field in ("csrftoken", "rater", "item", "skipped")} | {"action": "save"}
        marks = {field: str(1 + number % 5) for number, field in enumerate(sorted(asked))}
        lacking = dict(list(marks.items())[:-1])
        assert (await client.post("/run/blurbs/rate", data=form | lacking)).status_code == 400
        assert (await client.post("/run/blurbs/rate", data=form | marks)).status_code == 303
        (kept,) = (json.loads(line) for line in Path("runs/blurbs/ratings.jsonl").read_text("utf-8").splitlines())
        assert {field: kept[field] for field in marks} == {field: int(mark) for field, mark in marks.items()}
        command = (await data(client, "/run/blurbs/rate.json?rater=Ann&stopped=1"))["command"]
        assert shlex.split(command)[3:] == [
            task.folder,
            "--labels",
            str(DB.parent / "blurbs/ratings.jsonl"),
            "--judge",
            "m",
        ]
        assert "Answer 2 of 6" in (await page(client, "/run/blurbs/rate?rater=Ann")).words
        assert "Answer 1 of 6" in (await page(client, "/run/blurbs/rate?rater=Bob")).words


async def test_why_a_run_failed_is_told_on_every_surface(here: Path) -> None:
    why = "openai/x: HTTP 401: the key was refused (<b>bad</b> \x1b[2J); set OPENAI_API_KEY"
    ledger = Ledger(DB)
    ledger.begin_run(NewRun("old", make_task(), "m", "", 0, {}, {}, options={"seed": 0}))
    ledger.end_run("old", "failed", 1.0, error=why)
    await ledger.commit()
    ledger.close()
    async with signed_in(DB) as (client, _):
        for address in ("/", "/run/old"):
            found = await client.get(address)
            assert "<b>bad" not in found.text
            assert "HTTP 401: the key was refused (<b>bad</b>" in Page(found.text).words
        assert (await data(client, "/runs.json"))["runs"][0]["error"] == why
        assert (await data(client, "/run/old.json"))["run"]["error"] == why
    told = why.replace("\x1b", "\\x1b")
    for command in ("runs", "show", "history"):
        assert told in " ".join(CliRunner().invoke(main, [command]).output.split())
        found = json.loads(CliRunner().invoke(main, [command, "--json"]).stdout)
        assert (found["runs"][0] if command == "runs" else found)["error"] == why
    assert CliRunner().invoke(main, ["report", "old", "-o", "r.html"]).exit_code == 0
    assert "<b>bad" not in Path("r.html").read_text("utf-8")
    assert "HTTP 401: the key was refused (<b>bad</b>" in Page(Path("r.html").read_text("utf-8")).words


async def test_an_errand_that_did_not_end_is_not_said_to_be_resumable(here: Path) -> None:
    ledger = Ledger(DB)
    ledger.begin_run(NewRun("old", make_task(), "m", "", 0, {}, {}, options={"command": "transfer"}))
    ledger.end_run("old", "failed", 1.0)
    await ledger.commit()
    ledger.close()
    async with signed_in(DB) as (client, _):
        words = (await page(client, "/run/old")).words
        assert "Run optimize transfer again" in words
        assert "optimize resume" not in words
        assert "no search" in (await client.get("/run/old/rate")).text
    shown = CliRunner().invoke(main, ["show", "old"])
    assert shown.exit_code == 2
    assert "run `optimize transfer` again with the same arguments" in shown.output
