"""Tiny random models of both families, written as GGUF files."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from agent.models.adapters import TOKENS, SoftTokens
from agent.models.gguf import Value, gguf_bytes, gguf_parts, kept, read_gguf
from agent.models.quantization import float32_of
from agent.training.base_model import BaseModel
from agent.training.loop import Training, TrainingOrder, learner_of
from agent.training.rows import NO_TOKENS, TokenPair
from agent.training.settings import TrainedAdapter, Trainer, TrainingPair, TrainingSettings

WIDTH, HIDDEN, HEADS, KV_HEADS, LAYERS, VOCABULARY = 16, 24, 4, 2, 2, 40
END = 2
FEW = tuple(chr(0x100 + number) for number in range(VOCABULARY))
"""Of single bytes, as a vocabulary of GPT-2 writes them."""
MARKS = ("<unk>", "<|im_start|>", "<|im_end|>")
_PLAIN = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(256) if byte not in _PLAIN]
ALL_BYTES = (*MARKS, *map(chr, _PLAIN), *(chr(0x100 + at) for at in range(len(_OTHERS))))
"""Marks of turns and each of the 256 bytes: any text can be asked."""


def train_pairs(
    base: Path, pairs: Sequence[TrainingPair], settings: TrainingSettings, folder: Path, trainer: Trainer = "numpy"
) -> TrainedAdapter:
    """Trains on pairs, each once an epoch."""
    order = TrainingOrder(base=base, rows=pairs, settings=settings, folder=folder, trainer=trainer, fewest=1)
    return order.train()


def train_tokens(
    base: BaseModel,
    rows: Sequence[TokenPair],
    settings: TrainingSettings,
    soft: SoftTokens = NO_TOKENS,
    *,
    folder: Path,
    trainer: Trainer = "numpy",
    validation: Sequence[TokenPair] = (),
    on_step: Any = None,
) -> TrainedAdapter:
    """Trains on token ids."""
    return Training(learner_of(base, settings, soft, trainer), settings, folder, rows, validation).run(on_step)


def tiny(
    path: Path, family: str = "llama", tied: bool = True, seed: int = 0, vocabulary: int = VOCABULARY, **values: Value
) -> Path:
    """A model file; `values` replace those of its family, by their names with "__" for a dot."""
    rng = np.random.default_rng(seed)
    kv = WIDTH // HEADS * KV_HEADS
    shapes = {
        "attn_q": (WIDTH, WIDTH),
        "attn_k": (kv, WIDTH),
        "attn_v": (kv, WIDTH),
        "attn_output": (WIDTH, WIDTH),
        "ffn_gate": (HIDDEN, WIDTH),
        "ffn_up": (HIDDEN, WIDTH),
        "ffn_down": (WIDTH, HIDDEN),
    }
    tensors: dict[str, Any] = {"token_embd.weight": rng.normal(0, 0.5, (vocabulary, WIDTH))}
    tensors["output_norm.weight"] = rng.uniform(0.5, 1.5, WIDTH)
    if not tied:
        tensors["output.weight"] = rng.normal(0, 0.5, (vocabulary, WIDTH))
    for number in range(LAYERS):
        for name, shape in shapes.items():
            tensors[f"blk.{number}.{name}.weight"] = rng.normal(0, 0.3, shape)
            if family == "qwen2" and name in ("attn_q", "attn_k", "attn_v"):
                tensors[f"blk.{number}.{name}.bias"] = rng.normal(0, 0.3, shape[0])
        for name in ("attn_norm", "ffn_norm"):
            tensors[f"blk.{number}.{name}.weight"] = rng.uniform(0.5, 1.5, WIDTH)
    stated: dict[str, Value] = {
        "block_count": LAYERS,
        "embedding_length": WIDTH,
        "feed_forward_length": HIDDEN,
        "context_length": 64,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 100.0,
    } | {name.replace("__", "."): value for name, value in values.items()}
    head = {"general.architecture": family, "tokenizer.ggml.eos_token_id": END}
    path.write_bytes(gguf_bytes(head | {f"{family}.{name}": value for name, value in stated.items()}, tensors))
    return path


def rows(count: int, seed: int = 0, shared: int = 3) -> list[TokenPair]:
    """Rows that begin alike; the prompt's last token decides the answer."""
    rng = np.random.default_rng(seed)
    start = tuple(range(5, 5 + shared))
    made = []
    for _ in range(count):
        own = tuple(int(token) for token in rng.integers(10, 30, int(rng.integers(2, 6))))
        made.append(TokenPair((*start, *own), (30 + own[-1] % 3, 34 + own[-1] % 3, END)))
    return made


def with_vocabulary(
    path: Path, texts: Sequence[str] = FEW, special: int = 0, control: Mapping[int, str] = MappingProxyType({})
) -> Path:
    """The file with a vocabulary, so that llama.cpp loads it; the first `special` tokens, and those of `control` by
    their ids, are marks and no text."""
    file = read_gguf(path)
    count = len(texts)
    tokens = [control.get(number, text).encode() for number, text in enumerate(texts)]
    types = [3 if number < special or number in control else 1 for number in range(count)]
    arrays = {
        "tokens": struct.pack("<IQ", 8, count) + b"".join(struct.pack("<Q", len(one)) + one for one in tokens),
        "token_type": struct.pack(f"<IQ{count}i", 5, count, *types),
        "merges": struct.pack("<IQ", 8, 1) + struct.pack("<Q", 3) + b"a b",
    }
    added = [_value(f"tokenizer.ggml.{name}", struct.pack("<I", 9) + array) for name, array in arrays.items()]
    added += [_value("tokenizer.ggml.model", struct.pack("<IQ", 8, 4) + b"gpt2")]
    head = file.data[24 : file.head]
    counts = struct.pack("<4sIQQ", b"GGUF", 3, len(file.tensors), len(file.values) + len(added))
    kept_as_they_are = [kept(file, tensor) for tensor in file.tensors.values()]
    path.write_bytes(b"".join(gguf_parts(b"".join([counts, head, *added]), kept_as_they_are)))
    return path


def _value(name: str, value: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name.encode() + value


def speaking(path: Path, **values: Value) -> Path:
    """A model that can be asked and trained on any text, and served; what it says is noise."""
    made = tiny(path, vocabulary=len(ALL_BYTES), context_length=4096, **values)
    return with_vocabulary(made, ALL_BYTES, len(MARKS))


def vectors_in(path: Path, base: BaseModel) -> tuple[dict[int, Any], list[str]]:
    """The vectors of a soft prompt by token, as an engine computes them from its file, and the texts of the tokens."""
    file = read_gguf(path)
    first, second = (float32_of(file, file.tensors[f"token_embd.weight.lora_{end}"]) for end in "ab")
    changed = first @ second.T * (file.values["adapter.lora.alpha"] / first.shape[1])
    ids = [int(token) for token in changed.any(axis=1).nonzero()[0]]
    return {token: base.embedding[token] + changed[token] for token in ids}, json.loads(str(file.values[TOKENS]))
