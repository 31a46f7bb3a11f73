"""Which kind of program a task needs. The user's own program is loaded once, to make it."""

from __future__ import annotations

from agent.programs.kind import Kind
from agent.types import LM, Task


def program_for(task: Task, lm: LM) -> Kind:
    """The program that a run of this task with this target model optimizes.

    Raises InputError, naming file and line, where the user's own program cannot be made.
    """
    if task.program:
        return _own_program(task, lm)
    from agent.programs.prompt import PromptProgram

    return PromptProgram(task, lm)


def _own_program(task: Task, lm: LM) -> Kind:
    """The first kind that claims what the user's factory gives: ours, then those of other packages."""
    from agent.programs.chain_model import chat_model
    from agent.programs.kinds import PROGRAMS
    from agent.programs.user_program import Own

    own = Own(task)
    made = own.made(chat_model)
    takes, faults = [], []
    for one in PROGRAMS.all():
        if one.thing is None:
            faults.append(f"; {one.fault}")
        elif one.thing.claims(made):
            return one.thing.make(task, lm, own, made)
        else:
            takes.append(one.thing.takes)
    raise own.wrong(f"{own.factory}() gives a {type(made).__name__}, not {' or '.join(takes)}{''.join(faults)}")
