"""The strategy `in-turn`: each design of the kind sees the whole of dev, one after another, while there is room."""

from __future__ import annotations

from agent.search.lab import Lab
from agent.search.strategies import strategy


@strategy("in-turn", about="Each design on the whole of dev, one after another.")
async def search(lab: Lab) -> None:
    lab.stage("in turn", 1)
    for entry in lab.program.moves(lab).designs():
        if lab.more() and lab.left() >= len(lab.dev):
            await lab.see(lab.admit([entry]), len(lab.dev))
