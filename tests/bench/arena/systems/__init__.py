"""Which systems compete, with which budgets; each is one function in one file here.

Names of functions are looked up in the process that runs them, so that no system's packages weigh on another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from agent.types import Task
from tests.bench.arena.score import Answers
from tests.bench.arena.systems.base import Found

Search = Callable[[Task, str, int, int], Found]
"""task, the server's address with the run's tag, calls of search, seed -> what was found."""


@dataclass(frozen=True, slots=True)
class System:
    """`seeds`: how many runs by default (0: the number that was asked for). `slow` ones come last.

    `extra` names the environment of a package that is no dependency here. `trial` ones run when asked for, or --quick.
    `answers`: of the sets that it runs on.
    """

    name: str
    search: str
    budget: int
    seeds: int = 0
    slow: bool = False
    extra: str = ""
    title: str = ""
    trial: bool = False
    answers: tuple[Answers, ...] = ("label", "number", "rules")

    def load(self) -> Search:
        module, _, function = self.search.partition(":")
        found: Search = getattr(import_module(f"{__name__}.{module}"), function)
        return found


LABELS: tuple[Answers, ...] = ("label",)
SHOWN: tuple[Answers, ...] = ("label", "number")
"""Not texts with rules: of systems that show answers, or that read replies in small letters (promptolution)."""
SYSTEMS = {
    system.name: system
    for system in (
        System("user", "simple:user", 0, 1, title="your prompt, no search"),
        System(
            "knn-prompt", "neighbours:nearest_rows", 0, 1, title="the 8 nearest rows (BM25), no search", answers=SHOWN
        ),
        System(
            "dspy-knn", "dspy_knn:nearest_rows", 0, 1, title="DSPy KNNFewShot (TF-IDF), JSONAdapter", answers=LABELS
        ),
        System("random", "simple:random_demos", 700, title="random search over demos", answers=SHOWN),
        System(
            "random-same-space",
            "same_space:random_search",
            700,
            1,
            title="random search over the space of ours",
            answers=LABELS,
        ),
        System("ours", "ours:with_proposer", 700, title="ours"),
        System("ours-noproposer", "ours:without_proposer", 700, title="ours, no proposer"),
        System("ours-study", "ours:by_study", 700, title="ours, one Optuna study (TPE)", trial=True),
        System("ours-220", "ours:with_proposer", 220, title="ours, 220 calls"),
        System("ours-300", "ours:with_proposer", 300, 1, title="ours, 300 calls"),
        System("ours-1500", "ours:with_proposer", 1500, 1, title="ours, 1,500 calls"),
        System(
            "dspy-random",
            "dspy_peers:random_search",
            700,
            1,
            True,
            title="DSPy BootstrapFewShotWithRandomSearch",
            answers=SHOWN,
        ),
        System(
            "dspy-random-json",
            "dspy_peers:random_search_json",
            700,
            1,
            True,
            title="DSPy random search, JSONAdapter",
            answers=LABELS,
        ),
        System(
            "random-300", "simple:random_demos", 300, 1, title="random search, 300 calls", trial=True, answers=SHOWN
        ),
        System(
            "dspy-random-json-300",
            "dspy_peers:random_search_json",
            300,
            1,
            True,
            title="DSPy random search, JSONAdapter, 300 calls",
            trial=True,
            answers=LABELS,
        ),
        System("dspy-mipro", "dspy_peers:mipro", 700, 1, True, title="DSPy MIPROv2"),
        System("dspy-gepa", "dspy_peers:gepa", 700, 1, True, title="DSPy GEPA"),
        System("capo", "promptolution_peers:capo", 700, 1, True, "promptolution", "promptolution CAPO", answers=SHOWN),
        System(
            "evoprompt",
            "promptolution_peers:evoprompt",
            700,
            1,
            True,
            "promptolution",
            "promptolution EvoPromptGA",
            answers=SHOWN,
        ),
    )
}
ALL = tuple(system.name for system in SYSTEMS.values() if not system.trial)
QUICK = ("user", "random-300", "ours-300", "dspy-random-json-300")
