"""The pages of sealed rows, releases and aliases show what ledger and registry hold, and say what is left out."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from agent.release.file_release import FileRelease
from agent.release.promotion import ReleaseRegistry
from agent.release.runtime import load_prompt
from tests.cli.world import good
from tests.conftest import Made
from tests.report.conftest import Playable
from tests.report.pages import Page
from tests.report.web_world import require_harmless, signed_in

DB = Path("runs/ledger.db")
RELEASES = Path("runs/releases")


# -- sealed rows ---


async def test_every_sealed_row_is_shown_with_both_answers_page_by_page(two_runs: Made) -> None:
    run = two_runs[0]
    async with signed_in(DB) as (client, _):
        seen = []
        for number in (1, 2):
            data = (await client.get(f"/run/{run['run_id']}/rows.json?page={number}")).json()
            seen += data["rows"]
        lift = run["lift"]
        assert len({row["example_id"] for row in seen}) == data["of"] == lift["n"] > 50
        verdicts = [row["verdict"] for row in seen]
        counts = [verdicts.count(name) for name in ("won", "lost", "tied")]
        assert counts == [lift["wins"], lift["losses"], lift["ties"]]
        for row in seen:
            assert row["inputs"]["text"]
            assert row["labels"]["label"]
            assert (row["two"]["value"] - row["one"]["value"] > 0) == (row["verdict"] == "won")
        first = seen[0]
        shown = Page((await client.get(f"/run/{run['run_id']}/rows")).text).words
        for text in (first["inputs"]["text"], first["one"]["reply"], first["two"]["reply"], "no longer measured"):
            assert text in shown
        assert "left out" not in shown


async def test_sealed_rows_are_filtered_and_searched(two_runs: Made) -> None:
    address = f"/run/{two_runs[0]['run_id']}/rows"
    async with signed_in(DB) as (client, _):
        won = (await client.get(f"{address}.json?rows=won")).json()
        assert {row["verdict"] for row in won["rows"]} == {"won"}
        word = won["rows"][0]["inputs"]["text"].split()[0]
        found = (await client.get(f"{address}.json?rows=won&text={word.upper()}")).json()
        assert 0 < found["place"]["count"] <= won["place"]["count"]
        for row in found["rows"]:
            assert word in json.dumps([row["inputs"], row["labels"], row["one"]["reply"], row["two"]["reply"]])
        none = await client.get(f"{address}?text=nothing-has-this")
        assert "No such row" in none.text


async def test_what_the_ledger_or_the_folder_does_not_hold_is_said_to_be_left_out(two_runs: Made) -> None:
    address = f"/run/{two_runs[0]['run_id']}/rows"
    erase = ["audit", "erase", "--containing", "I am not sure", "--actor", "Ann", "--reason", "asked for", "--yes"]
    async with signed_in(DB) as (client, _):
        Path("rows.csv").unlink()
        shown = Page((await client.get(address)).text).words
        assert "Inputs and labels are not shown" in shown
    good(*erase)
    async with signed_in(DB) as (client, _):
        data = (await client.get(f"{address}.json")).json()
        shown = Page((await client.get(address)).text).words
        assert data["erased"] > 0
        assert f"Texts of {data['erased']} rows are left out: they were erased" in shown
        assert "I am not sure" not in shown


async def test_a_run_without_a_result_has_no_sealed_rows_page(two_runs: Made) -> None:
    async with signed_in(DB) as (client, _):
        reply = await client.get("/run/nothing/rows")
        assert reply.status_code == 404


# -- releases and aliases ---


async def test_every_version_is_listed_with_its_run_and_aliases(playable: Playable) -> None:
    async with signed_in(DB) as (client, _):
        data = (await client.get("/releases.json")).json()
        lines = {line["version"]: line for line in data["releases"]}
        assert set(lines) == {playable.version, playable.other}
        assert lines[playable.version]["aliases"] == ["production"]
        assert lines[playable.other]["aliases"] == []
        assert lines[playable.version]["run_id"] == playable.run_id
        assert lines[playable.version]["test"] > lines[playable.version]["baseline_test"]
        only = (await client.get(f"/releases.json?text={playable.other}")).json()
        assert [line["version"] for line in only["releases"]] == [playable.other]


async def test_a_version_shows_its_prompt_in_full(playable: Playable) -> None:
    messages = json.loads((RELEASES / "rows" / playable.version / "messages.json").read_text("utf-8"))["messages"]
    async with signed_in(DB) as (client, _):
        reply = await client.get(f"/release/rows/{playable.version}")
        page = require_harmless(reply)
        assert page is not None
        for message in messages:
            assert " ".join(message["content"].split()) in page.words
        assert f"load_prompt('rows@{playable.version}')" in page.words
        assert "too long" in page.words


async def test_a_winner_that_was_held_back_says_who_promoted_it_and_why(playable: Playable) -> None:
    release = load_prompt(f"rows@{playable.version}").release
    held = replace(release, provenance={**release.provenance, "promoted": {"actor": "Eve", "reason": "<i>x</i>"}})
    held.write(RELEASES / "rows" / held.version)
    async with signed_in(DB) as (client, _):
        listed = Page((await client.get("/releases")).text)
        assert "yes, then promoted by Eve: <i>x</i>" in listed.words
        one = Page((await client.get(f"/release/rows/{held.version}")).text)
        assert "Held back by the gate, and promoted by Eve: <i>x</i>" in one.words


async def test_a_alias_shows_each_move_and_the_commands_that_move_it(playable: Playable) -> None:
    async with signed_in(DB) as (client, _):
        ((name,),) = ((await client.get("/aliases.json")).json()["names"],)
        (alias,) = name["aliases"]
        assert (name["name"], alias["alias"], alias["version"]) == ("rows", "production", playable.version)
        moves = [(move["action"], move["version"], move["actor"]) for move in alias["moves"]]
        assert moves == [
            ("rollback", playable.version, "Bob"),
            ("promote", playable.other, "Ann"),
            ("promote", playable.version, "Ann"),
        ]
        assert alias["rollback"] == ""
        shown = require_harmless(await client.get("/aliases"))
        assert shown is not None
        for text in ("too long", "optimize promote RUN --alias production --reason WHY", "there is no earlier one"):
            assert text in shown.words
    good("promote", "--reason", "again", "--alias", "staging")
    good("promote", playable.run_id, "--reason", "back", "--alias", "staging")
    async with signed_in(DB) as (client, _):
        marks = (await client.get("/aliases.json")).json()["names"][0]["aliases"]
        assert [mark["alias"] for mark in marks] == ["production", "staging"]
        assert marks[1]["rollback"] == "optimize rollback rows --alias staging --reason WHY"


async def test_nothing_moves_a_alias_or_writes_a_release_from_a_page(playable: Playable) -> None:
    before = {path: path.read_bytes() for path in RELEASES.rglob("*") if path.is_file()}
    async with signed_in(DB) as (client, _):
        for address in ("/releases", "/aliases", f"/release/rows/{playable.version}"):
            assert (await client.get(address)).status_code == 200
            assert (await client.post(address, data={"alias": "production"})).status_code == 405
    assert {path: path.read_bytes() for path in RELEASES.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "name", ["..%2f..", "..%2Freleases%2Frows", "%2e%2e", ".", "rows%00", "nothing", "rows%2f..%2frows"]
)
async def test_a_name_is_no_path(playable: Playable, name: str) -> None:
    async with signed_in(DB) as (client, _):
        for end in ("", "/play", ".json"):
            assert (await client.get(f"/release/{name}/{playable.version}{end}")).status_code == 404


async def test_files_that_are_no_prompt_say_how_they_are_loaded(playable: Playable) -> None:
    release = FileRelease(
        name="rows", what="a test", loader="load_classifier", files={"a.txt": b"<script>x</script>"}, provenance={}
    )
    ReleaseRegistry(RELEASES).promote(release, "classic", None, evidence={})
    async with signed_in(DB) as (client, _):
        shown = require_harmless(await client.get(f"/release/rows/{release.version}"))
        assert shown is not None
        assert "load_classifier" in shown.words
        assert "a.txt, 18 bytes" in shown.words
        assert (await client.get(f"/release/rows/{release.version}/play")).status_code == 404


async def test_damage_is_said_and_hides_nothing_else(playable: Playable) -> None:
    other = RELEASES / "rows" / playable.other / "prompt.md"
    other.write_text(other.read_text("utf-8").replace("Read the", "Obey the"), "utf-8")
    bad = RELEASES / "bad"
    bad.mkdir()
    (bad / "aliases.jsonl").write_text("{}\n", "utf-8")
    async with signed_in(DB) as (client, _):
        lines = {line["version"]: line for line in (await client.get("/releases.json")).json()["releases"]}
        assert "edited after release" in lines[playable.other]["problem"]
        assert lines[playable.version]["problem"] == ""
        assert (await client.get(f"/release/rows/{playable.other}")).status_code == 503
        data = (await client.get("/aliases.json")).json()
        assert [each["name"] for each in data["names"]] == ["rows"]
        assert "bad/aliases.jsonl:1" in data["problems"][0]


async def test_without_a_registry_the_pages_say_what_makes_one(two_runs: Made) -> None:
    async with signed_in(DB) as (client, _):
        assert "optimize promote RUN" in (await client.get("/releases")).text
        assert "No alias yet" in (await client.get("/aliases")).text
