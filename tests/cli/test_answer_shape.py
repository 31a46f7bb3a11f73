"""The shape of a JSON answer, end to end: found by a search, shown, released, exported, erased, and switched off."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.release.formats.module_proof import load_module
from agent.release.runtime import load_prompt
from tests.cli.world import compatible, good, good_json, optimize, refused, write_task
from tests.wire import WireServer

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "grams": {"type": "integer", "minimum": 0}},
    "required": ["name", "grams"],
    "additionalProperties": False,
}
TASK = """\
name = "parcels"
description = "Read a parcel note into a record."
signature = "note -> record"
instruction = "Write the parcel of the note as a JSON object."

[fields.record]
type = "json"
schema = "record.schema.json"

[search]
techniques = ["zero-shot"]
formats = ["turns"]
"""
NAMES = ("Ada", "Bo", "Cy", "Di", "Ed", "Flo", "Gus", "Hal")


def write_parcels(
    task: str = TASK, answer: Callable[[dict[str, Any]], dict[str, Any]] = lambda it: {"record": it}
) -> None:
    rng, splits = random.Random(3), {"train": 30, "dev": 40, "test": 60}
    made: dict[str, list[dict[str, Any]]] = {}
    for split, count in splits.items():
        made[split] = []
        for at in range(count):
            name, kilos = rng.choice(NAMES), rng.randint(2, 90)
            parcel = {"name": name.lower(), "grams": 1000 * kilos}
            note = f"{kilos} kg for {name}, no {at} of {split}"
            made[split].append({"id": f"{split}-{at}", "note": note, **answer(parcel)})
    write_task(task, made)
    Path("parcels/record.schema.json").write_text(json.dumps(SCHEMA))


def carrier(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
    """Right on names; gives the kilos as grams unless a field's description tells it to multiply."""
    system = messages[0]["content"]
    if "how the field of a JSON answer is written" in system:
        return "The value is the kilograms multiplied by one thousand."
    if "instruction" in system or "You find out" in system or "You say how an answer" in system:
        return "No idea."
    kilos, name = re.match(r"(\d+) kg for (\w+)", messages[-1]["content"]).groups()  # type: ignore[union-attr]
    described = re.search(r"grams.*multiplied by one thousand", system)
    return json.dumps({"name": name.lower(), "grams": int(kilos) * (1000 if described else 1)})


def test_a_fault_that_only_a_description_mends_is_found_shown_released_and_exported() -> None:
    write_parcels()
    with WireServer(carrier) as server:
        run = good_json("run", "parcels", "-m", compatible(server), "--price", "1,2", "--max-calls", "500")
        assert run["decision"] == "promote", run
        scores = [round(run[side]["test"], 6) for side in ("baseline", "winner")]
        assert scores == [0.65, 1.0]  # valid: 0.3, one of two fields: 0.35
        checked = good_json("check", run["release"], "--price", "1,2", "--repeats", "1")
        assert checked["score"]["now"]["mean"] == 1.0
        other = compatible(server).replace("/x@", "/y@")
        moved = good_json("transfer", run["run_id"], "--models", other, "--price", "1,2", "--top", "1")
        assert moved["models"][1]["scores"][1]["mean"] == 1.0
        without = good_json(
            "run", "parcels", "-m", other, "--price", "1,2", "--no-shape", "--max-calls", "150", "-n", "2"
        )
    assert without["decision"] == "keep_baseline"
    by_field = {part["field"]: (part["baseline"]["mean"], part["winner"]["mean"]) for part in run["fields"]}
    assert by_field == {"name": (1.0, 1.0), "grams": (0.0, 1.0)}
    (grams,) = (part for part in run["fields"] if part["field"] == "grams")
    assert 0.8 < grams["diff_ci95"][0] < grams["diff"] == 1.0
    assert any("described: " in clause and "grams" in clause for clause in run["change"]["answer"])
    assert good_json("reproduce", run["run_id"])["same"]
    run_id, winner = run["run_id"], run["winner"]["candidate_id"]
    (lineage,) = good_json("audit", "lineage", winner)["prompts"]
    assert "one thousand" in lineage["candidate"]["shape"]["texts"]["grams"]
    screen = good("show", run_id)
    assert "By field of the answer, on the sealed test" in screen
    good("report", run_id, "-o", "report.html")
    assert "By field of the answer, on the sealed test" in Path("report.html").read_text("utf-8")

    prompt = load_prompt(Path(run["release"]))
    assert "multiplied by one thousand" in prompt.render(note="x")[0]["content"]
    formats = ("pydantic", "openai", "anthropic", "langchain", "python")
    said = optimize("export", run_id, *(part for name in formats for part in ("--format", name)), "-o", "out").stderr
    for name in formats:  # the dev rows of the run through each export: the same requests, the same score
        assert re.search(rf"{name}: \d+ dev rows rendered.*the same .*score 100.0 as in the run", said), said
    module = load_module(Path("out/answer_model.py"), "exported_parcels")
    assert module.Answer(name="ada", grams=2000).model_dump() == {"name": "ada", "grams": 2000}
    assert "one thousand" in module.Answer.model_json_schema()["properties"]["grams"]["description"]

    secret = lineage["candidate"]["shape"]["texts"]["grams"]
    good("audit", "erase", "--containing", secret, "--actor", "ann", "--reason", "asked to", "--yes")
    assert [path for path in Path("runs").rglob("*.db*") if secret.encode() in path.read_bytes()] == []
    assert good("audit", "verify").startswith("whole: ")
    (*_, line) = refused(2, "transfer", run_id, "--models", other, "--price", "1,2", "--top", "1")
    assert "erased from the ledger" in line


def chatty(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
    """Answers in words unless a schema is sent."""
    found = re.match(r"(\d+) kg for (\w+)", messages[-1]["content"])
    if found is None or "response_format" not in body:
        return "Sure, here is the parcel!"
    return json.dumps({"name": found[2].lower(), "grams": 1000 * int(found[1])})


def test_a_schema_that_mends_the_form_is_sent_by_the_release_and_by_each_export_that_can() -> None:
    write_parcels()
    with WireServer(chatty) as server:
        run = good_json("run", "parcels", "-m", compatible(server), "--price", "1,2", "--max-calls", "300")
        assert run["decision"] == "promote", run
        assert good_json("check", run["release"], "--price", "1,2", "--repeats", "1")["score"]["now"]["mean"] == 1.0
        prompt = load_prompt(Path(run["release"]))
        assert prompt.complete(note="7 kg for Ada, by hand").fields["record"] == {"name": "ada", "grams": 7000}
    assert "the JSON schema is sent with each request" in run["change"]["answer"]
    formats = ("openai", "anthropic", "langchain", "python", "pydantic")
    good("export", run["run_id"], *(part for name in formats for part in ("--format", name)), "-o", "out", "--strict")
    sent = json.loads(Path("out/openai.json").read_text())["response_format"]["json_schema"]
    plain = {"name": {"type": "string"}, "grams": {"type": "integer"}}
    assert sent["strict"]
    assert sent["schema"] == {**SCHEMA, "properties": plain, "required": [*sent["schema"]["properties"]]}
    anthropic = json.loads(Path("out/anthropic.json").read_text())["output_config"]["format"]
    assert (anthropic["type"], anthropic["schema"]) == ("json_schema", sent["schema"])
    for file in ("langchain_prompt.py", "prompt.py"):
        assert load_module(Path("out", file), "exported_schema").RESPONSE_FORMAT["json_schema"] == sent
    (*_, line) = refused(1, "export", run["run_id"], "--format", "prompty", "-o", "other")
    assert "sends a JSON schema" in line
