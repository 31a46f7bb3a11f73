"""What people said is read whole or refused at its line, and a file of ratings grows without losing any."""

import csv
import json
import stat
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.errors import InputError, ProblemsError
from agent.task.judge_files import RatedFile, RatedItem, RatingColumns, pairs_of, read_ratings_file, require

approx = pytest.approx
TASKS = Path(__file__).parents[2] / "tasks"
SINGLE = RatingColumns(("question",), ("answer",))
PAIRED = RatingColumns(("question",), ("left", "right"), rating="votes")


def rated(answer: str = "Paris", rating: Any = 3, rater: Any = "ann", **more: Any) -> dict[str, Any]:
    return {"question": "capital?", "answer": answer, "rater": rater, "rating": rating, **more}


def voted(votes: Any, **more: Any) -> dict[str, Any]:
    return {"question": "capital?", "left": "Paris", "right": "Rome", "votes": votes, **more}


def write(rows: Sequence[dict[str, Any]], name: str = "labels.jsonl") -> Path:
    path = Path(name)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def write_csv(rows: Sequence[dict[str, Any]]) -> Path:
    path = Path("labels.csv")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def read(*rows: dict[str, Any], columns: RatingColumns = SINGLE) -> list[RatedItem]:
    return read_ratings_file(write(rows), columns)


def refused(*rows: dict[str, Any], columns: RatingColumns = SINGLE) -> list[str]:
    with pytest.raises(ProblemsError) as caught:
        read(*rows, columns=columns)
    return str(caught.value).splitlines()


# ---- one answer


def test_a_rating_becomes_its_place_on_the_scale() -> None:
    (item,) = read(rated(rating=4))
    assert item.inputs == {"question": "capital?"}
    assert item.answers == ("Paris",)
    assert item.ratings == {"ann": 0.75}
    assert item.mean == 0.75


@pytest.mark.parametrize(
    ("scale", "rating", "value"),
    [
        ((1, 5), 1, 0.0),
        ((1, 5), 5, 1.0),
        ((1, 5), 2.5, 0.375),
        ((0, 100), 35, 0.35),
        ((-1, 1), 0, 0.5),
        ((1, 5), "3", 0.5),
    ],
)
def test_the_scale_is_mapped_from_its_lowest_to_its_highest(
    scale: tuple[float, float], rating: Any, value: float
) -> None:
    (item,) = read(rated(rating=rating), columns=RatingColumns(("question",), ("answer",), scale=scale))
    assert item.mean == approx(value)


@pytest.mark.parametrize("rating", [0, 6, 5.01, -1, "good", "", None, True, [3], {"a": 3}, "nan", "inf"])
def test_a_rating_off_the_scale_is_refused_at_its_line(rating: Any) -> None:
    (line,) = refused(rated("Rome"), rated(rating=rating))
    assert line.startswith("labels.jsonl:2: rating ")
    assert "is not a number from 1 to 5" in line
    assert "--scale" in line


@pytest.mark.parametrize("again", [3, 5])
def test_an_answer_rated_twice_by_one_rater_is_refused_at_the_second(again: int) -> None:
    (line,) = refused(rated(), rated(rater="bob"), rated(rating=again))
    assert line.startswith("labels.jsonl:3: the rater 'ann' rated this answer before")


def test_every_problem_is_told_in_one_pass() -> None:
    lines = refused(rated(rating=9), rated(), rated("Rome", rating="x"), rated(), {**rated("Oslo"), "question": 3})
    assert [line.split(":")[1] for line in lines] == ["1", "3", "4", "5"]


@pytest.mark.parametrize("other", [{}, {"reference": ""}, {"reference": None}, {"reference": 3}])
def test_a_reference_is_kept_if_any_row_of_the_answer_has_it(other: dict[str, Any]) -> None:
    for rows in permutations([rated(reference="gold"), rated(rater="bob", **other), rated(rater="eve", **other)]):
        (item,) = read(*rows)
        assert item.reference == "gold"
        assert len(item.ratings) == 3


# ---- columns


@pytest.mark.parametrize(
    ("wrong", "right"), [("qestion", "question"), ("anwser", "answer"), ("Rating", "rating"), ("ratings", "rating")]
)
def test_a_missing_column_is_named_with_its_near_miss(wrong: str, right: str) -> None:
    row = {wrong if name == right else name: value for name, value in rated().items()}
    (line,) = refused(row)
    assert line.startswith(f"labels.jsonl:1: no column '{right}'; did you mean '{wrong}'?")


# ---- files


def test_csv_and_jsonl_give_the_same_items() -> None:
    rows = [rated('Paris, "la belle"\nville', 5), rated("Rome", 1), rated("Rome", 2, "bob")]
    assert read_ratings_file(write_csv(rows), SINGLE) == read(*rows)
    pairs = [voted("1,2,tie"), {**voted("2"), "left": "Oslo"}]
    assert read_ratings_file(write_csv(pairs), PAIRED) == read(*pairs, columns=PAIRED)


cells = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.sampled_from(["1", "2", "tie", "2,2,tie", "ann, bob", 3, 10**307, -(10**400)]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)
names = st.sampled_from(["question", "answer", "left", "right", "votes", "rating", "rater", "reference"])


def items_or_places(path: Path, columns: RatingColumns) -> tuple[list[RatedItem], list[str]]:
    try:
        return read_ratings_file(path, columns), []
    except ProblemsError as error:
        return [], [problem.where for problem in error.problems]


@given(st.lists(st.dictionaries(names, cells), max_size=4), st.sampled_from([SINGLE, PAIRED]))
def test_arbitrary_cells_are_items_or_problems_and_nothing_else(
    rows: list[dict[str, Any]], columns: RatingColumns
) -> None:
    whole = [{**rated(), **voted("tie"), **row} for row in rows]
    for given_rows in (rows, whole):
        items, places = items_or_places(write(given_rows), columns)
        assert bool(items) != bool(places)
        assert all(place.startswith("labels.jsonl:") for place in places)
        assert all(item.ratings and 0 <= item.mean <= 1 for item in (*items, *pairs_of(items)))


@pytest.mark.parametrize(
    ("task", "columns"),
    [
        ("podcast_blurb", RatingColumns(("topic", "tone"), ("teaser",))),
        ("clause_plain_english", RatingColumns(("clause",), ("plain",))),
    ],
)
def test_the_ratings_that_are_shipped_are_ninety_items_by_two_raters(task: str, columns: RatingColumns) -> None:
    items = read_ratings_file(TASKS / task / "calibration.jsonl", columns)
    assert len(items) == 90
    assert {frozenset(item.ratings) for item in items} == {frozenset("ab")}
    assert all(value * 4 == round(value * 4) for item in items for value in item.ratings.values())


# ---- pairs


@pytest.mark.parametrize(
    ("votes", "values"),
    [
        ("1", [1.0]),
        (1, [1.0]),
        ("2", [0.0]),
        ("tie", [0.5]),
        (0, [0.5]),
        ("2,2,tie", [0.0, 0.0, 0.5]),
        (" A , b,Equal", [1.0, 0.0, 0.5]),
        ("output_1,output_2,both", [1.0, 0.0, 0.5]),
    ],
)
def test_votes_say_which_answer_is_better_one_for_each_rater(votes: Any, values: list[float]) -> None:
    (item,) = read(voted(votes), columns=PAIRED)
    assert item.answers == ("Paris", "Rome")
    assert list(item.ratings.values()) == values
    assert item.mean == approx(sum(values) / len(values))


def test_votes_belong_to_the_raters_that_are_named_in_the_same_order() -> None:
    (item,) = read(voted("2,tie", rater="ann, bob"), columns=PAIRED)
    assert item.ratings == {"ann": 0.0, "bob": 0.5}


@pytest.mark.parametrize(
    ("votes", "rater", "count"),
    [
        ("1,2,tie", "ann,bob", 3),
        ("1", "ann,bob", 1),
        ("1,2", "ann", 2),
        ("1,2", 0, 2),
        ("1,2", "ann,ann", 2),
        ("1,2,tie", "ann, bob ,ann", 3),
        ("1,2", "ann,,", 2),
    ],
)
def test_raters_and_votes_that_do_not_match_one_by_one_are_refused(votes: str, rater: Any, count: int) -> None:
    (line,) = refused(voted(votes, rater=rater), columns=PAIRED)
    assert line.startswith(f"labels.jsonl:1: {count} vote{'s' * (count != 1)} and the raters '{rater}'")
    assert line.endswith("name each rater once, or none")


@pytest.mark.parametrize(
    ("votes", "said"), [("3", "'3'"), ("1,,2", "''"), ("", "''"), (None, "'None'"), ("1;2", "1;2")]
)
def test_a_word_that_is_no_vote_is_refused(votes: Any, said: str) -> None:
    (line,) = refused(voted(votes), columns=PAIRED)
    assert line.startswith("labels.jsonl:1: ")
    assert said in line
    assert "write 1, 2 or tie" in line


def test_rated_answers_to_the_same_inputs_become_pairs_of_neighbours() -> None:
    items = read(
        rated("Paris", 5), rated("Oslo", 3, question="and now?"), rated("Rome", 1), rated("Bonn", 1), rated("Nice", 4)
    )
    found = pairs_of(items)
    assert [pair.answers for pair in found] == [("Paris", "Rome"), ("Rome", "Bonn"), ("Bonn", "Nice")]
    assert [pair.mean for pair in found] == [1.0, 0.5, 0.0]
    assert {pair.inputs["question"] for pair in found} == {"capital?"}
    assert len({pair.id for pair in found}) == 3


def test_too_few_items_are_an_input_error_with_the_file() -> None:
    items = read(rated(), rated("Rome"))
    require(items, 2, Path("labels.jsonl"))
    with pytest.raises(InputError, match=r"labels\.jsonl:1: 2 items; .* fewer than 3"):
        require(items, 3, Path("labels.jsonl"))


# ---- the file that grows


def mark(item: Any, rater: Any, **more: Any) -> dict[str, Any]:
    return {"item": item, "rater": rater, "rating": 3, **more}


def test_ratings_are_appended_and_survive_reopening() -> None:
    path = Path("deep/er/ratings.jsonl")
    file = RatedFile(path)
    assert file.rows == []
    assert not path.exists()
    file.add({"item": "i1", "rater": "ann", **rated(rating=4)})
    file.add({"item": "i2", "rater": "ann", **rated("Rome", rating=1)})
    again = RatedFile(path)
    again.add({"item": "i1", **rated(rating=5, rater="bob")})
    assert len(path.read_text("utf-8").splitlines()) == 3
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert RatedFile(path).rows == again.rows
    assert read_ratings_file(path, SINGLE)[0].ratings == {"ann": 0.75, "bob": 1.0}


def test_what_is_done_is_known_for_each_rater_alone() -> None:
    file = RatedFile(write([mark("i1", "ann"), mark("i2", "bob")]))
    file.add(mark("i3", "ann"))
    for known in (file, RatedFile(file.path)):
        assert known.done("ann") == {"i1", "i3"}
        assert known.done("bob") == {"i2"}
        assert known.done("eve") == set()


whole_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
any_value = whole_text | st.integers(-9, 9) | st.none()
any_rows = st.lists(
    st.builds(
        lambda more, needed: {**more, **needed},
        st.dictionaries(whole_text, any_value),
        st.fixed_dictionaries({"item": any_value, "rater": any_value, "rating": st.integers(-9, 9)}),
    ),
    max_size=4,
)


@settings(max_examples=30)
@given(any_rows, st.booleans())
def test_any_rows_come_back_as_they_were_added(rows: list[dict[str, Any]], cut: bool) -> None:
    path = Path("grown.jsonl")
    path.unlink(missing_ok=True)
    file = RatedFile(path)
    for row in rows:
        file.add(row)
        if cut:
            path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    assert RatedFile(path).rows == rows == file.rows


@given(st.text(st.characters(exclude_characters="\x00")))
@example("a\udce9")
def test_lone_surrogates_are_replaced_so_that_the_file_can_be_read_again(text: str) -> None:
    path = Path("grown.jsonl")
    path.unlink(missing_ok=True)
    RatedFile(path).add(mark("i1", "ann", answer=text, **{f"rating_{text}": 1}))
    (row,) = RatedFile(path).rows
    readable = "".join("?" if "\ud800" <= letter <= "\udfff" else letter for letter in text)
    assert row == mark("i1", "ann", answer=readable, **{f"rating_{readable}": 1})
    assert json.dumps(readable, ensure_ascii=False) in path.read_text("utf-8")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("notes.txt", "hello\n"),
        ("ratings.txt", '{"item": "1", "rater": "a", "rating": 3}\n'),
        ("ratings", '{"item": "1", "rater": "a", "rating": 3}\n'),
        ("labels.csv", "item,rater,rating\n1,a,3\n"),
        ("r.jsonl", '{"message": "hello"}\n'),
        ("r.jsonl", "item,rater\n1,ann\n"),
        ("r.jsonl", "[1]\n"),
        ("r.jsonl", '{"item": 1}\n{"i'),
    ],
)
def test_a_file_that_is_something_else_is_refused_and_left_alone(name: str, text: str) -> None:
    Path(name).write_text(text)
    with pytest.raises(ProblemsError, match=rf"^{name}:\d"):
        RatedFile(Path(name))
    assert Path(name).read_text() == text


@pytest.mark.parametrize("lacking", ["item", "rater", "rating"])
def test_a_row_without_item_rater_or_rating_is_refused_at_its_line(lacking: str) -> None:
    row = {name: value for name, value in mark("i2", "ann").items() if name != lacking}
    path = write([mark("i1", "ann"), row, mark("i3", "ann"), {}])
    with pytest.raises(ProblemsError) as caught:
        RatedFile(path)
    first, last = str(caught.value).splitlines()
    assert first == f"labels.jsonl:2: no {lacking}: this is no file of ratings"
    assert last == "labels.jsonl:4: no item: this is no file of ratings"


def test_a_place_that_cannot_be_written_is_an_input_error_and_keeps_no_row() -> None:
    Path("taken").write_text("")
    file = RatedFile(Path("taken/ratings.jsonl"))
    with pytest.raises(InputError, match="cannot be written"):
        file.add(mark("i1", "ann"))
    assert file.rows == []
    file = RatedFile(Path("a" * 300 + ".jsonl"))
    with pytest.raises(InputError, match="cannot be written"):
        file.add(mark("i1", "ann"))
    assert file.rows == []
