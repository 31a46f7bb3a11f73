"""A LoRA adapter in the form of the package peft, which transformers and vLLM read, and back, bit for bit.

Needs the package safetensors and no PyTorch. Source: peft, docs (checkpoint format).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from agent.errors import InputError
from agent.models.gguf import Array
from agent.strict import parse_json, read_file
from agent.tuning.base_model import Architecture
from agent.tuning.lora import Lora
from agent.tuning.peft.model import MODULES, hf_order

TENSORS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_MOST_CONFIG, _MOST_RANK = 1_000_000, 1024


def peft_form(lora: Lora, architecture: Architecture, base: str | None) -> dict[str, bytes]:
    """The two files of an adapter by name, the same bytes for the same matrices.

    Args:
        lora: the adapter; a linear map that it leaves as it is in all layers is left out.
        base: what Hugging Face calls the base; None: not known.
    """
    from safetensors.numpy import save

    used = [name for name in MODULES if any(matrix.any() for layer in lora.layers for matrix in layer[name])]
    tensors: dict[str, Array] = {}
    for number, layer in enumerate(lora.layers):
        for name in used:
            first, second = layer[name]
            order = hf_order(name, architecture)
            tensors[_name(number, name, "A")] = np.ascontiguousarray(first)
            tensors[_name(number, name, "B")] = np.ascontiguousarray(second if order is None else second[order])
    alpha = lora.scale * lora.rank
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "target_modules": [MODULES[name].rpartition(".")[2] for name in used],
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    return {TENSORS: save(tensors), CONFIG: (json.dumps(config, indent=2) + "\n").encode()}


def read_peft_form(folder: Path, architecture: Architecture) -> Lora:
    """The adapter in the two files.

    Raises:
        InputError: a file cannot be read, is truncated, or does not fit the base.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        config = parse_json(read_file(folder / CONFIG, _MOST_CONFIG))
        rank, alpha = int(config["r"]), float(config["lora_alpha"])
        if not 1 <= rank <= _MOST_RANK:
            raise ValueError(f"its rank is {rank}, not 1 to {_MOST_RANK}")
        tensors = load_file(folder / TENSORS)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(f"{folder}: no adapter of peft that can be read ({error})") from error
    lora = Lora(architecture, rank, alpha / rank)
    _fill(lora, architecture, tensors, folder)
    return lora


def _fill(lora: Lora, architecture: Architecture, tensors: Mapping[str, Array], folder: Path) -> None:
    """Copies the matrices into an adapter. Raises InputError for one that has no place or another shape."""
    places = {
        _name(number, name, part): (matrix, hf_order(name, architecture) if part == "B" else None)
        for number, layer in enumerate(lora.layers)
        for name, pair in layer.items()
        for part, matrix in zip("AB", pair, strict=True)
    }
    for name, tensor in tensors.items():
        if name not in places or tensor.shape != places[name][0].shape:
            raise InputError(f"{folder / TENSORS}: {name:.80} of the shape {tensor.shape} does not fit the base")
        matrix, order = places[name]
        matrix[slice(None) if order is None else order] = tensor


def _name(layer: int, name: str, part: str) -> str:
    return f"base_model.model.model.layers.{layer}.{MODULES[name]}.lora_{part}.weight"
