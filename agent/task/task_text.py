"""The texts of a task made from a data file: plain prompt, task.toml, and an explanation of the file."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.errors import InputError
from agent.metrics.comparison import units_in
from agent.safe_text import counted, listed, printable, quoted
from agent.task.answers import text_of
from agent.task.checks import PLACEHOLDER
from agent.task.columns import DataColumn, field_name
from agent.task.scoring_rule import ScoringRule
from agent.types import SPLITS, FieldType

SCHEMA_LINE = "#:schema ../task.schema.json\n"
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
"""Alternative metrics by answer type, as lines of task.toml with a comment."""


@dataclass(frozen=True, slots=True)
class Output:
    field: str
    rule: ScoringRule
    choices: tuple[str, ...] = ()


def plain_prompt(columns: Sequence[DataColumn], outputs: Sequence[Output], train: Sequence[Mapping[str, Any]]) -> str:
    """Write a plain prompt, from train rows only."""
    inputs = [words(column.field) for column in columns if column.use == "input"]
    start = f"Read the {_joined(inputs)} and give the {_joined([words(output.field) for output in outputs])}."
    parts = [_answer_form(output, [row[output.field] for row in train]) for output in outputs]
    if len(parts) == 1:
        about, form = parts[0]
        return "\n".join([start, *about, f"Answer with {form}"])
    lines = [f"{output.field}: {form}" for output, (_, form) in zip(outputs, parts, strict=True)]
    return "\n".join([start, *(line for about, _ in parts for line in about), "Answer with these lines:", *lines])


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _answer_form(output: Output, labels: Sequence[Any]) -> tuple[list[str], str]:
    rule, answer = output.rule, words(output.field)
    named = output.choices or rule.labels
    if braced := next((choice for choice in named if PLACEHOLDER.search(choice)), None):
        raise InputError(f"the choice {quoted(braced)} looks like a placeholder; rename it or give a prompt without it")
    options = [f"- {choice}" for choice in named]
    if rule.labels:
        apart = rule.metric.options["separator"]
        return [f"The {answer} is one or more of:", *options], f"these only, separated by {apart}"
    if rule.type == "choice":
        return [f"The {answer} is exactly one of:", *options], "that one only, spelled as above."
    if rule.type == "number":
        ends = rule.metric.options
        scale = f" from {ends['low']:g} to {ends['high']:g}" if rule.is_scale and {"low", "high"} <= {*ends} else ""
        return [], f"one number{scale} only, in digits, without a unit or other words."
    if rule.type == "json":
        keys = ", ".join(sorted({json.dumps(key, ensure_ascii=False) for label in labels for key in label})[:50])
        about = f" It may hold the keys {keys}." if keys else ""
        return [f"The {answer} is one JSON object.{about}"], "the JSON object only."
    if rule.metric.name == "quantity":
        units = listed(units_in(map(text_of, labels)))
        return [], f"one number in digits and its unit only. The units are: {units}"
    return [], f"the {answer} only, without an explanation."


def words(field: str) -> str:
    return field.replace("_", " ")


def slug(name: str) -> str:
    made = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-")[:80]
    return made or field_name(name, 1, ())


def task_toml(
    name: str,
    columns: Sequence[DataColumn],
    outputs: Sequence[Output],
    instruction: str,
    has_metrics: bool = True,
    description: str = "",
    tools: str = "",
) -> str:
    inputs = [column for column in columns if column.use == "input"]
    named = {column.field: column.name for column in columns if column.use == "target"}
    answers = _joined([words(output.field) for output in outputs])
    description = description or f"Give the {answers} for the {' and '.join(words(c.field) for c in inputs)}."
    signature = f"{', '.join(c.field for c in inputs)} -> {', '.join(output.field for output in outputs)}"
    lines = [
        SCHEMA_LINE.rstrip(),
        f"name = {string(name)}",
        f"description = {string(description)}",
        f"signature = {string(signature)}",
        f"instruction = {string(instruction)}",
        *([f"tools = {string(tools)}"] if tools else []),
    ]
    for column in inputs:
        about = _described(column.name, column.field)
        about += ['type = "conversation"'] * column.is_conversation + ["optional = true"] * column.is_optional
        lines += _table(column.field, about)
    for output in outputs:
        about = _described(named[output.field], output.field)
        about += [f'type = "{output.rule.type}"'] * (output.rule.type != "text")
        if output.choices:
            about += ["choices = [", *(f"    {string(choice)}," for choice in output.choices), "]"]
        lines += _table(output.field, about)
    for output in outputs if has_metrics else ():
        lines += _metric(output, len(outputs) > 1)
    return "\n".join(lines) + "\n"


def _described(name: str, field: str) -> list[str]:
    return [f"description = {string(' '.join(name.split()))}"] if name != field else []


def _table(field: str, about: Sequence[str]) -> list[str]:
    return ["", f"[fields.{field}]", *about] if about else []


def _metric(output: Output, is_one_of_several: bool) -> list[str]:
    rule, metric = output.rule, output.rule.metric
    lines = ["", *([f"# {metric.name}, because {printable(rule.because)}"] if rule.because else []), "[[metrics]]"]
    lines += [f"name = {string(metric.name)}", *([f"field = {string(output.field)}"] if is_one_of_several else [])]
    lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in metric.options.items()]
    return [*lines, *(_others(rule) if rule.because else [])]


def _others(rule: ScoringRule) -> list[str]:
    others = [each for each in OTHERS[rule.type] if f'"{rule.metric.name}"' not in each[0].split("\n")[0]]
    lines = ["# In its place, by what is meant:"] if others else []
    for text, about in others:
        first, *more = text.split("\n")
        lines += [f"# {first}  # {about}", *more]
    return lines


def string(text: str) -> str:
    made = json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
    if "\n" not in text:
        return made
    body = made[1:-1].replace("\\\\", "\x00").replace("\\n", "\n").replace("\x00", "\\\\")
    if '""' not in text and not text.endswith('"'):
        body = made[1:-1].replace("\\\\", "\x00").replace("\\n", "\n").replace('\\"', '"').replace("\x00", "\\\\")
    return f'"""\n{body}"""'


# -- an explanation of the file ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TargetReading(Output):
    why_text: str = ""
    """Why a target of few values or numbers is read as text."""
    remarks: Sequence[str] = ()
    """Warnings on spelling and numbers."""
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Rows by split and class; the class is "" unless the target is a choice."""

    def lines(self) -> Iterator[str]:
        about = f" of {len(self.choices)}" if self.choices else f" ({self.why_text})" if self.why_text else ""
        yield from (f"target {self.field}: {what}" for what in (f"{self.rule.type}{about}", *self.remarks))

    @property
    def metric_text(self) -> str:
        metric = self.rule.metric
        given = {key: " < ".join(value) if key == "order" else value for key, value in metric.options.items()}
        options = ", ".join(f"{key} {value}" for key, value in given.items())
        if not self.rule.because:
            return f"{metric.name}{', whatever the case' * bool(metric.options.get('ignore_case'))}"
        return f"{metric.name}{f' ({options})' * bool(options)}, because {self.rule.because}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    file: str
    rows: int
    dropped: Mapping[str, int]
    """Rows by reason."""
    unused: int
    """Usable rows in no split."""
    columns: tuple[DataColumn, ...]
    targets: tuple[TargetReading, ...]
    empty: Mapping[str, int]
    """Kept rows with an empty input, by input."""
    split_line: str
    """How a column of the file splits the rows, or ""."""
    later: Sequence[str]
    """Inputs whose names suggest that they are filled in later."""
    inside: Mapping[str, int]
    """Rows in which an input contains the answer word for word, by input."""
    notes: Sequence[str] = ()
    """Notes on encoding, sheet and HTML."""

    @property
    def metric_lines(self) -> list[str]:
        if len(self.targets) == 1:
            return [f"metric: {self.targets[0].metric_text}"]
        return [f"metric of {target.field}: {target.metric_text}" for target in self.targets]

    def lines(self) -> Iterator[str]:
        yield from self.notes
        unused = f"unused (near-duplicates, or beyond the split sizes): {self.unused}"
        yield f"{self.file}: {self.rows} rows; dropped: {listed_counts(self.dropped)}; {unused}"
        for column in self.columns:
            kept = f"; empty in {counted(self.empty[column.name], 'row')}, kept" if column.name in self.empty else ""
            yield f"column {quoted(column.name)}: {column.use} ({column.reason}{kept})"
        for name in self.later:
            yield f"column {quoted(name)}: is it known when the prompt is used? If not: --ignore {shlex.quote(name)}"
        for name, count in self.inside.items():
            fix = f"if it is not known when the prompt is used: --ignore {shlex.quote(name)}"
            yield f"column {quoted(name)}: contains the answer word for word in {count} rows; {fix}"
        for target in self.targets:
            yield from target.lines()
        if len(self.targets) > 1:
            lines = " and ".join(quoted(f"{target.field}: ...") for target in self.targets)
            yield f"replies: the lines {lines}, or one JSON object with these keys; ask for one of them in your prompt"
        yield from self.metric_lines
        usual = "splits: train rows give examples, dev rows compare prompts, test rows are opened once, at the end"
        yield self.split_line or usual
        for split in SPLITS:
            classes = [
                f"{target.field + ' ' if len(self.targets) > 1 else ''}"
                + ", ".join(f"{name}: {count}" for name, count in target.counts[split].items())
                for target in self.targets
                if target.choices
            ]
            rows = sum(self.targets[0].counts[split].values())
            yield f"{split}: {rows} rows" + (f" ({'; '.join(classes)})" if classes else "")


def listed_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "none"
