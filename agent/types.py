"""The data types of the program, all frozen, and its protocols. Knows no files, models or SQL.

Ids are hashes of content. Scores are in [0, 1], higher is better; None means "could not be scored" and is never 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, get_args

from agent.calls import LM as LM
from agent.calls import MOST_COUNT as MOST_COUNT
from agent.calls import MOST_DOLLARS as MOST_DOLLARS
from agent.calls import Budget as Budget
from agent.calls import CallRole as CallRole
from agent.calls import Completion as Completion
from agent.calls import FinishReason as FinishReason
from agent.calls import Request as Request
from agent.calls import Spend as Spend
from agent.calls import Usage as Usage
from agent.calls import call_key as call_key
from agent.calls import calls_schema as calls_schema
from agent.calls import endpoint_of as endpoint_of
from agent.calls import key_of as key_of
from agent.calls import scores_labels as scores_labels
from agent.conversation import AS_TURNS
from agent.documents import Knowledge
from agent.shipped import ChatRole as ChatRole
from agent.shipped import Field as Field
from agent.shipped import FieldType as FieldType
from agent.shipped import FormatName as FormatName
from agent.shipped import Message as Message
from agent.shipped import Prediction as Prediction
from agent.shipped import Tool as Tool
from agent.shipped import canonical as canonical
from agent.shipped import content_id as content_id

SplitName = Literal["train", "dev", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)

NO_MODEL = "no model"  # the format of a candidate that answers without a language model

TechniqueName = Literal["zero-shot", "few-shot", "chain-of-thought", "few-shot-cot"]


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
        """Return the texts that rows are compared by: inputs, or a conversation's last turns."""
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
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**own, "inputs": dict(self.inputs), "outputs": dict(self.outputs)}


class Candidate:
    """What a program can run on a row; `kind` names the program, `id` hashes the JSON-ready `parts()`."""

    __slots__ = ("id",)
    kind: ClassVar[str]
    id: str

    def parts(self) -> dict[str, Any]:
        raise NotImplementedError

    @property
    def must_prove(self) -> bool:
        """Whether it must beat the others significantly."""
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


FRESH = "fresh"  # the operator that makes a new design


@dataclass(frozen=True, slots=True)
class Proposal:
    """A candidate of the pool, its place in the design space, and the `operator` that made it."""

    candidate: Candidate
    place: Mapping[str, str]
    operator: str
    parent_id: str | None
    reason: str
    credit: str = FRESH  # the operator that the bandit rewards: one of `Moves.operators`, or FRESH


@dataclass(frozen=True, slots=True)
class Summary:
    """A candidate as the ledger stores and views show it; each part is JSON-ready, None if absent.

    `text` is its instruction or state; `tool_texts` are of the task's tools, with the original ones under "own".
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
    shape: Mapping[str, Any] | None = None


class Call(Protocol):
    """Calls the target model (or `lm`) through the gateway, for one row; nothing is sent after the error `stopped`."""

    @property
    def logprobs(self) -> int: ...

    @property
    def stopped(self) -> Exception | None: ...

    async def __call__(self, request: Request, lm: LM | None = None) -> Completion: ...

    async def aside(self, request: Request, lm: LM) -> Completion: ...  # such as a simulated user


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


NO_CALL = "none"  # the `call_key` of an answer for which a program called no model


@dataclass(frozen=True, slots=True)
class Outcome:
    """One candidate on one example; `value` is the weighted sum of the scores, None if one is unscored.

    `call_key`: of the last call; "" without an answer.
    From log-probabilities, if any: `signal` in [0, 1] is graded evidence, `label_scores` one of each label.
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
    left_out: tuple[FormatName, ...] = ()  # tried by default, but not without DSPy
    retrieval: bool = False  # whether examples may be picked per input
    embeddings: str = ""  # rows may be picked by vectors of "wordllama" or a provider's "PROVIDER:NAME"
    descriptions_only: int | None = None  # only descriptions of tools may change; their most characters
    shape: bool = False  # whether the shape of a JSON answer may change


@dataclass(frozen=True, slots=True)
class SimulatedUser:
    """The writer of the user's messages: a model with a prompt, or without a model the row's messages in turn."""

    model: str = ""
    prompt: str = ""
    max_turns: int = 6
    stop: str = "[DONE]"
    reply_tokens: int = 200


@dataclass(frozen=True, slots=True)
class Rollouts:
    """How a row of a task with `texts` is run by the user's own code: one of `run`, `function` and `command`.

    `run` is FILE.py:FUNCTION, `function` one of this process. `seconds` and `most_calls` are the limits of one row.
    `kind`: the registered kind of program.
    """

    run: str = ""
    function: str = ""
    command: tuple[str, ...] = ()
    seconds: float = 120.0
    most_calls: int = 50
    at_once: int = 16
    kind: str = dataclasses.field(kw_only=True)

    def __str__(self) -> str:
        return self.run or self.function or " ".join(self.command)


@dataclass(frozen=True, slots=True)
class Task:
    """A loaded and checked task."""

    name: str
    description: str
    signature: Signature
    instruction: str
    metrics: tuple[MetricSpec, ...]
    space: SearchSpace
    constraints: Constraints
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    folder: str
    model: str = ""
    proposer: str = ""
    max_tokens: int | None = None
    thinking: int = 0
    program: str = ""  # `module:factory` of a user's program in the folder, or what runs `rollouts`
    texts: Mapping[str, str] = dataclasses.field(default_factory=dict)  # of the user's own code, by name
    rollouts: Rollouts | None = None
    judges: tuple[str, ...] = ()  # several are a panel
    rubrics: Mapping[str, Rubric] = dataclasses.field(default_factory=dict)  # by file name
    tuned_judges: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # `TunedPrompt`s by their reference
    slices: tuple[str, ...] = ()  # columns or fields by which scores are broken down
    repeats: int = 1  # samples per row; each is a call
    human_score: float | None = None  # what people reach, in (0, 1]
    monitor: Drift = Drift()
    run: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # options of its runs
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # caps and search options left open
    precision: float | None = None  # share of right answers, in (0, 1), if the prompt may abstain
    knowledge: Knowledge | None = None
    tools: tuple[Tool, ...] = ()  # the answer is a list of calls of them
    user: SimulatedUser | None = None  # a row continues with the model's replies, of which the last is the answer
    hashes: Mapping[str, str] = dataclasses.field(default_factory=dict)  # of splits, task.toml and its files

    def room(self, answer: int) -> int:
        """Return the most tokens of a reply, thinking included."""
        return answer + self.thinking

    @property
    def is_judged(self) -> bool:
        """Whether one of its metrics asks a judge."""
        return any(spec.name == "judge" for spec in self.metrics)

    @property
    def accepted(self) -> frozenset[str]:
        """The outputs whose labels are calls with lists of accepted values."""
        with_lists = [spec for spec in self.metrics if spec.name == "tool_calls" and spec.options.get("accepted")]
        return frozenset(spec.field for spec in with_lists)

    @property
    def is_compared(self) -> bool:
        """Whether a judge compares each answer with that of the user's prompt."""
        return any(spec.options.get("mode") == "pairwise" for spec in self.metrics)
