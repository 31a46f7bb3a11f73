"""What a tuned judge makes of a reply: the expected rating where probabilities are told, else the one it says."""

import math

import pytest

from agent.prompt.bound import BoundPrompt
from agent.prompt.label_calibration import LabelCalibration
from agent.prompt.parts.calibration import Calibrating
from agent.scoring.tuned_judge import TunedPrompt
from agent.shipped import Field, Message
from agent.types import Completion, Usage

EVEN = (math.log(0.5), math.log(0.25), math.log(0.25))


def judge(output: str = "rating", choices: tuple[str, ...] = ("1", "2", "3"), **more: object) -> TunedPrompt:
    inputs = ("text", "other") if output == "verdict" else ("text",)
    messages = (Message("user", " ".join(f"{{{{{name}}}}}" for name in inputs)),)
    outputs = (Field(output, "choice", choices=choices),)
    prompt = BoundPrompt(
        name="j", model="m", messages=messages, inputs=inputs, outputs=outputs, format="turns", reasoning=False, **more
    )
    return TunedPrompt(prompt, "p_1", {"max_tokens": 5})


def rated(tuned: TunedPrompt, said: str, *logs: float, answers: tuple[str, ...] = ("fine",)) -> float | None:
    _, read = tuned.asked({}, answers, 0)
    return read(Completion(said, "stop", Usage(1, 1), "m", label_logprobs=logs)).value


def test_a_rating_is_the_expected_one_where_probabilities_are_told() -> None:
    assert rated(judge(), "1") == 0.0
    assert rated(judge(), "1", *EVEN) == pytest.approx(0.25 * 0.5 + 0.25 * 1.0)
    level = LabelCalibration("fitted", {"1": 0.0, "2": math.log(2), "3": math.log(2)})
    reading = Calibrating(level, Field("rating", "choice", choices=("1", "2", "3")))
    assert rated(judge(parts=(reading,)), "1", *EVEN) == pytest.approx(0.5)  # each label is now as likely


def test_an_unreadable_rating_has_no_expected_one() -> None:
    assert rated(judge(), "no idea", *EVEN) is None


def test_a_pair_is_decided_by_the_likeliest_verdict() -> None:
    pairs = judge("verdict", ("2", "tie", "1"))
    assert rated(pairs, "1", *EVEN, answers=("fine", "bad")) == 1.0
