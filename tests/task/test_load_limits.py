"""The keys of task.toml for limits of an answer, for slices and for repeats: loaded, or refused at their line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.prompt import value_readers
from agent.task.examples import MAX_NUMBER
from agent.task.load import load_task
from agent.types import Field
from tests.task.folders import jsonl, line_of, make, problems

TONES = ("warm", "dry")
SPLITS = ("train", "dev", "test")


def toml(teaser: str = "", tone: str = "", top: str = "", tags: str = "") -> str:
    """A task of two inputs and two outputs, with more keys in its tables or at its top."""
    return f"""\
name = "blurbs"
description = "Write a teaser."
signature = "topic, tone -> teaser, tags"
instruction = "Write it."
{top}

[fields.tone]
description = "how it sounds"
{tone}

[fields.teaser]
description = "the teaser"
{teaser}

[fields.tags]
type = "json"
{tags}
"""


def row(split: str, number: int, **more: Any) -> dict[str, Any]:
    topic = f"{split} topic {number}"
    return {"topic": topic, "tone": TONES[number % 2], "teaser": f"Hear {topic}.", "tags": ["a"], **more}


def splits(change: Callable[[dict[str, Any]], dict[str, Any]] = lambda given: given) -> dict[str, str]:
    return {split: jsonl([change(row(split, number)) for number in range(4)]) for split in SPLITS}


def with_language(given: dict[str, Any]) -> dict[str, Any]:
    return {**given, "language": "en" if given["tone"] == "dry" else "fr"}


def only_problem(folder: Path, text: str, key: str) -> str:
    """What the one problem says, which must stand at the line of `key`."""
    (line,) = problems(folder)
    where = f"{folder.name}/task.toml:{line_of(text, key)}: "
    assert line.startswith(where), line
    return line.removeprefix(where)


# ---- limits of an answer


def test_the_limits_of_an_answer_are_loaded_with_its_field(here: Path) -> None:
    keys = 'min_words = 2\nmax_words = 100\nforbidden = ["#", "http"]\nrequired = ["Hear"]'
    task = load_task(make(here / "t", toml(keys), **splits()))
    assert task.signature.outputs[0] == Field(
        "teaser",
        description="the teaser",
        min_words=2,
        max_words=100,
        forbidden=("#", "http"),
        required=("Hear",),
    )
    assert [field.min_words for field in (*task.signature.inputs, task.signature.outputs[1])] == [None, None, None]


def test_without_limits_a_field_has_none(here: Path) -> None:
    field = load_task(make(here / "t", toml(), **splits())).signature.outputs[0]
    assert (field.min_words, field.max_words, field.forbidden, field.required) == (None, None, (), ())


@pytest.mark.parametrize(
    "keys", ["max_words = 1\nmin_words = 1", "forbidden = []\nrequired = []", 'forbidden = ["a"]\nrequired = ["b"]']
)
def test_limits_that_an_answer_can_keep_are_allowed(here: Path, keys: str) -> None:
    assert problems(make(here / "t", toml(keys), **splits())) == []


LIMITS = {"min_words": "3", "max_words": "3", "forbidden": '["#"]', "required": '["#"]'}


@pytest.mark.parametrize(("key", "value"), LIMITS.items())
def test_a_limit_on_an_input_is_refused_at_its_line(here: Path, key: str, value: str) -> None:
    text = toml(tone=f"{key} = {value}")
    said = only_problem(make(here / "t", text, **splits()), text, key)
    assert said == f"the field 'tone' is an input; {key} is for outputs"


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_number_that_no_reply_is_read_as_is_refused_at_its_line(here: Path, suffix: str) -> None:
    def folder(name: str, last: int) -> Path:
        labels = {split: [n, 1, last] for n, split in enumerate(SPLITS)}
        table = {split: [row(split, n, teaser=label) for n, label in enumerate(labels[split])] for split in SPLITS}
        made = make(here / name, toml(teaser='type = "number"'), **{split: jsonl(table[split]) for split in SPLITS})
        if suffix == "csv":
            (made / "dev.jsonl").unlink()
            cells = "".join(f'{each["topic"]},{each["tone"]},{each["teaser"]},"[""a""]"\n' for each in table["dev"])
            (made / "dev.csv").write_text(f"topic,tone,teaser,tags\n{cells}")
        return made

    assert problems(folder("fits", int(MAX_NUMBER))) == []
    found = [line for line in problems(folder("beyond", 10**15 + 1)) if "/dev." in line]
    assert len(found) == 1
    assert f"dev.{suffix}:{3 + (suffix == 'csv')}: teaser: " in found[0]
    assert 'is beyond 1e15, and no reply is read as such a number; set type = "text" under [fields.t' in found[0]
    assert ("put it in quotes" in found[0]) == (suffix == "jsonl")
    assert value_readers.MAX_NUMBER == MAX_NUMBER


@pytest.mark.parametrize(("key", "value"), LIMITS.items())
@pytest.mark.parametrize("kind", ['type = "choice"\nchoices = ["a", "b"]', 'type = "number"', 'type = "json"'])
def test_a_limit_on_an_output_that_is_no_text_is_refused_at_its_line(
    here: Path, key: str, value: str, kind: str
) -> None:
    label = {"choice": "a", "number": 1, "json": ["a"]}[kind.split('"')[1]]
    text = toml(teaser=f"{kind}\n{key} = {value}")
    said = only_problem(make(here / "t", text, **splits(lambda given: {**given, "teaser": label})), text, f"{key} =")
    assert said == f"the field 'teaser' has type {kind.split(chr(34))[1]}; {key} is for text, so remove it"


def test_each_limit_in_the_wrong_place_is_said(here: Path) -> None:
    keys = "\n".join(f"{key} = {value}" for key, value in LIMITS.items() if key != "required")
    text = toml(tone=keys, tags=keys)
    found = problems(make(here / "t", text, **splits()))
    assert sum("is an input" in line for line in found) == 3
    assert sum("has type json" in line for line in found) == 3
    assert len({line.split(": ")[0] for line in found}) == len(found) == 6


def test_a_minimum_above_the_maximum_is_refused_at_its_line(here: Path) -> None:
    text = toml("max_words = 3\nmin_words = 4")
    said = only_problem(make(here / "t", text, **splits()), text, "min_words")
    assert said == "min_words = 4 is above max_words = 3; swap them"


@pytest.mark.parametrize(("forbidden", "required"), [("Hear", "Hear"), ("STRASSE", "straße"), ("hear", "HEAR")])
def test_a_text_that_is_required_and_forbidden_in_any_case_is_refused(
    here: Path, forbidden: str, required: str
) -> None:
    text = toml(f'forbidden = ["#", "{forbidden}"]\nrequired = ["topic", "{required}"]')
    said = only_problem(make(here / "t", text, **splits()), text, "required")
    assert said == f"{required!r} is required and forbidden; remove one of them"


def test_a_required_text_that_holds_a_forbidden_one_is_refused(here: Path) -> None:
    text = toml('forbidden = ["http"]\nrequired = ["https://example.com"]')
    said = only_problem(make(here / "t", text, **splits()), text, "required")
    assert said == "'https://example.com' is required and holds 'http', which is forbidden; remove one of them"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("min_words", value) for value in ("0", "-1", "true", "2.0", '"2"', "[2]", "99999999999999999999")),
        *(("max_words", value) for value in ("0", "-1", "true", "2.5", '"2"')),
        *(("forbidden", value) for value in ('"#"', "[1]", '[""]', '[" "]', '["#", ""]', "{}")),
        *(("required", value) for value in ('"#"', "[true]", '["\\t"]', '[["#"]]')),
    ],
)
def test_a_limit_that_is_no_count_or_no_list_of_texts_is_refused_at_its_line(here: Path, key: str, value: str) -> None:
    text = toml(f"{key} = {value}")
    assert f"fields.teaser.{key} = " in only_problem(make(here / "t", text, **splits()), text, key)


def test_a_misspelled_limit_names_the_near_miss(here: Path) -> None:
    text = toml("max_word = 3")
    said = only_problem(make(here / "t", text, **splits()), text, "max_word")
    assert "did you mean 'max_words'?" in said


# ---- slices


def test_a_slice_may_be_a_column_of_its_own(here: Path) -> None:
    task = load_task(make(here / "t", toml(top='slices = ["language"]'), **splits(with_language)))
    assert task.slices == ("language",)
    assert [dict(example.slices) for example in task.dev] == [{"language": "fr"}, {"language": "en"}] * 2
    assert all(set(example.inputs) == {"topic", "tone"} for example in task.dev)
    assert all(set(example.labels) == {"teaser", "tags"} for example in task.dev)


def test_a_slice_may_be_an_input_or_an_output(here: Path) -> None:
    task = load_task(make(here / "t", toml(top='slices = ["tone", "tags"]'), **splits()))
    assert task.slices == ("tone", "tags")
    assert dict(task.test[1].slices) == {"tone": "dry", "tags": '["a"]'}
    assert task.test[1].inputs["tone"] == "dry"
    assert task.test[1].labels["tags"] == ["a"]


def test_without_slices_a_row_has_no_group(here: Path) -> None:
    task = load_task(make(here / "t", toml(), **splits()))
    assert task.slices == ()
    assert all(example.slices == {} for example in (*task.train, *task.dev, *task.test))


def test_a_slice_changes_no_id(here: Path) -> None:
    plain = load_task(make(here / "a", toml(), **splits()))
    sliced = load_task(make(here / "b", toml(top='slices = ["language"]'), **splits(with_language)))
    assert [example.id for example in plain.dev] == [example.id for example in sliced.dev]


@pytest.mark.parametrize(
    ("value", "text"), [(3, "3"), (True, "true"), (None, "null"), ("", ""), ("de at", "de at"), (["é"], '["é"]')]
)
def test_the_value_of_a_slice_is_kept_as_a_text(here: Path, value: Any, text: str) -> None:
    data = splits(lambda given: {**given, "language": value})
    task = load_task(make(here / "t", toml(top='slices = ["language"]'), **data))
    assert {example.slices["language"] for example in task.dev} == {text}


def test_a_row_without_the_column_of_a_slice_is_named_at_its_line(here: Path) -> None:
    rows = [with_language(row("dev", number)) for number in range(4)]
    del rows[2]["language"]
    data = splits(with_language) | {"dev": jsonl(rows)}
    assert problems(make(here / "t", toml(top='slices = ["language"]'), **data)) == [
        "t/dev.jsonl:3: the column 'language' is missing; write it"
    ]


def test_a_column_that_is_no_slice_is_unknown_and_the_near_miss_named(here: Path) -> None:
    found = problems(make(here / "t", toml(), **splits(with_language)))
    assert len(found) == 3
    assert found[0].startswith("t/train.jsonl:1: unknown column 'language'")
    found = problems(make(here / "u", toml(top='slices = ["languages"]'), **splits(with_language)))
    assert any("did you mean 'languages'?" in line for line in found)
    assert any("the column 'languages' is missing" in line for line in found)


def test_a_csv_file_needs_the_column_of_a_slice_in_its_header(here: Path) -> None:
    text = toml(top='slices = ["language"]').replace(", tags", "").split("\n[fields.tags]")[0]
    header, cells = "topic,tone,teaser,language\n", "{} a,warm,Hear it.,en\n{} b,dry,Hear it.,fr\n"
    files = {f"{split}__csv": header + cells.format(split, split) for split in SPLITS}
    folder = make(here / "t", text, **files)
    for split in SPLITS:
        (folder / f"{split}.jsonl").unlink()
    assert [dict(example.slices) for example in load_task(folder).dev] == [{"language": "en"}, {"language": "fr"}]
    (folder / "dev.csv").write_text("topic,tone,teaser\na,warm,Hear it.\n")
    assert problems(folder) == ["t/dev.csv:1: the column 'language' is missing; write it (header)"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ('["tone", "tone"]', "slices holds 'tone' twice; keep one"),
        ('["my column"]', "'my column' cannot be a column"),
        ('["2nd"]', "'2nd' cannot be a column"),
        ('["id"]', "'id' cannot be a column"),
        ('"tone"', "slices"),
        ("true", "slices"),
    ],
)
def test_a_slice_that_cannot_be_one_is_refused_at_its_line(here: Path, value: str, words: str) -> None:
    text = toml(top=f"\nslices = {value}")
    data = splits(lambda given: {**given, **{name: "x" for name in ("my column", "2nd") if name in value}})
    if value == '["id"]':
        data = {split: jsonl([row(split, number, id=f"{split}-{number}") for number in range(4)]) for split in SPLITS}
    assert words in only_problem(make(here / "t", text, **data), text, "slices")


@pytest.mark.parametrize("value", ['[""]', "[1]", '["tone", true]', '["a\\nb"]', "[[]]"])
def test_a_slice_that_is_no_text_on_one_line_is_refused_at_its_line(here: Path, value: str) -> None:
    text = toml(top=f"\nslices = {value}")
    assert "slices" in only_problem(make(here / "t", text, **splits()), text, "slices")


def test_a_refused_slice_does_not_blame_the_rows(here: Path) -> None:
    text = toml(top='\nslices = ["id"]')
    only_problem(make(here / "t", text, **splits()), text, "slices")


# ---- repeats


@pytest.mark.parametrize(("top", "repeats"), [("", 1), ("repeats = 1", 1), ("repeats = 3", 3), ("repeats = 20", 20)])
def test_repeats_are_loaded_and_one_by_default(here: Path, top: str, repeats: int) -> None:
    assert load_task(make(here / "t", toml(top=top), **splits())).repeats == repeats


@pytest.mark.parametrize("value", ["0", "-1", "21", "2.0", "true", '"3"', "[3]", "99999999999999999999"])
def test_repeats_that_are_no_number_from_1_to_20_are_refused_at_their_line(here: Path, value: str) -> None:
    text = toml(top=f"\nrepeats = {value}")
    assert only_problem(make(here / "t", text, **splits()), text, "repeats").startswith("repeats = ")


# ---- what people reach


@pytest.mark.parametrize(("top", "score"), [("", None), ("human_score = 0.93", 0.93), ("human_score = 1.0", 1.0)])
def test_what_people_reach_is_loaded_and_nothing_is_made_up(here: Path, top: str, score: float | None) -> None:
    assert load_task(make(here / "t", toml(top=top), **splits())).human_score == score


@pytest.mark.parametrize("value", ["0.0", "93.0", "-0.1", '"high"', "nan"])
def test_a_score_of_people_that_is_none_is_refused_at_its_line(here: Path, value: str) -> None:
    text = toml(top=f"\nhuman_score = {value}")
    assert "human_score" in only_problem(make(here / "t", text, **splits()), text, "human_score")
