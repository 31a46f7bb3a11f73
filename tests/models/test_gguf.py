"""GGUF files: read with bounds, written the same each time; each type of block as the reference has it."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from agent.errors import InputError
from agent.models.gguf import BLOCKS, F32, GgufFile, Tensor, gguf_bytes, read_gguf
from agent.models.quantization import float32_of

REFERENCE = {
    1: "60b914b9944873bc",  # F16
    30: "fa4c3956efa8d243",  # BF16
    2: "fc8a07d28b325399",  # Q4_0
    3: "80491d809d965361",  # Q4_1
    6: "5bec3f2e74c4c8d2",  # Q5_0
    7: "dbe3d6bd71a49d73",  # Q5_1
    8: "03569b6bf1d294e7",  # Q8_0
    12: "e183f6744db3e3de",  # Q4_K
    13: "0eb80016630fb70c",  # Q5_K
    14: "cc6e9b1e9a4fa09a",  # Q6_K
}


def blocks(kind: int, count: int = 40) -> bytes:
    """Random blocks whose scales are finite."""
    rng = np.random.default_rng(kind)
    raw = rng.integers(0, 256, (count, BLOCKS[kind][1]), np.uint8)
    scales = {14: (208,), 3: (0, 2), 7: (0, 2), 12: (0, 2), 13: (0, 2)}.get(kind, (0,))
    for at in scales if kind != 30 else ():
        raw[:, at : at + 2] = rng.normal(0, 0.1, (count, 1)).astype("<f2").view(np.uint8)
    return raw.tobytes()


def dequantized(kind: int) -> bytes:
    raw = blocks(kind)
    tensor = Tensor("a", (40 * BLOCKS[kind][0],), kind, 0, len(raw))
    return float32_of(GgufFile(Path("a"), {}, {}, raw, 0), tensor).astype("<f4").tobytes()


@pytest.mark.parametrize("kind", REFERENCE)
def test_each_type_is_read_as_the_reference_reads_it(kind: int) -> None:
    """The digests are those of what `gguf.quants.dequantize` of the package gguf 0.19.0 makes of the same blocks."""
    assert hashlib.sha256(dequantized(kind)).hexdigest()[:16] == REFERENCE[kind]


def test_every_quantized_type_has_a_reference() -> None:
    assert set(REFERENCE) | {F32} == set(BLOCKS)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tensors = {"a": rng.normal(size=(3, 5)).astype(np.float32), "b.weight": np.arange(7, dtype=np.float32)}
    values = {"general.architecture": "llama", "n": 7, "x": 0.5}
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf_bytes(values, tensors))
    file = read_gguf(path)
    assert file.values == values
    for name, tensor in tensors.items():
        assert np.array_equal(float32_of(file, file.tensors[name]), tensor)
    assert gguf_bytes(values, tensors) == path.read_bytes()


def test_a_file_cut_anywhere_is_refused_in_one_line(tmp_path: Path) -> None:
    whole = gguf_bytes({"general.architecture": "llama", "n": 7}, {"a": np.ones((4, 8), np.float32)})
    path = tmp_path / "a.gguf"
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError) as refused:
            read_gguf(path)
        assert str(refused.value).startswith(f"{path}: ")
        assert "\n" not in str(refused.value)


def _text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def _file(values: bytes = b"", n_values: int = 0, tensors: bytes = b"", n_tensors: int = 0, version: int = 3) -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", version, n_tensors, n_values) + values + tensors + bytes(64)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (_file(version=9), "its version is 9"),
        (_file(_text(b"a") + struct.pack("<I", 99), 1), "unknown type 99"),
        (_file(_text(b"a") + struct.pack("<IIQ", 9, 9, 1), 1), "unknown type 9"),
        (_file(_text(b"a") + struct.pack("<IIQ", 9, 4, 2**62), 1), "truncated"),
        (_file(_text(b"a") + struct.pack("<IQ", 8, 2**62), 1), "truncated"),
        (_file(b"", 2**62), "truncated"),
        (_file(_text(b"general.alignment") + struct.pack("<II", 4, 0), 1), "general.alignment is 0"),
        (_file(tensors=_text(b"t") + struct.pack("<I", 9), n_tensors=1), "9 axes"),
        (_file(tensors=_text(b"t") + struct.pack("<IQIQ", 1, 8, 99, 0), n_tensors=1), "type 99"),
        (_file(tensors=_text(b"t") + struct.pack("<IQIQ", 1, 8, 2, 0), n_tensors=1), "not a multiple of 32"),
        (_file(tensors=(_text(b"t") + struct.pack("<IQIQ", 1, 1, 0, 0)) * 2, n_tensors=2), "one name"),
    ],
)
def test_a_hostile_file_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says):
        read_gguf(path)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.gguf: cannot be read"):
        read_gguf(tmp_path / "none.gguf")
