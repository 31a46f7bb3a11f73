"""A rubric is read as people write it; each mistake in one is named at its line, and no text raises."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import Problem, ProblemsError
from agent.task.judge_files import MOST_CHARACTERS, MOST_CRITERIA, generic_rubric, read_rubric
from agent.types import Criterion, Rubric

GOOD = """\
# Teaser

Rate the words only.

## hook (weight 2.5)

Does it make one want to listen?
A summary does not.

- 1: no reason to
- 3: perhaps
- 5: you would press play

## tone_of_voice
* 1: another tone
* 5: the right one
"""


def rubric_in(text: str) -> Rubric:
    return read_rubric(text, "rubric.md")


def refused(text: str) -> list[tuple[int, str]]:
    """(line, what is wrong) of each problem."""
    with pytest.raises(ProblemsError) as caught:
        read_rubric(text, "t/rubric.md")
    found = [re.fullmatch(r"t/rubric\.md:(\d+): (.+)", str(problem)) for problem in caught.value.problems]
    return [(int(match[1]), match[2]) for match in found if match is not None]


def test_a_rubric_is_read_whole() -> None:
    assert rubric_in(GOOD) == Rubric(
        GOOD.strip(),
        (
            Criterion(
                "hook",
                2.5,
                "Does it make one want to listen? A summary does not.",
                ((1, "no reason to"), (3, "perhaps"), (5, "you would press play")),
            ),
            Criterion("tone_of_voice", 1.0, "", ((1, "another tone"), (5, "the right one"))),
        ),
        1,
        5,
    )


@pytest.mark.parametrize(
    "text", ["Be fair.", "# Title\n\n- 1: bad\n- 9: good\n", "hook\n====\nDoes it pull?", "\n\n.\n\n"]
)
def test_a_text_without_sections_is_one_criterion_from_1_to_5(text: str) -> None:
    assert rubric_in(text) == Rubric(text.strip(), (Criterion("quality", 1.0, ""),), 1, 5)


@pytest.mark.parametrize(
    ("levels", "scale"),
    [
        ("", (1, 5)),
        ("- 1: a\n- 5: b", (1, 5)),
        ("- 0: a\n- 1: b", (0, 1)),
        ("- 1: a\n- 4: b\n- 10: c", (1, 10)),
        ("  *  2 :  a\n\t-  03 : b", (2, 3)),
    ],
)
def test_the_scale_is_that_of_the_levels(levels: str, scale: tuple[int, int]) -> None:
    rubric = rubric_in(f"## hook\n{levels}\n\n## tone\nNo levels here.\n")
    assert (rubric.low, rubric.high) == scale
    assert rubric.criteria[1] == Criterion("tone", 1.0, "No levels here.")


@pytest.mark.parametrize(
    ("heading", "criterion"),
    [
        ("## hook", ("hook", 1.0)),
        ("##   hook  ", ("hook", 1.0)),
        ("## hook (weight 3)", ("hook", 3.0)),
        ("## hook(weight  0.25)", ("hook", 0.25)),
        ("##\thook_2 (weight 007)", ("hook_2", 7.0)),
        (f"## {'h' * 40}", ("h" * 40, 1.0)),
    ],
)
def test_a_heading_is_a_name_and_a_weight(heading: str, criterion: tuple[str, float]) -> None:
    (found,) = rubric_in(heading).criteria
    assert (found.name, found.weight) == criterion


@pytest.mark.parametrize(
    "heading",
    [
        *("Hook", "hook line", "2hook", "_hook", "hook-line", "hook (weight)", "hook (weight two)", "hook (weight -1)"),
        *("hook (weight 1.)", "hook (weight .5)", "hook (weight 1e3)", "hook (weight 2) (weight 3)", "hook weight 2"),
        *("hook: does it pull?", "häkchen", "h" * 41, "# hook", "hook (Weight 2)", "hook (weight ٢)"),
    ],
)
def test_a_heading_that_is_no_criterion_is_named_at_its_line(heading: str) -> None:
    ((line, what),) = refused(f"# Title\n\n## tone\nx\n## {heading}\n- 1: a\n- 5: b\n")
    assert line == 5
    assert "is no criterion; write ## name (weight 2)" in what


MISTAKES = [
    ("", 1, "the rubric is empty"),
    (" \n\t\n\n", 1, "the rubric is empty"),
    ("x" * (MOST_CHARACTERS + 1), 1, f"{MOST_CHARACTERS + 1} characters"),
    ("# T\n\n## hook\na\n\n## hook\nb\n", 6, "'hook' cannot be used twice"),
    ("# T\n## hook\n## tone\n## craft\n## tone (weight 2)\n", 5, "'tone' cannot be used twice"),
    ("\n## reason\nWhy?\n", 2, "'reason' cannot be used twice, nor be called reason"),
    ("\n\n## hook (weight 0)\n", 3, "'hook' has weight 0"),
    ("## tone\n## hook (weight 0.000)\n", 2, "'hook' has weight 0"),
    (f"## tone\n## hook (weight 0.{'0' * 400}1)\n", 2, "'hook' has weight 0"),
    ("## tone\n\n## hook\nx\n- 1: a\n", 3, "the levels of 'hook' must rise, two or more"),
    ("\n## hook\n- 5: a\n- 1: b\n", 2, "the levels of 'hook' must rise"),
    ("\n## hook\n- 1: a\n- 1: b\n", 2, "the levels of 'hook' must rise"),
    ("\n## hook\n- 1: a\n- 3: b\n- 2: c\n- 5: d\n", 2, "the levels of 'hook' must rise"),
    ("## hook\n- 1: a\n- 5: b\n\n## tone\n- 1: a\n- 4: b\n", 5, "the levels of 'tone' go from 1 to 4"),
    ("## hook\n- 1: a\n- 5: b\n## x\n## tone\n- 0: a\n- 5: b\n", 5, "those before from 1 to 5; use one scale"),
    ("\n".join(f"## c{n}" for n in range(MOST_CRITERIA + 1)), MOST_CRITERIA + 1, f"more than {MOST_CRITERIA} criteria"),
    ("\n".join(f"## c{n}" for n in range(MOST_CRITERIA + 5)), MOST_CRITERIA + 1, f"more than {MOST_CRITERIA} criteria"),
]


@pytest.mark.parametrize(("text", "line", "words"), MISTAKES, ids=[mistake[2][:30] for mistake in MISTAKES])
def test_one_mistake_is_one_problem_at_its_line(text: str, line: int, words: str) -> None:
    ((found, what),) = refused(text)
    assert found == line
    assert words in what


lines = st.sampled_from(
    [
        *("", "# T", "## hook", "## tone (weight 2)", "## craft (weight 0)", "## Hook", "##", "## ", "##hook", "###"),
        *(
            "- 1: a",
            "- 2: b",
            "* 5: c",
            "- 10: d",
            "- 5:",
            "- x: y",
            "1: a",
            "prose",
            "\r",
            "\t",
            "\ud800",
            "\x85",
            "-",
        ),
    ]
)
texts = st.lists(lines | st.text(max_size=10), max_size=30).map("\n".join)


@given(texts | st.text(st.characters(codec=None, exclude_categories=())) | st.text("# hook(weight0123)-*:.\n"))
def test_any_text_is_a_usable_rubric_or_has_problems_at_its_lines(text: str) -> None:
    rubric, problems = None, tuple[Problem, ...]()
    try:
        rubric = read_rubric(text, "rubric.md")
    except ProblemsError as error:
        problems = error.problems
    assert (rubric is None) == bool(problems)
    for problem in problems:
        line = re.fullmatch(r"rubric\.md:(\d+): .+", str(problem))
        assert line is not None
        assert 1 <= int(line[1]) <= text.count("\n") + 1
        assert str(problem).isprintable()
    if rubric is not None:
        names = [criterion.name for criterion in rubric.criteria]
        assert 1 <= len(names) == len(set(names)) <= MOST_CRITERIA
        assert "reason" not in names
        assert rubric.low < rubric.high
        for criterion in rubric.criteria:
            assert 0 < criterion.weight < math.inf
            assert [rating for rating, _ in criterion.levels] == sorted({rating for rating, _ in criterion.levels})
            assert not criterion.levels or (criterion.levels[0][0], criterion.levels[-1][0]) == (
                rubric.low,
                rubric.high,
            )


@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9_]{0,39}", fullmatch=True), st.integers(1, 999), min_size=1, max_size=12
    ),
    st.sets(st.integers(0, 99), min_size=2, max_size=9),
)
def test_every_written_criterion_is_read_back(weights: dict[str, int], ratings: set[int]) -> None:
    weights.pop("reason", None)
    weights = weights or {"hook": 1}
    levels = "".join(f"- {rating}: level {rating}\n" for rating in sorted(ratings))
    rubric = rubric_in("".join(f"## {name} (weight {weight})\n{levels}" for name, weight in weights.items()))
    assert {criterion.name: criterion.weight for criterion in rubric.criteria} == weights
    assert (rubric.low, rubric.high) == (min(ratings), max(ratings))


def test_the_rubric_of_nobody_has_the_criteria_and_the_scale_that_were_asked_for() -> None:
    assert [criterion.name for criterion in generic_rubric().criteria] == ["quality"]
    rubric = generic_rubric(["hook", "tone"], 0, 3)
    assert [(criterion.name, criterion.weight) for criterion in rubric.criteria] == [("hook", 1.0), ("tone", 1.0)]
    assert (rubric.low, rubric.high) == (0, 3)
    assert "0 is useless, 3 could not be better" in rubric.text
    assert rubric_in(generic_rubric().text) == generic_rubric()
