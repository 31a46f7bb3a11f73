"""The metrics of a task: how they are built and combined, and code of the user, in this process and in a child."""

import asyncio
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from agent.errors import InputError
from agent.metrics import comparison
from agent.metrics.comparison import BoundedCheck
from agent.scoring.task_metrics import (
    MAX_TIMEOUTS,
    FieldMetric,
    FunctionMetric,
    PythonMetric,
    build_metrics,
    combine,
    register,
    registered,
    require_all,
)
from agent.types import Example, Field, MetricSpec, Prediction, Score
from tests.cases import each_case
from tests.metrics.scored import OUT, score, task_of
from tests.toys import beside_the_loop
from tests.wire import WireServer

EXAMPLE = Example("r7", {"message": "hi"}, {"out": "x"})
ROW, ANSWER = Example("r1", {"text": "hello"}, {"label": ["a"]}), Prediction({"label": "a"}, "a")


def test_a_remote_reference_in_a_schema_is_unscored_and_never_fetched() -> None:
    with WireServer(lambda messages, body: "{}") as server:
        field = Field("out", "json", schema=json.dumps({"$ref": f"{server.url}/models/schema.json"}))
        result = score("json_schema", {}, None, field)
        assert server.opened == 0
    assert result.value is None
    assert "cannot be applied" in result.reason


@each_case(
    ("spec", "said"),
    [
        (MetricSpec("bleurgh", "out"), "no metric is called 'bleurgh'"),
        (MetricSpec("exact_match", "nope"), "the outputs are out"),
        (MetricSpec("regex", "out", options={"pattern": "("}), "'('"),
        (MetricSpec("regex", "out"), "needs pattern in its options"),
        (MetricSpec("numeric", "out", options={"tolerance": "x"}), "metric numeric has tolerance = 'x': should be"),
        (MetricSpec("judge", "out"), "needs more than a task to be made"),
        *((Field("out", "json", schema=schema), what) for schema, what in (('{"type": "objekt"}', "is wrong"),)),
        *((Field("out", "json", schema=schema), what) for schema, what in (("{", "not JSON"), ("3", "got '3'"))),
    ],
)
def test_a_wrong_metric_is_an_input_error_on_one_line_at_build(spec: Any, said: str) -> None:
    specs, outputs = ((MetricSpec("json_schema", "out"),), (spec,)) if isinstance(spec, Field) else ((spec,), (OUT,))
    with pytest.raises(InputError) as caught:
        build_metrics(task_of(*specs, outputs=outputs))
    assert said in str(caught.value)
    assert "task.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_builders_keep_their_place_and_repeated_names_get_their_field() -> None:
    specs = (MetricSpec("contains", "a"), MetricSpec("judge", "a"), MetricSpec("contains", "b"))
    other = build_metrics(task_of(MetricSpec("choice", "out")))[0]
    metrics = build_metrics(task_of(*specs, outputs=(Field("a"), Field("b"))), {"judge": lambda spec: other})
    assert [metric.name for metric in metrics] == ["contains:a", "choice", "contains:b"]


def test_combine_weighs_and_normalises_and_needs_every_part() -> None:
    specs = [MetricSpec("a", "x", 3.0), MetricSpec("b", "x", 1.0)]
    assert combine([Score("a", 1.0), Score("b", 0.0)], specs) == 0.75
    assert combine([Score("a", 1.0), Score("b", None)], specs) is None
    assert combine([], []) is None
    for scores, weights in (([Score("a", 1.0)], specs), ([Score("a", 1.0)], [MetricSpec("a", "x", 0.0)])):
        with pytest.raises(ValueError, match="scores for"):
            combine(scores, weights)


def test_a_metric_whose_extra_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wordllama", None)
    with pytest.raises(InputError, match=r"promptassay\[embedding\]"):
        build_metrics(task_of(MetricSpec("embedding_similarity", "out")))


async def test_a_long_answer_does_not_block_the_loop() -> None:
    (metric,) = build_metrics(task_of(MetricSpec("token_f1", "out"), outputs=(Field("out"),)))
    assert isinstance(metric, FieldMetric)
    metric.check = beside_the_loop(metric.check)
    text = "to be or not to be " * 20_000
    assert (await metric.score(EXAMPLE, Prediction({"out": text}, text))).value is not None


# -- patterns, which may take for ever ---------------------------------------------------------------------------------


@each_case(
    ("name", "schema"),
    [
        ("regex", "{}"),
        ("json_schema", '{"a": {"pattern": "x"}}'),
        ("json_schema", '{"patternProperties": {"x": true}}'),
    ],
)
def test_patterns_are_tried_in_a_child_process(name: str, schema: str) -> None:
    spec = MetricSpec(name, "out", options={"pattern": "x"} if name == "regex" else {})
    (metric,) = build_metrics(task_of(spec, outputs=(Field("out", "json", schema=schema),)))
    assert isinstance(metric, FieldMetric)
    assert isinstance(metric.check, BoundedCheck)


async def test_a_pattern_that_takes_too_long_leaves_its_row_unscored_and_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(comparison, "TIMEOUT_SECONDS", 0.3)
    (metric,) = build_metrics(task_of(MetricSpec("regex", "out", options={"pattern": r"^(\w+\s?)*$"})))

    async def found(text: str) -> Score:
        return await metric.score(EXAMPLE, Prediction({"out": text}, text))

    assert await found("some words") == Score("regex", 1.0, "")
    hanging = "the reply of a model that continues on and on for a while without an end!"
    late = await asyncio.gather(*(found(hanging) for _ in range(comparison.MAX_TIMEOUTS + 3)))
    assert {each.value for each in late} == {None}
    assert late[0].reason == "the pattern of out took longer than 0.3 s"
    assert late[-1].reason.startswith("the pattern of out took longer than 0.3 s, 3 times")


# -- metric.py ---------------------------------------------------------------------------------------------------------


def python_metric(folder: Path, body: str, timeout: float = 5.0) -> PythonMetric:
    (folder / "metric.py").write_text(body)
    return PythonMetric("python", folder / "metric.py", timeout)


async def run(metric: PythonMetric, got: str = "x") -> Score:
    return await metric.score(EXAMPLE, Prediction({"out": got}, got))


RETURNS = {
    "1.5": (None, "not in [0, 1]"),
    "-0.1": (None, "not in [0, 1]"),
    "float('nan')": (None, "nan"),
    "None": (None, "no value"),
    "'0.5'": (None, "text"),
    "b'0.5'": (None, "text"),
    "dict(value=bytearray(b'0.5'))": (None, "text"),
    "[1]": (None, "TypeError"),
    "1 / 0": (None, "metric.py:7: ZeroDivisionError"),
    "dict(value=None, reason='skip')": (None, "skip"),
    "True": (1.0, ""),
    "dict(value=0.5, reason=7, seen={1})": (0.5, "7"),
    "dict(value=0, reason=example['id'] + example['inputs']['message'] + prediction['raw'])": (0.0, "r7hi"),
}
SEVERAL = """\
import os, time
def metric(example, prediction):
    print('noise on stdout')
    got = prediction['raw']
    if got == 'hang': time.sleep(60)
    if got == 'crash': os._exit(3)
    return eval(got, dict(example=example, prediction=prediction, os=os))
"""


async def test_what_metric_py_returns_raises_or_breaks_is_a_score_or_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "secret")
    metric = python_metric(tmp_path, SEVERAL, timeout=2.0)
    for got, (value, said) in RETURNS.items():
        found = await run(metric, got)
        assert found.value == value, got
        assert said in found.reason
    pid, names = [
        (await run(metric, f"dict(value=1, reason={what})")).reason
        for what in ("str(os.getpid())", "' '.join(os.environ)")
    ]
    assert set(names.split()) <= {"PATH", "TMPDIR", "LC_CTYPE", "SYSTEMROOT", "TEMP"}
    results = await asyncio.gather(*(run(metric, got) for got in ("1.0", "crash", "1.0", "hang", "1.0")))
    assert [result.value for result in results] == [1.0, None, 1.0, None, 1.0]
    assert "exit code 3" in results[1].reason
    assert "longer than 2 s" in results[3].reason
    metric.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


def test_one_metric_py_serves_several_event_loops(tmp_path: Path) -> None:
    metric = python_metric(
        tmp_path, "import os\ndef metric(example, prediction):\n    return dict(value=1, reason=str(os.getpid()))\n"
    )
    assert asyncio.run(run(metric)) == asyncio.run(run(metric))
    metric.close()


async def test_a_metric_py_that_does_not_load_says_so_on_every_row(tmp_path: Path) -> None:
    metric = python_metric(tmp_path, "import not_there\ndef metric(example, prediction):\n    return 1\n")
    for _ in range(2):
        result = await run(metric)
        assert result.value is None
        assert "metric.py:1: ModuleNotFoundError" in result.reason


@pytest.mark.parametrize(
    ("body", "said"),
    [(None, "cannot be read"), ("def metric(:\n", "metric.py:1: "), ("x = 1\n", "no function `metric`")],
)
def test_a_missing_or_broken_metric_py_is_an_input_error_at_build(tmp_path: Path, body: str | None, said: str) -> None:
    if body is not None:
        (tmp_path / "metric.py").write_text(body)
    with pytest.raises(InputError) as caught:
        build_metrics(task_of(MetricSpec("python", "out"), folder=tmp_path))
    assert said in str(caught.value)


# -- functions of the program ------------------------------------------------------------------------------------------


def metric_of(function: Any, field: str = "label", timeout: float = 5.0) -> FunctionMetric:
    return FunctionMetric(register(function, "mine"), field, timeout)


async def test_a_function_gets_copies_of_row_and_answer_in_another_thread() -> None:
    seen: list[Any] = []

    def take(row: dict[str, Any], answer: Any) -> float:
        seen.append((dict(row), answer, threading.current_thread() is threading.main_thread()))
        row["label"].append("b")
        return 0.25

    assert await metric_of(take).score(ROW, ANSWER) == Score("mine", 0.25, "")
    await metric_of(take, field="").score(ROW, ANSWER)
    assert [each[1:] for each in seen] == [("a", False), ({"label": "a"}, False)]
    assert ROW.labels == {"label": ["a"]}
    assert await metric_of(take).score(ROW, Prediction({}, "?", "no line")) == Score("mine", 0.0, "no line")
    assert (await metric_of(take).score(ROW, Prediction({}, "?"))).reason == "the reply has no label"
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("returned", "value", "reason"),
    [
        *((True, 1.0, ""), ({"value": 0.5, "reason": "half"}, 0.5, "half"), (None, None, "returned no value")),
        *(({"reason": "no gold"}, None, "no gold"), ("1", None, "the text '1'"), (1.5, None, "not in [0, 1]")),
        *((float("nan"), None, "not in [0, 1]"), ([1], None, "TypeError")),
    ],
)
async def test_what_a_function_may_return(returned: Any, value: float | None, reason: str) -> None:
    found = await metric_of(lambda row, answer: returned).score(ROW, ANSWER)
    assert found.value == value
    assert reason in found.reason


@pytest.mark.parametrize("error", [ValueError("bad row"), SystemExit(3)])
async def test_what_a_function_raises_is_no_score_and_says_where(error: BaseException) -> None:
    def fail(row: dict[str, Any], answer: Any) -> float:
        raise error

    found = await metric_of(fail).score(ROW, ANSWER)
    where = f"mine:{fail.__code__.co_firstlineno + 1}"
    assert (found.value, found.reason) == (None, f"{where}: {type(error).__name__}: {error}")


async def test_a_function_that_takes_too_long_is_given_up() -> None:
    asked: list[float] = []
    end = threading.Event()

    def hang(row: dict[str, Any], answer: Any) -> float:
        asked.append(time.monotonic())
        end.wait(30)
        return 1.0

    slow = metric_of(hang, timeout=0.05)
    scores = [await slow.score(ROW, ANSWER) for _ in range(MAX_TIMEOUTS + 2)]
    end.set()
    assert [each.value for each in scores] == [None] * (MAX_TIMEOUTS + 2)
    assert len(asked) == MAX_TIMEOUTS
    assert scores[0].reason == "mine took longer than 0.05 s"
    assert scores[-1].reason.endswith("is not called again")


async def _async(row: dict[str, Any], answer: Any) -> float:
    return 1.0


@each_case(
    ("function", "name", "said"),
    [
        *((len, "mine", "write a plain function"), (_async, "mine", "write a plain function")),
        (lambda answer: 1.0, "mine", r"write def mine\(row, answer\)"),
        (lambda a, b, c: 1.0, "mine", "takes 3 arguments"),
        (lambda answer, row: 1.0, "mine", "called with the whole row first"),
        (lambda row, answer: 1.0, "exact_match", "this name is taken"),
        (lambda row, answer: 1.0, "a b", "not usable"),
    ],
)
def test_what_is_no_metric_is_refused(function: Any, name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        register(function, name)


def test_what_may_be_called_with_two_arguments_is_registered_by_its_name() -> None:
    for function in (lambda row, answer, strict=True: 1.0, lambda *row: 1.0):
        assert register(function).name == "metric"
    assert registered("metric") is not None
    assert registered("nobody") is None
    with pytest.raises(InputError, match="its metric nobody is a Python function"):
        require_all(task_of(MetricSpec("metric", "out"), MetricSpec("nobody", "out")))


def limit(at: float) -> Any:
    def above(row: dict[str, Any], answer: Any) -> float:
        return float(answer > at)

    return above


def test_the_digest_is_of_the_source_and_of_plain_values_in_defaults_and_closure() -> None:
    def digest(function: Any) -> str:
        return register(function, "mine").digest

    assert digest(limit(0.5)) == digest(limit(0.5)) != digest(limit(0.6))
    assert digest(lambda row, answer: 1.0) == digest(lambda row, answer: 1.0) != digest(lambda row, answer: 0.5)
    assert digest(lambda row, answer, k=1: k) != digest(lambda row, answer, k=2: k)
