"""The kind of program `wording`: the words before a row, out of those that the user would ship."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from agent.errors import ReleaseError
from agent.programs.kinds import Kind, ReleaseSpec, UserProgram, WrittenRelease, program
from agent.prompt.reply_parser import parse_reply
from agent.search.context import SearchContext
from agent.search.program import Parent
from agent.types import LM, Call, Candidate, Example, Message, Prediction, Proposal, Request, Summary, Task, content_id

FILE = "wording.json"


class Wordings:
    """What a user's factory gives: their own words of today, then others."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts


@dataclass(frozen=True, slots=True)
class WordingCandidate(Candidate):
    kind: ClassVar[str] = "wording"

    text: str

    def parts(self) -> dict[str, Any]:
        return {"text": self.text}


def words_of(candidate: Candidate) -> str:
    assert isinstance(candidate, WordingCandidate)
    return candidate.text


@program("wording", about="One of several wordings.", takes="Wordings", claims=lambda made: isinstance(made, Wordings))
class WordingProgram(Kind):
    kind = WordingCandidate.kind
    calls = 1
    is_fixed = True

    def __init__(self, task: Task, lm: LM, own: UserProgram, made: Any) -> None:
        if not made.texts:
            raise own.wrong(f"{own.factory}() gives no wording; give the one of today first")
        self.task, self._lm, self._texts = task, lm, made.texts

    async def run(self, candidate: Candidate, example: Example, call: Call, repeat: int = 0) -> Prediction:
        message = Message("user", f"{words_of(candidate)}\n\n" + "\n".join(example.inputs.values()))
        reply = await call(Request((message,), self.max_tokens(candidate), repeat=repeat))
        return parse_reply(reply.text, self.task.signature.outputs)

    def baseline(self) -> Candidate:
        return WordingCandidate(self._texts[0])

    def check(self, candidate: Candidate) -> str:
        return ""

    def place(self, candidate: Candidate) -> dict[str, str]:
        return {"wording": str(self._texts.index(words_of(candidate)))}

    def shown(self, candidate: Candidate) -> Summary:
        return Summary(candidate.id, "program", self.kind, words_of(candidate))

    def template(self, candidate: Candidate) -> tuple[Message, ...]:
        inputs = "\n".join(f"{{{{{field.name}}}}}" for field in self.task.signature.inputs)
        return (Message("user", f"{words_of(candidate)}\n\n{inputs}"),)

    def prompt_tokens(self, candidate: Candidate) -> int:
        return self._lm.count_tokens(words_of(candidate))

    def max_tokens(self, candidate: Candidate) -> int:
        return self.task.max_tokens or 50

    def moves(self, context: SearchContext) -> WordingMoves:
        return WordingMoves(self._texts)

    async def write(self, candidate: Candidate, spec: ReleaseSpec) -> WrittenRelease:
        text, path = words_of(candidate), spec.folder / FILE
        spec.folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"text": text}), "utf-8")
        if json.loads(path.read_text("utf-8"))["text"] != text:
            raise ReleaseError(f"{path}: reads back another text than was written")
        return WrittenRelease(path, content_id("v", text))


class WordingMoves:
    """Every wording is a design; nothing is made out of another."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts

    def designs(self) -> list[Proposal]:
        return [proposal for number in range(1, len(self._texts)) if (proposal := self.fresh({"wording": str(number)}))]

    def space(self) -> dict[str, tuple[str, ...]]:
        return {"wording": tuple(map(str, range(len(self._texts))))}

    def fresh(self, place: Mapping[str, str]) -> Proposal | None:
        candidate = WordingCandidate(self._texts[int(place["wording"])])
        return Proposal(candidate, dict(place), "design", None, "one of the user's wordings")

    def operators(self, parent: Parent | None) -> list[str]:
        return []

    def due(self, parent: Parent | None) -> str:
        return ""

    async def made(self, operator: str, parent: Parent | None, parents: Sequence[Parent]) -> list[Proposal]:
        return []

    async def warmed(self, rows: int) -> None:
        return None
