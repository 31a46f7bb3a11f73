"""A copy of a model whose output weights stand by themselves, for adapters of the token embedding.

Where a file has one matrix for embedding and output, llama.cpp puts an adapter of the embedding on the output, too,
where its shapes do not fit, and ends the process. The copy has the matrix twice, byte for byte, so that it answers as
the model does. It is made once for each model, in the cache folder, and checked before each use.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path

from agent.errors import InputError
from agent.files import new_file, sha256_of
from agent.models.gguf import ALIGNED, GgufFile, padded, read_gguf, tensor_line
from agent.models.weights import cache_folder

EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"
_COUNTS = 8
"""Where the number of tensors stands in a file."""


def is_tied(model: GgufFile) -> bool:
    """Whether one matrix is both the embedding and the output weights."""
    return EMBEDDING in model.tensors and OUTPUT not in model.tensors


def untied(path: Path) -> Path:
    """The copy of a model that ties its weights; made where it is not there or not whole.

    Raises:
        InputError: the model cannot be read, or the disk refuses.
    """
    model = read_gguf(path)
    wanted = hashlib.sha256()
    for part in _parts(model):
        wanted.update(part)
    digest = wanted.hexdigest()
    copy = cache_folder() / f"untied-{digest[:16]}.gguf"
    try:
        if copy.is_file() and sha256_of(copy) == digest:
            return copy
        copy.parent.mkdir(parents=True, exist_ok=True)
        with new_file(copy) as file:
            for part in _parts(model):
                file.write(part)
    except OSError as error:
        raise InputError(
            f"{copy}: the copy of {path.name} that an adapter of its embedding needs cannot be kept "
            f"({error.strerror or error}); make room, or set OPTIMIZE_CACHE to another folder"
        ) from error
    return copy


def _parts(model: GgufFile) -> Iterator[bytes]:
    """The bytes of the copy."""
    named = [*model.tensors.items(), (OUTPUT, model.tensors[EMBEDDING])]
    aligned = int(model.values.get("general.alignment", ALIGNED))
    lines, offset = [], 0
    for name, tensor in named:
        lines.append(tensor_line(name, tensor.shape, tensor.type, offset))
        offset += padded(tensor.size, aligned)
    head = model.data[: model.head]
    counts = struct.pack("<Q", len(named))
    top = b"".join([head[:_COUNTS], counts, head[_COUNTS + 8 :], *lines])
    yield top + bytes(padded(len(top), aligned) - len(top))
    for _, tensor in named:
        yield model.body(tensor)
        yield bytes(padded(tensor.size, aligned) - tensor.size)
