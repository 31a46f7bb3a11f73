"""Loads a program of the user's own, and has what its kinds share: errors, calls of a row, and the release proof."""

from __future__ import annotations

import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from agent.errors import AgentError, BudgetExhausted, InputError, ReleaseError, one_line
from agent.extras import brings
from agent.programs.kinds import ReleaseSpec
from agent.prompt.render import label_text
from agent.prompt.reply_parser import parse_reply
from agent.search.dspy.bridge import Meter
from agent.types import (
    LM,
    Call,
    CallRole,
    Candidate,
    Completion,
    Outcome,
    Prediction,
    Request,
    Signature,
    Task,
    canonical,
)

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
        """What the factory of the newly loaded module gives; a required parameter of it gets `model()`.

        Raises InputError, naming file and line.
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
            raise InputError(f"{self._where}:{_line(problem, self._file)}: {words}") from problem

    def wrong(self, what: str) -> InputError:
        """The error for an unusable program, with the factory's file and line."""
        return InputError(f"{self._where}:{self._line}: {what}")


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


class ProgramErrors:
    """The rows on which the user's program raised, by candidate."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._rows: set[tuple[str, str]] = set()

    def note(self, candidate_id: str, example_id: str) -> None:
        """Adds a row."""
        self._rows.add((candidate_id, example_id))

    def on_all(self, outcomes: Sequence[Outcome]) -> str:
        """The message where it raised on every row; else ""."""
        if all((outcome.candidate_id, outcome.example_id) in self._rows for outcome in outcomes):
            return f"{self._program} fails on every row of dev: {outcomes[0].prediction.error}"
        return ""


class RowClient:
    """A row's `Call` as the `ModelClient` of a bridge."""

    def __init__(self, call: Call) -> None:
        self._call = call

    @property
    def stopped(self) -> Exception | None:
        return self._call.stopped

    async def complete(self, role: CallRole, lm: LM, request: Request, candidate_id: str = "") -> Completion:
        return await self._call(request)


async def prove(candidate: Candidate, spec: ReleaseSpec, meter: Meter, path: Path, load: Callable[[], None]) -> None:
    """Runs what was written at `path` on rows of the sealed test, once `load` has put it in the candidate's place.

    Raises ReleaseError where it makes a new call or gives another answer.
    """
    scored = await spec.evaluator.outcomes(candidate, spec.rows, "test")
    before, meter.room = meter.room, lambda: 0
    load()
    for row, then in zip(spec.rows, scored, strict=True):
        if then.value is None:
            continue
        try:
            now = await spec.evaluator.outcome(candidate, row)
        except BudgetExhausted as call:
            raise ReleaseError(f"{path}: on row {row.id} the saved program asks what was not scored") from call
        if now.prediction != then.prediction:
            raise ReleaseError(f"{path}: on row {row.id} the saved program gives {now.prediction.raw!r:.80}")
    meter.room = before


def read_fields(value_of: Callable[[str], Any], signature: Signature, what: str) -> Prediction:
    """The outputs that `value_of` gives by name (None: missing), each read like a reply of its own; `what` is the word
    for the program's output in messages."""
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


def plain(value: Any) -> Any:
    """A value of a typed output as JSON: pydantic models as objects, members of an Enum as their values.

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
