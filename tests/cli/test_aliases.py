"""From a run to production and back: promote, load, aliases, rollback, A/B, and what each of them refuses."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.jobs.locations import prompt_path
from agent.ledger.query import History
from agent.ledger.store import Ledger
from agent.release.promotion import ReleaseRegistry
from agent.release.runtime import load_prompt
from tests.cli.world import compatible, files, good, good_json, knowing, optimize, refused
from tests.conftest import Made
from tests.ledger.ledgers import reseal
from tests.wire import WireServer

LEDGER = Path("runs/ledger.db")
ALIASES = Path("runs/releases/rows/aliases.jsonl")


def moves() -> list[dict[str, Any]]:
    with closing(History(LEDGER)) as history:
        return history.alias_moves("rows")


def agree() -> list[dict[str, Any]]:
    """The history of the file, which must be that of the chain; and the ledger holds."""
    lines = [json.loads(line) for line in ALIASES.read_text().splitlines()]
    assert [line["hash"] for line in lines] == [move["hash"] for move in moves()]
    assert good("audit", "verify").startswith("whole")
    return lines


def test_what_another_run_released_is_not_promoted_on_this_runs_evidence(two_runs: Made) -> None:
    first, second = two_runs
    for name in ("prompt.md", "messages.json"):
        shutil.copy(Path(second["release"]).with_name(name), Path(first["release"]).with_name(name))
    said = refused(1, "promote", first["run_id"])[0]
    assert f"of run {second['run_id']}, which is not what {first['run_id']} released" in said
    assert not ALIASES.exists()


def test_versions_come_and_go_and_the_history_is_listed(two_runs: Made) -> None:
    versions = []
    for run in two_runs:
        told = good_json("promote", run["run_id"], "--override", "--reason", f"seed {run['seed']}")
        versions.append(told["version"])
    assert len(set(versions)) == 2
    assert load_prompt("rows@production").version == versions[1]
    back = good_json("rollback", "rows", "--reason", "complaints", "--actor", "al")
    assert (back["version"], back["from"], back["actor"], back["in_chain"]) == (versions[0], versions[1], "al", True)
    assert load_prompt("rows@production").version == versions[0]
    assert "its first version" in refused(2, "rollback", "rows")[0]
    lines = agree()
    assert [line["action"] for line in lines] == ["promote", "promote", "rollback"]
    table = good("aliases", "rows")
    assert table.count("\n") == 4
    assert "complaints" in table
    assert "undoes 2" in table
    assert "rows@production" in good("aliases")
    assert [change["seq"] for change in good_json("aliases", "rows")["history"]] == [1, 2, 3]
    assert good_json("aliases")["aliases"][0]["version"] == versions[0]

    second = ("promote", two_runs[1]["run_id"], "--override", "--reason", "try")
    good(*second, "--alias", "ab", "--share", "0.3")
    arms = {f"u{n}": load_prompt("rows@ab", unit=f"u{n}") for n in range(60)}
    of_arms = {prompt.arm: prompt.version for prompt in arms.values()}
    assert of_arms == {"candidate": versions[1], "production": versions[0]}
    for unit in ("u1", "u2"):
        assert good_json("load", "rows@ab", "--unit", unit)["arm"] == arms[unit].arm
    assert "--unit ID" in refused(2, "load", "rows@ab")[0]
    assert "stands for two versions" in refused(2, "check", "rows@ab")[0]
    assert "for 30%" in good("aliases")
    agree()


def test_your_own_prompt_takes_the_place_of_another_version_only_with_a_reason(names: Mapping[str, str]) -> None:
    before, own, run = load_prompt("rows@production").version, prompt_path(names["kept"], LEDGER), names["kept"]
    lines = refused(100, "promote", run)
    assert f"production is {before}, and your own prompt claims no gain over it" in lines[0]
    ALIASES.unlink()  # what the file lost, the chain knows
    assert refused(100, "promote", run) == lines
    assert load_prompt("rows@production").version == before
    told = good_json("promote", run, "--alias", "first")
    assert (told["promoted"], told["overridden"], told["moved"]) == ("own", False, True)
    assert told["candidate_id"] == load_prompt(own).provenance["candidate_id"]
    assert "lift" not in agree()[-1]["evidence"]
    assert "was it before" in good("promote", run, "--alias", "first")
    a_fifth = ("promote", run, "--alias", "new", "--share", "0.2")
    assert refused(100, *a_fifth)[0] == lines[0]
    good(*a_fifth, "--override", "--reason", "to see")
    good(*a_fifth[:-1], "0")
    good("promote", run, "--override", "--reason", "it is shorter")
    good(*a_fifth)
    assert load_prompt("rows@production").release == load_prompt(own).release
    assert agree()[-1]["evidence"]["claim"] == "baseline, no gain claimed"
    assert "baseline, no gain claimed" in good("aliases", "rows")


def test_each_thing_in_the_way_is_refused_and_each_override_of_it_is_in_the_chain(two_runs: Made) -> None:
    first, _ = two_runs
    lost = {"slice": "lang", "groups": [{"value": "de", "diff": -0.2, "p_value": 0.001}]}
    judge = {"judge_id": "j", "metric": "judge", "models": ["a/b"], "trusted": False, "why": "never calibrated"}
    planted: list[tuple[dict[str, Any], str]] = [
        ({"lift": {**first["lift"], "p_value": 0.2}}, "the gain is not shown"),
        ({"slices": [lost]}, "slice lang = de got worse"),
        ({"judges": [judge]}, "never calibrated"),
    ]
    for number, (change, says) in enumerate(planted):
        ledger = Ledger(LEDGER)
        ledger.end_run(first["run_id"], "complete", 1.0, {**first, **change})
        ledger.close()
        before = len(moves())
        assert says in refused(100, "promote", first["run_id"], "--alias", f"l{number}")[0]
        assert len(moves()) == before
        good("promote", first["run_id"], "--alias", f"l{number}", "--override", "--reason", "known", "--actor", "jo")
        told = moves()[-1]
        assert (told["reason"], told["actor"]) == ("known", "jo")
        assert says in told["evidence"]["overridden"][0]
    assert len(agree()) == 3


def test_who_forges_a_result_and_its_seal_does_not_get_it_promoted(two_runs: Made) -> None:
    run = two_runs[0]["run_id"]
    with closing(sqlite3.connect(LEDGER)) as db:
        db.execute(
            "UPDATE blobs SET body = json_set(body, '$.lift.diff', 0.999) "
            "WHERE hash = (SELECT result_hash FROM runs WHERE id = ?)",
            (run,),
        )
        db.commit()
    reseal(LEDGER)
    assert good_json("show", run)["result"]["lift"]["diff"] == 0.999
    assert "a text does not match its hash" in refused(1, "promote", run)[0]
    assert not ALIASES.exists()
    assert "a text does not match its hash" in optimize("doctor").stdout.replace("\n", " ")


def test_what_cannot_be_done_says_so_and_does_nothing(two_runs: Made) -> None:
    run = two_runs[0]["run_id"]
    for code, words, says in [
        (2, ["promote", run, "--alias", "ab"], "--share"),
        (2, ["promote", run, "--alias", "ab", "--share", "0.2"], "needs a version in production"),
        (2, ["promote", run, "--alias", "ab", "--share", "nan"], "from 0 to 1"),
        (2, ["promote", run, "--share", "0.2"], "other arm"),
        (2, ["promote", run, "--alias", "../x"], "lower-case letters"),
        (2, ["promote", run, "--override"], "--reason"),
        (2, ["promote", run, "--own"], "not your own prompt"),
        (2, ["promote", run, "--own", "--override"], "it is kept with the release"),
        (2, ["rollback", "rows"], "no releases of this name"),
        (2, ["rollback", "../rows"], "no releases of this name"),
        (2, ["aliases", "rows"], "no releases of this name"),
        (2, ["load", "../x@y"], "NAME@ALIAS"),
        (1, ["load", "rows"], "no releases of this name"),
        (1, ["load", "rows@p_0123456789abcdef"], "no such file"),
    ]:
        assert says in "\n".join(refused(code, *words)), words
        assert not Path("runs/releases").exists(), words
    assert good("aliases").count("\n") == 1


def test_a_rollback_works_while_a_run_holds_the_ledger_and_without_one(
    two_runs: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = two_runs
    good("promote", first["run_id"])
    one = load_prompt("rows@production")
    registry = ReleaseRegistry(Path("runs/releases"))
    two = replace(one.release, model="openai/other")
    monkeypatch.setattr("agent.jobs.aliases.BUSY_AFTER", 0.1)
    registry.promote(two, "production", None, evidence={})
    busy = Ledger(LEDGER)
    result = optimize("rollback", "rows")
    assert result.exit_code == 0
    assert "next run, promote or rollback" in result.stderr
    busy.close()
    assert load_prompt("rows@production").version == one.version
    registry.promote(two, "production", None, evidence={})
    LEDGER.rename("runs/away.db")
    assert good_json("rollback", "rows")["in_chain"] is False
    assert not LEDGER.exists()
    Path("runs/away.db").rename(LEDGER)
    assert len(moves()) == 1
    with WireServer(knowing) as server:  # any run takes in what is missing
        good(*files(60), "-m", compatible(server), "-q", "-n", "1", "--max-calls", "100", "--proposer", "none")
    assert [line["action"] for line in agree()] == ["promote", "promote", "rollback", "promote", "rollback"]


def test_what_a_run_released_lies_beside_the_ledger_wherever_that_lies_now(two_runs: Made) -> None:
    first, _ = two_runs
    text, run = Path(first["release"]).read_text("utf-8"), first["run_id"]
    Path("runs").rename("moved")
    moved = Path("moved", run, "prompt.md")
    assert good("export", run, "--format", "md", "--db", "moved/ledger.db") == text
    assert good_json("promote", run, "--db", "moved/ledger.db")["release"] == str(moved)
    lineage = good_json("audit", "lineage", load_prompt(moved).version, "--db", "moved/ledger.db")
    assert lineage["prompts"][0]["runs"][0]["release"] == str(moved)
    assert prompt_path(run, Path("moved/ledger.db")) == moved
    moved.write_bytes(Path("moved", two_runs[1]["run_id"], "prompt.md").read_bytes())
    result = optimize("reproduce", run, "--db", "moved/ledger.db")
    assert "the released prompt is p_" in result.stdout
    assert not Path("runs").exists()
