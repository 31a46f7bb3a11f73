"""DSPy's KNNFewShot: for each input the nearest rows of train as demos, over the JSONAdapter with the labels as a
Literal, DSPy's best form here.

Its embedder needs no network: scikit-learn's TF-IDF over words and pairs of words and over groups of 2 to 5 letters,
fitted on train, of unit length. Demos are train rows as they are (max_bootstrapped_demos=0): by default KNNFewShot asks
the model again about up to k rows for every input, in production too, which is no peer at equal calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from agent.types import Task
from tests.bench.arena.data import text_field
from tests.bench.arena.systems.base import Found
from tests.bench.arena.systems.dspy_peers import THREADS, ProgramPrompt, connect, examples, program_of

NEAREST = 8


def embedder(texts: Sequence[str]) -> Callable[[list[str]], Any]:
    """Texts to dense TF-IDF vectors of unit length (rows x terms, float32), fitted on `texts`."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.preprocessing import Normalizer

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    model = make_pipeline(make_union(words, letters), Normalizer()).fit(texts)
    return lambda some: model.transform(some).toarray().astype("float32")


def nearest_rows(task: Task, url: str, budget: int, seed: int) -> Found:
    """KNNFewShot with k = NEAREST. It takes no seed, and no call is made before the test."""
    import dspy

    program, adapter = program_of(task, json_adapter=True)
    dspy.configure(lm=connect(url, "task"), adapter=adapter, num_threads=THREADS)
    name = text_field(task)
    vectors = dspy.Embedder(embedder([f"{name}: {row.inputs[name]}" for row in task.train]), caching=False)
    optimizer = dspy.KNNFewShot(
        k=NEAREST,
        trainset=examples(task, task.train),
        vectorizer=vectors,
        max_bootstrapped_demos=0,
        max_labeled_demos=NEAREST,
    )
    return Found(ProgramPrompt(optimizer.compile(program), adapter, task), facts={"k": NEAREST, "embedder": "TF-IDF"})
