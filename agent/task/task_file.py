"""The keys of task.toml as a pydantic model: types, ranges, defaults and one description per key.

Knows what one key may hold; what keys mean together (a metric on a field, a signature) is checked in `checks`.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

from agent.metrics.catalog import METRICS
from agent.task.words import seconds
from agent.types import FieldType, FormatName, TechniqueName

_MOST = 2**53


def _schema(value: Any) -> str | dict[str, Any]:
    if (isinstance(value, str) and value.strip()) or isinstance(value, dict):
        return value
    raise ValueError("write the name of a file in the task folder, or the JSON schema as a table")


def _metric(value: Any) -> Any:
    from pydantic_core import PydanticCustomError

    if value not in METRICS:
        raise PydanticCustomError("literal_error", "no such metric")
    return value


Line = Annotated[str, StringConstraints(pattern=r"^[^\r\n]*\S[^\r\n]*$")]
Text = Annotated[str, StringConstraints(pattern=r"\S")]
Count = Annotated[int, Field(ge=1, le=_MOST)]
Seconds = Annotated[
    float,
    BeforeValidator(seconds),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "examples": ["5m", "1h"]}]}
    ),
]
Schema = Annotated[Any, BeforeValidator(_schema), WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object"}]})]
Share = Annotated[float, Field(gt=0, lt=1)]
Optional = SkipJsonSchema[None]


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @classmethod
    def defaults(cls) -> Self:
        """The table when nothing of it is written."""
        return cls.model_validate({})


class FieldTable(Table):
    """One field of the signature."""

    description: str = Field("", description="What the field holds, in a few words; shown to the model.")
    type: FieldType = Field("text", description="text, choice (one of a list), number, or json.")
    choices: list[Line] = Field([], description="Type choice: every allowed value, spelled as it must be answered.")
    schema_: Schema | Optional = Field(
        None, alias="schema", description="Type json: a JSON schema, as a file in the task folder or as a table."
    )
    min_words: Annotated[int, Field(ge=1, le=_MOST)] | Optional = Field(
        None, description="Type text: an answer with fewer words scores 0."
    )
    max_words: Annotated[int, Field(ge=1, le=_MOST)] | Optional = Field(
        None, description="Type text: an answer with more words scores 0."
    )
    forbidden: list[Text] = Field(
        [], description="Type text: an answer that holds one of these, in any case, scores 0."
    )
    required: list[Text] = Field([], description="Type text: an answer that lacks one of these, in any case, scores 0.")


class MetricTable(Table):
    """One metric; a task's score is the weighted sum of its metrics."""

    model_config = ConfigDict(extra="allow")  # the metric's own options, which its own model checks

    name: Annotated[str, BeforeValidator(_metric)] = Field(description="Which metric.")
    field: str | Optional = Field(None, description="The output it scores; may be left out when there is only one.")
    weight: float = Field(
        1.0, gt=0, le=1e9, description="Its share of the score, above 0; weights are normalised to sum 1."
    )

    @property
    def given(self) -> dict[str, Any]:
        """The options as they are written."""
        return self.model_extra or {}


class ModelsTable(Table):
    """Which models take part."""

    target: Line | Optional = Field(None, description="The model being prompted, such as local/smollm2-135m.")
    proposer: Line | Optional = Field(None, description="The model that writes new instructions; default: the target.")
    judge: Line | Annotated[list[Line], Field(min_length=1, max_length=9)] | Optional = Field(
        None, description="The model that judges, or a list of them (a panel); default: the target."
    )
    max_tokens: Count | Optional = Field(None, description="The most tokens of one reply; default: from the labels.")
    thinking: Annotated[int, Field(ge=0, le=_MOST)] = Field(
        0, description="Tokens that a model may think in each call beside its reply: for reasoning models."
    )


class SearchTable(Table):
    """What the search may try."""

    techniques: list[TechniqueName] = Field(
        list(get_args(TechniqueName)), min_length=1, description="The prompting techniques to try; default: all."
    )
    formats: list[FormatName] = Field(
        ["turns", "labelled-turns", "inline", "dspy-chat"], min_length=1, description="The prompt layouts to try."
    )
    demo_counts: list[Annotated[int, Field(ge=1, le=10_000)]] = Field(
        [4, 8, 16, 32], min_length=1, description="How many worked examples a few-shot prompt may hold."
    )
    roles: list[Text] = Field([], description='Opening sentences to try, such as "You are a careful clerk."')


class ConstraintsTable(Table):
    """Hard limits on every prompt."""

    max_prompt_tokens: Count | Optional = Field(None, description="The most tokens of a rendered prompt.")
    max_demos: Annotated[int, Field(ge=0, le=_MOST)] | Optional = Field(
        None, description="The most worked examples in a prompt."
    )
    forbidden: list[Text] = Field([], description="Words that no prompt may contain.")


class BudgetTable(Table):
    """Hard caps on a run: target, proposer and judge together."""

    max_calls: Count | Optional = Field(None, description="The most model calls.")
    max_tokens: Count | Optional = Field(None, description="The most tokens, prompts and replies together.")
    max_cost: Annotated[float, Field(ge=0, le=1e9)] | Optional = Field(None, description="The most US dollars.")
    time_limit: Seconds | Optional = Field(
        None, description='The longest run: seconds, or a text such as "5m" or "1h".'
    )


class MonitorTable(Table):
    """What counts as drift of answers in production; a change must be significant and at least so large."""

    alpha: Share = Field(0.01, description="The rate of false alarms of one look at a log, over all its tests.")
    unreadable: Share = Field(0.02, description="How much more often a reply cannot be read.")
    labels: Share = Field(0.1, description="Type choice: the part of all answers that moved to another choice.")
    length: Share = Field(0.15, description="The largest distance between the distributions of lengths (0 to 1).")
    repeats: Share = Field(0.05, description="How much more often an input that comes again gets another answer.")
    score: Share = Field(0.05, description="How far the mean score fell.")


class SplitsTable(Table):
    """File names of the three splits, inside the task folder; default: NAME.jsonl or NAME.csv."""

    train: Line | Optional = Field(None, description="The file that examples in prompts come from.")
    dev: Line | Optional = Field(None, description="The file that chooses between prompts.")
    test: Line | Optional = Field(None, description="The sealed file, opened once, at the end.")


class TaskFile(Table):
    """A task: what goes in, what must come out, how it is scored, and what the search may spend."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")] = Field(
        description="The task's name: letters, digits, dot, dash and underscore, at most 80."
    )
    description: Text = Field(description="What the task is, in one sentence.")
    signature: Text = Field(description='Inputs and outputs, such as "message -> team".')
    instruction: Text = Field(description="The prompt used today: the baseline that every other prompt must beat.")
    program: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,79}:[A-Za-z_][A-Za-z0-9_]{0,79}$")] = (
        Field(
            "",
            description='A program of your own in place of one prompt: "program:build" is build() in program.py, which '
            "gives a DSPy module, or build(model), which gives a LangChain chain.",
        )
    )
    slices: list[Line] = Field([], description='Columns or fields by which scores are told apart, such as "language".')
    repeats: Annotated[int, Field(ge=1, le=20)] = Field(
        1, description="How often each of some test rows is asked at the end, to see how steady the answers are."
    )
    fields: dict[str, FieldTable] = Field({}, description="More about each field of the signature, by its name.")
    metrics: list[MetricTable] = Field([], description="How answers are scored; default: by the type of the output.")
    models: ModelsTable = Field(default_factory=ModelsTable.defaults, description="Which models take part.")
    search: SearchTable = Field(default_factory=SearchTable.defaults, description="What the search may try.")
    constraints: ConstraintsTable = Field(
        default_factory=ConstraintsTable.defaults, description="Hard limits on every prompt."
    )
    budget: BudgetTable = Field(default_factory=BudgetTable.defaults, description="Hard caps on a run.")
    monitor: MonitorTable = Field(
        default_factory=MonitorTable.defaults, description="What counts as drift of answers in production."
    )
    splits: SplitsTable = Field(default_factory=SplitsTable.defaults, description="File names of the three splits.")


def json_schema() -> dict[str, Any]:
    """The published JSON schema of task.toml: every key with its type, default and description."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **TaskFile.model_json_schema(by_alias=True)}
    _add_metrics(schema)
    tidy: dict[str, Any] = _tidy(schema)
    return tidy | {"title": "task.toml"}


def _add_metrics(schema: dict[str, Any]) -> None:
    """The names and options of all metrics that are installed here. An option says first which metrics take it."""
    table, rules = schema["$defs"]["MetricTable"], METRICS.usable()
    forms: dict[str, dict[str, tuple[list[str], dict[str, Any]]]] = {}
    for name, rule in rules.items():
        home = f"{rule.options.__module__}.{rule.options.__qualname__}"
        made = rule.options.model_json_schema(ref_template=f"#/$defs/{home}.{{model}}")
        schema["$defs"] |= {f"{home}.{key}": part for key, part in made.get("$defs", {}).items()}
        for key, option in made.get("properties", {}).items():
            alike = forms.setdefault(key, {})
            alike.setdefault(json.dumps(option, sort_keys=True), ([], option))[0].append(name)
    for key, alike in forms.items():
        told = [option | {"description": _about(names, option)} for names, option in alike.values()]
        both = {"anyOf": told, "description": " ".join(form["description"] for form in told)}
        table["properties"][key] = told[0] if len(told) == 1 else both
    table["properties"]["name"]["enum"] = list(rules)
    table["additionalProperties"] = False


def _about(names: list[str], option: dict[str, Any]) -> str:
    text = option.get("description", "an option.")
    return f"{', '.join(names)}: {text[:1].lower()}{text[1:]}"


def _tidy(part: Any) -> Any:
    """Without pydantic's generated titles and null defaults (TOML has no null)."""
    if isinstance(part, list):
        return [_tidy(item) for item in part]
    if not isinstance(part, dict):
        return part
    noise = {
        key
        for key, value in part.items()
        if (key == "title" and isinstance(value, str)) or (key == "default" and value is None)
    }
    return {key: _tidy(value) for key, value in part.items() if key not in noise}
