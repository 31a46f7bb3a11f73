"""The parts of a prompt: as columns of the parts model, in ablations, and in compression.

A shorter prompt keeps every `{{field}}` mark, every mention of a label, every list and, with few-shot techniques, at
least one demo.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from agent.prompt.parts.examples import label_of
from agent.prompt.parts.kind import PartKind
from agent.prompt.parts.kinds import held as parts_of
from agent.prompt.prompt_candidate import PromptCandidate, as_prompt
from agent.prompt.techniques import TECHNIQUES, builtin_rewrites, why_rejected
from agent.prompt.template import split
from agent.search.effects import Effect, Feature
from agent.search.program import Ablation
from agent.types import Candidate, Demo, Proposal, Task


def features_of(candidate: Candidate) -> dict[Feature, float]:
    """Return a prompt as columns of the parts model.

    One-hot: instruction, technique, format and role, instruction and format once more with examples, each fixed demo,
    the methods of picking and retrieval, the order of tools and each of their texts. Numbers: the logs of the numbers
    of fixed and picked examples and passages, and the share of each label among the fixed ones.
    """
    candidate = as_prompt(candidate)
    columns: dict[Feature, float] = {
        ("instruction", candidate.instruction): 1.0,
        ("technique", candidate.technique): 1.0,
        ("format", candidate.format): 1.0,
        ("role", candidate.role): 1.0,
        ("own", candidate.id): 1.0,
    }
    if candidate.n_examples:
        columns["instruction with examples", candidate.instruction] = 1.0
        columns["format with examples", candidate.format] = 1.0
    for kind, settings in parts_of(candidate):
        columns |= kind.features(settings)
    return columns


def leave_one_out(winner: PromptCandidate, baseline: PromptCandidate) -> list[Ablation]:
    """Return one candidate without each part that differs from the baseline; may break hard rules."""
    kinds = {kind.name: kind for kind, _ in (*parts_of(winner), *parts_of(baseline))}.values()
    ablations = []
    if winner.instruction != baseline.instruction:
        ablations.append(Ablation("instruction", replace(winner, instruction=baseline.instruction)))
    ablations += _without(winner, baseline, [kind for kind in kinds if not kind.only_reads])
    reasoning = TECHNIQUES[baseline.technique].reasoning
    if TECHNIQUES[winner.technique].reasoning != reasoning:
        ablations.append(Ablation("technique", winner.with_demos(winner.demos, reasoning)))
    if winner.format != baseline.format:
        ablations.append(Ablation("format", replace(winner, format=baseline.format)))
    if winner.role != baseline.role:
        ablations.append(Ablation("role", replace(winner, role=baseline.role)))
    return ablations + _without(winner, baseline, [kind for kind in kinds if kind.only_reads])


def _without(winner: PromptCandidate, baseline: PromptCandidate, kinds: Sequence[PartKind]) -> list[Ablation]:
    return [Ablation(*without) for kind in kinds if (without := kind.without(winner, baseline)) is not None]


SHARES = (0.25, 0.5)
"""The dropped shares of the examples."""

NOTHING: Mapping[str, Effect] = {}
SENTENCE = re.compile(r"(?<=[.!?])[ \t]+(?=\S)")
LISTED = re.compile(r"\s*([-*•]|\d+[.)])\s")
ACROSS = re.compile(r"\A\s|[.!?][ \t]|\s\Z")
"""Words of a label that may span the end of a sentence."""


def compressions(parent: Proposal, task: Task, effects: Mapping[str, Effect] = NOTHING) -> list[Proposal]:
    """Return the shorter one-step candidates of `parent` that keep the hard rules, safest first.

    `effects`: the contribution of each demo by train row; the least useful go first, or without effects the longest.
    """
    old = as_prompt(parent.candidate)
    shorter: dict[str, Proposal] = {}
    for operator, candidate, reason, place in _all(old, task, effects):
        if candidate.id not in (old.id, *shorter) and not why_rejected(candidate, task):
            where = {**parent.place, **place}
            shorter[candidate.id] = Proposal(candidate, where, f"compress:{operator}", old.id, reason, "compress")
    return list(shorter.values())


def _all(
    old: PromptCandidate, task: Task, effects: Mapping[str, Effect]
) -> Iterator[tuple[str, PromptCandidate, str, dict[str, str]]]:
    """Yield operator, candidate, reason, and the changed coordinates."""
    tidy = tidied(old.instruction)
    if len(tidy) < len(old.instruction) and held(tidy, task) == held(old.instruction, task):
        yield "whitespace", replace(old, instruction=tidy), "without spare blanks and empty lines", {}
    if old.role.strip():
        yield "role", replace(old, role=""), "without the opening sentence on the role", {"role": ""}
    for kept, reason in fewer_examples(old.demos, effects):
        yield "examples", replace(old, demos=kept), reason, {}
    shortest = min(builtin_rewrites(task), key=lambda rewrite: len(rewrite.instruction))
    if len(shortest.instruction) < len(old.instruction):
        words = f"{shortest.reason}; {len(shortest.instruction)} characters in place of {len(old.instruction)}"
        place = {"instruction": shortest.operator}
        yield "rewrite", replace(old, instruction=shortest.instruction), words, place
    for sentence, rest in without_a_sentence(old.instruction, task):
        cut = sentence if len(sentence) <= 60 else f"{sentence[:59]}…"
        yield "sentence", replace(old, instruction=rest), f'without "{cut}"', {}


def fewer_examples(
    demos: Sequence[Demo], effects: Mapping[str, Effect] = NOTHING
) -> Iterator[tuple[tuple[Demo, ...], str]]:
    """Drop a share of the examples with the least effects; return the reason, too."""
    for share in SHARES:
        if gone := least_useful(demos, max(1, int(len(demos) * share)), effects):
            yield tuple(demo for demo in demos if demo.example_id not in gone), dropped(gone, effects)


def least_useful(demos: Sequence[Demo], count: int, effects: Mapping[str, Effect]) -> list[str]:
    """Choose up to `count` rows to drop, never the last of a shared label."""
    left = Counter(label_of(demo) for demo in demos)
    few = max(left.values(), default=0) < 2  # each answer is its own: no labels to keep
    gone: list[str] = []

    def order(demo: Demo) -> tuple[float, int, str]:
        effect = effects.get(demo.example_id)
        return effect.points if effect else 0.0, -sum(map(len, demo.inputs.values())), demo.example_id

    for demo in sorted(demos, key=order):
        if len(gone) < min(count, len(demos) - 1) and (few or left[label_of(demo)] > 1):
            left[label_of(demo)] -= 1
            gone.append(demo.example_id)
    return gone


def dropped(ids: Sequence[str], effects: Mapping[str, Effect]) -> str:
    """Explain a set without these examples.

    >>> dropped(["train-4", "train-7"], {"train-4": Effect("demo", "train-4", -1.2, 0.5)})
    'without train-4 (-1.2) and train-7: they add least'
    """
    named = [f"{i} ({effects[i].points:+.1f})" if i in effects else i for i in ids]
    listed = named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"
    return f"without {listed}: {'it adds' if len(named) == 1 else 'they add'} least"


def without_a_sentence(text: str, task: Task) -> Iterator[tuple[str, str]]:
    """Drop each sentence without marks and labels, also across its boundaries; list lines stay."""
    labels = _labels(task)
    across = [label for label in labels if ACROSS.search(label)]
    within = [label for label in labels if not ACROSS.search(label)]
    must = _mentions(text, across)
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if LISTED.match(line):
            continue
        sentences = SENTENCE.split(line)
        for place, sentence in enumerate(sentences):
            changed = " ".join(sentences[:place] + sentences[place + 1 :])
            heads = place + 1 == len(sentences) and any(map(LISTED.match, lines[number + 1 : number + 2]))
            kept = [*lines[:number], *([changed] if changed.strip() else []), *lines[number + 1 :]]
            rest = "\n".join(kept).strip()
            if not sentence.strip() or not rest or heads or _marks(sentence, task) or _mentions(sentence, within):
                continue
            if _mentions(rest, across) == must:
                yield sentence.strip(), rest


def held(text: str, task: Task) -> Counter[str]:
    """Count what a shorter instruction must keep: marks of input fields and mentions of labels."""
    return _marks(text, task) + _mentions(text, _labels(task))


def _marks(text: str, task: Task) -> Counter[str]:
    names = [field.name for field in task.signature.inputs]
    return Counter("{{" + part[0] + "}}" for part in split(text, names) if isinstance(part, tuple))


def _labels(task: Task) -> list[str]:
    return list(dict.fromkeys(choice for field in task.signature.outputs for choice in field.choices))


def _mentions(text: str, labels: Sequence[str]) -> Counter[str]:
    folded, mentions = text.casefold(), Counter[str]()
    for label in labels:
        word = label.casefold()
        if word in folded and (count := len(re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", folded))):
            mentions[label] = count
    return mentions


def tidied(text: str) -> str:
    """Collapse blanks and empty lines; a text with code is unchanged."""
    if "```" in text:
        return text
    lines = [re.sub(r"(?<=\S)[ \t]{2,}", " ", line.rstrip()) for line in text.strip().split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))
