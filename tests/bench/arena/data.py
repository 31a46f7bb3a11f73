"""The tasks of the arena, as `agent.types.Task`: the same rows and the same first prompt for every system.

Rows are read from a folder that is not part of the repository (`--data`, else ARENA_DATA, else ../shared/data next to
it) and are never copied. banking77 is cut to its first 8 or 20 labels by alphabet, its splits pooled and split again.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.jobs.tasks import with_demo_limit
from agent.types import Constraints, Example, Field, MetricSpec, SearchSpace, Signature, Task
from tests.bench.arena.ifeval.metric import UNCHECKED
from tests.bench.arena.score import Answers, Scorer

ROOT = Path(__file__).resolve().parents[3]
SETS = ("trec", "snips", "banking8", "banking20", "support_triage")
MORE_SETS = ("queue_codes", "emotion", "word_problems", "ifeval")
"""Sets that run when asked for. The answers of the last two are numbers, and texts that keep rules."""
MOST = (200, 100, 150)
"""Rows of train, dev and test, at most."""
SPACE = SearchSpace(("zero-shot", "few-shot"), ("turns", "labelled-turns", "inline"), (8, 16, 32, 48), retrieval=True)
WORDED = SearchSpace(("zero-shot", "chain-of-thought"), ("turns", "labelled-turns"), ())
"""Where there are no right answers to show."""
TEXT_TOKENS = 400
"""Room for an answer that is a text."""
SPLITS = ("train", "dev", "test")
ABOUT = {
    "trec": "Say what kind of answer a question asks for.",
    "snips": "Say what a voice request wants.",
    "banking": "Say what a message to an online bank is about.",
    "emotion": "Say which feeling a short text shows.",
}
Row = dict[str, Any]


def data_folder(given: str | None = None) -> Path:
    """Where the rows lie; it need not be there."""
    return Path(given or os.environ.get("ARENA_DATA") or ROOT.parent / "shared" / "data")


def known(name: str) -> bool:
    """Whether there is a set of this name, with or without a number of demos."""
    base, colon, demos = name.partition(":")
    return base in (*SETS, *MORE_SETS) and (demos.isdecimal() if colon else True)


def load(name: str, folder: Path) -> Task:
    """The task `name`. Raises FileNotFoundError when its rows are not under `folder`, KeyError for no such name."""
    base, colon, demos = name.partition(":")
    task = _load(base, folder)
    if not colon:
        return task
    most = int(demos)  # picked examples count as well
    return with_demo_limit(replace(task, name=name, space=with_at_most(most, task.space)), most)


def with_at_most(demos: int, space: SearchSpace) -> SearchSpace:
    """Return the space with at most this many examples in a prompt; 0: instructions only."""
    if not demos:
        return replace(space, techniques=("zero-shot",), demo_counts=(), retrieval=False)
    return replace(space, demo_counts=tuple(sorted({min(k, demos) for k in (1, 2, *space.demo_counts)})))


def _load(name: str, folder: Path) -> Task:
    if name == "support_triage":
        return _shipped(name)
    if name == "queue_codes":
        return coded(_shipped("support_triage"))
    if name == "word_problems":
        reasoned = replace(SPACE, techniques=("zero-shot", "few-shot", "chain-of-thought", "few-shot-cot"))
        return replace(_shipped(name), space=replace(reasoned, demo_counts=(4, 8)))
    if name == "ifeval":
        return _ifeval(folder / name)
    if name.startswith("banking"):
        parts = _banking(folder / "banking77", int(name.removeprefix("banking")))
        return task_of(name, ABOUT["banking"], parts, "label")
    return task_of(name, ABOUT[name], [_read(folder / name / f"{s}.jsonl") for s in SPLITS], _LABEL[name])


_LABEL = {"trec": "label", "snips": "intent", "emotion": "label"}


def coded(task: Task) -> Task:
    """The task with the codes Q11, Q12, ... in the place of its labels, dealt by a fixed seed."""
    field = label_field(task)
    numbers = random.Random(0).sample(range(11, 11 + len(field.choices)), len(field.choices))
    code = {label: f"Q{number}" for label, number in zip(field.choices, numbers, strict=True)}
    codes = tuple(sorted(code.values()))

    def rows(split: Sequence[Example]) -> tuple[Example, ...]:
        return tuple(replace(row, labels={field.name: code[str(row.labels[field.name])]}) for row in split)

    return replace(
        task,
        name="queue_codes",
        description="Say which queue a message to a shop's support goes to.",
        signature=replace(task.signature, outputs=(replace(field, description="", choices=codes),)),
        instruction=f"Put the message into one of these queues: {', '.join(codes)}. Answer with the queue only.",
        train=rows(task.train),
        dev=rows(task.dev),
        test=rows(task.test),
    )


def _ifeval(folder: Path) -> Task:
    """Texts that keep rules; rows with a rule that is not checked are left out, and there are no demos."""

    def rows(split: str, most: int | None) -> tuple[Example, ...]:
        kept = [row for row in _read(folder / f"{split}.jsonl") if UNCHECKED not in row["instruction_ids"]]
        rules = [list(zip(row["instruction_ids"], json.loads(row["kwargs_json"]), strict=True)) for row in kept[:most]]
        return tuple(
            Example(row["id"], {"prompt": row["prompt"]}, {"response": json.dumps(each)})
            for row, each in zip(kept, rules, strict=False)
        )

    train, dev, test = (rows(split, most) for split, most in zip(SPLITS, MOST, strict=True))
    return Task(
        name="ifeval",
        description="Write what a request asks for, and keep to every rule in it.",
        signature=Signature((Field("prompt"),), (Field("response"),)),
        instruction="Write what the request asks for.",
        metrics=(MetricSpec("python", "response"),),
        space=WORDED,
        constraints=Constraints(max_examples=0),
        train=train,
        dev=dev,
        test=test,
        folder=str(Path(__file__).parent / "ifeval"),
        max_tokens=TEXT_TOKENS,
    )


def answers(name: str) -> Answers:
    """What the answers of a set are."""
    base = name.partition(":")[0]
    return "number" if base == "word_problems" else "rules" if base == "ifeval" else "label"


def scorer(task: Task) -> Scorer:
    """Which replies are right on a task of the arena."""
    field = label_field(task)
    kind: Answers = "label" if field.choices else "number" if field.type == "number" else "rules"
    return Scorer(kind, tuple(field.choices))


def label_field(task: Task) -> Field:
    """The one output that is scored."""
    (field,) = task.signature.outputs
    return field


def text_field(task: Task) -> str:
    (field,) = task.signature.inputs
    return field.name


def right(task: Task, rows: Sequence[Example]) -> list[str]:
    """The right label of each row."""
    return [str(row.labels[label_field(task).name]) for row in rows]


def _read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def _banking(folder: Path, count: int) -> list[list[Row]]:
    """38 % train, 24 % dev, 38 % test of the rows with the first `count` labels."""
    rows = [row for split in SPLITS for row in _read(folder / f"{split}.jsonl")]
    kept = set(sorted({row["label"] for row in rows})[:count])
    rows = [row for row in rows if row["label"] in kept]
    random.Random(0).shuffle(rows)
    first, second = int(len(rows) * 0.38), int(len(rows) * 0.62)
    return [rows[:first], rows[first:second], rows[second:]]


def task_of(name: str, about: str, parts: Sequence[Sequence[Row]], key: str, most: Sequence[int | None] = MOST) -> Task:
    """A task of rows with `id`, `text` and a label `key`: train, dev and test, cut to `most` rows of each."""
    cut = [list(part)[:count] for part, count in zip(parts, most, strict=True)]
    labels = tuple(sorted({row[key] for part in cut for row in part}))
    train, dev, test = (
        tuple(Example(row["id"], {"text": row["text"]}, {"label": row[key]}) for row in part) for part in cut
    )
    return Task(
        name=name,
        description=about,
        signature=Signature((Field("text"),), (Field("label", "choice", "", labels),)),
        instruction=f"{about} Answer with one of these labels only: {', '.join(labels)}.",
        metrics=(MetricSpec("choice", "label"),),
        space=SPACE,
        constraints=Constraints(),
        train=train,
        dev=dev,
        test=test,
        folder=".",
    )


def _shipped(name: str) -> Task:
    from agent.task.load import load_task

    task = load_task(ROOT / "tasks" / name)
    train, dev, test = (rows[:most] for rows, most in zip((task.train, task.dev, task.test), MOST, strict=True))
    return replace(task, train=train, dev=dev, test=test, space=SPACE, defaults={})
