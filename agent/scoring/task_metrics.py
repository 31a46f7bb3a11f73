"""The metrics of a task: a score in [0, 1] with a reason for a prediction.

A prediction with `error` scores 0, as not parsing is the fault of the prompt. What cannot be scored (no label, a failed
check) is None, never 0. A list as the label of a text field, which tasks made in Python may hold, accepts any item.

Two kinds are code of the user: registered functions, trusted and called in this process, and metric.py, which runs in a
child process with a timeout per row. A failure there leaves its row unscored with the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import hashlib
import inspect
import math
import re
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import CellType, CodeType, FunctionType, MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from agent.conversation import turns_of
from agent.errors import InputError
from agent.metrics.comparison import BoundedCheck, Check
from agent.metrics.metric_registry import METRICS
from agent.types import Example, Field, Metric, MetricSpec, Prediction, Score, Task
from agent.worker import LOAD, Verdict, Worker, run_aside

if TYPE_CHECKING:
    from agent.metrics.metric_rule import MetricRule


def build_metrics(
    task: Task, others: Mapping[str, Callable[[MetricSpec], Metric]] = MappingProxyType({})
) -> tuple[Metric, ...]:
    """Build the metrics of a task in order; a repeated name becomes `name:field`. Raises InputError.

    `others` builds metrics by name that need more than a task, such as a judge.
    """
    names = Counter(spec.name for spec in task.metrics)
    outputs = {field.name: field for field in task.signature.outputs}
    only = next(iter(outputs)) if len(outputs) == 1 else ""
    where = Path(task.folder) / "task.toml"
    metrics: list[Metric] = []
    for spec in task.metrics:
        if function := registered(spec.name):
            metrics.append(FunctionMetric(function, spec.field))
            continue
        if (field := outputs.get(spec.field or only)) is None:
            what = f"metric {spec.name} names the field {spec.field!r}; the outputs are {', '.join(outputs)}"
            raise InputError(f"{where}: {what}")
        name = spec.name if names[spec.name] == 1 else f"{spec.name}:{field.name}"
        if spec.name in others:
            metrics.append(others[spec.name](spec))
        elif spec.name == "python":
            metrics.append(PythonMetric(name, Path(task.folder) / "metric.py"))
        else:
            try:
                rule = METRICS.get(spec.name)
                if rule.reads_rollout and task.rollouts is None:
                    raise ValueError(f"metric {rule.name} scores what an agent did; this task has none, take another")
                check = _check(rule, spec, field)
            except (InputError, ValueError) as problem:
                raise InputError(f"{where}: {problem}") from problem
            metrics.append(FieldMetric(name, field.name, check, rule))
    return tuple(metrics)


def _check(rule: MetricRule, spec: MetricSpec, field: Field) -> Check | BoundedCheck:
    try:
        options = rule.options.model_validate(dict(spec.options))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        fault = f"has {key} = {first['input']!r}: {first['msg'].removeprefix('Value error, ').removeprefix('Input ')}"
        raise ValueError(f"metric {rule.name} {fault}") from error
    if rule.needs and not any(key in spec.options for key in rule.needs):
        raise ValueError(f"metric {rule.name} needs {' or '.join(rule.needs)} in its options")
    for _, what in rule.faults(options, field):
        raise ValueError(f"metric {rule.name}: {what}")
    if rule.build is None:
        raise ValueError(f"metric {rule.name} needs more than a task to be made, such as a model to ask")
    return rule.build(options, field)


def combine(scores: Sequence[Score], specs: Sequence[MetricSpec]) -> float | None:
    """Return the weighted mean of scores, or None if one is missing. Raises ValueError."""
    total = math.fsum(spec.weight for spec in specs)
    if len(scores) != len(specs) or (specs and not total > 0):
        raise ValueError(f"{len(scores)} scores for {len(specs)} metrics with weights that add up to {total}")
    parts = [score.value * spec.weight for score, spec in zip(scores, specs, strict=True) if score.value is not None]
    if not specs or len(parts) < len(specs):
        return None
    return min(1.0, max(0.0, math.fsum(parts) / total))


class _RowMetric:
    """What metrics have in common: a reply that cannot be read scores 0, and a score is in [0, 1] or None."""

    def __init__(self, name: str, field: str, needs_label: bool = False) -> None:
        self.name, self.field, self._needs_label = name, field, needs_label

    async def score(self, example: Example, prediction: Prediction) -> Score:
        if prediction.error:
            return Score(self.name, 0.0, prediction.error)
        if self._needs_label and example.labels.get(self.field) is None:
            return Score(self.name, None, f"row {example.id} has no label for {self.field}")
        if self.field and self.field not in prediction.fields:
            return Score(self.name, 0.0, f"the reply has no {self.field}")
        value, reason = await self._verdict(example, prediction)
        if value is not None and not 0 <= value <= 1:
            return Score(self.name, None, f"{self.name} gave {value}, which is not in [0, 1]")
        return Score(self.name, value, reason)

    async def _verdict(self, example: Example, prediction: Prediction) -> Verdict:
        raise NotImplementedError


class FieldMetric(_RowMetric):
    """A pure check of one field against its label."""

    def __init__(self, name: str, field: str, check: Check | BoundedCheck, rule: MetricRule) -> None:
        super().__init__(name, field, rule.needs_label)
        self.check, self.rule = check, rule

    async def _verdict(self, example: Example, prediction: Prediction) -> Verdict:
        got = prediction if self.rule.reads_rollout else prediction.fields[self.field]
        if self.rule.reads_replies:
            said = turns_of(prediction.conversation) if prediction.conversation else []
            got = [*(content for role, content in said if role == "assistant"), prediction.raw]
        check: Callable[[], Verdict | Awaitable[Verdict]] = partial(self.check, got, example.labels.get(self.field))
        try:
            verdict = await run_aside(len(prediction.raw), check)
            return verdict if isinstance(verdict, tuple) else await verdict
        except Exception as problem:  # a metric may be another package's code
            return None, f"{self.name} failed: {type(problem).__name__}: {problem}"[:300]


MAX_TIMEOUTS = 3
"""Timeouts after which the function is not called again: a thread cannot be killed."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,79}")
_PLAIN = (str, bytes, int, float, complex, bool, type(None))

ROWS, LABELS, ANSWERS = (
    frozenset({"row", "example"}),
    frozenset({"expected", "label", "target", "reference", "truth"}),
    frozenset({"answer", "prediction", "predicted", "pred", "output", "got", "reply", "response"}),
)
"""Argument names that reveal a wrong order."""

MetricFunction = Callable[[dict[str, Any], Any], Any]
"""(row with its fields and `id`, answer) -> score in [0, 1], or None."""


@dataclass(frozen=True, slots=True)
class RegisteredFunction:
    """A named function; `digest` is a SHA-256 of its source, defaults and closure."""

    name: str
    function: MetricFunction
    digest: str


_REGISTERED: dict[str, RegisteredFunction] = {}


def register(function: MetricFunction, name: str = "") -> RegisteredFunction:
    """Register a plain function of (row, answer) as a metric of this process. Raises InputError."""
    if not isinstance(function, FunctionType) or asyncio.iscoroutinefunction(function):
        raise InputError(f"metric {function!r}: write a plain function, def metric(row, answer), that returns a score")
    name = name or ("metric" if function.__name__ == "<lambda>" else function.__name__)
    if not _NAME.fullmatch(name) or name in METRICS:
        raise InputError(f"metric {name!r}: this name is taken or not usable; take letters, digits and underscores")
    most = function.__code__.co_argcount
    least = most - len(function.__defaults__ or ())
    if not (least <= 2 <= most or (least <= 2 and function.__code__.co_flags & 0x04)):
        raise InputError(f"metric {name}: takes {least} arguments; write def {name}(row, answer)")
    arguments = function.__code__.co_varnames[: min(2, most)]
    first, second = [*map(str.casefold, arguments), "", ""][:2]
    if first in ANSWERS | LABELS or second in ROWS:
        raise InputError(
            f"metric {name}({', '.join(arguments)}): it is called with the whole row first, then the answer; write "
            f'def {name}(row, answer) and read the label as row["COLUMN"]'
        )
    _REGISTERED[name] = RegisteredFunction(name, function, digest_of(function))
    return _REGISTERED[name]


def registered(name: str) -> RegisteredFunction | None:
    return _REGISTERED.get(name)


def require_all(task: Task) -> None:
    """Raise InputError if a metric of the task is an unregistered function."""
    for spec in task.metrics:
        if spec.name not in METRICS and spec.name not in _REGISTERED:
            raise InputError(f"{task.name}: its metric {spec.name} is a Python function, which this program lacks")


def digest_of(function: FunctionType) -> str:
    """Return a SHA-256 of a function's source, defaults and closure."""

    try:
        if function.__name__ == "<lambda>":
            raise OSError  # its source would be its whole line
        text = inspect.getsource(function)
    except (OSError, TypeError):  # typed at a prompt
        text = repr(_code(function.__code__))
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell != CellType()]  # an empty one
    held = [
        *(function.__defaults__ or ()),
        *sorted((function.__kwdefaults__ or {}).items()),
        *(value for value in cells if value is not None),
    ]
    plain = [repr(value) for value in held if isinstance(value, _PLAIN)]
    return hashlib.sha256("\n".join([text, *plain]).encode("utf-8", "surrogatepass")).hexdigest()


def _code(code: CodeType) -> tuple[Any, ...]:
    inner = tuple(_code(each) if isinstance(each, CodeType) else repr(each) for each in code.co_consts)
    return code.co_code.hex(), code.co_names, code.co_varnames, inner


def _read(returned: Any, who: str) -> Verdict:
    reason = ""
    if isinstance(returned, dict):
        returned, reason = returned.get("value"), str(returned.get("reason", ""))[:2000]
    if returned is None:
        return None, reason or f"{who} returned no value"
    if isinstance(returned, str | bytes | bytearray):
        return None, f"{who} returned the text {returned!r:.200}, not a number in [0, 1]"
    return float(returned), reason


class FunctionMetric(_RowMetric):
    """A registered function, called in a thread with copies, one row at a time.

    The answer is the output `field`, or a dict of all outputs. `timeout` is in seconds per row.
    """

    def __init__(self, registered: RegisteredFunction, field: str = "", timeout: float = 5.0) -> None:
        super().__init__(registered.name, field)
        self._function, self._timeout, self._timeouts = registered.function, timeout, 0
        self._turn = asyncio.Lock()

    async def _verdict(self, example: Example, prediction: Prediction) -> Verdict:
        answer = prediction.fields[self.field] if self.field else dict(prediction.fields)
        row = {"id": example.id, **example.inputs, **example.labels}
        took = f"{self.name} took longer than {self._timeout:g} s"
        async with self._turn:
            if self._timeouts >= MAX_TIMEOUTS:
                return None, f"{took}, {self._timeouts} times, and is not called again"
            result: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
            arguments = result, copy.deepcopy(row), copy.deepcopy(answer)
            threading.Thread(target=self._call, args=arguments, name=f"metric {self.name}", daemon=True).start()
            try:
                return await asyncio.wait_for(result, self._timeout)
            except TimeoutError:
                self._timeouts += 1
                return None, took

    def _call(self, result: asyncio.Future[Verdict], row: dict[str, Any], answer: Any) -> None:
        try:
            verdict = _read(self._function(row, answer), self.name)
        except (Exception, SystemExit) as problem:
            line = line_in(self._function.__code__.co_filename, problem)
            where = f"{self.name}:{line}" if line else self.name
            verdict = None, f"{where}: {type(problem).__name__}: {problem}"[:2000]

        def settle() -> None:
            if not result.done():
                result.set_result(verdict)

        with contextlib.suppress(RuntimeError):  # it timed out, and the loop has ended
            result.get_loop().call_soon_threadsafe(settle)


def line_in(file: str, problem: BaseException) -> int | None:
    """Return the last line of a file in the traceback, or None."""
    frame, line = problem.__traceback__, None
    while frame:
        if frame.tb_frame.f_code.co_filename == file:
            line = frame.tb_lineno
        frame = frame.tb_next
    return line


_SCRIPT = (
    LOAD
    + r"""
def plain(value):  # float reads bytes as text
    return repr(value) if isinstance(value, (bytes, bytearray)) else float(value)

path = opening
try:
    metric = load("metric", path).metric
except BaseException as problem:
    answer(None, "metric.py:" + blame(problem, path))
    sys.exit(1)
answer(1, "ready")
for line in pipe_in:
    try:
        value = metric(**json.loads(line))
        if isinstance(value, dict):  # whatever else it holds is for the user
            value = {"value": value.get("value"), "reason": str(value.get("reason", ""))}
        answer([json.loads(json.dumps(value, default=plain))], "")
    except Exception as problem:
        answer(None, "metric.py:" + blame(problem, path))
"""
)


class PythonMetric(_RowMetric):
    """`def metric(example: dict, prediction: dict) -> float | dict(value=, reason=)` in the task folder's metric.py.

    `example` has id, inputs and labels; `prediction` has fields and raw, and `conversation` in a task with
    [conversation] or `trace` in one with [texts]. A failure scores None with the reason.
    """

    def __init__(self, name: str, path: Path, timeout: float = 5.0) -> None:
        try:
            code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
        except OSError as problem:
            raise InputError(f"{path}: cannot be read ({problem.strerror}); metric python needs this file") from problem
        except (SyntaxError, ValueError) as problem:
            line = getattr(problem, "lineno", None) or 1
            raise InputError(f"{path}:{line}: {getattr(problem, 'msg', problem)}") from problem
        if "metric" not in code.co_names:
            raise InputError(f"{path}:1: no function `metric`; write `def metric(example, prediction):`")
        super().__init__(name, "")
        path = path.resolve()
        self._worker = Worker("metric.py", _SCRIPT, str(path), timeout, folder=path.parent)

    async def _verdict(self, example: Example, prediction: Prediction) -> Verdict:
        said: dict[str, Any] = {"fields": dict(prediction.fields), "raw": prediction.raw}
        if prediction.conversation:
            said["conversation"] = prediction.conversation
        if prediction.trace:
            said["trace"] = prediction.trace
        row = {"id": example.id, "inputs": dict(example.inputs), "labels": dict(example.labels)}
        returned, reason = await self._worker.ask({"example": row, "prediction": said})
        if not isinstance(returned, list):
            return None, reason
        try:
            return _read(returned[0], "metric.py")
        except (TypeError, ValueError) as problem:
            return None, f"metric.py: {type(problem).__name__}: {problem}"

    def close(self) -> None:
        self._worker.close()
