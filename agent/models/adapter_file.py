"""GGUF adapters (LoRA): what an adapter file holds, and whether it fits a base.

Source: llama.cpp, convert_lora_to_gguf.py and src/llama-adapter.cpp (names of values and tensors).
"""

from __future__ import annotations

from pathlib import Path

from agent.errors import InputError
from agent.models.gguf import GgufFile, read_gguf

TYPE = "general.type"
FAMILY = "general.architecture"
KIND = "adapter.type"
ALPHA = "adapter.lora.alpha"
FIRST, SECOND = ".lora_a", ".lora_b"
"""Ends of the names of A (rank, inputs) and B (outputs, rank), after the name of the base's tensor."""
_SHOWN = 3


def read_adapter(path: Path, base: GgufFile) -> GgufFile:
    """An adapter file that fits `base`.

    Raises:
        InputError: it is truncated, no adapter, or one for another model; in one line.
    """
    file = read_gguf(path)
    if file.values.get(TYPE) != "adapter" or file.values.get(KIND) != "lora":
        raise InputError(f"{path}: a GGUF file, but no LoRA adapter; name one whose general.type is adapter")
    family, wanted = file.values.get(FAMILY), base.values.get(FAMILY)
    if family != wanted:
        raise InputError(f"{path}: an adapter for the family {family!r}, and {base.path.name} is {wanted!r}")
    wrong = [] if file.tensors else ["it has no matrices"]
    alpha = file.values.get(ALPHA)
    if not isinstance(alpha, float) or not 0 < alpha < float("inf"):
        wrong.append(f"its {ALPHA} is {alpha!r}")
    for name in file.tensors:
        if (reason := _misfit(name, file, base)) and reason not in wrong:
            wrong.append(reason)
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise InputError(f"{path}: does not fit {base.path.name}: {'; '.join(wrong[:_SHOWN])}{more}")
    return file


def _misfit(name: str, file: GgufFile, base: GgufFile) -> str:
    """Why a matrix is none of this base; "": it is one."""
    stem = name.removesuffix(FIRST if name.endswith(FIRST) else SECOND)
    a, b, weight = file.tensors.get(stem + FIRST), file.tensors.get(stem + SECOND), base.tensors.get(stem)
    if stem == name or a is None or b is None:
        return f"{name} is no half of a pair"
    if weight is None:
        return f"there is no {stem}"
    shapes = a.shape, b.shape, weight.shape
    if [len(shape) for shape in shapes] != [2, 2, 2] or not a.shape[0] == b.shape[1] > 0:
        return f"the matrices of {stem} do not belong together"
    if (b.shape[0], a.shape[1]) != weight.shape:
        return f"{stem} is {weight.shape[0]} x {weight.shape[1]}, not {b.shape[0]} x {a.shape[1]}"
    return ""
