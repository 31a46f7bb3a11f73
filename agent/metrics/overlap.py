"""Metrics of text against text, each by a well-kept package: BLEU, chrF, ROUGE-L, edits, embeddings, repetition.

As `metrics`: a check takes what was predicted and the label, and gives a value in [0, 1] with a reason.
The signature of a scorer says how it counts, so that others can count the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unicodedata import category

from agent.shipped import composed

Scorer = Callable[[str, str], float]

REPEATED_WORDS = 3


def bleu() -> Scorer:
    """Sentence BLEU of sacrebleu with effective order (Papineni et al. 2002; Post 2018)."""
    return _percent(_sacrebleu("bleu"))


def chrf() -> Scorer:
    """chrF of sacrebleu: character 6-grams, beta 2 (Popovic 2015)."""
    return _percent(_sacrebleu("chrf"))


def signature(metric: str) -> str:
    """How sacrebleu counts, in its own words; "" for a metric that it does not measure."""
    if metric not in ("bleu", "chrf"):
        return ""
    scorer = _sacrebleu(metric)
    scorer.sentence_score("a", ["a"])  # it is known after the first use
    return str(scorer.get_signature())


def _sacrebleu(metric: str) -> Any:
    from sacrebleu.metrics import BLEU, CHRF

    return BLEU(effective_order=True) if metric == "bleu" else CHRF()


def _percent(scorer: Any) -> Scorer:
    def measure(got: str, wanted: str) -> float:
        return 1.0 if got == wanted else min(1.0, max(0.0, scorer.sentence_score(got, [wanted]).score / 100))

    return measure


def edit_similarity(got: str, wanted: str) -> float:
    """1 - Levenshtein distance over the longer length, by rapidfuzz: 1 for equal texts, 0 for nothing in common."""
    from rapidfuzz.distance import Levenshtein

    return float(Levenshtein.normalized_similarity(got, wanted))


class Words:
    """A tokenizer for rouge_score: its own with its stemmer on ASCII; elsewhere letters, marks and digits make words,
    each Chinese or Japanese character one of its own. The package's alone sees nothing but a-z and 0-9."""

    def __init__(self) -> None:
        from rouge_score.tokenizers import DefaultTokenizer

        self._ascii = DefaultTokenizer(use_stemmer=True).tokenize

    def tokenize(self, text: str) -> list[str]:
        if text.isascii():
            return list(self._ascii(text))
        shown = "".join(c if c.isalnum() or category(c)[0] == "M" else " " for c in composed(text).lower())
        words = _ALONE.sub(r" \g<0> ", shown).split()
        return [each for word in words for each in (self._ascii(word) if word.isascii() else [word])]


_ALONE = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")


def rouge_l() -> Scorer:
    """The F-measure of rougeL as rouge_score counts it, over `Words`; the longest common subsequence is found by
    rapidfuzz, without a table of all pairs of words."""
    from rapidfuzz.distance import LCSseq
    from rouge_score.scoring import fmeasure

    words = Words().tokenize

    def measure(got: str, wanted: str) -> float:
        mine, gold = words(got), words(wanted)
        if not mine or not gold:
            return 0.0
        common = LCSseq.similarity(gold, mine)
        return float(fmeasure(common / len(mine), common / len(gold)))

    return measure


def embedding_similarity() -> Scorer:
    """Cosine of two texts' static word embeddings, below 0 as 0: the package wordllama, which brings its weights along
    and is told to fetch nothing. Raises ImportError without it: it is an optional extra."""
    import wordllama

    model = wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)
    return lambda got, wanted: 1.0 if got == wanted else min(1.0, max(0.0, float(model.similarity(got, wanted))))


def unrepeated(text: str, words: int = REPEATED_WORDS) -> float:
    """The part of the text's runs of `words` words that came for the first time; 1 for a text with fewer words.

    The rep-n of Welleck et al. 2020 (Neural text generation with unlikelihood training), from 1. Case is folded.
    """
    tokens = text.casefold().split()
    runs = [tuple(tokens[at : at + words]) for at in range(len(tokens) - words + 1)]
    return len(set(runs)) / len(runs) if runs else 1.0
