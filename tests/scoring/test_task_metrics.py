import asyncio
import json
import os
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import InputError
from agent.metrics import comparison
from agent.scoring.task_metrics import PythonMetric, build_metrics, combine
from agent.types import (
    Budget,
    Constraints,
    Example,
    Field,
    MetricSpec,
    Prediction,
    Score,
    SearchSpace,
    Signature,
    Task,
)
from tests.cases import each_case
from tests.toys import turns_beside
from tests.wire import Fault, WireServer

SCHEMA = (
    '{"type": "object", "required": ["name"], "properties": '
    '{"name": {"type": "string"}, "age": {"type": "integer"}, "tags": {"type": "array"}}}'
)


OUT = (Field("out", "json", schema=SCHEMA),)


def task_of(*specs, outputs=OUT, folder="."):
    return Task(
        name="toy",
        description="",
        signature=Signature((Field("message"),), outputs),
        instruction="",
        metrics=tuple(specs),
        space=SearchSpace(("zero-shot",), ("turns",), (0,)),
        constraints=Constraints(),
        budget=Budget(),
        train=(),
        dev=(),
        test=(),
        folder=str(folder),
    )


def score(name, got, label, **options):
    (metric,) = build_metrics(task_of(MetricSpec(name, "out", options=options)))
    example = Example("r1", {"message": "hi"}, {} if label is None else {"out": label})
    return asyncio.run(metric.score(example, Prediction({"out": got}, str(got))))


@each_case(
    ("name", "got", "label", "options", "value"),
    [
        ("exact_match", " Paris ", "Paris", {}, 1),
        ("exact_match", "paris", "Paris", {}, 0),
        ("exact_match", "paris", "Paris", {"ignore_case": True}, 1),
        ("exact_match", "Cafe\u0301", "Caf\u00e9", {}, 1),
        ("exact_match", "b", ["a", "b"], {}, 1),
        ("exact_match", {"a": 1.0, "b": [True]}, {"b": [True], "a": 1}, {}, 1),
        ("exact_match", True, 1, {}, 0),
        ("choice", "Card Payment", "card payment", {}, 1),
        ("choice", "card", "card payment", {}, 0),
        ("choice", "caf\u00e9 bar", "Cafe\u0301 bar", {}, 1),
        ("numeric", 10, 10.000000005, {}, 1),
        ("numeric", 10, 10.1, {}, 0),
        ("numeric", 0, 6.6e-34, {}, 0),
        ("numeric", 2e-7, 9e-7, {}, 0),
        ("numeric", 10, "10.1", {"tolerance": 0.2}, 1),
        ("numeric", "ten", 10, {}, 0),
        ("numeric", "1,000", 1000, {}, 1),
        ("numeric", 499467505185, 499467505185, {}, 1),
        ("numeric", 499467505185, 499467505186, {}, 0),
        ("numeric", 499467505185, 499467505186, {"tolerance": 1}, 1),
        ("numeric", 10**400, 10, {}, 0),
        ("token_f1", "the", "a", {}, 0),
        ("token_f1", "the", "The.", {}, 1),
        ("token_f1", "cafe\u0301 noir", "caf\u00e9 noir", {}, 1),
        ("contains", "it is PARIS indeed", "Paris", {"ignore_case": True}, 1),
        ("contains", "it is PARIS", "Paris", {}, 0),
        ("contains", "in a caf\u00e9", "cafe\u0301", {}, 1),
        ("regex", "AB12", None, {"pattern": r"^[A-Z]{2}\d+$"}, 1),
        ("regex", "ab12", None, {"pattern": r"^[A-Z]{2}\d+$"}, 0),
        ("token_f1", "The cat sat.", "a cat", {}, 2 / 3),
        ("token_f1", "dog", ["cat", "dog"], {}, 1),
        ("rouge1", "the cat sat", "the cat", {}, 0.8),
        ("rouge2", "the cat sat", "the cat", {}, 2 / 3),
        ("rougeL", "the cat sat", "the sat cat", {}, 2 / 3),
        ("length", "one two three", None, {"max_words": 3}, 1),
        ("length", "one two three", None, {"max_words": 2}, 0),
        ("length", "one", None, {"min_words": 2}, 0),
        ("json_schema", {"name": "x"}, None, {}, 1),
        ("json_schema", {"name": 3}, None, {}, 0),
        ("json_fields", {"name": "ADA  l", "age": 3.0}, {"name": "ada L", "age": 3}, {}, 1),
        ("json_fields", {"name": "x", "tags": ["A", "b"]}, {"name": "x", "age": 3, "tags": ["a", "c"]}, {}, 0.5),
        ("json_fields", {"name": "x", "more": 1}, {"name": "x"}, {}, 0.75),
        ("json_fields", [1], {"name": "x"}, {}, 0),
    ],
)
def test_each_metric_gives_the_hand_computed_value_and_a_reason_below_one(name, got, label, options, value):
    result = score(name, got, label, **options)
    assert result.value == pytest.approx(value)
    assert bool(result.reason) == (value < 1)


def test_the_reason_of_json_fields_names_the_wrong_fields_with_expected_and_got():
    result = score("json_fields", {"name": "Bob", "extra": 1}, {"name": "Ada", "age": 3})
    assert "name (expected Ada, got Bob)" in result.reason
    assert "age (expected 3, got nothing)" in result.reason
    assert "extra (expected nothing, got 1)" in result.reason
    assert "tags" not in result.reason


def test_the_reason_of_json_schema_says_where_the_first_error_stands():
    assert score("json_schema", {"name": "x", "age": "old"}, None).reason.startswith("$.age: 'old' is not of type")


def test_a_remote_reference_in_a_schema_is_unscored_and_never_fetched():
    with WireServer(lambda messages, body: "{}") as server:
        server.look = Fault(body={"type": "object"})
        output = Field("out", "json", schema=json.dumps({"$ref": f"{server.url}/models/schema.json"}))
        (metric,) = build_metrics(task_of(MetricSpec("json_schema", "out"), outputs=(output,)))
        result = asyncio.run(metric.score(Example("r1", {"message": "hi"}, {}), Prediction({"out": {}}, "{}")))
        assert server.opened == 0
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(json.loads(output.schema)["$ref"]).close()
        assert server.opened == 1, "it could have been fetched"
    assert result.value is None
    assert "cannot be applied" in result.reason


@each_case("name", ["exact_match", "choice", "numeric", "contains", "token_f1", "rouge1", "json_fields"])
def test_a_row_without_a_label_is_unscored_not_zero(name):
    result = score(name, "x", None)
    assert result.value is None
    assert "no label" in result.reason


def test_a_label_of_the_wrong_kind_is_unscored():
    assert score("numeric", 3, "three").value is None
    assert score("json_fields", {}, "text").value is None


def test_a_reply_that_did_not_parse_scores_zero_with_its_error_on_every_metric(tmp_path):
    (tmp_path / "metric.py").write_text("def metric(example, prediction):\n    return 1.0\n")
    specs = [
        MetricSpec(name, "out", options={"regex": {"pattern": "x"}, "length": {"max_words": 3}}.get(name, {}))
        for name in (
            *("exact_match", "choice", "numeric", "contains", "regex", "token_f1", "rouge1", "rouge2", "rougeL"),
            *("length", "json_schema", "json_fields", "python"),
        )
    ]
    for metric in build_metrics(task_of(*specs, folder=tmp_path)):
        result = asyncio.run(metric.score(Example("r", {}, {"out": "x"}), Prediction({}, "??", "no JSON")))
        assert (result.value, result.reason) == (0.0, "no JSON")


def test_an_empty_label_occurs_in_nothing():
    assert score("contains", "no idea", "").value is None
    assert score("contains", "no idea", " ").value is None


@given(st.text(), st.text().filter(str.strip))
def test_text_metrics_stay_in_range_and_give_one_to_the_label_itself(got, label):
    for name in ("exact_match", "choice", "contains", "token_f1"):
        assert 0 <= score(name, got, label).value <= 1
        assert score(name, label, label).value == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values), st.dictionaries(st.text(), json_values))
def test_json_fields_is_symmetric_in_range_and_one_on_itself(got, label):
    assert score("json_fields", label, label).value == 1
    value = score("json_fields", got, label).value
    assert 0 <= value <= 1
    assert value == pytest.approx(score("json_fields", label, got).value)


@each_case(
    ("spec", "said"),
    [
        (MetricSpec("bleurgh", "out"), "no metric is called 'bleurgh'"),
        (MetricSpec("exact_match", "nope"), "the outputs are out"),
        (MetricSpec("regex", "out", options={"pattern": "("}), "'('"),
        (MetricSpec("regex", "out"), "needs pattern in its options"),
        (MetricSpec("length", "out"), "max_words"),
        (MetricSpec("numeric", "out", options={"tolerance": "x"}), "tolerance = 'x'"),
        ('{"type": "objekt"}', "is wrong"),
        ("{", "not JSON"),
    ],
)
def test_a_wrong_metric_is_an_input_error_on_one_line_at_build(spec, said):
    by_schema = isinstance(spec, str)
    outputs = (Field("out", "json", schema=spec),) if by_schema else OUT
    with pytest.raises(InputError) as caught:
        build_metrics(task_of(MetricSpec("json_schema", "out") if by_schema else spec, outputs=outputs))
    assert said in str(caught.value)
    assert "task.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_builders_keep_their_place_and_repeated_names_get_their_field():
    outputs = (Field("a"), Field("b"))
    specs = (MetricSpec("contains", "a"), MetricSpec("judge", "a"), MetricSpec("contains", "b"))
    other = build_metrics(task_of(MetricSpec("choice", "out")))[0]
    metrics = build_metrics(task_of(*specs, outputs=outputs), {"judge": lambda spec: other})
    assert [metric.name for metric in metrics] == ["contains:a", "choice", "contains:b"]


def test_combine_weighs_and_normalises_and_is_none_when_a_part_is_unscored():
    specs = [MetricSpec("a", "x", 3.0), MetricSpec("b", "x", 1.0)]
    assert combine([Score("a", 1.0), Score("b", 0.0)], specs) == 0.75
    assert combine([Score("a", 1.0), Score("b", None)], specs) is None
    assert combine([], []) is None
    with pytest.raises(ValueError, match="1 scores for 2 metrics"):
        combine([Score("a", 1.0)], specs)


# ---- patterns, which may take for ever


FOR_EVER = r"^(\w+\s?)*$"
LONG = "the reply of a model that goes on and on for a while without an end!"


@pytest.mark.parametrize(
    ("name", "schema", "ordinary", "hanging"),
    [
        ("regex", {}, "some words", LONG),
        ("json_schema", {"properties": {"a": {"pattern": FOR_EVER}}}, {"a": "some words"}, {"a": LONG}),
        ("json_schema", {"patternProperties": {FOR_EVER: True}}, {"some words": 1}, {LONG: 1}),
    ],
)
async def test_a_pattern_that_takes_too_long_leaves_its_row_unscored_and_is_given_up(
    monkeypatch, name, schema, ordinary, hanging
):
    monkeypatch.setattr(comparison, "TIMEOUT_SECONDS", 0.5)
    spec = MetricSpec(name, "out", options={} if schema else {"pattern": FOR_EVER})
    (metric,) = build_metrics(task_of(spec, outputs=(Field("out", "json", schema=json.dumps(schema)),)))

    async def score(got):
        return await metric.score(Example("r1", {"message": "hi"}, {}), Prediction({"out": got}, "raw"))

    assert await score(ordinary) == Score(name, 1.0, "")
    started = time.monotonic()
    late = await asyncio.gather(*(score(hanging) for _ in range(12)))
    assert time.monotonic() - started < 20
    assert {each.value for each in late} == {None}
    assert late[0].reason.endswith(" of out took longer than 0.5 s")
    assert late[-1].reason.endswith(" of out took longer than 0.5 s, 3 times, and is not asked any more")


# ---- metric.py


def python_metric(folder: Path, body: str, timeout: float = 5.0) -> PythonMetric:
    (folder / "metric.py").write_text(body)
    return PythonMetric("python", folder / "metric.py", timeout)


async def run(metric, got="x", label="x"):
    return await metric.score(Example("r7", {"message": "hi"}, {"out": label}), Prediction({"out": got}, got))


async def test_python_metric_sees_the_row_and_the_reply_and_may_give_a_reason(tmp_path):
    metric = python_metric(
        tmp_path,
        "import dataclasses\n"
        "def metric(example, prediction):\n"
        "    same = example['labels']['out'] == prediction['fields']['out']\n"
        "    print('noise on stdout')\n"
        "    return dict(value=float(same), reason=example['id'] + example['inputs']['message'] + prediction['raw'])\n",
    )
    assert await run(metric, "é\ud800", "x") == Score("python", 0.0, "r7hié\ud800")
    assert (await run(metric)).value == 1.0
    metric.close()


@pytest.mark.parametrize(
    ("result", "value", "said"),
    [
        ("1.5", None, "not in [0, 1]"),
        ("-0.1", None, "not in [0, 1]"),
        ("float('nan')", None, "nan"),
        ("None", None, "no value"),
        ("'0.5'", None, "text"),
        ("[1]", None, "TypeError"),
        ("1 / 0", None, "metric.py:2: ZeroDivisionError"),
        ("dict(value=None, reason='skip')", None, "skip"),
        ("True", 1.0, ""),
    ],
)
async def test_a_bad_value_of_metric_py_is_unscored_with_its_reason(tmp_path, result, value, said):
    metric = python_metric(tmp_path, f"def metric(example, prediction):\n    return {result}\n")
    answer = await run(metric)
    assert answer.value == value
    assert said in answer.reason
    metric.close()


async def test_a_timeout_or_crash_loses_one_row_and_the_worker_comes_back(tmp_path):
    metric = python_metric(
        tmp_path,
        "import os, time\n"
        "def metric(example, prediction):\n"
        "    got = prediction['raw']\n"
        "    if got == 'hang': time.sleep(60)\n"
        "    if got == 'crash': os._exit(3)\n"
        "    return 1.0\n",
        timeout=0.5,
    )
    started = time.monotonic()
    results = await asyncio.gather(*(run(metric, got) for got in ("ok", "hang", "ok", "crash", "ok")))
    assert [result.value for result in results] == [1.0, None, 1.0, None, 1.0]
    assert "longer than 0.5 s" in results[1].reason
    assert "exit code 3" in results[3].reason
    assert time.monotonic() - started < 20
    metric.close()


async def test_the_child_process_sees_no_keys(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "secret")
    metric = python_metric(
        tmp_path, "import os\ndef metric(example, prediction):\n    return dict(value=1, reason=' '.join(os.environ))\n"
    )
    names = (await run(metric)).reason.split()
    assert "SOME_API_KEY" not in names
    assert set(names) <= {"PATH", "TMPDIR", "LC_CTYPE", "SYSTEMROOT", "TEMP"}
    metric.close()


async def test_a_metric_py_that_does_not_load_says_so_on_every_row_and_is_not_started_again(tmp_path):
    metric = python_metric(tmp_path, "import not_there\ndef metric(example, prediction):\n    return 1\n")
    for _ in range(2):
        result = await run(metric)
        assert result.value is None
        assert "metric.py:1: ModuleNotFoundError" in result.reason


def test_one_metric_serves_several_event_loops_and_leaves_no_process_behind(tmp_path):
    metric = python_metric(
        tmp_path, "import os\ndef metric(example, prediction):\n    return dict(value=1, reason=str(os.getpid()))\n"
    )
    first, second = asyncio.run(run(metric)), asyncio.run(run(metric))
    assert first == second
    metric.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int(first.reason), 0)


@pytest.mark.parametrize(
    ("body", "said"),
    [(None, "cannot be read"), ("def metric(:\n", "metric.py:1: "), ("x = 1\n", "no function `metric`")],
)
def test_a_missing_or_broken_metric_py_is_an_input_error_at_build(tmp_path, body, said):
    if body is not None:
        (tmp_path / "metric.py").write_text(body)
    with pytest.raises(InputError) as caught:
        build_metrics(task_of(MetricSpec("python", "out"), folder=tmp_path))
    assert said in str(caught.value)


def test_a_metric_whose_extra_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wordllama", None)
    with pytest.raises(InputError, match=r"promptassay\[embedding\]"):
        build_metrics(task_of(MetricSpec("embedding_similarity", "out")))


@pytest.mark.extra("embedding")
def test_embeddings_tell_near_texts_from_far_ones() -> None:
    near, far = "a cat rests on the rug", "the quarterly report is late"
    values = [score("embedding_similarity", text, "the cat lies on the carpet") for text in (near, far)]
    assert 0 <= values[1].value < values[0].value <= 1


async def test_a_long_answer_is_scored_beside_the_loop():
    (metric,) = build_metrics(task_of(MetricSpec("token_f1", "out"), outputs=(Field("out"),)))
    text = "to be or not to be " * 20_000
    example = Example("r1", {"message": "hi"}, {"out": "to be"})
    assert await turns_beside(metric.score(example, Prediction({"out": text}, text))) > 1
