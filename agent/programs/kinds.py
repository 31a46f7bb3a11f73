"""Which kinds of programs of a user's own there are. What `program` in task.toml makes says which of them it is.

A kind is one class that registers itself:

    @program("wording", about="...", takes="a Wordings", claims=lambda made: isinstance(made, Wordings))
    class WordingProgram:
        def __init__(self, task: Task, lm: LM, own: UserProgram, made: Any) -> None: ...

It is a `Kind` (`kind.py`), made once for a run; `made` is what the user's factory gave, and `own.wrong(...)` the
error that names the factory's file and line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from agent.programs.kind import Kind
from agent.programs.user_program import UserProgram
from agent.registry import Registry
from agent.types import LM, Task

Make = Callable[[Task, LM, UserProgram, Any], Kind]
Made = TypeVar("Made", bound=Make)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramKind:
    """A registered kind. `claims` says whether what a factory gave is its own, and imports nothing for that; `takes` is
    what it takes, in words."""

    name: str
    about: str
    takes: str
    claims: Callable[[Any], bool]
    make: Make


PROGRAMS: Registry[ProgramKind] = Registry(
    "kind of program",
    "promptassay.programs",
    {"dspy": "agent.programs.dspy", "chain": "agent.programs.chain"},
)


def program(name: str, *, about: str, takes: str, claims: Callable[[Any], bool]) -> Callable[[Made], Made]:
    """Registers the class below as the kind `name`; see `ProgramKind`."""

    def register(make: Made) -> Made:
        PROGRAMS.add(name, ProgramKind(name=name, about=about, takes=takes, claims=claims, make=make), make.__module__)
        return make

    return register


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

    own = UserProgram(task)
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
