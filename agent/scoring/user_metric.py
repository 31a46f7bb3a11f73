"""The user's own metric.py, in a child process with a time limit per row. Knows rows and predictions, never a model.

What goes wrong there is None with the reason, never 0.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from agent.errors import InputError
from agent.types import Example, Prediction, Score

Verdict = tuple[float | None, str]

_WORKER = r"""
import json, os, sys, types
pipe_in, pipe_out = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w")
nowhere = os.open(os.devnull, os.O_RDWR)
os.dup2(nowhere, 0); os.dup2(nowhere, 1)

def answer(value, reason):
    pipe_out.write(json.dumps([value, str(reason)[:2000]]) + "\n")
    pipe_out.flush()

def blame(problem):
    lines, frame = [0], problem.__traceback__
    while frame:
        if frame.tb_frame.f_code.co_filename == path:
            lines.append(frame.tb_lineno)
        frame = frame.tb_next
    return f"metric.py:{lines[-1]}: {type(problem).__name__}: {problem}"

path = sys.argv[1]
try:
    module = sys.modules["metric"] = types.ModuleType("metric")
    module.__file__ = path
    with open(path, "rb") as source:
        exec(compile(source.read(), path, "exec"), module.__dict__)
    metric = module.metric
except BaseException as problem:
    answer(None, blame(problem))
    sys.exit(1)
answer(1, "ready")
for line in pipe_in:
    try:
        value, reason = metric(**json.loads(line)), ""
        if isinstance(value, dict):
            value, reason = value.get("value"), value.get("reason", "")
        if value is None:
            answer(None, reason or "metric.py returned no value")
        elif isinstance(value, (str, bytes)):
            answer(None, f"metric.py returned the text {value!r}, not a number in [0, 1]")
        else:
            answer(float(value), reason)
    except Exception as problem:
        answer(None, blame(problem))
"""


class PythonMetric:
    """`def metric(example: dict, prediction: dict) -> float | dict(value=, reason=)` in the task folder's metric.py.

    `example` has id, inputs and labels; `prediction` has fields and raw. It runs in one child process that speaks JSON
    lines over pipes, sees no environment but PATH, and is started anew after a timeout or a crash. Whatever goes wrong
    there is Score(value=None) with the reason. Rows are scored one after another, off the event loop.
    """

    def __init__(self, name: str, path: Path, timeout: float = 5.0, start_timeout: float = 60.0) -> None:
        """Raises InputError when the file is missing, does not compile or does not name a `metric`."""
        try:
            code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
        except OSError as problem:
            raise InputError(f"{path}: cannot be read ({problem.strerror}); metric python needs this file") from problem
        except (SyntaxError, ValueError) as problem:
            line = getattr(problem, "lineno", None) or 1
            raise InputError(f"{path}:{line}: {getattr(problem, 'msg', problem)}") from problem
        if "metric" not in code.co_names:
            raise InputError(f"{path}:1: no function `metric`; write `def metric(example, prediction):`")
        self.name = name
        self._path, self._timeout, self._start_timeout = path, timeout, start_timeout
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="metric.py")
        self._worker: subprocess.Popen[str] | None = None
        self._end: Callable[[], object] | None = None
        self._broken = ""

    async def score(self, example: Example, prediction: Prediction) -> Score:
        if prediction.error:
            return Score(self.name, 0.0, prediction.error)
        row = {
            "example": {"id": example.id, "inputs": dict(example.inputs), "labels": dict(example.labels)},
            "prediction": {"fields": dict(prediction.fields), "raw": prediction.raw},
        }
        line = json.dumps(row, default=str) + "\n"
        value, reason = await asyncio.get_running_loop().run_in_executor(self._pool, self._judge, line)
        return Score(self.name, value, reason)

    def close(self) -> None:
        """Ends the child process; a later score starts a new one. Also happens when the metric is let go."""
        self._worker = None
        if self._end is not None:
            self._end()

    def _judge(self, line: str) -> Verdict:
        if self._worker is None and not self._broken:
            self._start()
        if self._worker is None:
            return None, self._broken
        value, reason = self._exchange(self._worker, line, self._timeout)
        if value is not None and not 0 <= value <= 1:
            return None, f"metric.py returned {value}, which is not in [0, 1]"
        return value, reason

    def _start(self) -> None:
        self._worker = subprocess.Popen(
            [sys.executable, "-I", "-X", "utf8", "-c", _WORKER, str(self._path.resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            cwd=self._path.resolve().parent,
            env={name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "TMPDIR", "TEMP") if name in os.environ},
            start_new_session=True,
        )
        self._end = weakref.finalize(self, _stop, self._worker)
        ready, reason = self._exchange(self._worker, "", self._start_timeout)
        if ready is None:
            self.close()
            self._broken = f"metric.py cannot be loaded: {reason}"

    def _exchange(self, worker: subprocess.Popen[str], line: str, timeout: float) -> Verdict:
        """Send one line and read the answer; the process group is killed when the time is up."""
        assert worker.stdin is not None
        assert worker.stdout is not None
        late = threading.Event()

        def give_up() -> None:
            late.set()
            _kill(worker)

        timer = threading.Timer(timeout, give_up)
        timer.start()
        try:
            worker.stdin.write(line)
            worker.stdin.flush()
            value, reason = json.loads(worker.stdout.readline())
            verdict: Verdict = (value, reason)
        except (OSError, ValueError, TypeError):
            verdict = None, ""
        finally:
            timer.cancel()
            timer.join()
        if late.is_set() or verdict == (None, ""):
            self.close()
            ended = f"metric.py ended with exit code {worker.returncode}"
            return None, f"metric.py took longer than {timeout:g} s" if late.is_set() else ended
        return verdict


def _kill(worker: subprocess.Popen[str]) -> None:
    """Kill the worker and what it started; harmless when it has ended."""
    if worker.poll() is None:
        try:
            os.killpg(worker.pid, 9) if hasattr(os, "killpg") else worker.kill()
        except OSError:
            worker.kill()


def _stop(worker: subprocess.Popen[str]) -> None:
    """End the worker and close its pipes; may be called twice."""
    _kill(worker)
    worker.wait()
    for pipe in (worker.stdin, worker.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:
                continue
