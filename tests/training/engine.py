"""The engine without the project's model class: token ids in, log-probabilities out, with an adapter or without."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xllamacpp


def load(base: Path, adapter: Path | None = None) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = str(base)
    params.n_ctx = 1024
    params.n_parallel = 1
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.warmup = False
    params.verbosity = -1
    if adapter is not None:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
    return xllamacpp.Server(params)


def top(server: Any, ids: Sequence[int], count: int = 5) -> dict[int, float]:
    """The most likely next tokens and their log-probabilities."""
    reply = server.handle_completions({"prompt": list(ids), "n_predict": 1, "temperature": 0, "n_probs": count})
    return {one["id"]: one["logprob"] for one in reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]}


def log_probabilities(scores: Any) -> Any:
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
