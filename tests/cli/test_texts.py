"""The texts of an agent from the run to production and back by real commands: kept, promoted, checked, rolled back."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import promptassay as pa
from tests.cli.world import (
    FILLER,
    TOPICS,
    UNSURE,
    WORD,
    good,
    good_json,
    optimize,
    post,
    refused,
    write_csv,
    write_task,
)
from tests.scripted import Toys, toy_makers

AGENT = """
import json
import urllib.request


def run(texts, row, model):
    def ask(system, user):
        turns = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        body = {"model": model.name, "messages": turns}
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {model.key}"}
        request = urllib.request.Request(model.url + "/chat/completions", json.dumps(body).encode(), headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return json.load(opener.open(request))["choices"][0]["message"]["content"]

    return {"label": ask(texts["router"], ask(texts["reader"], row["text"]))}
"""
TOML = f"""
name = "house"
description = "Route a note to a department."
signature = "text -> label"
program = "agent.py:run"

[texts]
reader = "Say what it is about."
router = "Name the department."

[fields.label]
type = "choice"
choices = {json.dumps(list(TOPICS))}
"""


def folder(tests: int = 30) -> Path:
    """A task folder `house` with 30 rows a split, or fewer of the sealed ones."""
    rows = list(csv.DictReader(write_csv(Path("rows.csv"), 90).read_text("utf-8").splitlines()))
    splits = {split: rows[at::3] for at, split in enumerate(("train", "dev", "test"))}
    write_task(TOML, {**splits, "test": splits["test"][:tests]})
    Path("house/agent.py").write_text(AGENT, "utf-8")
    return Path("house")


def model(wrong: str = "", needs: str = "") -> Any:
    """Passes on the words that count and knows their topic, but for notes with the word `wrong`.

    It names the topic only to a router with the word that it `needs`, and writes such a text when it is asked for one.
    """

    def answer(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        if "<instruction>" in messages[-1]["content"]:
            return f"<instruction>Name the department, {needs}.</instruction>"
        words = [word for word in WORD.findall(messages[-1]["content"]) if word not in FILLER]
        if "about" in messages[0]["content"]:
            return " ".join(words)
        if needs not in messages[0]["content"]:
            return UNSURE
        topic = max(TOPICS, key=lambda name: sum(word in TOPICS[name].split() for word in words))
        return "billing" if wrong in words else topic

    return answer


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A folder with two runs that kept the agent's own texts, which were edited in between."""
    place = tmp_path_factory.mktemp("house")
    with pytest.MonkeyPatch.context() as patch, toy_makers() as toys:
        patch.chdir(place)
        words = ("run", str(folder()), "-m", toys(model()).name, "--max-calls", "800", "-q")
        runs = [good_json(*words)]
        Path("house/task.toml").write_text(TOML.replace("Name the department", "Write the department"), "utf-8")
        return place, [*runs, good_json(*words)]


@pytest.fixture
def runs(world: tuple[Path, list[dict[str, Any]]], here: Path) -> list[dict[str, Any]]:
    shutil.copytree(world[0], here, dirs_exist_ok=True)
    return world[1]


def test_texts_are_promoted_rolled_back_and_exported(runs: list[dict[str, Any]]) -> None:
    first, second = runs
    own = pa.load_texts(first["release"])
    assert own == {"reader": "Say what it is about.", "router": "Name the department."}
    assert own.provenance["run_id"] == first["run_id"]
    assert own.provenance["calls_a_row"] == 2
    shown = good("show", first["run_id"])
    assert f"from promptassay import load_texts; texts = load_texts('{first['release']}')" in shown
    assert "optimize promote" not in shown, "nothing was won"
    assert "set the same parameters" not in shown, "the agent sets its own"

    said = good("promote", first["run_id"])
    assert f"house@production is {own.version}; before: none" in said
    assert "it is your own set of texts (baseline, no gain claimed)" in said
    assert pa.load_texts("house@production") == own
    why = "\n".join(refused(100, "promote", second["run_id"]))
    assert f"production is {own.version}, and your own set of texts claims no gain over it" in why
    told = good_json("promote", second["run_id"], "--override", "--reason", "a new name")
    assert told["from"] == own.version
    assert pa.load_texts("house@production")["router"] == "Write the department."
    assert told["version"] in good("aliases", "house")
    good("rollback", "house", "--reason", "worse")
    assert pa.load_texts("house@production").version == own.version
    shutil.rmtree("runs/releases/house")
    good("promote", second["run_id"], "--override", "--reason", "again")
    assert pa.load_texts(f"house@{own.version}") == own, "restored from the ledger"
    assert "whole: " in good("audit", "verify")
    assert own.provenance["candidate_id"] in good("audit", "lineage", own.version)

    assert good("export", first["run_id"]) == Path(first["release"]).read_text("utf-8")
    good("export", first["run_id"], "-o", "shipped.json")
    assert pa.load_texts("shipped.json") == own
    (line,) = refused(1, "load", "house")
    assert "is a set of texts, not a prompt" in line
    assert "load_texts('house@production')" in line


def test_a_file_that_is_not_what_the_run_released_is_not_promoted(runs: list[dict[str, Any]]) -> None:
    first, second = runs
    shutil.copy(second["release"], first["release"])
    assert "which is not what" in refused(1, "promote", first["run_id"])[0]
    Path(first["release"]).write_text("{}")
    assert "is not the texts.json of a release" in refused(1, "promote", first["run_id"])[0]
    assert not Path("runs/releases/house").exists()


def test_the_agent_runs_again_and_its_answers_are_compared(runs: list[dict[str, Any]], toys: Toys) -> None:
    release, own = runs[1]["release"], ("-q", "--repeats", "1", "-m", toys(model()).name)
    told = good_json("check", release, *own)
    assert (told["gate"], told["compared"], told["calls"]["model"]) == ("passed", 30, 60)
    blessed = good_json("bless", release, "--reason", "first", *own)
    assert (blessed["rows"], blessed["version"]) == (30, told["version"])
    assert good_json("check", runs[1]["run_id"], *own)["gate"] == "passed"
    (said,) = refused(2, "check", release, *own, "--max-calls", "59")
    assert "this check takes 60 calls at least" in said
    done = optimize("check", release, "-q", "-m", toys(model("parcel"), "worse").name, "--json")
    told = json.loads(done.stdout)
    assert (done.exit_code, told["gate"]) == (100, "failed")
    assert {flip["is"] for flip in told["flips"]} == {"billing"}


def test_what_was_released_cannot_be_checked_with_another_program(runs: list[dict[str, Any]], toys: Toys) -> None:
    (first, second), own = runs, toys(model())
    Path("house/task.toml").write_text(TOML.replace("router =", "other ="), "utf-8")
    said = refused(1, "check", second["release"], "-q", "-m", own.name)[-1]
    assert "its texts are reader, router, and those of the task reader, other" in said
    shutil.rmtree("house")
    assert refused(2, "check", first["release"], "-q", "-m", own.name)
    assert not own.seen


def test_the_own_task_says_which_code_runs(runs: list[dict[str, Any]], toys: Toys) -> None:
    """A file from elsewhere names a program; it is not run."""
    data = pa.load_texts(runs[1]["release"]).release
    Path("evil.py").write_text("open('owned', 'w')\n\ndef run(texts, row, model):\n    return {'label': 'billing'}\n")
    file = replace(data, program="../evil.py:run").write(Path("got"))
    assert good_json("check", str(file), "-q", "--repeats", "1", "-m", toys(model()).name)["gate"] == "passed"
    assert not Path("owned").exists()


def route(texts: Any, row: Any, model: Any) -> Any:
    turns = [{"role": "system", "content": texts["router"]}, {"role": "user", "content": row["text"]}]
    reply = post(f"{model.url}/chat/completions", {"model": model.name, "messages": turns})
    return reply["choices"][0]["message"]["content"]


def test_an_agent_that_is_a_function_is_checked_where_it_is_known(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = list(csv.DictReader(write_csv(Path("rows.csv"), 60).read_text("utf-8").splitlines()))
    texts, name = {"router": "Name the department."}, toys(model()).name
    run = pa.optimize(rows, target="label", agent=route, texts=texts, model=name, max_calls=400, proposer="none")
    assert pa.load_texts(run.release.path) == texts
    assert pa.check(run.run_id, model=name, repeats=1).passed
    assert pa.promote(run.run_id).version == pa.load_texts("rows@production").version
    monkeypatch.setattr("agent.programs.agent_call._REGISTERED", {})
    with pytest.raises(pa.InputError, match="its agent route is a Python function, which this program lacks"):
        pa.check("rows@production", model=name)


def searched(toys: Toys, tests: int = 30) -> dict[str, Any]:
    """A run that finds a text with the word that the model needs."""
    name = toys(model(needs="please")).name
    return good_json("run", str(folder(tests)), "-m", name, "--max-calls", "1200", "--anyway", "-q")


def test_a_winner_is_promoted_by_the_gate_and_works_in_the_agent(toys: Toys) -> None:
    run = searched(toys)
    assert run["decision"] == "promote"
    assert "the texts of your program changed" in good("show", run["run_id"])
    assert "the same: " in good("reproduce")
    good("promote")
    assert "please" in pa.load_texts("house@production")["router"]
    assert f"+{100 * run['lift']['diff']:.1f}" in good("aliases", "house")
    assert not Path(run["release"]).with_name("held").exists()
    assert good_json("check", "house@production", "-q", "--repeats", "1")["score"]["now"]["mean"] == 1.0


def test_a_winner_that_was_held_back_is_promoted_by_override_alone(toys: Toys) -> None:
    run = searched(toys, tests=3)
    own = pa.load_texts(run["release"])
    assert (run["decision"], own["router"]) == ("keep_baseline", "Name the department.")
    held = pa.load_texts(Path(run["release"]).with_name("held"))
    assert "please" in held["router"]
    assert "--own promotes your own set of texts" in refused(100, "promote")[-1]
    assert good_json("promote", "--own")["version"] == own.version
    told = good_json("promote", "--override", "--reason", "seen by eye", "--actor", "jo")
    assert (told["promoted"], told["version"], told["from"]) == ("held", held.version, own.version)
    now = pa.load_texts("house@production")
    assert now == held
    assert now.provenance["promoted"]["reason"] == "seen by eye"
    assert pa.load_texts(run["release"]) == held
    (said,) = refused(2, "promote", "--own")
    assert "lies where your own set of texts lay" in said


def test_what_an_agent_answered_is_checked_and_not_what_its_model_said_last(toys: Toys) -> None:
    task = folder(10)
    said = '{"label": ask(texts["router"], ask(texts["reader"], row["text"]))}'
    knows = f'"repair" if "screen" in row["text"] else [{said}, ask("Say goodbye.", row["text"])][0]'
    (task / "agent.py").write_text(AGENT.replace(said, knows), "utf-8")
    bye = model()

    def answer(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        return "Bye." if messages[0]["content"] == "Say goodbye." else str(bye(messages, body))

    words = ("-q", "-m", toys(answer).name)
    found = good_json("run", str(task), *words, "--max-calls", "300", "-n", "1", "--proposer", "none")
    rows = good_json("history", "--trial", "0")["outcomes"]["dev"]
    assert {row["reply"] for row in rows} == {json.dumps({"label": name}) for name in TOPICS}
    assert "none" in {row["call_key"] for row in rows}, "rows that it answers without a call"
    told = good_json("check", found["release"], *words, "--repeats", "1")
    assert (told["gate"], told["compared"], told["flips"]) == ("passed", 30, [])
