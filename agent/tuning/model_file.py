"""A model that was trained whole, as a GGUF file of its own, named by its hash.

Written here and not with the package `gguf`, whose files differ from version to version: the same weights have to be
the same bytes, as their hash tells the replies of one model from those of another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from agent.files import new_files
from agent.models.gguf import F16, F32, Array, GgufFile, Tensor, WrittenTensor, gguf_parts, kept, read_gguf


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
    tensors = [
        _written(tensor, weights[name]) if name in weights else kept(base, tensor)
        for name, tensor in base.tensors.items()
    ]
    return gguf_parts(base.data[: base.head], tensors, base.aligned)


def _written(tensor: Tensor, weights: Array) -> WrittenTensor:
    is_matrix = len(tensor.shape) > 1  # llama.cpp adds and multiplies vectors in float32 alone
    kind, form = (F16, "<f2") if is_matrix else (F32, "<f4")
    return WrittenTensor(tensor.name, tensor.shape, kind, lambda: weights.astype(form).tobytes())
