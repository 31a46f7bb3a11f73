"""LoRA adapters and soft prompts of a local model: how a name gives one, and what is refused before a call is paid for.

    local/smollm2-135m+ADAPTER.gguf    the embedded model with an adapter
    local/PATH.gguf+ADAPTER.gguf       a model file of your own with an adapter

Source: Hu et al. 2021, LoRA, section 4; llama.cpp, src/llama-adapter.cpp (what the engine asks of such a file).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from agent.errors import InputError
from agent.files import new_file, sha256_of
from agent.models.adapter_file import (
    changed_tensor,
    is_soft_prompt,
    soft_texts,
    unfit_soft_prompt,
    unlike_base,
    unusable_adapter,
)
from agent.models.gguf import EMBEDDING, OUTPUT, GgufFile, gguf_parts, kept, read_gguf
from agent.models.weights import CATALOG, cache_folder

SUFFIX = ".gguf"
MARK = "+"
GIVE_ANOTHER = "give the path of a LoRA adapter in GGUF after the +"


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter file by its content, so that the engine runs what was checked."""

    path: Path
    sha256: str

    @property
    def texts(self) -> tuple[str, ...]:
        """The tokens before the prompt, where it is a soft prompt. Raises InputError where it cannot be read."""
        return soft_texts(_read(self.path))

    def runs_on(self, base: Path) -> Path:
        """The model file that an engine serves it with: the base, or a copy (`untied`)."""
        changes = {changed_tensor(name) for name in _read(self.path).tensors}
        return untied(base) if EMBEDDING in changes and is_tied(_read(base)) else base

    @staticmethod
    def read(path: Path) -> Adapter:
        """The adapter in a file as it is now. Raises InputError where it cannot be read."""
        try:
            state = path.stat()
            return Adapter(path, _sha256(path, state.st_size, state.st_mtime_ns))
        except OSError as error:
            raise InputError(
                f"{path}: the adapter cannot be read ({error.strerror or error}); {GIVE_ANOTHER}"
            ) from error


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, changed: int) -> str:
    return sha256_of(path)


def split_adapter(rest: str) -> tuple[str, Path | None]:
    """The base and the adapter in what follows `local/`; None where there is no adapter.

    >>> split_adapter("smollm2-135m+mine.gguf")[0], split_adapter("a.gguf+b.gguf")[0], split_adapter("my+model.gguf")[0]
    ('smollm2-135m', 'a.gguf', 'my+model.gguf')
    """
    for weights in CATALOG:
        if rest.startswith(f"{weights.name}{MARK}"):
            return weights.name, Path(rest.removeprefix(f"{weights.name}{MARK}"))
    base, mark, adapter = rest.partition(f"{SUFFIX}{MARK}")
    return (f"{base}{SUFFIX}", Path(adapter)) if mark and adapter else (rest, None)


def adapter_fault(adapter: Path, base: Path) -> str:
    """Why an adapter cannot be served with a base, in one line that names the file; "" where it can.

    Args:
        base: The model file; one that is not here yet is not compared with.
    """
    if not adapter.is_file():
        return f"{adapter}: no such adapter file; {GIVE_ANOTHER}"
    try:
        file = _read(adapter)
    except InputError as error:
        return f"{error}; {GIVE_ANOTHER}"
    why = unusable_adapter(file)
    if not why and base.is_file():
        try:
            why = unlike_base(file, _read(base))
            if not why and is_soft_prompt(file):
                why = unfit_soft_prompt(file, _read(base), Adapter.read(base).sha256)
        except InputError:
            return ""  # the engine names a model file that it cannot load
        why = why and f"{why}, so it was made for another model than {base}"
    return f"{adapter}: {why}; {GIVE_ANOTHER}" if why else ""


def _read(path: Path) -> GgufFile:
    """A file as it is now; one that did not change since is not read again."""
    state = path.stat()
    return _read_once(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=32)
def _read_once(path: Path, size: int, changed: int) -> GgufFile:
    return read_gguf(path)


# -- bases with one matrix for embedding and output -------------------------------------------------------------------


def is_tied(model: GgufFile) -> bool:
    return EMBEDDING in model.tensors and OUTPUT not in model.tensors


def untied(path: Path) -> Path:
    """A copy of a model with the tied matrix twice, for adapters of the token embedding; kept in the cache folder.

    llama.cpp puts an adapter of a tied embedding on the output, too, where its shapes do not fit, and ends the process.
    The copy answers as the model does, and is checked before each use.

    Raises:
        InputError: the model cannot be read, or the disk refuses.
    """
    model, wanted = read_gguf(path), hashlib.sha256()
    for part in _untied_parts(model):
        wanted.update(part)
    digest = wanted.hexdigest()
    copy = cache_folder() / f"untied-{digest[:16]}.gguf"
    try:
        if copy.is_file() and sha256_of(copy) == digest:
            return copy
        copy.parent.mkdir(parents=True, exist_ok=True)
        with new_file(copy) as file:
            for part in _untied_parts(model):
                file.write(part)
    except OSError as error:
        raise InputError(
            f"{copy}: the copy of {path.name} that an adapter of its embedding needs cannot be kept "
            f"({error.strerror or error}); make room, or set OPTIMIZE_CACHE to another folder"
        ) from error
    return copy


def _untied_parts(model: GgufFile) -> Iterator[bytes]:
    tensors = [kept(model, tensor) for tensor in model.tensors.values()]
    tensors.append(kept(model, model.tensors[EMBEDDING], OUTPUT))
    counts = struct.pack("<Q", len(tensors))  # at byte 8 of the file
    return gguf_parts(model.data[:8] + counts + model.data[16 : model.head], tensors, model.aligned)
