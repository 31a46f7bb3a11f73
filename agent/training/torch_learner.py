"""LoRA by peft and full fine-tuning by transformers (extra `tune`), in the layout of the output file.

A llama file orders the rows of its query and key weights so that adjacent rows rotate together; transformers rotates
halves. All other tensors are equal. Nothing is downloaded.

Source: llama.cpp, conversion of llama models (`LlamaModel.permute`); transformers, `modeling_llama.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from agent.errors import InputError
from agent.models.gguf import Array
from agent.training.base_model import BaseModel, write_model
from agent.training.hf_files import MODULES, SAME, Order, hf_name, hf_order, tensors_of
from agent.training.learner import LaidRows
from agent.training.parameters import Lora
from agent.training.rows import TokenPair
from agent.training.settings import TrainingSettings


def hf_model(base: BaseModel) -> Any:
    """Build the transformers model with these weights, in float32 on the processor. Raises InputError."""
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
        self._threads = torch.get_num_threads()
        torch.set_num_threads(self._settings.threads)
        return self

    def __exit__(self, *_: object) -> None:
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
        self._set(parameters)
        some = self._settings.batch
        with torch.no_grad():
            found = [self._loss(self.batch(rows[at : at + some])) for at in range(0, len(rows), some)]
        return -sum(float(total) for total, _ in found) / sum(answers for _, answers in found)

    def _loss(self, batch: LaidRows) -> tuple[Any, int]:
        ids, seen, targets = (torch.from_numpy(each).to(self.device) for each in batch.laid)
        states = self.model.model(input_ids=ids, attention_mask=seen, use_cache=False).last_hidden_state
        compared = targets != IGNORED
        scores = self.model.lm_head(states[compared])
        return torch.nn.functional.cross_entropy(scores, targets[compared], reduction="sum"), int(compared.sum())

    def _set(self, parameters: Array) -> None:
        with torch.no_grad():
            for view, (parameter, order) in zip(self.views(parameters), self._trained, strict=True):
                parameter.copy_(torch.from_numpy(view[order]))


def lora_learner(base: BaseModel, lora: Lora, settings: TrainingSettings) -> TorchLearner:
    """Return an adapter of peft that starts like numpy's."""
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
