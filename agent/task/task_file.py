"""The keys of task.toml as a pydantic model, and a parsed task.toml against it: each wrong key is a `Fault`.

Knows what one key may hold; what keys mean together (a metric on a field, a signature) is checked in `checks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

from agent.errors import InputError
from agent.metrics.metric_registry import METRICS
from agent.options.jobs import TASK_RUN, RunOptions
from agent.options.kinds import seconds
from agent.safe_file import KeyPath, decoded, parse_toml, read_bytes
from agent.safe_text import listed, near, quoted, shown
from agent.task.checks import Fault
from agent.types import MOST_COUNT, MOST_DOLLARS, FieldType, FormatName, TechniqueName

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from agent.metrics.metric_rule import Options


def _schema(value: Any) -> str | dict[str, Any]:
    if (isinstance(value, str) and value.strip()) or isinstance(value, dict):
        return value
    raise ValueError("write the name of a file in the task folder, or the JSON schema as a table")


def _tools(value: Any) -> str | list[dict[str, Any]]:
    if (isinstance(value, str) and value.strip()) or (
        isinstance(value, list) and value and all(isinstance(each, dict) for each in value)
    ):
        return value
    raise ValueError(
        "write the name of a JSON file in the task folder, or FILE.py:FUNCTION,..., or each tool as a table [[tools]]"
    )


def _metric(value: Any) -> Any:
    from pydantic_core import PydanticCustomError

    if value not in METRICS:
        raise PydanticCustomError("literal_error", "no such metric")
    return value


Line = Annotated[str, StringConstraints(pattern=r"^[^\r\n]*\S[^\r\n]*$")]
Text = Annotated[str, StringConstraints(pattern=r"\S")]
Count = Annotated[int, Field(ge=1, le=MOST_COUNT)]
Seconds = Annotated[
    float,
    BeforeValidator(seconds),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "examples": ["5m", "1h"]}]}
    ),
]
Schema = Annotated[Any, BeforeValidator(_schema), WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object"}]})]
Tools = Annotated[
    Any,
    BeforeValidator(_tools),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]}),
]
Share = Annotated[float, Field(gt=0, lt=1)]
Optional = SkipJsonSchema[None]


class TomlTable(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _section(table: type[TomlTable]) -> Any:
    return Field(default_factory=lambda: table.model_validate({}), description=table.__doc__)


class FieldTable(TomlTable):
    """One field of the signature."""

    description: str = Field("", description="What the field holds, in a few words; shown to the model.")
    type: FieldType = Field(
        "text",
        description="text, choice (one of a list), number, json, or conversation (an input: a list of messages).",
    )
    choices: list[Line] = Field([], description="Type choice: every allowed value, spelled as it must be answered.")
    schema_: Schema | Optional = Field(
        None, alias="schema", description="Type json: a JSON schema, as a file in the task folder or as a table."
    )
    min_words: Count | Optional = Field(None, description="Type text: an answer with fewer words scores 0.")
    max_words: Count | Optional = Field(None, description="Type text: an answer with more words scores 0.")
    forbidden: list[Text] = Field(
        [], description="Type text: an answer that holds one of these, in any case, scores 0."
    )
    optional: bool = Field(False, description="An input of type text: rows may leave it empty.")
    required: list[Text] = Field([], description="Type text: an answer that lacks one of these, in any case, scores 0.")


class MetricTable(TomlTable):
    """One metric; a task's score is the weighted sum of its metrics."""

    model_config = ConfigDict(extra="allow")  # the metric's own options, which its own model checks

    name: Annotated[str, BeforeValidator(_metric)] = Field(description="Which metric.")
    field: str | Optional = Field(None, description="The output it scores; may be left out when there is only one.")
    weight: float = Field(
        1.0, gt=0, le=1e9, description="Its share of the score, above 0; weights are normalised to sum 1."
    )

    @property
    def given(self) -> dict[str, Any]:
        """The options, unchecked."""
        return self.model_extra or {}


class ModelsTable(TomlTable):
    """Which models take part."""

    model: Line | Optional = Field(None, description="The model being prompted, such as local/smollm2-135m.")
    proposer: Line | Optional = Field(
        None, description="The model that writes new instructions; default: the model itself."
    )
    judge: Line | Annotated[list[Line], Field(min_length=1, max_length=9)] | Optional = Field(
        None, description="The model that judges, or a list of them (a panel); default: the model itself."
    )
    max_tokens: Count | Optional = Field(None, description="The most tokens of one reply; default: from the labels.")
    thinking: Annotated[int, Field(ge=0, le=MOST_COUNT)] = Field(
        0, description="Tokens that a model may think in each call beside its reply: for reasoning models."
    )


class SearchTable(TomlTable):
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
    retrieval: bool = Field(
        True, description="Whether examples may be picked for each input, out of the train rows (24 or more)."
    )
    embeddings: Line | Optional = Field(
        None,
        description="By whose vectors examples may also be picked: wordllama, or PROVIDER:NAME; default: none.",
    )
    roles: list[Text] = Field([], description='Opening sentences to try, such as "You are a careful clerk."')
    calibrate: bool = Field(
        True, description="Whether the finalists also compete calibrated, where a reply begins with a label."
    )
    detect: Annotated[float, Field(gt=0, le=100)] = Field(
        10.0, description="The smallest gain worth having, in points: the sealed test takes the rows that show it."
    )


class ConstraintsTable(TomlTable):
    """Hard limits on every prompt."""

    max_prompt_tokens: Count | Optional = Field(None, description="The most tokens of a rendered prompt.")
    max_examples: Annotated[int, Field(ge=0, le=MOST_COUNT)] | Optional = Field(
        None, description="The most worked examples in a prompt."
    )
    forbidden: list[Text] = Field([], description="Words that no prompt may contain.")


class BudgetTable(TomlTable):
    """Hard caps on a run: target, proposer and judge together."""

    max_calls: Count | Optional = Field(None, description="The most model calls.")
    max_tokens: Count | Optional = Field(None, description="The most tokens, prompts and replies together.")
    max_cost: Annotated[float, Field(ge=0, le=MOST_DOLLARS)] | Optional = Field(
        None, description="The most US dollars."
    )
    time_limit: Seconds | Optional = Field(
        None, description='The longest run: seconds, or a text such as "5m" or "1h".'
    )


class MonitorTable(TomlTable):
    """What counts as drift of answers in production; a change must be significant and at least so large."""

    alpha: Share = Field(0.01, description="The rate of false alarms of one look at a log, over all its tests.")
    unreadable: Share = Field(0.02, description="How much more often a reply cannot be read.")
    labels: Share = Field(0.1, description="Type choice: the part of all answers that moved to another choice.")
    length: Share = Field(0.15, description="The largest distance between the distributions of lengths (0 to 1).")
    repeats: Share = Field(0.05, description="How much more often an input that comes again gets another answer.")
    score: Share = Field(0.05, description="How far the mean score fell.")
    confidence: Share = Field(
        0.05, description="How far the share of answers below the confidence that a release names moved."
    )


class CalibrationTable(TomlTable):
    """How sure an answer must be to be given."""

    precision: Share | Optional = Field(
        None,
        description="The part of the answers that must be right; a run then says below which confidence to abstain.",
    )


class SplitsTable(TomlTable):
    """File names of the three splits, inside the task folder; default: NAME.jsonl or NAME.csv."""

    train: Line | Optional = Field(None, description="The file that examples in prompts come from.")
    dev: Line | Optional = Field(None, description="The file that chooses between prompts.")
    test: Line | Optional = Field(None, description="The sealed file, opened once, at the end.")


class KnowledgeTable(TomlTable):
    """Documents that prompts look passages up in; {{context}} in the instruction is their place."""

    path: Line | Optional = Field(
        None,
        description="A folder of documents inside the task folder, or one file: text, Markdown, HTML, CSV or PDF.",
    )
    source: Line | Optional = Field(
        None, description='The column that names the documents of a row\'s answer, with "; " between two; may be empty.'
    )
    unanswerable: Line | Optional = Field(None, description="The answer of rows that no document answers.")


class ConversationTable(TomlTable):
    """A conversation that continues with the model's own replies; the last of them is the answer."""

    user: Line | Optional = Field(
        None,
        description="The model that plays the user, towards the goal that a row's input says; default: a row's input "
        "has the user's messages, which are sent one after the other.",
    )
    prompt: Text | Optional = Field(None, description="What the model that plays the user is told to be.")
    max_turns: Annotated[int, Field(ge=1, le=50)] = Field(6, description="The most messages that it writes.")
    stop: Line = Field("[DONE]", description="The text by which it ends its last message.")
    reply_tokens: Count = Field(
        200, description="The most tokens of a message of it, and of a reply of the target before the last one."
    )


class TaskFile(TomlTable):
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
    human_score: Annotated[float, Field(gt=0, le=1)] | Optional = Field(
        None, description="What people reach on such rows by the same metrics, shown beside the result."
    )
    fields: dict[str, FieldTable] = Field({}, description="More about each field of the signature, by its name.")
    metrics: list[MetricTable] = Field([], description="How answers are scored; default: by the type of the output.")
    models: ModelsTable = _section(ModelsTable)
    search: SearchTable = _section(SearchTable)
    constraints: ConstraintsTable = _section(ConstraintsTable)
    budget: BudgetTable = _section(BudgetTable)
    run: dict[str, Any] = Field(
        {}, description="Options of `optimize run` for this task; what is given takes precedence."
    )
    monitor: MonitorTable = _section(MonitorTable)
    calibration: CalibrationTable = _section(CalibrationTable)
    splits: SplitsTable = _section(SplitsTable)
    knowledge: KnowledgeTable = _section(KnowledgeTable)
    conversation: ConversationTable = _section(ConversationTable)
    tools: Tools | Optional = Field(
        None,
        description="Tools that the model may call, where the answer is a list of calls: a JSON file as OpenAI, "
        "Anthropic, MCP (tools/list) or OpenAPI write it; FILE.py:NAME,... for functions of a Python file beside it; "
        "or tables [[tools]] with name, description and parameters.",
    )


# -- a parsed task.toml against the model ------------------------------------------------------------------------------

_SECTIONS = {
    name: info.annotation
    for name, info in TaskFile.model_fields.items()
    if isinstance(info.annotation, type) and issubclass(info.annotation, TomlTable)
}
_FORMS: dict[KeyPath, str] = {
    ("name",): "letters, digits, dot, dash and underscore, at most 80",
    ("program",): "module:factory, such as program:build for build() in program.py",
}
_REQUIRED = {"name": "x", "description": "x", "signature": "x -> y", "instruction": "x"}
_STAND_IN = MetricTable.model_validate({"name": "python"})


@dataclass(frozen=True, slots=True)
class Parsed:
    """task.toml as far as it is valid; `broken` paths hold their default."""

    file: TaskFile
    options: tuple[Options, ...]
    faults: tuple[Fault, ...]
    broken: frozenset[KeyPath] = frozenset()

    def doubts(self, *path: str | int) -> bool:
        """Whether the file has a fault at `path`, below it, or in a part around it."""
        return any(bad[: len(path)] == path or path[: len(bad)] == bad for bad in self.broken)


def parse_folder(folder: Path) -> Parsed:
    """Read the task.toml of a folder. Raises ProblemsError where it is no TOML."""
    path = folder / "task.toml"
    return parse(parse_toml(decoded(read_bytes(path, folder), shown(path)), shown(path)))


def parse(raw: dict[str, Any]) -> Parsed:
    """Read a parsed task.toml; each wrong key is a fault and has its default, so that later checks can run."""
    data, faults, options = dict(raw), dict[KeyPath, Fault](), list[Any]()
    for name, model in _SECTIONS.items():
        if isinstance(raw.get(name), dict):
            data[name] = _read(model, raw[name], (name,), faults)
    if isinstance(raw.get("fields"), dict):
        found = {name: _read(FieldTable, table, ("fields", name), faults) for name, table in raw["fields"].items()}
        data["fields"] = {name: table for name, table in found.items() if table is not None}
    if isinstance(raw.get("metrics"), list):
        data["metrics"] = []
        for at, given in enumerate(raw["metrics"]):
            metric, place = _read(MetricTable, given, ("metrics", at), faults) or _STAND_IN, ("metrics", at)
            try:
                rule = METRICS.get(metric.name)
            except InputError as error:  # of a package that cannot be loaded
                what = f"metrics.name = {quoted(metric.name)}: {str(error)[:1].lower()}{str(error)[1:]}"
                faults[*place, "name"] = Fault((*place, "name"), what)
                metric, rule = _STAND_IN, METRICS.get(_STAND_IN.name)
            options.append(_read(rule.options, metric.given, place, faults, metric.name))
            data["metrics"].append(metric)
    file = _read(TaskFile, data, (), faults)
    faults |= {("run", name): Fault(("run", name), what) for name, what in _wrong_options(file.run).items()}
    return Parsed(file, tuple(options), tuple(faults.values()), frozenset(faults))


def _read(model: type[Any], raw: Any, place: KeyPath, faults: dict[KeyPath, Fault], metric: str = "") -> Any:
    while True:
        try:
            return model.model_validate(raw)
        except ValidationError as error:
            for wrong in error.errors():
                loc = wrong["loc"]
                path = (*place, *loc[:1], *(part for part in loc[1:2] if isinstance(part, int)))
                faults.setdefault(path, Fault(path, _say(path, wrong, model, metric)))
                if not loc:
                    return None
                stand_in = {name: text for name, text in _REQUIRED.items() if model is TaskFile and name == loc[0]}
                raw = {name: value for name, value in raw.items() if name != loc[0]} | stand_in
            if model is MetricTable and (*place, "name") in faults:
                return None


def _wrong_options(given: Mapping[str, Any]) -> dict[str, str]:
    unknown = {name: f"unknown key {quoted(name)}{near(name, TASK_RUN)}" for name in given if name not in TASK_RUN}
    wrong = RunOptions.problems({name: value for name, value in given.items() if name in TASK_RUN})
    return unknown | {name: f"{name} = {what}" for name, what in wrong.items()}


def _say(path: KeyPath, wrong: ErrorDetails, model: type[Any], metric: str) -> str:
    kind, message, value = wrong["type"], wrong["msg"], wrong.get("input")
    key = ".".join(str(part) for part in path if isinstance(part, str))
    if kind == "extra_forbidden":
        known = [info.alias or name for name, info in model.model_fields.items()]
        if metric and any(path[-1] in rule.options.model_fields for rule in METRICS.usable().values()):
            return f"the metric {metric} has no option {quoted(path[-1])}; its options: {listed(known) or 'none'}"
        known = [*MetricTable.model_fields, *known] if metric else known
        return f"unknown key {quoted(path[-1])}{near(str(path[-1]), known)}"
    if kind == "missing":
        return f"the key {quoted(path[-1])} is missing; write it"
    if kind == "literal_error":
        words = _words(path)
        if isinstance(value, str):
            return f"{key} = {quoted(value)} is unknown{near(value, words)}"
        return f"{key} = {quoted(value)} is not a text; write one of {listed(words)}"
    if kind == "string_pattern_mismatch" and isinstance(value, str):
        what = f"has a form that is not allowed; write {_FORMS.get(path, 'it on one line')}"
        return f"{key} = {quoted(value)} {what if value.strip() else 'is empty; write it'}"
    if kind in ("model_type", "dict_type"):
        return f"{key} = {quoted(value)} is not a table; write [{key}] and its keys below"
    said = message.removeprefix("Value error, ").removeprefix("Input ")
    return f"{key} = {quoted(value)}: {said[:1].lower()}{said[1:]}"


def _words(path: KeyPath) -> tuple[str, ...]:
    if path[0] == "metrics" and path[-1] == "name":
        return METRICS.names()
    types = {"type": FieldType, "techniques": TechniqueName, "formats": FormatName}
    return tuple(word for part in path for word in get_args(types.get(str(part))) if part != path[0])
