"""A model of transformers in memory, made of the weights of a GGUF file or a folder; nothing is fetched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agent.errors import InputError
from agent.models.gguf import Array
from agent.tuning.base_model import BaseModel
from agent.tuning.hf_names import hf_name, hf_order


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
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(_config(base), dtype=torch.float32)
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


def _config(base: BaseModel) -> Any:
    """The sizes of the model in transformers' words."""
    from transformers import LlamaConfig, Qwen2Config

    is_llama = base.architecture.family == "llama"
    return (LlamaConfig if is_llama else Qwen2Config)(**sizes_of(base))


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
