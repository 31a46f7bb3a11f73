"""The parts of a prompt: in the parts model, in ablations, and in compression, which keeps marks and labels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from agent.prompt.parts.examples import label_of
from agent.prompt.parts.kinds import held as parts_of
from agent.prompt.prompt_candidate import PromptCandidate, as_prompt
from agent.prompt.techniques import TECHNIQUES, builtin_rewrites, why_rejected
from agent.prompt.template import split
from agent.search.effects import Effect
from agent.search.study import Feature
from agent.types import Candidate, Demo, Proposal, Task


def features_of(candidate: Candidate) -> dict[Feature, float]:
    """Return a prompt as columns of the parts model: one-hot parts, logs of numbers."""
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


def leave_one_out(winner: PromptCandidate, baseline: PromptCandidate) -> dict[str, Candidate]:
    """Return the winner without each part that differs from the baseline; may break hard rules."""
    kinds = {kind.name: kind for kind, _ in (*parts_of(winner), *parts_of(baseline))}.values()
    reasoning = TECHNIQUES[baseline.technique].reasoning

    def without(only_reads: bool) -> dict[str, Candidate]:
        made = (kind.without(winner, baseline) for kind in kinds if kind.only_reads == only_reads)
        return dict(each for each in made if each is not None)

    parts = {"instruction": replace(winner, instruction=baseline.instruction), **without(False)}
    if TECHNIQUES[winner.technique].reasoning != reasoning:
        parts["technique"] = winner.with_demos(winner.demos, reasoning)
    parts |= {"format": replace(winner, format=baseline.format), "role": replace(winner, role=baseline.role)}
    return {part: made for part, made in {**parts, **without(True)}.items() if made != winner}


SHARES = (0.25, 0.5)  # the dropped shares of the examples

NOTHING: Mapping[str, Effect] = {}
SENTENCE = re.compile(r"(?<=[.!?])[ \t]+(?=\S)")
LISTED = re.compile(r"\s*([-*•]|\d+[.)])\s")


def compressions(parent: Proposal, task: Task, effects: Mapping[str, Effect] = NOTHING) -> list[Proposal]:
    """Return shorter one-step candidates that keep the hard rules, safest first. `effects`: by demo."""
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


def shorter_texts(text: str, task: Task) -> Iterator[tuple[str, str]]:
    """Yield shorter texts, each with what is gone: spare blanks, or a sentence."""
    if len(tidy := tidied(text)) < len(text):
        yield tidy, "without spare blanks and empty lines"
    yield from (
        (rest, f'without "{cut[:60]}"') for cut, rest in without_a_sentence(text, task) if len(rest) < len(text)
    )


def without_a_sentence(text: str, task: Task) -> Iterator[tuple[str, str]]:
    """Drop each sentence that holds no mark and no label. List lines, and what heads them, stay."""
    lines, must = text.split("\n"), held(text, task)
    for number, line in enumerate(lines):
        if LISTED.match(line):
            continue
        sentences = SENTENCE.split(line)
        for place, sentence in enumerate(sentences):
            changed = " ".join(sentences[:place] + sentences[place + 1 :])
            heads = place + 1 == len(sentences) and any(map(LISTED.match, lines[number + 1 : number + 2]))
            kept = [*lines[:number], *([changed] if changed.strip() else []), *lines[number + 1 :]]
            rest = "\n".join(kept).strip()
            if sentence.strip() and rest and not heads and held(rest, task) == must:
                yield sentence.strip(), rest


def held(text: str, task: Task) -> Counter[str]:
    """Count what a shorter instruction must keep: marks of input fields and mentions of labels."""
    names, folded = [field.name for field in task.signature.inputs], text.casefold()
    kept = Counter("{{" + part[0] + "}}" for part in split(text, names) if isinstance(part, tuple))
    for label in dict.fromkeys(choice for field in task.signature.outputs for choice in field.choices):
        word, literal = label.casefold(), re.escape(label.casefold())
        whole = rf"{literal}(?<!\w{literal})(?!\w)"  # the literal first: Python finds it 20 times as fast
        if word in folded and (times := len(re.findall(whole, folded))):
            kept[label] += times
    return kept


def tidied(text: str) -> str:
    if "```" in text:
        return text
    lines = [re.sub(r"(?<=\S)[ \t]{2,}", " ", line.rstrip()) for line in text.strip().split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))
