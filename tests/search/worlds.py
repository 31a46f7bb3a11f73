"""Models with a hidden skill for every prompt, and whole searches over the toy task, for the tests of the search."""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.errors import BudgetExhausted
from agent.evaluate.evaluator import Evaluator
from agent.gateway.budget import Account, HeldBack
from agent.gateway.gateway import Gateway
from agent.ledger.store import Ledger
from agent.observer import Observer, Observers
from agent.options.run import SearchOptions
from agent.programs.prompt import PromptProgram
from agent.scoring.task_metrics import build_metrics
from agent.search.context import SearchContext
from agent.search.costs import Means
from agent.search.plan import Plan, make_plan
from agent.search.program import Program
from agent.search.selection import chosen, finalists
from agent.search.trials import Trials
from agent.types import LM, Budget, Candidate, Completion, Outcome, Proposal, Request, SplitName, Task
from tests.toys import TEAMS, FakeModel, make_task, open_ledger

TASK = make_task(40)
Skill = Callable[[str], float]
Strategy = Callable[[SearchContext], Any]


def share(*words: str) -> float:
    """A number in [0, 1) that looks random and depends on the words only."""
    return int(hashlib.sha256("\0".join(words).encode()).hexdigest()[:12], 16) / 16**12


def front_and_row(request: Request) -> tuple[str, str]:
    """The prompt without the row that is asked, and the row's text: its last line that holds a note."""
    whole = "\n".join(message.content for message in request.messages)
    start = list(re.finditer(r"(train|dev|test) note \d+ on", whole))[-1].start()
    return whole[:start], whole[start:]


def any_skill(front: str) -> float:
    """Every prompt has its skill, between poor and good."""
    return 0.2 + 0.7 * share(front)


def pupil(skill: Skill = any_skill) -> Callable[[Request], str]:
    """Answers right on as many rows as the prompt is good for, always the same ones."""

    def answer(request: Request) -> str:
        front, row = front_and_row(request)
        right = row.split()[4]
        wrong = TEAMS[(TEAMS.index(right) + 1) % len(TEAMS)]
        said = right if share(front, row.split("\n")[0]) < skill(front) else wrong
        return f"Because.\nAnswer: {said}" if "step by step" in front + row else said

    return answer


class Jumbled(FakeModel):
    """Its replies come in an order that `seed` decides."""

    def __init__(self, answer: Callable[[Request], str], seed: int, name: str = "fake/m") -> None:
        super().__init__(answer, name)
        self._order = random.Random(seed)

    async def complete(self, request: Request) -> Completion:
        for _ in range(self._order.randrange(12)):
            await asyncio.sleep(0)
        return await super().complete(request)


def proposer(reply: Callable[[int], str]) -> FakeModel:
    """A model that is asked for instructions only; `reply` takes the number of the asking."""
    asked = FakeModel(lambda request: reply(len(asked.seen)), "fake/author")
    return asked


def good_words(number: int) -> str:
    return f"<instruction>Say which team deals with this note, edition {number}.</instruction>"


@dataclass
class Written(Observer):
    """What a search hands to its observer. `bought` are the outcomes as they came."""

    admitted: list[Proposal] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)
    events: list[tuple[str, Any]] = field(default_factory=list)
    bought: list[tuple[SplitName, Outcome]] = field(default_factory=list)

    def on_candidate_accepted(self, round_: int, proposal: Proposal) -> None:
        self.admitted.append(proposal)

    def on_candidate_rejected(self, round_: int, proposal: Proposal, reason: str) -> None:
        self.rejected[proposal.candidate.id] = reason

    def on_event(self, kind: str, body: Any, texts: Any = None) -> None:
        self.events.append((kind, body))

    def on_outcome_recorded(self, split: SplitName, outcome: Outcome) -> None:
        self.bought.append((split, outcome))


@dataclass
class Searched(Observer):
    """A search. `wanted` is what was asked of the context, stage by stage; `left_at` the calls that were left when a
    stage began.
    """

    written: Written
    wanted: list[tuple[str, dict[str, int]]] = field(default_factory=list)
    left_at: dict[str, int] = field(default_factory=dict)
    stop: BudgetExhausted | None = None
    context: SearchContext = field(init=False)

    def on_stage_started(self, name: str, round_: int) -> None:
        self.left_at.setdefault(name, self.context.left())

    def on_evaluation_ended(self, candidates: Sequence[str]) -> None:
        self.left_at.setdefault(self.context.stage_name, self.context.left())

    @property
    def bought(self) -> list[tuple[SplitName, Outcome]]:
        return self.written.bought

    @property
    def trials(self) -> Trials:
        return self.context.trials

    def trial_lines(self) -> list[tuple[Any, ...]]:
        return [(t.number, t.round, i, t.state, t.n, t.mean, t.reason) for i, t in self.trials.by_id.items()]


def made_search(
    ledger: Ledger,
    target: LM,
    author: LM | None = None,
    task: Task = TASK,
    budget: Budget | None = None,
    seed: int = 0,
    run_id: str = "run-1",
    graded: bool = False,
    program: Program | None = None,
) -> Searched:
    """A context over an open ledger; nothing was called yet. `graded`: log-probabilities are asked for.

    `program`: of prompts if None.
    """
    budget = budget or Budget(max_calls=400)
    plan: Plan = make_plan(task, Means(budget), author is not None)
    account, found = Account(budget), Searched(Written())
    observer = Observers(found.written, found)
    gateway = Gateway(ledger, run_id, account, {})
    program = program or PromptProgram(task, target)
    evaluator = Evaluator(task, gateway, target, build_metrics(task), [program], observer, graded)
    context = SearchContext(
        task=task,
        plan=plan,
        options=SearchOptions(seed=seed),
        program=program,
        target=target,
        proposer=author,
        gateway=gateway,
        evaluator=evaluator,
        account=account,
        observer=observer,
        trials=Trials(),
        baseline=program.baseline(),
    )
    found.context = context
    account.hold_back(HeldBack(plan.test_calls, plan.test_share))
    see_all = context.see_all

    async def noted(wanted: Mapping[str, int]) -> list[str]:
        found.wanted.append((context.stage_name, dict(wanted)))
        return await see_all(wanted)

    context.see_all = noted  # type: ignore[method-assign]
    return found


def winner_of(context: SearchContext) -> Candidate:
    """The candidate that would meet the sealed test."""
    return chosen(context, finalists(context, None, {}), "best")


async def with_baseline(found: Searched) -> None:
    """Trial 0, as a run makes it."""
    context = found.context
    context.adopt(Proposal(context.baseline, {}, "baseline", None, "the user's own prompt"))
    await context.see([context.baseline.id], len(context.dev))
    context.trials.settle(context.baseline.id, "complete", "the user's own prompt")


async def searched(folder: Path, strategy: Strategy, target: LM, author: LM | None = None, **more: Any) -> Searched:
    """The whole search after a baseline that saw dev."""
    folder.mkdir(exist_ok=True)
    ledger = open_ledger(folder / "ledger.db")
    found = made_search(ledger, target, author, **more)
    try:
        await with_baseline(found)
        await strategy(found.context)
    except BudgetExhausted as stop:
        found.stop = stop
    finally:
        await found.context.gateway.drain()
        ledger.close()
    return found
