"""The table of a comparison, the advice rule and the label curve, out of scores that are given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.jobs.customize.table import (
    Scored,
    advise,
    break_even,
    curve_lines,
    curve_sizes,
    curve_text,
    first_rows,
    table,
)
from agent.results.customize import ComparedArm, CurveScore, Forgetting
from agent.stats.intervals import scored_difference
from tests.toys import make_task


def scores(right: int, of: int = 100) -> list[float]:
    return [1.0] * right + [0.0] * (of - right)


FAMILIES = {"c": "no model", "l": "tuned"}


Measured = Scored[ComparedArm]


def measured(name: str, scored: Sequence[float | None], **fields: Any) -> Measured:
    family = FAMILIES.get(name[0], "prompt")
    named = {"arm": name, "about": "", "family": family, "candidate_id": "", "labels": 0}
    return Scored.of(ComparedArm, scored, **{**named, **fields})


def changed(one: Measured, **fields: Any) -> Measured:
    return replace(one, line=one.line.model_copy(update=fields))


def arm(name: str, right: int | Sequence[float | None], calls: int | None = None) -> Measured:
    """An arm with this number of 100 rows right, whose training pays after some calls."""
    return measured(name, scores(right) if isinstance(right, int) else right, break_even_calls=calls)


BALANCED = {"a": 40, "b": 40}
FOUR = (("yours", 2), ("best", 48), ("lora", 84), ("classifier", 60))


@pytest.mark.parametrize(
    ("right", "rows", "calls", "verdict", "chosen"),
    [
        ({"classifier": 82}, BALANCED, None, "no model", "classifier"),  # within noise of the best
        ({"classifier": 95}, BALANCED, None, "no model", "classifier"),  # the best itself
        ({"best": 82}, BALANCED, None, "instruct", "best"),  # a prompt is within noise
        ({}, BALANCED, None, "customize", "lora"),
        ({}, {"a": 10, "b": 6}, None, "customize", "lora"),  # 8 rows a label
        ({}, {"a": 10, "b": 5}, None, "label more", "best"),
        ({}, BALANCED, 62, "instruct", "best"),  # its training pays after 63 calls
        ({}, BALANCED, 63, "customize", "lora"),
    ],
)
def test_each_case_of_the_rule(
    right: dict[str, int], rows: dict[str, int], calls: int | None, verdict: str, chosen: str
) -> None:
    arms = [arm(name, right.get(name, count), 63 if name == "lora" else None) for name, count in FOUR]
    said = advise(arms, rows, calls)
    assert (said.verdict, said.arm) == (verdict, chosen)
    top = max(arms, key=lambda each: each.mean).line.arm
    assert (f"{top} is " in said.text) == (chosen != top and verdict != "label more")


def test_a_training_that_never_pays_is_not_advised() -> None:
    assert advise([arm(*each) for each in FOUR], BALANCED, 10**9).verdict == "instruct"


SCORES = st.lists(st.one_of(st.none(), st.sampled_from([0.0, 1.0])), min_size=30, max_size=30)


@given(st.tuples(SCORES, SCORES, SCORES, SCORES))
def test_whatever_was_measured_there_is_advice(measured: Sequence[Sequence[float | None]]) -> None:
    arms = [arm(name, found, 10) for (name, _), found in zip(FOUR, measured, strict=True)]
    said = advise(arms, BALANCED)
    if said.verdict == "customize":
        top = next(each for each in arms if each.line.arm == said.arm)
        assert all(each.mean <= top.mean for each in arms)
        ahead = [scored_difference(top.scores, each.scores, 0) for each in arms if each.line.family != "tuned"]
        assert all(each is None or each.ci95[0] > 0 for each in ahead)


# -- in words ---------------------------------------------------------------------------------------------------------

YOURS = measured("yours", scores(20), tokens_per_call=80, latency_s=0.3)
BEST = measured("best", scores(50), labels=6, tokens_per_call=400, latency_s=0.8)
OFF = Forgetting(right=3, same=5, n=20)
LORA = measured("lora", scores(90), labels=160, train_s=120.0, latency_s=0.2, elsewhere=OFF, megabytes=9.8)
NONE = measured("classifier", scores(40), labels=160, latency_s=0.0)
ARMS = [YOURS, BEST, LORA, NONE]
ROWS = {"a": 80, "b": 76, "c": 4}


def said(*arms: Measured, rows: dict[str, int] = ROWS, calls: int | None = None) -> str:
    lines, advice = table(arms, rows, calls, 0)
    assert [set(line.to_json()) for line in lines] == [set(ComparedArm.model_fields)] * len(arms)
    return advice.text


def test_the_advice_in_words() -> None:
    assert said(*ARMS) == (
        "Customize: lora reads 90.0 of 100 sealed rows right, ahead of every prompt; its training is paid for after "
        "200 calls; with the adapter on, 5 of 20 general questions are answered as before, so switch it on for this "
        "task alone; labels with fewer than 5 train rows: c (4)."
    )
    whole = [changed(each, arm="full") if each is LORA else each for each in ARMS]
    assert "once trained, 5 of 20 general questions are answered as before, so use it for this task" in said(*whole)
    few = said(*ARMS, calls=50)
    assert few.startswith("Instruct: best reads 50.0 of 100 sealed rows right; lora is +40.0 points (95 % CI ")
    assert "ahead, and fewer calls are expected than pay for its training" in few
    assert said(*ARMS, rows={"a": 9, "b": 9, "c": 4}).startswith(
        "Label more rows before you customize: lora leads with 90.0, on fewer than 8 train rows"
    )
    assert said(*ARMS[:3], measured("classifier", scores(89))) == (
        "You need no language model: classifier reads 89.0 of 100 sealed rows right; lora is +1.0 points (95 % CI "
        "-3.0 to +5.4) ahead, within noise."
    )


@pytest.mark.parametrize(
    ("change", "calls"),
    [
        ({}, 200),
        ({"latency_s": 0.9}, None),
        ({"latency_s": None}, None),
        ({"train_s": 0.0}, None),
        ({"train_usd": 2.0, "usd_per_1000": 0.5}, 4000),  # dollars count before seconds
        ({"train_usd": 2.0, "usd_per_1000": 1.0}, None),
        ({"train_usd": 2.0, "usd_per_1000": 3.0}, None),
        ({"train_usd": None, "usd_per_1000": 0.5}, None),
    ],
)
def test_training_is_paid_for_by_what_calls_save(change: dict[str, float | None], calls: int | None) -> None:
    assert break_even(changed(LORA, **change).line, changed(BEST, usd_per_1000=1.0).line) == calls


# -- the label curve --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sizes"), [("75, 24,all", [24, 75]), ("24,160", [24]), ("16", [16]), ("", []), ("all", [])]
)
def test_sizes_are_ascending_and_all_is_left_to_the_table(text: str, sizes: list[int]) -> None:
    assert curve_sizes(text, 160) == (sizes, [])


def test_what_is_wrong_with_sizes_is_named_all_at_once() -> None:
    _, problems = curve_sizes("x,15,161,-20", 160)
    assert [str(each) for each in problems] == [
        f"--curve: {word!r}: write numbers of train rows from 16 to 160, such as 24,75,all"
        for word in ("x", "15", "161", "-20")
    ]


def test_the_first_rows_hold_each_label_as_the_whole_does_and_grow() -> None:
    task = make_task(60)
    name = task.signature.outputs[0].name
    whole = Counter(str(row.labels[name]) for row in task.train)
    few, more = (first_rows(task, count, 0).train for count in (len(task.train) // 4, len(task.train) // 2))
    assert few == more[: len(few)]
    for label, count in Counter(str(row.labels[name]) for row in few).items():
        assert count == pytest.approx(len(few) * whole[label] / len(task.train), abs=1)
    assert {row.id for row in first_rows(task, 10, 1).train} != {row.id for row in few[:10]}


def point(arm: str, labels: int, right: int) -> Scored[CurveScore]:
    return Scored.of(CurveScore, scores(right), arm=arm, labels=labels, train_s=0.0)


def test_the_curve_says_where_arms_cross_and_whether_more_labels_pay() -> None:
    sizes = {"classifier": {24: 60, 75: 65, 150: 66}, "lora": {24: 40, 75: 80, 150: 95}}
    crossing = [point(name, size, sizes[name][size]) for size in (24, 75, 150) for name in sizes]
    lines = curve_lines(crossing)
    assert [(line.arm, line.labels, line.test) for line in lines] == [
        (name, size, right / 100) for name, of in sizes.items() for size, right in of.items()
    ]
    assert all(line.ci95 is not None and line.ci95[0] < (line.test or 0) < line.ci95[1] for line in lines)
    text = curve_text(crossing, 0)
    assert text.startswith(
        "Of the arms that learn classifier leads with 24 train rows, lora passes it between 24 and 75; "
        "from 75 to 150 rows lora gains +15.0 points (95 % CI "
    )
    assert text.endswith(
        "+2.0 for 10 rows: it still climbs, so more labels are likely to pay; each point is one training."
    )
    level = curve_text([point("lora", 24, 90), point("lora", 75, 91)], 0)
    assert "leads with 24 train rows and with all others up to 75: no arm passes it" in level
    assert "it is not shown that more labels pay" in level
    fall = curve_text([point("lora", 24, 90), point("lora", 75, 40)], 0)
    assert "gains -50.0 points" in fall
    assert "more labels of this kind are unlikely to pay" in fall
    alone = curve_text([point("lora", 24, 40), point("classifier", 75, 90)], 0)
    assert "classifier has one point, so what more rows bring is not known" in alone
    assert curve_text([point("lora", 24, 90)], 0) == curve_text([], 0) == ""
