"""The metric that fits the answers of a data file: proposed with its reason, or as the user asks."""

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from agent.errors import InputError
from agent.options.shared import Asked
from agent.safe_data import parse_toml
from agent.task.from_file import task_from_file, write_task
from agent.task.scoring_rule import metric_asked
from agent.task.task_text import Reading
from agent.types import Task

WORDS = [f"word{n}" for n in range(500)]
TAGS = ("late", "refund", "broken", "rude")


def answered(labels: list[Any], **more: Any) -> list[dict[str, Any]]:
    rng = random.Random(4)
    return [{"text": " ".join(rng.sample(WORDS, 9)), "answer": label, **more} for label in labels]


def read(table: list[dict[str, Any]], prompt: str = "", target: str = "answer", **asked: Any) -> tuple[Task, Reading]:
    Path("t.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in table), "utf-8")
    return task_from_file("t.jsonl", target, prompt, asked=Asked(**asked))


def tagged(separator: str, count: int = 60) -> list[str]:
    rng = random.Random(2)
    return [separator.join(rng.sample(TAGS, rng.randint(1, 3))) for _ in range(count)]


def rated(count: int = 60) -> list[int]:
    return [n % 5 + 1 for n in range(count)]


@pytest.mark.parametrize(
    ("labels", "kind", "line"),
    [
        (["a", "b"] * 30, "choice", "metric: choice, because the answers are 2 labels"),
        (rated(), "number", "metric: ordinal (low 1, high 5), because the answers are a scale from 1 to 5"),
        ([n % 11 for n in range(60)], "number", "metric: ordinal (low 0, high 10)"),
        ([n % 3 / 2 + 1 for n in range(60)], "number", "metric: ordinal (low 1, high 2)"),
        ([n % 2 for n in range(60)], "choice", "metric: choice"),
        (["200", "404", "500"] * 20, "choice", "metric: choice"),
        (["01", "02", "03"] * 20, "choice", "metric: choice"),
        (
            [n * 1.5 for n in range(60)],
            "number",
            "metric: numeric, because the answers are numbers; --metric numeric,t",
        ),
        ([{"a": n} for n in range(60)], "json", "metric: json_fields, because the answers are JSON objects"),
        (
            [f"{n / 2:g} {'kg' if n % 3 else 'h'}" for n in range(60)],
            "text",
            "metric: quantity, because the answers are numbers with a unit (kg, h), which is compared, not converted",
        ),
        ([f"${n}.50" for n in range(60)], "text", "metric: quantity, because the answers are numbers with a unit ($)"),
        ([f"{n} min" for n in range(60)] * 2, "text", "metric: quantity"),
        (["5 min", "10 min"] * 30, "choice", "metric: choice"),
        ([f"{n} {WORDS[n]}" for n in range(60)], "text", "metric: token_f1, because the answers are a few words"),
        ([f"{n} kg" for n in range(59)] + ["a lot"], "text", "metric: token_f1, because the answers are a few words"),
        ([f"AB{n}" for n in range(60)], "text", "metric: exact_match, because the answers are one word or code each"),
        (
            [f"Dear customer {n}, we are sorry that the parcel is late" for n in range(60)],
            "text",
            "metric: rougeL, because the answers are sentences (median 11 words); a judge reads what is meant: "
            "--metric judge,mode=reference",
        ),
        ([f"申し訳ございませんが荷物は{n}日後に届きます" for n in range(60)], "text", "metric: rougeL"),
        (["long " * 20, "other " * 20] * 30, "text", "metric: exact_match, because the answers repeat: 2 different"),
        (tagged(";"), "text", "metric: set_f1 (separator ;), because cells hold several of 4 labels, apart by ';'"),
        (tagged(" | "), "text", "metric: set_f1 (separator |)"),
        (tagged(", "), "text", "metric: set_f1 (separator ,)"),
        ([[tag] for tag in TAGS] * 10 + [["late", "rude"], ["refund", "rude"]] * 10, "text", "metric: set_f1"),
        (["Sales, Marketing", "Support, Billing", "Other"] * 20, "choice", "metric: choice"),
    ],
)
def test_the_metric_follows_the_form_of_the_answers_and_says_why(
    here: Path, labels: list[Any], kind: str, line: str
) -> None:
    task, reading = read(answered(labels))
    assert (reading.targets[0].rule.type, task.signature.outputs[0].type) == (kind, kind)
    assert reading.metric_lines[0].startswith(line)
    assert reading.metric_lines[0] in list(reading.lines())
    assert task.metrics[0].name == reading.targets[0].rule.metric.name
    assert dict(task.metrics[0].options) == dict(reading.targets[0].rule.metric.options)


def test_what_is_asked_for_comes_before_what_is_proposed(here: Path) -> None:
    task, reading = read(answered(rated()), metric="numeric,tolerance=1")
    assert reading.metric_lines[0] == "metric: numeric (tolerance 1), because --metric names it"
    assert (task.metrics[0].name, dict(task.metrics[0].options)) == ("numeric", {"tolerance": 1})
    task, reading = read(answered(rated()), type="choice")
    assert (task.metrics[0].name, reading.targets[0].choices) == ("choice", ("1", "2", "3", "4", "5"))
    task, reading = read(answered([n % 11 for n in range(60)]), type="choice", metric="ordinal")
    assert (reading.targets[0].rule.type, dict(task.metrics[0].options)) == ("choice", {"low": 0, "high": 10})
    task, reading = read(answered(["a", "b"] * 30), metric="rougeL")
    assert (reading.targets[0].rule.type, task.metrics[0].name) == ("text", "rougeL")
    task, _ = read(answered(["a", "b"] * 30), metric="judge,mode=reference")
    assert task.is_judged


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"metric": "rougel"}, "--metric rougel: no metric is called 'rougel'; did you mean rougeL?"),
        ({"metric": "numeric"}, "--metric numeric: scores number, and the answers, such as 'a', are choice"),
        ({"metric": "numeric", "type": "choice"}, "--metric numeric: scores number, and --type says choice"),
        ({"metric": "token_f1,size=2"}, "the metric token_f1 has no option 'size'; its options: none"),
        ({"metric": "length,max_words=x"}, "max_words = 'x': should be a valid integer"),
        ({"metric": "choice:anwser"}, "'anwser' is not an output; did you mean 'answer'?"),
        ({"metric": "choice,oops"}, "'oops' is no option; write NAME,option=value"),
        ({"metric": "regex"}, "the metric regex needs pattern; write regex,OPTION=VALUE"),
        ({"metric": "ordinal,low=5,high=1"}, "low = 5 is not below high = 1"),
        ({"metric": "python"}, "--metric python: needs metric.py in a task folder"),
        ({"metric": "judge"}, "or --metric judge,mode=reference"),
        ({"metric": "embedding_similarity", "type": "choice"}, "scores text, and --type says choice"),
        ({"type": "number"}, "--type number: 60 of 60 answers are not, such as 'a'; correct or remove them"),
        ({"input": ("txt",)}, "--input 'txt' is not a column; did you mean 'text'?"),
        ({"input": ("answer",)}, "--input 'answer' is the column to predict"),
        ({"ignore": ("text",)}, "no column is left as an input; ignored: 'text' (as --ignore says)"),
        ({"input": ("text",), "ignore": ("text",)}, "--input and --ignore both name 'text'"),
    ],
)
def test_an_option_that_does_not_fit_says_what_to_do(here: Path, asked: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        read(answered(["a", "b"] * 30), **asked)


def test_the_values_of_options_have_the_types_that_the_metric_takes() -> None:
    assert metric_asked("set_f1:tags,separator=,", ["tags"]).options == {"separator": ","}
    assert metric_asked("regex,pattern=5", ["a"]).options == {"pattern": "5"}
    assert metric_asked("exact_match:b,ignore_case=true", ["a", "b"]).field == "b"
    with pytest.raises(InputError, match="which output"):
        metric_asked("exact_match", ["a", "b"])


def test_init_writes_the_metric_with_its_reason_and_others_as_comments_and_numbers_without_quotes(here: Path) -> None:
    Path("t.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in answered([str(n) for n in rated()])))
    write_task("tasks/stars", "t.jsonl", "answer")
    text = Path("tasks/stars/task.toml").read_text("utf-8")
    (metric,) = parse_toml(text, "task.toml")["metrics"]
    assert metric == {"name": "ordinal", "low": 1, "high": 5}
    assert "# ordinal, because the answers are a scale from 1 to 5" in text
    assert '# name = "numeric"  # within a tolerance\n# tolerance = 0.5\n' in text
    labels = [json.loads(line)["answer"] for line in Path("tasks/stars/train.jsonl").read_text().splitlines()]
    assert {type(label) for label in labels} == {int}
    plain = re.sub(r"(?s)\[\[metrics\]\].*?# In its place[^\n]*\n", "[[metrics]]\n", text)
    other = re.sub("(?m)^# (?=name|tolerance)", "", plain.split('# name = "ordinal"')[0])
    assert parse_toml(other, "task.toml")["metrics"] == [{"name": "numeric", "tolerance": 0.5}]


def test_dates_are_no_input_unless_they_are_asked_for(here: Path) -> None:
    days = ("2026-01-0{}", "2026-01-0{}T10:00:00Z", "0{}.01.2026", "1/{}/26 10:30")
    for day in days:
        table = [row | {"when": day.format(n % 9 + 1)} for n, row in enumerate(answered(["a", "b"] * 30))]
        _, reading = read(table)
        assert "column 'when': ignored (dates; name it in the prompt or with --input to keep it)" in list(
            reading.lines()
        )
        both = read(table, input=("text", "when"))[0]
        assert [field.name for field in both.signature.inputs] == ["text", "when"]
        assert [field.name for field in read(table, "{{when}}: {{text}}")[0].signature.inputs] == ["text", "when"]


def test_a_mark_of_one_brace_that_names_a_column_is_refused(here: Path) -> None:
    with pytest.raises(InputError, match=re.escape("holds '{text}', and text is a column; did you mean {{text}}?")):
        read(answered(["a", "b"] * 30), "Which of a and b? {text}")
    assert read(answered(["a", "b"] * 30), 'Say {"label": "a"} or {b} for {{text}}')[0].dev


def test_a_label_that_looks_like_a_frequent_one_misspelled_is_told(here: Path) -> None:
    labels = ["billing", "refund", "level 1", "level 2"] * 30
    labels[0:3] = ["refnud", "biling", "level 3"]
    _, reading = read(answered(labels))
    assert [line for line in reading.lines() if "misspelled" in line] == [
        "target answer: 'biling' (1 of the rows) looks like 'billing' (29) misspelled; correct the file if it is",
        "target answer: 'refnud' (1 of the rows) looks like 'refund' (29) misspelled; correct the file if it is",
    ]


def splits(task: Task) -> dict[str, str]:
    """By the words of a row, the split that it is in."""
    return {
        row.inputs["text"]: name
        for name, rows in (("train", task.train), ("dev", task.dev), ("test", task.test))
        for row in rows
    }


def test_other_inputs_move_no_row_to_another_split(here: Path) -> None:
    rng = random.Random(7)
    table = [
        row
        | {
            "mood": " ".join(rng.sample(WORDS, 4)),
            "note": "" if n % 3 else f"seen {n}",
            "when": f"2026-02-{n % 28 + 1:02}",
        }
        for n, row in enumerate(answered(["a", "b"] * 60))
    ]
    for n in (5, 25, 45):  # the same text with another mood
        table[n + 1] |= {"text": table[n]["text"], "answer": table[n]["answer"]}
    plain = splits(read(table)[0])
    ways: list[dict[str, Any]] = [
        {"prompt": "{{text}}"},
        {"prompt": "{{mood}} {{text}}"},
        {"input": ("text",)},
        {"ignore": ("mood",)},
        {"input": ("text", "note")},
        {"input": ("text", "when")},
    ]
    for way in ways:
        task, reading = read(table, **way)
        found = splits(task)
        assert all(found[text] == plain[text] for text in found if text in plain), way
        assert min(len(task.train), len(task.dev), len(task.test)) > 5
        assert sum(map(len, (task.train, task.dev, task.test))) + reading.unused + sum(reading.dropped.values()) == 120


def test_dotted_names_lead_into_json_objects(here: Path) -> None:
    table = [
        {
            "text": row["text"],
            "label": {"queue": row["answer"], "sure": n},
            "from": {"name": f"n{n}", "plan": {"tier": "a b"[n % 3 : n % 3 + 1]}},
        }
        for n, row in enumerate(answered(["x", "y"] * 40))
    ]
    task, reading = read(table, target="label.queue")
    assert str(task.signature) == "text, from -> label_queue"
    assert reading.targets[0].choices == ("x", "y")
    assert "column 'label.sure': ignored" in "\n".join(reading.lines())
    task, _ = read(table, "{{text}} {{from.plan.tier}}", target="label.queue")
    assert str(task.signature) == "text, from_plan_tier -> label_queue"
    assert read(table, target="label")[1].targets[0].rule.type == "json"
    with pytest.raises(InputError, match=re.escape("'label.que' is not a column; did you mean 'label.queue'?")):
        read(table, target="label.que")
