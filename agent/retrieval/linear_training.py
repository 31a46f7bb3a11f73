"""Trains the linear classifier of labels (`linear.py`), which reads without numpy."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from agent.retrieval.classifiers import regression
from agent.retrieval.linear import MOST_FEATURES, MOST_NUMBERS, LabelClassifier, term_counts
from agent.shipped import content_id

RARITY_UNIT = 20.0  # of one nat of inverse document frequency
UNSEEN = 0.5  # of a row, for a label that no train row has
DIGITS = 4


def trained(texts: Sequence[str], answers: Sequence[int], labels: int) -> LabelClassifier | None:
    """Train a classifier (multinomial logistic regression over hashed terms). None: rows have one label or no text.

    `answers`: for each row the index of its label. `labels`: their number.
    """
    counts = [term_counts(text) for text in texts]
    frequency = Counter(term for row in counts for kind in row for term in kind)
    if len(set(answers)) < 2 or not frequency:
        return None
    most = max(1, min(MOST_FEATURES, MOST_NUMBERS // labels))
    features = tuple(sorted(heapq.nsmallest(most, frequency, key=lambda term: (-frequency[term], term))))
    nats = [math.log((1 + len(texts)) / (1 + frequency[term])) + 1 for term in features]
    rarity = bytes(min(255, round(RARITY_UNIT * nat)) for nat in nats)
    blank = LabelClassifier("", features, rarity, (), (), 1.0)
    weights, starts = _fitted([blank.values(text) for text in texts], answers, len(features), labels)
    scale = float(f"{max(abs(weights).max(), 1e-9) / 127:.6g}")
    whole = tuple(bytes(round(float(value)) & 0xFF for value in row / scale) for row in weights)
    intercepts = tuple(round(float(start), DIGITS) for start in starts)
    rows = content_id("rows", [[text, answer] for text, answer in zip(texts, answers, strict=True)])
    return LabelClassifier(rows, features, rarity, whole, intercepts, scale)


def _fitted(
    values: Sequence[Sequence[tuple[int, float]]], answers: Sequence[int], features: int, labels: int
) -> tuple[Any, Any]:
    # a label without rows is as unlikely as UNSEEN of a row makes it
    starts = np.cumsum([0, *map(len, values)])
    columns = [at for row in values for at, _ in row]
    table = csr_matrix(([value for row in values for _, value in row], columns, starts), (len(values), features))
    with threadpool_limits(1):
        model = regression().fit(table, answers)
    weights = np.zeros((labels, features))
    intercepts = np.full(labels, math.log(UNSEEN / len(values)))
    two = len(model.classes_) == 2
    weights[model.classes_] = np.vstack([-model.coef_ / 2, model.coef_ / 2]) if two else model.coef_
    intercepts[model.classes_] = [-model.intercept_[0] / 2, model.intercept_[0] / 2] if two else model.intercept_
    return weights, intercepts
