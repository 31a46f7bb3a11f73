"""suite.json: what is written is read again, whatever the texts; what is no suite is refused in a line."""

import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ReleaseError
from agent.evaluate.breakdown import is_answer
from agent.jobs.released import task_of_suite
from agent.release.export import HOSTILE
from agent.release.runtime import Prompt
from agent.release.suite import Sample, Suite, read_suite, require_fit, suite_of, write_suite
from agent.types import Example, Field, MetricSpec, Outcome, Prediction
from tests.cases import each_case
from tests.release.formats.sample import release
from tests.toys import make_task

TEAM = Field("team", "choice", choices=("billing", "delivery"))
PROMPT = Prompt(release(name="toy", outputs=(TEAM,)))


def suite() -> Suite:
    rows = tuple(
        Example(f"r{at}", {"message": text}, {"team": text, "n": at, "list": [text, None]})
        for at, text in enumerate(HOSTILE)
    )
    metrics = (MetricSpec("exact_match", "team"), MetricSpec("judge", "team", options={"mode": "pairwise"}))
    task = replace(make_task(), dev=rows, metrics=metrics, judges=("a/b",))
    samples = [[Sample(text, 0.5), Sample("", None, "refused"), Sample("billing", None)] for text in HOSTILE]
    return suite_of(task, PROMPT, "m/x", samples, {"reason": "why\n\x1b", "actor": "me"})


def test_what_is_written_is_read_again_with_hostile_texts(tmp_path: Path) -> None:
    before = suite()
    write_suite(before, tmp_path / "deep" / "suite.json")
    after = read_suite(tmp_path / "deep" / "suite.json")
    assert after == before
    assert after.id == before.id
    assert (tmp_path / "deep" / "suite.json").read_bytes().isascii()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["suite.json"]


@each_case("options, whole", [({}, False), ({"rubric": "own.md"}, True), ({"mode": "pairwise"}, True)])
def test_a_judge_without_its_rubric_is_damage(tmp_path: Path, options: dict[str, str], whole: bool) -> None:
    judge = MetricSpec("judge", "team", options=options)
    path = tmp_path / "suite.json"
    write_suite(replace(suite(), metrics=(judge,), rubrics={"own.md": "- 1: bad\n- 5: good\n"}), path)
    if whole:
        assert read_suite(path).metrics == (judge,)
    else:
        with pytest.raises(ReleaseError, match=r"is damaged: its judge uses 'rubric\.md', which is not among"):
            read_suite(path)


def test_recorded_answers_are_read_as_the_prompt_reads_them_and_an_error_is_no_score_of_0() -> None:
    one = suite()
    assert replace(one, note={"reason": "another"}).id == one.id != replace(one, rows=one.rows[::-1]).id
    task = replace(make_task(), dev=make_task().dev[:2])
    samples = [[Sample("Billing.", 1.0)], [Sample("no team at all", 0.0), Sample("", None, "refused")]]
    recorded = suite_of(task, PROMPT, "m", samples, {}).recorded(PROMPT)
    assert recorded[0][0].prediction.fields == {"team": "billing"}
    assert recorded[1][0].prediction.error
    assert [[is_answer(outcome) for outcome in row] for row in recorded] == [[True], [True, False]]
    assert Sample.of(Outcome("c", "r", Prediction({}, "", "too long"), (), None)) == Sample("", None, "too long")
    assert Sample.of(Outcome("c", "r", Prediction({}, "hm", "no team"), (), 0.0, "k")) == Sample("hm", 0.0)


ROW: dict[str, Any] = {"id": "a", "inputs": {}, "labels": {}, "answers": [{"reply": "", "value": 1}]}


@each_case(
    "change, says",
    [
        ({"suite": 2}, "is not a suite of form 1"),
        ({"rows": []}, "no rows"),
        ({"rows": [ROW | {"answers": []}]}, "without a recorded answer"),
        ({"rows": [ROW | {"answers": [{"reply": "x", "value": 2}]}]}, "must be a score from 0 to 1"),
        ({"rows": [ROW | {"inputs": {"m": 1}}]}, "rows[0].inputs.m must be a text"),
        ({"rows": [ROW | {"answers": ROW["answers"] * 6}]}, "more than 5"),
        ({"rows": [ROW] * 2}, "the same id"),
        ({"rows": 3}, "is damaged"),
        ({"metrics": []}, "no metrics"),
        ({"judges": [3]}, "must be a text"),
        *((text, "optimize bless") for text in ("", "{", "[1]", "nul", "[" * 100_000, b"\xff")),
        ('{"suite": 1, "name": "a", "name": "b"}', "the key 'name' stands twice"),
    ],
)
def test_what_is_no_suite_is_refused_in_a_line(tmp_path: Path, change: Any, says: str) -> None:
    path = tmp_path / "suite.json"
    write_suite(suite(), path)
    text = json.dumps(json.loads(path.read_text()) | change) if isinstance(change, dict) else change
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ReleaseError) as raised:
        read_suite(path)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "suite.json" in str(raised.value)


def test_rows_must_have_the_inputs_of_the_prompt() -> None:
    fit = suite()
    require_fit(fit, PROMPT, "suite.json")
    other = replace(fit, rows=(replace(fit.rows[0], id="r", inputs={"text": "x"}), *fit.rows[1:]))
    with pytest.raises(ReleaseError, match=r"row 'r' has the inputs text, the prompt needs message"):
        require_fit(other, PROMPT, "suite.json")


def test_a_suite_names_no_code() -> None:
    """Its folder is what the caller says, whatever the file says."""
    task = task_of_suite(replace(suite(), metrics=(MetricSpec("python", "team"),)), PROMPT, Path("here"), {})
    assert task.folder == "here"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_who_may_read_it_is_what_the_umask_says(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_suite(suite(), tmp_path / "suite.json")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "suite.json").stat().st_mode) == mode
