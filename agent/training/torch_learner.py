"""LoRA by peft and full fine-tuning by transformers (extra `tune`), in the layout of the output file.

A llama file orders the rows of its query and key weights so that adjacent rows rotate together; transformers rotates
halves. All other tensors are equal. Heavy packages load inside the functions, and nothing is downloaded.

Source: llama.cpp, conversion of llama models (`LlamaModel.permute`); transformers, `modeling_llama.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agent.errors import InputError
from agent.models.gguf import F16, F32, Array, Tensor, WrittenTensor, gguf_parts, kept, read_gguf
from agent.safe_file import new_files
from agent.training.base_model import Architecture, BaseModel
from agent.training.learner import LaidRows
from agent.training.parameters import Lora
from agent.training.rows import TokenPair
from agent.training.settings import TrainingSettings

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


def hf_model(base: BaseModel) -> Any:
    """Build the transformers model with these weights, in float32 on the processor. Raises InputError."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

    kind = LlamaConfig if base.architecture.family == "llama" else Qwen2Config
    model = AutoModelForCausalLM.from_config(kind(**_sizes(base)), dtype=torch.float32)
    state = {hf_name(name): torch.from_numpy(tensor[order].copy()) for name, tensor, order in tensors_of(base)}
    missing, more = model.load_state_dict(state, strict=False)
    tied = {"lm_head.weight"} if base.output is base.embedding else set()
    if wrong := sorted({*missing, *more} - tied):
        raise InputError(f"{base.path}: weights do not fit {base.architecture.family} in transformers: {wrong[0]}")
    model.tie_weights()
    model.model.rotary_emb.inv_freq = torch.from_numpy(base.frequencies).float()
    return model.eval()  # no dropout: nothing is drawn at random


def _sizes(base: BaseModel) -> dict[str, Any]:
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


IGNORED = -100
"""PyTorch's target for positions that are not compared."""


class TorchLearner:
    """Parameters whose gradient PyTorch computes.

    `trained`: all parameters of `model` that are trained, in the order of the flat vector, each with its row order.
    """

    def __init__(
        self,
        model: Any,
        trained: Sequence[tuple[Any, Order]],
        settings: TrainingSettings,
        base: str,
        decides: Sequence[Any],
        initial: Callable[[int], Array],
        write: Callable[[Path, Array], tuple[Path, str]],
    ) -> None:
        import torch

        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model, self._trained, self.base = model.to(self.device), trained, base
        self.initial, self.write, self._settings = initial, write, settings
        self.size = sum(parameter.numel() for parameter, _ in trained)
        self.decides: list[Any] = [*decides, "torch", str(torch.__version__), self.device]

    def views(self, flat: Array) -> Iterator[Array]:
        """Yield each parameter's part of a flat vector, in the file's row order."""
        start = 0
        for parameter, _ in self._trained:
            yield flat[start : start + parameter.numel()].reshape(tuple(parameter.shape))
            start += parameter.numel()

    def __enter__(self) -> TorchLearner:
        import torch

        self._threads = torch.get_num_threads()
        torch.set_num_threads(self._settings.threads)
        return self

    def __exit__(self, *_: object) -> None:
        import torch

        torch.set_num_threads(self._threads)

    def batch(self, rows: Sequence[TokenPair]) -> LaidRows:
        """Lay out tokens, mask and targets (IGNORED where not compared), each (rows, longest)."""
        longest = max(len(row.prompt) + len(row.answer) for row in rows) - 1  # the last token is only predicted
        ids, seen, targets = (np.zeros((len(rows), longest), np.int64) for _ in range(3))
        targets[:] = IGNORED
        for at, row in enumerate(rows):
            through = [*row.prompt, *row.answer[:-1]]
            ids[at, : len(through)], seen[at, : len(through)] = through, 1
            targets[at, len(row.prompt) - 1 : len(through)] = row.answer
        return LaidRows(int(seen.sum()), (ids, seen, targets))

    def gradient(self, parameters: Array, batch: LaidRows) -> tuple[float, Array]:
        self._set(parameters)
        self.model.zero_grad()
        total, answers = self._loss(batch)
        loss = total / answers
        loss.backward()
        gradient = np.empty(self.size, np.float32)
        for view, (parameter, order) in zip(self.views(gradient), self._trained, strict=True):
            view[order] = parameter.grad.cpu().numpy()
        return loss.item(), gradient

    def score(self, parameters: Array, rows: Sequence[TokenPair]) -> float:
        import torch

        self._set(parameters)
        some = self._settings.batch
        with torch.no_grad():
            found = [self._loss(self.batch(rows[at : at + some])) for at in range(0, len(rows), some)]
        return -sum(float(total) for total, _ in found) / sum(answers for _, answers in found)

    def _loss(self, batch: LaidRows) -> tuple[Any, int]:
        import torch

        ids, seen, targets = (torch.from_numpy(each).to(self.device) for each in batch.laid)
        states = self.model.model(input_ids=ids, attention_mask=seen, use_cache=False).last_hidden_state
        compared = targets != IGNORED
        scores = self.model.lm_head(states[compared])
        return torch.nn.functional.cross_entropy(scores, targets[compared], reduction="sum"), int(compared.sum())

    def _set(self, parameters: Array) -> None:
        import torch

        with torch.no_grad():
            for view, (parameter, order) in zip(self.views(parameters), self._trained, strict=True):
                parameter.copy_(torch.from_numpy(view[order]))


def lora_learner(base: BaseModel, lora: Lora, settings: TrainingSettings) -> TorchLearner:
    """Return an adapter of peft that starts like numpy's."""
    from peft import LoraConfig, get_peft_model

    model = hf_model(base)
    targets = [name.rpartition(".")[2] for name in MODULES.values()]
    how = LoraConfig(r=lora.rank, lora_alpha=lora.scale * lora.rank, target_modules=targets, task_type="CAUSAL_LM")
    named: Mapping[str, Any] = dict(get_peft_model(model, how).eval().named_parameters())
    trained = [
        (named[f"base_model.model.model.layers.{number}.{MODULES[name]}.{part}.default.weight"], order)
        for number, layer in enumerate(lora.layers)
        for name in layer
        for part, order in (("lora_A", SAME), ("lora_B", hf_order(name, base.architecture)))
    ]
    return TorchLearner(
        model,
        trained,
        settings,
        base.sha256,
        ["peft", *lora.decides],
        lambda seed: lora.initial(seed).flat,
        lambda folder, flat: lora.like(flat).write(folder),
    )


def full_learner(base: BaseModel, settings: TrainingSettings) -> TorchLearner:
    """Return a learner of all weights of a base; it writes a whole model."""
    model, tensors = hf_model(base), list(tensors_of(base))
    named = dict(model.named_parameters())

    def first(seed: int) -> Array:
        return np.concatenate([tensor.ravel() for _, tensor, _ in tensors])

    def write(folder: Path, flat: Array) -> tuple[Path, str]:
        weights = {name: view for (name, _, _), view in zip(tensors, learner.views(flat), strict=True)}
        return write_model(folder, base.path, weights)

    trained = [(named[hf_name(name)], order) for name, _, order in tensors]
    learner = TorchLearner(model, trained, settings, base.sha256, ["full"], first, write)
    return learner


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
