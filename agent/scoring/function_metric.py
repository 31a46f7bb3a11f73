"""Metrics that are Python functions of the program that runs: registered by name, called in this process.

The function is the user's own code and is trusted as such. What goes wrong in it is None with the reason, never 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import hashlib
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

from agent.errors import InputError
from agent.metrics.metric_registry import METRICS
from agent.types import Example, Prediction, Score, Task

MOST_LATE = 3
"""After so many calls that took too long it is not asked any more: a thread cannot be ended from outside."""
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,79}")
FRAMES = (str, bytes, int, float, complex, bool, type(None))

MetricFunction = Callable[[dict[str, Any], Any], Any]
"""From a row (its fields, and `id`) and the answer to a score in [0, 1], or None where it cannot be scored."""


@dataclass(frozen=True, slots=True)
class Registered:
    """A function under its name. `digest` is a SHA-256 of its source, and of the plain values that it holds: defaults
    and those of the functions around it. What it calls is not looked at."""

    name: str
    function: MetricFunction
    digest: str


_REGISTERED: dict[str, Registered] = {}


def register(function: MetricFunction, name: str = "") -> Registered:
    """Makes `function` a metric of this process, in the place of one of the same name.

    Raises InputError for what is no plain function of two arguments, and for a name of a metric that is there already.
    """
    if not isinstance(function, FunctionType) or asyncio.iscoroutinefunction(function):
        raise InputError(f"metric {function!r}: write a plain function, def metric(row, answer), that returns a score")
    name = name or ("metric" if function.__name__ == "<lambda>" else function.__name__)
    if not NAME.fullmatch(name) or name in METRICS:
        raise InputError(
            f"metric {name!r}: this name is taken or not usable; take another, of letters, digits and underscores"
        )
    takes = function.__code__.co_argcount
    asked = takes - len(function.__defaults__ or ())
    if not (asked <= 2 <= takes or (asked <= 2 and function.__code__.co_flags & 0x04)):
        raise InputError(f"metric {name}: takes {asked} arguments; write def {name}(row, answer)")
    _REGISTERED[name] = found = Registered(name, function, _digest(function))
    return found


def registered(name: str) -> Registered | None:
    """The function of that name, if this process has one."""
    return _REGISTERED.get(name)


def require_all(task: Task) -> None:
    """Raises InputError where a metric of the task is a function that this process does not have."""
    for spec in task.metrics:
        if spec.name not in METRICS and spec.name not in _REGISTERED:
            raise InputError(
                f"{task.name}: its metric {spec.name} is a Python function, which only a program that has it can call"
            )


def _digest(function: FunctionType) -> str:
    import inspect

    try:
        if function.__name__ == "<lambda>":
            raise OSError  # its source is whatever stands on its line
        text = inspect.getsource(function)
    except (OSError, TypeError):  # typed at a prompt
        text = repr(_code(function.__code__))
    cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
    held = [*(function.__defaults__ or ()), *sorted((function.__kwdefaults__ or {}).items()), *cells]
    plain = [repr(value) for value in held if isinstance(value, FRAMES)]
    return hashlib.sha256("\n".join([text, *plain]).encode("utf-8", "surrogatepass")).hexdigest()


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _code(code: CodeType) -> tuple[Any, ...]:
    """What a function does, without where it stands."""
    inner = tuple(_code(each) if isinstance(each, CodeType) else repr(each) for each in code.co_consts)
    return code.co_code.hex(), code.co_names, code.co_varnames, inner


class FunctionMetric:
    """Calls the function in a thread, one row at a time, each for at most `timeout` seconds.

    It is given copies, so that it cannot change a row. `field` is the one output that is the answer; without it the
    answer is a dict of all outputs.
    """

    def __init__(self, registered: Registered, field: str = "", timeout: float = 5.0) -> None:
        self.name = registered.name
        self._function, self._field, self._timeout = registered.function, field, timeout
        self._turn = asyncio.Lock()
        self._late = 0

    async def score(self, example: Example, prediction: Prediction) -> Score:
        if prediction.error:
            return Score(self.name, 0.0, prediction.error)
        if self._field and self._field not in prediction.fields:
            return Score(self.name, 0.0, f"the reply has no {self._field}")
        answer = prediction.fields[self._field] if self._field else dict(prediction.fields)
        row = {"id": example.id, **example.inputs, **example.labels}
        async with self._turn:
            return Score(self.name, *await self._called(copy.deepcopy(row), copy.deepcopy(answer)))

    async def _called(self, row: dict[str, Any], answer: Any) -> tuple[float | None, str]:
        took = f"{self.name} took longer than {self._timeout:g} s"
        if self._late >= MOST_LATE:
            return None, f"{took}, {self._late} times, and is not asked any more"
        loop = asyncio.get_running_loop()
        found: asyncio.Future[tuple[float | None, str]] = loop.create_future()

        def settle(verdict: tuple[float | None, str]) -> None:
            if not found.done():
                found.set_result(verdict)

        def call() -> None:
            verdict = self._verdict(row, answer)
            with contextlib.suppress(RuntimeError):  # it was late, and the loop has ended
                loop.call_soon_threadsafe(settle, verdict)

        threading.Thread(target=call, name=f"metric {self.name}", daemon=True).start()
        try:
            return await asyncio.wait_for(found, self._timeout)
        except TimeoutError:
            self._late += 1
            return None, took

    def _verdict(self, row: dict[str, Any], answer: Any) -> tuple[float | None, str]:
        try:
            value: Any = self._function(row, answer)
            reason = ""
            if isinstance(value, dict):
                value, reason = value.get("value"), str(value.get("reason", ""))[:2000]
            if value is None:
                return None, reason or f"{self.name} returned no value"
            if isinstance(value, str | bytes):
                return None, f"{self.name} returned the text {value!r:.200}, not a number in [0, 1]"
            score = float(value)
        except (Exception, SystemExit) as problem:
            return None, f"{self.name}{self._line(problem)}: {type(problem).__name__}: {problem}"[:2000]
        if not 0 <= score <= 1:
            return None, f"{self.name} returned {score}, which is not in [0, 1]"
        return score, reason

    def _line(self, problem: BaseException) -> str:
        """`:LINE` of the user's own file where it went wrong; "" where that is not in it."""
        file, frame, line = self._function.__code__.co_filename, problem.__traceback__, ""
        while frame:
            if frame.tb_frame.f_code.co_filename == file:
                line = f":{frame.tb_lineno}"
            frame = frame.tb_next
        return line
