"""The data types of the program, all frozen, and its protocols. Knows no files, models or SQL.

Identity is content: `content_id("c", ...)` tags a SHA-256 of canonical JSON, so equal values have equal ids in every
process. Scores are in [0, 1], higher is better; `None` means "could not be scored" and is never 0.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, get_args

from agent.conversation import AS_TURNS
from agent.shipped import ChatRole as ChatRole
from agent.shipped import Field as Field
from agent.shipped import FieldType as FieldType
from agent.shipped import FormatName as FormatName
from agent.shipped import Message as Message
from agent.shipped import Prediction as Prediction
from agent.shipped import Tool as Tool
from agent.shipped import canonical as canonical
from agent.shipped import content_id as content_id

CallRole = Literal["model", "proposer", "judge", "embedding"]
SplitName = Literal["train", "dev", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)

NO_MODEL = "no model"
"""The format of a candidate that answers without a language model."""

TechniqueName = Literal["zero-shot", "few-shot", "chain-of-thought", "few-shot-cot"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call.

    `prompt_tokens` include `cached_prompt_tokens`, read from the provider's cache, and `written_prompt_tokens`, written
    to it.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_prompt_tokens: int = 0
    written_prompt_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_prompt_tokens + other.cached_prompt_tokens,
            self.written_prompt_tokens + other.written_prompt_tokens,
        )


def calls_schema(tools: Sequence[Tool]) -> str:
    """Return the JSON schema of a list of calls of these tools, as a JSON text."""
    forms = [
        {
            "type": "object",
            "properties": {"name": {"const": tool.name}, "arguments": json.loads(tool.parameters)},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    return json.dumps({"type": "array", "items": {"anyOf": forms}}, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Request:
    """One model call; all fields but `timeout` (seconds) are its identity.

    `repeat` distinguishes samples of one prompt. `json_schema` and `choices` request constrained decoding; a model
    without it ignores them. `labels` request the log-probability of each label as the beginning of the reply, from a
    model with `scores_labels`. With `tools` the reply's text is the JSON list of the tool calls, [] for none, then what
    else the model says; an assistant message that is such a list is sent as calls.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    json_schema: str | None = None
    choices: tuple[str, ...] = ()
    logprobs: int = 0
    repeat: int = 0
    timeout: float = 120.0
    labels: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()

    def identity(self, endpoint: str = "") -> dict[str, Any]:
        """Return what identifies a call, JSON-ready; `endpoint` is the address if its name has none."""
        return {
            **({"endpoint": endpoint} if endpoint else {}),
            "messages": [message.as_dict() for message in self.messages],
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
            "stop": list(self.stop),
            "json_schema": self.json_schema,
            "choices": list(self.choices),
            "logprobs": self.logprobs,
            "repeat": self.repeat,
            **({"labels": list(self.labels)} if self.labels else {}),
            **({"tools": [tool.as_dict() for tool in self.tools]} if self.tools else {}),
        }


FinishReason = Literal["stop", "length", "refusal", "other"]


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's reply.

    Args:
        logprobs: per generated token, (token, log-probability) of the most likely ones.
        label_logprobs: the log-probability of each of the request's labels.
        seconds: the duration without queueing; None: as long as the caller waited.
    """

    text: str
    finish: FinishReason
    usage: Usage
    model: str
    logprobs: tuple[tuple[tuple[str, float], ...], ...] = ()
    label_logprobs: tuple[float, ...] = ()
    seconds: float | None = dataclasses.field(default=None, compare=False)


class LM(Protocol):
    """A model: request in, completion out.

    `name` is what the user typed (`openai/gpt-x`); `concurrency` how many calls it can run at once (None: the gateway
    decides). `complete` raises only `ModelError` and never retries. `endpoint` is the address or the weights if the
    name does not say them, without secrets. A model that scores labels has a true `scores_labels`.
    """

    @property
    def name(self) -> str: ...

    @property
    def concurrency(self) -> int | None: ...

    async def complete(self, request: Request) -> Completion: ...

    def count_tokens(self, text: str) -> int:
        """Count the tokens of `text`: exact if the tokenizer is available, else an upper estimate."""
        ...

    async def close(self) -> None: ...


def scores_labels(lm: LM) -> bool:
    """Return whether the model gives the exact log-probability of each of a request's `labels`."""
    return bool(getattr(lm, "scores_labels", False))


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs: `message -> team`."""

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]

    @property
    def conversation(self) -> str:
        """The name of the input that is a conversation, or ""."""
        return next((field.name for field in self.inputs if field.type == "conversation"), "")

    @property
    def compared(self) -> tuple[str, ...]:
        """Return the texts by which rows are compared: the inputs; of a conversation its last turns."""
        return tuple(field.name + AS_TURNS * (field.type == "conversation") for field in self.inputs)

    def __str__(self) -> str:
        return f"{', '.join(f.name for f in self.inputs)} -> {', '.join(f.name for f in self.outputs)}"


@dataclass(frozen=True, slots=True)
class Example:
    """One row: input texts, right outputs, its group in each slice, and the documents that hold its answer."""

    id: str
    inputs: Mapping[str, str]
    labels: Mapping[str, Any]
    slices: Mapping[str, str] = dataclasses.field(default_factory=dict)
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Demo:
    """A few-shot example; `outputs` are the reply's fields as text, `rationale` is for chain-of-thought only."""

    example_id: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    rationale: str = ""
    source: Literal["label", "target"] = "label"

    def as_dict(self) -> dict[str, Any]:
        return {
            "example_id": self.example_id,
            "inputs": dict(self.inputs),
            "outputs": dict(self.outputs),
            "rationale": self.rationale,
            "source": self.source,
        }


class Candidate:
    """What a program can run on a row; `kind` names the program, `id` hashes the JSON-ready `parts()`."""

    __slots__ = ("id",)
    kind: ClassVar[str]
    id: str

    def parts(self) -> dict[str, Any]:
        raise NotImplementedError

    @property
    def must_prove(self) -> bool:
        """Whether it must beat the others significantly, as a candidate that picks examples per row."""
        return False

    @property
    def reads_tokens(self) -> bool:
        """Whether its replies are read by log-probabilities."""
        return False

    @property
    def varies(self) -> bool:
        """Whether its prompt differs between rows in more than the row."""
        return False

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", content_id("c", self.parts()))  # once: it is asked for several times a call


FRESH = "fresh"
"""The operator that makes a new design."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A candidate of the pool, its place in the design space, and the `operator` that made it."""

    candidate: Candidate
    place: Mapping[str, str]
    operator: str
    parent_id: str | None
    reason: str
    credit: str = FRESH
    """The operator that the bandit rewards for the candidate: one of `Moves.operators`, or FRESH."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A candidate as the ledger stores and views show it; each part is JSON-ready, None if absent.

    Args:
        text: its instruction or state.
        n_examples: few-shot examples, fixed and picked.
        calibration: of its label scores.
        picks: how examples are picked per input.
        passages: how passages are retrieved.
        tool_texts: its texts of the task's tools, with the original ones under "own".
    """

    id: str
    technique: str
    format: str
    text: str
    role: str = ""
    demos: tuple[Demo, ...] = ()
    n_examples: int = 0
    calibration: Mapping[str, Any] | None = None
    picks: Mapping[str, Any] | None = None
    passages: Mapping[str, Any] | None = None
    tool_texts: Mapping[str, Any] | None = None


class Call(Protocol):
    """Calls the target model through the gateway, for one row of one candidate.

    `lm` replaces the target. `logprobs` is the number of log-probabilities per token wanted if the reply is a label (0:
    none); `stopped` is the error after which nothing more is sent. Raises what the gateway raises.
    """

    @property
    def logprobs(self) -> int: ...

    @property
    def stopped(self) -> Exception | None: ...

    async def __call__(self, request: Request, lm: LM | None = None) -> Completion: ...

    async def aside(self, request: Request, lm: LM) -> Completion:
        """Call a model that does not answer the row, such as a simulated user."""
        ...


class Runner(Protocol):
    """Runs candidates of one kind on rows."""

    @property
    def kind(self) -> str: ...

    async def run(self, candidate: Candidate, example: Example, call: Call, repeat: int = 0) -> Prediction:
        """Return the candidate's answer; `repeat` distinguishes samples. Raises ModelError without one."""
        ...


@dataclass(frozen=True, slots=True)
class Score:
    """One metric on one example: `value` in [0, 1] or None (unscored); the proposer reads `reason`."""

    metric: str
    value: float | None
    reason: str = ""


class Metric(Protocol):
    """Scores one prediction; awaitable, as a judge is a metric too."""

    @property
    def name(self) -> str: ...

    async def score(self, example: Example, prediction: Prediction) -> Score: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """One candidate on one example; `value` is the weighted sum of the scores, None if one is unscored.

    `signal` in [0, 1] is graded evidence from log-probabilities, used to choose among candidates. `label_scores` has
    the log-probability of each label, in the order of the choices. Both are None without log-probabilities.
    """

    candidate_id: str
    example_id: str
    prediction: Prediction
    scores: tuple[Score, ...]
    value: float | None
    call_key: str = ""
    signal: float | None = None
    label_scores: tuple[float, ...] | None = None


TrialState = Literal["complete", "pruned", "failed", "incomplete"]


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate's evaluation: `n` rows seen, `mean` over the scored ones with its 95 % interval."""

    number: int
    round: int
    candidate_id: str
    state: TrialState
    n: int
    mean: float | None
    ci95: tuple[float, float] | None = None
    reason: str = ""


MOST_DOLLARS = 1e9
"""The largest cap in US dollars."""
ROOM_TO_THINK = "--thinking 2000"
"""Advice in messages: how to give a reasoning model room for its answer."""
MOST_COUNT = 2**53
"""The largest cap on calls or tokens, up to which a float is exact."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Hard caps over all roles: calls, tokens in and out, US dollars, seconds. None: no cap."""

    max_calls: int | None = None
    max_tokens: int | None = None
    max_cost: float | None = None
    time_limit: float | None = None


@dataclass(frozen=True, slots=True)
class Spend:
    """Calls, tokens (in + out) and US dollars."""

    calls: int = 0
    tokens: int = 0
    usd: float = 0.0

    def __add__(self, other: Spend) -> Spend:
        return Spend(self.calls + other.calls, self.tokens + other.tokens, self.usd + other.usd)

    def __sub__(self, other: Spend) -> Spend:
        return Spend(self.calls - other.calls, self.tokens - other.tokens, self.usd - other.usd)


@dataclass(frozen=True, slots=True)
class Constraints:
    """Hard limits of a candidate: prompt size in tokens, number of examples, forbidden words."""

    max_prompt_tokens: int | None = None
    max_examples: int | None = None
    forbidden: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Drift:
    """What counts as drift in production: the false alarm rate, and the smallest changes that matter, in (0, 1)."""

    alpha: float = 0.01
    unreadable: float = 0.02
    labels: float = 0.1
    length: float = 0.15
    repeats: float = 0.05
    score: float = 0.05
    confidence: float = 0.05


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One entry of [[metrics]]: metric, field, weight (above 0) and options."""

    name: str
    field: str
    weight: float = 1.0
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Criterion:
    """One criterion of a rubric; `levels` are the meanings of whole ratings, lowest first."""

    name: str
    weight: float
    about: str
    levels: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Rubric:
    """A judge's criteria, all rated from `low` to `high`; `text` is the original file."""

    text: str
    criteria: tuple[Criterion, ...]
    low: int = 1
    high: int = 5


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """The techniques, formats and example counts that the search may use."""

    techniques: tuple[TechniqueName, ...]
    formats: tuple[FormatName, ...]
    demo_counts: tuple[int, ...]
    roles: tuple[str, ...] = ()
    left_out: tuple[FormatName, ...] = ()
    """Formats that are tried by default, but not without DSPy."""
    retrieval: bool = False
    """Whether examples may be picked per input."""
    embeddings: str = ""
    """The model whose vectors rows may be picked by: "wordllama", a provider's "PROVIDER:NAME", or ""."""


@dataclass(frozen=True, slots=True)
class TextBlock:
    """A paragraph of a document, or the rows of a table with its `header` lines."""

    text: str
    header: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """The content under one heading; `heading` includes those above it, outermost first."""

    heading: tuple[str, ...]
    blocks: tuple[TextBlock, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A document of the task; `name` is its path in their folder, with `/`."""

    name: str
    sections: tuple[Section, ...]


@dataclass(frozen=True, slots=True)
class Knowledge:
    """The documents from which a task's prompts retrieve passages.

    Args:
        source: the column that names a row's documents, or "".
        unanswerable: the answer if no document has it; "" if there is always one.
    """

    documents: tuple[Document, ...]
    source: str = ""
    unanswerable: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the documents."""
        return tuple(document.name for document in self.documents)


@dataclass(frozen=True, slots=True)
class SimulatedUser:
    """The writer of the user's messages: a model with a prompt, or ("" as model) the row's messages in turn."""

    model: str = ""
    prompt: str = ""
    max_turns: int = 6
    stop: str = "[DONE]"
    reply_tokens: int = 200


@dataclass(frozen=True, slots=True)
class Task:
    """A loaded and checked task.

    Args:
        hashes: the SHA-256 of each split, and of task.toml and the files next to it.
        program: `module:factory` of a user's program in that folder, or "".
        judges: the models that judge; several are a panel.
        rubrics: what judges go by, by file name.
        slices: columns or fields by which scores are broken down.
        repeats: samples per row; each is a call.
        human_score: what people reach, in (0, 1], or None.
        monitor: what counts as drift in production.
        calibrate: whether the finalists also compete calibrated.
        detect: the smallest gain worth having, in points.
        precision: the part of the answers, in (0, 1), that must be right if the prompt may abstain.
        tools: with tools the answer is a list of calls of them.
        user: with a simulated user a row is a conversation that continues with the model's replies; the last is the
            answer.
    """

    name: str
    description: str
    signature: Signature
    instruction: str
    metrics: tuple[MetricSpec, ...]
    space: SearchSpace
    constraints: Constraints
    budget: Budget
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    folder: str
    model: str = ""
    proposer: str = ""
    max_tokens: int | None = None
    thinking: int = 0
    program: str = ""
    judges: tuple[str, ...] = ()
    rubrics: Mapping[str, Rubric] = dataclasses.field(default_factory=dict)
    slices: tuple[str, ...] = ()
    repeats: int = 1
    human_score: float | None = None
    monitor: Drift = Drift()
    calibrate: bool = True
    detect: float = 10.0
    run: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Options of its runs, by name."""
    precision: float | None = None
    knowledge: Knowledge | None = None
    tools: tuple[Tool, ...] = ()
    user: SimulatedUser | None = None
    hashes: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def room(self, answer: int) -> int:
        """Return the most tokens of a reply whose answer has at most `answer`, thinking included."""
        return answer + self.thinking

    @property
    def is_judged(self) -> bool:
        """Whether one of its metrics asks a judge."""
        return any(spec.name == "judge" for spec in self.metrics)

    @property
    def accepted(self) -> frozenset[str]:
        """The outputs whose labels are calls with lists of accepted values."""
        return frozenset(
            spec.field for spec in self.metrics if spec.name == "tool_calls" and spec.options.get("accepted")
        )

    @property
    def is_compared(self) -> bool:
        """Whether a judge compares each answer with that of the user's prompt."""
        return any(spec.options.get("mode") == "pairwise" for spec in self.metrics)
