"""The advice rule: each of its cases, and that dev, order and names have no say."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from agent.jobs.customize.table import Advice, MeasuredArm, advise
from agent.stats.intervals import scored_difference

ROWS = {"a": 40, "b": 40}


def scored(name: str, scores: Sequence[float | None], break_even: int | None = None) -> MeasuredArm:
    family = {"c": "no model", "l": "tuned"}.get(name[0], "prompt")
    return MeasuredArm(name, "", family, "", scores, 0, break_even_calls=break_even)  # type: ignore[arg-type]


def arm(name: str, right: int, n: int = 100, break_even: int | None = None) -> MeasuredArm:
    return scored(name, [1.0] * right + [0.0] * (n - right), break_even)


def advice(*arms: MeasuredArm, rows: dict[str, int] | None = None, calls: int | None = None) -> Advice:
    return advise(arms, rows or ROWS, calls)


def test_a_classifier_within_noise_of_the_best_needs_no_language_model() -> None:
    said = advice(arm("yours", 20), arm("best", 60), arm("lora", 84), arm("classifier", 82))
    assert (said.verdict, said.arm, said.best) == ("no model", "classifier", "lora")
    assert said.behind is not None
    assert said.behind.ci95[0] <= 0 < said.behind.diff


def test_the_best_arm_itself_may_be_without_a_model() -> None:
    said = advice(arm("yours", 20), arm("lora", 70), arm("classifier", 95))
    assert (said.verdict, said.arm, said.behind) == ("no model", "classifier", None)


def test_a_prompt_within_noise_of_the_best_is_enough() -> None:
    said = advice(arm("yours", 20), arm("best", 82), arm("lora", 84), arm("classifier", 50))
    assert (said.verdict, said.arm) == ("instruct", "best")


def test_a_tuned_arm_ahead_of_every_prompt_is_worth_its_training() -> None:
    said = advice(arm("yours", 2), arm("best", 48), arm("lora", 84, break_even=63), arm("classifier", 60))
    assert (said.verdict, said.arm, said.behind) == ("customize", "lora", None)


def test_too_few_rows_a_label_or_too_few_calls_speak_against_training() -> None:
    arms = (arm("yours", 2), arm("best", 48), arm("lora", 84, break_even=63), arm("classifier", 60))
    assert advice(*arms, rows={"a": 10, "b": 2}).verdict == "label more"
    assert advice(*arms, rows={"a": 10, "b": 2}).scarce == {"b": 2}
    assert advice(*arms, calls=62).verdict == "instruct"
    assert advice(*arms, calls=63).verdict == "customize"
    assert advice(*arms[:2], arm("lora", 84), arms[3], calls=10**9).verdict == "instruct"  # never paid for


SCORES = st.lists(st.one_of(st.none(), st.sampled_from([0.0, 1.0])), min_size=30, max_size=30)


@given(SCORES, SCORES, SCORES, SCORES)
def test_whatever_was_measured_there_is_advice(
    yours: Sequence[float | None],
    best: Sequence[float | None],
    lora: Sequence[float | None],
    none: Sequence[float | None],
) -> None:
    arms = [
        scored("yours", yours),
        scored("best", best),
        scored("lora", lora, 10),
        scored("classifier", none),
    ]
    said = advise(arms, ROWS)
    by_name = {each.arm: each for each in arms}
    top = by_name[said.best]
    assert all(each.mean <= top.mean for each in arms)
    if said.verdict == "customize":
        ahead = [scored_difference(top.scores, each.scores, 0) for each in arms if each.family != "tuned"]
        assert all(each is None or each.ci95[0] > 0 for each in ahead)
