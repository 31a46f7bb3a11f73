"""Weights from Q4_1 to Q4_0: the same file format, nearly the same weights, nothing else changed."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from agent.models import quantization
from agent.models.quantization import of_q4_1, to_q4_0

SEED = st.integers(0, 2**32 - 1)


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def gguf(tensors: dict[bytes, tuple[tuple[int, ...], int, bytes]]) -> bytes:
    """A file with values of each kind, and tensors: shape, type and content."""
    values = [
        text(b"name") + struct.pack("<I", 8) + text(b"toy"),
        text(b"words") + struct.pack("<IIQ", 9, 8, 2) + text(b"a") + text(b"bc"),
        text(b"flag") + struct.pack("<IB", 7, 1),
        text(b"scale") + struct.pack("<If", 6, 0.5),
    ]
    infos, body = b"", b""
    for name, (shape, kind, content) in tensors.items():
        infos += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, len(body))
        body += content + bytes(-len(content) % 32)
    top = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values)) + b"".join(values) + infos
    return top + bytes(-len(top) % 32) + body


def q4_1(blocks: int, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    scales = rng.normal(0, 0.1, (blocks, 2)).astype(np.float16)
    return np.concatenate([scales.view(np.uint8), rng.integers(0, 256, (blocks, 16), np.uint8)], axis=1).tobytes()


def read_q4_1(content: bytes) -> NDArray[np.float32]:
    return of_q4_1(np.frombuffer(content, np.uint8).reshape(-1, 20))


def read_q4_0(content: bytes) -> NDArray[np.float32]:
    blocks = np.frombuffer(content, np.uint8).reshape(-1, 18)
    scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    halves = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1).astype(np.float32)
    return np.asarray((halves - 8) * scale, np.float32)


@given(SEED, st.integers(1, 6))
def test_each_weight_moves_by_less_than_a_step(seed: int, blocks: int) -> None:
    before = read_q4_1(q4_1(blocks, seed))
    after = read_q4_0(quantization._q4_0(before))
    step = np.abs(before).max(axis=1, keepdims=True) / 8
    assert (np.abs(after - before) <= step * 1.01 + 1e-6).all()  # the end of the other sign has no step of its own
    assert np.median(np.abs(after - before) / (step + 1e-9)) < 0.5


def test_a_block_of_zeros_stays_one() -> None:
    assert (read_q4_0(quantization._q4_0(np.zeros((2, 32), np.float32))) == 0).all()


def test_all_else_of_a_file_stays_as_it_is(tmp_path: Path) -> None:
    norm = np.arange(8, dtype=np.float32).tobytes()
    source, target = tmp_path / "a.gguf", tmp_path / "b.gguf"
    quantized = q4_1(4, 7)
    source.write_bytes(gguf({b"norm": ((8,), 0, norm), b"up": ((64, 2), 3, quantized), b"last": ((8,), 0, norm)}))
    to_q4_0(source, target)
    kept = quantization._q4_0(read_q4_1(quantized))
    assert target.read_bytes() == gguf({b"norm": ((8,), 0, norm), b"up": ((64, 2), 2, kept), b"last": ((8,), 0, norm)})


@pytest.mark.parametrize("content", [b"", b"GGUF", b"no model", gguf({b"up": ((64,), 99, b"")})[:-1]])
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "a.gguf"
    source.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.gguf: no GGUF file with Q4_1 weights"):
        to_q4_0(source, tmp_path / "b.gguf")
