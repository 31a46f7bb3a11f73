"""What pages show is what the ledger, the registry and the commands say; what is missing is named."""

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

from agent.ledger.query import History
from agent.ledger.store import Ledger, NewCandidate, NewRun, Reservation
from agent.prompt.prompt_candidate import PromptCandidate
from agent.release.file_release import FileRelease
from agent.release.promotion import ReleaseRegistry
from agent.release.runtime import load_prompt
from agent.report import wording
from agent.report.prompt_texts import whole_prompt
from agent.report.terms import TERMS
from agent.report.view import RunView
from agent.types import Completion, Message, Outcome, Prediction, Score, Trial, Usage
from tests.cli.world import good, good_json, optimize
from tests.report.pages import Page
from tests.report.web_world import DB, Browser, browsing
from tests.toys import ask, make_task

RELEASES = Path("runs/releases")
Runs = Mapping[str, str]


@pytest.fixture
def client(runs: Runs) -> Iterator[Browser]:
    with browsing() as found:
        yield found


def rows(sql: str, *values: Any) -> list[Any]:
    with closing(sqlite3.connect(f"file:{DB}?mode=ro", uri=True)) as db:
        return db.execute(sql, values).fetchall()


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


def test_the_list_has_searches_before_other_jobs_with_the_outcome_of_each(runs: Runs) -> None:
    add_runs(
        ("moved", {"command": "transfer"}, "failed", None, "m: HTTP 500"),
        ("broken", {}, "failed", None, "m: HTTP 401 (<b>bad</b>); set a key"),
        ("odd", {}, "complete", {"kind": "judge_calibration", "trusted": True, "words": "seven <b>"}, ""),
    )
    result = good_json("show", runs["search"])["result"]
    with browsing() as client:
        listed = client.data("/runs.json")["runs"]
        shown = client.page("/")
        searches, jobs = shown.words.split("Other jobs")
        by_id = {line["id"]: line for line in listed}
        assert [line["is_search"] for line in listed] == sorted((line["is_search"] for line in listed), reverse=True)
        line = by_id[runs["search"]]
        assert (line["baseline"], line["winner"]) == (result["baseline"]["test"], result["winner"]["test"])
        assert (line["lift"]["diff"], line["decision"]) == (result["lift"]["diff"], "promote")
        assert by_id[runs["kept"]]["lift"] is None, "a prompt that was kept was compared with none"
        assert (by_id["broken"]["error"], by_id["moved"]["job"]) == ("m: HTTP 401 (<b>bad</b>); set a key", "transfer")
        assert "better, released" in searches
        assert "failed m: HTTP 401 (<b>bad</b>); set a key" in searches
        assert {"failed m: HTTP 500" in jobs, "check: passed" in jobs} == {True}
        ticks = [own["value"] for tag, own in shown.nodes if tag == "input" and own.get("name") == "pick"]
        assert ticks == [line["id"] for line in listed if line["is_search"]]
        assert {f"/run/{runs['search']}/report", f"/run/{runs['passed']}"} <= set(shown.links)
        assert f"/run/{runs['passed']}/report" not in shown.links
        for address, said in (
            ("/run/broken", "HTTP 401 (<b>bad</b>)"),
            ("/run/broken/report", "No result: this run is failed. m: HTTP 401"),
            ("/run/moved", "Run optimize transfer again"),
            ("/run/odd", "another version"),
            ("/compare?a=odd&b=odd", "cannot be compared"),
        ):
            assert said in client.page(address).words, address
        assert "optimize resume" not in client.page("/run/moved").words
        for address in ("/run/moved/rate", f"/run/{runs['passed']}/report"):
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


def test_a_run_has_its_verdict_labels_both_prompts_and_next_commands(client: Browser, runs: Runs) -> None:
    result, run = good_json("show", runs["search"])["result"], f"/run/{runs['search']}"
    found, shown = client.data(f"{run}.json"), client.page(run)
    sections = {section["name"]: section["blocks"] for section in found["sections"]}
    for line in (line for name in ("verdict", "prompt") for each in sections[name] for line in each.get("lines", ())):
        assert line[1:] in shown.text
    for what, command in sections["next"][-1]["rows"]:
        assert what[1:] in shown.text
        assert command in shown.text
    table = {row[0]: row[1:] for row in shown.tables["By label of label, on the sealed test"]}
    for score in result["labels"][0]["winner"]["scores"]:
        assert (table[score["label"]][0], table[score["label"]][-1]) == (
            str(score["support"]),
            wording.points(score["recall"]),
        )
    with closing(History(DB)) as history:
        view = RunView(history, runs["search"])
        prompts = [whole_prompt(candidate or {}) for candidate in (view.winner, view.baseline)]
    assert [each["text"] for each in found["prompts"]] == prompts
    number = winner_of(runs["search"])
    assert [(each["number"], each["which"]) for each in found["marked"]] == [(0, "your prompt"), (number, "best found")]
    report = client.page(f"{run}/report")
    for page in (shown, report):
        assert all(prompt in page.text for prompt in prompts)
        assert TERMS["sealed test"] in page.words
        assert "svg" in page.structure
    assert "style" not in report.structure
    assert not {"script"} & set(shown.structure), "a run that has ended needs none"
    assert client.data(f"{run}/report.json")["result"] == result


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
    sealed = client.data(f"{run}/rows.json")
    verdicts = [row["verdict"] for row in sealed["rows"]]
    assert [verdicts.count(name) for name in ("won", "lost", "tied")] == [lift["wins"], lift["losses"], lift["ties"]]
    right = client.data(f"{run}/trial/{number}.json?rows=right")
    assert right["counts"]["right"]["rows"] == len(right["rows"]) > 0
    won = client.data(f"{run}/rows.json?rows=won")
    word = won["rows"][0]["inputs"]["text"].split()[0]
    found = client.data(f"{run}/rows.json?rows=won&text={word.upper()}")
    assert 0 < found["place"]["count"] <= won["place"]["count"] == lift["wins"]
    for address, data in ((f"{run}/trial/{number}?rows=right", right), (f"{run}/rows?rows=won", won)):
        shown = client.page(address).words
        for row in data["rows"]:
            assert row["change"] == row["two"]["value"] - row["one"]["value"] > 0
            assert all(text in shown for text in (row["inputs"]["text"], row["one"]["reply"], row["two"]["reply"]))
    assert all(word in json.dumps(row) for row in found["rows"])
    assert "No such row" in client.page(f"{run}/rows?text=nothing-has-this").words
    assert client.get(f"{run}/trial/99999").status_code == 404
    Path("rows.csv").unlink()
    with browsing() as later:
        assert "Inputs and labels are not shown" in later.page(f"{run}/rows").words


def test_a_comparison_is_that_of_the_command_and_shows_rows_that_differ(client: Browser, runs: Runs) -> None:
    run, number = runs["search"], winner_of(runs["search"])
    first, second = f"{run}:0", f"{run}:{number}"
    printed = good_json("compare", first, second)
    found = client.data(f"/compare.json?a={first}&b={second}")
    assert {split: test for split, test in found["paired"].items() if test} == printed["paired"]
    assert {name: fact["a"] for name, fact in found["facts"].items()} == {
        n: f["a"] for n, f in printed["facts"].items()
    }
    shown = client.page(f"/compare?pick={first}&pick={second}")
    assert f"{100 * printed['paired']['dev']['diff']:+.1f} points" in shown.words
    assert "ins" in shown.structure
    test = found["rows"]["test"]
    assert test["total"] == found["paired"]["test"]["wins"] + found["paired"]["test"]["losses"] > 0
    for row in test["rows"]:
        assert row["change"] != 0
        assert row["inputs"]["text"] in shown.words
    assert [side["what"] for side in found["sides"]] == ["trial 0", f"trial {number}"]
    for query, said in (
        (f"a=nothing&b={second}", "no run nothing"),
        (f"pick={first}", "Only one was ticked"),
        (f"pick={first}&pick={second}&pick={run}", "3 were ticked; the first two are compared."),
        ("", "Two runs, by their best prompts"),
    ):
        assert said in client.page(f"/compare?{query}").words, query


def test_events_come_in_pages_and_a_call_is_shown_whole(client: Browser, runs: Runs) -> None:
    seen, after = [], 0
    while after is not None:
        found = client.data(f"/run/{runs['search']}/events.json?after={after}")
        seen += [event["seq"] for event in found["events"]]
        after = found["next"]
    assert seen == [seq for (seq,) in rows("SELECT seq FROM events WHERE run_id = ? ORDER BY seq", runs["search"])]
    ((number, key),) = rows("SELECT id, call_key FROM calls WHERE state = 'ok' AND run_id = ? LIMIT 1", runs["search"])
    found = client.data(f"/call/{number}.json?events=1")
    assert [event["kind"] for event in found["events"]] == ["call_reserved", "call_ok"]
    assert client.data(f"/call/{key}.json")["call"]["id"] == number
    shown = client.page(f"/call/{number}").words
    assert " ".join(found["request"]["messages"][-1]["content"].split()) in shown
    assert found["reply"]["text"] in shown


def test_the_audit_verifies_when_asked_and_names_what_was_changed(client: Browser, runs: Runs) -> None:
    head = rows("SELECT seq, hash FROM head")[0]
    found = client.data("/audit.json")
    assert (found["head"]["seq"], found["head"]["hash"], found["verified"]) == (*head, None)
    assert (found["opened"]["seq"], found["opened"]["moving"]) == (head[0], False)
    found = client.data("/audit.json?verify=now")["verified"]
    assert (found["whole"], found["seq"]) == (True, head[0])
    with closing(sqlite3.connect(DB)) as db, db:
        db.execute("UPDATE trials SET mean = 1.0 WHERE number = 0")
    assert not client.data("/audit.json?verify=now")["verified"]["whole"]
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
            assert f"{said}. Continue it with optimize resume old" in client.page("/run/old").words
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
    assert client.data(f"{run}.json")["result"] is None
    assert client.get(f"{run}/rows").status_code == 404


def test_a_migration_names_the_released_prompt_and_not_yours(client: Browser, runs: Runs) -> None:
    here = f"/run/{runs['migrated']}"
    run = client.data(f"{here}.json")
    first = next(trial for trial in run["board"]["trials"] if trial["number"] == 0)
    assert first["which"].startswith("released prompt")
    assert run["prompts"][-1]["title"] == "Released prompt in full"
    assert client.data(f"{here}/rows.json")["names"] == {"baseline": "old model", "winner": "new model"}
    for address in (here, f"{here}/trial/0", f"{here}/rows", f"{here}/report"):
        words = client.page(address).words.casefold().partition("your prompt, or baseline")[0]
        assert "your prompt" not in words, address


# -- releases ---------------------------------------------------------------------------------------------------------


def test_releases_and_aliases_have_each_version_with_its_run_and_each_move(client: Browser, runs: Runs) -> None:
    now = load_prompt("rows@production")
    before = {path: path.read_bytes() for path in RELEASES.rglob("*") if path.is_file()}
    lines = {line["version"]: line for line in client.data("/releases.json")["releases"]}
    assert set(lines) == {path.name for path in (RELEASES / "rows").glob("p_*")}
    assert (lines[now.version]["aliases"], lines[now.version]["run_id"]) == (["production"], runs["search"])
    assert lines[now.version]["test"] > lines[now.version]["baseline_test"]
    only = client.data(f"/releases.json?text={now.version}")["releases"]
    assert [line["version"] for line in only] == [now.version]
    shown = client.page(f"/release/rows/{now.version}").words
    assert f"load_prompt('rows@{now.version}')" in shown
    assert all(" ".join(message.content.split()) in shown for message in now.release.messages)
    (name,) = client.data("/aliases.json")["names"]
    marks = {mark["alias"]: mark for mark in name["aliases"]}
    moves = [(move["action"], move["version"], move["actor"]) for move in marks["production"]["moves"]]
    other = next(version for version in lines if version != now.version)
    assert moves == [("promote", now.version, "ann"), ("promote", other, "ann")]
    assert (marks["ab"]["share"], marks["ab"]["rollback"]) == (0.2, "")
    assert marks["production"]["rollback"] == "optimize rollback rows --alias production --reason WHY"
    words = client.page("/aliases").words
    for text in (
        "20 % of the units",
        "optimize promote RUN --alias production --reason WHY",
        "there is no earlier one",
    ):
        assert text in words
    assert {path: path.read_bytes() for path in RELEASES.rglob("*") if path.is_file()} == before


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
    other = next(path for path in (RELEASES / "rows").glob("p_*") if path.name != now.version)
    (other / "prompt.md").write_text((other / "prompt.md").read_text("utf-8").replace("Read the", "Obey the"), "utf-8")
    (RELEASES / "bad").mkdir()
    (RELEASES / "bad" / "aliases.jsonl").write_text("{}\n", "utf-8")
    lines = {line["version"]: line["problem"] for line in client.data("/releases.json")["releases"]}
    assert "edited after release" in lines[other.name]
    assert lines[now.version] == ""
    assert client.get(f"/release/rows/{other.name}").status_code == 503
    data = client.data("/aliases.json")
    assert ([each["name"] for each in data["names"]], "bad/aliases.jsonl:1" in data["problems"][0]) == (["rows"], True)


def test_checks_over_time_are_linked_from_runs_and_versions(client: Browser, runs: Runs) -> None:
    data = client.data("/checks/rows.json")
    assert (data["name"], [each["gate"] for each in data["checks"]]) == ("rows", ["passed", "failed"])
    page = client.page("/checks/rows")
    assert page.structure.count("svg") == 1
    for check in data["checks"]:
        assert f"/run/{check['run_id']}" in page.links
        assert f"{check['flipped']} of {check['rows']}" in page.words
    version = load_prompt("rows@production").version
    for address in (f"/run/{runs['search']}", f"/run/{runs['passed']}", f"/release/rows/{version}"):
        assert "/checks/rows" in client.page(address).links, address
    assert "/checks/rows" not in client.page(f"/run/{runs['calibrated']}").links
    missing = client.get("/checks/other")
    assert missing.status_code == 404
    assert "other: no finished check of a prompt of this name" in Page(missing.text).words
