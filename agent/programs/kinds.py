"""The base of kinds of candidates that a run searches and releases, and of users' programs.

A kind of program is one class that registers itself; the result of `program` in task.toml decides which kind runs it:

    @program("wording", about="...", takes="a Wordings", claims=lambda made: isinstance(made, Wordings))
    class WordingProgram(Kind):
        def __init__(self, task: Task, lm: LM, own: UserProgram, made: Any) -> None: ...

It is made once per run; `made` is the result of the user's factory, and `own.wrong(...)` the error that names the file
and line of the factory.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from agent.errors import (
    AgentError,
    BadResponse,
    BudgetExhausted,
    InputError,
    ReleaseError,
    RowRefused,
    Transient,
    TransportUnknown,
    one_line,
)
from agent.evaluate.evaluator import Evaluator
from agent.extras import brings
from agent.gateway.gateway import Gateway
from agent.prompt.reply_parser import parse_reply
from agent.prompt.template import escape, label_text
from agent.registry import Registry
from agent.release.result import RunResult
from agent.scoring.task_metrics import line_in
from agent.search.dspy.bridge import Bridge, Meter
from agent.search.program import Program
from agent.search.registered import STRATEGIES
from agent.types import (
    LM,
    Call,
    CallRole,
    Candidate,
    Completion,
    Example,
    Message,
    Outcome,
    Prediction,
    Request,
    Signature,
    Summary,
    Task,
    canonical,
)


@dataclass(frozen=True, slots=True)
class ReleaseSpec:
    """The data of a release.

    `trial`: the number of the candidate's trial. `parameters`: those that it was scored with. `origin`: tool and
    created_utc. `evaluator` and `rows` of the sealed test prove that the written release does the same.
    """

    result: RunResult
    trial: int
    parameters: Mapping[str, Any]
    origin: Mapping[str, str]
    folder: Path
    evaluator: Evaluator
    rows: Sequence[Example]


@dataclass(frozen=True, slots=True)
class WrittenRelease:
    """A written release: its main file, and the hash of its content."""

    path: Path
    version: str


class Kind(Program, Protocol):
    """A kind of candidate that can be run, searched and released."""

    async def write(self, candidate: Candidate, spec: ReleaseSpec) -> WrittenRelease:
        """Write the release and prove it. Raises ReleaseError if it differs from what was scored."""
        ...


def refuse_pairwise(task: Task, strategy: str, otherwise: str = "") -> None:
    """Raise InputError for a pairwise judge, which DSPy's optimizers cannot serve."""
    if task.is_compared:
        raise InputError(
            f"--strategy {strategy}: the pairwise judge of {task.name} needs your prompt's answers to train rows; "
            f'set mode = "rubric"{otherwise}'
        )


# -- the registry -----------------------------------------------------------------------------------------------------

Make = Callable[[Task, LM, "UserProgram", Any], Kind]
Made = TypeVar("Made", bound=Make)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramKind:
    """A registered kind of program. `takes`: its input in words.

    `claims`: whether it handles a factory's result, without imports.
    """

    name: str
    about: str
    takes: str
    claims: Callable[[Any], bool]
    make: Make


PROGRAMS: Registry[ProgramKind] = Registry(
    "kind of program", "promptassay.programs", {"dspy": "agent.programs.dspy", "chain": "agent.programs.chain"}
)


def program(name: str, *, about: str, takes: str, claims: Callable[[Any], bool]) -> Callable[[Made], Made]:
    """Register the class below as the kind `name`; see `ProgramKind`."""

    def register(make: Made) -> Made:
        PROGRAMS.add(name, ProgramKind(name=name, about=about, takes=takes, claims=claims, make=make), make.__module__)
        return make

    return register


def program_for(task: Task, lm: LM, user: LM | None = None) -> Kind:
    """Return the program that a run of this task with this target model optimizes.

    A program of the user is of the first kind that claims it: ours, then those of other packages. `user`: the model
    that plays the user, if the task names one. Raises InputError, naming file and line, if it cannot be made.
    """
    if task.user is not None:
        from agent.programs.variants import ConversationProgram

        return ConversationProgram(task, lm, user)
    if not task.program:
        from agent.programs.prompt import PromptProgram

        return PromptProgram(task, lm)
    from agent.programs.chain import chat_model

    own = UserProgram(task)
    made = own.made(chat_model)
    takes, faults = [], []
    for one in PROGRAMS.all():
        if one.thing is None:
            faults.append(f"; {one.fault}")
        elif one.thing.claims(made):
            return one.thing.make(task, lm, own, made)
        else:
            takes.append(one.thing.takes)
    raise own.wrong(f"{own.factory}() gives a {type(made).__name__}, not {' or '.join(takes)}{''.join(faults)}")


REPLY_TOKENS = 500  # of one call, where task.toml does not say
BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class UserProgram:
    """The `module:factory` that task.toml names."""

    def __init__(self, task: Task) -> None:
        name, self.factory = task.program.split(":")
        self._where = Path(task.folder) / f"{name}.py"
        self._file = self._where.resolve()
        self._name = f"optimize_task_{name}"
        self._line = 1

    def made(self, model: Callable[[], Any]) -> Any:
        """Call the factory of the reloaded module, with `model()` if it needs one.

        Raises InputError with the line.
        """
        spec = importlib.util.spec_from_file_location(self._name, self._file)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
            factory = getattr(module, self.factory)
            self._line = getattr(getattr(factory, "__code__", None), "co_firstlineno", 1)
            parameters = inspect.signature(factory).parameters.values()
            required = [p for p in parameters if p.kind in BY_PLACE and p.default is inspect.Parameter.empty]
            return factory(*[model() for _ in required[:1]])
        except Exception as problem:
            words = str(problem) if isinstance(problem, AgentError) else one_line(problem)
            words += brings(problem.name) if isinstance(problem, ModuleNotFoundError) else ""
            line = problem.lineno if isinstance(problem, SyntaxError) else line_in(str(self._file), problem)
            raise InputError(f"{self._where}:{line or 1}: {words}") from problem

    def wrong(self, what: str) -> InputError:
        return InputError(f"{self._where}:{self._line}: {what}")


class RowClient:
    """A row's `Call` as the `ModelClient` of a bridge."""

    def __init__(self, call: Call) -> None:
        self._call = call

    @property
    def stopped(self) -> Exception | None:
        return self._call.stopped

    async def complete(self, role: CallRole, lm: LM, request: Request, candidate_id: str = "") -> Completion:
        return await self._call(request)


class UserKind(Kind):
    """A user's program on one model. Its calls go through a meter, so none is made twice in a run."""

    is_fixed = False
    word: ClassVar[str]
    """The name in messages, such as "chain"."""
    takes: ClassVar[str]
    """The name in lists of strategies."""
    usual: ClassVar[str]
    """The default strategy."""
    has_moves: ClassVar[bool]
    file: ClassVar[str]
    """The name of a release."""

    def __init__(self, task: Task, lm: LM) -> None:
        self._lm = lm
        self._raised: set[tuple[str, str]] = set()
        self._named = task.program
        self._meter: Meter

    async def answered(
        self, candidate: Candidate, example: Example, call: Call, bridge: Bridge, repeat: int
    ) -> Prediction:
        """Answer a row with the program, with its calls through the bridge."""
        raise NotImplementedError

    def unreadable(self, problem: Exception) -> str | None:
        """Return the unreadable reply, if that is the problem."""
        raise NotImplementedError

    def saved(self, candidate: Candidate, path: Path, spec: ReleaseSpec) -> tuple[str, Callable[[], None]]:
        """Write the candidate.

        Return its file's version and a function that loads the file in its place.
        """
        raise NotImplementedError

    def prompts_of(self, candidate: Candidate) -> Iterable[tuple[str, str, Sequence[Any]]]:
        """Return name, instruction and examples of each prompt."""
        raise NotImplementedError

    def texts(self, candidate: Candidate) -> list[str]:
        """Return each prompt for display; never sent."""
        texts = []
        for name, instruction, demos in self.prompts_of(candidate):
            shots = [json.dumps(demo, ensure_ascii=False, default=str) for demo in demos]
            texts.append("\n".join([f"{name}: {instruction}", *shots]))
        return texts

    def shown_as(self, candidate: Candidate, text: str) -> Summary:
        n_examples = sum(len(demos) for _, _, demos in self.prompts_of(candidate))
        return Summary(candidate.id, "program", self.kind, text, n_examples=n_examples)

    def template(self, candidate: Candidate) -> tuple[Message, ...]:
        names = [field.name for field in self.task.signature.inputs]
        return tuple(Message("system", escape(text, names)) for text in self.texts(candidate))

    async def run(self, candidate: Candidate, example: Example, call: Call, repeat: int = 0) -> Prediction:
        bridge = Bridge(RowClient(call))
        try:
            return await self.answered(candidate, example, call, bridge, repeat)
        except (RowRefused, BadResponse, Transient, TransportUnknown):
            raise
        except Exception as problem:
            if (reply := self.unreadable(problem)) is not None:
                return Prediction({}, reply, f"The reply could not be read: {reply[:80]!r}")
            if bridge.stopped is not None:
                raise
            self._raised.add((candidate.id, example.id))
            return Prediction({}, "", f"the {self.word} raised {one_line(problem)}")

    def max_tokens(self, candidate: Candidate) -> int:
        return self.task.room(self.task.max_tokens or REPLY_TOKENS)

    def broken(self, outcomes: Sequence[Outcome]) -> str:
        if all((outcome.candidate_id, outcome.example_id) in self._raised for outcome in outcomes):
            return f"{self._named} fails on every row of dev: {outcomes[0].prediction.error}"
        return ""

    def client(self, gateway: Gateway) -> Meter:
        self._meter = Meter(gateway)
        return self._meter

    def strategy(self, name: str | None) -> str:
        name = name or self.usual
        if not STRATEGIES.get(name).suits(self.kind, self.has_moves):
            fit = [one.name for one in STRATEGIES.usable().values() if one.suits(self.kind, self.has_moves)]
            raise InputError(f"--strategy {name}: {self.takes} takes {', '.join(fit)}")
        return name

    async def write(self, candidate: Candidate, spec: ReleaseSpec) -> WrittenRelease:
        """Save the candidate, load it and run it on sealed rows.

        Raises ReleaseError on a new call or answer.
        """
        path = spec.folder / self.file
        version, load = self.saved(candidate, path, spec)
        scored = await spec.evaluator.outcomes(candidate, spec.rows, "test")
        before, self._meter.room = self._meter.room, lambda: 0
        load()
        for row, then in zip(spec.rows, scored, strict=True):
            if then.value is None:
                continue
            try:
                now = await spec.evaluator.outcome(candidate, row)
            except BudgetExhausted as call:
                raise ReleaseError(f"{path}: on row {row.id} the saved program makes a new call") from call
            if now.prediction != then.prediction:
                raise ReleaseError(f"{path}: on row {row.id} the saved program gives {now.prediction.raw!r:.80}")
        self._meter.room = before
        return WrittenRelease(path, version)


def read_fields(value_of: Callable[[str], Any], signature: Signature, what: str) -> Prediction:
    """Read each output of `value_of` (None: missing) like a reply. `what`: its name in messages."""
    texts: dict[str, str] = {}
    fields: dict[str, Any] = {}
    errors = []
    for field in signature.outputs:
        value = value_of(field.name)
        if value is None:
            errors.append(f"The {what} lacks {field.name}.")
            continue
        value = plain(value)
        texts[field.name] = label_text(value) if isinstance(value, str | int | float | dict | list) else str(value)
        reply = parse_reply(texts[field.name], (field,))
        fields.update(reply.fields)
        errors += [f"{field.name}: {reply.error}"] if reply.error else []
    return Prediction(fields, json.dumps(texts, ensure_ascii=False), " ".join(errors))


def unrefused(completion: Completion) -> Completion:
    """Return the reply. Raises RowRefused if the provider refuses."""
    if completion.finish == "refusal":
        raise RowRefused.by_provider(completion.text)
    return completion


def plain(value: Any) -> Any:
    """Convert a typed output to JSON: pydantic models become objects, Enum members their values.

    >>> plain({"b", "a"})
    ['a', 'b']
    """
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(plain, value), key=canonical)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
