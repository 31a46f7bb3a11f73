"""The words of a report and their meanings, for the reader who sees them for the first time. Pure.

The one place of these texts: docs/glossary.md has a row for each word, which tests/report/test_terms.py compares.
"""

from __future__ import annotations

from collections.abc import Mapping

TERMS: Mapping[str, str] = {
    "baseline": "your own prompt: trial 0, which every other prompt must beat",
    "winner": "the best prompt that the search found, which is tried on the sealed test; it can be your own",
    "dev": "the rows that choose between prompts, so that their scores flatter the winner",
    "sealed test": "the rows that a run opens once, at its end, so that nothing was chosen on them",
    "points": "hundredths of the score: 0 is all wrong, 100 all right",
    "95 % CI": "the interval that would hold the true value in 95 of 100 such runs",
    "corrected dev score": "the winner's dev score less what it gained by being chosen for it",
    "lift": "the paired difference between winner and baseline on the sealed test",
    "p-value": "how often chance alone would give a difference at least as large",
    "held back": "not released although the gain was shown, for the reasons that are listed",
    "yardstick": "the score of a method without a language model (constant answer, classifier, nearest rows) on the "
    "same rows",
    "candidate": "one prompt that may be tried: instruction, examples, technique, layout, role, calibration",
    "trial": "one candidate with the rows that it saw: complete, pruned, failed or incomplete",
    "complete": "of a trial: it saw the whole of dev",
    "pruned": "taken out before it saw the whole of dev, as it was clearly behind or never among the best",
    "operator": "what made a candidate: a new design, or one change of a good candidate",
    "example": "a worked example inside a prompt, taken from train",
    "technique": "zero-shot, few-shot, chain-of-thought, or few-shot with reasons",
    "layout": "how instruction, examples and row become messages, such as turns or inline",
    "model": "as a role: the model that is prompted",
    "proposer": "the model that writes new instructions",
    "judge": "a model that scores answers; it counts only after it agreed with people",
    "Pareto front": "the prompts that no other beats in score, prompt length and cost at once",
    "ledger": "the SQLite file with every trial, prompt, call and reply, in a hash chain",
}
"""The meaning of each word, in the order in which a reader needs them."""
OF_COMPARISONS = frozenset({"lift", "p-value", "held back"})
"""Words that a run has no use for whose best prompt is the user's own."""
_OTHER_NAMES: Mapping[str, str] = {
    "your prompt": "baseline",
    "best found": "winner",
    "corrected": "corrected dev score",
    "dev, corrected": "corrected dev score",
    "dev score": "dev",
    "difference": "lift",
    "gain, 95 % CI": "lift",
    "made by": "operator",
    "method": "yardstick",
}
_SHOWN_AS: Mapping[str, str] = {"baseline": "your prompt, or baseline", "winner": "best found, or winner"}


def meaning_of(text: str) -> str:
    """What a word or the head of a column means, whatever its first letter; "" for other texts."""
    name = text[:1].lower() + text[1:]
    return TERMS.get(_OTHER_NAMES.get(name, name), "")


def legend(*, is_compared: bool) -> Mapping[str, str]:
    """The words to explain at the end of a page; `is_compared`: of one that compares two prompts."""
    return {
        _SHOWN_AS.get(name, name): text for name, text in TERMS.items() if is_compared or name not in OF_COMPARISONS
    }
