"""LoRA adapters and soft prompts of a local model: naming, file content, and checks before any paid call.

    local/smollm2-135m+ADAPTER.gguf    the embedded model with an adapter
    local/PATH.gguf+ADAPTER.gguf       a user's model file with an adapter

A soft prompt replaces unused tokens before the prompt (control tokens that chats never contain) by trained vectors. Its
file is a LoRA adapter of the token embedding with one rank per token, which changes only the vectors of these tokens.
So the engine serves it like any adapter; this module only adds the tokens at the start of the first message.

Source: Hu et al. 2021, LoRA, section 4; llama.cpp, convert_lora_to_gguf.py and src/llama-adapter.cpp (names of values
and tensors, requirements of the engine); Lester et al., "The Power of Scale for Parameter-Efficient Prompt Tuning"
(2021), section 2.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from agent.errors import InputError
from agent.models.gguf import (
    EMBEDDING,
    OUTPUT,
    Array,
    GgufFile,
    Value,
    gguf_bytes,
    gguf_parts,
    kept,
    read_array,
    read_gguf,
)
from agent.models.weights import CATALOG, cache_folder
from agent.safe_file import disk_errors, new_file, sha256_of

T = TypeVar("T")
SUFFIX = ".gguf"
MARK = "+"
GIVE_ANOTHER = "give the path of a LoRA adapter in GGUF after the +"


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter file identified by its content, so that the engine runs what was checked."""

    path: Path
    sha256: str

    @property
    def texts(self) -> tuple[str, ...]:
        """The soft prompt's tokens; empty for LoRA. Raises InputError if the file cannot be read."""
        return soft_texts(_read(self.path))

    def runs_on(self, base: Path) -> Path:
        """Return the model file to serve it with: the base, or a copy (`untied`)."""
        changes = {_changed_tensor(name) for name in _read(self.path).tensors}
        return untied(base) if EMBEDDING in changes and is_tied(_read(base)) else base

    @staticmethod
    def read(path: Path) -> Adapter:
        """Read the adapter file. Raises InputError if it cannot be read."""
        with disk_errors(f"{path}: the adapter cannot be read", GIVE_ANOTHER, InputError):
            state = path.stat()
            return Adapter(path, _once(sha256_of, path, state.st_size, state.st_mtime_ns))


def split_adapter(rest: str) -> tuple[str, Path | None]:
    """Split the part after `local/` into base and adapter; None without an adapter.

    >>> split_adapter("smollm2-135m+mine.gguf")[0], split_adapter("a.gguf+b.gguf")[0], split_adapter("my+model.gguf")[0]
    ('smollm2-135m', 'a.gguf', 'my+model.gguf')
    """
    for weights in CATALOG:
        if rest.startswith(f"{weights.name}{MARK}"):
            return weights.name, Path(rest.removeprefix(f"{weights.name}{MARK}"))
    base, mark, adapter = rest.partition(f"{SUFFIX}{MARK}")
    return (f"{base}{SUFFIX}", Path(adapter)) if mark and adapter else (rest, None)


def adapter_fault(adapter: Path, base: Path) -> str:
    """Explain in a line why a base cannot serve an adapter; "" if it can."""
    if not adapter.is_file():
        return f"{adapter}: no such adapter file; {GIVE_ANOTHER}"
    try:
        file = _read(adapter)
    except InputError as error:
        return f"{error}; {GIVE_ANOTHER}"
    why = _unusable_adapter(file)
    if not why and base.is_file():
        try:
            why = _unlike_base(file, _read(base))
            if not why and is_soft_prompt(file):
                why = _unfit_soft_prompt(file, _read(base), Adapter.read(base).sha256)
        except InputError:
            return ""  # the engine reports a model file that it cannot load
        why = why and f"{why}; it was made for another model than {base}"
    return f"{adapter}: {why}; {GIVE_ANOTHER}" if why else ""


def _read(path: Path) -> GgufFile:
    state = path.stat()
    file: GgufFile = _once(read_gguf, path, state.st_size, state.st_mtime_ns)
    return file


@lru_cache(maxsize=64)
def _once(read: Callable[[Path], T], path: Path, size: int, changed: int) -> T:
    return read(path)


# -- bases with one matrix for embedding and output -------------------------------------------------------------------


def is_tied(model: GgufFile) -> bool:
    """Return whether a model uses one matrix for embedding and output."""
    return EMBEDDING in model.tensors and OUTPUT not in model.tensors


def untied(path: Path) -> Path:
    """Return a cached copy with the tied matrix stored twice.

    llama.cpp applies adapters to both, and aborts if there is only one.
    """
    model, wanted = read_gguf(path), hashlib.sha256()
    for part in _untied_parts(model):
        wanted.update(part)
    digest = wanted.hexdigest()
    copy = cache_folder() / f"untied-{digest[:16]}.gguf"
    what = f"{copy}: cannot store the copy of {path.name} needed by an adapter of its embedding"
    with disk_errors(what, "free space, or set OPTIMIZE_CACHE to another folder", InputError):
        if copy.is_file() and sha256_of(copy) == digest:
            return copy
        copy.parent.mkdir(parents=True, exist_ok=True)
        with new_file(copy) as file:
            for part in _untied_parts(model):
                file.write(part)
    return copy


def _untied_parts(model: GgufFile) -> Iterator[bytes]:
    tensors = [kept(model, tensor) for tensor in model.tensors.values()]
    tensors.append(kept(model, model.tensors[EMBEDDING], OUTPUT))
    counts = struct.pack("<Q", len(tensors))  # at byte 8 of the file
    return gguf_parts(model.data[:8] + counts + model.data[16 : model.head], tensors, model.aligned)


# -- files -------------------------------------------------------------------------------------------------------------


TYPE = "general.type"
FAMILY = "general.architecture"
KIND = "adapter.type"
LORA_ALPHA = "adapter.lora.alpha"
NOTHING: Mapping[str, Value] = MappingProxyType({})
FIRST, SECOND = ".lora_a", ".lora_b"
"""Suffixes of A (rank, inputs) and B (outputs, rank), after the name of the base's tensor."""


def read_adapter(path: Path, base: GgufFile) -> GgufFile:
    """Read an adapter file that fits `base`. Raises InputError if it is truncated, no adapter, or does not fit."""
    file = read_gguf(path)
    why = _unusable_adapter(file) or _unlike_base(file, base)
    alpha = file.values.get(LORA_ALPHA)
    if not why and not (isinstance(alpha, float) and 0 < alpha < float("inf")):
        why = f"its {LORA_ALPHA} is {alpha!r}"
    if why:
        raise InputError(f"{path}: {why}")
    return file


def _unusable_adapter(file: GgufFile) -> str:
    kind, form = file.values.get(TYPE), file.values.get(KIND)
    if kind != "adapter":
        return f"is a GGUF file of the type {str(kind or 'model')!r:.40}, not an adapter"
    if form != "lora":
        return f"is an adapter of the type {str(form)!r:.40}, not lora"
    if "adapter.alora.invocation_tokens" in {*file.arrays, *file.values}:
        return "is an adapter that starts in the middle of a prompt (aLoRA), which is not supported"
    pairs = {_changed_tensor(name) for name in file.tensors}
    if not pairs or any(not name or f"{name}{part}" not in file.tensors for name in pairs for part in (FIRST, SECOND)):
        return "does not hold a matrix .lora_a and one .lora_b for each tensor that it changes"
    return ""


def _unlike_base(file: GgufFile, base: GgufFile) -> str:
    mine, theirs = file.values.get(FAMILY), base.values.get(FAMILY)
    if mine != theirs:
        return f"is for the architecture {str(mine)!r:.40}, not {str(theirs)!r:.40}"
    for name in dict.fromkeys(map(_changed_tensor, file.tensors)):
        first, second = (file.tensors[f"{name}{part}"].shape for part in (FIRST, SECOND))
        if name not in base.tensors:
            return f"changes {name!r:.60}, which the model does not have"
        shape = base.tensors[name].shape
        if len(shape) != 2 or len(first) != 2 or len(second) != 2:
            return f"changes {name!r:.60}, which is not a matrix"
        if name == EMBEDDING:  # a lookup, not a product: its first matrix is transposed
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
    """Write `STEM-HASH.gguf`, with equal bytes for equal content; return its path and SHA-256."""
    data = gguf_bytes({FAMILY: family, TYPE: "adapter", KIND: "lora", LORA_ALPHA: alpha, **more}, tensors)
    digest = hashlib.sha256(data).hexdigest()
    path = folder / f"{stem}-{digest[:16]}.gguf"
    with new_file(path) as file:
        file.write(data)
    return path, digest


def _changed_tensor(name: str) -> str:
    return next((name.removesuffix(part) for part in (FIRST, SECOND) if name.endswith(part)), "")


# -- soft prompts -----------------------------------------------------------------------------------------------------

TOKENS, BASE = "soft_prompt.tokens", "soft_prompt.base"
"""File values: the soft prompt's tokens as a JSON list, and the SHA-256 of the model it was trained for."""
_CONTROL = 3
_VOCABULARY, _TYPES, _TEMPLATE = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.chat_template"
_MARK = "\u200b"


@dataclass(frozen=True, slots=True)
class SoftTokens:
    """The tokens that carry the vectors, in order."""

    ids: tuple[int, ...]
    texts: tuple[str, ...]


def free_tokens(model: GgufFile, most: int) -> SoftTokens:
    """List up to `most` control tokens that template and settings do not use."""
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
    """Return whether an adapter file is a soft prompt."""
    return TOKENS in file.values


def soft_texts(file: GgufFile) -> tuple[str, ...]:
    """Return the tokens of a soft prompt; () for another file or a malformed list."""
    try:
        texts = json.loads(str(file.values.get(TOKENS, "[]")))
    except ValueError:
        return ()
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        return ()
    return tuple(texts)


def _unfit_soft_prompt(file: GgufFile, model: GgufFile, sha256: str) -> str:
    texts = soft_texts(file)
    ranks = [file.tensors[name].shape[1] for name in file.tensors if name.startswith(EMBEDDING)]
    if not texts or len(file.tensors) != 2 or ranks != [len(texts)] * 2:
        return "is a soft prompt that does not hold one vector for each of its tokens"
    if file.values.get(BASE) != sha256:
        return f"is a soft prompt for the model of SHA-256 {str(file.values.get(BASE))!r:.14}, not {sha256[:12]}"
    if unknown := set(texts) - set(free_tokens(model, model.tensors[EMBEDDING].shape[0]).texts):
        return f"has vectors for {min(unknown)!r:.40}, which is not a free token of the model"
    return ""


def with_soft_tokens(contents: Sequence[str], texts: Sequence[str]) -> list[str]:
    """Put the tokens before the first message; escape them where messages contain them."""
    if not texts:
        return list(contents)
    plain = []
    for content in contents:
        for text in texts:
            content = content.replace(text, f"{text[0]}{_MARK}{text[1:]}")
        plain.append(content)
    return ["".join([*texts, plain[0]]), *plain[1:]] if plain else plain
