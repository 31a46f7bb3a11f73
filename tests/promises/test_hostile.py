"""Hostile text in rows, labels, prompts, replies, tags, names and reasons is harmless in what a job prints or writes.

Every job runs on a world whose texts hold terminal escapes, bidirectional marks, HTML and rich markup, spreadsheet
formulas and fences; its `--json` fits the published schema. A new job needs a line in HOSTILE.
"""

from __future__ import annotations

import csv
import json
import random
import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import click.testing
import pytest

from agent.jobs import JOBS
from agent.release.formats.export_format import FORMATS
from tests.cli.judges import PlantedJudge
from tests.cli.label_world import write_label_task
from tests.cli.world import FILLER, TOPICS, good, good_json, learner, optimize, write_lines
from tests.promises.asking import answered_by
from tests.report.pages import assert_harmless
from tests.schemas import require_schema

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\u202e\x08<script>alert(1)</script>[bold red]```</data-0000000000000000>"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
STYLE = re.compile(r"\x1b\[[\d;]*m|\x1b\]8;[^\x1b\x07]*\x1b\\")
"""What we write ourselves on a terminal: colours, and links."""
DATA = "rows.csv --target label --prompt p.txt --price 1,2 -m toy/evil -q"
ASKED = "--price 1,2 -q"
EXACT = ("export", "load")
"""Jobs whose text is exact, byte for byte, in a pipe."""
HOSTILE: Mapping[str, str] = {
    "text": "text evil.md --rows rows.csv --eval 'sh evil.sh {{file}} {{row}}' --proposer toy/evil --max-runs 100 "
    f"{ASKED}",
    "apply": f"apply rows@production rows.csv -o out.csv --prefix p_ {ASKED}",
    "batch list": "batch list --all",
    "batch cancel": "batch cancel {run}",
    "report": "report {run} -o report.html",
    "compare": "compare {run}:0 {run}:1",
    "customize": f"customize {DATA} --run {{run}} --arms best,retrieved",
    "doctor": "doctor",
    "tasks": "tasks tasks/evil",
    "metrics list": "metrics list",
    "models list": "models list",
    "label": "label mails --status",
    "ledger merge": "ledger merge runs/ledger.db other/ledger.db -o merged.db",
    "ledger publish": "ledger publish {run} --to sqlite:///new.db",
    "ledger verify": "ledger verify {run} --from sqlite:///team.db",
    "reproduce": "reproduce {run}",
    "runs": "runs",
    "show": "show {run}",
    "history": "history {run}",
    "init": "init made --from rows.csv --target label --prompt p.txt",
    "judge calibrate": "judge calibrate --labels ratings.jsonl --input question --output answer --judge toy/evil "
    f"--repeats 2 {ASKED}",
    "judge tune": "judge tune --labels rated.jsonl --input question --output answer --judge toy/evil --proposer none "
    f"--max-calls 600 {ASKED}",
    "judge rate": "judge rate {run} --rater {evil}",
    "audit erase": "audit erase --containing 'Name the topic' --actor {evil} --reason {evil} --yes",
    "audit verify": "audit verify",
    "audit anchor": "audit anchor",
    "audit export": "audit export {run} -o out.jsonl",
    "audit check": "audit check {run}",
    "audit show": "audit show {run}:1",
    "audit lineage": "audit lineage {winner}",
    "export": "export {run}",
    "promote": "promote {run} --alias next --actor {evil} --reason {evil}",
    "rollback": "rollback rows --actor {evil} --reason {evil}",
    "load": "load rows",
    "aliases": "aliases rows",
    "check": f"check rows@production {ASKED} --repeats 1 --markdown out.md --junit out.xml",
    "bless": f"bless rows@production --reason {{evil}} --actor {{evil}} {ASKED}",
    "monitor": "monitor rows@production log.jsonl",
    "ab report": "ab report outcomes.jsonl",
    "learn": "learn tasks/evil corrected.jsonl",
    "run": f"run {DATA} --max-calls 100 --proposer none --tag {{evil}}={{evil}}",
    "resume": "resume {run}",
    "migrate": f"migrate {{run}} -m toy/other --max-calls 100 --margin 10 {ASKED}",
    "sweep": "sweep small.toml -q",
    "tools": "tools tools.json",
    "transfer": f"transfer {{run}} --models toy/other --top 2 {ASKED}",
}


def evil_answer(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
    """The scripted model: its labels are those of the rows, its other replies hostile."""
    if "strict and fair judge" in messages[0]["content"]:
        found = json.loads(str(PlantedJudge()(messages, body)))
        return json.dumps({**found, "reason": EVIL})
    text = learner(messages, body)
    return text if EVIL in text else EVIL


def write_inputs() -> list[dict[str, str]]:
    """Write the files of the user."""
    rng, rows = random.Random(1), []
    for number in range(120):
        topic = list(TOPICS)[number % 4]
        words = rng.sample(TOPICS[topic].split(), 3) + rng.sample(FILLER, 5)
        rows.append({"text": f"{EVIL} {' '.join(words)}", "label": f"={topic} {EVIL}"})
    with open("rows.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, ["text", "label"])
        table.writeheader()
        table.writerows(rows)
    Path("evil.md").write_text(f"Name the topic. {EVIL}", "utf-8")
    said = json.dumps({"score": 0.5, "reason": EVIL})
    Path("evil.sh").write_text(f"echo $0\ncat <<'END'\n{said}\nEND\n", "utf-8")
    Path("p.txt").write_text(f"Name the topic. {EVIL}", "utf-8")
    write_lines(
        "log.jsonl", [{"reply": row["label"], "time": f"2026-11-{n % 27 + 1:02d}"} for n, row in enumerate(rows)]
    )
    write_lines(
        "outcomes.jsonl", [{"unit": f"{EVIL}{n}", "arm": f"{EVIL}{n % 2}", "outcome": n % 3 % 2} for n in range(60)]
    )
    write_lines("corrected.jsonl", [{"text": f"{EVIL} {n}", "label": f"{EVIL} {n}"} for n in range(4)])
    ratings = [{"question": EVIL, "answer": f"{EVIL} quality-{n % 5 + 1}", "rating": n % 5 + 1} for n in range(36)]
    write_lines("ratings.jsonl", ratings)
    tool = {"name": "lamp_on", "description": EVIL, "input_schema": {"type": "object", "properties": {}}}
    Path("tools.json").write_text(json.dumps([tool]), "utf-8")
    write_lines("plain.jsonl", [{"reply": EVIL}])
    options = 'target = "label"\nprompt = "p.txt"\nmax_calls = 90\ntrials = 1\nprice = [1, 2]\n'
    sweep = f'tasks = ["rows.csv"]\nmodels = ["scripted/plain.jsonl"]\nseeds = [0]\n[options]\n{options}'
    Path("small.toml").write_text(sweep, "utf-8")
    return rows


def record() -> dict[str, str]:
    """Make runs and releases of the hostile files; returns what HOSTILE names."""
    write_inputs()
    good("init", "evil", "--from", "rows.csv", "--target", "label", "--prompt", "p.txt")
    write_label_task(Path("tasks/mails"), 12)
    rows = Path("tasks/mails/unlabelled.jsonl")
    rows.write_text(rows.read_text("utf-8").replace("please", f"please {json.dumps(EVIL)[1:-1]}"), "utf-8")
    run = good_json("run", *shlex.split(DATA), "--max-calls", "200", "--tag", f"{EVIL}={EVIL}")["run_id"]
    for alias in ("production", "production", "next"):
        good("promote", run, "--actor", EVIL, "--reason", EVIL, "--alias", alias, "--override")
    good("bless", "rows@production", "--reason", EVIL, "--actor", EVIL, *ASKED.split())
    good("run", *shlex.split(DATA), "-n", "1", "--db", "other/ledger.db")
    good("ledger", "publish", run, "--to", "sqlite:///team.db")
    winner = good_json("show", run)["result"]["winner"]["candidate_id"]
    return {"run": run, "winner": winner, "evil": shlex.quote(EVIL)}


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mapping[str, str]]:
    folder = tmp_path_factory.mktemp("hostile") / "world"
    folder.mkdir()
    with answered_by(evil_answer, folder):
        return folder, record()


def test_every_job_is_here() -> None:
    left = set(JOBS.names()) - set(HOSTILE)
    assert left == {"demo", "models fetch"}, "they have only texts that ship with them"


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_job_prints_and_writes_is_harmless(
    name: str, hostile: tuple[Path, Mapping[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (world, names), job = hostile, JOBS.get(name)
    words, folder = shlex.split(HOSTILE[name].format(**names)), tmp_path / "world"
    shutil.copytree(world, folder)
    with answered_by(evil_answer, folder):
        if job.has_json:
            done = optimize(*words, "--json")
            assert not CONTROL.search(done.output)
            if done.exit_code == 0:
                require_schema(tuple(words), json.loads(done.stdout))
        if not (job.makes_work or name in EXACT):
            assert not CONTROL.search(optimize(*words).output)
        monkeypatch.setattr(click.testing._NamedTextIOWrapper, "isatty", lambda self: self.name == "<stdout>")
        for form in [["--format", form.name] for form in FORMATS.all()] if name == "export" else [[]]:
            assert not CONTROL.search(STYLE.sub("", optimize(*words, *form).output)), form
    for path in folder.rglob("*"):
        if path.is_file() and not (world / path.relative_to(folder)).exists():
            assert_inert(path)


def assert_inert(path: Path) -> None:
    """Nothing of a file acts where people open it."""
    if path.suffix == ".html":
        assert_harmless(path.read_text("utf-8"))
    elif path.suffix == ".xml":
        assert not CONTROL.search("".join(ElementTree.fromstring(path.read_bytes()).itertext()))
    elif path.name == "out.csv":
        answers = [row["p_label"] for row in csv.DictReader(path.read_text("utf-8").splitlines())]
        assert any(answer.startswith("'=") for answer in answers)
        assert not any(answer[:1] in ("=", "+", "-", "@") for answer in answers)
    elif path.name == "out.md":
        assert not CONTROL.search(text := path.read_text("utf-8"))
        assert "<script>" not in text
