"""How long an index takes to build and a pick to make, by the size of the pool; then the same of passages.

Asserts nothing.

python -m tests.bench.retrieval [ROWS ...]
"""

from __future__ import annotations

import random
import sys
import time
from statistics import median, quantiles

from agent.retrieval.passages import Passage, PassageIndex
from agent.retrieval.pick import RETRIEVERS, Picks, PoolIndex, PoolRow

SIZES = (300, 10_000, 100_000)
VOCABULARY, WORDS, PICKED = 30_000, 20, 200
PASSAGES, PASSAGE_WORDS = (10_000, 100_000), 70


def texts(count: int, rng: random.Random, length: int = WORDS) -> list[str]:
    """Texts whose words are as frequent as in a language (Zipf)."""
    names = [f"{rng.choice('bcdfgklmnprst')}{rng.choice('aeiou')}{number:x}" for number in range(VOCABULARY)]
    weights = [1 / (rank + 5) for rank in range(VOCABULARY)]
    return [" ".join(words) for words in (rng.choices(names, weights, k=length) for _ in range(count))]


def passages(size: int, rng: random.Random) -> None:
    """Blocks of 4 passages for inputs of usual length."""
    made = [Passage(f"d{n}.md", text) for n, text in enumerate(texts(size, rng, PASSAGE_WORDS))]
    asked = texts(PICKED, rng)
    for retriever in RETRIEVERS:
        index, taken = PassageIndex(made), list[float]()
        start = time.perf_counter()
        index.block("", retriever, 4)
        built = time.perf_counter() - start
        for text in asked:
            start = time.perf_counter()
            index.block(text, retriever, 4)
            taken.append(1000 * (time.perf_counter() - start))
        print(f"{size:>8} {retriever:<9} {built:>8.2f} {median(taken):>10.2f} {quantiles(taken, n=20)[-1]:>8.2f}")


def main(sizes: list[int]) -> None:
    print(f"{'rows':>8} {'retriever':<9} {'index s':>8} {'median ms':>10} {'p95 ms':>8}")
    for size in sizes or SIZES:
        rng = random.Random(0)
        whole = texts(size + PICKED, rng)
        rows = [PoolRow(f"r{n}", text, f"label{n % 20}", f"r{n}") for n, text in enumerate(whole[:size])]
        for retriever in RETRIEVERS:
            index, picks, taken = PoolIndex(rows), Picks(retriever, 8), list[float]()
            start = time.perf_counter()
            index.pick("", picks)
            built = time.perf_counter() - start
            for text in whole[size:]:
                start = time.perf_counter()
                index.pick(text, picks)
                taken.append(1000 * (time.perf_counter() - start))
            print(f"{size:>8} {retriever:<9} {built:>8.2f} {median(taken):>10.2f} {quantiles(taken, n=20)[-1]:>8.2f}")
    print(f"{'passages':>8}")
    for size in sizes or PASSAGES:
        passages(size, random.Random(0))


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]])
