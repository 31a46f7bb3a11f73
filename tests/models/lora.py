"""Adapters for tests: random, of rank 2, written by hand as GGUF so that no package is needed."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

LAYERS, WIDTH, KEYS = 30, 576, 192
"""Of the embedded model."""


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def gguf(values: Mapping[str, str | float], tensors: Mapping[str, np.ndarray]) -> bytes:
    """A GGUF file of texts, numbers (float32) and matrices of float32, in rows as numpy has them."""
    pairs = b"".join(
        text(key) + (struct.pack("<I", 8) + text(value) if isinstance(value, str) else struct.pack("<If", 6, value))
        for key, value in values.items()
    )
    infos, body = b"", b""
    for name, matrix in tensors.items():
        infos += text(name) + struct.pack("<I2QIQ", 2, matrix.shape[1], matrix.shape[0], 0, len(body))
        content = matrix.astype("<f4").tobytes()
        body += content + bytes(-len(content) % 32)
    top = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values)) + pairs + infos
    return top + bytes(-len(top) % 32) + body


def lora(
    path: Path, seed: int, *, strength: float = 0.3, layers: int = LAYERS, width: int = WIDTH, **values: str | float
) -> Path:
    """A random adapter of rank 2 for queries and values of the embedded model; `values` replace those of its head
    (`_` for a dot)."""
    rng = np.random.default_rng(seed)
    own: dict[str, str | float] = {
        "general.type": "adapter",
        "adapter.type": "lora",
        "general.architecture": "llama",
        "adapter.lora.alpha": 2.0,
    }
    tensors = {}
    for layer in range(layers):
        for name, rows in (("attn_q", width), ("attn_v", KEYS)):
            tensors[f"blk.{layer}.{name}.weight.lora_a"] = rng.normal(0, width**-0.5, (2, width))
            tensors[f"blk.{layer}.{name}.weight.lora_b"] = rng.normal(0, strength, (rows, 2))
    path.write_bytes(
        gguf(own | {key.replace("_", ".").replace("..", "_"): value for key, value in values.items()}, tensors)
    )
    return path
