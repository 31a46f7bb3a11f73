"""Which kind of program a task needs. The user's own program is run once, to make it."""

from __future__ import annotations

from agent.programs.making import Kind
from agent.types import LM, Task


def program_for(task: Task, lm: LM) -> Kind:
    """The program that a run of this task with this target model optimizes.

    Raises InputError, naming file and line, where the user's own program cannot be made.
    """
    if task.program:
        from agent.programs.dspy import DspyProgram

        return DspyProgram(task, lm)
    from agent.programs.prompt import PromptProgram

    return PromptProgram(task, lm)
