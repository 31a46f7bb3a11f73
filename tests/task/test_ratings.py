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


def test_several_raters_of_one_answer_are_one_item_with_their_mean() -> None:
    items = read(rated(rating=5), rated("Rome", rating=1), rated(rating=3, rater="bob"))
    assert [item.answers for item in items] == [("Paris",), ("Rome",)]
    assert items[0].ratings == {"ann": 1.0, "bob": 0.5}
    assert items[0].mean == 0.75


def test_other_inputs_or_another_answer_are_another_item_and_other_columns_are_not() -> None:
    rows = [rated(), rated("Rome"), rated(question="and now?"), rated(rater="bob", note="hm", item="77")]
    assert len(read(*rows)) == 3
    assert len({item.id for item in read(*rows)}) == 3


def test_an_item_has_the_same_id_in_every_file() -> None:
    assert read(rated())[0].id == read(rated("Rome"), rated(rating=1, rater="bob"))[1].id


@pytest.mark.parametrize("again", [3, 5])
def test_an_answer_rated_twice_by_one_rater_is_refused_at_the_second(again: int) -> None:
    (line,) = refused(rated(), rated(rater="bob"), rated(rating=again))
    assert line.startswith("labels.jsonl:3: the rater 'ann' rated this answer before")


def test_every_problem_is_told_in_one_pass() -> None:
    lines = refused(rated(rating=9), rated(), rated("Rome", rating="x"), rated(), {**rated("Oslo"), "question": 3})
    assert [line.split(":")[1] for line in lines] == ["1", "3", "4", "5"]


def test_without_a_column_of_raters_there_is_one() -> None:
    row = {"question": "capital?", "answer": "Paris", "rating": 2}
    (item,) = read(row)
    assert len(item.ratings) == 1
    assert item.mean == 0.25


@pytest.mark.parametrize("nobody", [None, "", "  "])
def test_a_rater_without_a_name_is_one(nobody: Any) -> None:
    (item,) = read(rated(rater=nobody))
    assert len(item.ratings) == 1


def test_numbers_are_names_of_raters_zero_too() -> None:
    (item,) = read(rated(rater=0, rating=5), rated(rater=1))
    assert item.ratings == {"0": 1.0, "1": 0.5}
    (line,) = refused(rated(rater=0), rated(rater="0"))
    assert line.startswith("labels.jsonl:2: the rater '0' rated this answer before")


def test_a_comma_in_the_name_of_the_rater_of_one_answer_is_part_of_it() -> None:
    (item,) = read(rated(rater="Smith, J", rating=1), rated(rater=" Doe, K "))
    assert item.ratings == {"Smith, J": 0.0, "Doe, K": 0.5}


def test_a_reference_is_kept_where_there_is_one() -> None:
    items = read(rated(reference="Paris, France"), rated("Rome"))
    assert [item.reference for item in items] == ["Paris, France", ""]


@pytest.mark.parametrize("other", [{}, {"reference": ""}, {"reference": None}, {"reference": 3}])
def test_a_reference_is_kept_if_any_row_of_the_answer_has_it(other: dict[str, Any]) -> None:
    for rows in permutations([rated(reference="gold"), rated(rater="bob", **other), rated(rater="eve", **other)]):
        (item,) = read(*rows)
        assert item.reference == "gold"
        assert len(item.ratings) == 3


@pytest.mark.parametrize("name", ["question", "answer"])
@pytest.mark.parametrize("value", [None, 3, ["a"], {}])
def test_inputs_and_answers_that_are_no_texts_are_refused(name: str, value: Any) -> None:
    (line,) = refused(rated(), {**rated("Rome"), name: value})
    assert line.startswith(f"labels.jsonl:2: {name}: ")
    assert "is not a text" in line


def test_a_row_that_lacks_what_the_first_has_is_refused_at_its_line() -> None:
    (line,) = refused(rated(), {"question": "capital?", "rating": 3})
    assert line.startswith("labels.jsonl:2: answer: ")


# ---- columns


@pytest.mark.parametrize(
    ("wrong", "right"), [("qestion", "question"), ("anwser", "answer"), ("Rating", "rating"), ("ratings", "rating")]
)
def test_a_missing_column_is_named_with_its_near_miss(wrong: str, right: str) -> None:
    row = {wrong if name == right else name: value for name, value in rated().items()}
    (line,) = refused(row)
    assert line.startswith(f"labels.jsonl:1: no column '{right}'; did you mean '{wrong}'?")


def test_a_missing_column_without_a_near_miss_names_what_there_is() -> None:
    (line,) = refused({"question": "capital?", "answer": "Paris", "mark": 3})
    assert line == "labels.jsonl:1: no column 'rating'. Known: question, answer, mark"


def test_the_columns_that_there_are_stand_once_in_the_message() -> None:
    (line,) = refused({"question": "capital?", "anwser": "Paris", "rating": 3, "rater": "ann"})
    said = "no column 'answer'; did you mean 'anwser'? Known: question, anwser, rating, rater"
    assert line == f"labels.jsonl:1: {said}"


def test_any_column_can_hold_the_rating_the_rater_and_the_reference() -> None:
    columns = RatingColumns(("question",), ("answer",), rating="tone", rater="who", reference="gold")
    (item,) = read(rated(tone=5, who="eve", gold="P"), columns=columns)
    assert (item.ratings, item.reference) == ({"eve": 1.0}, "P")


def test_all_inputs_in_the_order_of_the_columns_make_the_item() -> None:
    columns = RatingColumns(("tone", "question"), ("answer",))
    (item,) = read(rated(tone="dry"), columns=columns)
    assert list(item.inputs.items()) == [("tone", "dry"), ("question", "capital?")]


def test_answers_alone_can_be_rated() -> None:
    (item,) = read(rated(), columns=RatingColumns((), ("answer",)))
    assert item.inputs == {}


# ---- files


def test_csv_and_jsonl_give_the_same_items() -> None:
    rows = [rated('Paris, "la belle"\nville', 5), rated("Rome", 1), rated("Rome", 2, "bob")]
    assert read_ratings_file(write_csv(rows), SINGLE) == read(*rows)
    pairs = [voted("1,2,tie"), {**voted("2"), "left": "Oslo"}]
    assert read_ratings_file(write_csv(pairs), PAIRED) == read(*pairs, columns=PAIRED)


def test_a_problem_in_a_csv_row_stands_where_the_row_starts() -> None:
    path = write_csv([rated("two\nlines"), rated("Rome", 9)])
    with pytest.raises(ProblemsError, match=r"labels\.csv:4: rating '9'"):
        read_ratings_file(path, SINGLE)


@pytest.mark.parametrize("name", ["labels.jsonl", "labels.csv"])
def test_an_empty_file_is_refused(name: str) -> None:
    Path(name).write_text("question,answer,rating\n" if name.endswith("csv") else "\n")
    with pytest.raises(ProblemsError, match=rf"{name}:1: no rows"):
        read_ratings_file(Path(name), SINGLE)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("none.jsonl", None, "no such file"),
        ("labels.txt", b"question", "unknown kind of file"),
        ("labels.jsonl", b'{"question": ', "not valid JSON"),
        ("labels.jsonl", b"[1]", "not an object"),
        ("labels.csv", b"question,answer,rating\na,b\n", "2 cells"),
        ("labels.csv", b"\xff\xfeq", "UTF-16"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_a_place(name: str, data: bytes | None, words: str) -> None:
    if data is not None:
        Path(name).write_bytes(data)
    with pytest.raises(ProblemsError, match=words) as caught:
        read_ratings_file(Path(name), SINGLE)
    assert str(caught.value).startswith(f"{name}:")


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


@given(st.lists(st.fixed_dictionaries({name: st.text() for name in ("question", "answer", "rater", "rating")})))
def test_arbitrary_cells_of_a_csv_file_are_items_or_problems_and_nothing_else(rows: list[dict[str, str]]) -> None:
    items, places = items_or_places(write_csv([rated(), *rows]), SINGLE)
    assert bool(items) != bool(places)
    assert all(place.startswith("labels.csv:") for place in places)
    assert all(0 <= item.mean <= 1 for item in items)


@given(st.binary(max_size=120), st.sampled_from(["labels.csv", "labels.jsonl"]))
def test_arbitrary_bytes_are_problems_and_nothing_else(data: bytes, name: str) -> None:
    Path(name).write_bytes(data)
    items, places = items_or_places(Path(name), SINGLE)
    assert items == []
    assert places


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


def test_every_shipped_task_with_ratings_is_tested_here() -> None:
    assert {path.parent.name for path in TASKS.glob("*/calibration.jsonl")} == {"podcast_blurb", "clause_plain_english"}


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


@pytest.mark.parametrize("rater", [None, "", " , "])
def test_votes_without_raters_are_of_as_many_raters(rater: Any) -> None:
    (item,) = read(voted("1,2,tie", rater=rater), columns=PAIRED)
    assert item.ratings == {"1": 1.0, "2": 0.0, "3": 0.5}


def test_numbers_are_names_of_raters_of_pairs_zero_too() -> None:
    (item,) = read(voted("1", rater=0), voted("2", rater=1), columns=PAIRED)
    assert item.ratings == {"0": 1.0, "1": 0.0}


def test_one_vote_in_each_row_adds_up_to_one_item() -> None:
    (item,) = read(voted("1", rater="ann"), voted("tie", rater="bob"), columns=PAIRED)
    assert item.ratings == {"ann": 1.0, "bob": 0.5}
    (line,) = refused(voted("1", rater="ann"), voted("2", rater="ann"), columns=PAIRED)
    assert line.startswith("labels.jsonl:2: the rater 'ann' rated this answer before")


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


def test_who_has_the_higher_mean_rating_wins_the_pair() -> None:
    rows = [rated("Paris", 5), rated("Paris", 1, "bob"), rated("Rome", 4), rated("Rome", 4, "bob")]
    (pair,) = pairs_of(read(*rows))
    assert pair.mean == 0.0
    (tie,) = pairs_of(read(*rows[:2], rated("Rome", 3), rated("Rome", 3, "bob")))
    assert tie.mean == 0.5


def test_a_made_pair_has_the_id_of_the_same_pair_in_a_file() -> None:
    (made,) = pairs_of(read(rated("Paris", 5), rated("Rome", 1)))
    (written,) = read(voted("1"), columns=PAIRED)
    assert made.id == written.id


@pytest.mark.parametrize(("one", "two", "kept"), [("g", "g", "g"), ("g", "", "g"), ("", "g", "g"), ("", "", "")])
def test_a_made_pair_has_the_reference_of_either_answer(one: str, two: str, kept: str) -> None:
    (pair,) = pairs_of(read(rated(reference=one), rated("Rome", reference=two)))
    assert pair.reference == kept


def test_a_pair_in_a_file_keeps_its_reference() -> None:
    rows = [voted("1", rater="ann", reference="gold"), voted("2", rater="bob")]
    for either in (rows, rows[::-1]):
        (pair,) = pairs_of(read(*either, columns=PAIRED))
        assert pair.reference == "gold"


def test_pairs_stay_as_they_are_and_nothing_makes_no_pairs() -> None:
    items = read(voted("1"), columns=PAIRED)
    assert pairs_of(items) == items
    assert pairs_of([]) == []
    assert pairs_of(read(rated())) == []


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


def test_a_rating_is_in_the_file_before_add_returns() -> None:
    file = RatedFile(Path("ratings.jsonl"))
    file.add({"item": "i1", "rater": "ann", "rating": 3})
    assert json.loads(Path("ratings.jsonl").read_text("utf-8")) == {"item": "i1", "rater": "ann", "rating": 3}
    assert file.rows == [{"item": "i1", "rater": "ann", "rating": 3}]


def test_what_is_done_is_known_for_each_rater_alone() -> None:
    file = RatedFile(write([mark("i1", "ann"), mark("i2", "bob")]))
    file.add(mark("i3", "ann"))
    for known in (file, RatedFile(file.path)):
        assert known.done("ann") == {"i1", "i3"}
        assert known.done("bob") == {"i2"}
        assert known.done("eve") == set()


def test_what_is_done_is_compared_as_text() -> None:
    file = RatedFile(write([mark(1, 7), mark("2", "7"), mark(3, 0), mark(4, 77)]))
    assert file.done("7") == {"1", "2"}
    assert file.done("0") == {"3"}
    assert file.done("") == set()


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


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_a_rating_is_appended_on_a_line_of_its_own_however_the_last_one_ends(end: str) -> None:
    path = Path("ratings.jsonl")
    path.write_text(json.dumps(mark("i1", "ann")) + end, "utf-8", newline="")
    file = RatedFile(path)
    file.add(mark("i2", "ann"))
    file.add(mark("i3", "ann"))
    assert [row["item"] for row in RatedFile(path).rows] == ["i1", "i2", "i3"]
    assert RatedFile(path).rows == file.rows
    first, *rest = map(json.dumps, file.rows)
    assert path.read_bytes().decode("utf-8") == first + (end or "\n") + "".join(f"{line}\n" for line in rest)


def test_an_empty_file_grows_from_its_first_line() -> None:
    path = Path("ratings.jsonl")
    path.write_bytes(b"")
    RatedFile(path).add(mark("i1", "ann"))
    assert path.read_text("utf-8").splitlines() == [json.dumps(mark("i1", "ann"))]


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


@pytest.mark.parametrize("name", ["new.csv", "new.txt", "new", "new.jsonl.gz", ".jsonl"])
def test_a_new_file_of_another_kind_is_refused_before_anyone_rates(name: str) -> None:
    with pytest.raises(ProblemsError, match=rf"^{name}:1: .*name a \.jsonl file"):
        RatedFile(Path(name))
    assert not Path(name).exists()


@pytest.mark.parametrize("lacking", ["item", "rater", "rating"])
def test_a_row_without_item_rater_or_rating_is_refused_at_its_line(lacking: str) -> None:
    row = {name: value for name, value in mark("i2", "ann").items() if name != lacking}
    path = write([mark("i1", "ann"), row, mark("i3", "ann"), {}])
    with pytest.raises(ProblemsError) as caught:
        RatedFile(path)
    first, last = str(caught.value).splitlines()
    assert first == f"labels.jsonl:2: no {lacking}: this is no file of ratings"
    assert last == "labels.jsonl:4: no item: this is no file of ratings"


def test_a_folder_in_the_place_of_the_file_is_refused() -> None:
    Path("ratings.jsonl").mkdir()
    with pytest.raises(ProblemsError, match="not a regular file"):
        RatedFile(Path("ratings.jsonl"))


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
