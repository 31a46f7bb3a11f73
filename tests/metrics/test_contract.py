"""One contract for all metrics: right answers get 1, unreadable ones 0, and any text a score in [0, 1] or none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.metrics.metric_registry import METRICS
from agent.scoring.task_metrics import PythonMetric, build_metrics
from agent.types import Example, Field, Metric, MetricSpec, Prediction, Score
from tests.metrics.scored import OUT, task_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
ANY_TEXT = st.text(st.characters())
HOSTILE = ANY_TEXT | st.text("0123456789.,-−+ $kg\0°C/;|[]{}", max_size=60) | st.floats() | st.integers() | JSON
TEXT = Field("out")
WORDS = st.lists(st.text(st.characters(categories=["L"]), min_size=1), min_size=1)
CALLS = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from("fg"), "arguments": st.dictionaries(st.sampled_from("ab"), JSON)})
)
NUMBERS = st.floats(-1e6, 1e6).map(lambda number: round(number, 3))
FUNCTION = "def metric(example, prediction): return prediction['fields'] == example['labels']"


@dataclass(frozen=True)
class Sample:
    """Labels that are right answers too, of a field, with the options of a metric."""

    right: st.SearchStrategy[Any]
    field: Field = TEXT
    options: Any = None

    def build(self, name: str, folder: str = ".") -> Metric:
        spec = MetricSpec(name, "out", options=self.options or {})
        (metric,) = build_metrics(task_of(spec, outputs=(self.field,), folder=folder))
        return metric


SAMPLES = {
    **dict.fromkeys(("token_f1", "bleu", "chrf", "edit_similarity", "embedding_similarity"), Sample(ANY_TEXT)),
    **dict.fromkeys(("rouge1", "rouge2", "rougeL", "exact_match", "python"), Sample(ANY_TEXT)),
    **dict.fromkeys(("contains", "goal"), Sample(ANY_TEXT.filter(str.strip))),
    "choice": Sample(ANY_TEXT, Field("out", "choice")),
    "numeric": Sample(NUMBERS, Field("out", "number")),
    "ordinal": Sample(st.floats(-3, 8), Field("out", "number"), {"low": -3, "high": 8}),
    "agreement": Sample(st.floats(-3, 8), Field("out", "number"), {"low": -3, "high": 8, "mean": 2.5}),
    "quantity": Sample(st.builds("{:,} {}".format, NUMBERS, st.sampled_from(["kg", "°C", "m²", "fl oz", "%"]))),
    "set_f1": Sample(WORDS.map(";".join)),
    "regex": Sample(st.from_regex(r"[A-Z]{2}[0-9]+", fullmatch=True), options={"pattern": r"^[A-Z]{2}\d+$"}),
    "json_schema": Sample(st.fixed_dictionaries({"name": st.text()}), OUT),
    "json_fields": Sample(st.dictionaries(st.text(), JSON, min_size=1), OUT),
    **dict.fromkeys(("tool_calls", "tool_choice", "right_tool"), Sample(CALLS, Field("out", "json"))),
    "no_repeat": Sample(WORDS.map(lambda words: " ".join(dict.fromkeys(map(str.casefold, words))))),
    "length": Sample(WORDS.map(lambda words: " ".join(words[:3])), options={"max_words": 3}),
}
ASKS = {"judge", "reported", "calls"}
"""Metrics of a model's or an agent's verdict: `tests/scoring` and `tests/cli/test_agent.py` hold them to the same."""


def score(metric: Metric, answer: Any, label: Any) -> Score:
    """The score of an answer, which is the same a second time."""
    row = Example("r1", {"message": "hi"}, {} if label is None else {"out": label})

    async def twice() -> list[Score]:
        return [await metric.score(row, Prediction({"out": answer}, str(answer))) for _ in range(2)]

    first, second = asyncio.run(twice())
    assert first == second
    assert first.metric == metric.name
    assert isinstance(first.reason, str)
    return first


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.extra("embedding")) if name == "embedding_similarity" else name
        for name in SAMPLES
    ],
)
def named(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Metric]]:
    folder = tmp_path_factory.mktemp("metric")
    (folder / "metric.py").write_text(FUNCTION, "utf-8")
    metric = SAMPLES[request.param].build(request.param, str(folder))
    yield request.param, metric
    if isinstance(metric, PythonMetric):
        metric.close()


def test_every_metric_is_held_to_it() -> None:
    assert {*SAMPLES, *ASKS} == {*METRICS.names()}


@settings(max_examples=15)
@given(st.data())
def test_a_right_answer_gets_1(named: tuple[str, Metric], data: st.DataObject) -> None:
    name, metric = named
    right = data.draw(SAMPLES[name].right)
    assert score(metric, right, right) == Score(name, 1.0)


@settings(max_examples=15)
@given(HOSTILE, st.data())
def test_any_answer_gets_a_score_in_range_or_none_with_a_reason(
    named: tuple[str, Metric], answer: Any, data: st.DataObject
) -> None:
    name, metric = named
    for label in (data.draw(SAMPLES[name].right), data.draw(HOSTILE)):
        found = score(metric, answer, label)
        assert found.value is None or 0 <= found.value <= 1
        assert found.reason or found.value == 1 or name == "python"


def test_an_answer_that_cannot_be_read_gets_0_and_a_row_without_a_label_none(named: tuple[str, Metric]) -> None:
    name, metric = named
    row = Example("r1", {"message": "hi"}, {"out": "x"})
    assert asyncio.run(metric.score(row, Prediction({}, "??", "no JSON"))) == Score(name, 0.0, "no JSON")
    if name != "python":
        assert asyncio.run(metric.score(row, Prediction({}, "??"))) == Score(name, 0.0, "the reply has no out")
    if METRICS.get(name).needs_label:
        assert score(metric, "x", None) == Score(name, None, "row r1 has no label for out")
