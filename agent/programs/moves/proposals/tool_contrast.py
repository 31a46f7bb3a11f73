"""Operator `tool_contrast`: when one tool is called and not another that is called in its place, in one sentence."""

from __future__ import annotations

from dataclasses import dataclass

from agent.metrics.calls import NO_CALL
from agent.programs.moves.proposals.asking import Asks, Draft
from agent.programs.moves.proposals.evidence import Evidence, nouns
from agent.programs.moves.proposals.tool_evidence import (
    asked_about,
    described,
    has_rows,
    having,
    mixed_tools,
    rows_mixed,
    rows_of_tool,
    tools_of,
)

BEGINS = "Call it when"


@dataclass(frozen=True, slots=True)
class ToolContrast:
    """A sentence at the end of a tool's description. Each time the pair that is mixed up most of those that were not
    asked for yet. Where no call is right, it says when the tool is called at all."""

    name: str = "tool_contrast"

    def applies(self, evidence: Evidence) -> bool:
        return self._pair(evidence) is not None

    def _pair(self, evidence: Evidence) -> tuple[str, str] | None:
        """The tool to say more of, and the other one or `NO_CALL`."""
        pairs = [(said, right) if right == NO_CALL else (right, said) for right, said in mixed_tools(evidence)]
        open_pairs = [pair for pair in pairs if (self.name, *pair) not in evidence.book.tools_asked]
        return next((pair for pair in open_pairs if all(has_rows(evidence, name) for name in pair)), None)

    async def make(self, evidence: Evidence, ask: Asks) -> list[Draft]:
        pair = self._pair(evidence)
        if pair is None:
            return []
        evidence.book.tools_asked.add((self.name, *pair))
        (name, other), what = pair, nouns(evidence.task)
        rather = "only when" if other == NO_CALL else f"rather than {other} when"
        groups = [
            (f"{what.capitalize()} that the tool is called for", rows_of_tool(evidence, name)),
            (f"{what.capitalize()} that it is not called for", rows_of_tool(evidence, other)),
        ]
        asked = f"when the tool is called, so that the other {what} are left out"
        question = asked_about(evidence, groups, asked, BEGINS, lambda rest: f"Call it {rather} {rest}")
        rows, tool = rows_mixed(evidence, *pair)[:8], tools_of(evidence)[name]
        hypothesis = f"{name} and {other} are mixed up ({len(rows)} rows): the description says which is called when"
        return [
            Draft(made, hypothesis, rows, parent=evidence.best, claim=text)
            for texts in await ask([question])
            for text in texts
            if (made := having(evidence, described(tool, tool.description, text)))
        ]
