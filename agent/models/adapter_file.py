"""GGUF adapters (LoRA): what an adapter file holds, and whether it fits a base.

Source: llama.cpp, convert_lora_to_gguf.py and src/llama-adapter.cpp (names of values and tensors).
"""

from __future__ import annotations

from pathlib import Path

from agent.errors import InputError
from agent.models.gguf import GgufFile, read_gguf
from agent.models.untied import EMBEDDING

TYPE = "general.type"
FAMILY = "general.architecture"
KIND = "adapter.type"
ALPHA = "adapter.lora.alpha"
FIRST, SECOND = ".lora_a", ".lora_b"
"""Ends of the names of A (rank, inputs) and B (outputs, rank), after the name of the base's tensor."""


def read_adapter(path: Path, base: GgufFile) -> GgufFile:
    """An adapter file that fits `base`.

    Raises:
        InputError: it is truncated, no adapter, or one for another model; in one line.
    """
    file = read_gguf(path)
    why = unusable_adapter(file) or unlike_base(file, base)
    alpha = file.values.get(ALPHA)
    if not why and not (isinstance(alpha, float) and 0 < alpha < float("inf")):
        why = f"its {ALPHA} is {alpha!r}"
    if why:
        raise InputError(f"{path}: {why}")
    return file


def unusable_adapter(file: GgufFile) -> str:
    """What is wrong with the file by itself, or ""."""
    kind, form = file.values.get(TYPE), file.values.get(KIND)
    if kind != "adapter":
        return f"is a GGUF file of the type {str(kind or 'model')!r:.40}, not an adapter"
    if form != "lora":
        return f"is an adapter of the type {str(form)!r:.40}, not lora"
    if "adapter.alora.invocation_tokens" in {*file.arrays, *file.values}:
        return "is an adapter that begins in the middle of a prompt (aLoRA), which is not served"
    pairs = {changed_tensor(name) for name in file.tensors}
    if not pairs or any(not name or f"{name}{part}" not in file.tensors for name in pairs for part in (FIRST, SECOND)):
        return "does not hold a matrix .lora_a and one .lora_b for each tensor that it changes"
    return ""


def unlike_base(file: GgufFile, base: GgufFile) -> str:
    """Where an adapter does not fit a base, or ""."""
    mine, theirs = file.values.get(FAMILY), base.values.get(FAMILY)
    if mine != theirs:
        return f"is for the architecture {str(mine)!r:.40}, not {str(theirs)!r:.40}"
    for name in dict.fromkeys(map(changed_tensor, file.tensors)):
        first, second = (file.tensors[f"{name}{part}"].shape for part in (FIRST, SECOND))
        if name not in base.tensors:
            return f"changes {name!r:.60}, which the model does not have"
        shape = base.tensors[name].shape
        if len(shape) != 2 or len(first) != 2 or len(second) != 2:
            return f"changes {name!r:.60}, which is no matrix"
        if name == EMBEDDING:  # looked up and not multiplied: its first matrix is transposed
            fits = (first[0], second[0]) == shape and first[1] == second[1] > 0
        else:
            fits = (second[0], first[1]) == shape and second[1] == first[0] > 0
        if not fits:
            return f"has {first} and {second} for {name!r:.60}, which is {shape} in the model"
    return ""


def changed_tensor(name: str) -> str:
    """The tensor that a matrix of an adapter changes; "" for what is no such matrix."""
    return next((name.removesuffix(part) for part in (FIRST, SECOND) if name.endswith(part)), "")
