"""A planted defect: the user's prompt swaps the meanings of two labels, and the target believes what it is told.

Target and proposer are scripted: the target goes by the words that the prompt gives to each label, the proposer is a
small model that can say what some rows are about and echoes any longer request.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.search.evolve.evolve import search
from agent.types import Budget, Example, Field, Message, MetricSpec, Request, SearchSpace, Signature, Task
from tests.cli.world import FILLER, TOPICS
from tests.search.worlds import Searched, searched, share, winner_of
from tests.toys import FakeModel, make_task

Reply = Callable[[Request], str]
WORD = re.compile(r"\w+")
LABELS = tuple(TOPICS)
SWAPPED = ("billing", "delivery")
INSTRUCTION = (
    "Decide which team reads the note: billing, delivery, account or repair.\n"
    "- billing: parcel, courier, van, tracking, depot, box, shipment\n"
    "- delivery: invoice, receipt, charge, statement, bank, payment\n"
    "- account: password, login, username\n"
    "- repair: screen, battery, broken"
)
ONE_WORD = {"billing": "invoice", "delivery": "parcel", "account": "password", "repair": "screen"}
"""What the target knows of a label by itself."""


def notes(seed: int, labelled: Callable[[str], dict[str, Any]], rows: int = 60, **task: Any) -> Task:
    """A task on notes with words of a topic; `labelled`: the labels of a note on one."""
    rng = random.Random(seed)

    def split(name: str) -> tuple[Example, ...]:
        made = []
        for number in range(rows):
            label = LABELS[number % len(LABELS)]
            words = rng.sample(TOPICS[label].split(), 3) + rng.sample(FILLER, 6)
            rng.shuffle(words)
            made.append(Example(f"{name}-{number}", {"note": f"note {number}: {' '.join(words)}"}, labelled(label)))
        return tuple(made)

    splits = {name: split(name) for name in ("train", "dev", "test")}
    return make_task(description="Send a note to the team that reads it.", **splits, **task)


def topic_words(text: str, most: int) -> str:
    """The words of a text that belong to a topic, the most frequent first."""
    words = Counter(word for word in WORD.findall(text.lower()) if word not in FILLER)
    known = [word for word, _ in words.most_common() if any(word in topic.split() for topic in TOPICS.values())]
    return ", ".join(known[:most])


def run_search(folder: Path, task: Task, seed: int, target: Reply, author: Reply | None) -> Searched:
    """A whole search on a planted task with a scripted target and proposer."""
    proposer = FakeModel(author, "fake/author") if author else None
    more = {"task": task, "budget": Budget(max_calls=500), "seed": seed}
    return asyncio.run(searched(folder, search, FakeModel(target), proposer, **more))


def planted(seed: int) -> Task:
    """The task with the defect."""
    return notes(
        seed,
        lambda label: {"team": label},
        signature=Signature((Field("note"),), (Field("team", "choice", choices=LABELS),)),
        instruction=INSTRUCTION,
        metrics=(MetricSpec("choice", "team"),),
        space=SearchSpace(("zero-shot",), ("turns", "inline"), (0,)),
    )


def target(request: Request) -> str:
    """The label whose words in the prompt occur most in the note; its one known word counts for half a word."""
    whole = "\n".join(message.content for message in request.messages)
    front, _, note = whole.rpartition("note ")
    row = set(WORD.findall(note.split("\n")[0].lower()))
    scores = dict.fromkeys(LABELS, 0.0)
    for label in LABELS:
        meant = {word for line in re.findall(rf"^- {label}: (.*)$", front, re.M) for word in WORD.findall(line.lower())}
        scores[label] = len(meant & row) + 0.5 * (ONE_WORD[label] in row) + 0.01 * share(label, note)
    return max(scores, key=lambda label: scores[label])


def small_proposer(request: Request) -> str:
    """Says what rows are about, now and then nothing of use; any other request comes back as an echo."""
    asked = request.messages[-1].content
    if "Begin with: Notes about" not in asked:
        return asked[-400:]
    if share(asked, str(request.seed)) < 0.2:
        return "Sure! Here is what you asked for."
    return f"Notes about {topic_words(asked, 6)}."


def run(folder: Path, seed: int, has_proposer: bool = True) -> Searched:
    return run_search(folder, planted(seed), seed, target, small_proposer if has_proposer else None)


def right_of_swapped(instruction: str, task: Task) -> float:
    """The share of unseen rows of the two labels that the target gets right with this instruction."""
    rows = [row for row in task.test if row.labels["team"] in SWAPPED]
    asked = [Request((Message("user", f"{instruction}\n{row.inputs['note']}"),), 8) for row in rows]
    right = [target(request) == row.labels["team"] for request, row in zip(asked, rows, strict=True)]
    return sum(right) / len(right)


def is_mended(found: Searched) -> bool:
    """Whether the best prompt is right on at least 9 of 10 unseen rows of the two labels."""
    winner = winner_of(found.context).parts()
    return right_of_swapped(str(winner["instruction"]), found.context.task) >= 0.9
