"""A user's own DSPy program as what is optimized: its predictors' instructions and demos. Knows no SQL.

A candidate is the program's state as JSON: {predictor: {instruction, demos}}. Every call goes through the gateway, with
the adapter that DSPy itself would use; the program's code runs in this process.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from agent.errors import BadResponse, InputError, ReleaseError, RowRefused, Transient, TransportUnknown
from agent.files import new_files
from agent.gateway.gateway import Gateway, call_key
from agent.prompt.parse import parse_reply
from agent.prompt.render import label_text
from agent.scoring.evaluate import Evaluator, Record
from agent.scoring.metrics import combine
from agent.search.dspy_bridge import Bridge
from agent.search.dspy_methods import Tried, state_of
from agent.search.dspy_strategies import Rows, admitted, explore, show
from agent.search.lab import Lab
from agent.search.meter import Meter
from agent.search.pool import Entry
from agent.types import (
    LM,
    CallRole,
    Candidate,
    Completion,
    Example,
    Metric,
    Outcome,
    Prediction,
    Request,
    Score,
    Signature,
    SplitName,
    Task,
    canonical,
)

REPLY_TOKENS = 500  # of one call, where task.toml does not say
RAISED = "the program raised"


class Program:
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


class ProgramEvaluator(Evaluator):
    """Outcomes of program states on rows. Its calls go through `meter`, so none is made twice in a run."""

    def __init__(
        self, task: Task, gateway: Gateway, lm: LM, metrics: tuple[Metric, ...], record: Record, program: Program
    ) -> None:
        super().__init__(task, gateway, lm, metrics, record)
        self.meter = Meter(gateway)
        self.program = program
        self._programs: dict[str, Any] = {}

    def max_tokens(self, candidate: Candidate) -> int:
        return (self._task.max_tokens or REPLY_TOKENS) + self._task.thinking

    async def _one(self, candidate: Candidate, example: Example, split: SplitName, repeat: int) -> Outcome:
        known = self._known.get((candidate.id, example.id, repeat))
        if known is not None:
            return known
        if candidate.id not in self._programs:
            self._programs[candidate.id] = self.program.fresh(candidate.instruction)
        return self._keep(await self.seen(self._programs[candidate.id], candidate, example, repeat), split, repeat)

    async def seen(self, program: Any, candidate: Candidate, example: Example, repeat: int = 0) -> Outcome:
        """What the program does on the row; nothing is kept."""
        import dspy
        from dspy.utils.exceptions import AdapterParseError

        door = Noted(self.meter)
        bridge = Bridge(door)
        lm = bridge.lm(self._lm, "target", max_tokens=self.max_tokens(candidate), candidate_id=candidate.id)
        try:
            with dspy.context(lm=lm.copy(rollout_id=repeat) if repeat else lm, track_usage=False):
                said = read(await bridge.run(program, **example.inputs), self._task.signature)
        except (RowRefused, BadResponse, Transient, TransportUnknown) as failure:
            scores = tuple(Score(metric.name, None, str(failure)) for metric in self._metrics)
            return Outcome(candidate.id, example.id, Prediction({}, "", str(failure)), scores, None, door.last)
        except AdapterParseError as problem:
            said = Prediction({}, problem.lm_response, f"The reply could not be read: {problem.lm_response[:80]!r}")
        except Exception as problem:
            if bridge.stopped is not None:
                raise
            said = Prediction({}, "", f"{RAISED} {_named(problem)}")
        scores = await self.scores(example, said)
        return Outcome(candidate.id, example.id, said, scores, combine(scores, self._task.metrics), door.last)


class Noted:
    """The meter for one row: which call came last."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self.last = ""

    @property
    def stopped(self) -> Exception | None:
        return self._meter.stopped

    async def complete(self, role: CallRole, lm: LM, request: Request, candidate_id: str = "") -> Completion:
        self.last = call_key(lm, request)
        return await self._meter.complete(role, lm, request, candidate_id)


async def search(lab: Lab, evaluator: ProgramEvaluator, method: str, per_row: int) -> None:
    """Lets DSPy's optimizer work on the program, then takes its choice to the whole of dev."""
    bridge = Bridge(evaluator.meter)
    lm = bridge.lm(lab.target, "target", max_tokens=evaluator.max_tokens(lab.baseline))
    rows = Rows(lab, bridge, lambda prediction: read(prediction, lab.task.signature))
    own = evaluator.program.fresh(evaluator.program.own)
    findings = await explore(lab, evaluator.meter, bridge, rows, method, own, {"lm": lm}, per_row)
    entries = {tried.number: entry(method, tried) for tried in findings.tried}
    await show(lab, method, admitted(lab, entries, findings))


def entry(method: str, tried: Tried) -> Entry:
    candidate = Candidate("zero-shot", "turns", written(tried.state))
    reason = f"program {tried.number} of {method}: {tried.score:.1f} on {tried.rows} rows"
    place = {"layout": "program", "instruction": method, "demos": str(count_demos(candidate.instruction))}
    return Entry(candidate, place, method, None, reason)
