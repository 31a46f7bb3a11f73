"""How well the 8 nearest train rows name the label of a dev row, by retriever, and how long a pick takes; no model.

Asserts nothing. `dense` and `bm25+dense` need the extra `embedding`.

python -m tests.bench.nearest_vote [TASK ...]
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import median

from agent.prompt.parts.picks import PickedRows
from agent.prompt.prompt_candidate import PromptCandidate
from agent.retrieval.pick import RETRIEVERS, Picks
from agent.retrieval.vectors import DENSE_RETRIEVERS, WORDLLAMA
from agent.stats.intervals import mean_ci
from agent.task.load import load_task
from agent.types import Example, Task

SAMPLE = Path("agent/samples/support_triage")
K = 8


def voted(pool: PickedRows, prompt: PromptCandidate, row: Example) -> str:
    """The label that most of the nearest rows have; of equal ones that of the nearest."""
    labels = [pool.rows[at].label for at in pool.positions(prompt, row)]
    return Counter(labels).most_common(1)[0][0]


def measure(task: Task) -> None:
    """Dev rows by the train rows, and train rows by the other train rows."""
    field = task.signature.outputs[0].name
    print(f"{task.name}: {len(task.train)} train and {len(task.dev)} dev rows")
    print(f"{'retriever':<12}{'dev':>6}{'(95 %)':>16}{'train':>7}{'first ms':>10}{'median ms':>11}")
    for retriever in (*RETRIEVERS, *DENSE_RETRIEVERS):
        pool, taken, right = PickedRows(task), list[float](), dict[str, list[bool]]()
        start = time.perf_counter()
        picks = Picks(retriever, K, "nearest-first", pool=pool.id_of(retriever))
        prompt = PromptCandidate("few-shot", "turns", task.instruction).having(picks=picks)
        voted(pool, prompt, task.dev[0])
        first = 1000 * (time.perf_counter() - start)
        for split, rows in (("dev", task.dev), ("train", task.train)):
            for row in rows:
                start = time.perf_counter()
                label = voted(pool, prompt, row)
                taken.append(1000 * (time.perf_counter() - start))
                right.setdefault(split, []).append(label == row.labels[field])
        dev, train = (100 * sum(each) / len(each) for each in right.values())
        _, low, high = mean_ci([float(each) for each in right["dev"]])
        among = f"{100 * low:.1f} to {100 * high:.1f}"
        print(f"{retriever:<12}{dev:>6.1f}{among:>16}{train:>7.1f}{first:>10.1f}{median(taken):>11.3f}")


def main(folders: list[str]) -> None:
    for folder in folders or [str(SAMPLE)]:
        task = load_task(Path(folder))
        measure(replace(task, space=replace(task.space, embeddings=WORDLLAMA)))


if __name__ == "__main__":
    main(sys.argv[1:])
