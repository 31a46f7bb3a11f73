"""An adapter as a GGUF file that llama.cpp loads beside its base, named by its hash, and back."""

from __future__ import annotations

import hashlib
from pathlib import Path

from agent.errors import InputError
from agent.files import new_file
from agent.models.adapter_file import ALPHA, FAMILY, FIRST, KIND, SECOND, TYPE, read_adapter
from agent.models.gguf import Value, gguf_bytes, read_gguf
from agent.models.quantization import float32_of
from agent.tuning.base_model import MAPS, Architecture, read_architecture
from agent.tuning.lora import Lora


def write_lora(folder: Path, architecture: Architecture, lora: Lora) -> tuple[Path, str]:
    """Writes `adapter-HASH.gguf`, the same bytes for the same matrices.

    Returns:
        Its path, and its SHA-256 in hex digits.

    Raises:
        OSError: the disk refuses.
    """
    values: dict[str, Value] = {FAMILY: architecture.family, TYPE: "adapter", KIND: "lora"}
    values[ALPHA] = float(lora.scale * lora.rank)
    tensors = {
        f"blk.{number}.{name}.weight{end}": matrix
        for number, layer in enumerate(lora.layers)
        for name, pair in layer.items()
        for end, matrix in zip((FIRST, SECOND), pair, strict=True)
    }
    data = gguf_bytes(values, tensors)
    digest = hashlib.sha256(data).hexdigest()
    path = folder / f"adapter-{digest[:16]}.gguf"
    with new_file(path) as file:
        file.write(data)
    return path, digest


def read_lora(path: Path, base: Path) -> Lora:
    """The matrices of an adapter for `base`; a map that it leaves out has zeros.

    Raises:
        InputError: the adapter is truncated, or does not fit the base.
    """
    model = read_gguf(base)
    architecture = read_architecture(model)
    file = read_adapter(path, model)
    names = {f"blk.{number}.{name}.weight": (number, name) for number in range(architecture.layers) for name in MAPS}
    stems = {name.removesuffix(FIRST) for name in file.tensors if name.endswith(FIRST)}
    if other := sorted(stems - set(names)):
        raise InputError(f"{path}: has matrices for {other[0]}, which is no linear map of a layer")
    ranks = {file.tensors[stem + FIRST].shape[0] for stem in stems}
    if len(ranks) > 1:
        raise InputError(f"{path}: its matrices differ in rank ({', '.join(map(str, sorted(ranks)))})")
    (rank,) = ranks
    lora = Lora(architecture, rank, float(file.values[ALPHA]) / rank)
    for stem in stems:
        number, name = names[stem]
        for end, matrix in zip((FIRST, SECOND), lora.layers[number][name], strict=True):
            matrix[:] = float32_of(file, file.tensors[stem + end])
    return lora
