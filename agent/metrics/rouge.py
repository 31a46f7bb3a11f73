"""The metrics `rouge1`, `rouge2` and `rougeL`: F-measure of the package rouge_score over the words of any script, with
its stemmer for English."""

from __future__ import annotations

from typing import Any

from agent.metrics.base import Options, metric
from agent.metrics.overlap import Scorer, Words, rouge_l
from agent.metrics.values import Check, as_text, golds, short
from agent.types import Field
from agent.worker import Verdict


@metric("rouge1", about="ROUGE-1 with the label: single words in common.", types=("text",))
def rouge1(options: Options, field: Field) -> Check:
    return _check("rouge1", _counted("rouge1"))


@metric("rouge2", about="ROUGE-2 with the label: pairs of words in common.", types=("text",))
def rouge2(options: Options, field: Field) -> Check:
    return _check("rouge2", _counted("rouge2"))


@metric("rougeL", about="ROUGE-L with the label: the longest common subsequence of words.", types=("text",))
def rougeL(options: Options, field: Field) -> Check:
    return _check("rougeL", rouge_l())


def _counted(name: str) -> Scorer:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([name], tokenizer=Words())
    return lambda text, gold: float(scorer.score(gold, text)[name].fmeasure)


def _check(name: str, likeness: Scorer) -> Check:
    def check(got: Any, label: Any) -> Verdict:
        wanted, text = golds(label), as_text(got)
        found = 1.0 if text in wanted else max((likeness(text, gold) for gold in wanted), default=0.0)
        value = min(1.0, max(0.0, float(found)))
        return value, "" if value > 0.999 else f"{name} {value:.2f} against {short(label)}, got {short(got)}"

    return check
