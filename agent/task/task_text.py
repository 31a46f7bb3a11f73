"""The texts of a task that is made out of a data file: a plain prompt, and task.toml."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from agent.errors import InputError
from agent.task.answers import text_of
from agent.task.checks import PLACEHOLDER
from agent.task.columns import DataColumn, field_name
from agent.task.scoring_rule import ScoringRule
from agent.task.words import listed, printable, quoted
from agent.types import FieldType, MetricSpec

SCHEMA_FILE = "task.schema.json"
SCHEMA_LINE = f"#:schema ../{SCHEMA_FILE}\n"
OTHERS: Mapping[FieldType, Sequence[tuple[str, str]]] = {
    "text": (
        ('name = "exact_match"', "the label itself"),
        ('name = "token_f1"', "a few words: those in common"),
        ('name = "rougeL"', "sentences: the longest run of words in common"),
        ('name = "set_f1"\n# separator = ";"', "several labels, in any order"),
        ('name = "quantity"\n# tolerance = 0.5', "a number with its unit, within a tolerance"),
        ('name = "judge"\n# mode = "reference"', "a model compares with the label"),
    ),
    "choice": (
        ('name = "choice"', "the label, whatever its case"),
        ('name = "ordinal"\n# order = ["low", "medium", "high"]', "labels are steps of a scale, and near ones count"),
        ('name = "set_f1"\n# separator = ";"', "several labels, in any order"),
    ),
    "number": (
        ('name = "numeric"\n# tolerance = 0.5', "within a tolerance"),
        ('name = "ordinal"\n# low = 1\n# high = 5', "near numbers on a scale count"),
    ),
    "json": (
        ('name = "json_fields"', "the part of the fields that are right"),
        ('name = "judge"\n# mode = "reference"', "a model compares with the label"),
    ),
}
"""By type of the answers: other metrics that score them, as lines of task.toml, and what each is for."""


def plain_prompt(
    columns: Sequence[DataColumn], rule: ScoringRule, choices: Sequence[str], labels: Sequence[Any]
) -> str:
    """A plain fair prompt: what to do, the fields, every choice, the form of the answer. `labels` are of train, since
    those of the other splits stay unseen."""
    inputs = [words(column.field) for column in columns if column.use == "input"]
    answer = next(words(column.field) for column in columns if column.use == "target")
    given = inputs[0] if len(inputs) == 1 else f"{', '.join(inputs[:-1])} and {inputs[-1]}"
    start = f"Read the {given} and give the {answer}."
    named = choices or rule.labels
    if braced := next((choice for choice in named if PLACEHOLDER.search(choice)), None):
        raise InputError(f"the choice {quoted(braced)} looks like a placeholder; rename it or give a prompt without it")
    options = "\n".join(f"- {choice}" for choice in named)
    if rule.labels:
        apart = rule.metric.options["separator"]
        return f"{start}\nThe {answer} is one or more of:\n{options}\nAnswer with these only, separated by {apart}"
    if rule.type == "choice":
        return f"{start}\nThe {answer} is exactly one of:\n{options}\nAnswer with that one only, spelled as above."
    if rule.type == "number":
        ends = rule.metric.options
        scale = f" from {ends['low']:g} to {ends['high']:g}" if rule.is_scale and {"low", "high"} <= {*ends} else ""
        return f"{start}\nAnswer with one number{scale} only, in digits, without a unit or other words."
    if rule.type == "json":
        keys = ", ".join(sorted({json.dumps(key, ensure_ascii=False) for label in labels for key in label})[:50])
        about = f" It may hold the keys {keys}." if keys else ""
        return f"{start}\nThe {answer} is one JSON object.{about}\nAnswer with the JSON object only."
    if rule.metric.name == "quantity":
        from agent.metrics.quantity import units_in

        units = listed(units_in(map(text_of, labels)))
        return f"{start}\nAnswer with one number in digits and its unit only. The units are: {units}"
    return f"{start}\nAnswer with the {answer} only, without an explanation."


def words(field: str) -> str:
    return field.replace("_", " ")


def slug(name: str) -> str:
    """`name` as the name of a task."""
    made = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-")[:80]
    return made or field_name(name, 1, ())


def task_toml(
    name: str,
    columns: Sequence[DataColumn],
    rule: ScoringRule,
    choices: Sequence[str],
    instruction: str,
    metric: MetricSpec | None,
    description: str = "",
    spoken: frozenset[str] = frozenset(),
    tools: str = "",
    optional: frozenset[str] = frozenset(),
) -> str:
    """The text of task.toml; every key left out has its default.

    Args:
        name: The task's name.
        columns: Use and field of each column.
        rule: Type of the answers, and why the metric fits: it stands in the file with others that would.
        choices: Every choice, where the answers are some.
        instruction: The prompt.
        metric: The metric. None: none is written, and the answers have that of their type.
        description: What the task is; "": made of the fields.
        spoken: The columns that hold conversations.
        tools: The file of the tools that the answers call; "": none.
        optional: The input columns that may be empty.
    """
    inputs = [column for column in columns if column.use == "input"]
    output = next(column for column in columns if column.use == "target")
    description = (
        description or f"Give the {words(output.field)} for the {' and '.join(words(c.field) for c in inputs)}."
    )
    lines = [
        SCHEMA_LINE.rstrip(),
        f"name = {string(name)}",
        f"description = {string(description)}",
        f"signature = {string(', '.join(c.field for c in inputs) + ' -> ' + output.field)}",
        f"instruction = {string(instruction)}",
        *([f"tools = {string(tools)}"] if tools else []),
    ]
    for column in (*inputs, output):
        about = [f"description = {string(' '.join(column.name.split()))}"] if column.name != column.field else []
        if column.name in spoken:
            about.append('type = "conversation"')
        if column.name in optional:
            about.append("optional = true")
        if column is output and rule.type != "text":
            about.append(f'type = "{rule.type}"')
        if column is output and choices:
            about += ["choices = [", *(f"    {string(choice)}," for choice in choices), "]"]
        if about:
            lines += ["", f"[fields.{column.field}]", *about]
    if metric:
        lines += ["", *([f"# {metric.name}, because {printable(rule.because)}"] if rule.because else []), "[[metrics]]"]
        lines += [f"name = {string(metric.name)}"]
        lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in metric.options.items()]
        if rule.because:
            lines += _others(rule)
    return "\n".join(lines) + "\n"


def _others(rule: ScoringRule) -> list[str]:
    """The other metrics as comments."""
    others = [each for each in OTHERS[rule.type] if f'"{rule.metric.name}"' not in each[0].split("\n")[0]]
    lines = ["# In its place, by what is meant:"] if others else []
    for text, about in others:
        first, *more = text.split("\n")
        lines += [f"# {first}  # {about}", *more]
    return lines


def string(text: str) -> str:
    """`text` as a TOML string, over several lines where it has them."""
    made = json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
    if "\n" not in text:
        return made
    body = made[1:-1].replace("\\\\", "\x00").replace("\\n", "\n").replace("\x00", "\\\\")
    if '""' not in text and not text.endswith('"'):
        body = made[1:-1].replace("\\\\", "\x00").replace("\\n", "\n").replace('\\"', '"').replace("\x00", "\\\\")
    return f'"""\n{body}"""'
