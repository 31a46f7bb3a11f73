"""A model that prefers one label whatever it reads: its log-probabilities know more than its replies."""

from __future__ import annotations

import math
from typing import Any

from tests.cli.world import TOPICS, WORD
from tests.wire import Fault

PREFERRED = "billing"


def likelihoods(messages: list[dict[str, Any]]) -> dict[str, float]:
    """The probability of each label: the words of the last message say it, and the model shouts PREFERRED."""
    words = WORD.findall(messages[-1]["content"].lower())[-12:]
    weights = {
        topic: math.exp(1.2 * sum(word in known.split() for word in words) + 6.0 * (topic == PREFERRED))
        for topic, known in TOPICS.items()
    }
    total = sum(weights.values())
    return {topic: weight / total for topic, weight in weights.items()}


def biased(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
    """The most likely label, with the log-probabilities of all of them where they are asked for."""
    if "improve the instruction" in messages[0]["content"]:
        return "<instruction>Say which department handles it: billing, delivery, account or repair.</instruction>"
    shares = likelihoods(messages)
    said = max(shares, key=lambda topic: shares[topic])
    if not body.get("logprobs"):
        return said
    top = [{"token": topic, "logprob": math.log(share), "bytes": None} for topic, share in shares.items()]
    token = {"token": said, "logprob": math.log(shares[said]), "bytes": None, "top_logprobs": top}
    message = {"role": "assistant", "content": said, "refusal": None}
    words = sum(len(message["content"].split()) for message in messages)
    return Fault(
        body={
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": body.get("model", ""),
            "choices": [{"index": 0, "message": message, "logprobs": {"content": [token]}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": words, "completion_tokens": 1, "total_tokens": words + 1},
        }
    )
