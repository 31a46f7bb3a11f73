"""A planted defect in tools: two descriptions name each other's words, and the target believes what it reads."""

from __future__ import annotations

import json
from pathlib import Path

from agent.prompt.parts.tools import with_texts
from agent.types import Field, MetricSpec, Request, SearchSpace, Signature, Task, Tool, calls_schema
from tests.programs.moves.proposals.planted import WORD, notes, run_search, topic_words
from tests.search.worlds import Searched, share, winner_of

SWAPPED = ("send_billing", "send_delivery")
ABOUT = {
    "send_billing": "Parcel, courier, van, tracking, depot, box, shipment.",
    "send_delivery": "Invoice, receipt, charge, statement, bank, payment.",
    "send_account": "Password, login, username.",
    "send_repair": "Screen, battery, broken.",
}
SCHEMA = {"type": "object", "properties": {"urgent": {"type": "boolean"}}}
TOOLS = tuple(Tool(name, about, json.dumps(SCHEMA)) for name, about in ABOUT.items())


def planted(seed: int, rows: int = 60) -> Task:
    """The task with the defect."""
    return notes(
        seed,
        lambda label: {"calls": [{"name": f"send_{label}", "arguments": {}}]},
        rows,
        signature=Signature((Field("note"),), (Field("calls", "json", schema=calls_schema(TOOLS)),)),
        instruction="Send the note to the team that reads it.",
        metrics=(MetricSpec("tool_calls", "calls"),),
        space=SearchSpace(("zero-shot",), ("turns",), (0,)),
        tools=TOOLS,
    )


def pick(tools: tuple[Tool, ...], note: str) -> str:
    """The tool whose description shares most words with the note."""
    row = set(WORD.findall(note.lower()))
    scores = {
        tool.name: len(row & set(WORD.findall(tool.description.lower()))) + 0.01 * share(tool.name, note)
        for tool in tools
    }
    return max(scores, key=lambda name: scores[name])


def target(request: Request) -> str:
    note = request.messages[-1].content.rpartition("note ")[2]
    return json.dumps([{"name": pick(request.tools, note), "arguments": {}}])


def small_proposer(request: Request) -> str:
    """Says what rows are about; any other request comes back as an echo."""
    asked = request.messages[-1].content
    begins = asked.rpartition("Begin with: ")[2]
    if not begins.startswith("Call it"):
        return asked[-400:]
    return f"{begins} handle {topic_words(asked.partition('that it is not called for')[0], 7)}."


def run(folder: Path, seed: int) -> Searched:
    return run_search(folder, planted(seed), seed, target, small_proposer)


def right_of_swapped(tools: tuple[Tool, ...], task: Task) -> float:
    """The share of unseen rows of the two tools that the target gets right with these texts."""
    rows = [row for row in task.test if row.labels["calls"][0]["name"] in SWAPPED]
    return sum(pick(tools, row.inputs["note"]) == row.labels["calls"][0]["name"] for row in rows) / len(rows)


def tools_of_winner(found: Searched) -> tuple[Tool, ...]:
    """The tools with the texts of the best prompt."""
    return with_texts(TOOLS, winner_of(found.context).part("tool_texts"))  # type: ignore[attr-defined]
