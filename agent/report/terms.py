"""Definitions of the terms in a report.

docs/glossary.md repeats them; tests/report/test_terms.py compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping

TERMS: Mapping[str, str] = {
    "baseline": "your own prompt: trial 0, the one that every other prompt must beat",
    "winner": "the best prompt of the search, compared with yours on the sealed test; it can be your own",
    "dev": "the rows that choose between prompts; scores on them flatter the winner",
    "sealed test": "held-out test rows, opened once at the end of a run, so nothing was chosen on them",
    "points": "the score times 100: 0 is all wrong, 100 all right",
    "95 % CI": "confidence interval: in 95 of 100 such runs it contains the true value",
    "corrected dev score": "the winner's dev score without the bias of choosing the best of many",
    "lift": "the paired difference between winner and baseline on the sealed test",
    "p-value": "how often chance alone would give a difference at least as large",
    "held back": "not released although a gain was shown, for the reasons listed",
    "yardstick": "the score of a method without a language model (constant answer, classifier, nearest rows) on the "
    "same rows",
    "candidate": "one prompt to try: instruction, examples, technique, layout, role, calibration",
    "trial": "one candidate and the rows it was scored on: complete, pruned, failed or incomplete",
    "complete": "of a trial: scored on all dev rows",
    "pruned": "of a trial: stopped before all dev rows, because it was clearly behind or never among the best",
    "operator": "what made a candidate: a new design, or one change to a good candidate",
    "example": "a few-shot example: a train row shown in the prompt with its right answer",
    "technique": "zero-shot, few-shot, chain-of-thought, or few-shot with reasons",
    "layout": "how instruction, examples and row become messages, such as turns or inline",
    "model": "as a role: the model that is prompted",
    "proposer": "the model that writes new instructions",
    "judge": "a model that scores answers; its scores count only after it agreed with people's ratings",
    "Pareto front": "the prompts that no other prompt beats in score, length and cost at once",
    "ledger": "the SQLite file with every trial, prompt, call and reply, in a hash chain",
}
"""In the order in which a reader needs them."""
OF_COMPARISONS = frozenset({"lift", "p-value", "held back"})
"""Terms that a run needs only if another prompt won."""
_OTHER_NAMES: Mapping[str, str] = {
    "your prompt": "baseline",
    "your texts": "baseline",
    "best found": "winner",
    "corrected": "corrected dev score",
    "dev, corrected": "corrected dev score",
    "dev score": "dev",
    "difference": "lift",
    "gain, 95 % CI": "lift",
    "made by": "operator",
    "method": "yardstick",
}
_OF_TEXTS = {"baseline": "your own texts: trial 0, those that all others must beat"}
"""What differs if a run does not search a prompt."""


def meaning_of(text: str) -> str:
    """Return the definition of a term or column heading, or ""."""
    name = text[:1].lower() + text[1:]
    return _terms(name.removeprefix("your ")).get(_OTHER_NAMES.get(name, name), "")


def legend(*, is_compared: bool, noun: str = "prompt") -> Mapping[str, str]:
    """Return the definitions at the end of a page. `is_compared`: the page compares two; `noun`: what was searched."""
    shown_as = {"baseline": f"your {noun}, or baseline", "winner": "best found, or winner"}
    needed = {name: text for name, text in _terms(noun).items() if is_compared or name not in OF_COMPARISONS}
    return {shown_as.get(name, name): text for name, text in needed.items()}


def _terms(noun: str) -> Mapping[str, str]:
    return {**TERMS, **_OF_TEXTS} if noun == "texts" else TERMS
