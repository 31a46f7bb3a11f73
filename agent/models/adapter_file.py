"""GGUF adapters, LoRA and soft prompts: what a file holds, and whether it fits a base.

A soft prompt replaces free tokens before the prompt (control tokens that a chat never has) by trained vectors. Its file
is a LoRA adapter of the token embedding, one rank for each token, which changes their vectors and no others. So the
engine serves it as any adapter; only the tokens are added here, at the start of the first message.

Source: llama.cpp, convert_lora_to_gguf.py and src/llama-adapter.cpp (names of values and tensors); Lester et al., "The
Power of Scale for Parameter-Efficient Prompt Tuning" (2021), section 2.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from agent.errors import InputError
from agent.files import new_file
from agent.models.gguf import EMBEDDING, Array, GgufFile, Value, gguf_bytes, read_array, read_gguf

TYPE = "general.type"
FAMILY = "general.architecture"
KIND = "adapter.type"
LORA_ALPHA = "adapter.lora.alpha"
NOTHING: Mapping[str, Value] = MappingProxyType({})
FIRST, SECOND = ".lora_a", ".lora_b"
"""Ends of the names of A (rank, inputs) and B (outputs, rank), after the name of the base's tensor."""


def read_adapter(path: Path, base: GgufFile) -> GgufFile:
    """An adapter file that fits `base`.

    Raises:
        InputError: it is truncated, no adapter, or one for another model; in one line.
    """
    file = read_gguf(path)
    why = unusable_adapter(file) or unlike_base(file, base)
    alpha = file.values.get(LORA_ALPHA)
    if not why and not (isinstance(alpha, float) and 0 < alpha < float("inf")):
        why = f"its {LORA_ALPHA} is {alpha!r}"
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


def write_adapter(
    folder: Path,
    stem: str,
    family: str,
    alpha: float,
    tensors: Mapping[str, Array],
    more: Mapping[str, Value] = NOTHING,
) -> tuple[Path, str]:
    """Writes `STEM-HASH.gguf`, the same bytes for the same content.

    Returns:
        Its path, and its SHA-256 in hex digits.

    Raises:
        OSError: the disk refuses.
    """
    data = gguf_bytes({FAMILY: family, TYPE: "adapter", KIND: "lora", LORA_ALPHA: alpha, **more}, tensors)
    digest = hashlib.sha256(data).hexdigest()
    path = folder / f"{stem}-{digest[:16]}.gguf"
    with new_file(path) as file:
        file.write(data)
    return path, digest


def changed_tensor(name: str) -> str:
    """The tensor that a matrix of an adapter changes; "" for what is no such matrix."""
    return next((name.removesuffix(part) for part in (FIRST, SECOND) if name.endswith(part)), "")


# -- soft prompts -----------------------------------------------------------------------------------------------------

TOKENS, BASE = "soft_prompt.tokens", "soft_prompt.base"
"""Values of a file: the texts of its tokens as a JSON list, and the SHA-256 of the model that it was trained for."""
_CONTROL = 3
_VOCABULARY, _TYPES, _TEMPLATE = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.chat_template"
_MARK = "\u200b"


@dataclass(frozen=True, slots=True)
class SoftTokens:
    """The tokens that carry the vectors, in their order."""

    ids: tuple[int, ...]
    texts: tuple[str, ...]


def free_tokens(model: GgufFile, most: int) -> SoftTokens:
    """The first control tokens of a model that its chat template and its settings do not name, at most `most`."""
    types = read_array(model, _TYPES)
    template = str(model.values.get(_TEMPLATE, ""))
    named = {value for key, value in model.values.items() if key.endswith("_token_id")}
    free = [
        (number, str(text))
        for number, text in enumerate(read_array(model, _VOCABULARY)[: len(types)])
        if types[number] == _CONTROL and number not in named and text and str(text) not in template
    ][:most]
    return SoftTokens(tuple(number for number, _ in free), tuple(text for _, text in free))


def is_soft_prompt(file: GgufFile) -> bool:
    """Whether an adapter file says that it is a soft prompt."""
    return TOKENS in file.values


def soft_texts(file: GgufFile) -> tuple[str, ...]:
    """The texts of the tokens of a soft prompt; () for another file, or one that does not list them as it should."""
    try:
        texts = json.loads(str(file.values.get(TOKENS, "[]")))
    except ValueError:
        return ()
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        return ()
    return tuple(texts)


def unfit_soft_prompt(file: GgufFile, model: GgufFile, sha256: str) -> str:
    """Why a soft prompt cannot be served with a model, or ""."""
    texts = soft_texts(file)
    ranks = [file.tensors[name].shape[1] for name in file.tensors if name.startswith(EMBEDDING)]
    if not texts or len(file.tensors) != 2 or ranks != [len(texts)] * 2:
        return "is a soft prompt that does not hold one vector for each of its tokens"
    if file.values.get(BASE) != sha256:
        return f"is a soft prompt for the model of SHA-256 {str(file.values.get(BASE))!r:.14}, not {sha256[:12]}"
    if unknown := set(texts) - set(free_tokens(model, model.tensors[EMBEDDING].shape[0]).texts):
        return f"has vectors for {min(unknown)!r:.40}, which is no free token of the model"
    return ""


def with_soft_tokens(contents: Sequence[str], texts: Sequence[str]) -> list[str]:
    """The contents of messages with the tokens before the first; a text of theirs that stood there stays text."""
    if not texts:
        return list(contents)
    plain = []
    for content in contents:
        for text in texts:
            content = content.replace(text, f"{text[0]}{_MARK}{text[1:]}")
        plain.append(content)
    return ["".join([*texts, plain[0]]), *plain[1:]] if plain else plain
