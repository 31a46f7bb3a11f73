"""What a tensor of a GGUF file is called, and how its rows are ordered, in a Hugging Face model of the same family.

A llama file has the rows of its query and key weights in the order in which neighbours are rotated together;
transformers rotates halves. All other tensors are the same in both.

Source: llama.cpp, conversion of llama models (`LlamaModel.permute`); transformers, `modeling_llama.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

from agent.models.gguf import Array
from agent.tuning.base_model import Architecture

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
        architecture: of the model.
    """
    import numpy as np

    heads = {"attn_q": architecture.heads, "attn_k": architecture.kv_heads}.get(name)
    if heads is None or not architecture.neighbours:
        return None
    return np.arange(heads * architecture.head).reshape(heads, architecture.head // 2, 2).swapaxes(1, 2).reshape(-1)
