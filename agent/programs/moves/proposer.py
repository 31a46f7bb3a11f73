"""The proposer of a search: available operators, drafts, and results so far.

An operator whose replies are refused or whose candidates do not climb is dropped, and in the end the proposer.
"""

from __future__ import annotations

from collections import Counter

from agent.programs.moves import operators, shape_moves, tool_operators
from agent.programs.moves.asking import Asker, Draft, Operator, PartTexts, why_labels_lost
from agent.programs.moves.evidence import Assembled, Evidence, InstructionHistory, best_instructions
from agent.prompt.parts.kinds import PARTS
from agent.prompt.parts.tools import as_text
from agent.prompt.prompt_candidate import PromptCandidate, as_prompt
from agent.prompt.techniques import Rewrite
from agent.search.context import SearchContext
from agent.search.effects import PartsModel, ScoredCandidate
from agent.search.program import PROPOSED, Parent
from agent.types import Proposal

OPERATORS = (
    Operator("definitions", operators.undefined, operators.definitions),
    Operator("tool_use", tool_operators.mixed_up, tool_operators.tool_use),
    Operator("tool_contrast", tool_operators.mixed_pair, tool_operators.tool_contrast),
    Operator("tool_argument", tool_operators.wrong_argument, tool_operators.tool_argument),
    Operator("field_text", shape_moves.wrong_field, shape_moves.field_text),
    Operator("rule", operators.failed, operators.rule),
    Operator("contrast", operators.mixed_pair, operators.contrast),
    Operator("whole", lambda evidence: True, operators.whole),
    Operator("form", operators.unread, operators.form),
    Operator("procedure", operators.traced, operators.procedure),
    Operator("merge", operators.pairs, operators.merge),
    Operator("shorter", operators.is_long, operators.shorter),
    Operator("tool_shorter", tool_operators.longest, tool_operators.tool_shorter),
)  # in the order in which each is tried for the first time

OF_TOOLS = ("tool_use", "tool_contrast", "tool_shorter")
"""The operators on descriptions of tools."""
BY_CREDIT = {f"{PROPOSED}:{operator.name}": operator for operator in OPERATORS}
OF_ONE = 2  # proposals of an operator in a row that came to nothing, before it is not asked for any more
GOOD = 6  # candidates that are looked at
OF_ALL = 6  # the same over all operators
TRIALS_EACH = 3  # trials for each proposal while operators are tried for the first time


class Proposer:
    """The requests to the proposer in one search."""

    def __init__(self, context: SearchContext) -> None:
        self._context, self._log = context, context.proposal_log
        self.history = InstructionHistory(context.task)
        self._dev = {row.id: row for row in context.dev}
        self._asked: Counter[str] = Counter()
        self._is_strong = False
        self._part_texts = set[PartTexts]()

    def operators(self, parent: Parent | None) -> list[str]:
        context = self._context
        if context.proposer is None or parent is None or self._log.calls >= context.plan.proposals:
            return []
        if self._in_vain() >= OF_ALL:
            return []
        evidence = self._evidence(parent)
        usable = (
            set(OF_TOOLS) if context.task.space.descriptions_only is not None else {each.name for each in OPERATORS}
        )
        return [
            credit
            for credit, operator in BY_CREDIT.items()
            if operator.name in usable and self._in_vain(operator.name) < OF_ONE and operator.applies(evidence)
        ]

    def due(self, parent: Parent | None) -> str:
        """Return the next unused operator; "" for none, or with few trials per proposal."""
        if len(self._log.records) * TRIALS_EACH >= len(self._context.trials.by_id):
            return ""
        return next((credit for credit in self.operators(parent) if not self._asked[BY_CREDIT[credit].name]), "")

    async def drafts(self, credit: str, parent: Parent) -> list[tuple[Draft, Rewrite]]:
        """Make drafts by one of `operators`, each with its name."""
        operator = BY_CREDIT[credit]
        asker, evidence = Asker(self._context, operator.name), self._evidence(parent)
        self._asked[operator.name] += 1
        found = []
        for draft in await operator.make(evidence, asker):
            changed = as_prompt((draft.parent or parent).proposal.candidate)
            texts, refused = self._new(draft, changed)
            asker.refused = refused or asker.refused
            if not texts:
                continue
            claim = {"claim": draft.claim} if draft.claim else {}
            name = asker.noted({**texts, **claim}, draft.hypothesis, draft.rows, changed.id)
            text = texts.get("instruction", "")
            found.append((draft, Rewrite(name, text, draft.hypothesis, credit=credit)))
        if not found:
            why = asker.refused or "nothing new came of it"
            self._log.open(operator.name, refused=why, parent_id=parent.proposal.candidate.id)
        self._is_strong = bool(found) if operator.name == "whole" else self._is_strong
        return found

    def _new(self, draft: Draft, changed: PromptCandidate) -> tuple[dict[str, str], str]:
        made, task = draft.made, self._context.task
        if not isinstance(made, Assembled):
            is_new = made not in self._part_texts and made != changed.part(made.part)
            self._part_texts.add(made)
            shown = PARTS.get(made.part).shown(made, task.tools)
            return ({name: as_text(own) for name, own in shown.items()} if is_new else {}), ""
        text = made.text(task)
        if refused := why_labels_lost(text, task):
            return {}, refused
        if text in self.history.instructions or text == changed.instruction:
            return {}, ""
        self.history.add(made)
        return {"instruction": text}, ""

    def _evidence(self, parent: Parent) -> Evidence:
        context = self._context
        return Evidence(
            context.task,
            self._dev,
            parent,
            context.trials.parents(GOOD),
            self.history,
            context.rng,
            dict(self._asked),
            lambda: part_effects(context, self.history),
            best_instructions(context.trials),
            self._is_strong,
        )

    def _in_vain(self, operator: str = "") -> int:
        trials, first, count = self._context.trials, self._context.plan.rungs[0], 0
        for record in reversed(self._log.records):
            if operator in ("", record.operator):
                became = self._log.became(record, trials)
                if became != "waiting" and self._log.climbed(record, trials, first):
                    break
                count += became != "waiting"
        return count


PART = "part of the instruction"
FEWEST = 2  # candidates that have a part, before anything is said of it


def part_effects(context: SearchContext, history: InstructionHistory) -> dict[str, float]:
    """Estimate the points of each instruction part that only some candidates have, by text."""
    table, counts = list[ScoredCandidate](), Counter[str]()
    for candidate_id, outcomes in context.trials.outcomes.items():
        candidate = context.trials.candidate(candidate_id)
        texts = {part.text for part in history.of(as_prompt(candidate).instruction).parts if part.text}
        counts.update(texts)
        columns = {**context.program.features(candidate), **{(PART, text): 1.0 for text in texts}}
        table.append(ScoredCandidate(candidate_id, columns, [outcome.value for outcome in outcomes]))
    known = {text for text, count in counts.items() if FEWEST <= count < len(table)}
    return {e.name: e.points for e in PartsModel(table).effects(PART) if e.name in known} if known else {}


async def is_worth_trying(context: SearchContext, draft: Draft, proposal: Proposal, parent: Parent) -> bool:
    """Test whether a draft fixes more rows than it breaks of its guard set."""
    seen = {outcome.example_id for outcome in context.trials.outcomes.get(context.baseline.id, ())}
    wanted = [i for i in (*draft.rows, *draft.guard) if i in seen]
    rows = [row for row in context.dev if row.id in wanted]
    left = min(context.left_by_calls() - context.plan.kept_rows, context.payable())
    if (
        not draft.guard
        or len(rows) > left
        or context.costs.of_rows(parent.proposal.candidate.id, len(rows)) > context.costs.affordable()
    ):
        return True
    after = {outcome.example_id: outcome.value for outcome in await context.look(proposal, rows)}
    before = {outcome.example_id: outcome.value for outcome in parent.outcomes}
    pairs = [(old, new) for i, new in after.items() if (old := before[i]) is not None and new is not None]
    is_kept = sum(new - old for old, new in pairs) > 0
    record = next(r for r in reversed(context.proposal_log.records) if r.instruction in proposal.place.values())
    body = {"number": record.number, "operator": record.operator, "rows": list(draft.rows), "guard": list(draft.guard)}
    means = [sum(side) / len(pairs) for side in zip(*pairs, strict=True)] or [None, None]
    scores = dict(zip(("before", "after"), means, strict=True))
    context.proposal_log.change(record.number, **scores, became="" if is_kept else "dropped")
    context.note("proposal_look", {**body, **scores, "kept": is_kept})
    return is_kept
