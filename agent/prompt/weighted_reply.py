"""A reply with its log-probabilities as a prediction: read as it stands, or decided by label weights. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent.prompt.label_weights import LabelWeights, Tokens, label_scores, weighed
from agent.prompt.reply_parser import parse_reply
from agent.shipped import Field, Prediction


def read_reply(
    text: str,
    tokens: Tokens,
    outputs: tuple[Field, ...],
    reasoning: bool,
    weights: LabelWeights | None,
    votes: Sequence[float] = (),
    exact: Sequence[float] = (),
) -> Prediction:
    """The prediction of a reply, with its confidence where the reply begins with a label; never raises.

    Args:
        text: The reply.
        tokens: Its log-probabilities; without them, and where they begin with no label, it is read as it stands.
        outputs: The output fields.
        reasoning: As of `parse_reply`.
        weights: None: the reply as it stands says the answer.
        votes: For each label those of `LabelWeights.scores`, where the weights need some.
        exact: The log-probability of each label, of a model that scores labels; then `tokens` are not looked at.
    """
    prediction = parse_reply(text, outputs, reasoning=reasoning)
    if not (tokens or exact) or reasoning or len(outputs) != 1 or not outputs[0].choices:
        return prediction
    logs = exact if len(exact) == len(outputs[0].choices) else label_scores(tokens, outputs[0].choices)
    return prediction if logs is None else weighed(prediction, logs, outputs[0], weights, votes)


def tokens_of(logprobs: Sequence[Any]) -> Tokens:
    """Log-probabilities as pairs, from pairs or from what OpenAI gives for each token; () for anything else."""
    try:
        return tuple(tuple((str(token), float(log)) for token, log in pairs_of(place)) for place in logprobs)
    except (AttributeError, KeyError, TypeError, ValueError):
        return ()


def pairs_of(place: Any) -> list[tuple[Any, Any]]:
    """The most likely tokens at one place, with their log-probabilities; raises for what is neither form."""
    if isinstance(place, Mapping):  # as JSON
        return [(top["token"], top["logprob"]) for top in place["top_logprobs"]]
    if hasattr(place, "top_logprobs"):
        return [(top.token, top.logprob) for top in place.top_logprobs]
    return list(place)
