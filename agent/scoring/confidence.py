"""How far the confidence of a prompt's answers can be trusted, on the sealed test; JSON-ready. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from agent.scoring.breakdown import PASS, summary
from agent.stats.calibration import abstain_below, expected_calibration_error, reliability
from agent.types import Outcome

NEGLIGIBLE = 0.01
"""A weight of the model up to which it decides only ties of a classifier."""


def confidence_report(
    won: Sequence[Outcome], dev: Sequence[Outcome], weights: Mapping[str, Any] | None, precision: float | None
) -> dict[str, Any] | None:
    """The reliability of the winner's confidences, and what abstaining below a threshold would leave.

    Args:
        won: the winner's outcomes on the sealed test.
        dev: those on dev, which choose the threshold; with fitted weights, read with weights of other rows.
        weights: the winner's label weights; None: it has none.
        precision: the part of the answers that must be right, in (0, 1); None: no threshold is wanted.

    Returns:
        The object of `Calibration` (`release/result_breakdown.py`); None where no answer has a confidence.
    """
    confidences, right = _known(won)
    if not confidences:
        return None
    bins = reliability(confidences, right)
    return {
        "method": weights["method"] if weights else "none",
        "bias": dict(weights["bias"]) if weights else {},
        "temperature": weights["temperature"] if weights else 1.0,
        "rows": len(confidences),
        "ece": expected_calibration_error(bins),
        "bins": [asdict(one) for one in bins],
        "abstain": _abstaining(confidences, right, dev, precision) if precision is not None else None,
        **({"neighbours": weights["neighbours"]} if weights and "neighbours" in weights else {}),
        **({"prior": _prior(weights)} if weights and "prior" in weights else {}),
    }


def _prior(weights: Mapping[str, Any]) -> dict[str, Any]:
    model = 1 / weights["temperature"]
    return {**weights["prior"], "model_weight": model, "model_adds_nothing": model <= NEGLIGIBLE}


def _known(outcomes: Sequence[Outcome]) -> tuple[list[float], list[bool]]:
    """The confidence of each scored row that has one, and whether its answer is right."""
    pairs = [
        (outcome.prediction.confidence, outcome.value >= PASS)
        for outcome in outcomes
        if outcome.value is not None and outcome.prediction.confidence is not None
    ]
    return [confidence for confidence, _ in pairs], [ok for _, ok in pairs]


def _abstaining(
    confidences: Sequence[float], right: Sequence[bool], dev: Sequence[Outcome], precision: float
) -> dict[str, Any]:
    threshold = abstain_below(*_known(dev), precision)
    kept = [] if threshold is None else [ok for c, ok in zip(confidences, right, strict=True) if c >= threshold]
    reached = summary([float(ok) for ok in kept])
    return {
        "precision": precision,
        "below": threshold,
        "answered": len(kept) / len(right),
        "reached": reached["mean"],
        "reached_ci95": reached["ci95"],
    }
