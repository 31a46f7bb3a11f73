"""Does a small model tell supported answers from others? The judge of faithfulness on the task bank_answers.

    taskset -c 0 python -m tests.bench.faithfulness [--model qwen2.5-coder-1.5b] [--rows 12]

Rows of dev and train whose right page is among the passages by `hybrid`. Each is judged twice: with its right answer,
which the passages support, and with the right answer of the next row of the same kind, which they do not, unless both
answers are equal (such pairs are left out). Shown are both mean verdicts, and how often the right one is above. Nothing
is asserted. Each row is printed when it is done.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import mean

from agent.models.local import LocalModel
from agent.prompt.parts.part import Row
from agent.prompt.parts.passages import PassageLibrary
from agent.retrieval.passages import bare_passages
from agent.scoring.llm_judge import CLAIMS_TOKENS, claims_messages
from agent.scoring.verdict import by_passages, claims_schema
from agent.task.load import load_task
from agent.types import LM, Example, Request, Task
from tests.bench.arena.weights import gguf
from tests.bench.bank_answers import ROOT, chosen

PASSAGES = ("hybrid", 3, 800, 0)
"""Retriever, k, letters of a passage and of its overlap."""


def pairs(task: Task, most: int) -> Iterator[tuple[Example, str, str, str]]:
    """A row, its passages, its right answer, and that of another row of its kind."""
    library, rows = PassageLibrary(task), chosen(task, 10 * most, 0)
    passages = library.bound(library.settings(*PASSAGES))
    asked = {row.id: Row(row.inputs, task.signature.compared) for row in rows}
    shown = [row for row in rows if set(row.sources) & set(passages.documents(asked[row.id]))]
    for row in shown:
        others = [one for one in shown if one.slices == row.slices and one.labels != row.labels]
        if others and most:
            most -= 1
            other = next((one for one in others if one.id > row.id), others[0])
            right, wrong = str(row.labels["answer"]), str(other.labels["answer"])
            yield row, bare_passages(passages.block(asked[row.id])), right, wrong


async def verdict(task: Task, row: Example, passages: str, answer: str, lm: LM) -> float | None:
    messages = claims_messages(task.description, None, row.inputs, passages, answer)
    reply = await lm.complete(Request(messages, CLAIMS_TOKENS, json_schema=claims_schema(), timeout=600.0))
    return by_passages(reply.text, reply.logprobs).value


async def measure(path: Path, rows: int) -> None:
    task, lm = load_task(ROOT / "tasks" / "bank_answers"), LocalModel(f"local/{path}", path, engines=1)
    found: list[tuple[float, float]] = []
    try:
        for row, passages, right, wrong in pairs(task, rows):
            both = [await verdict(task, row, passages, answer, lm) for answer in (right, wrong)]
            print(f"{row.id}  {right!r}: {both[0]}  {wrong!r}: {both[1]}", flush=True)
            if both[0] is not None and both[1] is not None:
                found.append((both[0], both[1]))
    finally:
        await lm.close()
    if found:
        above, below = (sum(sign * (a - b) > 0 for a, b in found) for sign in (1, -1))
        middle = [mean(side) for side in zip(*found, strict=True)]
        means = f"supported {middle[0]:.2f}, not supported {middle[1]:.2f}"
        print(f"{len(found)} of {rows} rows read: {means}; the supported answer is above in {above}, below in {below}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="qwen2.5-coder-1.5b")
    parser.add_argument("--rows", type=int, default=12)
    given = parser.parse_args()
    asyncio.run(measure(gguf(given.model, partial(print, file=sys.stderr)), given.rows))


if __name__ == "__main__":
    main()
