"""Text similarity: BLEU, chrF, ROUGE, edit distance, embeddings, token F1; the best of several labels counts."""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from typing import Any
from unicodedata import category

from agent.metrics.comparison import Check, as_text, by_label, f1, golds, short
from agent.metrics.metric_rule import Options, metric
from agent.retrieval.vectors import load_wordllama
from agent.shipped import composed
from agent.types import Field
from agent.worker import Verdict

Scorer = Callable[[str, str], float]
"""(answer, label) -> similarity in [0, 1]."""


@metric("token_f1", about="Word overlap with the label, as in SQuAD.", types=("text",))
def token_f1(options: Options, field: Field) -> Check:
    """Ignore case, punctuation and articles (Rajpurkar et al. 2016)."""

    def words(text: str) -> list[str]:
        bare = "".join(c for c in composed(text).lower() if c not in string.punctuation)
        return re.sub(r"\b(a|an|the)\b", " ", bare).split() or bare.split()

    return by_label(
        lambda got, label: max((f1(words(as_text(got)), words(gold)) for gold in golds(label)), default=0.0)
    )


def _register(name: str, about: str, make: Callable[[], Scorer]) -> None:
    def build(options: Options, field: Field) -> Check:
        scorer = make()

        def check(got: Any, label: Any) -> Verdict:
            text, wanted = as_text(got), golds(label)
            best = 1.0 if text in wanted else max((scorer(text, gold) for gold in wanted), default=0.0)
            value = min(1.0, max(0.0, best))
            return value, "" if value > 0.999 else f"{name} {value:.2f} against {short(label)}, got {short(got)}"

        return check

    metric(name, about=about, types=("text",))(build)


# ---- the scorers


def sacrebleu_scorer(metric: str) -> Scorer:
    """Return sentence BLEU with effective order (Post 2018), or chrF (Popovic 2015)."""
    scorer = _sacrebleu(metric)
    # equal texts score 1, even without anything to count
    return lambda got, wanted: 1.0 if got == wanted else min(1.0, scorer.sentence_score(got, [wanted]).score / 100)


def signature(metric: str) -> str:
    """Return the signature of sacrebleu for reproducible scores; "" for other metrics."""
    if metric not in ("bleu", "chrf"):
        return ""
    scorer = _sacrebleu(metric)
    scorer.sentence_score("a", ["a"])  # the signature is complete after the first use
    return str(scorer.get_signature())


def embedding_scorer() -> Scorer:
    """Return the cosine of wordllama vectors; its weights are bundled, nothing is fetched."""
    try:
        model = load_wordllama()
    except ImportError as missing:
        raise ValueError(f"a package is missing ({missing}); pip install 'promptassay[embedding]'") from missing
    return lambda got, wanted: float(model.similarity(got, wanted))


def _sacrebleu(metric: str) -> Any:
    from sacrebleu.metrics import BLEU, CHRF

    return BLEU(effective_order=True) if metric == "bleu" else CHRF()


def levenshtein_similarity(got: str, wanted: str) -> float:
    """Return 1 - Levenshtein distance / longer length, in [0, 1].

    >>> levenshtein_similarity("kitten", "kittens")
    0.8571428571428572
    """
    from rapidfuzz.distance import Levenshtein

    return float(Levenshtein.normalized_similarity(got, wanted))


class RougeTokenizer:
    """A tokenizer for rouge_score for all scripts; its default knows only a-z and 0-9.

    ASCII goes to the default tokenizer with its stemmer. Each Chinese or Japanese character is a word.
    """

    def __init__(self) -> None:
        from rouge_score.tokenizers import DefaultTokenizer

        self._ascii = DefaultTokenizer(use_stemmer=True).tokenize

    def tokenize(self, text: str) -> list[str]:
        if text.isascii():
            return list(self._ascii(text))
        spaced = "".join(c if c.isalnum() or category(c)[0] == "M" else " " for c in composed(text).lower())
        words = _OWN_WORD.sub(r" \g<0> ", spaced).split()
        return [each for word in words for each in (self._ascii(word) if word.isascii() else [word])]


_OWN_WORD = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")


def _rouge_n(name: str) -> Scorer:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([name], tokenizer=RougeTokenizer())
    return lambda got, wanted: float(scorer.score(wanted, got)[name].fmeasure)


def rouge_l_scorer() -> Scorer:
    """Return the F-measure of ROUGE-L, with the longest common subsequence of rapidfuzz.

    Unlike rouge_score, this needs no table of all pairs of words.
    """
    from rapidfuzz.distance import LCSseq
    from rouge_score.scoring import fmeasure

    words = RougeTokenizer().tokenize

    def measure(got: str, wanted: str) -> float:
        mine, gold = words(got), words(wanted)
        if not mine or not gold:
            return 0.0
        common = LCSseq.similarity(gold, mine)
        return float(fmeasure(common / len(mine), common / len(gold)))

    return measure


_register("bleu", "BLEU with the label: runs of one to four words in common.", lambda: sacrebleu_scorer("bleu"))
_register("chrf", "chrF with the label: runs of characters in common.", lambda: sacrebleu_scorer("chrf"))
_register("edit_similarity", "1 - edit distance to the label over the longer length.", lambda: levenshtein_similarity)
_register("embedding_similarity", "Cosine of static word embeddings with the label (an extra).", embedding_scorer)
_register("rouge1", "ROUGE-1 with the label: single words in common.", lambda: _rouge_n("rouge1"))
_register("rouge2", "ROUGE-2 with the label: pairs of words in common.", lambda: _rouge_n("rouge2"))
_register("rougeL", "ROUGE-L with the label: the longest common subsequence of words.", rouge_l_scorer)
