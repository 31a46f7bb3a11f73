"""The data types of the program, all frozen, and its protocols. Knows nothing of files, models or SQL.

Identity is content: `content_id("c", ...)` tags a SHA-256 over canonical JSON, so equal values have equal ids in every
process. Scores lie in [0, 1], higher is better; `None` means "could not be scored" and is never 0.
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
    """Tokens of one call. `prompt_tokens` include `cached_prompt_tokens`, read from the provider's cache, and
    `written_prompt_tokens`, written to it."""

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
    """The JSON schema of a list of calls of these tools, as a JSON text."""
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
    """One model call. All fields but `timeout` (seconds) are its identity; `repeat` tells samples of one prompt apart.

    `json_schema` and `choices` ask for constrained decoding; a model that cannot do it ignores them. `labels` ask for
    the log-probability of each as the beginning of the reply, of a model that scores labels (`scores_labels`). With
    `tools` the reply's text is the JSON list of the tool calls, [] for none, and what the model says besides after it;
    an assistant's message among the messages that is such a list goes out as calls.
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
        """What makes two calls of a model the same, JSON-ready. `endpoint`: its address, if its name has none."""
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
    """What a model answered. `logprobs`: per generated token, (token, log-probability) of the most likely ones;
    `label_logprobs`: the log-probability of each of the request's labels, of a model that scores labels; `seconds`: how
    long it took, without its queue; None: as long as the caller waited."""

    text: str
    finish: FinishReason
    usage: Usage
    model: str
    logprobs: tuple[tuple[tuple[str, float], ...], ...] = ()
    label_logprobs: tuple[float, ...] = ()
    seconds: float | None = dataclasses.field(default=None, compare=False)


class LM(Protocol):
    """A model: request in, completion out.

    `name` is what the user typed (`openai/gpt-x`); `concurrency` how many calls it can usefully run at once (None: the
    gateway decides). `complete` raises a `ModelError`, nothing else, and never retries. Where the name does not say the
    address or the weights, `endpoint` does, without secrets. One that scores labels has a true `scores_labels`.
    """

    @property
    def name(self) -> str: ...

    @property
    def concurrency(self) -> int | None: ...

    async def complete(self, request: Request) -> Completion: ...

    def count_tokens(self, text: str) -> int:
        """Tokens of `text`: exact where the tokenizer is available, else an upper estimate."""
        ...

    async def close(self) -> None: ...


def scores_labels(lm: LM) -> bool:
    """Whether the model gives the exact log-probability of each of a request's `labels`."""
    return bool(getattr(lm, "scores_labels", False))


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs: `message -> team`."""

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]

    @property
    def conversation(self) -> str:
        """The name of the input that is a conversation, "" for none."""
        return next((field.name for field in self.inputs if field.type == "conversation"), "")

    @property
    def compared(self) -> tuple[str, ...]:
        """What rows are compared by: the names of the inputs; of a conversation its last turns."""
        return tuple(field.name + AS_TURNS * (field.type == "conversation") for field in self.inputs)

    def __str__(self) -> str:
        return f"{', '.join(f.name for f in self.inputs)} -> {', '.join(f.name for f in self.outputs)}"


@dataclass(frozen=True, slots=True)
class Example:
    """One row: texts of its inputs, right outputs, its group in each slice, and the documents its answer comes from."""

    id: str
    inputs: Mapping[str, str]
    labels: Mapping[str, Any]
    slices: Mapping[str, str] = dataclasses.field(default_factory=dict)
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Demo:
    """A worked example. `outputs` are the reply's fields as text; `rationale` is for chain-of-thought only."""

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
    """What a program can run on a row; `kind` names the program, and `id` is a hash of the JSON-ready `parts()`."""

    __slots__ = ("id",)
    kind: ClassVar[str]
    id: str

    def parts(self) -> dict[str, Any]:
        raise NotImplementedError

    @property
    def must_prove(self) -> bool:
        """Whether it has to prove itself against the others, as one that picks its examples has."""
        return False

    @property
    def reads_tokens(self) -> bool:
        """Whether log-probabilities decide how its replies are read."""
        return False

    @property
    def varies(self) -> bool:
        """Whether its prompt differs from row to row in more than the row."""
        return False

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", content_id("c", self.parts()))  # once: it is asked for several times a call


FRESH = "fresh"
"""The operator that makes a new design."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A candidate of the pool, its place in the space of designs, and the `operator` that made it."""

    candidate: Candidate
    place: Mapping[str, str]
    operator: str
    parent_id: str | None
    reason: str
    credit: str = FRESH
    """What the bandit learns about when the candidate climbs or does not: one of `Moves.operators`, or FRESH."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A candidate as people read it and the ledger keeps it. `text`: its instruction or state; `n_examples`: its number
    of worked examples, fixed and picked; `calibration`: of its label scores; `picks`: how those examples are picked
    that differ from input to input; `passages`: how passages are looked up; `tool_texts`: its texts of the task's
    tools, with the task's own under "own". Each is JSON-ready, None where it has none."""

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
    """Calls the target model through the gateway, for one row of one candidate. Raises what the gateway raises.

    A call with `lm` goes to that model in the place of the target. `logprobs` is how many log-probabilities per token
    are wanted where the reply is a label (0: none); `stopped` is the error after which nothing more is sent.
    """

    @property
    def logprobs(self) -> int: ...

    @property
    def stopped(self) -> Exception | None: ...

    async def __call__(self, request: Request, lm: LM | None = None) -> Completion: ...

    async def aside(self, request: Request, lm: LM) -> Completion:
        """A call of a model that does not answer the row, such as one that plays the user."""
        ...


class Runner(Protocol):
    """Runs candidates of one kind on rows."""

    @property
    def kind(self) -> str: ...

    async def run(self, candidate: Candidate, example: Example, call: Call, repeat: int = 0) -> Prediction:
        """Return the candidate's answer; `repeat` tells samples of a row apart. Raises ModelError without an answer."""
        ...


@dataclass(frozen=True, slots=True)
class Score:
    """One metric on one example: `value` in [0, 1] or None (unscored); `reason` is read by the proposer."""

    metric: str
    value: float | None
    reason: str = ""


class Metric(Protocol):
    """Scores one prediction. A judge is a metric too, so scoring is awaitable."""

    @property
    def name(self) -> str: ...

    async def score(self, example: Example, prediction: Prediction) -> Score: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """One candidate on one example. `value` is the weighted sum of the scores, None when any of them is unscored.

    `signal` in [0, 1] is graded evidence from log-probabilities, for choosing among candidates; None without them.
    `label_scores` has the log-probability of each label, in the order of the choices; None where the reply has none.
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
    """A candidate's evaluation in a study: `n` rows seen, `mean` over the scored ones with its 95 % interval."""

    number: int
    round: int
    candidate_id: str
    state: TrialState
    n: int
    mean: float | None
    ci95: tuple[float, float] | None = None
    reason: str = ""


MOST_DOLLARS = 1e9
"""Of a cap."""
ROOM_TO_THINK = "--thinking 2000"
"""The words of a message: what lets a reasoning model come to its answer."""
MOST_COUNT = 2**53
"""Of a cap on calls or tokens: up to here a float is exact."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Hard caps over all roles together: calls, tokens in and out, US dollars, seconds. None: no cap."""

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
    """Hard limits on a candidate: rendered prompt size in tokens, number of examples, words that may not appear."""

    max_prompt_tokens: int | None = None
    max_examples: int | None = None
    forbidden: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Drift:
    """What counts as drift in production: the rate of false alarms, and the smallest changes that matter, in (0, 1)."""

    alpha: float = 0.01
    unreadable: float = 0.02
    labels: float = 0.1
    length: float = 0.15
    repeats: float = 0.05
    score: float = 0.05
    confidence: float = 0.05


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One line of [[metrics]]: which metric, on which field, with which weight (above 0) and options."""

    name: str
    field: str
    weight: float = 1.0
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Criterion:
    """One criterion of a rubric. `levels`: the meaning of whole ratings, from the lowest to the highest."""

    name: str
    weight: float
    about: str
    levels: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Rubric:
    """A judge's criteria, all rated from `low` to `high`. `text` is the file as it was written."""

    text: str
    criteria: tuple[Criterion, ...]
    low: int = 1
    high: int = 5


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """Which techniques, formats and demo counts the search may use."""

    techniques: tuple[TechniqueName, ...]
    formats: tuple[FormatName, ...]
    demo_counts: tuple[int, ...]
    roles: tuple[str, ...] = ()
    left_out: tuple[FormatName, ...] = ()
    """Formats that are tried by default, and cannot be where DSPy is not installed."""
    retrieval: bool = False
    """Whether examples may be picked for each input."""
    embeddings: str = ""
    """The model whose vectors rows may be picked by: "wordllama", a provider's "PROVIDER:NAME", or ""."""


@dataclass(frozen=True, slots=True)
class TextBlock:
    """A paragraph of a document, or the rows of a table with the lines of its `header`."""

    text: str
    header: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """What stands under one heading. `heading`: it and those above it, the outermost first."""

    heading: tuple[str, ...]
    blocks: tuple[TextBlock, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A file of the task's documents. `name`: its path in their folder, with `/`."""

    name: str
    sections: tuple[Section, ...]


@dataclass(frozen=True, slots=True)
class Knowledge:
    """The documents that prompts of a task look passages up in. `source`: the column that names a row's documents, ""
    for none; `unanswerable`: the answer where no document has one, "" where there is always one."""

    documents: tuple[Document, ...]
    source: str = ""
    unanswerable: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the documents."""
        return tuple(document.name for document in self.documents)


@dataclass(frozen=True, slots=True)
class SimulatedUser:
    """Who writes the user's messages: a model with a prompt, or ("" as model) the row's own messages in turn."""

    model: str = ""
    prompt: str = ""
    max_turns: int = 6
    stop: str = "[DONE]"
    reply_tokens: int = 200


@dataclass(frozen=True, slots=True)
class Task:
    """A loaded and checked task. `hashes` names the SHA-256 of each split and of task.toml and what lies next to it.

    `program` is `module:factory` for a program of the user's own in that folder, else "". `judges` are the models
    that judge (several: a panel), `rubrics` what they go by, by file name. `slices` are columns or fields by which
    scores are told apart; each of `repeats` samples of a row is its own call. `human_score` is
    what people reach, in (0, 1], or None. `monitor` says what is drift in production. `calibrate`: the finalists also
    compete calibrated. `detect`: the smallest gain worth having, in points. `precision`: the part of the
    answers, in (0, 1), that must be right where the prompt may abstain. With `tools` the answer is a list of calls of
    them. With `user` a row is a conversation that continues with the model's own replies, and the last of them is the
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
    """Options of its runs, by their names."""
    precision: float | None = None
    knowledge: Knowledge | None = None
    tools: tuple[Tool, ...] = ()
    user: SimulatedUser | None = None
    hashes: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def room(self, answer: int) -> int:
        """The most tokens of a reply whose answer has at most `answer`: a model may think before it."""
        return answer + self.thinking

    @property
    def is_judged(self) -> bool:
        """Whether a metric of it asks a judge."""
        return any(spec.name == "judge" for spec in self.metrics)

    @property
    def accepted(self) -> frozenset[str]:
        """The outputs whose labels are calls with lists of accepted values."""
        return frozenset(
            spec.field for spec in self.metrics if spec.name == "tool_calls" and spec.options.get("accepted")
        )

    @property
    def is_compared(self) -> bool:
        """Whether a judge of it compares each answer with that of the user's own prompt."""
        return any(spec.options.get("mode") == "pairwise" for spec in self.metrics)
