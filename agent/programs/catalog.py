"""Which kind of program a task needs. The user's own program is loaded once, to make it."""

from __future__ import annotations

from agent.programs.making import Kind
from agent.types import LM, Task


def program_for(task: Task, lm: LM) -> Kind:
    """The program that a run of this task with this target model optimizes.

    Raises InputError, naming file and line, where the user's own program cannot be made.
    """
    if task.program:
        from agent.programs.chain import ChainProgram
        from agent.programs.chain_model import chat_model
        from agent.programs.chain_parts import is_chain
        from agent.programs.dspy import DspyProgram, is_dspy
        from agent.programs.own import Own

        own = Own(task)
        made = own.made(chat_model)
        if is_dspy(made):
            return DspyProgram(task, lm, own, made)
        if is_chain(made):
            return ChainProgram(task, lm, own, made)
        raise own.wrong(f"{own.factory}() gives a {type(made).__name__}, not a dspy.Module or a LangChain Runnable")
    from agent.programs.prompt import PromptProgram

    return PromptProgram(task, lm)
