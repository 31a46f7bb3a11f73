"""The head of a GGUF file: its values and what tensors it holds, read without loading the weights.

A file is hostile until it was read: a count or size that points outside of it ends in ValueError.

Source: ggml, docs/gguf.md (the file format).
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

MAGIC = int.from_bytes(b"GGUF", "little")
_STRING, _ARRAY = 8, 9
_FORMS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Of each type of value that has a fixed size, its form for `struct`."""
_BYTES: dict[int, tuple[int, int]] = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 8: (32, 34), 30: (1, 2)}
"""Elements and bytes of a block of each type of tensor: F32, F16, Q4_0, Q4_1, Q8_0, BF16."""
_ALIGNED = 32

Value = str | float | int | bool


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor lies. `shape` has the fastest dimension first; `offset` is in bytes, from the first tensor."""

    name: bytes
    shape: tuple[int, ...]
    type: int
    offset: int

    def size(self) -> int:
        """Its bytes. Raises KeyError for a type that is not known here."""
        elements, size = _BYTES[self.type]
        return math.prod(self.shape) // elements * size


class Reader:
    """Reads little-endian values one after the other."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self.data, self.at = data, 0

    def take(self, form: str) -> int:
        return int(self._value(form))

    def _value(self, form: str) -> Value:
        (value,) = struct.unpack_from(f"<{form}", self.data, self.at)
        self.at += struct.calcsize(f"<{form}")
        found: Value = value
        return found

    def string(self) -> bytes:
        size = self.take("Q")
        self.at += size
        return self.data[self.at - size : self.at]

    def skip(self, kind: int) -> None:
        self.value(kind)

    def value(self, kind: int) -> Value | None:
        """The next value; None for an array, which is passed over."""
        if kind == _STRING:
            return self.string().decode("utf-8", "replace")
        if kind != _ARRAY:
            return self._value(_FORMS[kind])
        kind, count = self.take("I"), self.take("Q")
        if kind == _STRING:
            for _ in range(count):
                size = self.take("Q")
                self.at += size
        else:  # an array of arrays has no size of its own, and no model has one
            self.at += count * struct.calcsize(f"<{_FORMS[kind]}")
        return None

    def tensor(self) -> Tensor:
        name = self.string()
        shape = tuple(self.take("Q") for _ in range(self.take("I")))
        return Tensor(name, shape, self.take("I"), self.take("Q"))


@dataclass(frozen=True, slots=True)
class Head:
    """What a file says of itself.

    Args:
        values: Its values by key; None for arrays.
        shapes: The shape of each tensor by name, the fastest dimension first.
        types: The type of each tensor by name.
        end: The bytes that the file must have at least; None where a tensor's type has no size known here.
    """

    values: Mapping[str, Value | None]
    shapes: Mapping[str, tuple[int, ...]]
    types: Mapping[str, int]
    end: int | None


def read_head(path: Path) -> Head:
    """The head of a GGUF file; that of a file which did not change since is not read again.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no GGUF file, or ends in its head.
    """
    state = path.stat()
    return _read_head(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=32)
def _read_head(path: Path, size: int, changed: int) -> Head:
    if not size:
        raise ValueError("is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        reader = Reader(data)
        try:
            if reader.take("I") != MAGIC:
                raise ValueError("is no GGUF file")
            reader.take("I")
            n_tensors, n_values = reader.take("Q"), reader.take("Q")
            values = {
                reader.string().decode("utf-8", "replace"): reader.value(reader.take("I")) for _ in range(n_values)
            }
            tensors = [reader.tensor() for _ in range(n_tensors)]
        except (struct.error, KeyError, OverflowError, MemoryError) as error:
            raise ValueError("is cut off or damaged") from error
    end: int | None = None
    if all(tensor.type in _BYTES for tensor in tensors):
        end = padded(reader.at) + max((tensor.offset + tensor.size() for tensor in tensors), default=0)
    by_name = {tensor.name.decode("utf-8", "replace"): tensor for tensor in tensors}
    return Head(
        values,
        {name: tensor.shape for name, tensor in by_name.items()},
        {name: tensor.type for name, tensor in by_name.items()},
        end,
    )


def padded(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED
