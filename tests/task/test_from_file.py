"""Any table becomes a task that loads, and the reading says how each column and row was used."""

import csv
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import InputError
from agent.prompt.reply_parser import parse_reply
from agent.safe_data import parse_toml
from agent.task.answers import target_type
from agent.task.columns import decide_columns, field_name
from agent.task.from_file import task_from_file, write_task
from agent.task.load import load_task
from agent.task.splits import near_duplicates
from agent.task.task_file import json_schema
from agent.task.task_text import Reading, string
from agent.types import Example, Task

TEAMS = ("billing", "delivery", "refunds")


def tickets(count: int = 60) -> list[dict[str, Any]]:
    rng = random.Random(3)
    words = [f"word{n}" for n in range(500)]
    return [
        {"Ticket ID": f"T-{n}", "Customer Message": " ".join(rng.sample(words, 9)), "Team": TEAMS[n % 3], "lang": "en",
         "notes": "", "code": n % 3}
        for n in range(count)
    ]  # fmt: skip


def write(path: Path, table: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(table[0]))
            writer.writeheader()
            writer.writerows(table)
    return path


def splits_of(task: Task) -> list[tuple[str, tuple[Example, ...]]]:
    return [("train", task.train), ("dev", task.dev), ("test", task.test)]


def uses(reading: Reading) -> dict[str, tuple[str, str]]:
    return {column.name: (column.use, column.field) for column in reading.columns}


@pytest.mark.parametrize("name", ["data.csv", "data.jsonl"])
def test_each_column_has_a_use_and_a_reason(here: Path, name: str) -> None:
    task, reading = task_from_file(write(here / name, tickets()), "Team", seed=1)
    assert uses(reading) == {
        "Ticket ID": ("ignored", ""),
        "Customer Message": ("input", "customer_message"),
        "Team": ("target", "Team"),
        "lang": ("ignored", ""),
        "notes": ("ignored", ""),
        "code": ("ignored", ""),
    }
    reasons = {column.name: column.reason for column in reading.columns}
    assert "id-like" in reasons["Ticket ID"]
    assert "constant" in reasons["lang"]
    assert reasons["notes"] == "empty"
    assert "one to one" in reasons["code"]
    assert "customer_message" in reasons["Customer Message"]
    assert str(task.signature) == "customer_message -> Team"
    assert task.signature.inputs[0].description == "Customer Message"
    assert (reading.targets[0].rule.type, reading.targets[0].choices, task.folder, task.name) == (
        "choice",
        TEAMS,
        "",
        "data",
    )
    assert {split: dict(each) for split, each in reading.targets[0].counts.items()} == {
        "train": {"billing": 6, "delivery": 6, "refunds": 6},
        "dev": {"billing": 5, "delivery": 5, "refunds": 5},
        "test": {"billing": 9, "delivery": 9, "refunds": 9},
    }
    assert any("train: 18 rows (billing: 6" in line for line in reading.lines())


def test_repeated_conflicting_and_empty_rows_are_dropped_and_counted(here: Path) -> None:
    table = tickets()
    table.append(table[0] | {"Customer Message": table[0]["Customer Message"].upper()})
    table.append(table[1] | {"Team": "refunds"})
    table.append(table[2] | {"Customer Message": " "})
    table.append(table[2] | {"Team": ""})
    for row in table:
        del row["Ticket ID"]
    _, reading = task_from_file(write(here / "d.csv", table), "Team")
    assert reading.rows == 64
    assert dict(reading.dropped) == {
        "without 'Team'": 1,
        "without 'Customer Message'": 1,
        "repeated": 1,
        "with the same inputs but different answers": 2,
    }
    dropped = "1 without 'Team', 1 without 'Customer Message', 1 repeated, 2 with the same inputs but different answers"
    assert f"64 rows; dropped: {dropped}; " in next(reading.lines())
    assert sum(sum(each.values()) for each in reading.targets[0].counts.values()) + reading.unused == 59


def test_a_written_folder_loads_to_the_same_task(here: Path) -> None:
    source = write(here / "tickets.csv", tickets())
    task, reading = task_from_file(source, "Team", "Route {{Customer Message}} well.", seed=5)
    written, again = write_task(here / "tasks" / "tickets", source, "Team", "Route {{Customer Message}} well.", seed=5)
    loaded = load_task(here / "tasks" / "tickets")
    assert reading == again
    assert loaded == written
    assert dict(loaded.hashes) == dict(task.hashes)
    assert (loaded.train, loaded.dev, loaded.test) == (task.train, task.dev, task.test)
    assert loaded.instruction == "Route {{customer_message}} well."
    assert (here / "tasks" / "tickets" / "task.toml").read_text().startswith("#:schema ../task.schema.json\n")
    assert json.loads((here / "tasks" / "task.schema.json").read_text("utf-8")) == json_schema()
    assert near_duplicates([row.inputs["customer_message"] for row in task.train + task.dev + task.test]) == []


def test_a_schema_that_is_there_stays_and_one_that_cannot_be_written_is_not_named(here: Path) -> None:
    source, schema = write(here / "t.csv", tickets()), here / "task.schema.json"
    schema.write_text("{}", "utf-8")
    write_task("one", source, "Team")
    assert schema.read_text("utf-8") == "{}"
    assert (here / "one" / "task.toml").read_text("utf-8").startswith("#:schema")
    schema.unlink()
    schema.mkdir()
    write_task("two", source, "Team")
    assert (here / "two" / "task.toml").read_text("utf-8").startswith("name")
    assert sorted(path.name for path in here.iterdir()) == ["one", "t.csv", "task.schema.json", "two"]


def test_an_existing_folder_is_refused_and_left_alone(here: Path) -> None:
    (here / "x").mkdir()
    with pytest.raises(InputError, match=r"^x exists; choose another name"):
        write_task("x", write(here / "t.csv", tickets()), "Team")
    assert list((here / "x").iterdir()) == []


def test_thirty_usable_rows_are_needed(here: Path) -> None:
    with pytest.raises(InputError, match=r"has 29 rows; at least 30 are needed"):
        task_from_file(write(here / "t.csv", tickets(29)), "Team")
    table = tickets(30)
    table[3]["Team"] = ""
    with pytest.raises(InputError, match=r"has 29 usable rows \(dropped: 1 without 'Team'\); at least 30"):
        task_from_file(write(here / "t.csv", table), "Team")
    assert task_from_file(write(here / "t.csv", tickets(30)), "Team")[0].test


def test_a_target_with_one_value_or_no_input_is_refused(here: Path) -> None:
    with pytest.raises(InputError, match="one value only"):
        task_from_file(write(here / "t.csv", tickets()), "lang")
    table = [{"Team": row["Team"], "lang": "en"} for row in tickets()]
    with pytest.raises(InputError, match=r"no column is left as an input; ignored: 'lang' \(constant"):
        task_from_file(write(here / "t.csv", table), "Team")


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        (
            "{{Customer Message}} {{Lang}}",
            "'{{Lang}}', which is not a column; did you mean 'lang'? Known: Ticket ID, Cust",
        ),
        ("{{custmer message}}", "'{{custmer message}}', which is not a column; did you mean 'Customer Message'?"),
        ("{{Customer Message}} is {{Team}}", "'{{Team}}', which is the column to predict"),
        ("{{Team}}?", "'{{Team}}', which is the column to predict"),
    ],
)
def test_a_mark_in_the_prompt_that_is_no_input_is_told_with_the_column_that_was_meant(
    here: Path, prompt: str, says: str
) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        task_from_file(write(here / "t.csv", tickets()), "Team", prompt)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["a", "b"] * 20, "choice"),
        ([True, False] * 20, "choice"),
        ([1, 2, 3, 4] * 10, "choice"),
        ([f"class {n % 20}" for n in range(40)], "choice"),
        ([f"class {n % 21}" for n in range(40)], "text"),
        ([f"class {n % 200}" for n in range(400)], "choice"),
        ([f"class {n % 201}" for n in range(402)], "text"),
        ([n % 60 for n in range(400)], "number"),
        ([f"{n % 60},5" for n in range(400)], "text"),
        ([f"{n}.5" for n in range(40)], "number"),
        ([*range(39), "nan"], "text"),
        ([*map(str, range(10, 49)), "02365"], "text"),
        ([*range(39), "+5"], "text"),
        ([*range(39), "-007"], "text"),
        ([*range(38), "0.5", "-0"], "number"),
        ([10**15 - n for n in range(40)], "number"),
        ([10**15 + n for n in range(40)], "text"),
        ([*range(39), "1e16"], "text"),
        (["01", "02"] * 20, "choice"),
        ([{"a": n} for n in range(40)], "json"),
        (['{"a": 1}', '{"a": 2}'] * 20, "json"),
        (["long " * 20, "other " * 20] * 20, "text"),
        (["a\nb", "c"] * 20, "text"),
    ],
)
def test_the_kind_of_a_target_follows_its_values(values: list[Any], kind: str) -> None:
    assert target_type(values) == kind


@pytest.mark.parametrize(
    ("labels", "kind", "words"),
    [
        ([f"{n}.5" for n in range(60)], "number", "one number only"),
        ([json.dumps({"city": f"c{n}"}) for n in range(60)], "json", '"city"'),
        ([f"a longer answer {n}" for n in range(60)], "text", "Answer with the answer only"),
        ([TEAMS[n % 3] for n in range(60)], "choice", "- billing\n- delivery\n- refunds\n"),
    ],
)
def test_every_kind_of_target_makes_a_task_with_a_plain_prompt(
    here: Path, labels: list[str], kind: str, words: str
) -> None:
    table = [{"question": row["Customer Message"], "answer": a} for row, a in zip(tickets(), labels, strict=True)]
    for name in ("t.csv", "t.jsonl"):
        task, reading = task_from_file(write(here / name, table), "answer")
        assert reading.targets[0].rule.type == task.signature.outputs[0].type == kind
        assert words in task.instruction
        assert "Read the question" in task.instruction


def test_the_plain_prompt_names_the_keys_of_train_labels_and_no_other(here: Path) -> None:
    table = [{"q": row["q"], "answer": {f"key{n}": n}} for n, row in enumerate(answered())]
    task, _ = task_from_file(write(here / "t.jsonl", table), "answer")
    keys = {split: [f'"{key}"' for row in rows for key in row.labels["answer"]] for split, rows in splits_of(task)}
    assert all(key in task.instruction for key in keys["train"])
    assert not [key for split in ("dev", "test") for key in keys[split] if key in task.instruction]


def test_a_choice_that_looks_like_a_placeholder_is_refused_without_a_prompt(here: Path) -> None:
    table = [row | {"Team": "{{x}}" if row["Team"] == "billing" else row["Team"]} for row in tickets()]
    source = write(here / "t.csv", table)
    with pytest.raises(InputError, match="looks like a placeholder"):
        task_from_file(source, "Team")
    assert "{{x}}" in task_from_file(source, "Team", "Name the team.")[1].targets[0].choices


@given(st.lists(st.text(max_size=12), min_size=1, max_size=8))
def test_any_column_names_become_distinct_field_names(names: list[str]) -> None:
    taken: list[str] = ["id"]
    for position, name in enumerate(names, start=1):
        made = field_name(name, position, taken)
        assert made.isidentifier()
        assert made.isascii()
        assert made[0].isalpha()
        assert made not in taken
        taken.append(made)


@given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\\\n\r\t\x7f ')))
def test_any_text_is_written_as_toml_that_reads_back(text: str) -> None:
    assert parse_toml(f"a = {string(text)}\nb = 1\n", "x") == {"a": text, "b": 1}


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8) | st.sampled_from(TEAMS)
VALUE = CELL | st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.lists(st.booleans())


@given(
    st.lists(st.tuples(VALUE, VALUE, VALUE), min_size=25, max_size=45),
    st.lists(CELL, min_size=3, max_size=3, unique=True),
)
def test_any_table_makes_a_task_or_a_line_that_says_why_not(
    tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[Any, ...]], names: list[str]
) -> None:
    source = tmp_path_factory.mktemp("any") / "t.jsonl"
    write(source, [dict(zip(names, row, strict=True)) for row in cells])
    try:
        task, reading = task_from_file(source, names[0])
        assert isinstance(task, Task)
        lines = list(reading.lines())
    except InputError as error:
        lines = [str(error)]
    assert all(line.isprintable() and "task.toml" not in line for line in lines)


def answered(count: int = 60) -> list[dict[str, Any]]:
    """Questions with another answer each."""
    return [{"q": row["Customer Message"], "answer": f"Answer {n}, quite so"} for n, row in enumerate(tickets(count))]


def use_of(table: list[dict[str, Any]], target: str, column: str, **more: Any) -> tuple[str, str]:
    (found,) = (each for each in decide_columns(table, [target], **more) if each.name == column)
    return found.use, found.reason


@pytest.mark.parametrize(("odd", "use"), [(0, "ignored"), (6, "ignored"), (7, "input")])
def test_a_copy_of_the_answer_is_no_input_however_many_answers_there_are(odd: int, use: str) -> None:
    table = [row | {"gold": "?" if n < odd else row["answer"].upper()} for n, row in enumerate(answered())]
    found = use_of(table, "answer", "gold")
    assert found[0] == use
    assert (f"is the answer itself in {60 - odd} of 60 rows" in found[1]) == (use == "ignored")
    assert use_of(table, "answer", "gold", prompt_fields=frozenset({"q", "gold"})) == ("input", "named in the prompt")


def test_two_columns_that_nearly_always_say_no_are_no_copies() -> None:
    table = [
        {"text": f"some text {n}", "premium": "yes" if n in (3, 30) else "no", "fraud": "yes" if n in (7, 50) else "no"}
        for n in range(60)
    ]
    assert use_of(table, "fraud", "premium") == ("input", "holds text")
    assert use_of([row | {"premium": row["fraud"]} for row in table], "fraud", "premium")[0] == "ignored"


@pytest.mark.parametrize(("count", "odd", "use"), [(60, 1, "ignored"), (60, 2, "input"), (48, 1, "input")])
def test_codes_of_the_labels_may_be_odd_in_a_row_of_fifty(count: int, odd: int, use: str) -> None:
    table = [row | {"code": f"c{n % 3 if n >= odd else 'x'}"} for n, row in enumerate(tickets(count))]
    found = use_of(table, "Team", "code")
    assert found[0] == use
    assert (f"one to one in {count - odd} of {count} rows" in found[1]) == (use == "ignored")


def inside(here: Path, table: list[dict[str, Any]], target: str, prompt: str = "") -> list[str]:
    reading = task_from_file(write(here / "data.jsonl", table), target, prompt)[1]
    return [line for line in reading.lines() if "word for word" in line]


def test_an_input_that_holds_the_answer_word_for_word_is_told(here: Path) -> None:
    table = [row | {"why": f"Because of this: {row['answer']}!"} for row in answered()]
    (line,) = inside(here, table, "answer")
    assert line.startswith("column 'why': contains the answer word for word in 60 rows; if it is not known")
    assert inside(here, table, "answer", "{{q}} {{why}}") == []
    for row in table[:4]:
        row["why"] = "unknown"
    assert inside(here, table, "answer") == []
    path = [row | {"path": f"/{row['Team']}/{n}"} for n, row in enumerate(tickets())]
    assert len(inside(here, path, "Team")) == 1
    part = [row | {"path": f"{row['Team']}{n}"} for n, row in enumerate(tickets())]
    assert inside(here, part, "Team") == []


@pytest.mark.parametrize(
    ("number", "line"),
    [
        ("{}.775", "target amount: '1.775' is read as 1.775; write 1775 if thousands are meant"),
        ("{}", "target amount: number"),
        ("{}.77", "target amount: number"),
        ("0.{}775", "target amount: number"),
        (
            "1.{:03},50",
            "target amount: text ('1.001,50' is not read as a number; "
            "write it with digits and a decimal point only: 1234.5)",
        ),
        (
            "1'{:03}",
            'target amount: text ("1\'001" is not read as a number; '
            "write it with digits and a decimal point only: 1234.5)",
        ),
        ("{}.01.2026", "target amount: text"),
        ("0{}", "target amount: text ('01' begins with a zero, which a number would lose)"),
        ("+{}", "target amount: text ('+1' has a plus sign, which a number would lose)"),
        (
            "1{:016}",
            "target amount: text ('10000000000000001' is beyond 1e15, and no reply is read as such a number)",
        ),
    ],
)
def test_numbers_that_may_be_meant_otherwise_are_told(here: Path, number: str, line: str) -> None:
    table = [{"text": row["Customer Message"], "amount": number.format(n)} for n, row in enumerate(tickets(), 1)]
    _, reading = task_from_file(write(here / "data.csv", table), "amount")
    assert [each for each in reading.lines() if each.startswith("target ")] == [
        *["target amount: number"] * ("meant" in line),
        line,
    ]


def test_a_code_of_digits_is_answered_as_it_stands_in_the_file(here: Path) -> None:
    table = [{"text": row["Customer Message"], "zip": f"{n + 2365:05}"} for n, row in enumerate(tickets())]
    task, _ = task_from_file(write(here / "data.csv", table), "zip")
    row = task.train[0]
    label = next(each["zip"] for each in table if each["text"] == row.inputs["text"])
    assert row.labels == {"zip": label}
    assert parse_reply(label, task.signature.outputs).fields == {"zip": label}


def test_rows_that_stand_there_twice_do_not_turn_the_id_into_an_input(here: Path) -> None:
    table = [
        {"id": f"r{n}", **{key: row[key] for key in ("Customer Message", "Team")}} for n, row in enumerate(tickets())
    ]
    task, reading = task_from_file(write(here / "data.csv", [*table, *table[:20]]), "Team")
    assert uses(reading)["id"] == ("id", "id")
    assert reading.dropped["repeated"] == 20
    assert [field.name for field in task.signature.inputs] == ["customer_message"]


def test_more_labels_than_a_file_can_have_are_told(here: Path) -> None:
    table = [{**row, "Team": f"team {n % 201}"} for n, row in enumerate(tickets(402))]
    _, reading = task_from_file(write(here / "data.csv", table), "Team")
    assert (
        "target Team: text (201 different values, more than 200; if they are labels, list them in the task.toml "
        "that `optimize init` writes)"
    ) in list(reading.lines())


def test_spellings_of_a_label_that_were_taken_as_one_are_told(here: Path) -> None:
    table = [{**row, "Team": row["Team"].upper() if n % 5 == 0 else row["Team"]} for n, row in enumerate(tickets())]
    _, reading = task_from_file(write(here / "data.jsonl", table), "Team")
    assert reading.targets[0].choices == TEAMS
    assert "target Team: 'BILLING' read as 'billing', the usual spelling" in list(reading.lines())
    _, plain = task_from_file(write(here / "plain.jsonl", tickets()), "Team")
    assert not any("spelling" in line for line in plain.lines())
