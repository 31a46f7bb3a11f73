"""Fixed examples: the same for each input, and a piece of the template."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from agent.prompt.parts.kinds import PartKind, part
from agent.prompt.template import label_text

if TYPE_CHECKING:
    from agent.prompt.prompt_candidate import PromptCandidate
    from agent.types import Demo, Example, Task, Tool


def as_demo(row: Example, accepted: Collection[str] = ()) -> Demo:
    """Make a worked example of a row; `accepted`: the outputs whose labels hold accepted values."""
    from agent.metrics.calls import one_answer
    from agent.types import Demo

    answers = one_answer(row.labels, accepted)
    return Demo(row.id, row.inputs, {name: label_text(value) for name, value in answers.items()})


def label_of(demo: Demo) -> str:
    return " | ".join(demo.outputs.values())


@part
class Examples(PartKind):
    name, words = "demos", "examples"

    def as_dict(self, settings: Any) -> Any:
        return [demo.as_dict() for demo in settings]

    def shown(self, settings: Any, tools: Sequence[Tool]) -> dict[str, Any]:
        return {"demos": settings}

    def examples(self, settings: Sequence[Demo]) -> int:
        return len(settings)

    def learnt_from(self, settings: Sequence[Demo], task: Task) -> Iterable[str]:
        return (demo.example_id for demo in settings)

    def features(self, settings: Sequence[Demo]) -> dict[tuple[str, str], float]:
        columns = {("log2 examples", ""): math.log2(1 + len(settings)) / 2}
        labels = Counter(map(label_of, settings))
        if max(labels.values()) > 1:  # else the answers are no labels
            columns |= {("label share", label): count / len(settings) for label, count in labels.items()}
        return columns | {("demo", demo.example_id): 1.0 for demo in settings}

    def without(self, winner: PromptCandidate, baseline: PromptCandidate) -> tuple[str, PromptCandidate] | None:
        return None if winner.demos == baseline.demos else (self.words, winner.with_demos(baseline.demos))

    def why_rejected(self, settings: Sequence[Demo], prompt: PromptCandidate, task: Task) -> str:
        train = {example.id for example in task.train}
        others = [demo.example_id for demo in settings if demo.example_id not in train]
        return f"demo {others[0]} is not a train row" if others else ""
