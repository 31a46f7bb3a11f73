"""Texts of tools from end to end: mended in a search, shown tool by tool, released, exported, and erased."""

from __future__ import annotations

import json
from contextlib import closing
from html import escape
from pathlib import Path
from typing import Any

from agent.jobs.locations import LEDGER, open_history
from agent.release.formats.module_proof import load_module
from agent.release.runtime import load_prompt
from agent.report.view import RunView
from agent.report.web.tried_prompts import _released
from agent.types import Message, Request, Tool
from tests.cli.world import good, good_json, refused, write_task
from tests.programs.moves.proposals.planted_tools import ABOUT, SCHEMA, pick, planted, small_proposer
from tests.scripted import Toys

TASK = """\
name = "notes"
description = "Send a note to the team that reads it."
signature = "note -> calls"
instruction = "Send the note to the team that reads it."
tools = "tools.json"

[fields.calls]
type = "json"

[search]
techniques = ["zero-shot"]
formats = ["turns"]
"""


def write_notes() -> None:
    task = planted(0, rows=40)
    splits = {"train": task.train, "dev": task.dev, "test": task.test}
    write_task(
        TASK, {name: [{"id": row.id, **row.inputs, **row.labels} for row in rows] for name, rows in splits.items()}
    )
    tools = [{"name": name, "description": about, "parameters": SCHEMA} for name, about in ABOUT.items()]
    Path("notes/tools.json").write_text(json.dumps(tools))


def team(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
    """Calls the tool that is described in the words of the note."""
    if "tools" not in body:
        sent = tuple(Message(message["role"], message["content"]) for message in messages)
        return small_proposer(Request(sent, 8, seed=body.get("seed")))
    functions = [tool["function"] for tool in body["tools"]]
    tools = tuple(Tool(each["name"], each["description"], "{}") for each in functions)
    return json.dumps([{"name": pick(tools, messages[-1]["content"]), "arguments": "{}"}])


def test_descriptions_are_mended_shown_released_exported_and_erased(toys: Toys) -> None:
    write_notes()
    run = good_json("run", "notes", "-m", toys(team).name, "--price", "1,2", "--max-calls", "600")
    assert run["decision"] == "promote", run
    assert run["winner"]["test"] - run["baseline"]["test"] > 0.2
    prompt = load_prompt(Path(run["release"]))
    checked = good_json("check", run["release"], "--price", "1,2", "--repeats", "1")
    assert checked["score"]["now"]["mean"] == run["winner"]["test"]
    other = toys(team, "other").name
    moved = good_json("transfer", run["run_id"], "--models", other, "--price", "1,2", "--top", "1")
    assert moved["models"][1]["scores"][1]["mean"] == moved["models"][0]["scores"][1]["mean"]
    texts = {tool.name: tool.description for tool in prompt.release.tools}
    changed = {name for name in ABOUT if texts[name] != ABOUT[name]}
    assert {"send_billing", "send_delivery"} <= changed
    assert set(run["change"]["tools"]) - {"order of the tools"} == changed
    (matrix,) = run["tools"]
    assert matrix["labels"] == [*ABOUT, "(no call)"]
    wrong = {(cell["label"], cell["said"]) for cell in matrix["baseline"]["cells"] if cell["label"] != cell["said"]}
    assert ("send_billing", "send_delivery") in wrong
    assert good_json("reproduce", run["run_id"])["same"]

    run_id, winner = run["run_id"], run["winner"]["candidate_id"]
    assert "tools:proposed" in json.dumps(good_json("history", run_id)["trials"])
    (lineage,) = good_json("audit", "lineage", winner)["prompts"]
    assert lineage["candidate"]["tool_texts"]["own"]["descriptions"]["send_billing"] == ABOUT["send_billing"]
    shown = good("audit", "lineage", winner)
    assert f"tools: send_billing: {ABOUT['send_billing']} -> {texts['send_billing']}" in shown
    trials = good_json("history", run_id)["trials"]
    number = next(trial["number"] for trial in trials if trial["candidate_id"] == winner)
    compared = {each["what"]: each for each in good_json("compare", f"{run_id}:0", f"{run_id}:{number}")["tools"]}
    assert compared["send_billing"]["b"] == texts["send_billing"]
    assert "== the texts of tools" in good("compare", f"{run_id}:0", f"{run_id}:{number}")
    with closing(open_history(LEDGER)) as history:  # the playground makes the prompt that was not released
        view, own = RunView(history, run_id), next(t["candidate_id"] for t in trials if t["number"] == 0)
        made = _released(view, history.candidate(own), prompt.release)
    assert [(tool.name, tool.description) for tool in made.tools] == list(ABOUT.items())
    screen = good("show", run_id)
    assert all(f"+{name}: {text}" in screen for name, text in texts.items() if text != ABOUT[name])
    good("report", run_id, "-o", "report.html")
    page = Path("report.html").read_text("utf-8")
    whole = page.partition("The best found in full")[2].partition("Your prompt in full")[0]
    assert "[tools]\n" in whole
    assert all(escape(text) in whole for name, text in texts.items() if text != ABOUT[name])
    assert "By label of calls, on the sealed test" in page
    assert good_json("history", "--search", f'"{texts["send_billing"][:40]}"')["matches"] > 0

    good("export", run_id, "--format", "python", "--format", "tools", "-o", "out")
    module = load_module(Path("out/prompt.py"), "exported_searched_tools")
    assert {tool["function"]["name"]: tool["function"]["description"] for tool in module.TOOLS} == texts
    written = json.loads(Path("out/tools.anthropic.json").read_text("utf-8"))
    assert {tool["name"]: tool["description"] for tool in written} == texts

    secret = texts["send_billing"]
    good("audit", "erase", "--containing", secret, "--actor", "ann", "--reason", "asked to", "--yes")
    with_text = [path for path in Path("runs").rglob("*.db*") if secret.encode() in path.read_bytes()]
    assert with_text == []
    assert good("audit", "verify").startswith("whole: ")
    assert "tools: texts of tools: (erased) -> (erased)" in good("audit", "lineage", winner)
    good("report", run_id, "-o", "erased.html")
    assert secret not in Path("erased.html").read_text("utf-8")
    (*_, line) = refused(2, "transfer", run_id, "--models", other, "--price", "1,2", "--top", "1")
    assert "erased from the ledger" in line
