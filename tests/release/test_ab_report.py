"""Outcomes of two arms: what is read, what is refused, and when the test may end."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from agent.errors import InputError, ProblemsError
from agent.jobs.monitor import compared
from agent.release.production_logs import read_outcomes
from tests.cases import each_case
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


def report(path: Path, rows: list[dict[str, Any]], control: str | None = None, **more: Any) -> dict[str, Any]:
    return ab_report(read_outcomes(write(path / "o.jsonl", rows), control), **more)


def test_a_better_arm_may_be_shipped_whichever_is_the_control_and_equal_ones_are_undecided(tmp_path: Path) -> None:
    better = outcomes(1, 2000, (0.5, 0.62))
    one, two = (report(tmp_path, better, control) for control in (None, "B"))
    assert (one["verdict"], one["may_stop"], one["control"], one["uneven"]) == ("B is better", True, "A", None)
    assert (two["verdict"], two["control"]) == ("A is worse", "B")
    assert one["ci"][0] > 0
    assert two["diff"] == pytest.approx(-one["diff"])
    equal = outcomes(2, 4000, (0.5, 0.5))
    alike, undecided = report(tmp_path, equal, smallest=0.2), report(tmp_path, equal)
    assert (undecided["verdict"], undecided["may_stop"]) == ("undecided", False)
    assert (alike["verdict"], alike["may_stop"]) == ("no difference that matters", True)
    assert report(tmp_path, outcomes(4, 1000, (0.5, 0.5), split=0.35))["uneven"] < 0.001


def test_a_unit_counts_once_and_one_in_two_arms_never(tmp_path: Path) -> None:
    path, rows = tmp_path / "o.jsonl", outcomes(3, 40, (0.5, 0.5))
    with pytest.raises(ProblemsError, match=r"u0.*has an outcome on line 1; a unit counts once"):
        read_outcomes(write(path, [*rows, rows[0] | {"outcome": 1}]), None)
    with pytest.raises(ProblemsError) as raised:
        read_outcomes(write(path, [*rows, *rows]), None)
    (told,) = raised.value.problems
    assert told.where.endswith("o.jsonl:41")
    assert told.what.endswith("(and so in 39 more lines)")
    trial = read_outcomes(path, None, first=True)
    assert trial.left_out == 40
    assert trial.outcomes == read_outcomes(write(path, rows), None).outcomes
    both = [{"unit": 1, "arm": "A", "outcome": 1}, {"unit": 1, "arm": "B", "outcome": 1}]
    with pytest.raises(ProblemsError, match="on line 1 in 'A'"):
        read_outcomes(write(path, both), None, first=True)


@each_case(
    "row, says",
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
        with pytest.raises(InputError, match=f"{len(arms)} arms"):
            report(tmp_path, [{"unit": arm, "arm": arm, "outcome": 1} for arm in arms])
    with pytest.raises(InputError, match="the arms are A, B"):
        report(tmp_path, outcomes(1, 20, (0.5, 0.5)), "C")


def test_keys_may_have_other_names_and_outcomes_that_cannot_be_read_are_noted(tmp_path: Path) -> None:
    rows = outcomes(5, 60, (0.5, 0.5))
    named: list[dict[str, Any]] = [
        {"user": {"id": row["unit"]}, "variant": row["arm"], "bought": bool(row["outcome"]), "unit": "EUR"}
        for row in rows
    ]
    columns = {"unit": "user.id", "arm": "variant", "outcome": "bought"}
    found = read_outcomes(write(tmp_path / "o.jsonl", named), None, columns=columns)
    assert found == read_outcomes(write(tmp_path / "p.jsonl", rows), None)
    rows[4] |= {"outcome": None}
    rows[9] |= {"outcome": 2}
    told = read_outcomes(write(tmp_path / "o.jsonl", rows), None)
    assert len(told.outcomes) == 58
    (note,) = ab_report(told)["notes"]
    assert "o.jsonl:5: outcome: None is not a number from 0 to 1 (and so in 1 more line); left out" in note
