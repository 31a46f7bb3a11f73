"""Which strategies there are, by the name that the command line takes. Each is loaded only when it is used."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from agent.errors import InputError
from agent.prompt.template import marks
from agent.search.lab import Lab
from agent.types import Task

Strategy = Callable[[Lab], Coroutine[Any, Any, None]]

DEFAULT = "bayes"
DSPY = ("dspy-mipro", "dspy-gepa", "dspy-bootstrap")
FOR_PROGRAMS = DSPY[0]
NAMES = (DEFAULT, *DSPY)
OF_PREDICT = ("config", "demos", "lm", "signature")
"""What `dspy.Predict` takes out of its arguments."""


def strategy(name: str) -> Strategy:
    """The search of that name. Raises InputError for a name that is none of NAMES."""
    if name in DSPY:
        from agent.search import dspy_strategies

        return partial(dspy_strategies.search, method=name)
    if name != DEFAULT:
        raise InputError(f"--strategy {name}: there are {', '.join(NAMES)}")
    from agent.search import bayes

    return bayes.search


def strategy_for(name: str | None, task: Task) -> str:
    """The name itself, or the default for the task. Raises InputError where that strategy cannot work on this task."""
    if name is None:
        name = FOR_PROGRAMS if task.program else DEFAULT
    if name not in DSPY:
        if task.program:
            raise InputError(f"--strategy {name}: a DSPy program takes {', '.join(DSPY)}")
        return name
    if task.is_compared:
        other = 'give the judge mode = "rubric"' + ("" if task.program else f", or use --strategy {DEFAULT}")
        raise InputError(
            f"--strategy {name}: the pairwise judge of {task.name} compares with your own prompt's answers, which DSPy "
            f"does not have on the rows that it learns from; {other}"
        )
    names = [field.name for field in task.signature.inputs]
    if task.program:
        return name
    if taken := [one for one in names if one in OF_PREDICT]:
        raise InputError(
            f"--strategy {name}: DSPy takes an input called {taken[0]} for its own; rename it, or use --strategy "
            f"{DEFAULT}"
        )
    if marks(task.instruction, names):
        raise InputError(
            f"--strategy {name}: DSPy lays out the inputs by itself, and the instruction of {task.name} has places for "
            f"them ({{{{{names[0]}}}}}); write it without, or use --strategy {DEFAULT}"
        )
    return name
