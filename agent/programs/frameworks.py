"""The kinds `dspy` and `chain`: either library is loaded only by a user's program of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from agent.programs.kinds import Kind, UserProgram, program
from agent.types import LM, Task


def _is_a(module: str, name: str) -> Callable[[Any], bool]:
    # the user's factory cannot give one while its module is not loaded
    return lambda made: (loaded := sys.modules.get(module)) is not None and isinstance(made, getattr(loaded, name))


@program("dspy", about="Your own DSPy program.", takes="a dspy.Module", claims=_is_a("dspy", "Module"))
def dspy_program(task: Task, lm: LM, own: UserProgram, made: Any) -> Kind:
    """Run a DSPy program."""
    from agent.programs.dspy import DspyProgram

    return DspyProgram(task, lm, own, made)


@program(
    "chain",
    about="Your own LangChain chain.",
    takes="a LangChain Runnable",
    claims=_is_a("langchain_core.runnables", "Runnable"),
)
def chain_program(task: Task, lm: LM, own: UserProgram, made: Any) -> Kind:
    """Run a LangChain chain."""
    from agent.programs.chain import ChainProgram

    return ChainProgram(task, lm, own, made)  # type: ignore[abstract]  # DSPy's optimizers do not support it
