"""A log against its reference: planted drift is found at the default limits, clean logs are left alone."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.errors import InputError, ProblemsError
from agent.jobs.monitor import monitored
from agent.programs.recorded import Recorded
from agent.release.production_logs import time_of, value_of
from agent.release.runtime import Prompt
from agent.types import Drift, Field
from tests.cases import each_case
from tests.json_of import json_of
from tests.release.formats.sample import release

told_of = json_of(monitored)

TEAMS = ("billing", "delivery", "account", "repair")
MIX = (0.4, 0.3, 0.2, 0.1)
PROMPT = Prompt(release(outputs=(Field("team", "choice", choices=TEAMS), Field("summary")), parameters={}))
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


def window(rows: list[Row], path: Path) -> Recorded:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return Recorded.of_log(path, PROMPT)


def told(was: list[Row], now: list[Row], folder: Path, limits: Drift | None = None) -> dict[str, Any]:
    one, two = window(was, folder / "was.jsonl"), window(now, folder / "now.jsonl")
    return told_of(one, two, PROMPT, limits or Drift())


def broken(rng: random.Random, row: Row) -> Row:
    return row | {"reply": "As a model I think..."} if rng.random() < 0.06 else row


def lower(rng: random.Random, row: Row) -> Row:
    return row | {"score": row["score"] * 0.7}


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
    tmp_path: Path, alarm: str, planted: Callable[[random.Random], list[Row]]
) -> None:
    found = told(rows(random.Random(1), 200), planted(random.Random(2)), tmp_path)
    assert (found["drift"], found["alarms"]) == (True, [alarm])


def test_repeated_inputs_with_another_answer_are_found_within_each_log_by_itself(tmp_path: Path) -> None:
    def asked(rng: random.Random, noise: float) -> list[Row]:
        found = []
        for number in range(300):
            team = rng.choices(TEAMS, MIX)[0]
            other = rng.choices(TEAMS, MIX)[0] if rng.random() < noise else team
            found += [{"reply": f"team: {t}\nsummary: x", "inputs": {"message": f"m{number}"}} for t in (team, other)]
        return found

    found = told(asked(random.Random(1), 0.02), asked(random.Random(2), 0.3), tmp_path)
    assert found["alarms"] == ["another answer when asked again"]

    def log(*inputs: str) -> list[Row]:
        named = zip(TEAMS, inputs, strict=False)
        return [{"reply": f"team: {team}\nsummary: x", "inputs": {"message": name}} for team, name in named]

    tests = {test["name"]: test for test in told(log("a", "a"), log("b", "c"), tmp_path)["tests"]}
    again = tests["another answer when asked again"]
    assert (again["was"], again["now"]) == (1.0, None), "inputs of a log are not those of its reference"


def test_clean_logs_alarm_in_at_most_a_twentieth(tmp_path: Path) -> None:
    alarms = 0
    for seed in range(24):
        rng = random.Random(seed)
        alarms += told(rows(rng, (60, 500)[seed % 2]), rows(rng, 150), tmp_path)["drift"]
    assert alarms <= 1


def test_a_tiny_difference_in_a_huge_log_is_no_alarm_unless_the_limit_says_so(tmp_path: Path) -> None:
    def team_only(seed: int, mix: tuple[float, ...], name: str) -> Recorded:
        replies = random.Random(seed).choices(TEAMS, mix, k=8_000)
        return window([{"reply": f"team: {team}\nsummary: x"} for team in replies], tmp_path / name)

    was, now = team_only(5, MIX, "was.jsonl"), team_only(6, (0.36, 0.34, 0.2, 0.1), "now.jsonl")
    found = told_of(was, now, PROMPT, Drift())
    (labels,) = [test for test in found["tests"] if test["name"] == "labels of team"]
    assert labels["p_value"] < 1e-6
    assert not found["drift"]
    assert told_of(was, now, PROMPT, Drift(labels=0.01))["alarms"] == ["labels of team"]


def test_few_answers_are_tested_by_permutation_and_what_is_not_there_by_nothing(tmp_path: Path) -> None:
    def says(*teams: str) -> list[Row]:
        return [{"reply": f"team: {team}\nsummary: x"} for team in teams]

    found = told(says(*["billing"] * 12), says(*["repair"] * 3, *["billing"] * 5), tmp_path)
    (labels,) = [test for test in found["tests"] if test["name"] == "labels of team"]
    assert labels["test"] == "permutation test of the chi-square"
    assert labels["p_value"] == pytest.approx(56 / 1140, abs=0.01)  # 3 of 20 fall into the 8: C(8,3) / C(20,3)
    unknown = {test["name"] for test in found["tests"] if test["p_value"] is None}
    assert unknown == {"another answer when asked again", "score"}
    assert found["from"] is None
    with pytest.raises(InputError, match="no answers"):
        told_of(Recorded((), {}), Recorded((), {}), PROMPT, Drift())


@each_case(
    "row, says",
    [
        ({"replay": "x"}, "reply: no key 'reply'; did you mean 'replay'?"),
        ({"reply": 3}, "reply: 3 is not a text"),
        ({"reply": "x", "score": 2}, "score: 2 is not a number from 0 to 1"),
        ({"reply": "x", "score": True}, "score: True is not a number from 0 to 1"),
        ({"reply": "x", "confidence": 1.4}, "confidence: 1.4 is not a number from 0 to 1"),
        ({"reply": "x", "time": "soon"}, "time: 'soon' is not a time"),
        ({"reply": "x", "time": [1]}, "time: [1] is not a time"),
    ],
)
def test_a_wrong_row_is_named_with_its_line(tmp_path: Path, row: Row, says: str) -> None:
    with pytest.raises(ProblemsError) as raised:
        window([{"reply": "x"}, row], tmp_path / "log.jsonl")
    assert "log.jsonl:2" in str(raised.value)
    assert says in str(raised.value)


def test_keys_may_have_other_names_and_others_are_ignored(tmp_path: Path) -> None:
    plain = rows(random.Random(7), 40)
    named = [
        {"trace": {"id": at, "score": "high"}, "response": {"text": row["reply"]}, "message": row["inputs"]["message"]}
        | {"rating": row["score"], "reply": 5}
        for at, row in enumerate(plain)
    ]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in named), "utf-8")
    columns = {"reply": "response.text", "inputs": "message", "score": "rating"}
    found, wanted = Recorded.of_log(path, PROMPT, columns), window(plain, tmp_path / "plain.jsonl")
    assert found.notes == ()
    told = [told_of(each, each, PROMPT, Drift())["tests"] for each in (found, wanted)]
    assert told[0] == told[1]
    with pytest.raises(ProblemsError, match=r"log.jsonl:1: reply: 5 is not a text.*and so in 39 more lines"):
        Recorded.of_log(path, PROMPT)
    csv = tmp_path / "log.csv"
    csv.write_text("at,question,answer\n1764057600,a,I say\n1764057601,a,I do\n,b,I am\n", "utf-8")
    found = Recorded.of_log(csv, PROMPT, {"reply": "answer", "inputs": "question", "time": "at"})
    assert found.times == ["2025-11-25T08:00:00+00:00", "2025-11-25T08:00:01+00:00"]
    assert (value_of({"a.b": 1, "a": {"b": 2}}, "a.b"), value_of({"a": {"b": {"c": 3}}}, "a.b.c")) == (1, 3)


def test_lines_that_cannot_be_read_are_left_out_and_listed_once_by_their_kind(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    lines = [json.dumps({"reply": f"team: billing\nsummary: {at}"}) for at in range(40)]
    for at in (3, 7, 8):
        lines[at] = json.dumps({"reply": "x", "score": at})
    for at in (5, 11):
        lines[at] = '{"reply": "cut of'
    lines[20] = json.dumps({"text": "x"})
    path.write_text("\n".join(lines), "utf-8")
    found = Recorded.of_log(path, PROMPT)
    assert len(found.answers) == 34
    score, invalid, missing = found.notes
    assert "log.jsonl:6: not valid JSON: " in invalid
    assert invalid.endswith("(and so in 1 more line); left out")
    assert "log.jsonl:4: score: 3 is not a number from 0 to 1 (and so in 2 more lines); left out" in score
    assert "log.jsonl:21: reply: no key 'reply'" in missing
    assert told_of(found, found, PROMPT, Drift())["notes"] == list(found.notes) * 2
    good, bad = {"reply": "team: billing\nsummary: x"}, {"reply": "x", "score": 7}
    assert len(window([good, good, bad], path).answers) == 2
    for half, why in (([good, bad, good, bad], "and so in 1 more line"), ([], "no rows")):
        with pytest.raises(ProblemsError, match=why):
            window(half, path)


@each_case(
    "value, time",
    [
        ("2026-11-25T08:00:00Z", "2026-11-25T08:00:00Z"),
        *((value, "2025-11-25T08:00:00+00:00") for value in (1764057600, 1764057600.0, "1764057600", "1764057600000")),
        (1e11, "1973-03-03T09:46:40+00:00"),
        (1e11 - 1, "5138-11-16T09:46:39+00:00"),
        (None, ""),
        *((value, "is not a time") for value in ("soon", {}, 1e300)),
    ],
)
def test_a_time_is_iso_or_seconds_or_milliseconds_since_1970(value: Any, time: str) -> None:
    if time != "is not a time":
        assert time_of(value) == time
        return
    with pytest.raises(ValueError, match=time):
        time_of(value)


def test_a_share_of_unsure_answers_that_moved_is_an_alarm(tmp_path: Path) -> None:
    sure = Prompt(replace(PROMPT.release, provenance={"abstain_below": 0.6}))

    def confident(below: int) -> Recorded:
        path, plain = tmp_path / f"{below}.jsonl", rows(random.Random(3), 200)
        found = [{**row, "confidence": 0.3 if at < below else 0.9} for at, row in enumerate(plain)]
        path.write_text("".join(json.dumps(row) + "\n" for row in found), "utf-8")
        return Recorded.of_log(path, sure)

    was, same, less, more = map(confident, (40, 42, 4, 90))
    assert told_of(was, same, sure, Drift())["alarms"] == []
    for moved in (less, more):
        found = told_of(was, moved, sure, Drift())
        assert found["alarms"] == ["confidence below 0.6"]
    assert (found["tests"][-1]["was"]["below"], found["tests"][-1]["now"]["below"]) == (0.2, 0.45)
    assert "confidence" not in str(told_of(was, more, PROMPT, Drift())["tests"])  # the release names none
