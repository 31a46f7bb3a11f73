"""The strategy `in-turn`: each design of the kind sees the whole of dev, one after another, while there is room."""

from __future__ import annotations

from agent.search.context import SearchContext
from agent.search.registered import strategy


@strategy("in-turn", about="Each design on the whole of dev, one after another.")
async def search(context: SearchContext) -> None:
    context.stage("in turn", 1)
    for proposal in context.program.moves(context).designs():
        if context.more() and context.left() >= len(context.dev):
            await context.see(context.admit([proposal]), len(context.dev))
