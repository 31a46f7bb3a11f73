"""Soft prompts for tests: the vectors that stand in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agent.models.adapters import TOKENS
from agent.models.gguf import read_gguf
from agent.models.quantization import float32_of
from agent.training.base_model import BaseModel

FIRST, SECOND = "token_embd.weight.lora_a", "token_embd.weight.lora_b"


def vectors_in(path: Path, base: BaseModel) -> tuple[dict[int, Any], list[str]]:
    """The vector of each token whose row the file changes, as an engine computes it, and the texts of the tokens."""
    file = read_gguf(path)
    first, second = (float32_of(file, file.tensors[name]) for name in (FIRST, SECOND))
    changed = first @ second.T * (file.values["adapter.lora.alpha"] / first.shape[1])
    ids = [int(token) for token in changed.any(axis=1).nonzero()[0]]
    return {token: base.embedding[token] + changed[token] for token in ids}, json.loads(str(file.values[TOKENS]))
