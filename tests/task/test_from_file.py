"""Any table becomes a task that loads or a line that says why not; the reading explains columns, metric and splits."""

import csv
import json
import random
import re
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import InputError, ProblemsError
from agent.metrics.number_metrics import OrdinalOptions, ordinal
from agent.options.shared import Asked
from agent.prompt.reply_parser import parse_reply
from agent.safe_data import parse_toml
from agent.task.answers import known_scale, target_type
from agent.task.columns import DataColumn, decide_columns, field_name, filled_in_later
from agent.task.copies import near_duplicates
from agent.task.from_file import Targets, task_from_file, write_task
from agent.task.load import load_task
from agent.task.scoring_rule import metric_asked
from agent.task.task_file import json_schema
from agent.task.task_text import Reading, string
from agent.types import Task
from tests.cases import each_case

TEAMS = ("billing", "delivery", "refunds")
WORDS = [f"word{n}" for n in range(500)]
TAGS = ("late", "refund", "broken", "rude")
Rows = list[dict[str, Any]]


def tickets(count: int = 60, **columns: Sequence[Any]) -> Rows:
    """Texts with a team, and further columns whose values are taken in turn."""
    rng = random.Random(5)
    return [
        {"message": " ".join(rng.sample(WORDS, 12)), "team": TEAMS[n % 3]}
        | {name: values[n % len(values)] for name, values in columns.items()}
        for n in range(count)
    ]


def answered(labels: Sequence[Any]) -> Rows:
    return [{"text": row["message"], "answer": label} for row, label in zip(tickets(len(labels)), labels, strict=True)]


def write(table: Rows, name: str = "t.jsonl") -> str:
    if name.endswith(".csv"):
        with open(name, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(table[0]))
            writer.writeheader()
            writer.writerows(table)
    else:
        Path(name).write_text("".join(f"{json.dumps(row)}\n" for row in table), "utf-8")
    return name


def read(table: Rows, target: Targets = "", prompt: str = "", **asked: Any) -> tuple[Task, Reading]:
    target = target or ("team" if "team" in table[0] else "answer")
    return task_from_file(write(table), target, prompt, asked=Asked(**asked))


def rows_of(task: Task) -> list[Any]:
    return [*task.train, *task.dev, *task.test]


# -- columns -----------------------------------------------------------------------------------------------------------


@each_case("name", ["data.csv", "data.jsonl"])
def test_each_column_has_a_use_and_a_reason(here: Path, name: str) -> None:
    table = [
        {"Ticket ID": f"T-{n}", "Customer Message": row["message"], "Team": row["team"]}
        | {"lang": "en", "notes": "", "code": n % 3}
        for n, row in enumerate(tickets())
    ]
    task, reading = task_from_file(write(table, name), "Team", seed=1)
    found = {column.name: (column.use, column.reason) for column in reading.columns}
    assert found.pop("Customer Message") == ("input", "text; called customer_message from here on")
    assert found == {
        "Ticket ID": ("ignored", "id-like: a different short value in every row"),
        "Team": ("target", "the column to predict"),
        "lang": ("ignored", "constant: 'en' in every row"),
        "notes": ("ignored", "empty"),
        "code": ("ignored", found["code"][1]),
    }
    assert found["code"][1].startswith("tells the target one to one")
    assert (str(task.signature), task.folder, task.name) == ("customer_message -> Team", "", "data")
    assert (reading.targets[0].rule.type, reading.targets[0].choices) == ("choice", TEAMS)
    assert {split: dict(each) for split, each in reading.targets[0].counts.items()} == {
        "train": dict.fromkeys(TEAMS, 6),
        "dev": dict.fromkeys(TEAMS, 5),
        "test": dict.fromkeys(TEAMS, 9),
    }
    assert any("train: 18 rows (billing: 6" in line for line in reading.lines())


def test_repeated_conflicting_and_empty_rows_are_dropped_and_counted(here: Path) -> None:
    table = [{"id": f"r{n}", **row} for n, row in enumerate(tickets())]
    other = [{**row, "id": f"x{n}"} for n, row in enumerate(table[:4])]
    other[0]["message"] = other[0]["message"].upper()
    other[1]["team"] = "refunds"
    other[2]["message"] = " "
    del other[3]["team"]
    task, reading = read([*table, *table[:20], *other])
    assert (reading.rows, reading.columns[0].use) == (84, "id"), "a repeated row keeps its id"
    assert {row.id for row in rows_of(task)} <= {f"r{n}" for n in range(60)} | {"x0"}
    assert dict(reading.dropped) == {
        "without 'team'": 1,
        "without 'message'": 1,
        "repeated": 20,
        "with the same inputs but different answers": 3,
    }
    assert "84 rows; dropped: 1 without 'team', 1 without 'message', 20 repeated, 3 with" in next(reading.lines())
    assert len(rows_of(task)) + reading.unused == 59


@each_case(
    ("column", "odd", "use"),
    [
        *((lambda row, odd: "?" if odd else row["answer"].upper(), odd, odd < 7) for odd in (0, 6, 7)),
        *((lambda row, odd: f"c{'x' if odd else row['team']}", odd, odd < 2) for odd in (1, 2)),
    ],
)
def test_a_copy_or_a_code_of_the_answer_is_no_input(column: Any, odd: int, use: bool) -> None:
    table = [row | {"answer": f"Answer {n}, quite so"} for n, row in enumerate(tickets())]
    target = "answer" if odd in (0, 6, 7) else "team"
    table = [row | {"gold": column(row, n < odd)} for n, row in enumerate(table)]
    (found,) = (each for each in decide_columns(table, [target]) if each.name == "gold")
    assert (found.use == "ignored") == use
    assert (f" in {60 - odd} of 60 rows" in found.reason) == use
    named = decide_columns(table, [target], prompt_fields=frozenset({"message", "gold"}))
    assert next((each.use, each.reason) for each in named if each.name == "gold") == ("input", "named in the prompt")


def test_two_columns_that_nearly_always_say_no_are_no_copies() -> None:
    table = [{"text": f"text {n}", "vip": "no yes"[3 * (n == 3) :][:2], "fraud": n in (7, 50)} for n in range(60)]
    assert [each.use for each in decide_columns(table, ["fraud"])] == ["input", "input", "target"]


def test_an_input_that_holds_the_answer_word_for_word_is_told(here: Path) -> None:
    def told(table: Rows, prompt: str = "") -> list[str]:
        return [line for line in read(table, "answer", prompt)[1].lines() if "word for word" in line]

    table = [{"q": row["message"], "answer": f"Answer {n}, so"} for n, row in enumerate(tickets())]
    table = [row | {"why": f"Because of this: {row['answer']}!"} for row in table]
    (line,) = told(table)
    assert line.startswith("column 'why': contains the answer word for word in 60 rows; if it is not known")
    assert line.endswith("--ignore why")
    assert told(table, "{{q}} {{why}}") == []
    assert told([{"q": f"{row['q']} {row['answer']} so", "answer": row["answer"]} for row in table]) == []
    for row in table[:4]:
        row["why"] = "unknown"
    assert told(table) == []


@each_case("name", ["CSAT", "csat_score", "Assignee", "closed at", "model_prediction", "Bearbeiter", "Gelöst am"])
def test_a_column_that_is_filled_in_later_is_an_input_with_a_warning(here: Path, name: str) -> None:
    table = tickets(**{name: ["so", "thus", "other", "more", "less"]})
    quoted = f"'{name}'" if " " in name else name
    line = f"column {name!r}: is it known when the prompt is used? If not: --ignore {quoted}"
    assert line in list(read(table)[1].lines())
    assert read(table, ignore=(name,))[1].later == read(table, input=("message", name))[1].later == []
    at_once = ["message", "subject", "product", "language", "channel", "body", "priority", "ticket_text"]
    assert filled_in_later([DataColumn(each, each, "input", "") for each in at_once]) == []


def test_an_empty_cell_of_an_optional_column_drops_no_row(here: Path) -> None:
    table = tickets(csat=["5", "", "1", "4", "3", "2", "", "5", "2", "1", "3"])
    folder = Path("tasks/desk")
    task, reading = write_task(folder, write(table), "team")
    assert len(rows_of(task)) == 60
    assert "column 'csat': input (text; empty in 11 rows, kept)" in list(reading.lines())
    toml = (folder / "task.toml").read_text("utf-8")
    (folder / "task.toml").write_text(toml.replace("optional = true", "optional = false"), "utf-8")
    with pytest.raises(ProblemsError, match="csat: is empty; write the text or remove the row"):
        load_task(folder)


def test_dates_are_no_input_unless_they_are_named(here: Path) -> None:
    for day in ("2026-01-0{}", "2026-01-0{}T10:00:00Z", "0{}.01.2026", "1/{}/26 10:30"):
        table = [row | {"when": day.format(n % 9 + 1)} for n, row in enumerate(tickets())]
        line = "column 'when': ignored (dates; name it in the prompt or with --input to keep it)"
        assert line in list(read(table)[1].lines())
        for more in ({"input": ("message", "when")}, {"prompt": "{{when}}: {{message}}"}):
            assert [field.name for field in read(table, **more)[0].signature.inputs] == ["message", "when"]


def test_dotted_names_lead_into_json_objects(here: Path) -> None:
    table = [
        {"text": row["message"], "label": {"queue": "xy"[n % 2], "sure": n}}
        | {"from": {"name": f"n{n}", "plan": {"tier": "a b"[n % 3 : n % 3 + 1]}}}
        for n, row in enumerate(tickets(80))
    ]
    task, reading = read(table, "label.queue")
    assert (str(task.signature), reading.targets[0].choices) == ("text, from -> label_queue", ("x", "y"))
    assert "column 'label.sure': ignored" in "\n".join(reading.lines())
    task, _ = read(table, "label.queue", "{{text}} {{from.plan.tier}}")
    assert str(task.signature) == "text, from_plan_tier -> label_queue"
    assert read(table, "label")[1].targets[0].rule.type == "json"
    with pytest.raises(InputError, match=re.escape("'label.que' is not a column; did you mean 'label.queue'?")):
        read(table, "label.que")


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


# -- splits of the file ------------------------------------------------------------------------------------------------


@each_case(
    ("values", "expected", "says"),
    [
        (["train", "dev", "test"], [{"train"}, {"dev"}, {"test"}], ""),
        (["Training", "Training", "validation", "TEST"], [{"Training"}, {"validation"}, {"TEST"}], ""),
        (["train", "val", "holdout", "train"], [{"train"}, {"val"}, {"holdout"}], ""),
        (["train", "train", "test"], [{"train"}, {"train"}, {"test"}], "; dev rows are taken from train, as"),
        (["train", "train", "dev"], [{"train"}, {"dev"}, {"train"}], "; test rows are taken from train, as"),
    ],
)  # fmt: skip
def test_a_column_of_splits_splits_the_rows(here: Path, values: list[str], expected: list[set[str]], says: str) -> None:
    table = tickets(120, fold=values)
    task, reading = read(table)
    fold = {row["message"]: row["fold"] for row in table}
    assert [{fold[row.inputs["message"]] for row in rows} for rows in (task.train, task.dev, task.test)] == expected
    lines = list(reading.lines())
    assert "column 'fold': split (says which rows are train, dev and test)" in lines
    assert any(line.startswith(f"splits: by the column 'fold'{says}") for line in lines)
    assert reading.unused == 0
    assert read(table, ignore=("fold",))[1].split_line == ""


@each_case(
    ("values", "reason"),
    [
        (["dev", "test"], "names splits, but no train rows; rows are split afresh"),
        (["train", "dev", "test", ""], "names splits, but is empty in 15 rows; fill it in to have it used"),
    ],
)
def test_a_column_of_splits_that_cannot_be_used_says_why(here: Path, values: list[str], reason: str) -> None:
    _, reading = read(tickets(split=values))
    assert f"column 'split': ignored ({reason})" in list(reading.lines())


def test_a_near_duplicate_of_a_test_row_is_left_out_of_train(here: Path) -> None:
    table = tickets(120, split=["train", "dev", "test", "train"])
    table[0] |= {"message": f"{table[2]['message']} please", "team": table[2]["team"]}
    task, reading = read(table)
    assert reading.unused == 1
    assert table[0]["message"] not in {row.inputs["message"] for row in rows_of(task)}


def test_a_row_that_is_named_in_several_splits_stays_in_the_one_that_is_sealed_most(here: Path) -> None:
    table = tickets(120, split=["train", "dev", "test", "train"])
    table[0] |= {key: table[2][key] for key in ("message", "team")}
    table[5] |= {key: table[4][key] for key in ("message", "team")}
    task, reading = read(table)
    assert reading.dropped["repeated"] == 2
    for split, row in (("test", table[2]), ("dev", table[5])):
        assert row["message"] in {each.inputs["message"] for each in getattr(task, split)}


def test_other_inputs_move_no_row_to_another_split(here: Path) -> None:
    rng = random.Random(7)
    table = [
        row
        | {"mood": " ".join(rng.sample(WORDS, 4)), "note": "" if n % 3 else f"seen {n}"}
        | {"when": f"2026-02-{n % 28 + 1:02}"}
        for n, row in enumerate(tickets(120))
    ]  # fmt: skip
    for n in (5, 25, 45):  # the same text with another mood
        table[n + 1] |= {"message": table[n]["message"], "team": table[n]["team"]}

    def splits(task: Task) -> dict[str, str]:
        return {row.inputs["message"]: name for name in ("train", "dev", "test") for row in getattr(task, name)}

    plain = splits(read(table)[0])
    ways: list[dict[str, Any]] = [{"prompt": "{{message}}"}, {"prompt": "{{mood}} {{message}}"}, {"ignore": ("mood",)}]
    for way in [*ways, {"input": ("message", "note")}, {"input": ("message", "when")}]:
        task, reading = read(table, **way)
        found = splits(task)
        assert all(found[text] == plain[text] for text in found if text in plain), way
        assert len(rows_of(task)) + reading.unused + sum(reading.dropped.values()) == 120


# -- the type of the answers and their metric --------------------------------------------------------------------------


@each_case(
    ("values", "kind"),
    [
        *((["a", "b"] * 20, "choice"), ([True, False] * 20, "choice"), ([1, 2, 3, 4] * 10, "choice")),
        *(([f"class {n % 20}" for n in range(40)], "choice"), ([f"class {n % 21}" for n in range(40)], "text")),
        *(([f"class {n % 200}" for n in range(400)], "choice"), ([f"class {n % 201}" for n in range(402)], "text")),
        *(([n % 60 for n in range(400)], "number"), ([f"{n % 60},5" for n in range(400)], "text")),
        *(([f"{n}.5" for n in range(40)], "number"), ([*range(39), "nan"], "text"), ([*range(39), "+5"], "text")),
        *(([*map(str, range(10, 49)), "02365"], "text"), ([*range(38), "0.5", "-0"], "number")),
        *(([10**15 - n for n in range(40)], "number"), ([10**15 + n for n in range(40)], "text")),
        *((["01", "02"] * 20, "choice"), ([{"a": n} for n in range(40)], "json"), (["a\nb", "c"] * 20, "text")),
        *((['{"a": 1}', '{"a": 2}'] * 20, "json"), (["long " * 20, "other " * 20] * 20, "text")),
    ],
)
def test_the_type_of_a_target_follows_its_values(values: list[Any], kind: str) -> None:
    assert target_type(values) == kind


def tagged(separator: str) -> list[str]:
    rng = random.Random(2)
    return [separator.join(rng.sample(TAGS, rng.randint(1, 3))) for _ in range(60)]


RATED = [n % 5 + 1 for n in range(60)]
UNITS = [f"{n / 2:g} {'kg' if n % 3 else 'h'}" for n in range(60)]
SENTENCES = "rougeL, because the answers are sentences (median 11 words); a judge reads what is meant: --metric judge"


@each_case(
    ("labels", "kind", "line"),
    [
        (["a", "b"] * 30, "choice", "choice, because the answers are 2 labels"),
        (RATED, "number", "ordinal (low 1, high 5), because the answers are a scale from 1 to 5"),
        *(([n % 11 for n in range(60)], "number", "ordinal (low 0, high 10)"), ([0, 1] * 30, "choice", "choice")),
        ([n % 3 / 2 + 1 for n in range(60)], "number", "ordinal (low 1, high 2)"),
        *((["200", "404", "500"] * 20, "choice", "choice"), (["01", "02", "03"] * 20, "choice", "choice")),
        ([n * 1.5 for n in range(60)], "number", "numeric, because the answers are numbers; --metric numeric,t"),
        ([{"a": n} for n in range(60)], "json", "json_fields, because the answers are JSON objects"),
        (UNITS, "text", "quantity, because the answers are numbers with a unit (kg, h), which is compared, not"),
        ([f"${n}.50" for n in range(60)], "text", "quantity"),
        ([f"{n} min" for n in range(60)] * 2, "text", "quantity"),
        (["5 min", "10 min"] * 30, "choice", "choice"),
        ([f"{n} kg" for n in range(59)] + ["a lot"], "text", "token_f1"),
        ([f"{n} {WORDS[n]}" for n in range(60)], "text", "token_f1, because the answers are a few words"),
        ([f"AB{n}" for n in range(60)], "text", "exact_match, because the answers are one word or code each"),
        ([f"Dear customer {n}, we are sorry that the parcel is late" for n in range(60)], "text", SENTENCES),
        ([f"申し訳ございませんが荷物は{n}日後に届きます" for n in range(60)], "text", "rougeL"),
        (["long " * 20, "other " * 20] * 30, "text", "exact_match, because the answers repeat: 2 different"),
        (tagged(";"), "text", "set_f1 (separator ;), because cells hold several of 4 labels"),
        *((tagged(" | "), "text", "set_f1 (separator |)"), (tagged(", "), "text", "set_f1 (separator ,)")),
        ([[tag] for tag in TAGS] * 10 + [["late", "rude"], ["refund", "rude"]] * 10, "text", "set_f1"),
        (["Sales, Marketing", "Support, Billing", "Other"] * 20, "choice", "choice"),
        (["agree", "mostly agree", "neutral"] * 20, "choice", "choice"),
    ],
)  # fmt: skip
def test_the_metric_follows_the_form_of_the_answers_and_says_why(here: Path, labels: Any, kind: str, line: str) -> None:
    task, reading = read(answered(labels))
    assert (reading.targets[0].rule.type, task.signature.outputs[0].type) == (kind, kind)
    assert reading.metric_lines[0].startswith(f"metric: {line}")
    assert task.metrics[0].name == reading.targets[0].rule.metric.name
    assert dict(task.metrics[0].options) == dict(reading.targets[0].rule.metric.options)


@each_case(
    "scale",
    [
        ["Strongly disagree", "Disagree", "Neutral", "Agree", "Strongly agree"],
        *(["LOW", "MEDIUM", "HIGH"], ["Low", "Normal", "High", "Urgent"], ["poor", "fair", "good", "excellent"]),
        *(["Never", "Rarely", "Sometimes", "Often", "Always"], ["nie", "selten", "manchmal", "häufig", "immer"]),
        ["sehr unzufrieden", "unzufrieden", "neutral", "zufrieden", "sehr zufrieden"],
    ],
)
def test_labels_of_a_known_scale_are_scored_by_their_distance(here: Path, scale: list[str]) -> None:
    assert known_scale(scale[:2]) == known_scale([*scale, "other"]) == []
    task, reading = read(answered(sorted(scale) * 12))
    assert reading.metric_lines[0].startswith(f"metric: ordinal (order {' < '.join(scale)}), because the answers are")
    assert (reading.targets[0].choices, task.metrics[0].options) == (tuple(scale), {"order": scale})
    check = ordinal(OrdinalOptions(order=scale), task.signature.outputs[0])
    assert [check(label, scale[0])[0] for label in scale] == [1 - at / (len(scale) - 1) for at in range(len(scale))]


def test_numbers_that_occur_in_the_text_are_read_from_it_and_no_labels(here: Path) -> None:
    def found(answer: str, numbers: list[int], note: str = "{} of {}", **asked: Any) -> str:
        texts = enumerate(row["message"] for row in tickets())
        table = [
            {
                "note": f"{note.format(answer.format(numbers[n]), text)} lot {n + 100}",
                "answer": answer.format(numbers[n]),
            }
            for n, text in texts
        ]
        return read(table, **asked)[1].metric_lines[0]

    many, few = [n % 20 + 1 for n in range(60)], [n % 5 + 1 for n in range(60)]
    said = "metric: numeric, because the answers are numbers that stand in the text in 60 of 60 rows"
    assert found("{}", many).startswith(said)
    assert found("{}", few).startswith("metric: numeric"), "no scale from 1 to 5"
    assert found("{}", many, type="choice").startswith("metric: choice")
    assert found("{} kg", few).startswith("metric: quantity, because the answers are numbers with a unit")
    assert found("{}", few, "Room 1 on floor 2, 3 beds, 4 towels, 5 keys {1}").startswith("metric: ordinal")


def test_what_is_asked_for_comes_before_what_is_proposed(here: Path) -> None:
    task, reading = read(answered(RATED), metric="numeric,tolerance=1")
    assert reading.metric_lines[0] == "metric: numeric (tolerance 1), because --metric names it"
    assert (task.metrics[0].name, dict(task.metrics[0].options)) == ("numeric", {"tolerance": 1})
    assert read(answered(RATED), type="choice")[1].targets[0].choices == ("1", "2", "3", "4", "5")
    task, reading = read(answered([n % 11 for n in range(60)]), type="choice", metric="ordinal")
    assert (reading.targets[0].rule.type, dict(task.metrics[0].options)) == ("choice", {"low": 0, "high": 10})
    assert reading.targets[0].choices[-2:] == ("9", "10")
    assert read(answered(["a", "b"] * 30), metric="rougeL")[1].targets[0].rule.type == "text"
    assert read(answered(["a", "b"] * 30), metric="judge,mode=reference")[0].is_judged
    task, reading = read(answered(["gold", "bronze", "silver"] * 20), metric="ordinal,order=bronze,Silver,gold")
    assert reading.targets[0].choices == ("bronze", "silver", "gold")
    assert metric_asked('ordinal,order=["a, b", "c"]', ["x"]).options == {"order": ["a, b", "c"]}
    assert metric_asked("set_f1:tags,separator=,", ["tags"]).options == {"separator": ","}
    assert metric_asked("regex,pattern=5", ["a"]).options == {"pattern": "5"}
    assert metric_asked("exact_match:b,ignore_case=true", ["a", "b"]).field == "b"


MEDALS = ["gold", "bronze", "silver"] * 20


@each_case(
    ("labels", "asked", "says"),
    [
        (MEDALS, {"metric": "rougel"}, "--metric rougel: no metric is called 'rougel'; did you mean rougeL?"),
        (MEDALS, {"metric": "numeric"}, "--metric numeric: scores number, and the answers, such as 'gold', are choice"),
        (MEDALS, {"metric": "numeric", "type": "choice"}, "--metric numeric: scores number, and --type says choice"),
        (MEDALS, {"metric": "token_f1,size=2"}, "the metric token_f1 has no option 'size'; its options: none"),
        (MEDALS, {"metric": "length,max_words=x"}, "max_words = 'x': should be a valid integer"),
        (MEDALS, {"metric": "length,min_words=5,max_words=3"}, "min_words = 5 is above max_words = 3"),
        (MEDALS, {"metric": "regex,pattern=("}, "pattern = '(': it is not a regular expression"),
        (MEDALS, {"metric": "choice:anwser"}, "'anwser' is not an output; did you mean 'answer'?"),
        (MEDALS, {"metric": "choice,oops"}, "'oops' is no option; write NAME,option=value"),
        (MEDALS, {"metric": "regex"}, "--metric regex: regex needs pattern; write regex,OPTION=VALUE"),
        (MEDALS, {"metric": "ordinal,low=5,high=1"}, "low = 5 is not below high = 1"),
        (
            MEDALS,
            {"metric": "ordinal"},
            "the choice 'bronze' is not a number; list the labels from one end to the other",
        ),
        (MEDALS, {"metric": "ordinal,order=bronze,gold"}, "the choice 'silver' is not in order; list every choice"),
        (MEDALS, {"metric": "quantity"}, "the choice 'bronze' is not a number with a unit"),
        (MEDALS, {"metric": "python"}, "--metric python: needs metric.py in a task folder"),
        (MEDALS, {"metric": "judge"}, "or take --metric judge,mode=reference"),
        (MEDALS, {"metric": "judge,mode=faithfulness"}, "needs documents; name their folder with --knowledge"),
        (MEDALS, {"type": "number"}, "--type number: 60 of 60 answers are not, such as 'gold'; correct them"),
        ([f"a{n}" for n in range(1001)], {"type": "choice"}, "--type choice: the target has 1001 different values"),
        (MEDALS, {"input": ("txt",)}, "--input 'txt' is not a column; did you mean 'text'?"),
        (MEDALS, {"input": ("answer",)}, "--input 'answer' is the column to predict"),
        (MEDALS, {"ignore": ("text",)}, "no column is left as an input; ignored: 'text' (as --ignore says)"),
        (MEDALS, {"input": ("text",), "ignore": ("text",)}, "--input and --ignore both name 'text'"),
        (MEDALS, {"ignore": ("text",), "prompt": "{{text}}"}, "--ignore 'text' is named in the prompt"),
        (MEDALS, {"prompt": "Which of a and b? {text}"}, "holds '{text}', a column; did you mean {{text}}?"),
        (MEDALS, {"prompt": "{{txt}}"}, "{{txt}}, not a column; did you mean 'text'? Known: text, answer"),
        (MEDALS, {"prompt": "{{text}} is {{answer}}"}, "{{answer}}, the column to predict"),
        (MEDALS, {"prompt": "a\0b"}, "the prompt holds a NUL"),
        (["a"] * 60, {}, "the target 'answer' holds one value only"),
        (MEDALS[:29], {}, "has 29 rows; at least 30 are needed"),
        (["", *MEDALS[:29]], {}, "has 29 usable rows (dropped: 1 without 'answer'); at least 30"),
        (["{{x}}", "b", "c"] * 20, {}, "the choice '{{x}}' looks like a placeholder"),
        ([{"a": n} for n in range(60)], {"metric": "json_schema"}, "the metric json_schema needs a schema"),
    ],
)
def test_what_does_not_fit_says_what_to_do(here: Path, labels: list[Any], asked: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        read(answered(labels), **asked)


PLAIN = "is not read as a number; write it with digits and a decimal point only: 1234.5"


@each_case(
    ("number", "line"),
    [
        ("{}.775", "target answer: '1.775' is read as 1.775; write 1775 if thousands are meant"),
        *(("{}", "target answer: number"), ("{}.77", "target answer: number"), ("0.{}775", "target answer: number")),
        ("1.{:03},50", f"target answer: text ('1.001,50' {PLAIN})"),
        ("{}.01.2026", "target answer: text"),
        ("0{}", "target answer: text ('01' begins with a zero, which a number would lose)"),
        ("+{}", "target answer: text ('+1' has a plus sign, which a number would lose)"),
        ("1{:016}", "target answer: text ('10000000000000001' is beyond 1e15, and no reply is read as such a number)"),
    ],
)  # fmt: skip
def test_numbers_that_may_be_meant_otherwise_are_told(here: Path, number: str, line: str) -> None:
    task, reading = read(answered([number.format(n) for n in range(1, 61)]))
    found = [each for each in reading.lines() if each.startswith("target ")]
    assert found == [*["target answer: number"] * ("meant" in line), line]
    if reading.targets[0].rule.type == "text":  # a code of digits is answered as the file writes it
        label = task.train[0].labels["answer"]
        assert parse_reply(label, task.signature.outputs).fields == {"answer": label}


def test_odd_spellings_of_labels_are_told(here: Path) -> None:
    labels = ["billing", "refund", "level 1", "level 2"] * 30
    labels[0:5] = ["refnud", "biling", "level 3", "level 2", " Billing"]
    _, reading = read(answered(labels))
    assert [line for line in reading.lines() if "spel" in line] == [
        "target answer: 'Billing' read as 'billing', the usual spelling",
        "target answer: 'biling' (1 row) looks like 'billing' (29) misspelled",
        "target answer: 'refnud' (1 row) looks like 'refund' (29) misspelled",
    ]
    many = ([f"team {n % 201}" for n in range(402)], "201 different values, more than 200; if they are labels")
    for labels, why in (many, (["a\nb", "c"] * 30, "a label holds a line break")):
        assert read(answered(labels))[1].targets[0].why_text.startswith(why)


# -- several targets ---------------------------------------------------------------------------------------------------

BOTH = ("team", "priority")


def test_each_target_is_an_output_with_its_own_type_and_metric(here: Path) -> None:
    table = tickets(
        priority=["low", "low", "low", "medium", "medium", "medium", "high", "high", "high"], stars=range(5)
    )
    task, reading = read(table, (*BOTH, "stars"))
    assert str(task.signature) == "message -> team, priority, stars"
    third = 1 / 3
    assert [(m.name, m.field, m.weight) for m in task.metrics] == [
        *(("choice", "team", third), ("ordinal", "priority", third), ("ordinal", "stars", third))
    ]
    labels = {row["message"]: {name: row[name] for name in (*BOTH, "stars")} for row in table}
    assert all(row.labels == labels[row.inputs["message"]] for row in rows_of(task))
    lines = list(reading.lines())
    assert "metric of priority: ordinal (order low < medium < high)" in [line.split(", because")[0] for line in lines]
    assert any(line.startswith("replies: the lines 'team: ...' and 'priority: ...'") for line in lines)
    assert lines[-3].startswith("train: 18 rows (team billing: 6, delivery: 6, refunds: 6; priority low: ")
    assert task.instruction == (
        "Read the message and give the team, priority and stars.\n"
        "The team is exactly one of:\n- billing\n- delivery\n- refunds\n"
        "The priority is exactly one of:\n- low\n- medium\n- high\n"
        "Answer with these lines:\n"
        "team: that one only, spelled as above.\n"
        "priority: that one only, spelled as above.\n"
        "stars: one number from 0 to 4 only, in digits, without a unit or other words."
    )
    wanted = {"team": "refunds", "priority": "low", "stars": 3}
    for reply in ("team: refunds\npriority: low\nstars: 3", json.dumps(wanted)):
        assert parse_reply(reply, task.signature.outputs).fields == wanted
    assert [m.name for m in read(table, BOTH, metric="choice:priority")[0].metrics] == ["choice", "choice"]
    task, _ = write_task("tasks/desk", "t.jsonl", BOTH)
    assert load_task("tasks/desk") == task


@each_case(
    ("target", "asked", "says"),
    [
        (("team", "team"), {}, "--target 'team' is named twice; name each column once"),
        (("team", "prioriti"), {}, "--target 'prioriti' is not a column; did you mean 'priority'?"),
        (BOTH, {"metric": "choice"}, "--metric choice: which output? write choice:FIELD with one of team, priority"),
        (BOTH, {"type": "choice"}, "--type choice: there are 2 targets; set their types in a task.toml"),
        (BOTH, {"input": ("team",)}, "--input 'team' is the column to predict"),
    ],
)
def test_what_does_not_go_with_several_targets_is_refused(here: Path, target: Any, asked: Any, says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        read(tickets(priority=["low", "high"]), target, **asked)


# -- the task that is written ------------------------------------------------------------------------------------------


def test_a_written_folder_loads_to_the_same_task(here: Path) -> None:
    table = [{"Customer Message": row["message"], "Team": row["team"]} for row in tickets()]
    source, prompt = write(table, "tickets.csv"), "Route {{Customer Message}} well."
    task, reading = task_from_file(source, "Team", prompt, seed=5)
    written, again = write_task("tasks/tickets", source, "Team", prompt, seed=5)
    loaded = load_task("tasks/tickets")
    assert (reading, loaded, dict(loaded.hashes)) == (again, written, dict(task.hashes))
    assert (loaded.train, loaded.dev, loaded.test) == (task.train, task.dev, task.test)
    assert loaded.train != task_from_file(source, "Team", prompt, seed=6)[0].train
    assert loaded.instruction == "Route {{customer_message}} well."
    assert near_duplicates([row.inputs["customer_message"] for row in rows_of(task)]) == []
    assert Path("tasks/tickets/task.toml").read_text().startswith("#:schema ../task.schema.json\n")
    assert json.loads(Path("tasks/task.schema.json").read_text("utf-8")) == json_schema()
    with pytest.raises(InputError, match=r"^tasks/tickets exists; choose another name"):
        write_task("tasks/tickets", source, "Team")


def test_a_schema_that_exists_stays_and_one_that_cannot_be_written_is_not_named(here: Path) -> None:
    source, schema = write(tickets()), here / "task.schema.json"
    schema.write_text("{}", "utf-8")
    write_task("one", source, "team")
    assert schema.read_text("utf-8") == "{}"
    schema.unlink()
    schema.mkdir()
    write_task("two", source, "team")
    assert Path("two/task.toml").read_text("utf-8").startswith("name")


def test_a_disk_that_is_full_leaves_no_folder(here: Path) -> None:
    source = write(tickets())
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, most[1]))
    try:
        with pytest.raises(InputError, match=r"^tasks/x cannot be written \(File too large\)"):
            write_task("tasks/x", source, "team")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert list(Path("tasks").iterdir()) == []


def test_the_metric_is_written_with_its_reason_and_others_as_comments(here: Path) -> None:
    write_task("tasks/stars", write(answered(list(map(str, RATED)))), "answer")
    text = Path("tasks/stars/task.toml").read_text("utf-8")
    (metric,) = parse_toml(text, "task.toml")["metrics"]
    assert metric == {"name": "ordinal", "low": 1, "high": 5}
    assert "# ordinal, because the answers are a scale from 1 to 5" in text
    assert '# name = "numeric"  # within a tolerance\n# tolerance = 0.5\n' in text
    labels = [json.loads(line)["answer"] for line in Path("tasks/stars/train.jsonl").read_text().splitlines()]
    assert {type(label) for label in labels} == {int}


@each_case(
    ("labels", "words"),
    [
        ([f"{n}.5" for n in range(60)], "one number only, in digits"),
        ([json.dumps({"city": f"c{n}"}) for n in range(60)], 'It may hold the keys "city"'),
        ([f"a longer answer {n}" for n in range(60)], "Answer with the answer only"),
        ([TEAMS[n % 3] for n in range(60)], "- billing\n- delivery\n- refunds\n"),
        ([f"{n} {'°C' if n % 3 else 'h'}" for n in range(60)], "its unit only. The units are: °C, h"),
        (tagged(";"), "is one or more of:\n- broken\n- late"),
    ],
)
def test_the_plain_prompt_asks_for_the_form_of_the_answers(here: Path, labels: list[str], words: str) -> None:
    task, _ = read(answered(labels))
    assert "Read the text" in task.instruction
    assert words in task.instruction


def test_the_plain_prompt_names_the_keys_of_train_labels_and_no_other(here: Path) -> None:
    task, _ = read(answered([{f"key{n}": n} for n in range(60)]))
    for split in ("train", "dev", "test"):
        keys = [f'"{key}"' for row in getattr(task, split) for key in row.labels["answer"]]
        assert {key in task.instruction for key in keys} == {split == "train"}


@given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\\\n\r\t\x7f ')))
def test_any_text_is_written_as_toml_that_reads_back(text: str) -> None:
    assert parse_toml(f"a = {string(text)}\nb = 1\n", "x") == {"a": text, "b": 1}


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8) | st.sampled_from(TEAMS)
VALUE = CELL | st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.lists(st.booleans())


@given(
    st.lists(st.tuples(VALUE, VALUE, VALUE), min_size=25, max_size=45),
    st.lists(CELL, min_size=3, max_size=3, unique=True),
)
def test_any_table_makes_a_task_or_a_line_that_says_why_not(cells: list[tuple[Any, ...]], names: list[str]) -> None:
    write([dict(zip(names, row, strict=True)) for row in cells], "any.jsonl")
    try:
        lines = list(task_from_file("any.jsonl", names[0])[1].lines())
    except InputError as error:
        lines = [str(error)]
    assert all(line.isprintable() and "task.toml" not in line for line in lines)
