"""Models whose log-probabilities know more than their replies: one prefers a label, one copies its examples."""

from __future__ import annotations

import hashlib
import math
from itertools import pairwise
from typing import Any

from tests.cli.world import FILLER, TOPICS, WORD
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
    return listed(likelihoods(messages), messages, body)


def copying(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
    """Takes after the examples that share a word with the last message, and is hardly sure; knows nothing by itself."""
    if "improve the instruction" in messages[0]["content"]:
        return biased(messages, body)
    words = set(WORD.findall(messages[-1]["content"].lower())) - set(FILLER)
    shares = {}
    for topic in TOPICS:
        shown = [
            len(words & set(WORD.findall(user["content"].lower())))
            for user, assistant in pairwise(messages)
            if assistant["role"] == "assistant" and assistant["content"] == topic
        ]
        noise = int(hashlib.sha256(ascii([messages[-1], topic]).encode()).hexdigest()[:4], 16) / 16**4
        shares[topic] = math.exp(0.7 * bool(max(shown, default=0)) + noise)
    total = sum(shares.values())
    return listed({topic: share / total for topic, share in shares.items()}, messages, body)


def listed(shares: dict[str, float], messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
    """The most likely label, with the log-probabilities of all of them where they are asked for."""
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
