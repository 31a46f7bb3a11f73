"""Answers learnt from rows without a language model: a classifier, the nearest rows, the constant answer.

Needs scikit-learn and nothing else: an export holds this very file, with `model.json` and `rows.jsonl` beside it.

    answer = load(FOLDER)
    answer(message="My card was stolen")

It learns from the rows when it is loaded, in a second or two; the same rows give the same answers.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

NEIGHBOURS = 9
STRENGTH = 10.0  # inverse of the L2 penalty of the classifier
PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)  # of the ridge; leave-one-out on train chooses
TOKEN = r"\w+|[^\w\s]+"  # a word, or a run of signs: each text that is not blank has one
MOST_FEATURES = 200_000  # of each kind of n-gram

Fitted = Callable[[Sequence[str]], Sequence[Any]]
"""From the texts of rows to their answers."""


def fit(kind: str, texts: Sequence[str], answers: Sequence[Any]) -> dict[str, Fitted]:
    """Every method for answers of this `kind` ("choice" or "number"), by its name."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # threads that spin cost a busy machine more than they bring on so few rows
        if kind == "choice":
            return _of_choices(texts, [str(answer) for answer in answers])
        return _of_numbers(texts, answers)


def text_of(inputs: Sequence[str]) -> str:
    """A row's inputs as one text."""
    return "\n".join(inputs)


def load(folder: str | Path) -> Callable[..., Any]:
    """The answering function of an export: inputs by name in, the answer out."""
    return trained(*((Path(folder) / name).read_text("utf-8") for name in ("model.json", "rows.jsonl")))


def trained(told: str, learnt_from: str) -> Callable[..., Any]:
    """The answering function of the texts of `model.json` and `rows.jsonl`."""
    model, rows = json.loads(told), [json.loads(line) for line in learnt_from.splitlines()]
    texts = [text_of([row["inputs"][name] for name in model["inputs"]]) for row in rows]
    fitted = fit(model["type"], texts, [row["answer"] for row in rows])[model["method"]]

    def answer(**inputs: str) -> Any:
        return fitted([text_of([inputs[name] for name in model["inputs"]])])[0]

    return answer


def _features() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import FeatureUnion

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=MOST_FEATURES, token_pattern=TOKEN)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, max_features=MOST_FEATURES)
    return FeatureUnion([("words", words), ("characters", characters)])


def regression() -> Any:
    """The classifier that is fitted to rows of features."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=STRENGTH, solver="newton-cg", max_iter=200)


def _of_choices(texts: Sequence[str], labels: Sequence[str]) -> dict[str, Fitted]:
    from sklearn.neighbors import KNeighborsClassifier

    counted = Counter(labels)
    largest = min(counted, key=lambda label: (-counted[label], label))
    features = _features()
    rows = features.fit_transform(texts)
    classifier = regression().fit(rows, labels)
    nearest = KNeighborsClassifier(min(NEIGHBOURS, len(texts)), weights=_similarity, metric="cosine").fit(rows, labels)
    return {
        "largest class": lambda texts: [largest] * len(texts),
        "classifier": lambda texts: list(map(str, classifier.predict(features.transform(texts)))),
        "nearest": lambda texts: list(map(str, nearest.predict(features.transform(texts)))),
    }


def _of_numbers(texts: Sequence[str], numbers: Sequence[float]) -> dict[str, Fitted]:
    from sklearn.linear_model import RidgeCV
    from sklearn.neighbors import KNeighborsRegressor

    whole = all(float(number).is_integer() for number in numbers)

    def answer(value: float) -> float | int:
        """As the train rows have it: whole where all of them are."""
        return round(float(value)) if whole else float(value)

    mean = answer(sum(numbers) / len(numbers))
    features = _features()
    rows = features.fit_transform(texts)
    ridge = RidgeCV(PENALTIES).fit(rows, numbers)
    nearest = KNeighborsRegressor(min(NEIGHBOURS, len(texts)), weights=_similarity, metric="cosine").fit(rows, numbers)
    return {
        "mean": lambda texts: [mean] * len(texts),
        "ridge": lambda texts: list(map(answer, ridge.predict(features.transform(texts)))),
        "nearest": lambda texts: list(map(answer, nearest.predict(features.transform(texts)))),
    }


def _similarity(distances: Any) -> Any:
    """Cosine similarity from cosine distance, never 0, so that a row like no other still gets a vote."""
    return 1.0 - distances + 1e-9
