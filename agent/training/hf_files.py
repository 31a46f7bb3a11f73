"""Hugging Face files: weights of a model folder in GGUF layout, and adapters in peft's format.

Only safetensors are read, because other weight files can hold code. Source: peft docs, checkpoint format.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from agent.errors import InputError
from agent.extras import require
from agent.models.gguf import Array, read_gguf
from agent.safe_data import parse_json
from agent.safe_file import read_file, sha256_of
from agent.training.base_model import FAMILIES, Architecture, BaseModel, assembled, read_architecture
from agent.training.parameters import Lora

MODULES: Mapping[str, str] = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""Linear maps of a layer, by our names."""
NORMS: Mapping[str, str] = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
Order = Any
"""An index of rows: an array, or SAME."""
SAME = slice(None)
_WHOLE: Mapping[str, str] = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def hf_name(name: str) -> str:
    """Return the name in transformers of a tensor of a GGUF file.

    >>> hf_name("blk.3.attn_q.weight"), hf_name("token_embd.weight")
    ('model.layers.3.self_attn.q_proj.weight', 'model.embed_tokens.weight')
    """
    if name in _WHOLE:
        return _WHOLE[name]
    _, layer, part, end = name.split(".")
    return f"model.layers.{layer}.{MODULES.get(part) or NORMS[part]}.{end}"


def hf_order(name: str, architecture: Architecture) -> Order:
    """Return an index of the file's rows of a map, in the order of transformers."""
    heads = {"attn_q": architecture.heads, "attn_k": architecture.kv_heads}.get(name)
    if heads is None or not architecture.interleaved:
        return SAME
    return np.arange(heads * architecture.head).reshape(heads, architecture.head // 2, 2).swapaxes(1, 2).reshape(-1)


def tensors_of(base: BaseModel) -> Iterator[tuple[str, Array, Order]]:
    """Yield each tensor of a base in a fixed order. Each has its name, values and row order (`hf_order`)."""
    yield "token_embd.weight", base.embedding, SAME
    if base.output is not base.embedding:
        yield "output.weight", base.output, SAME
    yield "output_norm.weight", base.output_norm, SAME
    for number, layer in enumerate(base.layers):
        for name, matrix in layer.maps.items():
            yield f"blk.{number}.{name}.weight", matrix, hf_order(name, base.architecture)
        for name, bias in layer.biases.items():
            yield f"blk.{number}.{name}.bias", bias, hf_order(name, base.architecture)
        yield f"blk.{number}.attn_norm.weight", layer.attn_norm, SAME
        yield f"blk.{number}.ffn_norm.weight", layer.ffn_norm, SAME


# -- the weights of a model folder ------------------------------------------------------------------------------------

CONFIG = "config.json"
WEIGHTS = "model*.safetensors"
_MOST_CONFIG = 1_000_000
_ALIKE = 0.9
"""Minimum cosine of a matrix and its rounded copy; 4 bits give 0.99, another model about 0."""


_SIZES = {
    "hidden_size": "width",
    "intermediate_size": "hidden",
    "num_attention_heads": "heads",
    "num_hidden_layers": "layers",
    "num_key_value_heads": "kv_heads",
    "vocab_size": "vocabulary",
}
"""Names of config.json, and ours."""


def folder_fault(folder: Path, base: Path | None = None) -> str:
    """Return why a folder cannot replace the weights of a file (`base`). "" if it can."""
    if not (folder / CONFIG).is_file():
        return f"{folder}: not a Hugging Face model folder; it has no {CONFIG}"
    try:
        config = parse_json(read_file(folder / CONFIG, _MOST_CONFIG))
    except (OSError, ValueError) as error:
        return f"{folder / CONFIG}: cannot be read ({error})"
    family = config.get("model_type") if isinstance(config, dict) else None
    if family not in FAMILIES:
        return f"{folder}: unsupported family {family!r:.40}; training needs one of {', '.join(FAMILIES)}"
    if not any(folder.glob(WEIGHTS)):
        return f"{folder}: has no {WEIGHTS}; save the model with safetensors (`save_pretrained` does)"
    try:
        architecture = None if base is None else read_architecture(read_gguf(base))
    except InputError:
        architecture = None  # reported by the check of the file itself
    if architecture is None:
        return ""
    wanted = {"model_type": architecture.family} | {key: getattr(architecture, ours) for key, ours in _SIZES.items()}
    other = [f"{key} {config[key]!r:.40}, not {of}" for key, of in wanted.items() if config.get(key, of) != of]
    return f"{folder}: not the model that {base} was made from: {', '.join(other)}" if other else ""


def with_weights(base: BaseModel, folder: Path) -> BaseModel:
    """Return the base with the weights of a folder (config.json, model*.safetensors).

    Raises InputError where the extra is missing, or the folder holds no model or another one.
    """
    require("tune", "training on a Hugging Face folder")
    if fault := folder_fault(folder, base.path):
        raise InputError(fault)
    import safetensors.torch

    files, orders = sorted(folder.glob(WEIGHTS)), {name: order for name, _, order in tensors_of(base)}
    try:
        state = {name: read for path in files for name, read in safetensors.torch.load_file(path).items()}
        digest = hashlib.sha256(base.sha256.encode())
        for path in files:
            digest.update(bytes.fromhex(sha256_of(path)))
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{folder}: its weights cannot be read ({error}); fetch the folder again") from error

    def tensor(name: str, *shape: int) -> Array:
        """Return a tensor in the layout of the file."""
        found = state.get(hf_name(name))
        if found is None or found.shape != shape:
            stated = "missing" if found is None else tuple(found.shape)
            what = f"{hf_name(name)} is {stated}, not {shape}"
            raise InputError(f"{folder}: {what}; it is not the model that {base.path} was made from")
        read: Array = found.float().numpy()
        made = np.empty_like(read)
        made[orders[name]] = read
        return made

    made = assembled(base.architecture, tensor, orders, digest.hexdigest(), base.path)
    for number, (ours, theirs) in enumerate(zip(base.layers, made.layers, strict=True)):
        for name, matrix in ours.maps.items():
            other = theirs.maps[name]
            cosine = float(np.vdot(matrix, other)) / max(float(np.linalg.norm(matrix) * np.linalg.norm(other)), 1e-30)
            if cosine < _ALIKE:
                raise InputError(
                    f"{folder}: {name} of layer {number} is not what {base.path} has (cosine {cosine:.2f}); give the "
                    "folder that the file was made from"
                )
    return replace(made, frequencies=base.frequencies)


# -- adapters in the form of peft, which transformers and vLLM read, and back, bit for bit -----------------------------

TENSORS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
_MOST_RANK = 1024


def peft_form(lora: Lora, architecture: Architecture, base: str | None) -> dict[str, bytes]:
    """Return the two files of an adapter by name. Leaves out maps that are zero in all layers.

    Equal matrices give equal bytes. `base`: its Hugging Face name; None: unknown.
    """
    from safetensors.numpy import save

    used = [name for name in MODULES if any(matrix.any() for layer in lora.layers for matrix in layer[name])]
    tensors = {name: np.ascontiguousarray(matrix[order]) for name, matrix, order in _matrices(lora, architecture, used)}
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
    return {TENSORS: save(tensors), ADAPTER_CONFIG: (json.dumps(config, indent=2) + "\n").encode()}


def read_peft_form(folder: Path, architecture: Architecture) -> Lora:
    """Read an adapter from its two files. Raises InputError where they are damaged or do not fit the base."""
    import safetensors.numpy

    try:
        config = parse_json(read_file(folder / ADAPTER_CONFIG, _MOST_CONFIG))
        rank, alpha = int(config["r"]), float(config["lora_alpha"])
        if not 1 <= rank <= _MOST_RANK:
            raise ValueError(f"its rank is {rank}, not 1 to {_MOST_RANK}")
        tensors = safetensors.numpy.load_file(folder / TENSORS)
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise InputError(f"{folder}: no adapter of peft that can be read ({error})") from error
    lora = Lora(architecture, rank, alpha / rank)
    places = {name: (matrix, order) for name, matrix, order in _matrices(lora, architecture, MODULES)}
    for name, tensor in tensors.items():
        if name not in places or tensor.shape != places[name][0].shape:
            raise InputError(f"{folder / TENSORS}: {name:.80} of the shape {tensor.shape} does not fit the base")
        matrix, order = places[name]
        matrix[order] = tensor
    return lora


def _matrices(lora: Lora, architecture: Architecture, names: Iterable[str]) -> Iterator[tuple[str, Array, Order]]:
    for number, layer in enumerate(lora.layers):
        for name in names:
            first, second = layer[name]
            place = f"base_model.model.model.layers.{number}.{MODULES[name]}"
            yield f"{place}.lora_A.weight", first, SAME
            yield f"{place}.lora_B.weight", second, hf_order(name, architecture)
