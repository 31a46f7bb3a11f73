"""What documents add on the task bank_answers with a small model: score, recall, refusals, citations, seconds a row.

    taskset -c 0 python -m tests.bench.bank_answers [--model qwen2.5-coder-0.5b] [--rows 30] [--unanswerable 10]

The user's prompt without documents, then with passages, on rows of dev and, where these are too few, of train: no
prompt here has an example in it. The test rows stay sealed. One engine answers a row at a time; seconds are those that
the process computes, whatever else the machine does. Nothing is asserted. Each variant is printed when it is done, and
kept in runs/bank_answers.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from statistics import median
from typing import Any

from agent.models.local import LocalModel
from agent.programs.prompt import PromptProgram
from agent.prompt.prompt_candidate import baseline
from agent.scoring.task_metrics import build_metrics, combine
from agent.shipped import fold
from agent.stats.intervals import mean_ci
from agent.task.load import load_task
from agent.types import LM, Completion, Example, Field, Request, Signature, Task
from tests.bench.arena.weights import gguf

ROOT = Path(__file__).resolve().parents[2]
CHUNK = 800
CITE = """

{{context}}

Question: {{question}}

Write two lines and nothing else, the answer and the file that it stands in:
answer: ...
source: ....md"""
"""Last in the prompt: a small model forgets a form that stands before the passages."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One prompt: how many passages, by which retriever, and whether it also names the file."""

    k: int
    retriever: str = "bm25"
    cites: bool = False

    def __str__(self) -> str:
        how = f"{self.k} by {self.retriever}" if self.k else "no passages"
        return f"{how}, citing" if self.cites else how


VARIANTS = (Variant(0), Variant(3), Variant(6), Variant(3, "hybrid"), Variant(6, "hybrid"), Variant(3, cites=True))


@dataclass(frozen=True, slots=True)
class DirectCall:
    """A row's call without a gateway: a bench has no budget and no ledger."""

    lm: LM
    logprobs: int = 0
    stopped: Exception | None = None

    async def __call__(self, request: Request) -> Completion:
        return await self.lm.complete(request)


def chosen(task: Task, answerable: int, unanswerable: int) -> list[Example]:
    """Rows with and without an answer, the kinds of the first in turn; dev first, then train."""
    kinds, blank = defaultdict[str, list[Example]](list), list[Example]()
    for row in (*task.dev, *task.train):
        (kinds[row.slices["kind"]] if row.sources else blank).append(row)
    turns = [row for turn in zip_longest(*kinds.values()) for row in turn if row is not None]
    return [*turns[:answerable], *blank[:unanswerable]]


def with_source(task: Task) -> Task:
    """The task whose prompt also names the file of the answer, which its metrics do not score."""
    outputs = (*task.signature.outputs, Field("source", description="the file of the answer"))
    return replace(task, signature=Signature(task.signature.inputs, outputs), instruction=task.instruction + CITE)


async def measured(task: Task, rows: Sequence[Example], lm: LM, variant: Variant) -> dict[str, Any]:
    """One variant on all rows; shares and the score are means with 95 % intervals."""
    task = with_source(task) if variant.cites else task
    program, metrics = PromptProgram(task, lm), build_metrics(task)
    passages = program.library.settings(variant.retriever, variant.k, CHUNK, 0) if variant.k else None
    candidate, none = baseline(task, passages), fold(task.knowledge.unanswerable if task.knowledge else "")
    figures, seconds, replies = defaultdict[str, list[float]](list), list[float](), dict[str, str]()
    for row in rows:
        began = time.process_time()
        said = await program.run(candidate, row, DirectCall(lm))
        seconds.append(time.process_time() - began)
        replies[row.id] = said.raw
        scores = [await metric.score(row, said) for metric in metrics]
        refuses = fold(str(said.fields.get("answer", ""))).rstrip(" .") == none
        part = "answerable" if row.sources else "unanswerable"
        figures["score"].append(combine(scores, task.metrics) or 0.0)
        figures["exact"].append(scores[0].value or 0.0)
        figures[f"score_{part}"].append(figures["score"][-1])
        figures["unreadable"].append(bool(said.error))
        figures["unanswerable_right" if not row.sources else "answerable_wrong"].append(refuses)
        if row.sources and (files := program.documents(candidate, row)) is not None:
            figures["recall"].append(bool(set(row.sources) & set(files)))
        if row.sources and variant.cites:
            figures["citation_right"].append(str(said.fields.get("source", "")).strip() in row.sources)
    return {
        "variant": str(variant),
        "prompt_tokens": program.prompt_tokens(candidate),
        "seconds": {"median": median(seconds), "sum": sum(seconds)},
        **{name: {"n": len(values), "ci": mean_ci(list(map(float, values)))} for name, values in figures.items()},
        "replies": replies,
    }


def line(figures: dict[str, Any]) -> str:
    """A variant in a line of a Markdown table."""

    def cell(name: str) -> str:
        if name not in figures:
            return "-"
        mean, low, high = (100 * each for each in figures[name]["ci"])
        return f"{mean:.1f} ({low:.1f} to {high:.1f})"

    names = ("score", "exact", "score_answerable", "recall", "unanswerable_right", "answerable_wrong", "citation_right")
    about = (
        figures["variant"],
        *map(cell, names),
        f"{figures['seconds']['median']:.1f}",
        str(figures["prompt_tokens"]),
    )
    return f"| {' | '.join(about)} |"


async def measure(path: Path, answerable: int, unanswerable: int, variants: Sequence[Variant], result: Path) -> None:
    task = load_task(ROOT / "tasks" / "bank_answers")
    rows = chosen(task, answerable, unanswerable)
    lm, done = LocalModel(f"local/{path}", path, engines=1), list[dict[str, Any]]()
    print(f"{len(rows)} rows: {', '.join(row.id for row in rows)}", flush=True)
    try:
        for variant in variants:
            done.append(await measured(task, rows, lm, variant))
            print(line(done[-1]), flush=True)
            result.parent.mkdir(exist_ok=True)
            result.write_text(json.dumps(done, indent=2), "utf-8")
    finally:
        await lm.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="qwen2.5-coder-0.5b")
    parser.add_argument("--rows", type=int, default=30, help="with an answer")
    parser.add_argument("--unanswerable", type=int, default=10)
    parser.add_argument("--variants", default=",".join(map(str, range(len(VARIANTS)))), help="which, by number")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "runs" / "bank_answers.json")
    given = parser.parse_args()
    path = gguf(given.model, partial(print, file=sys.stderr))
    variants = [VARIANTS[int(word)] for word in given.variants.split(",")]
    asyncio.run(measure(path, given.rows, given.unanswerable, variants, given.output))


if __name__ == "__main__":
    main()
