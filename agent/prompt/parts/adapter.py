"""An adapter that answers with the model, by the hashes of its file and of the weights that it goes with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from agent.errors import ReleaseError
from agent.prompt.parts.kind import FileHead, PartKind, TaskParts, WrongPart
from agent.prompt.parts.kinds import part
from agent.prompt.parts.part import PromptPart
from agent.safe_data import matching, read_as

if TYPE_CHECKING:
    from agent.prompt.bound import BoundPrompt
    from agent.prompt.prompt_candidate import PromptCandidate
    from agent.types import Tool

ADAPTER_FILE = "adapter.gguf"
"""Next to the files of a prompt that is answered with an adapter."""
_HASH = Annotated[str, matching("[0-9a-f]{64}", "64 hex digits")]
_TYPES = {"file": Literal["adapter.gguf"], "sha256": _HASH, "base": _HASH}


@dataclass(frozen=True, slots=True)
class ReleasedAdapter(PromptPart):
    """The adapter that a prompt is answered with, by the SHA-256 of its file and of the weights of its base."""

    name = "adapter"

    sha256: str
    base: str
    path: Path = field(compare=False)

    def as_dict(self) -> dict[str, Any]:
        """The part of the version and of both files."""
        return {"file": ADAPTER_FILE, "sha256": self.sha256, "base": self.base}

    def data(self) -> dict[str, Any]:
        return {self.name: self.as_dict()}

    def target(self, model: str) -> str:
        return f"{model}+{self.path}"

    def files(self) -> Mapping[str, Path]:
        return {ADAPTER_FILE: self.path}

    def require_whole(self) -> None:
        """Raises a ReleaseError unless the file is there with every byte."""
        from agent.safe_file import disk_errors, sha256_of

        what = f"{self.path}: the adapter of the prompt cannot be read"
        with disk_errors(what, "restore the released folder, which holds both"):
            found = sha256_of(self.path)
        if found != self.sha256:
            raise ReleaseError(
                f"{self.path}: was edited after release or cut off: it has SHA-256 {found[:12]}..., the prompt says "
                f"{self.sha256[:12]}...; restore the released file"
            )


# -- the model of a released prompt: a name that calls it, with the adapter of the release where it has one ------------


def released_model(name: str) -> tuple[str, ReleasedAdapter | None]:
    """What a release says of a model: the name of its base, and its adapter where it has one.

    Raises InputError where the adapter cannot be read.
    """
    from agent.models.adapters import Adapter, split_adapter

    kind, _, rest = name.partition("/")
    base, path = split_adapter(rest) if kind == "local" else (rest, None)
    if path is None:
        return name, None
    adapter, base = Adapter.read(path), f"{kind}/{base}"
    return base, ReleasedAdapter(adapter.sha256, base_digest(base), path)


def base_digest(name: str) -> str:
    """The SHA-256 of the weights of a local model; "" where its file is gone."""
    from agent.models.model_registry import file_digest, leads_elsewhere
    from agent.models.weights import known_weights

    return file_digest(name) if leads_elsewhere(name) else known_weights(name).running


def require_base(release: BoundPrompt) -> None:
    """Raises a ReleaseError where the adapter of a release was made for other weights than its model has here."""
    if release.adapter is None:
        return
    found = base_digest(release.model)
    if found and found != release.adapter.base:
        raise ReleaseError(
            f"{release.name!r}: its adapter goes with weights of SHA-256 {release.adapter.base[:12]}..., and "
            f"{release.model} has {found[:12]}... here; use the model file that it was released with"
        )


def without_folder(release: BoundPrompt, name: str) -> str:
    """The name of a model as it can be written down: the release's own without its folder."""
    if release.adapter is None or name != release.target:
        return name
    from agent.models.adapters import MARK

    return f"{release.model}{MARK}{release.adapter.path.name}"


def in_folder(release: BoundPrompt, name: str) -> str:
    """The name of a model as it can be called here: the inverse of `without_folder`."""
    return release.target if name == without_folder(release, release.target) else name


def brought(release: BoundPrompt) -> set[str]:
    """The models that the file of a release makes known: its adapter, checked by its hash, is no other
    place, but a model file of somebody's own is."""
    from agent.models.model_registry import leads_elsewhere

    is_beside = release.adapter is not None and not leads_elsewhere(release.model)
    return set() if is_beside else {release.target}


@part
class Adapting(PartKind):
    name = "adapter"

    def as_dict(self, settings: str) -> Any:
        return settings

    def shown(self, settings: str, tools: Sequence[Tool]) -> dict[str, Any]:
        return {"note": f"answered with the adapter {settings[:12]}"}

    def bind(self, prompt: PromptCandidate, shared: TaskParts) -> dict[str, Any]:
        return {}

    def load(self, head: FileHead) -> dict[str, Any]:
        read = read_as(_TYPES, head.data[self.name], self.name)
        model = head.data["model"]
        if not model.startswith("local/"):
            raise WrongPart(self.name, f"the model {model!r:.60} takes no adapter; a local one does")
        return {self.name: ReleasedAdapter(read["sha256"], read["base"], head.folder / read["file"])}
