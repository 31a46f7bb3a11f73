"""The kind `dspy`: a DSPy program of the user's own; its predictors' instructions and demos are what is optimized.

A candidate is the program's state as JSON: {predictor: {instruction, demos}}. Every call goes through the gateway, with
the adapter that DSPy itself would use; the program's code runs in this process.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

from agent.errors import (
    BadResponse,
    BudgetExhausted,
    InputError,
    ReleaseError,
    RowRefused,
    Transient,
    TransportUnknown,
)
from agent.extras import require
from agent.files import new_files
from agent.gateway.gateway import Gateway
from agent.programs.making import Making, Written
from agent.prompt.candidate import forbidden_in
from agent.prompt.parse import parse_reply
from agent.prompt.render import label_text
from agent.prompt.template import escape
from agent.release.prompt_file import STATE_FILE
from agent.search.dspy_bridge import Bridge
from agent.search.dspy_methods import Tried, state_of
from agent.search.dspy_strategies import DspyForm
from agent.search.lab import Lab
from agent.search.meter import Meter
from agent.search.program import Ablation, Entry, Moves
from agent.search.strategies import DSPY
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
    Shown,
    Signature,
    Task,
    canonical,
    content_id,
)

REPLY_TOKENS = 500  # of one call, where task.toml does not say


class Module:
    """The module that `module:factory` of task.toml makes. Raises InputError, naming file and line, where it cannot."""

    def __init__(self, task: Task) -> None:
        name, factory = task.program.split(":")
        self._where = Path(task.folder) / f"{name}.py"
        self._file = self._where.resolve()
        self._own = self._made(name, factory)
        predictors = self._own.named_predictors()
        if not predictors:
            raise InputError(f"{self._where}: {factory}() has no predictor, so there is nothing to optimize")
        for part, predictor in predictors:
            if predictor.lm is not None:
                raise InputError(f"{self._where}: {part} has a model of its own; leave the model to the run")
        self.calls = len(predictors)
        """Calls of one run of it, where each predictor is asked once."""
        self.own = written(state_of(self._own))
        """Its state as it is, as text."""

    def _made(self, name: str, factory: str) -> Any:
        require("dspy", f"{self._where}: a DSPy program")
        import dspy

        spec = importlib.util.spec_from_file_location(f"optimize_task_{name}", self._file)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
            made = getattr(module, factory)()
        except Exception as problem:
            raise InputError(f"{self._where}:{_line(problem, self._file)}: {_named(problem)}") from problem
        if not isinstance(made, dspy.Module):
            raise InputError(f"{self._where}: {factory}() gives a {type(made).__name__}, not a dspy.Module")
        return made

    def fresh(self, state: str) -> Any:
        """A copy of the program in a state that `written` wrote."""
        program, parts = self._own.deepcopy(), json.loads(state)
        for name, predictor in program.named_predictors():
            predictor.signature = predictor.signature.with_instructions(parts[name]["instruction"])
            predictor.demos = parts[name]["demos"]
        return program

    def save(self, state: str, path: Path) -> None:
        """Writes the state for `dspy.Module.load`, beside its place first; loaded again it must be the same program."""
        with new_files(path.parent) as beside:
            new = beside / path.name
            self.fresh(state).save(str(new))
            again = self._own.deepcopy()
            again.load(str(new))
            if written(state_of(again)) != state:
                raise ReleaseError(f"{path}: the program reads back another state than was written")

    def load(self, path: Path) -> Any:
        program = self._own.deepcopy()
        program.load(str(path))
        return program


def written(state: Mapping[str, Any]) -> str:
    """A state as text; equal states are equal texts. What is no JSON in a demo is written as text, and is text then."""
    parts = {name: {"instruction": words, "demos": demos} for name, (words, demos) in state.items()}
    return json.dumps(parts, ensure_ascii=False, sort_keys=True, default=str)


def count_demos(state: str) -> int:
    return sum(len(part["demos"]) for part in json.loads(state).values())


def _named(problem: Exception) -> str:
    return f"{type(problem).__name__}: {problem}".splitlines()[0][:300]


def _line(problem: Exception, path: Path) -> int:
    """The last line of the file that the problem went through."""
    if isinstance(problem, SyntaxError):
        return problem.lineno or 1
    line, frame = 1, problem.__traceback__
    while frame:
        if frame.tb_frame.f_code.co_filename == str(path):
            line = frame.tb_lineno
        frame = frame.tb_next
    return line


def read(prediction: Any, signature: Signature) -> Prediction:
    """What the program gave as typed fields, each read like a reply that holds nothing else."""
    import dspy

    if not isinstance(prediction, dspy.Prediction):
        return Prediction({}, str(prediction), f"the program gave a {type(prediction).__name__}, not a dspy.Prediction")
    texts: dict[str, str] = {}
    fields: dict[str, Any] = {}
    errors = []
    for field in signature.outputs:
        value = prediction.get(field.name)
        if value is None:
            errors.append(f"The prediction lacks {field.name}.")
            continue
        value = plain(value)
        texts[field.name] = label_text(value) if isinstance(value, str | int | float | dict | list) else str(value)
        found = parse_reply(texts[field.name], (field,))
        fields.update(found.fields)
        errors += [f"{field.name}: {found.error}"] if found.error else []
    return Prediction(fields, json.dumps(texts, ensure_ascii=False), " ".join(errors))


def plain(value: Any) -> Any:
    """A value of a typed output as JSON has it: pydantic models as objects, members of an Enum as their values."""
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


@dataclass(frozen=True, slots=True)
class DspyCandidate(Candidate):
    """A state of the program, as `written` writes it."""

    kind: ClassVar[str] = "dspy"

    state: str

    def parts(self) -> dict[str, Any]:
        return {"state": self.state}


class DspyProgram:
    """States of the user's program on one model. Its calls go through a meter, so none is made twice in a run."""

    kind = DspyCandidate.kind
    is_fixed = False

    def __init__(self, task: Task, lm: LM) -> None:
        """Raises InputError where the program cannot be made."""
        self._module = Module(task)
        self.task = replace(task, instruction=self._module.own)
        self.calls = self._module.calls
        self._lm = lm
        self._modules: dict[str, Any] = {}
        self._raised: set[tuple[str, str]] = set()
        self._meter: Meter

    # -- running ------------------------------------------------------------------------------------------------------

    async def run(self, candidate: Candidate, example: Example, call: Call, repeat: int = 0) -> Prediction:
        import dspy
        from dspy.utils.exceptions import AdapterParseError

        bridge = Bridge(_Door(call))
        lm = bridge.lm(self._lm, "target", max_tokens=self.max_tokens(candidate))
        if candidate.id not in self._modules:
            self._modules[candidate.id] = self._module.fresh(_own(candidate).state)
        try:
            with dspy.context(lm=lm.copy(rollout_id=repeat) if repeat else lm, track_usage=False):
                said = await bridge.run(self._modules[candidate.id], **example.inputs)
                return read(said, self.task.signature)
        except (RowRefused, BadResponse, Transient, TransportUnknown):
            raise
        except AdapterParseError as problem:
            return Prediction({}, problem.lm_response, f"The reply could not be read: {problem.lm_response[:80]!r}")
        except Exception as problem:
            if bridge.stopped is not None:
                raise
            self._raised.add((candidate.id, example.id))
            return Prediction({}, "", f"the program raised {_named(problem)}")

    def max_tokens(self, candidate: Candidate) -> int:
        return (self.task.max_tokens or REPLY_TOKENS) + self.task.thinking

    # -- what a run asks ----------------------------------------------------------------------------------------------

    def baseline(self) -> Candidate:
        return DspyCandidate(self._module.own)

    def check(self, candidate: Candidate) -> str:
        return forbidden_in(_own(candidate).state, self.task)

    def broken(self, outcomes: Sequence[Outcome]) -> str:
        if all((outcome.candidate_id, outcome.example_id) in self._raised for outcome in outcomes):
            return f"{self.task.program} fails on every row of dev: {outcomes[0].prediction.error}"
        return ""

    def place(self, candidate: Candidate) -> dict[str, str]:
        return {}

    def shown(self, candidate: Candidate) -> Shown:
        state = _own(candidate).state
        return Shown(candidate.id, "program", "program", state, n_demos=count_demos(state))

    def template(self, candidate: Candidate) -> tuple[Message, ...]:
        """One message per predictor, to read and to compare: its name, its instruction and its demos. Never sent."""
        names = [field.name for field in self.task.signature.inputs]
        messages = []
        for name, part in json.loads(_own(candidate).state).items():
            demos = [json.dumps(demo, ensure_ascii=False, default=str) for demo in part["demos"]]
            text = "\n".join([f"{name}: {part['instruction']}", *demos])
            messages.append(Message("system", escape(text, names)))
        return tuple(messages)

    def prompt_tokens(self, candidate: Candidate) -> int:
        """Tokens of all instructions and demos, as they are written in the state."""
        return self._lm.count_tokens(_own(candidate).state)

    def ablations(self, winner: Candidate, baseline: Candidate) -> list[Ablation]:
        return []

    def door(self, gateway: Gateway) -> Meter:
        self._meter = Meter(gateway)
        return self._meter

    # -- searching ----------------------------------------------------------------------------------------------------

    def strategy(self, name: str | None) -> str:
        task, name = self.task, name or DSPY[0]
        if name not in DSPY:
            raise InputError(f"--strategy {name}: a DSPy program takes {', '.join(DSPY)}")
        if task.is_compared:
            raise InputError(
                f"--strategy {name}: the pairwise judge of {task.name} compares with your own prompt's answers, which "
                'DSPy does not have on the rows that it learns from; give the judge mode = "rubric"'
            )
        return name

    def moves(self, lab: Lab) -> Moves:
        raise NotImplementedError(f"{self.kind}: only DSPy's optimizers change a DSPy program")

    def for_dspy(self, lab: Lab) -> DspyForm:
        return DspyForm(
            self._meter,
            self._module.fresh(self._module.own),
            {},
            self.max_tokens(lab.baseline),
            lambda prediction: read(prediction, self.task.signature),
            _entry,
        )

    # -- releasing ----------------------------------------------------------------------------------------------------

    async def write(self, candidate: Candidate, making: Making) -> Written:
        """The state, loaded again and run on rows of the sealed test: it must do the same, at no new call."""
        path, state = making.folder / STATE_FILE, _own(candidate).state
        self._module.save(state, path)
        scored = await making.evaluator.outcomes(candidate, making.rows, "test")
        before, self._meter.room = self._meter.room, lambda: 0
        self._modules[candidate.id] = self._module.load(path)
        for row, then in zip(making.rows, scored, strict=True):
            if then.value is None:
                continue
            try:
                now = await making.evaluator.seen(candidate, row)
            except BudgetExhausted as asked:
                raise ReleaseError(f"{path}: on row {row.id} the saved program asks what was not scored") from asked
            if now.prediction != then.prediction:
                raise ReleaseError(f"{path}: on row {row.id} the saved program gives {now.prediction.raw!r:.80}")
        self._meter.room = before
        return Written(path, content_id("v", state))


class _Door:
    """A row's `Call` as the gateway of a bridge."""

    def __init__(self, call: Call) -> None:
        self._call = call

    @property
    def stopped(self) -> Exception | None:
        return self._call.stopped

    async def complete(self, role: CallRole, lm: LM, request: Request, candidate_id: str = "") -> Completion:
        return await self._call(request)


def _own(candidate: Candidate) -> DspyCandidate:
    assert isinstance(candidate, DspyCandidate)
    return candidate


def _entry(method: str, tried: Tried) -> Entry:
    candidate = DspyCandidate(written(tried.state))
    reason = f"program {tried.number} of {method}: {tried.score:.1f} on {tried.rows} rows"
    place = {"layout": "program", "instruction": method, "demos": str(count_demos(candidate.state))}
    return Entry(candidate, place, method, None, reason)
