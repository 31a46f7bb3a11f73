"""The parts of a prompt: as columns of the model of the parts, and left out one at a time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from agent.programs.moves.passage_moves import without_passages
from agent.prompt.prompt_candidate import PromptCandidate
from agent.prompt.techniques import TECHNIQUES
from agent.search.analysis.effects import Feature
from agent.search.program import Ablation
from agent.types import Candidate, Demo, TechniqueName


def features_of(candidate: Candidate) -> dict[Feature, float]:
    """A prompt as columns of the model of the parts.

    One-hot: instruction, technique, format and role, instruction and format once more where there are demos, each fixed
    demo, how others are picked and passages looked up. Numbers: the logs of how many fixed and picked demos and
    passages there are, and the share of each label among the fixed ones. Of tools one-hot: their order and each text.
    """
    assert isinstance(candidate, PromptCandidate)
    columns: dict[Feature, float] = {
        ("instruction", candidate.instruction): 1.0,
        ("technique", candidate.technique): 1.0,
        ("format", candidate.format): 1.0,
        ("role", candidate.role): 1.0,
        ("own", candidate.id): 1.0,
    }
    if candidate.weights:
        columns["label weights", candidate.weights.method] = 1.0
    if candidate.n_demos:
        columns["instruction beside demos", candidate.instruction] = 1.0
        columns["format beside demos", candidate.format] = 1.0
    if candidate.picks is not None:
        columns["picked demos", candidate.picks.retriever] = 1.0
        columns["picked order", candidate.picks.order] = 1.0
        columns["log2 picked demos", ""] = math.log2(1 + candidate.picks.k) / 2
    if candidate.passages is not None:
        columns["passages", candidate.passages.retriever] = 1.0
        columns["passage size", str(candidate.passages.chunk)] = 1.0
        columns["log2 passages", ""] = math.log2(1 + candidate.passages.k) / 2
    if candidate.tool_texts is not None:
        columns["tool order", " ".join(candidate.tool_texts.order)] = 1.0
        columns |= {("tool text", text): 1.0 for text in candidate.tool_texts.texts}
    if candidate.demos:
        columns["log2 demos", ""] = math.log2(1 + len(candidate.demos)) / 2
        labels = Counter(label_of(demo) for demo in candidate.demos)
        if max(labels.values()) > 1:  # else the answers are no labels
            columns |= {("label share", label): count / len(candidate.demos) for label, count in labels.items()}
        columns |= {("demo", demo.example_id): 1.0 for demo in candidate.demos}
    return columns


def label_of(demo: Demo) -> str:
    """A demo's answer as one text."""
    return " | ".join(demo.outputs.values())


def leave_one_out(winner: PromptCandidate, baseline: PromptCandidate) -> list[Ablation]:
    """One candidate for each part that the winner does not share with the baseline; they may break hard rules."""
    ablations = []
    if winner.instruction != baseline.instruction:
        ablations.append(Ablation("instruction", replace(winner, instruction=baseline.instruction)))
    if winner.demos != baseline.demos:
        ablations.append(Ablation("demos", _laid_out(winner, baseline.demos, TECHNIQUES[winner.technique].reasoning)))
    if winner.picks is not None:
        is_near = winner.weights is not None and winner.weights.neighbours is not None  # which come with the pool
        static = replace(winner, picks=None, weights=None if is_near else winner.weights)
        ablations.append(
            Ablation("picked demos", _laid_out(static, winner.demos, TECHNIQUES[winner.technique].reasoning))
        )
    if winner.passages != baseline.passages:
        own = replace(winner, passages=baseline.passages) if baseline.passages else without_passages(winner)
        ablations.append(Ablation("passages", own))
    if winner.tool_texts != baseline.tool_texts:
        ablations.append(Ablation("tool texts", replace(winner, tool_texts=baseline.tool_texts)))
    reasoning = TECHNIQUES[baseline.technique].reasoning
    if TECHNIQUES[winner.technique].reasoning != reasoning:
        ablations.append(Ablation("technique", _laid_out(winner, winner.demos, reasoning)))
    if winner.format != baseline.format:
        ablations.append(Ablation("format", replace(winner, format=baseline.format)))
    if winner.role != baseline.role:
        ablations.append(Ablation("role", replace(winner, role=baseline.role)))
    if winner.weights != baseline.weights:
        ablations.append(Ablation("label weights", replace(winner, weights=baseline.weights)))
    return ablations


def _laid_out(winner: PromptCandidate, demos: Sequence[Demo], reasoning: bool) -> PromptCandidate:
    """The winner with these demos, under the technique that goes with them."""
    kept = demos if reasoning else [Demo(demo.example_id, demo.inputs, demo.outputs) for demo in demos]
    names: dict[tuple[bool, bool], TechniqueName] = {
        (technique.demos, technique.reasoning): name for name, technique in TECHNIQUES.items()
    }
    return replace(winner, technique=names[bool(demos or winner.picks), reasoning], demos=tuple(kept))
