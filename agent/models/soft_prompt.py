"""Soft prompts of a local model: trained vectors in the place of tokens that stand before the prompt.

The tokens are free ones: control tokens that a chat never has. A file of a soft prompt is a LoRA adapter of the token
embedding, one rank for each token, which gives the free tokens other vectors and leaves every other as it is. So
the engine serves it as any adapter; what is added here are the tokens, at the start of the first message.

Source: Lester et al., "The Power of Scale for Parameter-Efficient Prompt Tuning" (2021), section 2.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from agent.models.gguf import GgufFile, read_array
from agent.models.untied import EMBEDDING

TOKENS, BASE = "soft_prompt.tokens", "soft_prompt.base"
"""Values of a file: the texts of its tokens as a JSON list, and the SHA-256 of the model that it was trained for."""
_CONTROL = 3
_VOCABULARY, _TYPES, _TEMPLATE = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.chat_template"
_MARK = "\u200b"


@dataclass(frozen=True, slots=True)
class SoftTokens:
    """The tokens that carry the vectors, in their order.

    Args:
        ids: in the vocabulary of the model.
        texts: that its tokenizer makes into one token each.
    """

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
    """The texts of the tokens of a soft prompt; none where the file is none, or does not list them as it should."""
    try:
        texts = json.loads(str(file.values.get(TOKENS, "[]")))
    except ValueError:
        return ()
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        return ()
    return tuple(texts)


def unfit_soft_prompt(file: GgufFile, model: GgufFile, sha256: str) -> str:
    """Why a soft prompt cannot be served with a model, or "".

    Args:
        file: the soft prompt, whose matrices fit the model.
        model: the model.
        sha256: of the model's file, in hex digits.
    """
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
