"""Ratings and rubrics are read whole or refused at their lines; a file of ratings grows without losing any."""

import csv
import json
import math
import re
import stat
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.errors import InputError, Problem, ProblemsError
from agent.task.judge_files import (
    MOST_CHARACTERS,
    MOST_CRITERIA,
    RatedFile,
    RatedItem,
    RatingColumns,
    generic_rubric,
    pairs_of,
    read_ratings_file,
    read_rubric,
    require,
)
from agent.types import Criterion, Rubric
from tests.cases import each_case

TASKS = Path(__file__).parents[2] / "tasks"
SINGLE = RatingColumns(("question",), ("answer",))
PAIRED = RatingColumns(("question",), ("left", "right"), rating="votes")


def rated(answer: str = "Paris", rating: Any = 3, rater: Any = "ann", **more: Any) -> dict[str, Any]:
    return {"question": "capital?", "answer": answer, "rater": rater, "rating": rating, **more}


def voted(votes: Any, **more: Any) -> dict[str, Any]:
    return {"question": "capital?", "left": "Paris", "right": "Rome", "votes": votes, **more}


def write(*rows: dict[str, Any]) -> Path:
    Path("labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return Path("labels.jsonl")


def read(*rows: dict[str, Any], columns: RatingColumns = SINGLE) -> list[RatedItem]:
    return read_ratings_file(write(*rows), columns)


def refused(*rows: dict[str, Any], columns: RatingColumns = SINGLE) -> list[str]:
    with pytest.raises(ProblemsError) as caught:
        read(*rows, columns=columns)
    return str(caught.value).splitlines()


@each_case(
    ("scale", "rating", "value"),
    [((1, 5), 1, 0), ((1, 5), 2.5, 0.375), ((0, 100), 35, 0.35), ((-1, 1), 0, 0.5), ((1, 5), "5", 1)],
)
def test_a_rating_is_mapped_from_its_scale_to_0_and_1(scale: Any, rating: Any, value: float) -> None:
    (item,) = read(rated(rating=rating), columns=RatingColumns(("question",), ("answer",), scale=scale))
    assert (item.inputs, item.answers) == ({"question": "capital?"}, ("Paris",))
    assert item.mean == pytest.approx(value)


def test_rows_with_the_same_inputs_and_answer_are_one_item_with_all_raters() -> None:
    rows = [rated(rating=5), rated("Rome", 1), rated(rater="Doe, K", note="x"), rated(rater=0), rated(question="now?")]
    items = read(*rows)
    assert [(item.answers, len(item.ratings)) for item in items] == [(("Paris",), 3), (("Rome",), 1), (("Paris",), 1)]
    assert (items[0].ratings, items[0].mean) == ({"ann": 1.0, "Doe, K": 0.5, "0": 0.5}, pytest.approx(2 / 3))
    assert len({item.id for item in items}) == 3
    assert read(rated(rater=None))[0].id == items[0].id
    for given_rows in permutations([rated(reference="gold"), rated(rater="bob", reference=3), rated(rater="eve")]):
        assert read(*given_rows)[0].reference == "gold"
    with Path("labels.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    assert read_ratings_file(Path("labels.csv"), SINGLE) == items


@each_case(
    ("row", "said"),
    [
        *((rated("Oslo", wrong), "is not a number from 1 to 5; correct it or give --scale") for wrong in (0, 6, 5.01)),
        *((rated("Oslo", wrong), "is not a number from 1 to 5") for wrong in ("good", None, True, [3], "nan", "inf")),
        (rated(rating=5), "the rater 'ann' rated this answer before"),
        *(({**rated("Oslo"), name: wrong}, f"{name}: ") for name in ("question", "answer") for wrong in (None, 3, {})),
        ({"question": "capital?", "rating": 3}, "answer: "),
    ],
)
def test_a_wrong_row_is_refused_at_its_line(row: dict[str, Any], said: str) -> None:
    (line,) = refused(rated(), row)
    assert line.startswith("labels.jsonl:2: ")
    assert said in line


def test_every_problem_is_named_and_a_missing_column_with_its_near_miss() -> None:
    lines = refused(rated(rating=9), rated(), rated("Rome", rating="x"), rated(), {**rated("Oslo"), "question": 3})
    assert [line.split(":")[1] for line in lines] == ["1", "3", "4", "5"]
    (line,) = refused({"question": "capital?", "anwser": "Paris", "rating": 3})
    said = "no column 'answer'; did you mean 'anwser'? Known: question, anwser, rating"
    assert line == f"labels.jsonl:1: {said}"
    with pytest.raises(ProblemsError, match=r"labels.jsonl:1: no rows"):
        read()
    with pytest.raises(InputError, match=r"labels\.jsonl:1: 2 items; .* fewer than 3"):
        require(read(rated(), rated("Rome")), 3, Path("labels.jsonl"))


@each_case(
    ("votes", "rater", "ratings"),
    [
        *(("1", "ann", {"ann": 1.0}), (1, None, {"1": 1.0}), ("2", "ann", {"ann": 0.0}), (0, 0, {"0": 0.5})),
        *(("2,2,tie", "", {"1": 0.0, "2": 0.0, "3": 0.5}), (" A , b,Equal", " , ", {"1": 1.0, "2": 0.0, "3": 0.5})),
        ("2,tie", "ann, bob", {"ann": 0.0, "bob": 0.5}),
        *((votes, rater, "name each once, or none") for votes, rater in (("1,2,tie", "ann,bob"), ("1", "a,b"))),
        *((votes, rater, "name each once, or none") for votes, rater in (("1,2", "ann,ann"), ("1,2", "ann,,"))),
        *((wrong, "ann", "is no vote; write 1, 2 or tie") for wrong in ("3", "1,,2", "", None, "1;2")),
    ],
)
def test_votes_say_which_answer_is_better(votes: Any, rater: Any, ratings: dict[str, float] | str) -> None:
    if isinstance(ratings, str):
        (line,) = refused(voted(votes, rater=rater), columns=PAIRED)
        assert line.startswith("labels.jsonl:1: ")
        assert ratings in line
    else:
        (item,) = read(voted(votes, rater=rater), columns=PAIRED)
        assert (item.answers, item.ratings) == (("Paris", "Rome"), ratings)


def test_rated_answers_to_the_same_inputs_become_pairs_of_neighbours() -> None:
    rows = [rated("Paris", 5), rated("Oslo", question="now?"), rated("Rome", 1), rated("Bonn", 1), rated("Nice", 4)]
    found = pairs_of(read(*rows, rated("Paris", 1, "bob", reference="gold")))
    assert [pair.answers for pair in found] == [("Paris", "Rome"), ("Rome", "Bonn"), ("Bonn", "Nice")]
    assert [pair.mean for pair in found] == [1.0, 0.5, 0.0]
    assert [pair.reference for pair in found] == ["gold", "", ""]
    written = read(voted("1"), columns=PAIRED)
    assert found[0].id == written[0].id
    assert pairs_of(written) == written
    assert pairs_of([]) == []


CELLS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters())
    | st.sampled_from(["1", "2", "tie", "2,2,tie", "ann, bob", 3, 10**307, -(10**400)]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)  # fmt: skip
NAMES = st.sampled_from(["question", "answer", "left", "right", "votes", "rating", "rater", "reference"])


@given(st.lists(st.dictionaries(NAMES, CELLS), max_size=4), st.sampled_from([SINGLE, PAIRED]))
def test_any_cells_are_items_or_problems(rows: list[dict[str, Any]], columns: RatingColumns) -> None:
    for given_rows in (rows, [{**rated(), **voted("tie"), **row} for row in rows]):
        items, places = list[RatedItem](), list[str]()
        try:
            items = read(*given_rows, columns=columns)
        except ProblemsError as error:
            places = [problem.where for problem in error.problems]
        assert bool(items) != bool(places)
        assert all(place.startswith("labels.jsonl:") for place in places)
        assert all(item.ratings and 0 <= item.mean <= 1 for item in (*items, *pairs_of(items)))


@pytest.mark.parametrize(
    ("task", "columns"),
    [("podcast_blurb", (("topic", "tone"), ("teaser",))), ("clause_plain_english", (("clause",), ("plain",)))],
)
def test_the_ratings_and_rubrics_that_are_shipped(task: str, columns: Any) -> None:
    items = read_ratings_file(TASKS / task / "calibration.jsonl", RatingColumns(*columns))
    assert len(items) == 90
    assert {frozenset(item.ratings) for item in items} == {frozenset("ab")}
    text = (TASKS / task / "rubric.md").read_text("utf-8")
    rubric = read_rubric(text, "rubric.md")
    assert (rubric.low, rubric.high, rubric.text) == (1, 5, text.strip())
    for criterion in rubric.criteria:
        assert all(f"- {rating}: {what}" in text for rating, what in criterion.levels)
        assert criterion.about in text


# -- the file that grows -----------------------------------------------------------------------------------------------


def mark(item: Any, rater: Any, **more: Any) -> dict[str, Any]:
    return {"item": item, "rater": rater, "rating": 3, **more}


def test_ratings_are_appended_and_survive_reopening() -> None:
    path = Path("deep/er/ratings.jsonl")
    file = RatedFile(path)
    assert not path.exists()
    file.add({"item": "i1", **rated(rating=4)})
    assert json.loads(path.read_text("utf-8")) == file.rows[0]
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))  # as an editor leaves it
    again = RatedFile(path)
    again.add({"item": 2, **rated("Rome", 1, 7)})
    assert len(path.read_text("utf-8").splitlines()) == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert RatedFile(path).rows == again.rows
    assert [RatedFile(path).done(rater) for rater in ("ann", "7", "eve")] == [{"i1"}, {"2"}, set()]
    assert read_ratings_file(path, SINGLE)[0].ratings == {"ann": 0.75}


@given(st.text(st.characters(exclude_characters="\x00")))
@example("a\udce9")
def test_any_text_comes_back_with_lone_surrogates_replaced(text: str) -> None:
    path = Path("grown.jsonl")
    path.unlink(missing_ok=True)
    RatedFile(path).add(mark("i1", "ann", answer=text, **{f"rating_{text}": 1}))
    (row,) = RatedFile(path).rows
    readable = "".join("?" if "\ud800" <= letter <= "\udfff" else letter for letter in text)
    assert row == mark("i1", "ann", answer=readable, **{f"rating_{readable}": 1})


@each_case(
    ("name", "text", "said"),
    [
        ("ratings.txt", '{"item": "1", "rater": "a", "rating": 3}\n', "name a .jsonl file"),
        ("labels.csv", "item,rater,rating\n1,a,3\n", "name a .jsonl file"),
        ("r.jsonl", '{"message": "hello"}\n', "r.jsonl:1: no item: this is no file of ratings"),
        ("r.jsonl", '{"item": 1, "rater": "a"}\n', "r.jsonl:1: no rating"),
        ("r.jsonl", '{"item": 1, "rater": "a", "rating": true}\n', "the rating True is not a number"),
        ("r.jsonl", '{"item": 1}\n{"i', "r.jsonl:2: "),
    ],
)
def test_a_file_that_is_something_else_is_refused_and_left_alone(name: str, text: str, said: str) -> None:
    Path(name).write_text(text)
    with pytest.raises(ProblemsError, match=re.escape(said)):
        RatedFile(Path(name))
    assert Path(name).read_text() == text


def test_a_place_that_cannot_be_written_keeps_no_row() -> None:
    Path("taken").write_text("")
    for path in ("taken/ratings.jsonl", "a" * 300 + ".jsonl"):
        file = RatedFile(Path(path))
        with pytest.raises(InputError, match="cannot be written"):
            file.add(mark("i1", "ann"))
        assert file.rows == []


# -- rubrics -----------------------------------------------------------------------------------------------------------

GOOD = """\
# Teaser

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


def test_a_rubric_is_read_whole() -> None:
    levels = ((1, "no reason to"), (3, "perhaps"), (5, "you would press play"))
    hook = Criterion("hook", 2.5, "Does it make one want to listen? A summary does not.", levels)
    tone = Criterion("tone_of_voice", 1.0, "", ((1, "another tone"), (5, "the right one")))
    assert rubric_in(GOOD) == Rubric(GOOD.strip(), (hook, tone), 1, 5)
    assert rubric_in(GOOD.replace("\n", " \t\r\n")).criteria == (hook, tone)
    for text in ("Be fair.", "# Title\n\n- 1: bad\n- 9: good\n", "hook\n====\nDoes it pull?"):
        assert rubric_in(text) == Rubric(text.strip(), (Criterion("quality", 1.0, ""),), 1, 5)
    assert rubric_in(generic_rubric().text) == generic_rubric()
    generic = generic_rubric(["hook", "tone"], 0, 3)
    assert ([each.name for each in generic.criteria], generic.low, generic.high) == (["hook", "tone"], 0, 3)
    assert "0 is useless, 3 could not be better" in generic.text
    assert len(rubric_in("\n".join(f"## c{n}" for n in range(MOST_CRITERIA))).criteria) == MOST_CRITERIA
    assert rubric_in("x" * MOST_CHARACTERS).criteria[0].name == "quality"


@each_case(
    ("levels", "scale"),
    [
        ("", (1, 5)),
        ("- 0: a\n- 1: b", (0, 1)),
        ("- 1: a\n- 4: b\n- 10: c", (1, 10)),
        ("  *  2 :  a\n\t-  03 : b", (2, 3)),
    ],
)
def test_the_scale_is_that_of_the_levels(levels: str, scale: tuple[int, int]) -> None:
    rubric = rubric_in(f"## x\n## hook(weight  0.25)\n{levels}\n")
    assert (rubric.low, rubric.high) == scale
    assert (rubric.criteria[1].name, rubric.criteria[1].weight) == ("hook", 0.25)


@each_case(
    ("text", "line", "words"),
    [
        *((f"# T\n\n## {wrong}\nx\n", 3, "is no criterion") for wrong in ("Hook", "hook line", "2hook", "h" * 41)),
        *((f"# T\n\n## hook{wrong}\nx\n", 3, "is no criterion") for wrong in (" (weight)", " (weight -1)", "ä")),
        *((f"# T\n\n## hook{wrong}\nx\n", 3, "is no criterion") for wrong in (" (weight 1.)", " (weight ٢)")),
        (" \n\t\n\n", 1, "the rubric is empty"),
        ("x" * (MOST_CHARACTERS + 1), 1, f"{MOST_CHARACTERS + 1} characters"),
        ("# T\n\n## hook\na\n\n## hook\nb\n", 6, "'hook' cannot be used twice"),
        ("\n## reason\nWhy?\n", 2, "'reason' cannot be used twice, nor be called reason"),
        (f"## tone\n## hook (weight 0.{'0' * 400}1)\n", 2, "'hook' has weight 0"),
        (f"\n## hook (weight {'9' * 400})\n", 2, "is no criterion"),
        *((f"## a\n{levels}\n## t\n- 1: a\n- 5: b", 1, "'a' must rise") for levels in ("- 5: a", "- 5: a\n- 1: b")),
        ("## hook\n- 1: a\n- 1: b", 1, "the levels of 'hook' must rise"),
        ("## hook\n- 1: a\n- 5: b\n\n## tone\n- 1: a\n- 4: b\n", 5, "are not 1 to 5 as before; use one scale"),
        ("\n".join(f"## c{n}" for n in range(17)), MOST_CRITERIA + 1, f"more than {MOST_CRITERIA} criteria"),
    ],
)
def test_one_mistake_in_a_rubric_is_one_problem_at_its_line(text: str, line: int, words: str) -> None:
    with pytest.raises(ProblemsError) as caught:
        rubric_in(text)
    (problem,) = caught.value.problems
    assert problem.where == f"rubric.md:{line}"
    assert words in problem.what


LINES = st.sampled_from(
    [
        *("", "# T", "## hook", "## tone (weight 2)", "## craft (weight 0)", "## Hook", "##", "##hook", "- 1: a"),
        *("- 2: b", "* 5: c", "- 10: d", "- 5:", "- x: y", "prose", "\r", "\t", "\ud800", "\x85", "-"),
    ]
)


@given(st.lists(LINES | st.text(max_size=10), max_size=30).map("\n".join) | st.text("# hook(weight0123)-*:.\n"))
def test_any_text_is_a_usable_rubric_or_has_problems_at_its_lines(text: str) -> None:
    rubric, problems = generic_rubric(), tuple[Problem, ...]()
    try:
        rubric = rubric_in(text)
    except ProblemsError as error:
        problems = error.problems
    for problem in problems:
        assert 1 <= int(problem.where.split(":")[1]) <= text.count("\n") + 1
        assert str(problem).isprintable()
    names = [criterion.name for criterion in rubric.criteria]
    assert 1 <= len(names) == len(set(names)) <= MOST_CRITERIA
    assert rubric.low < rubric.high
    for criterion in rubric.criteria:
        found = [rating for rating, _ in criterion.levels]
        assert 0 < criterion.weight < math.inf
        assert found == sorted(set(found))
        assert not found or (found[0], found[-1]) == (rubric.low, rubric.high)


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
