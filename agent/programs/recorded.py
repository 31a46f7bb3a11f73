"""Recorded answers as an arm: replays a suite, a log or the ledger without calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.evaluate.score_table import Arm, NamedCandidate, ScoreTable
from agent.ledger.query import Row
from agent.prompt.template import label_text
from agent.release.production_logs import AS_THEY_ARE, fraction, optional, read_lines, required, time_of
from agent.release.suite import RECORDED, Suite
from agent.release.texts import Loaded, Texts
from agent.safe_text import quoted
from agent.types import Candidate, Example, Outcome, Prediction, Score, SplitName


class Recorded:
    """Replays answers by row id. `notes`: skipped lines of a log; `times`: of its answers, ascending."""

    def __init__(
        self,
        rows: Sequence[Example],
        answers: Mapping[str, Sequence[Outcome]],
        notes: Sequence[str] = (),
        times: Sequence[str] = (),
    ) -> None:
        self.rows, self.answers, self.notes, self.times = rows, answers, tuple(notes), times

    @classmethod
    def of_suite(cls, suite: Suite, prompt: Loaded) -> Recorded:
        """Replay a suite, parsing replies as the prompt does today."""
        ids = [row.id for row in suite.rows]
        return cls(suite.rows, dict(zip(ids, suite.recorded(prompt), strict=True)))

    @classmethod
    def of_ledger(cls, candidate_id: str, found: Sequence[Row]) -> Recorded:
        """Replay the outcomes of a candidate from `History.outcomes`."""
        return cls((), {each["example_id"]: [_outcome(candidate_id, each)] for each in found})

    @classmethod
    def of_log(cls, path: Path, prompt: Loaded, columns: Mapping[str, str] = AS_THEY_ARE) -> Recorded:
        """Replay a .jsonl or .csv log; `columns`: renamed keys. Raises ProblemsError if half cannot be read."""
        found, notes = read_lines(path, lambda row: _logged(row, prompt, columns), '{"reply": ...}')
        rows = [replace(row, id=f"{path}:{line}") for line, (row, _, _) in found]
        answers = {row.id: [replace(one, example_id=row.id)] for row, (_, (_, one, _)) in zip(rows, found, strict=True)}
        return cls(rows, answers, notes, sorted(time for _, (_, _, time) in found if time))

    @property
    def passes(self) -> list[list[Outcome]]:
        every = self.answers.values()
        return [[each[at] for each in every if at < len(each)] for at in range(max(map(len, every), default=0))]

    def arm(self, name: str) -> Arm:
        """Return this as an arm, with as many repeats as were recorded."""
        return Arm(name, NamedCandidate(name), self, repeats=len(self.passes))

    async def outcomes(
        self, candidate: Candidate, examples: Sequence[Example], split: SplitName, repeat: int = 0
    ) -> list[Outcome]:
        """Return the recorded answers of a repeat; an unanswered row has no score."""
        found = []
        for row in examples:
            each = self.answers.get(row.id, ())
            if repeat < len(each):
                found.append(each[repeat])
            elif not each and repeat == 0:
                found.append(Outcome(candidate.id, row.id, Prediction({}, "", "not recorded"), (), None))
        return found


def replayed(arms: Mapping[str, Recorded]) -> ScoreTable:
    """Build a table of recorded arms, each on its own rows."""
    rows = [row for arm in arms.values() for row in arm.rows]
    return ScoreTable.of({name: arm.passes for name, arm in arms.items()}, rows)


def _outcome(candidate_id: str, found: Row) -> Outcome:
    scores = tuple(Score(*score) for score in found["scores"])
    prediction = Prediction(found["fields"], found["reply"], found["error"])
    return Outcome(candidate_id, found["example_id"], prediction, scores, found["value"], found["call_key"])


def _logged(row: Mapping[str, Any], prompt: Loaded, columns: Mapping[str, str]) -> tuple[Example, Outcome, str]:
    reply = required(row, "reply", columns)
    if isinstance(prompt, Texts):  # a program may answer with an object
        reply = label_text(reply)
    if not isinstance(reply, str):
        raise ValueError(f"reply: {quoted(reply)} is not a text; write what the model answered")
    score, confidence = (_share(name, optional(row, name, columns)) for name in ("score", "confidence"))
    inputs = optional(row, "inputs", columns)
    time = time_of(optional(row, "time", columns))
    prediction = replace(prompt.parse(reply), confidence=confidence)
    return Example("", {"inputs": inputs} if inputs else {}, {}), Outcome("", "", prediction, (), score, RECORDED), time


def _share(name: str, value: Any) -> float | None:
    if isinstance(value, bool):
        raise ValueError(f"{name}: {value} is not a number from 0 to 1")
    return None if value is None else fraction(name, value)
