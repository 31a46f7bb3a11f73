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
from agent.release.runtime import Prompt, PromptRelease
from agent.types import Drift, Field, Message
from tests.json_of import json_of

told_of = json_of(monitored)

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
    found = told_of(was, now, PROMPT, Drift())
    (labels,) = [test for test in found["tests"] if test["name"] == "labels of team"]
    assert labels["p_value"] < 1e-6
    assert not found["drift"]
    strict = told_of(was, now, PROMPT, Drift(labels=0.01))
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
        ({"replay": "x"}, "reply: no key 'reply'; did you mean 'replay'?"),
        ({"reply": 3}, "reply: 3 is not a text"),
        ({"reply": "x", "score": 2}, "score: 2 is not a number from 0 to 1"),
        ({"reply": "x", "time": "soon"}, "time: 'soon' is not a time"),
        ({"reply": "x", "time": [1]}, "time: [1] is not a time"),
        ({"reply": "x", "score": True}, "score: True is not a number from 0 to 1"),
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
        told_of(Recorded((), {}), Recorded((), {}), PROMPT, Drift())


def test_keys_that_nobody_asks_for_are_ignored_and_ours_may_have_other_names(tmp_path: Path) -> None:
    rng = random.Random(7)
    plain = rows(rng, 40)
    as_it_is = [
        {
            "trace": {"id": at, "score": "high"},
            "response": {"text": row["reply"]},
            "message": row["inputs"]["message"],
            "rating": row["score"],
            "reply": 5,
        }
        for at, row in enumerate(plain)
    ]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in as_it_is), "utf-8")
    columns = {"reply": "response.text", "inputs": "message", "score": "rating"}
    found = Recorded.of_log(path, PROMPT, columns)
    wanted = window(plain, tmp_path / "plain.jsonl")
    assert found.notes == ()
    assert [(a.prediction, a.value) for (a,) in found.answers.values()] == [
        (a.prediction, a.value) for (a,) in wanted.answers.values()
    ]
    told = [told_of(each, each, PROMPT, Drift())["tests"] for each in (found, wanted)]
    assert told[0] == told[1]
    with pytest.raises(ProblemsError, match=r"log.jsonl:1: reply: 5 is not a text.*and so in 39 more lines"):
        Recorded.of_log(path, PROMPT)


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
    assert missing.endswith("; left out")
    now = window([{"reply": "team: billing\nsummary: x"}] * 9, tmp_path / "now.jsonl")
    assert told_of(found, now, PROMPT, Drift())["notes"] == list(found.notes)


def test_a_log_of_which_half_cannot_be_read_is_refused(tmp_path: Path) -> None:
    good, bad = {"reply": "team: billing\nsummary: x"}, {"reply": "x", "score": 7}
    assert len(window([good, good, bad], tmp_path / "log.jsonl").answers) == 2
    with pytest.raises(ProblemsError, match="and so in 1 more line"):
        window([good, bad, good, bad], tmp_path / "log.jsonl")


def test_a_csv_names_its_columns_too(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("at,question,answer\n1764057600,a,I say\n1764057601,a,I do\n,b,I am\n", "utf-8")
    found = Recorded.of_log(path, PROMPT, {"reply": "answer", "inputs": "question", "time": "at"})
    assert found.times == ["2025-11-25T08:00:00+00:00", "2025-11-25T08:00:01+00:00"]
    again = {test["name"]: test for test in told_of(found, found, PROMPT, Drift())["tests"]}
    assert again["another answer when asked again"]["was"] == 1.0


def test_a_time_is_iso_or_counts_from_1970() -> None:
    assert time_of("2026-11-25T08:00:00Z") == "2026-11-25T08:00:00Z"
    assert time_of(1764057600) == time_of("1764057600000") == time_of(1764057600.0) == "2025-11-25T08:00:00+00:00"
    assert time_of(None) == ""
    for wrong in ("soon", {}, 1e300):
        with pytest.raises(ValueError, match="is not a time"):
            time_of(wrong)


def test_a_dotted_name_that_is_a_key_itself_comes_first() -> None:
    assert value_of({"a.b": 1, "a": {"b": 2}}, "a.b") == 1
    assert value_of({"a": {"b": {"c": 3}}}, "a.b.c") == 3


def test_a_share_of_unsure_answers_that_moved_is_an_alarm(tmp_path: Path) -> None:
    sure = Prompt(replace(PROMPT.release, provenance={"abstain_below": 0.6}))

    def confident(below: int, name: str) -> Recorded:
        found = [
            {**row, "confidence": 0.3 if at < below else 0.9} for at, row in enumerate(rows(random.Random(3), 400))
        ]
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in found), "utf-8")
        return Recorded.of_log(path, sure)

    was, same, less, more = (confident(n, f"{n}.jsonl") for n in (80, 84, 20, 160))
    assert told_of(was, same, sure, Drift())["alarms"] == []
    for moved in (less, more):
        found = told_of(was, moved, sure, Drift())
        assert found["alarms"] == ["confidence below 0.6"]
    assert found["tests"][-1]["was"]["below"] == 0.2
    assert found["tests"][-1]["now"]["below"] == 0.4
    assert "confidence" not in str(told_of(was, more, PROMPT, Drift())["tests"])  # the release names none


def test_a_confidence_is_a_number_from_0_to_1(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"reply": "team: billing", "confidence": 1.4}\n', "utf-8")
    with pytest.raises(ProblemsError, match=r"log.jsonl:1: confidence: 1.4 is not a number from 0 to 1"):
        Recorded.of_log(path, PROMPT)


def test_inputs_of_a_log_are_not_taken_for_those_of_its_reference(tmp_path: Path) -> None:
    def log(*inputs: str) -> list[Row]:
        return [
            {"reply": f"team: {team}\nsummary: x", "inputs": {"message": name}}
            for team, name in zip(TEAMS, inputs, strict=False)
        ]

    tests = {test["name"]: test for test in told(log("a", "a"), log("b", "c"), tmp_path)["tests"]}
    again = tests["another answer when asked again"]
    assert (again["was"], again["now"]) == (1.0, None)
