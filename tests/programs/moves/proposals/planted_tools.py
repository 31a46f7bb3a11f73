"""A planted defect in tools: two descriptions name each other's words, and the target believes what it reads.

Target and proposer are scripted: the target calls the tool whose description shares most words with the note, the
proposer is a small model that can say what some rows are about.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
from collections import Counter
from pathlib import Path

from agent.prompt.parts.tools import with_texts
from agent.search.evolve.evolve import search
from agent.types import Budget, Example, Field, MetricSpec, Request, SearchSpace, Signature, Task, Tool, calls_schema
from tests.cli.world import FILLER, TOPICS
from tests.search.worlds import Searched, searched, winner_of
from tests.toys import FakeModel, make_task

WORD = re.compile(r"\w+")
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
    rng = random.Random(seed)

    def split(name: str) -> tuple[Example, ...]:
        made = []
        for number in range(rows):
            label = list(TOPICS)[number % len(TOPICS)]
            words = rng.sample(TOPICS[label].split(), 3) + rng.sample(FILLER, 6)
            rng.shuffle(words)
            calls = [{"name": f"send_{label}", "arguments": {}}]
            made.append(Example(f"{name}-{number}", {"note": f"note {number}: {' '.join(words)}"}, {"calls": calls}))
        return tuple(made)

    return make_task(
        description="Send a note to the team that reads it.",
        signature=Signature((Field("note"),), (Field("calls", "json", schema=calls_schema(TOOLS)),)),
        instruction="Send the note to the team that reads it.",
        metrics=(MetricSpec("tool_calls", "calls"),),
        space=SearchSpace(("zero-shot",), ("turns",), (0,)),
        train=split("train"),
        dev=split("dev"),
        test=split("test"),
        tools=TOOLS,
    )


def pick(tools: tuple[Tool, ...], note: str) -> str:
    """The tool whose description shares most words with the note."""
    row = set(WORD.findall(note.lower()))
    scores = {
        tool.name: len(row & set(WORD.findall(tool.description.lower()))) + 0.01 * _chance(tool.name, note)
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
    first = asked.partition("that it is not called for")[0]
    words = Counter(word for word in WORD.findall(first.lower()) if word not in FILLER)
    known = [word for word, _ in words.most_common() if any(word in topic.split() for topic in TOPICS.values())]
    return f"{begins} handle {', '.join(known[:7])}."


def run(folder: Path, seed: int, has_proposer: bool = True) -> Searched:
    """A whole search on the planted task."""
    more = {"task": planted(seed), "budget": Budget(max_calls=500), "seed": seed}
    author = FakeModel(small_proposer, "fake/author") if has_proposer else None
    return asyncio.run(searched(folder, search, FakeModel(target), author, **more))


def right_of_swapped(tools: tuple[Tool, ...], task: Task) -> float:
    """The share of unseen rows of the two tools that the target gets right with these texts."""
    rows = [row for row in task.test if row.labels["calls"][0]["name"] in SWAPPED]
    return sum(pick(tools, row.inputs["note"]) == row.labels["calls"][0]["name"] for row in rows) / len(rows)


def tools_of_winner(found: Searched) -> tuple[Tool, ...]:
    """The tools with the texts of the best prompt."""
    winner = winner_of(found.context)
    return with_texts(TOOLS, getattr(winner, "tool_texts"))  # noqa: B009


def _chance(*words: str) -> float:
    return int(hashlib.sha256("\0".join(words).encode()).hexdigest()[:12], 16) / 16**12
