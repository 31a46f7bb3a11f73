"""The user's own metric.py, in a child process with a time limit for each row; a failure is None, never 0."""

from __future__ import annotations

from pathlib import Path

from agent.errors import InputError
from agent.types import Example, Prediction, Score
from agent.worker import LOAD, Worker

_SCRIPT = (
    LOAD
    + r"""
path = opening
try:
    metric = load("metric", path).metric
except BaseException as problem:
    answer(None, "metric.py:" + blame(problem, path))
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
        answer(None, "metric.py:" + blame(problem, path))
"""
)


class PythonMetric:
    """`def metric(example: dict, prediction: dict) -> float | dict(value=, reason=)` in the task folder's metric.py.

    `example` has id, inputs and labels; `prediction` has fields and raw, and what was said before the reply as
    `conversation` where the model plays its part in it. A failure scores None with the reason.
    """

    def __init__(self, name: str, path: Path, timeout: float = 5.0) -> None:
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
        path = path.resolve()
        self._worker = Worker("metric.py", _SCRIPT, str(path), timeout, folder=path.parent)

    async def score(self, example: Example, prediction: Prediction) -> Score:
        if prediction.error:
            return Score(self.name, 0.0, prediction.error)
        value, reason = await self._worker.ask(
            {
                "example": {"id": example.id, "inputs": dict(example.inputs), "labels": dict(example.labels)},
                "prediction": {
                    "fields": dict(prediction.fields),
                    "raw": prediction.raw,
                    **({"conversation": prediction.conversation} if prediction.conversation else {}),
                },
            }
        )
        if value is not None and not 0 <= value <= 1:
            return Score(self.name, None, f"metric.py returned {value}, which is not in [0, 1]")
        return Score(self.name, value, reason)

    def close(self) -> None:
        """Ends the child process; a later score starts a new one."""
        self._worker.close()
