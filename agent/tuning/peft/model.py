"""A model of transformers in memory, made of the weights of a GGUF file or a folder; nothing is fetched.

A llama file has the rows of its query and key weights in the order in which neighbours are rotated together;
transformers rotates halves. All other tensors are the same in both.

Source: llama.cpp, conversion of llama models (`LlamaModel.permute`); transformers, `modeling_llama.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from agent.errors import InputError
from agent.models.gguf import Array
from agent.tuning.base_model import Architecture, BaseModel

MODULES: Mapping[str, str] = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""The linear maps of a layer, by our names."""
NORMS: Mapping[str, str] = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
_WHOLE: Mapping[str, str] = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def hf_name(name: str) -> str:
    """The name in transformers of a tensor of a GGUF file.

    >>> hf_name("blk.3.attn_q.weight"), hf_name("token_embd.weight")
    ('model.layers.3.self_attn.q_proj.weight', 'model.embed_tokens.weight')
    """
    if name in _WHOLE:
        return _WHOLE[name]
    _, layer, part, end = name.split(".")
    return f"model.layers.{layer}.{MODULES.get(part) or NORMS[part]}.{end}"


def hf_order(name: str, architecture: Architecture) -> Array | None:
    """Which row of a tensor of the file each row in transformers is, (outputs,); None: they are in one order.

    Args:
        name: of the linear map in MODULES; of anything else there is no order.
    """
    heads = {"attn_q": architecture.heads, "attn_k": architecture.kv_heads}.get(name)
    if heads is None or not architecture.neighbours:
        return None
    return np.arange(heads * architecture.head).reshape(heads, architecture.head // 2, 2).swapaxes(1, 2).reshape(-1)


def tensors_of(base: BaseModel) -> Iterator[tuple[str, Array, Array | None]]:
    """Each tensor of a base: its name in the file, itself as it lies there, and the order of its rows in transformers
    (None: the same). The order of the tensors is always the same."""
    yield "token_embd.weight", base.embedding, None
    if base.output is not base.embedding:
        yield "output.weight", base.output, None
    yield "output_norm.weight", base.output_norm, None
    for number, layer in enumerate(base.layers):
        for name, matrix in layer.maps.items():
            yield f"blk.{number}.{name}.weight", matrix, hf_order(name, base.architecture)
        for name, bias in layer.biases.items():
            yield f"blk.{number}.{name}.bias", bias, hf_order(name, base.architecture)
        yield f"blk.{number}.attn_norm.weight", layer.attn_norm, None
        yield f"blk.{number}.ffn_norm.weight", layer.ffn_norm, None


def hf_model(base: BaseModel) -> Any:
    """The causal language model of transformers with these weights, in float32 on the processor, ready to train.

    Raises:
        InputError: the family has no place for a tensor in transformers.
    """
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

    kind = LlamaConfig if base.architecture.family == "llama" else Qwen2Config
    model = AutoModelForCausalLM.from_config(kind(**sizes_of(base)), dtype=torch.float32)
    state = {}
    for name, tensor, order in tensors_of(base):
        state[hf_name(name)] = torch.from_numpy(tensor.copy() if order is None else tensor[order])
    missing, more = model.load_state_dict(state, strict=False)
    tied = {"lm_head.weight"} if base.output is base.embedding else set()
    if wrong := sorted({*missing, *more} - tied):
        raise InputError(
            f"{base.path}: transformers' {base.architecture.family} has no such set of weights: {wrong[0]}"
        )
    model.tie_weights()
    model.model.rotary_emb.inv_freq = torch.from_numpy(base.frequencies).float()
    return model.eval()  # no dropout: nothing is drawn at random


def sizes_of(base: BaseModel) -> dict[str, Any]:
    """The sizes of a model by the names of a Hugging Face config.json."""
    of = base.architecture
    biased = {name for layer in base.layers for name in layer.biases}
    sizes = {
        "vocab_size": of.vocabulary,
        "hidden_size": of.width,
        "intermediate_size": of.hidden,
        "num_hidden_layers": of.layers,
        "num_attention_heads": of.heads,
        "num_key_value_heads": of.kv_heads,
        "rms_norm_eps": of.epsilon,
        "max_position_embeddings": of.context,
        "tie_word_embeddings": base.output is base.embedding,
        "head_dim": of.head,
    }
    if of.family == "llama":
        sizes |= {"attention_bias": "attn_q" in biased, "mlp_bias": "ffn_up" in biased}
    return sizes
