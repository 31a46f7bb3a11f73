"""A LoRA adapter of the model, by the hashes of its file and of its base weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from agent.errors import ReleaseError
from agent.prompt.parts.kinds import FileHead, PartKind, WrongPart, part
from agent.prompt.parts.part import PromptPart
from agent.safe_data import matching, read_as
from agent.safe_file import disk_errors, sha256_of

if TYPE_CHECKING:
    from agent.prompt.bound import BoundPrompt
    from agent.types import Tool

ADAPTER_FILE = "adapter.gguf"
"""The adapter's file, next to those of its prompt."""
_HASH = Annotated[str, matching("[0-9a-f]{64}", "64 hex digits")]
_TYPES = {"file": Literal["adapter.gguf"], "sha256": _HASH, "base": _HASH}


class HasModel(Protocol):
    """A release that names its model, without and with the path of its adapter."""

    @property
    def model(self) -> str: ...

    @property
    def target(self) -> str: ...


@dataclass(frozen=True, slots=True)
class ReleasedAdapter(PromptPart):
    """The adapter of a prompt, by the SHA-256 of its file and of the weights of its base."""

    name = "adapter"

    sha256: str
    base: str
    path: Path = field(compare=False)

    def data(self) -> dict[str, Any]:
        return {self.name: {"file": ADAPTER_FILE, "sha256": self.sha256, "base": self.base}}

    def target(self, model: str) -> str:
        return f"{model}+{self.path}"

    def files(self) -> Mapping[str, Path]:
        return {ADAPTER_FILE: self.path}

    def require_whole(self) -> None:
        """Raise ReleaseError unless the file is complete."""
        what = f"{self.path}: the adapter of the prompt cannot be read"
        with disk_errors(what, "restore the released folder, which holds both"):
            found = sha256_of(self.path)
        if found != self.sha256:
            raise ReleaseError(
                f"{self.path}: was edited after release or truncated: it has SHA-256 {found[:12]}..., not "
                f"{self.sha256[:12]}...; restore the released file"
            )


# -- the name of a released prompt's model, with its adapter if any --------------------------------------------------


def released_model(name: str) -> tuple[str, ReleasedAdapter | None]:
    """Split a model name into its base and its adapter, if any. Raises InputError if that cannot be read."""
    from agent.models.adapters import Adapter, split_adapter

    kind, _, rest = name.partition("/")
    base, path = split_adapter(rest) if kind == "local" else (rest, None)
    if path is None:
        return name, None
    adapter, base = Adapter.read(path), f"{kind}/{base}"
    return base, ReleasedAdapter(adapter.sha256, base_digest(base), path)


def base_digest(name: str) -> str:
    """Return the SHA-256 of a local model's weights; "" without its file."""
    from agent.models.model_registry import file_digest, leads_elsewhere
    from agent.models.weights import known_weights

    return file_digest(name) if leads_elsewhere(name) else known_weights(name).running


def require_base(release: BoundPrompt) -> None:
    """Raise ReleaseError if the adapter was made for other weights than its model has here."""
    adapter = release.part(ReleasedAdapter)
    found = base_digest(release.model) if adapter else ""
    if adapter and found and found != adapter.base:
        raise ReleaseError(
            f"{release.name!r}: its adapter needs weights with SHA-256 {adapter.base[:12]}..., but "
            f"{release.model} has {found[:12]}... here; use the model file of the release"
        )


def without_folder(release: HasModel, name: str) -> str:
    """Return a model name that can be stored: the adapter without its folder."""
    if name != release.target or name == release.model:
        return name
    from agent.models.adapters import MARK

    return f"{release.model}{MARK}{Path(name.removeprefix(f'{release.model}{MARK}')).name}"


def in_folder(release: HasModel, name: str) -> str:
    """Return a callable model name: the inverse of `without_folder`."""
    return release.target if name == without_folder(release, release.target) else name


def named_models(release: HasModel) -> set[str]:
    """Return the models of a release that may lead elsewhere. An adapter next to the file does not."""
    from agent.models.model_registry import leads_elsewhere

    is_adjacent = release.target != release.model and not leads_elsewhere(release.model)
    return set() if is_adjacent else {release.target}


@part
class Adapting(PartKind):
    name = "adapter"

    def as_dict(self, settings: str) -> Any:
        return settings

    def shown(self, settings: str, tools: Sequence[Tool]) -> dict[str, Any]:
        return {"note": f"answered with the adapter {settings[:12]}"}

    def load(self, head: FileHead) -> ReleasedAdapter:
        read = read_as(_TYPES, head.data[self.name], self.name)
        model = head.data["model"]
        if not model.startswith("local/"):
            raise WrongPart(self.name, f"the model {model!r:.60} takes no adapter; use a local one")
        return ReleasedAdapter(read["sha256"], read["base"], head.folder / read["file"])
