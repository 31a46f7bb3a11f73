"""Operator `tool_use`: what a tool that is mixed up is called for, in one sentence, from rows in which it is right."""

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
from agent.types import Tool

AT_ONCE = 4  # tools of one proposal, at most
BEGINS = "Call it to"


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A description of each tool that is mixed up, in the place of its own, which may be what misleads, and after it.
    Each tool once, as long as there are others."""

    name: str = "tool_use"

    def applies(self, evidence: Evidence) -> bool:
        return bool(_wanted(evidence))

    async def make(self, evidence: Evidence, ask: Asks) -> list[Draft]:
        wanted, tools, what = _wanted(evidence), tools_of(evidence), nouns(evidence.task)
        questions = [
            asked_about(
                evidence,
                [(f"{what.capitalize()} that one tool is called for", rows_of_tool(evidence, name))],
                f"what the tool is called for by such {what}",
                BEGINS,
                lambda rest: f"{BEGINS} {rest}",
            )
            for name in wanted
        ]
        replies = await ask(questions)
        new: dict[str, str] = {name: text for name, texts in zip(wanted, replies, strict=False) for text in texts}
        evidence.book.tools.update(new)
        if not new:
            return []
        rows, named = rows_mixed(evidence, *new)[:8], ", ".join(new)

        def draft(about: str, made: list[Tool]) -> list[Draft]:
            texts = having(evidence, *made)
            claim = " | ".join(new.values())
            return [Draft(texts, about, rows, parent=evidence.best, claim=claim)] if texts else []

        return [
            *draft(f"what {named} is for misleads: said anew", [described(tools[n], t) for n, t in new.items()]),
            *draft(
                f"what {named} is for is not enough: a sentence more",
                [described(tools[n], tools[n].description, t) for n, t in new.items() if tools[n].description],
            ),
        ]


def _wanted(evidence: Evidence) -> list[str]:
    """The tools to ask for: those that are mixed up, the worst first; those that were not asked for yet, if any."""
    names = [name for pair in mixed_tools(evidence) for name in pair if name != NO_CALL]
    known = [name for name in dict.fromkeys(names) if name in tools_of(evidence) and has_rows(evidence, name)]
    return ([name for name in known if name not in evidence.book.tools] or known[:1])[:AT_ONCE]
