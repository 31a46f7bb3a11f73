"""The metrics `bleu`, `chrf`, `edit_similarity` and `embedding_similarity`: how near the answer is to the label, each
by a package. Of several labels the nearest counts."""

from __future__ import annotations

from typing import Any

from agent.metrics import overlap
from agent.metrics.base import Options, metric
from agent.metrics.values import Check, as_text, golds, short
from agent.types import Field
from agent.worker import Verdict


@metric("bleu", about="BLEU with the label: runs of one to four words in common.", types=("text",))
def bleu(options: Options, field: Field) -> Check:
    return _check("bleu", overlap.bleu())


@metric("chrf", about="chrF with the label: runs of characters in common.", types=("text",))
def chrf(options: Options, field: Field) -> Check:
    return _check("chrf", overlap.chrf())


@metric("edit_similarity", about="1 - edit distance to the label over the longer length.", types=("text",))
def edit_similarity(options: Options, field: Field) -> Check:
    return _check("edit_similarity", overlap.edit_similarity)


@metric("embedding_similarity", about="Cosine of static word embeddings with the label (an extra).", types=("text",))
def embedding_similarity(options: Options, field: Field) -> Check:
    try:
        scorer = overlap.embedding_similarity()
    except ImportError as missing:
        raise ValueError(
            f"metric embedding_similarity needs a package that is not here ({missing}); "
            "pip install 'promptassay[embedding]'"
        ) from missing
    return _check("embedding_similarity", scorer)


def _check(name: str, scorer: overlap.Scorer) -> Check:
    def check(got: Any, label: Any) -> Verdict:
        value = max((scorer(as_text(got), gold) for gold in golds(label)), default=0.0)
        return value, "" if value > 0.999 else f"{name} {value:.2f} against {short(label)}, got {short(got)}"

    return check
