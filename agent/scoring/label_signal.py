"""The probability of the right label in a reply's log-probabilities: a graded signal for choosing, never reported.

After few rows right and wrong say little. Over 110 recorded candidates of a 6-label task, among the better half, the
mean of this signal over 8 rows correlated 0.53 with the score on the other rows, and the score over the same 8 rows
0.33; over 22 rows 0.66 and 0.50. The label's probability without normalising over the labels is worse than the score.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.prompt.label_weights import MIN_LABEL_MASS, agree, places, share_of_all

WEIGHT = 1.0  # of the signal beside the score, when candidates are compared


def label_signal(tokens: Sequence[Sequence[tuple[str, float]]], choices: Sequence[str], right: str) -> float | None:
    """The share of the right label in the probability of all labels.

    Args:
        tokens: For each token of the reply its most likely (token, log-probability) pairs. As long as the reply spells
            the right label the shares of its tokens are multiplied.
        right: The row's label.

    Returns:
        A value in [0, 1]; None without tokens or where `right` is no choice.

    >>> round(label_signal([[("yes", -0.1), ("no", -2.4)]], ["yes", "no"], right="yes"), 3)
    0.909
    """
    if not tokens or right not in choices:
        return None
    labels, goal, spelled, signal = [choice.casefold() for choice in choices], right.casefold(), "", 0.0
    for place in places(tokens, labels):
        mine = every = 0.0
        for text, weight in place.listed:
            if any(agree(text, label) for label in labels):
                every += weight
                mine += weight * agree(text, goal)
        signal = (signal if spelled else 1.0) * mine / max(every, MIN_LABEL_MASS)
        if not goal.startswith(place.likeliest):
            break
        spelled = place.likeliest
    return min(1.0, signal)


def label_share(logs: Sequence[float], choices: Sequence[str], right: str) -> float | None:
    """The share of the right label in the probability of all labels, by the log-probability of each.

    Args:
        logs: In nats, in the order of `choices`.
        right: The row's label.

    Returns:
        A value in [0, 1]; None where `right` is no choice.

    >>> round(label_share([-0.1, -2.4], ["yes", "no"], right="yes"), 3)
    0.909
    """
    return share_of_all(logs, choices.index(right)) if right in choices else None


def evidence(value: float, signal: float | None) -> float:
    """The value of a row when candidates are compared: the mean of score and signal, or the score alone."""
    return value if signal is None else (value + WEIGHT * signal) / (1 + WEIGHT)
