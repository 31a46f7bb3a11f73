"""The keys of task.toml as pydantic models, with types, defaults and descriptions."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

from agent.metrics.metric_registry import METRICS
from agent.options.kinds import seconds
from agent.types import MOST_COUNT, MOST_DOLLARS, FieldType, FormatName, TechniqueName


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

    model_config = ConfigDict(extra="allow")  # options of the metric, checked by its own model

    name: Annotated[str, BeforeValidator(_metric)] = Field(description="Which metric.")
    field: str | Optional = Field(None, description="The output it scores; may be left out when there is only one.")
    weight: float = Field(
        1.0, gt=0, le=1e9, description="Its share of the score, above 0; weights are normalised to sum 1."
    )

    @property
    def given(self) -> dict[str, Any]:
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
        0, description="Tokens that a model may think in each call in addition to its reply: for reasoning models."
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
    """Thresholds of drift in production: a change must be significant and at least this large."""

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
    """The confidence that an answer needs."""

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
    """Documents to retrieve passages from; {{context}} in the instruction is their place."""

    path: Line | Optional = Field(
        None,
        description="A folder of documents inside the task folder, or one file: text, Markdown, HTML, CSV or PDF.",
    )
    source: Line | Optional = Field(
        None, description='The column that names the documents of a row\'s answer, with "; " between two; may be empty.'
    )
    unanswerable: Line | Optional = Field(None, description="The answer of rows that no document answers.")


class ConversationTable(TomlTable):
    """A conversation that continues with the model's own replies; the last one is the answer."""

    user: Line | Optional = Field(
        None,
        description="The model that plays the user with the goal in the input; default: the input has its messages.",
    )
    prompt: Text | Optional = Field(None, description="What the model that plays the user is told to be.")
    max_turns: Annotated[int, Field(ge=1, le=50)] = Field(6, description="The most messages that it writes.")
    stop: Line = Field("[DONE]", description="The text by which it ends its last message.")
    reply_tokens: Count = Field(
        200, description="The most tokens of a message of it, and of a reply of the target before the last one."
    )


class TaskFile(TomlTable):
    """A task: inputs, outputs, metrics, and the limits of the search."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")] = Field(
        description="The task's name: letters, digits, dot, dash and underscore, at most 80."
    )
    description: Text = Field(description="What the task is, in one sentence.")
    signature: Text = Field(description='Inputs and outputs, such as "message -> team".')
    instruction: Text = Field(description="The prompt used today: the baseline that every other prompt must beat.")
    program: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,79}:[A-Za-z_][A-Za-z0-9_]{0,79}$")] = (
        Field(
            "",
            description='Your own program.py: "program:build" is build() (DSPy) or build(model) (LangChain) there.',
        )
    )
    slices: list[Line] = Field([], description='Columns or fields by which scores are told apart, such as "language".')
    repeats: Annotated[int, Field(ge=1, le=20)] = Field(
        1, description="How often each of some test rows is asked at the end, to see how steady the answers are."
    )
    human_score: Annotated[float, Field(gt=0, le=1)] | Optional = Field(
        None, description="What people score on such rows by the same metrics, shown next to the result."
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
        description="Tools: a JSON file (OpenAI, Anthropic, MCP or OpenAPI), FILE.py:NAME,... or tables [[tools]].",
    )
