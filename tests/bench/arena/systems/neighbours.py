"""The plain prompt that picks: under the user's instruction the rows of train that are nearest to each input, as turns,
the nearest last. Nothing is searched, so no call is made before the test."""

from __future__ import annotations

from agent.prompt.parts.picks import PickedRows
from agent.prompt.prompt_candidate import PromptCandidate
from agent.retrieval.pick import Picks
from agent.types import Task
from tests.bench.arena.systems.base import Found
from tests.bench.arena.systems.candidate import CandidatePrompt

NEAREST = 8


def nearest_rows(task: Task, url: str, budget: int, seed: int) -> Found:
    """The NEAREST rows by BM25 over words."""
    pool = PickedRows(task)
    picks = Picks("bm25", min(NEAREST, len(task.train)), pool=pool.id)
    candidate = PromptCandidate("few-shot", "turns", task.instruction).having(picks=picks)
    return Found(CandidatePrompt(task, pool, candidate), facts={"k": picks.k, "retriever": picks.retriever})
