"""The kind `classic`: answers without a language model, learnt from the train rows. The yardstick of every prompt.

For one output that is a choice or a number. Of a choice: the largest class, a classifier, a vote of the nearest rows;
of a number: the mean, a ridge regression, the mean of the nearest rows. It makes no call and costs nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from agent.prompt.render import label_text
from agent.types import NO_MODEL, Call, Candidate, Example, Message, Prediction, Shown, Task

NEIGHBOURS = 9
STRENGTH = 10.0  # inverse of the L2 penalty of the classifier
PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)  # of the ridge; leave-one-out on train chooses
TOKEN = r"\w+|[^\w\s]+"  # a word, or a run of signs: each text that is not blank has one
MOST_FEATURES = 200_000  # of each kind of n-gram

ABOUT = {
    "largest class": "always the most frequent label of train",
    "classifier": "TF-IDF of words (1-2) and characters (2-5), logistic regression",
    "mean": "always the mean of train",
    "ridge": "TF-IDF of words (1-2) and characters (2-5), ridge regression",
    "nearest": f"the {NEIGHBOURS} nearest train rows by TF-IDF, weighted by similarity",
}
METHODS = {"choice": ("largest class", "classifier", "nearest"), "number": ("mean", "ridge", "nearest")}
"""By the type of the output; the first is the constant answer."""

Fitted = Callable[[str], Any]
"""From the text of a row to its answer."""


@dataclass(frozen=True, slots=True)
class ClassicCandidate(Candidate):
    """A way to answer, by its name in METHODS."""

    kind: ClassVar[str] = "classic"

    method: str

    def parts(self) -> dict[str, Any]:
        return {"method": self.method}


class ClassicProgram:
    """The methods that suit a task; `fit` trains them on its train rows."""

    kind = ClassicCandidate.kind

    def __init__(self, task: Task) -> None:
        self._task = task
        self._field = task.signature.outputs[0]
        self._fitted: Mapping[str, Fitted] = {}

    @staticmethod
    def suits(task: Task) -> bool:
        """Whether the answer is one choice or number, scored without a judge, and train has words and two answers."""
        outputs = task.signature.outputs
        if len(outputs) != 1 or outputs[0].type not in METHODS or task.is_judged:
            return False
        answers = {label_text(row.labels[outputs[0].name]) for row in task.train}
        return len(answers) > 1 and any(text_of(row).strip() for row in task.train)

    @property
    def rows(self) -> int:
        """How many it is trained on."""
        return len(self._task.train)

    def candidates(self) -> list[ClassicCandidate]:
        """One for each method, the constant answer first."""
        return [ClassicCandidate(method) for method in METHODS[self._field.type]]

    async def fit(self) -> None:
        """Trains every method, in a thread of its own."""
        self._fitted = await asyncio.to_thread(self._trained)

    async def run(self, candidate: Candidate, example: Example, call: Call, repeat: int = 0) -> Prediction:
        """The answer of a method that was fitted."""
        assert isinstance(candidate, ClassicCandidate)
        answer = self._fitted[candidate.method](text_of(example))
        return Prediction({self._field.name: answer}, label_text(answer))

    def shown(self, candidate: Candidate) -> Shown:
        assert isinstance(candidate, ClassicCandidate)
        return Shown(candidate.id, self.kind, NO_MODEL, f"{candidate.method}: {ABOUT[candidate.method]}")

    def template(self, candidate: Candidate) -> tuple[Message, ...]:
        return ()

    def _trained(self) -> dict[str, Fitted]:
        from threadpoolctl import threadpool_limits

        texts = [text_of(row) for row in self._task.train]
        answers = [row.labels[self._field.name] for row in self._task.train]
        with threadpool_limits(1):  # threads that spin cost a busy machine more than they bring on so few rows
            if self._field.type == "choice":
                return _of_choices(texts, [str(answer) for answer in answers])
            return _of_numbers(texts, answers)


def text_of(row: Example) -> str:
    """A row's inputs as one text."""
    return "\n".join(row.inputs.values())


def _features() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import FeatureUnion

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=MOST_FEATURES, token_pattern=TOKEN)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, max_features=MOST_FEATURES)
    return FeatureUnion([("words", words), ("characters", characters)])


def _of_choices(texts: Sequence[str], labels: Sequence[str]) -> dict[str, Fitted]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    counted = Counter(labels)
    largest = min(counted, key=lambda label: (-counted[label], label))
    features = _features()
    rows = features.fit_transform(texts)
    classifier = LogisticRegression(C=STRENGTH, solver="newton-cg", max_iter=200).fit(rows, labels)
    nearest = KNeighborsClassifier(min(NEIGHBOURS, len(texts)), weights=_similarity, metric="cosine").fit(rows, labels)
    return {
        "largest class": lambda text: largest,
        "classifier": lambda text: str(classifier.predict(features.transform([text]))[0]),
        "nearest": lambda text: str(nearest.predict(features.transform([text]))[0]),
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
        "mean": lambda text: mean,
        "ridge": lambda text: answer(ridge.predict(features.transform([text]))[0]),
        "nearest": lambda text: answer(nearest.predict(features.transform([text]))[0]),
    }


def _similarity(distances: Any) -> Any:
    """Cosine similarity from cosine distance, never 0, so that a row like no other still gets a vote."""
    return 1.0 - distances + 1e-9
