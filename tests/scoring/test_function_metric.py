"""A metric that is a Python function: what it is given, what it may return, and what becomes of one that misbehaves."""

import threading
import time
from typing import Any

import pytest

from agent.errors import InputError
from agent.scoring.task_metrics import MAX_TIMEOUTS, FunctionMetric, register, registered
from agent.types import Example, Prediction
from tests.cases import each_case

ROW = Example("r1", {"text": "hello"}, {"label": ["a"]})
ANSWER = Prediction({"label": "a"}, "a")


def metric(function: Any, field: str = "label", timeout: float = 5.0) -> FunctionMetric:
    return FunctionMetric(register(function, "mine"), field, timeout)


async def test_it_is_given_copies_of_the_row_and_of_what_was_read() -> None:
    seen: list[Any] = []

    def take(row: dict[str, Any], answer: Any) -> float:
        seen.append((dict(row), answer, threading.current_thread() is threading.main_thread()))
        row["label"].append("b")
        return 0.25

    score = await metric(take).score(ROW, ANSWER)
    assert (score.metric, score.value, score.reason) == ("mine", 0.25, "")
    await metric(take, field="").score(ROW, ANSWER)
    assert seen[0][1:] == ("a", False)
    assert seen[1][1] == {"label": "a"}
    assert ROW.labels == {"label": ["a"]}


@pytest.mark.parametrize(
    ("returned", "value", "reason"),
    [
        (True, 1.0, ""),
        ({"value": 0.5, "reason": "half"}, 0.5, "half"),
        (None, None, "returned no value"),
        ({"reason": "no gold"}, None, "no gold"),
        ("1", None, "the text '1'"),
        (1.5, None, "not in [0, 1]"),
        (float("nan"), None, "not in [0, 1]"),
        ([1], None, "TypeError"),
    ],
)
async def test_what_it_may_return(returned: Any, value: float | None, reason: str) -> None:
    score = await metric(lambda row, answer: returned).score(ROW, ANSWER)
    assert score.value == value
    assert reason in score.reason


@pytest.mark.parametrize("error", [ValueError("bad row"), SystemExit(3)])
async def test_what_it_raises_is_no_score_and_says_where(error: BaseException) -> None:
    def fail(row: dict[str, Any], answer: Any) -> float:
        raise error

    score = await metric(fail).score(ROW, ANSWER)
    assert score.value is None
    assert score.reason == f"mine:{fail.__code__.co_firstlineno + 1}: {type(error).__name__}: {error}"


async def test_a_reply_that_cannot_be_read_scores_nothing_and_it_is_not_asked() -> None:
    score = await metric(lambda row, answer: 1.0).score(ROW, Prediction({}, "?", "no answer line"))
    assert (score.value, score.reason) == (0.0, "no answer line")
    assert (await metric(lambda row, answer: 1.0).score(ROW, Prediction({}, "?"))).value == 0.0


async def test_one_that_takes_too_long_is_given_up_and_then_not_asked_any_more() -> None:
    asked: list[float] = []
    end = threading.Event()

    def hang(row: dict[str, Any], answer: Any) -> float:
        asked.append(time.monotonic())
        end.wait(30)
        return 1.0

    slow = metric(hang, timeout=0.05)
    scores = [await slow.score(ROW, ANSWER) for _ in range(MAX_TIMEOUTS + 2)]
    end.set()
    assert [score.value for score in scores] == [None] * (MAX_TIMEOUTS + 2)
    assert len(asked) == MAX_TIMEOUTS
    assert scores[0].reason == "mine took longer than 0.05 s"
    assert scores[-1].reason.endswith("is not called again")


def other(row: dict[str, Any], answer: Any) -> float:
    return 1.0


async def _async(row: dict[str, Any], answer: Any) -> float:
    return 1.0


@each_case(
    ("function", "name", "said"),
    [
        (len, "mine", "write a plain function"),
        (_async, "mine", "write a plain function"),
        (lambda answer: 1.0, "mine", r"write def mine\(row, answer\)"),
        (lambda a, b, c: 1.0, "mine", "takes 3 arguments"),
        (other, "exact_match", "this name is taken"),
        (other, "a b", "not usable"),
    ],
)
def test_what_is_no_metric_is_refused(function: Any, name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        register(function, name)


def test_what_may_be_called_with_two_arguments_is_one() -> None:
    assert register(other).name == "other"
    assert registered("other") is not None
    register(lambda row, answer, strict=True: 1.0)
    register(lambda *row: 1.0)
    assert registered("metric") is not None
    assert registered("nobody") is None


def limit(at: float) -> Any:
    def above(row: dict[str, Any], answer: Any) -> float:
        return float(answer > at)

    return above


def test_its_digest_is_of_what_it_says_and_of_the_plain_values_that_it_holds() -> None:
    def digest(function: Any) -> str:
        return register(function, "mine").digest

    assert digest(limit(0.5)) == digest(limit(0.5))
    assert digest(limit(0.5)) != digest(limit(0.6))
    assert digest(lambda row, answer: 1.0) == digest(lambda row, answer: 1.0)
    assert digest(lambda row, answer: 1.0) != digest(lambda row, answer: 0.5)
    assert digest(lambda row, answer, k=1: k) != digest(lambda row, answer, k=2: k)
