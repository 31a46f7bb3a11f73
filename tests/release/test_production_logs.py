"""A log against its reference: planted drift is found at the default limits, clean logs are left alone."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.errors import InputError, ProblemsError
from agent.release.production_logs import Window, compare_windows, window_of_log
from agent.release.runtime import Prompt, PromptRelease
from agent.types import Drift, Field, Message

TEAMS = ("billing", "delivery", "account", "repair")
MIX = (0.4, 0.3, 0.2, 0.1)
PROMPT = Prompt(
    PromptRelease(
        name="mail",
        messages=(Message("user", "{{message}}"),),
        inputs=("message",),
        outputs=(Field("team", "choice", choices=TEAMS), Field("summary")),
        format="turns",
        reasoning=False,
        model="m",
        parameters={},
        provenance={},
    )
)
Row = dict[str, Any]


def rows(rng: random.Random, count: int, mix: tuple[float, ...] = MIX, longer: float = 1.0) -> list[Row]:
    """Answers with a team and a summary of a random length; 1 % cannot be read; inputs come again now and then."""
    found = []
    for _ in range(count):
        team = rng.choices(TEAMS, mix)[0]
        words = max(3, int(longer * rng.lognormvariate(2.5, 0.5)))
        reply = f"team: {team}\nsummary: {'word ' * words}"
        if rng.random() < 0.01:
            reply = "I cannot say."
        found.append({"reply": reply, "inputs": {"message": f"m{rng.randrange(count)}"}, "score": rng.random()})
    return found


def window(rows: list[Row], path: Path) -> Window:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return window_of_log(path, PROMPT)


def told(was: list[Row], now: list[Row], folder: Path, limits: Drift | None = None) -> dict[str, Any]:
    one, two = window(was, folder / "was.jsonl"), window(now, folder / "now.jsonl")
    return compare_windows(one, two, PROMPT, limits or Drift())


def broken(rng: random.Random, row: Row) -> Row:
    return row | {"reply": "As a model I think..."} if rng.random() < 0.06 else row


def lower(rng: random.Random, row: Row) -> Row:
    return row | {"score": row["score"] * 0.7}


@pytest.mark.parametrize("reference", [200, 1000])
@pytest.mark.parametrize(
    ("alarm", "planted"),
    [
        ("labels of team", lambda rng: rows(rng, 1000, (0.2, 0.3, 0.2, 0.3))),
        ("unreadable replies", lambda rng: [broken(rng, row) for row in rows(rng, 1000)]),
        ("length in characters", lambda rng: rows(rng, 1000, longer=1.5)),
        ("score", lambda rng: [lower(rng, row) for row in rows(rng, 1000)]),
    ],
)
def test_planted_drift_in_a_thousand_rows_is_found_and_nothing_else(
    tmp_path: Path, alarm: str, planted: Callable[[random.Random], list[Row]], reference: int
) -> None:
    found = told(rows(random.Random(1), reference), planted(random.Random(2)), tmp_path)
    assert found["drift"]
    assert found["alarms"] == [alarm]


def test_inputs_that_come_again_with_another_answer_are_found(tmp_path: Path) -> None:
    def asked(rng: random.Random, noise: float) -> list[Row]:
        found = []
        for number in range(500):
            team = rng.choices(TEAMS, MIX)[0]
            other = rng.choices(TEAMS, MIX)[0] if rng.random() < noise else team
            found += [{"reply": f"team: {t}\nsummary: x", "inputs": {"message": f"m{number}"}} for t in (team, other)]
        return found

    found = told(asked(random.Random(1), 0.02), asked(random.Random(2), 0.3), tmp_path)
    assert found["alarms"] == ["another answer when asked again"]


@pytest.mark.parametrize("reference", [60, 500])
def test_clean_logs_alarm_in_at_most_a_twentieth(tmp_path: Path, reference: int) -> None:
    alarms, tries = 0, 60
    for seed in range(tries):
        rng = random.Random(seed)
        alarms += told(rows(rng, reference), rows(rng, 300), tmp_path)["drift"]
    assert alarms / tries <= 0.05


def test_a_clean_log_of_a_thousand_rows_is_silent(tmp_path: Path) -> None:
    found = told(rows(random.Random(3), 300), rows(random.Random(4), 1000), tmp_path)
    assert (found["drift"], found["alarms"]) == (False, [])


def test_a_tiny_difference_in_a_huge_log_is_no_alarm(tmp_path: Path) -> None:
    was = window(rows(random.Random(5), 20_000), tmp_path / "was.jsonl")
    now = window(rows(random.Random(6), 20_000, (0.37, 0.33, 0.2, 0.1)), tmp_path / "now.jsonl")
    found = compare_windows(was, now, PROMPT, Drift())
    (labels,) = [test for test in found["tests"] if test["name"] == "labels of team"]
    assert labels["p_value"] < 1e-6
    assert not found["drift"]
    strict = compare_windows(was, now, PROMPT, Drift(labels=0.01))
    assert strict["alarms"] == ["labels of team"]


def test_few_answers_are_tested_by_permutation(tmp_path: Path) -> None:
    def says(*teams: str) -> list[Row]:
        return [{"reply": f"team: {team}\nsummary: x"} for team in teams]

    found = told(says(*["billing"] * 12), says(*["repair"] * 3, *["billing"] * 5), tmp_path)
    (labels,) = [test for test in found["tests"] if test["name"] == "labels of team"]
    assert labels["test"] == "permutation test of the chi-square"
    assert labels["p_value"] == pytest.approx(56 / 1140, abs=0.01)  # 3 of 20 fall into the 8: C(8,3) / C(20,3)


def test_what_is_not_in_a_log_cannot_be_told(tmp_path: Path) -> None:
    found = told([{"reply": "team: billing\nsummary: x"}] * 9, [{"reply": "team: billing\nsummary: x"}] * 9, tmp_path)
    unknown = {test["name"] for test in found["tests"] if test["p_value"] is None}
    assert unknown == {"another answer when asked again", "score"}
    assert found["from"] is None


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"replay": "x"}, "unknown key 'replay'; did you mean 'reply'?"),
        ({"reply": 3}, "reply: 3 is not a text"),
        ({"reply": "x", "score": 2}, "score: 2 is not a number from 0 to 1"),
        ({"reply": "x", "time": "soon"}, "time: 'soon' is no time"),
        ({"reply": "x", "inputs": "m"}, "inputs: 'm' is no object"),
    ],
)
def test_a_wrong_row_is_named_with_its_line(tmp_path: Path, row: Row, says: str) -> None:
    with pytest.raises(ProblemsError) as raised:
        window([{"reply": "x"}, row], tmp_path / "log.jsonl")
    assert "log.jsonl:2" in str(raised.value)
    assert says in str(raised.value)


def test_an_empty_log_or_reference_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProblemsError, match="no rows"):
        window([], tmp_path / "log.jsonl")
    with pytest.raises(InputError, match="no answers"):
        compare_windows(Window(()), Window(()), PROMPT, Drift())
