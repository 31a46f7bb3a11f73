"""The metric `token_f1`: word overlap."""

from __future__ import annotations

import re
import string
from typing import Any

from agent.metrics.base import Options, metric
from agent.metrics.values import Check, as_text, f1, golds, short
from agent.shipped import composed
from agent.types import Field
from agent.worker import Verdict


@metric("token_f1", about="Word overlap with the label, as in SQuAD.", types=("text",))
def token_f1(options: Options, field: Field) -> Check:
    """As in SQuAD (Rajpurkar et al. 2016): no case, punctuation or articles; the best gold counts."""

    def words(text: str) -> list[str]:
        bare = "".join(c for c in composed(text).lower() if c not in string.punctuation)
        return re.sub(r"\b(a|an|the)\b", " ", bare).split() or bare.split()

    def check(got: Any, label: Any) -> Verdict:
        value = max((f1(words(as_text(got)), words(gold)) for gold in golds(label)), default=0.0)
        return value, "" if value == 1 else f"expected {short(label)}, got {short(got)}"

    return check
