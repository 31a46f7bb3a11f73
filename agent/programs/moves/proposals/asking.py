"""How the proposer is asked: one question or several side by side, each reply checked, each refusal written down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.errors import ModelError, RunRefused
from agent.gateway.concurrency import all_of
from agent.programs.moves.proposals.checks import sentence, why_cut, why_part_refused
from agent.programs.moves.proposals.evidence import Evidence
from agent.programs.moves.proposals.parts import Assembled
from agent.prompt.tool_texts import ToolTexts
from agent.search.context import SearchContext
from agent.search.program import Parent
from agent.types import Completion, Message, Request, Task

SENTENCE_TOKENS = 80  # of a reply of one sentence, at most
STEADY, FREE = 0.3, 0.7  # temperatures: of a sentence about rows, and of a text that may be written in many ways


Read = tuple[tuple[str, ...], str]
"""The texts of a reply that can be used, or () and the reason."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request to the proposer.

    Args:
        messages: what is sent.
        read: the texts in a reply that can be used, or () and why there is none.
        max_tokens: of the reply.
        temperature: at which it is drawn.
    """

    messages: tuple[Message, ...]
    read: Callable[[Completion], Read]
    max_tokens: int = SENTENCE_TOKENS
    temperature: float = STEADY


def one_sentence(
    messages: tuple[Message, ...],
    begins: str,
    task: Task,
    whole: Callable[[str], str] | None = None,
    why: Callable[[str], str] = lambda text: "",
) -> Question:
    """A question whose reply is one sentence that begins as the request says.

    Args:
        messages: what is sent.
        begins: the words that the request ends with.
        task: its rows and placeholders may not stand in the sentence.
        whole: makes the text that is kept of what follows `begins`; None: the sentence as it stands.
        why: says of that text why it is refused all the same, or "".
    """

    def read(reply: Completion) -> Read:
        rest = sentence(reply, begins)
        text = whole(rest) if whole else f"{begins} {rest}"
        refused = why_part_refused(f"{begins} {rest}", task, messages) if rest else f'does not begin with "{begins}"'
        refused = refused or why(text)
        return ((), refused) if refused else ((text,), "")

    return Question(messages, read)


@dataclass(frozen=True, slots=True)
class Draft:
    """An instruction, or texts of tools, that an operator made.

    Args:
        made: its parts.
        hypothesis: what it is expected to mend, in a sentence of ours without words of a model or a row: it stays where
            texts are erased.
        rows: ids of the dev rows that it is for; () for all.
        guard: ids of dev rows that were right and must stay so; with them the draft is looked at before it is tried.
        parent: the candidate that gets the instruction; None: the one that the search drew.
        alone: whether it is also tried without demos.
        claim: the proposer's own words for what it expects, or "".
    """

    made: Assembled | ToolTexts
    hypothesis: str
    rows: tuple[str, ...] = ()
    guard: tuple[str, ...] = ()
    parent: Parent | None = None
    alone: bool = False
    claim: str = ""


class Asks(Protocol):
    """What an operator asks through."""

    @property
    def left(self) -> int:
        """Calls of the proposer that may still be made."""
        ...

    async def __call__(self, questions: Sequence[Question]) -> list[tuple[str, ...]]:
        """The texts of each reply, in the order of the questions: () for one that cannot be used. Questions beyond
        `left` are not asked."""
        ...


class Operator(Protocol):
    """One thing that the proposer can be asked for."""

    @property
    def name(self) -> str:
        """What it is called in history and report."""
        ...

    def applies(self, evidence: Evidence) -> bool:
        """Whether there is anything to ask for."""
        ...

    async def make(self, evidence: Evidence, ask: Asks) -> list[Draft]:
        """What comes of it; nothing where no reply can be used."""
        ...


class Asker:
    """The `Asks` of one search and one operator."""

    def __init__(self, context: SearchContext, operator: str) -> None:
        self._context, self._operator = context, operator
        self.refused = ""
        """Why the latest reply could not be used."""

    @property
    def left(self) -> int:
        return max(0, self._context.plan.proposals - self._context.proposal_log.calls)

    async def __call__(self, questions: Sequence[Question]) -> list[tuple[str, ...]]:
        questions = questions[: self.left]
        log = self._context.proposal_log
        first, log.calls = log.calls + 1, log.calls + len(questions)
        replies = await all_of(self._sent(each, first + at) for at, each in enumerate(questions))
        return [self._read(each, reply) for each, reply in zip(questions, replies, strict=True)]

    async def _sent(self, question: Question, number: int) -> Completion | str:
        """The reply, or the error of a call that failed."""
        context = self._context
        assert context.proposer is not None
        seed = context.seed * 1000 + number
        request = Request(question.messages, question.max_tokens, temperature=question.temperature, seed=seed)
        try:
            return await context.gateway.complete("proposer", context.proposer, request)
        except RunRefused:
            raise
        except ModelError as error:
            return str(error)

    def _read(self, question: Question, reply: Completion | str) -> tuple[str, ...]:
        context, about = self._context, {"round": self._context.round, "operator": self._operator}
        if isinstance(reply, str):
            self.refused = reply
            context.note("proposal_failed", {**about, "error": reply})
            return ()
        texts, refused = ((), cut) if (cut := why_cut(reply)) else question.read(reply)
        if refused:
            self.refused = refused
            context.note("proposal_refused", {**about, "why": refused}, {"instruction": reply.text})
        return texts
