"""Pages filter, follow and forget as the ledger does; what is missing or damaged is named.

tests/snapshots/test_pages.py holds what each page says.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.ledger.store import Ledger, NewCandidate, NewRun, Reservation
from agent.prompt.prompt_candidate import PromptCandidate
from agent.release.file_release import FileRelease
from agent.release.promotion import ReleaseRegistry
from agent.release.runtime import load_prompt
from agent.report.blocks import ChartBlock
from agent.report.trial_tables import badge
from agent.report.web.app import warm
from agent.report.wording import PromptNames
from agent.types import Completion, Message, Outcome, Prediction, Score, Trial, Usage
from tests.cli.world import good, good_json, optimize
from tests.release.test_texts import release as of_texts
from tests.report.web_world import DB, Browser, browsing, rows
from tests.toys import ask, make_task

RELEASES = Path("runs/releases")
Runs = Mapping[str, str]


@pytest.fixture
def client(runs: Runs) -> Iterator[Browser]:
    with browsing() as found:
        yield found


def test_the_latest_run_is_drawn_before_the_first_request(client: Browser) -> None:
    warm(client.web.site)
    charts = [one for one in client.web.site.cache.values() if isinstance(one, ChartBlock)]
    assert charts
    assert all("svg" in vars(chart) for chart in charts)


@pytest.mark.parametrize("is_migration", [False, True])
def test_trial_0_has_its_badge_in_every_run(is_migration: bool) -> None:
    assert badge(PromptNames(is_migration=is_migration).own).tag == "base"


def winner_of(run_id: str) -> int:
    """The number of the trial of a run's winner."""
    winner = good_json("show", run_id)["result"]["winner"]["candidate_id"]
    ((number,),) = rows("SELECT number FROM trials WHERE run_id = ? AND candidate_id = ?", run_id, winner)
    return int(number)


def add_runs(*made: tuple[str, dict[str, str], str, dict[str, Any] | None, str]) -> None:
    """Runs of a toy task, each as id, options, status, result and error."""
    with closing(Ledger(DB)) as ledger:
        for run_id, options, status, result, error in made:
            ledger.begin_run(NewRun(run_id, make_task(), "m", options=options))
            if status != "running":
                ledger.end_run(run_id, status, 1.0, result, error=error)
        asyncio.run(ledger.commit())


# -- runs -------------------------------------------------------------------------------------------------------------


def test_the_json_of_pages_has_what_the_commands_print(client: Browser, runs: Runs) -> None:
    def by_id(found: dict[str, Any]) -> dict[str, Any]:
        return {run["id"]: run for run in found["runs"]}

    assert by_id(client.data("/runs.json")) == by_id(good_json("runs"))
    run, pair = runs["search"], (f"{runs['search']}:0", f"{runs['search']}:1")
    ((key,),) = rows("SELECT call_key FROM calls WHERE id = 1")
    result = good_json("show", run)["result"]
    assert all(client.data(f"/run/{at}.json")["run"]["result"] == result for at in (run, f"{run}/report"))
    for address, printed in (
        ("/compare.json?a={}&b={}".format(*pair), good_json("compare", *pair)),
        ("/checks/rows.json", good_json("check", "rows@production", "--history")),
        (f"/call/{key}.json?events=1", good_json("audit", "show", key)),
    ):
        found = client.data(address)
        assert {name: found[name] for name in printed} == printed, address


def test_runs_that_failed_say_why_on_every_page(runs: Runs) -> None:
    add_runs(
        ("moved", {"command": "transfer"}, "failed", None, "m: HTTP 500"),
        ("broken", {}, "failed", None, "m: HTTP 401 (<b>bad</b>); set a key"),
        ("odd", {}, "complete", {"kind": "judge_calibration", "trusted": True, "words": "seven <b>"}, ""),
    )
    with browsing() as client:
        searches, jobs = client.page("/").words.split("Other jobs")
        assert "failed m: HTTP 401 (<b>bad</b>); set a key" in searches
        assert "failed m: HTTP 500" in jobs
        for address, said in (
            ("/run/broken", "HTTP 401 (<b>bad</b>)"),
            ("/run/broken/report", "This run is failed: there is no result. m: HTTP 401"),
            ("/run/moved", "Run `optimize transfer` again"),
            ("/run/odd", "another version"),
            ("/compare?a=odd&b=odd", "so there is no winner"),
        ):
            assert said in client.page(address).words, address
        assert "optimize resume" not in client.page("/run/moved").words
        for address in ("/run/moved/rate", f"/run/{runs['passed']}/report", "/run/moved/play", "/run/moved/rows"):
            assert client.get(address).status_code == 404
    for command in ("show", "history"):
        assert "HTTP 401 (<b>bad</b>)" in " ".join(optimize(command, "broken").output.split())
    refused = optimize("show", "moved")
    assert (refused.exit_code, "run `optimize transfer` again" in refused.output) == (2, True)


def test_an_empty_ledger_and_no_registry_say_what_to_type(here: Path) -> None:
    Ledger(DB).close()
    with browsing() as client:
        assert "optimize run support_triage" in client.page("/").words
        assert "No prompt to try yet" in client.page("/play").words
        assert "optimize promote RUN" in client.page("/releases").words
        assert "No alias yet" in client.page("/aliases").words
        assert "optimize label TASK --web" in client.get("/label").text


@pytest.mark.parametrize(
    ("query", "where", "order"),
    [
        ("", "1", "mean DESC, number"),
        ("state=complete", "state = 'complete'", "mean DESC, number"),
        ("technique=few-shot&sort=trial", "technique = 'few-shot'", "number"),
        ("least=40.5", "mean >= 0.405", "mean DESC, number"),
        ("text=DECIDE&sort=tokens&order=up", "instruction LIKE '%decide%'", "tokens, number"),
        ("state=nothing", "0", "1"),
    ],
)
def test_trials_are_filtered_and_sorted(client: Browser, runs: Runs, query: str, where: str, order: str) -> None:
    tokens = "(SELECT SUM(prompt_tokens + completion_tokens) FROM calls k WHERE k.candidate_id = t.candidate_id AND "
    tokens += "k.run_id = t.run_id AND k.state <> 'cached') AS tokens"
    wanted = rows(
        f"SELECT number, {tokens} FROM trials t JOIN prompts c ON c.id = t.candidate_id "
        f"WHERE run_id = ? AND {where} ORDER BY {order}",
        runs["search"],
    )
    board = client.data(f"/run/{runs['search']}.json?{query}")["board"]
    assert [trial["number"] for trial in board["trials"]] == [number for number, _ in wanted][:50]
    assert board["place"]["count"] == len(wanted)


def test_rows_of_a_trial_and_of_the_sealed_test_are_filtered_and_searched(client: Browser, runs: Runs) -> None:
    run, number = f"/run/{runs['search']}", winner_of(runs["search"])
    lift = good_json("show", runs["search"])["result"]["lift"]
    for name, count in (("won", lift["wins"]), ("lost", lift["losses"]), ("tied", lift["ties"])):
        assert client.data(f"{run}/rows.json?rows={name}")["place"]["count"] == count, name
    for address in (f"{run}/trial/{number}.json?rows=won", f"{run}/rows.json?rows=won"):
        data = client.data(address)
        assert len(data["rows"]) == data["place"]["count"] > 0
        assert all(row["two"]["value"] > row["one"]["value"] for row in data["rows"])
    word = data["rows"][0]["inputs"]["text"].split()[0]
    found = client.data(f"{run}/rows.json?rows=won&text={word.upper()}")
    assert 0 < found["place"]["count"] <= lift["wins"]
    assert all(word in json.dumps(row) for row in found["rows"])
    assert "No such row" in client.page(f"{run}/rows?text=nothing-has-this").words
    assert client.get(f"{run}/trial/99999").status_code == 404
    Path("rows.csv").unlink()
    with browsing() as later:
        assert all("Inputs and labels are not shown" in later.page(f"{run}/{at}").words for at in ("rows", "trial/0"))


@pytest.mark.parametrize(
    ("query", "said"), [("a=nothing&b={search}", "no run nothing"), ("", "Two runs, by their best prompts")]
)
def test_what_cannot_be_compared_is_told_with_the_form(client: Browser, runs: Runs, query: str, said: str) -> None:
    assert said in client.page(f"/compare?{query.format(**runs)}").words


def test_events_come_in_pages_and_a_call_has_its_key_and_its_events(client: Browser, runs: Runs) -> None:
    seen, after = [], 0
    while after is not None:
        found = client.data(f"/run/{runs['search']}/events.json?after={after}")
        seen += [event["seq"] for event in found["events"]]
        after = found["next"]
    assert seen == [seq for (seq,) in rows("SELECT seq FROM events WHERE run_id = ? ORDER BY seq", runs["search"])]
    ((number, key),) = rows("SELECT id, call_key FROM calls WHERE state = 'ok' AND run_id = ? LIMIT 1", runs["search"])
    found = client.data(f"/call/{key}.json?events=1")
    assert (found["call"]["id"], [event["kind"] for event in found["events"]]) == (number, ["call_reserved", "call_ok"])


def test_the_audit_verifies_when_asked_and_names_what_was_changed(client: Browser, runs: Runs) -> None:
    head = rows("SELECT seq, hash FROM head")[0]
    found = client.data("/audit.json")
    assert (*found["head"].values(), found["verified"]) == (*head, None)
    assert (found["opened"]["seq"], found["opened"]["moving"]) == (head[0], False)
    found = client.data("/audit.json?verify=now")["verified"]
    assert (found["findings"], found["seq"]) == ([], head[0])
    with closing(sqlite3.connect(DB)) as db, db:
        db.execute("UPDATE trials SET mean = 1.0 WHERE number = 0")
    assert client.data("/audit.json?verify=now")["verified"]["findings"]
    assert "a row of trials is not what event" in client.page("/audit").words


async def one_call(ledger: Ledger, candidate_id: str, number: int) -> None:
    asked = Reservation("live", "model", "m", f"k_{number}", candidate_id, 1, ask("x"), 0.0, 10)
    await ledger.settle("live", await ledger.reserve(asked), Completion("billing", "stop", Usage(7, 2), "m"), 0.5, 0.1)
    score = (Score("exact_match", 1.0, ""),)
    prediction = Prediction({"team": "billing"}, "")
    ledger.put_outcome("live", "dev", Outcome(candidate_id, f"dev-{number}", prediction, score, 1.0, f"k_{number}"))
    await ledger.commit()


def test_a_run_is_followed_while_it_is_written(here: Path) -> None:
    """Also by Datasette's pages, which hold no connection between two queries."""
    ledger = Ledger(DB)
    ledger.begin_run(NewRun("live", make_task(), "m"))
    ledger.set_plan("live", {"calls": 9})
    candidate = PromptCandidate("zero-shot", "turns", "Answer with one team.")
    ledger.add_candidate("live", NewCandidate(0, candidate.shown(), (Message("user", "{{message}}"),), "baseline"))
    asyncio.run(ledger.commit())
    with browsing() as client:
        shown = client.page("/run/live")
        assert "is running" in shown.words
        assert any(own.get("src") == "/assets/live.js" for _, own in shown.nodes)
        assert "while a run was writing" in client.page("/audit").words
        seen = []
        for number in range(3):
            asyncio.run(one_call(ledger, candidate.id, number))
            seen.append(client.data("/run/live/live.json"))
            assert client.get("/ledger/calls").status_code == 200
        assert [(now["calls"], now["tokens"]) for now in seen] == [(1, 9), (2, 18), (3, 27)]
        assert {(now["status"], now["planned"], now["best"]) for now in seen} == {("running", 9, None)}
        ledger.put_trial("live", Trial(0, 0, candidate.id, "complete", 3, 1.0, (0.4, 1.0), "saw all rows"))
        asyncio.run(ledger.commit())
        now = client.data("/run/live/live.json")
        assert (now["best"], now["trials"], now["changes"] > seen[-1]["changes"]) == (1.0, {"complete": 1}, True)
        assert "svg" in client.page("/run/live").structure
        ledger.close()
        log = DB.with_name("ledger.db-wal")
        assert not log.exists() or log.stat().st_size == 0
        assert client.data("/run/live/live.json")["status"] == "killed"
        assert "optimize resume live" in client.page("/run/live").words


@pytest.mark.parametrize(
    ("status", "said"),
    [("interrupted", "this run is interrupted"), ("failed", "this run is failed"), ("running", "this run is killed")],
)
def test_an_unfinished_run_says_how_to_continue_while_another_is_written(here: Path, status: str, said: str) -> None:
    with closing(Ledger(DB)) as ledger:
        ledger.begin_run(NewRun("old", make_task(), "m"))
        if status != "running":
            ledger.end_run("old", status, 1.0)
        ledger.begin_run(NewRun("new", make_task(), "m"))
        asyncio.run(ledger.commit())
        with browsing() as client:
            assert f"{said}. Continue it with `optimize resume old`" in client.page("/run/old").words
            assert client.data("/run/new/live.json")["status"] == "running"
            assert client.data("/run/old/live.json")["status"] == status.replace("running", "killed")


def test_an_erased_text_is_not_shown_from_memory(client: Browser, runs: Runs) -> None:
    run = f"/run/{runs['search']}"
    ((text,),) = rows(
        "SELECT instruction FROM prompts JOIN trials ON candidate_id = id WHERE number = 0 AND run_id = ?",
        runs["search"],
    )
    addresses = (run, f"{run}.json", f"{run}/trial/0", f"{run}/rows")
    for address in addresses[:3]:
        assert text in client.get(address).text
    for part in (text, "I am not sure"):
        good("audit", "erase", "--containing", part, "--actor", "Ann", "--reason", "asked for", "--yes")
    for address in addresses:
        reply = client.get(address)
        assert (text in reply.text, "I am not sure" in reply.text) == (False, False)
    assert "The result of this run was erased." in client.page(run).words
    assert client.data(f"{run}.json")["run"]["result"] is None
    assert client.get(f"{run}/rows").status_code == 404


# -- releases ---------------------------------------------------------------------------------------------------------


def test_odd_versions_say_what_they_are_and_damage_hides_nothing_else(client: Browser, runs: Runs) -> None:
    now = load_prompt("rows@production").release
    held = replace(now, provenance={**now.provenance, "promoted": {"actor": "Eve", "reason": "<i>x</i>"}})
    held.write(RELEASES / "rows" / held.version)
    assert "yes, then promoted by Eve: <i>x</i>" in client.page("/releases").words
    assert "Held back by the gate, and promoted by Eve: <i>x</i>" in client.page(f"/release/rows/{held.version}").words
    loaded = FileRelease(
        name="rows", what="a test", loader="load_classifier", files={"a.txt": b"<script>x"}, provenance={}
    )
    ReleaseRegistry(RELEASES).promote(loaded, "classic", None, evidence={})
    words = client.page(f"/release/rows/{loaded.version}").words
    assert ("load_classifier" in words, "a.txt, 9 bytes" in words) == (True, True)
    assert client.get(f"/release/rows/{loaded.version}/play").status_code == 404
    texts = of_texts(name="rows", texts={"reader <b>": "<script>y"})
    ReleaseRegistry(RELEASES).promote(texts, "texts", None, evidence={})
    page = client.page(f"/release/rows/{texts.version}")
    assert all(each in page.words for each in ("load_texts('rows@", "reader <b>", "<script>y"))
    assert client.get(f"/release/rows/{texts.version}/play").status_code == 404
    other = next(path for path in (RELEASES / "rows").glob("p_*") if path.name != now.version)
    (other / "prompt.md").write_text((other / "prompt.md").read_text("utf-8").replace("Read the", "Obey the"), "utf-8")
    (RELEASES / "bad").mkdir()
    (RELEASES / "bad" / "aliases.jsonl").write_text("{}\n", "utf-8")
    lines = {line["version"]: line["problem"] for line in client.data("/releases.json")["releases"]}
    assert "edited after release" in lines[other.name]
    assert lines[now.version] == ""
    assert client.get(f"/release/rows/{other.name}").status_code == 503
    data = client.data("/aliases.json")
    assert ({one["name"] for one in data["aliases"]}, "bad/aliases.jsonl:1" in data["problems"][0]) == ({"rows"}, True)
