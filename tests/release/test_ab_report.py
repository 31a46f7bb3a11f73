"""Outcomes of two arms: what is read, what is refused, and when the test may end."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from agent.errors import InputError, ProblemsError
from agent.jobs.monitor import compared
from agent.release.production_logs import Experiment, read_outcomes
from tests.json_of import json_of

ab_report = json_of(compared)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def outcomes(seed: int, count: int, rates: tuple[float, float], split: float = 0.5) -> list[dict[str, Any]]:
    rng, rows = random.Random(seed), []
    for number in range(count):
        arm = int(rng.random() < split)
        rows.append({"unit": f"u{number}", "arm": "AB"[arm], "outcome": int(rng.random() < rates[arm])})
    return rows


def test_a_better_arm_may_be_shipped(tmp_path: Path) -> None:
    told = ab_report(read_outcomes(write(tmp_path / "o.jsonl", outcomes(1, 2000, (0.5, 0.62))), None))
    assert (told["verdict"], told["may_stop"], told["control"]) == ("B is better", True, "A")
    assert told["ci"][0] > 0
    assert told["uneven"] is None


def test_the_other_control_turns_the_sign(tmp_path: Path) -> None:
    path = write(tmp_path / "o.jsonl", outcomes(1, 2000, (0.5, 0.62)))
    one, two = (ab_report(read_outcomes(path, control)) for control in ("A", "B"))
    assert two["diff"] == pytest.approx(-one["diff"])
    assert two["verdict"] == "A is worse"


def test_equal_arms_are_undecided_or_alike(tmp_path: Path) -> None:
    trial = read_outcomes(write(tmp_path / "o.jsonl", outcomes(2, 4000, (0.5, 0.5))), None)
    assert ab_report(trial)["verdict"] == "undecided"
    assert not ab_report(trial)["may_stop"]
    alike = ab_report(trial, smallest=0.2)
    assert (alike["verdict"], alike["may_stop"]) == ("no difference that matters", True)


def test_equal_arms_looked_at_again_and_again_may_hardly_ever_stop() -> None:
    """Through the whole report; a thousand sequences are in `scoring/test_anytime.py`."""
    wrong = 0
    for seed in range(40):
        rows = [("AB".index(row["arm"]), float(row["outcome"])) for row in outcomes(seed, 120, (0.4, 0.4))]
        wrong += any(ab_report(Experiment(("A", "B"), tuple(rows[:seen])))["may_stop"] for seen in range(30, 120, 10))
    assert wrong <= 2


def test_a_unit_counts_once(tmp_path: Path) -> None:
    rows = outcomes(3, 40, (0.5, 0.5))
    again = [*rows, rows[0] | {"outcome": 1}]
    with pytest.raises(ProblemsError, match=r"u0.*has an outcome on line 1; a unit counts once"):
        read_outcomes(write(tmp_path / "o.jsonl", again), None)
    trial = read_outcomes(write(tmp_path / "o.jsonl", again), None, first=True)
    assert trial.left_out == 1
    assert trial.outcomes == read_outcomes(write(tmp_path / "o.jsonl", rows), None).outcomes


def test_a_unit_in_two_arms_is_refused_always(tmp_path: Path) -> None:
    rows = [{"unit": 1, "arm": "A", "outcome": 1}, {"unit": 1, "arm": "B", "outcome": 1}]
    with pytest.raises(ProblemsError, match="on line 1 in 'A'"):
        read_outcomes(write(tmp_path / "o.jsonl", rows), None, first=True)


def test_an_uneven_split_is_told(tmp_path: Path) -> None:
    told = ab_report(read_outcomes(write(tmp_path / "o.jsonl", outcomes(4, 1000, (0.5, 0.5), split=0.35)), None))
    assert told["uneven"] < 0.001


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"unit": "x", "arm": "A", "outcome": 2}, "outcome: 2 is not a number from 0 to 1"),
        ({"unit": "x", "arm": "A", "outcome": None}, "outcome: None"),
        ({"unit": "x", "arm": "A"}, "outcome: no key 'outcome'"),
        ({"unit": "", "arm": "A", "outcome": 1}, "unit: '' is not a name"),
        ({"unit": "x", "arm": None, "outcome": 1}, "arm: None is not a name"),
        ({"unit": "x", "arm": "A", "outcme": 1}, "did you mean 'outcme'?"),
    ],
)
def test_a_wrong_row_is_named_with_its_line(tmp_path: Path, row: dict[str, Any], says: str) -> None:
    with pytest.raises(ProblemsError) as raised:
        read_outcomes(write(tmp_path / "o.jsonl", [{"unit": "u", "arm": "A", "outcome": 1}, row]), None)
    assert "o.jsonl:2" in str(raised.value)
    assert says in str(raised.value)


def test_other_than_two_arms_are_refused(tmp_path: Path) -> None:
    for arms in ("A", "ABC"):
        rows = [{"unit": arm, "arm": arm, "outcome": 1} for arm in arms]
        with pytest.raises(InputError, match=f"{len(arms)} arms"):
            read_outcomes(write(tmp_path / "o.jsonl", rows), None)
    with pytest.raises(InputError, match="the arms are A, B"):
        read_outcomes(write(tmp_path / "o.jsonl", outcomes(1, 20, (0.5, 0.5))), "C")


def test_other_keys_are_ignored_and_ours_may_have_other_names(tmp_path: Path) -> None:
    rows = outcomes(5, 60, (0.5, 0.5))
    named = [
        {"user": {"id": row["unit"]}, "variant": row["arm"], "bought": bool(row["outcome"]), "unit": "EUR", "price": 3}
        for row in rows
    ]
    columns = {"unit": "user.id", "arm": "variant", "outcome": "bought"}
    found = read_outcomes(write(tmp_path / "o.jsonl", named), None, columns=columns)
    assert found == read_outcomes(write(tmp_path / "o.jsonl", rows), None)
    assert ab_report(found)["notes"] == []


def test_outcomes_that_cannot_be_read_are_left_out_with_a_note(tmp_path: Path) -> None:
    rows = outcomes(6, 40, (0.5, 0.5))
    rows[4] |= {"outcome": None}
    rows[9] |= {"outcome": 2}
    found = read_outcomes(write(tmp_path / "o.jsonl", rows), None)
    assert len(found.outcomes) == 38
    (note,) = ab_report(found)["notes"]
    assert "o.jsonl:5: outcome: None is not a number from 0 to 1 (and so in 1 more line); left out" in note


def test_units_that_count_twice_are_listed_once(tmp_path: Path) -> None:
    rows = outcomes(7, 30, (0.5, 0.5))
    with pytest.raises(ProblemsError) as raised:
        read_outcomes(write(tmp_path / "o.jsonl", [*rows, *rows]), None)
    (told,) = raised.value.problems
    assert told.where.endswith("o.jsonl:31")
    assert told.what.endswith("(and so in 29 more lines)")
