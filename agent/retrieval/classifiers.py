"""Answers learnt from rows without a language model: a classifier, the nearest rows.

Needs scikit-learn and nothing else: an export holds this very file, with `model.json` and `rows.jsonl` next to it.

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

NEIGHBOURS = 9  # that vote on a choice or a number; other answers are copied from the nearest row
STRENGTH = 10.0  # inverse of the L2 penalty of the classifier
PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)  # of the ridge; leave-one-out on train chooses
TOKEN = r"\w+|[^\w\s]+"  # a word, or a run of signs: each text that is not blank has one
MOST_FEATURES = 200_000  # of each kind of n-gram
MOST_CLASSES = (
    20  # different values of a field of a record, for it to be learnt; and its rows are this many times more:
)
ROWS_A_CLASS = 3
MOST_ROWS = 2000  # that sets and records are learnt from
MOST_TAGS = 50  # of a set that are learnt, the most frequent ones

Fitted = Callable[[Sequence[str]], Sequence[Any]]
"""From the texts of rows to their answers."""
Learnt = Callable[[Any], list[Any]]
"""From the features of rows to their answers."""


def fit(kind: str, texts: Sequence[str], answers: Sequence[Any], separator: str = "") -> dict[str, Fitted]:
    """Fit every method for answers of this `kind`, by its name.

    `kind`: "choice", "number", "set" (texts of labels, split at the `separator`), "list", "record" (JSON objects) or
    "other".
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # threads that spin cost a busy machine more than they bring on so few rows
        features = _features()
        rows = features.fit_transform(texts)
        methods = _methods(kind, rows, answers, separator)
    return {name: _on_texts(features, learnt) for name, learnt in methods.items()}


def _on_texts(features: Any, learnt: Learnt) -> Fitted:
    return lambda texts: learnt(features.transform(texts))


def text_of(inputs: Sequence[str]) -> str:
    """Join a row's inputs to one text."""
    return "\n".join(inputs)


def load(folder: str | Path) -> Callable[..., Any]:
    """Return the answering function of an export: inputs by name in, the answer out."""
    return trained(*((Path(folder) / name).read_text("utf-8") for name in ("model.json", "rows.jsonl")))


def trained(told: str, learnt_from: str) -> Callable[..., Any]:
    """Return the answering function from the texts of `model.json` and `rows.jsonl`."""
    model, rows = json.loads(told), [json.loads(line) for line in learnt_from.splitlines()]
    texts = [text_of([row["inputs"][name] for name in model["inputs"]]) for row in rows]
    answers = [row["answer"] for row in rows]
    fitted = fit(model["type"], texts, answers, model.get("separator", ""))[model["method"]]

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
    """Make the classifier of feature rows."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=STRENGTH, solver="newton-cg", max_iter=200)


def _methods(kind: str, rows: Any, answers: Sequence[Any], separator: str) -> dict[str, Learnt]:
    from sklearn.linear_model import RidgeCV
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, NearestNeighbors

    vote = {"n_neighbors": min(NEIGHBOURS, len(answers)), "weights": _similarity, "metric": "cosine"}
    if kind == "choice":
        labels = list(map(str, answers))
        models = {"classifier": regression(), "nearest": KNeighborsClassifier(**vote)}
        return {name: _predicting(model.fit(rows, labels), str) for name, model in models.items()}
    if kind == "number":
        as_number = _rounded if all(float(number).is_integer() for number in answers) else float
        models = {"ridge": RidgeCV(PENALTIES), "nearest": KNeighborsRegressor(**vote)}
        return {name: _predicting(model.fit(rows, answers), as_number) for name, model in models.items()}
    learnt = None
    if kind == "set":
        learnt = _of_sets(rows, answers, separator)
    elif kind in ("list", "record"):
        learnt = _of_lists(rows, answers) if kind == "list" else _of_records(rows, answers)
    nearest = NearestNeighbors(n_neighbors=1, metric="cosine", algorithm="brute").fit(rows)

    def copied(rows: Any) -> list[Any]:
        return [answers[at] for (at,) in nearest.kneighbors(rows)[1]]

    return {"nearest": copied} if learnt is None else {"classifier": learnt, "nearest": copied}


def _predicting(model: Any, convert: Callable[[Any], Any]) -> Learnt:
    return lambda rows: list(map(convert, model.predict(rows)))


def _rounded(value: Any) -> int:
    return round(float(value))


def _of_sets(rows: Any, answers: Sequence[str], separator: str) -> Learnt | None:
    spelled: dict[str, str] = {}
    sets = [[label for label in map(str.strip, answer.split(separator)) if label] for answer in answers]
    for label in (label for each in sets for label in each):
        spelled.setdefault(" ".join(label.casefold().split()), label)
    folded = [[" ".join(label.casefold().split()) for label in each] for each in sets]
    learnt = _of_tags(rows, folded)
    if learnt is None:
        return None
    return lambda rows: [f"{separator} ".join(spelled[label] for label in each) for each in learnt(rows)]


def _of_tags(rows: Any, sets: Sequence[Sequence[str]]) -> Learnt | None:
    # in the order of the rows: that of a set differs between processes
    counted = Counter(label for each in sets for label in dict.fromkeys(each))
    labels = [label for label, count in counted.most_common(MOST_TAGS) if count < len(sets)]
    always = [label for label, count in counted.items() if count == len(sets)]
    if not labels:
        return None
    ridge = _ridge(rows, [[1.0 if label in each else -1.0 for label in labels] for each in sets])
    is_never_empty = all(sets)

    def answer(rows: Any) -> list[list[str]]:
        found = []
        for scores in ridge(rows):
            likely = [label for label, score in zip(labels, scores, strict=True) if score > 0]
            best = max(range(len(labels)), key=scores.__getitem__)
            found.append([*always, *(likely or [labels[best]] * (is_never_empty and not always))])
        return found

    return answer


def _ridge(rows: Any, targets: Sequence[Sequence[float]]) -> Callable[[Any], Any]:
    # in its dual form, as there are fewer rows than features
    import numpy as np
    from sklearn.kernel_ridge import KernelRidge

    wanted = np.asarray(targets[:MOST_ROWS])
    mean = wanted.mean(axis=0)
    ridge = KernelRidge(alpha=1 / STRENGTH).fit(rows[:MOST_ROWS], wanted - mean)
    return lambda rows: ridge.predict(rows) + mean


def _of_records(rows: Any, records: Sequence[dict[str, Any]]) -> Learnt | None:
    # a classifier for each field of few values, the most frequent value of the others
    names = list(dict.fromkeys(name for record in records for name in record))
    columns = {name: [json.dumps(record.get(name, _ABSENT), sort_keys=True) for record in records] for name in names}
    fields = {name: _of_field(rows, values) for name, values in columns.items()}
    if not any(fields.values()):
        return None
    usual = {name: Counter(values).most_common(1)[0][0] for name, values in columns.items()}

    def answer(rows: Any) -> list[dict[str, Any]]:
        said = {name: field(rows) if field else [usual[name]] * rows.shape[0] for name, field in fields.items()}
        values = {name: [json.loads(value) for value in column] for name, column in said.items()}
        return [
            {name: column[at] for name, column in values.items() if column[at] != _ABSENT}
            for at in range(rows.shape[0])
        ]

    return answer


_ABSENT = ["this record has no such field"]


def _of_field(rows: Any, values: Sequence[str]) -> Learnt | None:
    classes = sorted(set(values))
    if 1 < len(classes) <= MOST_CLASSES and len(classes) * ROWS_A_CLASS <= len(values):
        ridge = _ridge(rows, [[1.0 if value == one else -1.0 for one in classes] for value in values])
        return lambda rows: [classes[at] for at in ridge(rows).argmax(axis=1)]
    lists = [json.loads(value) for value in values]
    if not all(isinstance(each, list) and each != _ABSENT for each in lists):
        return None
    learnt = _of_lists(rows, lists)
    return (lambda rows: list(map(json.dumps, learnt(rows)))) if learnt else None


def _of_lists(rows: Any, lists: Sequence[list[Any]]) -> Learnt | None:
    learnt = _of_tags(rows, [[json.dumps(item, sort_keys=True) for item in each] for each in lists])
    return (lambda rows: [list(map(json.loads, items)) for items in learnt(rows)]) if learnt else None


def _similarity(distances: Any) -> Any:
    return 1.0 - distances + 1e-9
