"""Weights of a GGUF file of the llama or qwen2 family as numpy arrays.

Names and layouts are those of the file. A llama file orders the rows of its query and key weights so that adjacent rows
rotate together; nothing is permuted here or in an adapter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agent.errors import InputError
from agent.models.gguf import F16, F32, Array, GgufFile, Tensor, WrittenTensor, gguf_parts, kept, read_gguf
from agent.models.quantization import float32_of
from agent.safe_file import new_files

MAPS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
"""Linear maps of a layer, which an adapter changes."""
FAMILIES = ("llama", "qwen2")
_REFUSED = {"expert_count": "a mixture of experts", "attention.sliding_window": "attention in a sliding window"}
_END_OF_TURN = ("tokenizer.ggml.eot_token_id", "tokenizer.ggml.eos_token_id")


@dataclass(frozen=True, slots=True)
class Architecture:
    """Sizes of a decoder; `interleaved`: rotary encoding rotates the pairs (2i, 2i + 1), else (i, i + head / 2)."""

    family: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    head: int
    hidden: int
    vocabulary: int
    context: int
    interleaved: bool
    theta: float
    epsilon: float
    end_of_turn: int

    def shape(self, name: str) -> tuple[int, int]:
        inner, kv = self.heads * self.head, self.kv_heads * self.head
        return {
            "attn_q": (inner, self.width),
            "attn_k": (kv, self.width),
            "attn_v": (kv, self.width),
            "attn_output": (self.width, inner),
            "ffn_gate": (self.hidden, self.width),
            "ffn_up": (self.hidden, self.width),
            "ffn_down": (self.width, self.hidden),
        }[name]


@dataclass(frozen=True, slots=True)
class Layer:
    """Weights of a layer: maps (outputs, inputs) and biases by name, and two norms (width,)."""

    maps: Mapping[str, Array]
    biases: Mapping[str, Array]
    attn_norm: Array
    ffn_norm: Array


@dataclass(frozen=True, slots=True)
class BaseModel:
    """Weights of a decoder; `output` is `embedding`, (vocabulary, width), where the file ties them.

    `frequencies`: (head / 2,), radians per position. `sha256`: of the file; with weights from a folder, of both.
    """

    architecture: Architecture
    layers: tuple[Layer, ...]
    embedding: Array
    output: Array
    output_norm: Array
    frequencies: Array
    sha256: str
    path: Path


def read_architecture(file: GgufFile) -> Architecture:
    """Read the sizes of a file. Raises InputError with all reasons against training it."""
    values = file.values
    family = str(values.get("general.architecture", ""))
    if family not in FAMILIES:
        raise InputError(f"{file.path}: unsupported family {family!r}; training needs one of {', '.join(FAMILIES)}")
    wrong = list[str]()

    def number(key: str, otherwise: float = 0.0) -> float:
        value = values.get(f"{family}.{key}", otherwise)
        if isinstance(value, str) or not value > 0:
            wrong.append(f"it states no {family}.{key}")
            return 1.0
        return float(value)

    width, heads = int(number("embedding_length")), int(number("attention.head_count"))
    head = int(number("attention.key_length", width // max(1, heads)))
    kv_heads = int(number("attention.head_count_kv", heads))
    embedding = file.tensors.get("token_embd.weight")
    end_of_turn = next((values[key] for key in _END_OF_TURN if key in values), None)
    architecture = Architecture(
        family=family,
        layers=int(number("block_count")),
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        head=head,
        hidden=int(number("feed_forward_length")),
        vocabulary=embedding.shape[0] if embedding else 0,
        context=int(number("context_length")),
        interleaved=family == "llama",
        theta=number("rope.freq_base", 10000.0),
        epsilon=number("attention.layer_norm_rms_epsilon"),
        end_of_turn=end_of_turn if isinstance(end_of_turn, int) else -1,
    )
    wrong += [f"it has {what}" for key, what in _REFUSED.items() if values.get(f"{family}.{key}")]
    scaling = values.get(f"{family}.rope.scaling.type", "none")
    if scaling != "none" and values.get(f"{family}.rope.scaling.factor", 1.0) != 1.0:
        wrong.append(f"its positions are scaled ({scaling})")
    if not 0 <= architecture.end_of_turn < architecture.vocabulary:
        wrong.append(f"its {_END_OF_TURN[-1]} is not in its vocabulary")
    if architecture.layers > len(file.tensors):
        wrong.append(f"it states {architecture.layers} layers and has {len(file.tensors)} tensors")
    if not wrong:
        if values.get(f"{family}.rope.dimension_count", head) != head or head % 2:
            wrong.append("only a part of each head is rotated")
        if values.get(f"{family}.attention.value_length", head) != head:
            wrong.append("its keys and values differ in size")
        if heads % kv_heads:
            wrong.append(f"{heads} heads do not share {kv_heads} evenly")
    if wrong:
        raise InputError(f"{file.path}: cannot be trained: {'; '.join(wrong)}")
    return architecture


def load_base(path: Path) -> BaseModel:
    """Load the weights of a GGUF file, dequantized to float32. Raises InputError where they cannot be trained."""
    file = read_gguf(path)
    architecture, wrong = read_architecture(file), list[str]()

    def tensor(name: str, *shape: int) -> Array:
        found = file.tensors.get(name)
        if found is None or found.shape != shape:
            wrong.append(f"{name} is {found.shape if found else 'missing'}, not {shape}")
            return np.zeros(0, np.float32)
        return float32_of(file, found)

    sha256 = hashlib.sha256(file.data).hexdigest()
    model = assembled(architecture, tensor, file.tensors.keys(), sha256, path)
    if wrong:
        raise InputError(f"{path}: cannot be trained: {'; '.join(wrong[:5])}")
    return model


def assembled(
    architecture: Architecture, tensor: Callable[..., Array], names: Collection[str], sha256: str, path: Path
) -> BaseModel:
    """Assemble a model; `tensor` reads one by name and shape, `names` lists the existing ones."""

    def layer(start: str) -> Layer:
        shapes = {name: architecture.shape(name) for name in MAPS}
        biased = [name for name in MAPS if f"{start}.{name}.bias" in names]
        return Layer(
            maps={name: tensor(f"{start}.{name}.weight", *shape) for name, shape in shapes.items()},
            biases={name: tensor(f"{start}.{name}.bias", shapes[name][0]) for name in biased},
            attn_norm=tensor(f"{start}.attn_norm.weight", architecture.width),
            ffn_norm=tensor(f"{start}.ffn_norm.weight", architecture.width),
        )

    whole = architecture.vocabulary, architecture.width
    embedding = tensor("token_embd.weight", *whole)
    half = architecture.head // 2
    frequencies = architecture.theta ** (-np.arange(half) / half)
    layers = tuple(layer(f"blk.{number}") for number in range(architecture.layers))
    output = tensor("output.weight", *whole) if "output.weight" in names else embedding
    norm = tensor("output_norm.weight", architecture.width)
    if "rope_freqs.weight" in names:  # what Llama 3 divides them by
        divided = tensor("rope_freqs.weight", half)
        frequencies = frequencies / divided if divided.size else frequencies
    turns = np.asarray(frequencies, np.float64)
    return BaseModel(architecture, layers, embedding, output, norm, turns, sha256, path)


# -- a whole model as a file ------------------------------------------------------------------------------------------


def write_model(folder: Path, base: Path, weights: Mapping[str, Array]) -> tuple[Path, str]:
    """Write `model-HASH.gguf`: the base's values and vocabulary with other weights; return it and its SHA-256.

    Matrices become float16. The package `gguf` is not used because its files differ between versions, and the hash of
    the file identifies the model's replies. `weights`: by name of the tensor in the base; missing ones are copied.
    """
    digest, file_of_base = hashlib.sha256(), read_gguf(base)
    tensors = [
        _written(tensor, weights[name]) if name in weights else kept(file_of_base, tensor)
        for name, tensor in file_of_base.tensors.items()
    ]
    with new_files(folder) as staging:
        with (staging / "model").open("wb") as file:
            for part in gguf_parts(file_of_base.data[: file_of_base.head], tensors, file_of_base.aligned):
                digest.update(part)
                file.write(part)
        name = f"model-{digest.hexdigest()[:16]}.gguf"
        (staging / "model").rename(staging / name)
    return folder / name, digest.hexdigest()


def _written(tensor: Tensor, weights: Array) -> WrittenTensor:
    is_matrix = len(tensor.shape) > 1  # llama.cpp adds and multiplies vectors in float32 alone
    kind, form = (F16, "<f2") if is_matrix else (F32, "<f4")
    return WrittenTensor(tensor.name, tensor.shape, kind, lambda: weights.astype(form).tobytes())
