"""Read GGUF files with bounds checks, and write small ones.

Source: ggml, docs/gguf.md (the file format) and ggml-common.h (block sizes).
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import InputError
from agent.safe_file import disk_errors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
else:  # numpy is imported where it is used
    Array = Any

F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K, BF16 = 0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 30
BLOCKS: Mapping[int, tuple[int, int]] = {
    F32: (1, 4),
    F16: (1, 2),
    BF16: (1, 2),
    Q4_0: (32, 18),
    Q4_1: (32, 20),
    Q5_0: (32, 22),
    Q5_1: (32, 24),
    Q8_0: (32, 34),
    Q4_K: (256, 144),
    Q5_K: (256, 176),
    Q6_K: (256, 210),
}
"""Elements and bytes of a block by tensor type."""
ALIGNED = 32  # default alignment of tensors in bytes
EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"
_UINT32, _FLOAT32, _STRING, _ARRAY = 4, 6, 8, 9
_FORMS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""`struct` formats of value types with a fixed size."""
_MOST_AXES = 4

Value = int | float | str | bool


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor's place in a file: `shape` in numpy order, `type` of BLOCKS, `start` and `size` in bytes."""

    name: str
    shape: tuple[int, ...]
    type: int
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class GgufFile:
    """Content of a file: scalar values, tensors by name, and its bytes; `head`: bytes before the list of tensors."""

    path: Path
    values: Mapping[str, Value]
    tensors: Mapping[str, Tensor]
    data: mmap.mmap | bytes
    head: int
    arrays: frozenset[str] = frozenset()

    @property
    def aligned(self) -> int:
        return int(self.values.get("general.alignment", ALIGNED))

    def body(self, tensor: Tensor) -> bytes:
        return self.data[tensor.start : tensor.start + tensor.size]


class _Reader:
    def __init__(self, data: mmap.mmap | bytes) -> None:
        self.data, self.at = data, 0

    def take(self, form: str) -> Any:
        (value,) = struct.unpack_from(f"<{form}", self.data, self.at)
        self.at += struct.calcsize(f"<{form}")
        return value

    def string(self) -> bytes:
        size = self.take("Q")
        self._pass(size)
        return self.data[self.at - size : self.at]

    def value(self, kind: int) -> Value | None:
        """Read a value; skip an array and return None."""
        if kind == _STRING:
            return self.string().decode("utf-8", "replace")
        if kind != _ARRAY:
            return self.take(_FORMS[kind])  # type: ignore[no-any-return]
        kind, count = self.take("I"), self.take("Q")
        if kind == _STRING:
            for _ in range(count):
                self.string()
        else:
            self._pass(struct.calcsize(_FORMS[kind]) * count)
        return None

    def _pass(self, size: int) -> None:
        if size > len(self.data) - self.at:
            raise ValueError("it is truncated")
        self.at += size

    def array(self) -> list[str | float]:
        kind, count = self.take("I"), self.take("Q")
        if kind == _STRING:
            return [self.string().decode("utf-8", "replace") for _ in range(count)]
        start = self.at
        self._pass(struct.calcsize(_FORMS[kind]) * count)
        return list(struct.unpack_from(f"<{count}{_FORMS[kind]}", self.data, start))

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """Read name, shape with the fastest axis last, type and offset."""
        name = self.string().decode("utf-8")
        axes = self.take("I")
        if axes > _MOST_AXES:
            raise ValueError(f"tensor {name!r} has {axes} axes")
        return name, tuple(self.take("Q") for _ in range(axes))[::-1], self.take("I"), self.take("Q")


def read_gguf(path: Path) -> GgufFile:
    """Read a file's values and tensors; tensor data stays on disk until used. Raises InputError."""
    data: mmap.mmap | bytes = b""
    with disk_errors(f"{path}: cannot be read", kind=InputError), path.open("rb") as file:
        if file.seek(0, 2) > 0:  # an empty file cannot be mapped
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if data[:4] != b"GGUF":
        raise InputError(f"{path}: not a GGUF file; name one that ends in .gguf and is complete")
    try:
        return _read(path, data)
    except struct.error as error:
        raise InputError(f"{path}: the GGUF file is truncated; fetch or make it again") from error
    except KeyError as error:
        raise InputError(f"{path}: the GGUF file has a value of the unknown type {error}") from error
    except ValueError as error:
        raise InputError(f"{path}: the GGUF file cannot be used: {error}; fetch or make it again") from error


def read_array(file: GgufFile, name: str) -> list[str | float]:
    """Read an array of texts or numbers; empty if it is absent."""
    reader = _Reader(file.data)
    reader.at = 16
    for _ in range(reader.take("Q")):
        found, kind = reader.string().decode("utf-8"), reader.take("I")
        if found == name and kind == _ARRAY:
            return reader.array()
        reader.value(kind)
    return []


def _read(path: Path, data: mmap.mmap | bytes) -> GgufFile:
    reader = _Reader(data)
    reader.at = 4
    version, n_tensors, n_values = reader.take("I"), reader.take("Q"), reader.take("Q")
    if version not in (2, 3):
        raise ValueError(f"its version is {version}, not 2 or 3")
    values: dict[str, Value] = {}
    arrays = set[str]()
    for _ in range(n_values):
        name = reader.string().decode("utf-8")
        if (value := reader.value(reader.take("I"))) is not None:
            values[name] = value
        else:
            arrays.add(name)
    head = reader.at
    listed = [reader.tensor() for _ in range(n_tensors)]
    aligned = values.get("general.alignment", ALIGNED)
    if not isinstance(aligned, int) or aligned < 1:
        raise ValueError(f"its general.alignment is {aligned!r}")
    start = _padded(reader.at, aligned)
    tensors = {name: _placed(name, shape, kind, start + offset, len(data)) for name, shape, kind, offset in listed}
    if len(tensors) < n_tensors:
        raise ValueError("two tensors have one name")
    return GgufFile(path, values, tensors, data, head, frozenset(arrays))


def _placed(name: str, shape: tuple[int, ...], kind: int, start: int, end: int) -> Tensor:
    if kind not in BLOCKS:
        raise ValueError(f"tensor {name!r} has the unknown type {kind}")
    elements, size = BLOCKS[kind]
    if (shape[-1] if shape else 1) % elements:
        raise ValueError(f"the rows of tensor {name!r} are not a multiple of {elements}")
    whole = math.prod(shape) // elements * size
    if start + whole > end:
        raise ValueError(f"it is truncated within tensor {name!r}")
    return Tensor(name, shape, kind, start, whole)


@dataclass(frozen=True, slots=True)
class WrittenTensor:
    """A tensor to write: `shape` in numpy order, `type` of BLOCKS, `body` its bytes."""

    name: str
    shape: tuple[int, ...]
    type: int
    body: Callable[[], bytes]


def kept(file: GgufFile, tensor: Tensor, name: str = "") -> WrittenTensor:
    """Return a tensor to write unchanged, optionally renamed."""
    return WrittenTensor(name or tensor.name, tensor.shape, tensor.type, lambda: file.body(tensor))


def gguf_parts(head: bytes, tensors: Sequence[WrittenTensor], aligned: int = ALIGNED) -> Iterator[bytes]:
    """Yield the bytes of a file in parts."""
    lines, offset = [head], 0
    for tensor in tensors:
        axes = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape[::-1])
        lines += [_text(tensor.name), axes, struct.pack("<IQ", tensor.type, offset)]
        elements, size = BLOCKS[tensor.type]
        offset += _padded(math.prod(tensor.shape) // elements * size, aligned)
    for part in (lambda: b"".join(lines), *(tensor.body for tensor in tensors)):
        yield (body := part())
        yield bytes(_padded(len(body), aligned) - len(body))


def _padded(size: int, aligned: int) -> int:
    return -(-size // aligned) * aligned


def gguf_bytes(values: Mapping[str, Value], tensors: Mapping[str, Array]) -> bytes:
    """Serialize scalar values (floats as float32) and float32 tensors; equal bytes for equal content."""
    import numpy as np

    head = [struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(values))]
    for name, value in values.items():
        head.append(_text(name))
        match value:
            case str():
                head.append(struct.pack("<I", _STRING) + _text(value))
            case float():
                head.append(struct.pack("<If", _FLOAT32, value))
            case _:
                head.append(struct.pack("<II", _UINT32, value))
    made = [
        WrittenTensor(name, tensor.shape, F32, np.ascontiguousarray(tensor, "<f4").tobytes)
        for name, tensor in tensors.items()
    ]
    return b"".join(gguf_parts(b"".join(head), made))


def _text(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data
