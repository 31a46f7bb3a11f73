"""The model of a released prompt: a name that calls it, with the adapter of the release where it has one."""

from __future__ import annotations

from agent.errors import ReleaseError
from agent.models.adapters import MARK, Adapter, split_adapter
from agent.models.model_registry import file_digest, leads_elsewhere
from agent.models.weights import known_weights
from agent.release.prompt_file import PromptRelease, ReleasedAdapter


def released_model(name: str) -> tuple[str, ReleasedAdapter | None]:
    """What a release says of a model: the name of its base, and its adapter where it has one.

    Raises InputError where the adapter cannot be read.
    """
    kind, _, rest = name.partition("/")
    base, path = split_adapter(rest) if kind == "local" else (rest, None)
    if path is None:
        return name, None
    adapter, base = Adapter.read(path), f"{kind}/{base}"
    return base, ReleasedAdapter(adapter.sha256, base_digest(base), path)


def base_digest(name: str) -> str:
    """The SHA-256 of the weights of a local model; "" where its file is gone."""
    return file_digest(name) if leads_elsewhere(name) else known_weights(name).running


def require_base(release: PromptRelease) -> None:
    """Raises a ReleaseError where the adapter of a release was made for other weights than its model has here."""
    if release.adapter is None:
        return
    found = base_digest(release.model)
    if found and found != release.adapter.base:
        raise ReleaseError(
            f"{release.name!r}: its adapter goes with weights of SHA-256 {release.adapter.base[:12]}..., and "
            f"{release.model} has {found[:12]}... here; use the model file that it was released with"
        )


def without_folder(release: PromptRelease, name: str) -> str:
    """The name of a model as it can be written down: the release's own without its folder."""
    if release.adapter is None or name != release.target:
        return name
    return f"{release.model}{MARK}{release.adapter.path.name}"


def in_folder(release: PromptRelease, name: str) -> str:
    """The name of a model as it can be called here: the inverse of `without_folder`."""
    return release.target if name == without_folder(release, release.target) else name


def brought(release: PromptRelease) -> set[str]:
    """The models that the file of a release makes known: its adapter, checked by its hash, is no other
    place, but a model file of somebody's own is."""
    is_beside = release.adapter is not None and not leads_elsewhere(release.model)
    return set() if is_beside else {release.target}
