"""A package of others (tests/assets/plugin) is used in all five places, from the command line and from Python."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

import promptassay as pa
from agent.errors import ProblemsError
from agent.task.load import load_task
from tests.cli.world import INSTRUCTION, TOPICS, compatible, good, good_json, knowing, learner, refused, write_csv
from tests.conftest import Made
from tests.docs.reference import command_page
from tests.registry.packages import PLUGIN
from tests.schemas import schema_of
from tests.wire import WireServer

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
from acme_assay.wording import Wordings

def build():
    return Wordings("Answer.", "Answer with one department.", "Name it: billing, delivery, account or repair.")
"""
TOML = f"""
name = "notes"
description = "Route a note to a department."
signature = "text -> label"
instruction = "{INSTRUCTION}"

[fields.label]
type = "choice"
choices = {json.dumps(list(TOPICS))}

[[metrics]]
name = "same_start"
letters = 4
"""


def folder(toml: str = TOML, program: bool = False) -> Path:
    """A task folder `notes` with 60 rows a split."""
    place = Path("notes")
    place.mkdir(exist_ok=True)
    if program:
        (place / "program.py").write_text(PROGRAM, "utf-8")
        toml = toml.replace("\n[fields.label]", 'program = "program:build"\n[fields.label]')
    (place / "task.toml").write_text(toml, "utf-8")
    rows = list(csv.DictReader(write_csv(Path("rows.csv"), 180).open(encoding="utf-8")))
    for number, split in enumerate(("train", "dev", "test")):
        lines = [json.dumps({"text": row["text"], "label": row["label"]}) for row in rows[number * 60 :][:60]]
        (place / f"{split}.jsonl").write_text("\n".join(lines), "utf-8")
    return place


@pytest.mark.parametrize("strategy", ["bayes", "in-turn"])
def test_a_kind_of_theirs_is_searched_tested_and_shipped(plugin: Path, strategy: str) -> None:
    place = folder(program=True)

    def named(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        return knowing(messages, body) if "Name it" in messages[-1]["content"] else "billing"

    with WireServer(named) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOUSE_URL", server.url)
        words = ["run", str(place), "-m", "house/m", "--strategy", strategy, "--max-calls", "400", "-q"]
        result = good_json(*words)
        assert good_json("reproduce")["same"]
    assert result["decision"] == "promote"
    assert json.loads(Path(result["release"]).read_text("utf-8"))["text"].startswith("Name it")
    good_json("audit", "verify")


def test_a_run_from_python_takes_their_strategy_and_tells_one_that_nobody_has(
    plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = folder()
    with pytest.raises(ProblemsError, match="strategy"):
        pa.optimize(place, model="house/m", strategy="in-turns")
    with WireServer(learner) as server:
        monkeypatch.setenv("HOUSE_URL", server.url)
        # their format is a template
        result = pa.optimize(place, model="house/m", strategy="in-turn", max_calls=400, retrieval=False)
    assert result.status == "complete"
    assert sum(result.trials.values()) > 1
    assert [metric.metric for metric in result.metrics] == ["readable", "same_start"]
    sent = [json.loads(line) for line in good("export", "--format", "lines").splitlines()]
    assert sent == json.loads(result.release.path.with_name("messages.json").read_text("utf-8"))["messages"]
    assert "messages.jsonl: a message a line" in " ".join(good("export", "-h").split())
    assert "evolve|dspy-mipro|dspy-gepa|dspy-bootstrap|in-turn" in "".join(good("run", "--help-all").split())


def test_their_things_stand_in_the_listings_with_name_and_version(plugin: Path) -> None:
    (metric,) = [row for row in good_json("metrics", "list")["metrics"] if row["from"] != "promptassay"]
    assert metric == {
        "name": "same_start",
        "types": ["text", "choice"],
        "options": ["letters"],
        "about": "The first letters agree.",
        "from": "acme-assay 1.0",
    }
    (form,) = [row for row in good_json("models", "list")["forms"] if row["from"] != "promptassay"]
    assert form == {"form": "house/NAME", "about": "our own server; HOUSE_URL says where", "from": "acme-assay 1.0"}
    assert "acme-assay 1.0" in good("metrics", "list")
    good("init", "mine", "--from", str(write_csv(Path("rows.csv"), 120)), "--target", "label")
    schema = json.loads(Path("tasks/task.schema.json").read_text("utf-8"))["$defs"]["MetricTable"]["properties"]
    assert schema["letters"]["description"] == "same_start: how many letters must agree."


@pytest.mark.parametrize(
    ("old", "new", "place", "says"),
    [
        ("letters = 4", "letters = 0", "letters", "metrics.letters = 0: should be greater than or equal to 1"),
        ("letters = 4", "leters = 4", "leters", "unknown key 'leters'; did you mean 'letters'?"),
        (
            "letters = 4",
            "tolerance = 4",
            "tolerance",
            "the metric same_start has no option 'tolerance'; its options: letters",
        ),
        (
            '"same_start"',
            '"same_strat"',
            'name = "same',
            "metrics.name = 'same_strat' is unknown; did you mean 'same_start'?",
        ),
        ('type = "choice"\nchoices', 'type = "json"\n#', 'name = "same', "the metric same_start does not fit the type"),
    ],
)
def test_options_of_their_metric_are_checked_by_its_own_model_at_their_line(
    plugin: Path, old: str, new: str, place: str, says: str
) -> None:
    toml = TOML.replace(old, new)
    line = next(number for number, text in enumerate(toml.splitlines(), 1) if text.startswith(place))
    task = folder(toml)
    with pytest.raises(ProblemsError) as caught:
        load_task(task)
    assert any(str(each).startswith(f"notes/task.toml:{line}: {says}") for each in caught.value.problems), caught.value


def test_another_version_of_a_metric_is_another_task(plugin: Path) -> None:
    place = folder()
    before = load_task(place).hashes
    info = plugin / "acme_assay-1.0.dist-info"
    (info / "METADATA").write_text((info / "METADATA").read_text("utf-8").replace("1.0", "1.1"), "utf-8")
    info.rename(plugin / "acme_assay-1.1.dist-info")
    now = load_task(place).hashes
    assert [name for name in now if now[name] != before[name]] == ["metric same_start"]
    assert "metric choice" not in load_task(folder(TOML.replace('"same_start"\nletters = 4', '"choice"'))).hashes


def test_without_the_package_each_name_is_a_mistake_of_use() -> None:
    place = folder()
    assert "metrics.name = 'same_start' is unknown" in refused(2, "tasks", str(place))[0]
    place = folder(TOML.replace('name = "same_start"\nletters = 4', 'name = "choice"'))
    assert "unknown kind 'house'" in refused(2, "run", str(place), "-m", "house/m")[0]
    assert "no strategy is called 'in-turn'" in "".join(refused(2, "run", str(place), "--strategy", "in-turn"))
    assert "no format is called 'lines'" in "".join(refused(2, "export", "--format", "lines"))


def test_the_manual_shows_the_metric_as_it_is() -> None:
    source = (PLUGIN / "acme_assay" / "same_start.py").read_text("utf-8")
    assert source[source.index("class StartOptions") :] in (ROOT / "docs" / "extend.md").read_text("utf-8")


def test_a_job_of_theirs_is_a_command_a_function_and_a_page(plugin: Path, two_runs: Made) -> None:
    first, second = (each["release"] for each in two_runs)
    Path("asked.jsonl").write_text('{"text": "My card was charged twice."}\n{"text": "Where is my parcel?"}\n', "utf-8")
    with WireServer(learner) as server:
        words, model = ("agreement", first, second, "asked.jsonl", "-q", "-m"), compatible(server)
        told = good_json(*words, model)
        found = pa.agreement(first, second, Path("asked.jsonl"), model=model, max_calls=10)
        said = good(*words, model)
    assert (told["rows"], told["kind"]) == (2, "agreement")
    assert (found.rows, found.alike) == (told["rows"], told["alike"])
    assert said.startswith(f"{told['alike']} of 2 rows are answered alike\ncalls: ")
    assert good_json("audit", "verify")["whole"]
    assert good("show", told["run_id"]).startswith(f"{told['alike']} of 2 rows")
    page = command_page()
    assert "## optimize agreement" in page
    assert "Cap on model calls" in page.partition("## optimize agreement")[2]
    assert "agreement" in good("--help").partition("Of other packages")[2]
    assert "Say how often two released prompts" in good("--help-all")
    assert schema_of(type(found))["properties"]["alike"] == {"title": "Alike", "type": "integer"}
