"""The keys of task.toml as pydantic models, with types, defaults and descriptions."""

from __future__ import annotations

import shlex
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from agent.metrics.metric_registry import METRICS
from agent.options.kinds import seconds
from agent.task.agent_texts import TEXT_NAME
from agent.types import MOST_COUNT, MOST_DOLLARS, FieldType, FormatName, TechniqueName


def _metric(value: Any) -> Any:
    if value not in METRICS:
        raise PydanticCustomError("literal_error", "no such metric", {"expected": str(METRICS.names())})
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
Schema = Line | dict[str, Any]
Tools = Line | Annotated[list[dict[str, Any]], Field(min_length=1)]
Share = Annotated[float, Field(gt=0, lt=1)]
Optional = SkipJsonSchema[None]
_WORD = r"[A-Za-z_][A-Za-z0-9_]{0,79}"
AGENT = rf"^{_WORD}\.py:{_WORD}$"
PROGRAM = rf"^{_WORD}(\.py)?:{_WORD}$"


class TomlTable(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


def key(about: str, default: Any = None, **limits: Any) -> Any:
    """Declare a key of task.toml; it is required if its default is `...`."""
    return Field(default, description=about, **limits)


def _section(table: type[TomlTable]) -> Any:
    return Field(default_factory=lambda: table.model_validate({}), description=table.__doc__)


class FieldTable(TomlTable):
    """One field of the signature."""

    description: str = key("What the field holds, in a few words; shown to the model.", "")
    type: FieldType = key(
        "text, choice (one of a list), number, json, or conversation (an input: a list of messages).", "text"
    )
    choices: list[Line] = key("Type choice: every allowed value, spelled as it must be answered.", [])
    schema_: Schema | Optional = key(
        "Type json: a JSON schema, as a file in the task folder or as a table.", alias="schema"
    )
    min_words: Count | Optional = key("Type text: an answer with fewer words scores 0.")
    max_words: Count | Optional = key("Type text: an answer with more words scores 0.")
    forbidden: list[Text] = key("Type text: an answer that contains one of these, in any case, scores 0.", [])
    optional: bool = key("An input of type text: rows may leave it empty.", False)
    required: list[Text] = key("Type text: an answer that lacks one of these, in any case, scores 0.", [])


class MetricTable(TomlTable):
    """One metric; a task's score is the weighted sum of its metrics."""

    model_config = ConfigDict(extra="allow")  # options of the metric, checked by its own model

    name: Annotated[str, BeforeValidator(_metric)] = key("Which metric.", ...)
    field: str | Optional = key("The output it scores; optional if there is only one.")
    weight: float = key("Its share of the score, above 0; weights are normalised to sum 1.", 1.0, gt=0, le=1e9)

    @property
    def given(self) -> dict[str, Any]:
        return self.model_extra or {}


class ModelsTable(TomlTable):
    """Which models take part."""

    model: Line | Optional = key("The model being prompted, such as local/smollm2-135m.")
    proposer: Line | Optional = key("The model that writes new instructions; default: the model itself.")
    judge: Line | Annotated[list[Line], Field(min_length=1, max_length=9)] | Optional = key(
        "The model that judges, or a list of them (a panel); default: the model itself."
    )
    max_tokens: Count | Optional = key("Maximum tokens of a reply; default: from the longest label.")
    thinking: Annotated[int, Field(ge=0, le=MOST_COUNT)] = key(
        "Extra tokens per call for reasoning models, in addition to the reply.", 0
    )


class SearchTable(TomlTable):
    """What the search may try."""

    techniques: list[TechniqueName] = key(
        "The prompting techniques to try; default: all.", list(get_args(TechniqueName)), min_length=1
    )
    formats: list[FormatName] = key(
        "The prompt layouts to try.", ["turns", "labelled-turns", "inline", "dspy-chat"], min_length=1
    )
    demo_counts: list[Annotated[int, Field(ge=1, le=10_000)]] = key(
        "How many few-shot examples a prompt may have.", [4, 8, 16, 32], min_length=1
    )
    retrieval: bool = key("Whether examples may be picked for each input from the train rows (24 or more).", True)
    shape: bool = key("Whether order, descriptions and layout of the fields of a JSON answer may change.", True)
    embeddings: Line | Optional = key(
        "The embedding model by whose vectors examples may also be picked: wordllama or PROVIDER:NAME; default: none."
    )
    roles: list[Text] = key('Opening sentences to try, such as "You are a careful clerk."', [])
    descriptions_only: Count | Optional = key(
        "Only the descriptions of tools may change, each with at most this many characters: for skills and tool sets."
    )
    calibrate: bool = key("Whether to try calibrated variants of the finalists, if replies begin with a label.", True)
    detect: Annotated[float, Field(gt=0, le=100)] = key(
        "The smallest gain worth having, in points; it decides how many test rows are used.", 10.0
    )


class ConstraintsTable(TomlTable):
    """Hard limits on every prompt."""

    max_prompt_tokens: Count | Optional = key("Maximum tokens of a rendered prompt.")
    max_examples: Annotated[int, Field(ge=0, le=MOST_COUNT)] | Optional = key("Maximum number of examples in a prompt.")
    forbidden: list[Text] = key("Words that no prompt may contain.", [])


class BudgetTable(TomlTable):
    """Hard caps on a run: target, proposer and judge together."""

    max_calls: Count | Optional = key("Maximum number of model calls.")
    max_tokens: Count | Optional = key("Maximum number of tokens, prompts and replies together.")
    max_cost: Annotated[float, Field(ge=0, le=MOST_DOLLARS)] | Optional = key("Maximum cost in US dollars.")
    time_limit: Seconds | Optional = key('Maximum duration of the run: seconds, or a text such as "5m" or "1h".')


class MonitorTable(TomlTable):
    """Thresholds of drift in production: a change must be significant and at least this large."""

    alpha: Share = key("The rate of false alarms for one log, over all its tests.", 0.01)
    unreadable: Share = key("The rise of the share of unreadable replies.", 0.02)
    labels: Share = key("Type choice: the share of all answers that moved to another choice.", 0.1)
    length: Share = key("The largest distance between the distributions of lengths (0 to 1).", 0.15)
    repeats: Share = key("The rise of the share of repeated inputs that get a different answer.", 0.05)
    score: Share = key("The fall of the mean score.", 0.05)
    confidence: Share = key("The change of the share of answers below the confidence threshold of the release.", 0.05)


class CalibrationTable(TomlTable):
    """When to abstain: the precision that answers must reach."""

    precision: Share | Optional = key(
        "The share of answers that must be right; a run then reports the confidence below which to abstain."
    )


class SplitsTable(TomlTable):
    """File names of the three splits, inside the task folder; default: NAME.jsonl or NAME.csv."""

    train: Line | Optional = key("The file with the rows that become few-shot examples.")
    dev: Line | Optional = key("The file with the rows that choose between prompts.")
    test: Line | Optional = key("The file with the sealed rows, used once, at the end.")


class KnowledgeTable(TomlTable):
    """Documents to retrieve passages from; {{context}} in the instruction marks their place."""

    path: Line | Optional = key(
        "A folder of documents inside the task folder, or one file: text, Markdown, HTML, CSV or PDF."
    )
    source: Line | Optional = key(
        'The column that names the documents of a row\'s answer, separated by "; "; may be empty.'
    )
    unanswerable: Line | Optional = key("The answer of rows that no document answers.")


class ConversationTable(TomlTable):
    """A conversation that continues with the model's own replies; the last one is the answer."""

    user: Line | Optional = key(
        "The model that plays the user, given the goal in the input. Without it the input holds the user's messages."
    )
    prompt: Text | Optional = key("The instruction of the model that plays the user.")
    max_turns: Annotated[int, Field(ge=1, le=50)] = key("Maximum number of messages that it writes.", 6)
    stop: Line = key("The text that ends its last message.", "[DONE]")
    reply_tokens: Count = key(
        "Maximum tokens of each of its messages, and of each of the model's replies before the last one.", 200
    )


def _words(command: str) -> str:
    try:
        shlex.split(command)
    except ValueError as problem:
        raise ValueError(f"{problem}; write it as in a shell, or as a list of words") from problem
    return command


class ProgramTable(TomlTable):
    """Your own agent, run once for each row, and the limits of a row."""

    run: Annotated[str, StringConstraints(pattern=AGENT)] | Optional = key(
        "A function of Python, as FILE.py:FUNCTION: def run(texts, row, model), sync or async."
    )
    command: Annotated[Line, AfterValidator(_words)] | Annotated[list[Line], Field(min_length=1)] | Optional = key(
        "A command in any language: texts, row and model as JSON on stdin, the answer as JSON on stdout."
    )
    seconds: Seconds = key("Maximum duration of a row.", 120.0)
    most_calls: Annotated[int, Field(ge=1, le=10_000)] = key("Maximum number of model calls per row.", 50)
    at_once: Annotated[int, Field(ge=1, le=256)] = key("How many rows run at the same time.", 16)


class TaskFile(TomlTable):
    """A task: inputs, outputs, metrics, and the limits of the search."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")] = key(
        "The task's name: letters, digits, dot, dash and underscore, at most 80.", ...
    )
    description: Text = key("What the task is, in one sentence.", ...)
    signature: Text = key('Inputs and outputs, such as "message -> team".', ...)
    instruction: Text = key(
        "The prompt used today: the baseline that every other prompt must beat. Only an agent with [texts] has none.",
        "",
    )
    program: Annotated[str, StringConstraints(pattern=PROGRAM)] | ProgramTable = key(
        'Your own "program:build", for DSPy or LangChain; or your agent: "agent.py:run", or a table with its command.',
        "",
    )
    texts: dict[Annotated[str, StringConstraints(pattern=TEXT_NAME)], Text] = key(
        "The texts of your agent that may change, by name; or a folder texts/ with a file for each.", {}
    )
    slices: list[Line] = key('Columns or fields by which to break down scores, such as "language".', [])
    repeats: Annotated[int, Field(ge=1, le=20)] = key(
        "How often some test rows are asked at the end, to measure how steady the answers are.", 1
    )
    human_score: Annotated[float, Field(gt=0, le=1)] | Optional = key(
        "The score of people on such rows by the same metrics, shown next to the result."
    )
    fields: dict[str, FieldTable] = key("Type and limits of each field of the signature, by name.", {})
    metrics: list[MetricTable] = key("How answers are scored; default: by the type of the output.", [])
    models: ModelsTable = _section(ModelsTable)
    search: SearchTable = _section(SearchTable)
    constraints: ConstraintsTable = _section(ConstraintsTable)
    budget: BudgetTable = _section(BudgetTable)
    run: dict[str, Any] = key("Options of `optimize run` for this task; the command line takes precedence.", {})
    monitor: MonitorTable = _section(MonitorTable)
    calibration: CalibrationTable = _section(CalibrationTable)
    splits: SplitsTable = _section(SplitsTable)
    knowledge: KnowledgeTable = _section(KnowledgeTable)
    conversation: ConversationTable = _section(ConversationTable)
    tools: Tools | Optional = key(
        "Tools: a JSON file (OpenAI, Anthropic, MCP or OpenAPI), FILE.py:NAME,... or tables [[tools]]."
    )
