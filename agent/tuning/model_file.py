"""A model that was trained whole, as a GGUF file of its own, named by its hash.

Written here and not with the package `gguf`, whose files differ from version to version: the same weights have to be
the same bytes, as their hash tells the replies of one model from those of another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.files import new_files
from agent.models.gguf import ALIGNED, F16, F32, GgufFile, padded, read_gguf, tensor_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def write_model(folder: Path, base: Path, weights: Mapping[str, Array]) -> tuple[Path, str]:
    """Writes `model-HASH.gguf`: the base's values and vocabulary with other weights, matrices in float16.

    Args:
        folder: made if need be.
        base: the GGUF file that the weights began as.
        weights: by name of the tensor in the base, in its shape; a tensor that is not there stays as it is.

    Returns:
        Its path, and its SHA-256 in hex digits.

    Raises:
        InputError: the base cannot be read.
        OSError: the disk refuses.
    """
    digest = hashlib.sha256()
    with new_files(folder) as beside:
        with (beside / "model").open("wb") as file:
            for part in _parts(read_gguf(base), weights):
                digest.update(part)
                file.write(part)
        name = f"model-{digest.hexdigest()[:16]}.gguf"
        (beside / "model").rename(beside / name)
    return folder / name, digest.hexdigest()


def _parts(base: GgufFile, weights: Mapping[str, Array]) -> Iterator[bytes]:
    """The bytes of the file."""
    aligned = int(base.values.get("general.alignment", ALIGNED))
    lines, offset = [], 0
    for name, tensor in base.tensors.items():
        kind, size = tensor.type, tensor.size
        if name in weights:
            kind = F16 if len(tensor.shape) > 1 else F32  # llama.cpp adds and multiplies vectors in float32 alone
            size = weights[name].size * (2 if kind == F16 else 4)
        lines.append(tensor_line(name, tensor.shape, kind, offset))
        offset += padded(size, aligned)
    top = b"".join([base.data[: base.head], *lines])
    yield top + bytes(padded(len(top), aligned) - len(top))
    for name, tensor in base.tensors.items():
        body = base.body(tensor)
        if name in weights:
            body = weights[name].astype("<f2" if len(tensor.shape) > 1 else "<f4").tobytes()
        yield body + bytes(padded(len(body), aligned) - len(body))
