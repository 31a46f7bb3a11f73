"""Moves for named texts: changes of one, chosen by where failures show, and merges of good candidates."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.programs.moves.agent_operators import OPERATORS, TextToChange, difference
from agent.programs.moves.asking import MAX_CHARACTERS, Asker, Draft, replies_to
from agent.programs.moves.evidence import (
    PERFECT,
    Assembled,
    Wrong,
    best_instructions,
    inputs_of,
    labels_of,
    line_of,
    wrong_rows,
)
from agent.programs.moves.prompt_moves import TextMoves, at, coordinate
from agent.programs.moves.prompt_parts import shorter_texts
from agent.programs.moves.proposer import GOOD, is_worth_trying
from agent.prompt.named_texts import as_texts
from agent.prompt.techniques import Rewrite
from agent.search.context import SearchContext
from agent.search.program import PROPOSED, Parent
from agent.search.study import Place
from agent.types import Candidate, Outcome, Proposal

if TYPE_CHECKING:
    from agent.programs.kinds import UserKind

OWN = "own"
BY_CREDIT = {f"{PROPOSED}:{operator.name}": operator for operator in OPERATORS}
SHOWN, GUARDED = 3, 2  # wrong rows that are shown and looked at before a trial, and right ones that must stay so
MOST_WAITING = 3  # candidates that wait for a trial, before a further one is asked for
LEAST = 0.25  # of the largest weight: that of a text that was never changed
SMALL = 1e-3  # the weight of a text without failures
MOST_OF_A_TRACE = 1000  # letters
PRIOR_ROWS = 2  # rows without a gain that each change is given
PARTS = re.compile(r"(?m)^#.*(?:\n(?!#).*)*+"), re.compile(r"(?:.++\n?)++")
"""A section below a heading, and a paragraph: what is cut from a long text."""


@dataclass(frozen=True, slots=True)
class ScoredChange:
    """A change of one text; `gain`: the shrunk mean over the rows that the text took part in."""

    name: str
    before: str
    after: str
    gain: float = 0.0

    @property
    def is_lost(self) -> bool:
        return self.gain < 0 or (self.gain == 0 and len(self.after) >= len(self.before))


class Failures:
    """The rollouts of a search's candidates, by the texts that took part in them."""

    def __init__(self, context: SearchContext, program: UserKind) -> None:
        self._context, self._program = context, program

    def _took_part(self, candidate_id: str, row_id: str, name: str) -> bool:
        seen = self._program.trace(candidate_id, row_id).took_part
        return not seen or name in seen

    def rollouts(self, parent: Parent, name: str) -> list[tuple[Outcome, bool]]:
        """Return the scored rollouts of a text, and whether a step of it went wrong."""
        found, candidate_id = [], parent.proposal.candidate.id
        for outcome in parent.outcomes:
            if outcome.value is not None and self._took_part(candidate_id, outcome.example_id, name):
                found.append((outcome, name in self._program.trace(candidate_id, outcome.example_id).at_fault))
        return found

    def weight(self, parent: Parent, name: str) -> float:
        """Weigh a text by the score (twice where its step went wrong) and share lost."""
        known = [(outcome.value or 0.0, erred) for outcome, erred in self.rollouts(parent, name)]
        lost = math.fsum((1.0 - value) * (1 + erred) for value, erred in known)
        return lost * lost / (lost + math.fsum(value for value, _ in known)) if lost else 0.0

    def wrong(self, parent: Parent, name: str) -> list[Wrong]:
        """Return the wrong rows of a text, first those where a step of it failed.

        All are returned for a text that was never seen: agents may write a text in another way.
        """
        ordered = sorted(self.rollouts(parent, name), key=lambda rollout: not rollout[1])
        return wrong_rows(self._context.dev, [outcome for outcome, _ in ordered] or parent.outcomes)

    def right(self, parent: Parent, name: str) -> list[str]:
        return [outcome.example_id for outcome, _ in self.rollouts(parent, name) if (outcome.value or 0.0) >= PERFECT]

    def shown(self, parent: Parent, wrong: Wrong) -> str:
        """Show what the program did on a row, the right answer and the metrics' reasons."""
        trace, said = self._program.trace(parent.proposal.candidate.id, wrong.row.id), wrong.outcome.prediction
        did, third = trace.text or inputs_of(wrong.row), MOST_OF_A_TRACE // 3
        if len(did) > MOST_OF_A_TRACE:  # of a long one the beginning is shown, and more of the end
            did = f"{did[:third]} [...] {did[-2 * third :]}"
        reasons = dict.fromkeys(score.reason for score in wrong.outcome.scores if (score.value or 0.0) < PERFECT)
        why = "; ".join(filter(None, reasons)) or said.error
        told = {"answer": said.raw, "right answer": labels_of(wrong.row), "why": why}
        return "\n".join([did, *(f"{name}: {line_of(text)}" for name, text in told.items() if text)])

    def changes(self) -> Iterator[ScoredChange]:
        """Compare each candidate that changes one text with its parent, on rows of both."""
        trials, baseline = self._context.trials, self._context.baseline.id
        for candidate_id, outcomes in trials.outcomes.items():
            parent_id = trials.proposals[candidate_id].parent_id or baseline
            old, new = (as_texts(trials.candidate(each)) for each in (parent_id, candidate_id))
            names = new.changed(old)
            if len(names) == 1 and new.examples == old.examples:
                gains = [
                    after.value - before.value
                    for before, after in zip(trials.outcomes.get(parent_id, ()), outcomes, strict=False)
                    if before.value is not None and after.value is not None
                    if any(self._took_part(each, after.example_id, names[0]) for each in (parent_id, candidate_id))
                ]
                gain = math.fsum(gains) / (len(gains) + PRIOR_ROWS)
                yield ScoredChange(names[0], old.texts[names[0]], new.texts[names[0]], gain)


class NamedTextMoves(TextMoves):
    """Makes the candidates of one run; the same seed makes the same ones."""

    def __init__(self, context: SearchContext, program: UserKind) -> None:
        texts = {name: [Rewrite(OWN, text, "the user's words")] for name, text in program.baseline().texts.items()}
        super().__init__(context.task, context.rng, context.choices, texts)
        self._context, self._program, self._failures = context, program, Failures(context, program)
        self._asked, self._refused = Counter[str](), Counter[str]()  # by operator, and by text
        self._dropped, self._known = list[ScoredChange](), set(program.baseline().texts.items())
        self._kept = list[str]()  # ids of candidates that passed the looks

    def text_of(self, candidate: Candidate, name: str) -> str:
        return as_texts(candidate).texts[name]

    def with_text(self, candidate: Candidate, name: str, text: str) -> Candidate:
        return as_texts(candidate).with_text(name, text)

    def designs(self) -> list[Proposal]:
        references = [Proposal(made, {}, name, None, name) for name, made in self._program.references().items()]
        return [*references, *super().designs()]

    def places(self) -> Sequence[Place]:
        return ()

    def fresh(self, place: Place) -> Proposal | None:
        """Combine texts that were written before."""
        made: Candidate = self._program.baseline()
        texts = [(name, self.text_at(name, place[coordinate(name)])) for name in self.texts]
        taken = [(name, text) for name, text in texts if text.operator != OWN]
        for name, text in taken:
            made = self.with_text(made, name, text.instruction)
        reason = "; ".join(at(name, text.reason) for name, text in taken)
        operator = "+".join(at(name, text.operator) for name, text in taken)
        return Proposal(made, dict(place), operator, None, reason) if taken else None

    def operators(self, parent: Parent | None) -> list[str]:
        if parent is None:
            return []
        is_own = parent.proposal.candidate.id == self._context.baseline.id
        operators = ["compress"] * (not is_own or self._context.proposer is None)  # first what raises the score
        operators += ["instruction"] * any(len(texts) > 1 for texts in self.texts.values())
        operators += ["merge"] * bool(self._merges(parent))
        return operators + [credit for credit in BY_CREDIT if self._changeable(credit, parent)]

    def due(self, parent: Parent | None) -> str:
        """Request each kind of change once that may raise the score."""
        unused = [credit for credit, operator in BY_CREDIT.items() if operator.may_gain and not self._asked[credit]]
        return next((credit for credit in unused if parent is not None and self._changeable(credit, parent)), "")

    async def made(self, operator: str, parent: Parent | None, parents: Sequence[Parent]) -> list[Proposal]:
        assert parent is not None
        if operator in BY_CREDIT:
            for _ in self.texts:  # most changes of a text without a fault are dropped at once
                if (changed := await self._proposed(operator, parent)) is not None:
                    return [changed]
            return []
        if operator == "merge":
            merges = self._merges(parent)
            return [self._rng.choice(merges)] if merges else []
        made = self.reworded(parent) if operator == "instruction" else self._compressed(parent)
        return [made] if made is not None else []

    async def warmed(self, rows: int) -> None:
        return None

    # -- the proposer --------------------------------------------------------------------------------------------------

    def _changeable(self, credit: str, parent: Parent) -> list[str]:
        """Return the texts that an operator can change now."""
        context, operator = self._context, BY_CREDIT[credit]
        if context.proposer is None or context.proposal_log.calls >= context.plan.proposals or not self._has_room():
            return []
        fitting = [name for name in self.texts if operator.fits(self.text_of(parent.proposal.candidate, name))]
        return [name for name in fitting if not operator.may_gain or self._failures.wrong(parent, name)]

    def _has_room(self) -> bool:
        """Return whether a further look leaves the calls of the trials that wait."""
        context = self._context
        waiting = sum(candidate_id not in context.trials.by_id for candidate_id in self._kept)
        left = min(context.left_by_calls() - context.plan.kept_rows, context.payable())
        needed = (waiting + 1) * context.plan.rungs[0] + SHOWN + GUARDED
        return waiting < MOST_WAITING and left >= needed

    def _changes(self) -> list[ScoredChange]:
        return [*self._failures.changes(), *self._dropped]

    def _drawn(self, names: Sequence[str], parent: Parent) -> str:
        """Draw a text by its failures, and less after changes that were lost."""
        lost, won = Counter(self._refused), Counter[str]()
        for change in self._changes():
            (lost if change.is_lost else won)[change.name] += 1
        weights = {name: self._failures.weight(parent, name) for name in names}
        least = LEAST * max(weights.values()) + SMALL
        for name in names:
            tried = lost[name] + won[name]
            weights[name] = weights[name] * (1 + won[name]) / (1 + tried) if tried else max(weights[name], least)
        return self._rng.choices(names, [weights[name] + SMALL for name in names])[0]

    async def _proposed(self, credit: str, parent: Parent) -> Proposal | None:
        """Request a change of one text, and look whether it mends its rows."""
        names, operator, context = self._changeable(credit, parent), BY_CREDIT[credit], self._context
        if not names:
            return None
        name, old = self._drawn(names, parent), parent.proposal.candidate
        rows = self._rows(name, parent) if operator.may_gain else []
        about, asker = self._about(credit, name, parent, rows), Asker(context, operator.name)
        self._asked[credit] += 1
        text = next(iter(await replies_to(asker, operator.question(about))), "")
        is_known = (name, text) in self._known
        if text and (why := "was tried before" if is_known else self._program.check(self.with_text(old, name, text))):
            asker.refuse(text, why)
        if asker.refused or not text:
            self._refused[name] += 1
            context.proposal_log.open(operator.name, refused=asker.refused or "no reply", parent_id=old.id)
            return None
        self._known.add((name, text))
        ids = tuple(wrong.row.id for wrong in rows)
        hypothesis = f"{at(name, operator.about)}{f', from {len(ids)} rollouts that went wrong' if ids else ''}"
        texts = {"instruction": text, "claim": difference(about.text, text)}
        number = asker.noted(texts, hypothesis, ids, old.id)
        rewrite = Rewrite(number, text, operator.about, credit=credit)
        proposal, right = self.instructed(parent, rewrite, name), self._failures.right(parent, name)
        guard = tuple(self._rng.sample(right, min(GUARDED, len(right))))
        for first, more in ((ids[:1], ids[1:]), (ids, guard)) if ids else ():  # most end at the first look
            if not await is_worth_trying(context, Draft(Assembled(text), hypothesis, first, more), proposal, parent):
                self._dropped.append(ScoredChange(name, about.text, text))
                return None
        self.texts[name].append(rewrite)
        self._kept.append(proposal.candidate.id)
        return proposal

    def _rows(self, name: str, parent: Parent) -> list[Wrong]:
        """Return the wrong rows to show; others after each change of this text."""
        wrong = self._failures.wrong(parent, name)
        start = SHOWN * (sum(change.name == name for change in self._changes()) + self._refused[name]) % len(wrong)
        return [*wrong[start:], *wrong[:start]][:SHOWN]

    def _about(self, credit: str, name: str, parent: Parent, rows: Sequence[Wrong]) -> TextToChange:
        lost = [change for change in self._changes() if change.name == name and change.is_lost]
        return TextToChange(
            replace(self._task, instruction=self.text_of(parent.proposal.candidate, name)),
            self._program.what,
            name,
            [self._failures.shown(parent, each) for each in rows],
            list(dict.fromkeys(difference(change.before, change.after) for change in lost)),
            best_instructions(self._context.trials, lambda candidate: self.text_of(candidate, name)),
            self._asked[credit],
        )

    # -- without the proposer ------------------------------------------------------------------------------------------

    def _merges(self, parent: Parent) -> list[Proposal]:
        """Take texts of other candidates that gained more, by all changes, than the parent's."""
        gains = defaultdict[tuple[str, str], float](float)
        for change in self._failures.changes():
            gains[change.name, change.after] = gains[change.name, change.before] + change.gain
        old, merges = parent.proposal.candidate, dict[str, Proposal]()
        for other in self._context.trials.parents(GOOD):
            new, made = as_texts(other.proposal.candidate).texts, old
            taken = [name for name in new if gains[name, new[name]] > gains[name, self.text_of(old, name)]]
            for name in taken:
                made = self.with_text(made, name, new[name])
            if made.id not in (old.id, *self._context.trials.proposals):
                place = {coordinate(name): other.proposal.place.get(coordinate(name), OWN) for name in taken}
                reason = f"{', '.join(taken)} of another good candidate"
                merges[made.id] = self.child_of(parent, made, "merge", reason, place=place)
        return list(merges.values())

    def _compressed(self, parent: Parent) -> Proposal | None:
        shorter = self.shorter(parent.proposal.candidate)
        for made, why in self._rng.sample(shorter, len(shorter)):
            if made.id not in self._context.trials.proposals and not self._program.check(made):
                return self.child_of(parent, made, "compress", why)
        return None

    def shorter(self, old: Candidate) -> list[tuple[Candidate, str]]:
        """Return candidates with less in one place, each with what is gone."""
        shorter = list[tuple[Candidate, str]]()
        for name, text in as_texts(old).texts.items():
            cuts = shorter_texts(text, replace(self._task, instruction=text))
            if len(text) > MAX_CHARACTERS:
                part = self._rng.choice([found for pattern in PARTS for found in pattern.finditer(text)])
                cuts = iter([(text[: part.start()] + text[part.end() :], f'without "{part[0][:60]}"')])
            shorter += [(self.with_text(old, name, rest), at(name, why)) for rest, why in cuts]
        return shorter
