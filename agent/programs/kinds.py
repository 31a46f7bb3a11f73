"""The base of kinds of candidates that a run searches and releases, and of users' programs.

A kind of program is one class that registers itself; the result of `program` in task.toml decides which kind runs it:

    @program("wording", about="...", takes="a Wordings", claims=lambda made: isinstance(made, Wordings))
    class WordingProgram(Kind):
        def __init__(self, task: Task, lm: LM, own: UserProgram, made: Any) -> None: ...

It is made once per run; `made` is the result of the user's factory, and `own.wrong(...)` the error that names the file
and line of the factory.
"""

from __future__ import annotations

import inspect
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, TypeVar

from agent.errors import OF_A_ROW, BudgetExhausted, InputError, ReleaseError, RowRefused, one_line
from agent.evaluate.evaluator import Evaluator
from agent.gateway.gateway import Gateway
from agent.programs.own_file import module_of, plain, why_broken
from agent.programs.rollout import RolloutTrace
from agent.prompt.named_texts import TextsCandidate, as_texts, why_unfit
from agent.prompt.reply_parser import parse_reply
from agent.prompt.techniques import forbidden_in
from agent.prompt.template import escape, label_text
from agent.registry import Registry
from agent.release.result import RunResult
from agent.release.texts import TextsRelease
from agent.search.context import SearchContext
from agent.search.dspy.bridge import Bridge, Meter
from agent.search.program import Moves, Program
from agent.search.registered import DEFAULT, DSPY, STRATEGIES
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
)


@dataclass(frozen=True, slots=True)
class ReleaseSpec:
    """The data of a release. `evaluator` and `rows` of the sealed test prove that it does the same."""

    result: RunResult
    trial: int
    parameters: Mapping[str, Any]
    origin: Mapping[str, str]
    folder: Path
    evaluator: Evaluator
    rows: Sequence[Example]

    def provenance(self, candidate: Candidate, task: Task, **more: Any) -> dict[str, Any]:
        """Return where the candidate comes from, as released files carry it."""
        result = self.result
        side = result.winner if candidate.id == result.winner.candidate_id else result.baseline
        return {
            "run_id": result.run_id,
            "trial": self.trial,
            "candidate_id": candidate.id,
            "decision": result.decision,
            "test": side.test,
            "baseline_test": result.baseline.test,
            "lift": result.lift.to_json(),
            "hashes": dict(task.hashes),
            **more,
            **self.origin,
            "ledger_head": result.ledger_head,
        }


@dataclass(frozen=True, slots=True)
class WrittenRelease:
    """Its main file, the hash of its content, and what the user should know of its proof."""

    path: Path
    version: str
    note: str = ""


class Kind(Program, Protocol):
    what: ClassVar[str] = "this kind of program"  # in messages, and told to the proposer
    usual: ClassVar[str] = DEFAULT  # its strategy

    def strategy(self, name: str | None) -> str:
        """Return the strategy of that name, or the usual one. Raises InputError if it cannot work."""
        name = name or self.usual
        if not STRATEGIES.get(name).suits(self.kind):
            fit = [one.name for one in STRATEGIES.usable().values() if one.suits(self.kind)]
            raise InputError(f"--strategy {name}: {self.what} takes {', '.join(fit)}")
        if name in DSPY and self.task.is_compared:
            raise InputError(
                f"--strategy {name}: the pairwise judge of {self.task.name} needs your prompt's answers to train rows; "
                f'set mode = "rubric", or use --strategy {DEFAULT}'
            )
        return name

    async def write(self, candidate: Candidate, spec: ReleaseSpec) -> WrittenRelease:
        """Write the release and prove it. Raises ReleaseError if it differs from what was scored."""

    def released(self, release: TextsRelease) -> Candidate:
        """Return the candidate of texts that this kind released. Raises ReleaseError if they are not of this task."""
        raise ReleaseError(f"{release.name}: is a set of texts, and the program of the task has none")


# -- the registry -----------------------------------------------------------------------------------------------------

Make = Callable[[Task, LM, Any, Any], Kind]  # of task, model, `UserProgram` and what its factory made
Made = TypeVar("Made", bound=Make)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramKind:
    """A registered kind. `takes`: its input in words; `claims`: whether it handles a factory's result."""

    name: str
    about: str
    takes: str
    claims: Callable[[Any], bool]
    make: Make


PROGRAMS: Registry[ProgramKind] = Registry(
    "kind of program",
    "promptassay.programs",
    {
        **dict.fromkeys(("dspy", "chain"), "agent.programs.frameworks"),
        **{name: f"agent.programs.{name}" for name in ("agent", "text_file")},
    },
)


def program(
    name: str, *, about: str, takes: str, claims: Callable[[Any], bool] = lambda made: False
) -> Callable[[Made], Made]:
    """Register the class below; see `ProgramKind`."""

    def register(make: Made) -> Made:
        PROGRAMS.add(name, ProgramKind(name=name, about=about, takes=takes, claims=claims, make=make), make.__module__)
        return make

    return register


def program_for(task: Task, lm: LM, user: LM | None = None) -> Kind:
    """Return the program that a run optimizes. The user's is of the first kind that claims it. Raises InputError."""
    if task.user is not None:
        from agent.programs.variants import ConversationProgram

        return ConversationProgram(task, lm, user)
    if not task.program:
        from agent.programs.prompt import PromptProgram

        return PromptProgram(task, lm)
    if task.rollouts is not None:  # nothing has to be made to know whose it is
        return PROGRAMS.get(task.rollouts.kind).make(task, lm, None, None)
    own = UserProgram(task)
    made = own.made(_langchain_model)
    takes, faults = [], []
    for one in PROGRAMS.all():
        if one.thing is None:
            faults.append(f"; {one.fault}")
        elif one.thing.claims(made):
            return one.thing.make(task, lm, own, made)
        else:
            takes.append(one.thing.takes)
    raise own.wrong(f"{own.factory}() gives a {type(made).__name__}, not {' or '.join(takes)}{''.join(faults)}")


def _langchain_model() -> Any:
    from agent.programs.chain import chat_model

    return chat_model()


BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class UserProgram:
    """The `module:factory` that task.toml names."""

    def __init__(self, task: Task) -> None:
        name, self.factory = task.program.split(":")
        self._where = Path(task.folder) / f"{name}.py"
        self._file = self._where.resolve()
        self._line = 1

    def made(self, model: Callable[[], Any]) -> Any:
        """Call the factory of the reloaded module, with `model()` if it needs one. Raises InputError with the line."""
        try:
            factory = getattr(module_of(self._file), self.factory)
            self._line = getattr(getattr(factory, "__code__", None), "co_firstlineno", 1)
            parameters = inspect.signature(factory).parameters.values()
            required = [p for p in parameters if p.kind in BY_PLACE and p.default is inspect.Parameter.empty]
            return factory(*[model() for _ in required[:1]])
        except Exception as problem:
            raise InputError(f"{self._where}:{why_broken(self._file, problem)}") from problem

    def wrong(self, what: str) -> InputError:
        return InputError(f"{self._where}:{self._line}: {what}")


class RowClient:
    """A row's `Call` as the client of a bridge."""

    def __init__(self, call: Call) -> None:
        self._call = call

    @property
    def stopped(self) -> Exception | None:
        return self._call.stopped

    async def complete(self, role: CallRole, lm: LM, request: Request, candidate_id: str = "") -> Completion:
        return await self._call(request)


class UserKind(Kind):
    """A user's program on one model; no call is made twice in a run."""

    is_fixed = False
    reply_tokens: ClassVar[int] = 500  # of one call, where task.toml does not say
    varies: ClassVar[bool] = False  # whether the same call may be followed by others

    def __init__(
        self, task: Task, lm: LM, texts: Mapping[str, str], examples: Mapping[str, Sequence[Any]] = MappingProxyType({})
    ) -> None:
        self.task = replace(task, instruction="\n\n".join(texts.values()))
        self._lm, self._named = lm, task.program
        self._baseline = TextsCandidate(self.kind, dict(texts), dict(examples))
        self._raised: set[tuple[str, str]] = set()
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
        """Write the candidate. Return its version and a function that loads the file in its place."""
        raise NotImplementedError

    def placeholders(self, name: str, text: str) -> Counter[str]:
        """Count what the program fills in, in the text of that name. Raises ValueError for no such text."""
        return Counter()

    def examples_of(self, candidate: Candidate, name: str) -> Sequence[Any]:
        """Return the examples of a text as JSON data."""
        return as_texts(candidate).examples.get(name, ())

    def baseline(self) -> TextsCandidate:
        return self._baseline

    def check(self, candidate: Candidate) -> str:
        for name, text in as_texts(candidate).texts.items():
            problem = why_unfit(name, self._baseline.texts[name], text, partial(self.placeholders, name))
            if problem := problem or forbidden_in(self.with_its_examples(candidate, name), self.task):
                return problem
        return ""

    def changed_texts(self, candidate: Candidate, baseline: Candidate) -> tuple[str, ...]:
        return as_texts(candidate).changed(as_texts(baseline))

    def ablations(self, candidate: Candidate, baseline: Candidate) -> dict[str, Candidate]:
        return as_texts(candidate).ablations(as_texts(baseline))

    def trace(self, candidate_id: str, row_id: str) -> RolloutTrace:
        """Return what the program first did on a row in this process, if it ran."""
        return RolloutTrace({}, ())

    def with_its_examples(self, candidate: Candidate, name: str) -> str:
        return "\n".join([as_texts(candidate).texts[name], *map(label_text, self.examples_of(candidate, name))])

    def moves(self, context: SearchContext) -> Moves:
        from agent.programs.moves.named_text_moves import NamedTextMoves  # here, as only a search needs it

        return NamedTextMoves(context, self)

    def texts(self, candidate: Candidate) -> list[str]:
        return [f"{name}: {self.with_its_examples(candidate, name)}" for name in as_texts(candidate).texts]

    def whole(self, candidate: Candidate) -> str:
        """Return all prompts as one text, to display and to count; never sent."""
        return "\n\n".join(self.texts(candidate))

    def shown(self, candidate: Candidate) -> Summary:
        n_examples = as_texts(candidate).n_examples
        return Summary(candidate.id, "program", self.kind, self.whole(candidate), n_examples=n_examples)

    def prompt_tokens(self, candidate: Candidate) -> int:
        return self._lm.count_tokens(self.whole(candidate))

    def template(self, candidate: Candidate) -> tuple[Message, ...]:
        names = [field.name for field in self.task.signature.inputs]
        return tuple(Message("system", escape(text, names)) for text in self.texts(candidate))

    async def run(self, candidate: Candidate, example: Example, call: Call, repeat: int = 0) -> Prediction:
        bridge = Bridge(RowClient(call))
        try:
            return await self.answered(candidate, example, call, bridge, repeat)
        except OF_A_ROW:
            raise
        except Exception as problem:
            if (reply := self.unreadable(problem)) is not None:
                return Prediction({}, reply, f"The reply could not be read: {reply[:80]!r}")
            if bridge.stopped is not None:
                raise
            self._raised.add((candidate.id, example.id))
            return Prediction({}, "", f"the {self.what.partition(' ')[2]} raised {one_line(problem)}")

    def max_tokens(self, candidate: Candidate) -> int:
        return self.task.room(self.task.max_tokens or self.reply_tokens)

    def broken(self, outcomes: Sequence[Outcome]) -> str:
        fails = all((outcome.candidate_id, outcome.example_id) in self._raised for outcome in outcomes)
        return f"{self._named} fails on every row of dev: {outcomes[0].prediction.error}" if fails else ""

    def client(self, gateway: Gateway) -> Meter:
        self._meter = Meter(gateway)
        return self._meter

    async def write(self, candidate: Candidate, spec: ReleaseSpec) -> WrittenRelease:
        """Save the candidate, load it and run it on sealed rows, without a new call.

        Raises ReleaseError on another answer. Of a program that varies, the rows that differ are told.
        """
        path = spec.folder / self.file
        version, load = self.saved(candidate, path, spec)
        scored = await spec.evaluator.outcomes(candidate, spec.rows, "test")
        load()
        differing = [
            f"on row {row.id} the saved program {f'gives {now.prediction.raw!r:.80}' if now else 'makes a new call'}"
            for row, then, now in await self.run_again(candidate, scored, spec)
            if now is None or now.prediction != then.prediction
        ]
        if differing and not self.varies:
            raise ReleaseError(f"{path}: {differing[0]}")
        again = f"{len(differing)} of {len(scored)} sealed rows went another way when run again from {path.name}"
        return WrittenRelease(path, version, f"{again}: answers vary from run to run" if differing else "")

    async def run_again(
        self, candidate: Candidate, scored: Sequence[Outcome], spec: ReleaseSpec
    ) -> list[tuple[Example, Outcome, Outcome | None]]:
        """Return each scored row with its outcome then and now (None: takes a new call)."""
        found: list[tuple[Example, Outcome, Outcome | None]] = []
        before, self._meter.room = self._meter.room, lambda: 0
        try:
            for row, then in zip(spec.rows, scored, strict=True):
                if then.value is None:
                    continue
                try:
                    found.append((row, then, await spec.evaluator.outcome(candidate, row)))
                except BudgetExhausted:
                    found.append((row, then, None))
        finally:
            self._meter.room = before
        return found


def read_fields(value_of: Callable[[str], Any], signature: Signature, what: str) -> Prediction:
    """Read each output of `value_of` (None: missing) like a reply. `what`: its name in messages."""
    values = {field.name: value_of(field.name) for field in signature.outputs}
    errors = [f"The {what} lacks {name}." for name, value in values.items() if value is None]
    fields: dict[str, Any] = {}
    texts: dict[str, str] = {}
    for field in signature.outputs:
        if (value := plain(values[field.name])) is not None:
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
