"""A kind of candidate that a run searches and releases, and which kinds of users' own programs there are.

A kind of program is one class that registers itself; what `program` in task.toml makes says which kind runs it:

    @program("wording", about="...", takes="a Wordings", claims=lambda made: isinstance(made, Wordings))
    class WordingProgram(Kind):
        def __init__(self, task: Task, lm: LM, own: UserProgram, made: Any) -> None: ...

It is made once for a run; `made` is what the user's factory gave, and `own.wrong(...)` the error that names
the factory's file and line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from agent.errors import InputError
from agent.evaluate.evaluator import Evaluator
from agent.registry import Registry
from agent.release.result import RunResult
from agent.search.program import Program
from agent.types import LM, Candidate, Example, Task

if TYPE_CHECKING:
    from agent.programs.user_program import UserProgram


@dataclass(frozen=True, slots=True)
class ReleaseSpec:
    """A release to be written.

    `trial`: the number of the candidate's trial. `parameters`: those that it was scored with. `origin`: tool and
    created_utc. `evaluator` and `rows` of the sealed test prove that what was written does the same.
    """

    result: RunResult
    trial: int
    parameters: Mapping[str, Any]
    origin: Mapping[str, str]
    folder: Path
    evaluator: Evaluator
    rows: Sequence[Example]


@dataclass(frozen=True, slots=True)
class WrittenRelease:
    """A release on the disk: its main file, and the hash of its content."""

    path: Path
    version: str


class Kind(Program, Protocol):
    """A kind of candidate that can be run, searched and released."""

    async def write(self, candidate: Candidate, spec: ReleaseSpec) -> WrittenRelease:
        """Writes the release and proves it. Raises ReleaseError when what was written is not what was scored."""
        ...


def refuse_pairwise(task: Task, strategy: str, otherwise: str = "") -> None:
    """Raise InputError where a pairwise judge compares, which DSPy's optimizers cannot serve."""
    if task.is_compared:
        raise InputError(
            f"--strategy {strategy}: the pairwise judge of {task.name} compares with your own prompt's answers, which "
            f'DSPy does not have on the rows that it learns from; give the judge mode = "rubric"{otherwise}'
        )


# -- the registry -----------------------------------------------------------------------------------------------------

Make = Callable[[Task, LM, "UserProgram", Any], Kind]
Made = TypeVar("Made", bound=Make)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramKind:
    """A registered kind of program: `takes` is what it takes, in words; `claims`, whether what a factory gave is of
    this kind, and imports nothing for that."""

    name: str
    about: str
    takes: str
    claims: Callable[[Any], bool]
    make: Make


PROGRAMS: Registry[ProgramKind] = Registry(
    "kind of program", "promptassay.programs", {"dspy": "agent.programs.dspy", "chain": "agent.programs.chain"}
)


def program(name: str, *, about: str, takes: str, claims: Callable[[Any], bool]) -> Callable[[Made], Made]:
    """Register the class below as the kind `name`; see `ProgramKind`."""

    def register(make: Made) -> Made:
        PROGRAMS.add(name, ProgramKind(name=name, about=about, takes=takes, claims=claims, make=make), make.__module__)
        return make

    return register


def program_for(task: Task, lm: LM, user: LM | None = None) -> Kind:
    """The program that a run of this task with this target model optimizes.

    A program of the user is of the first kind that claims it: ours, then those of other packages. `user` is the model
    that plays the user, where the task names one. Raises InputError, naming file and line, where it cannot be made.
    """
    if task.user is not None:
        from agent.programs.conversation import ConversationProgram

        return ConversationProgram(task, lm, user)
    if not task.program:
        from agent.programs.prompt import PromptProgram

        return PromptProgram(task, lm)
    from agent.programs.chain_model import chat_model
    from agent.programs.user_program import UserProgram

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
