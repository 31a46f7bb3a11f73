"""The adapter of a released prompt: a file next to the prompt, and the weights that it goes with, both by their hashes.

    FOLDER/prompt.md, messages.json    the prompt; [adapter] has the two hashes, and the version covers them
    FOLDER/adapter.gguf                the adapter

Needs the standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.errors import ReleaseError
from agent.files import sha256_of
from agent.strict import matching, mismatch, one_of

ADAPTER_FILE = "adapter.gguf"
_HASH = matching("[0-9a-f]{64}", "64 hex digits")


@dataclass(frozen=True, slots=True)
class ReleasedAdapter:
    """An adapter that a prompt is answered with, by the SHA-256 of its file and of the base's weights."""

    sha256: str
    base: str
    path: Path = field(compare=False)

    def as_dict(self) -> dict[str, Any]:
        """The part of the version and of both files."""
        return {"file": ADAPTER_FILE, "sha256": self.sha256, "base": self.base}

    def require_whole(self) -> None:
        """Raises a ReleaseError unless the file is there with every byte."""
        try:
            found = sha256_of(self.path)
        except OSError as error:
            raise ReleaseError(
                f"{self.path}: the adapter of the prompt cannot be read ({error.strerror or error}); restore the "
                "released folder, which holds both"
            ) from None
        if found != self.sha256:
            raise ReleaseError(
                f"{self.path}: was edited after release or cut off: it has SHA-256 {found[:12]}..., the prompt says "
                f"{self.sha256[:12]}...; restore the released file"
            )


def adapter_from(data: Any, model: str, folder: Path) -> ReleasedAdapter:
    """The adapter that a released prompt names. Raises ValueError where it names none as a release does."""
    if wrong := mismatch(data, {"file": one_of([ADAPTER_FILE]), "sha256": _HASH, "base": _HASH}, "adapter"):
        raise ValueError(wrong)
    if not model.startswith("local/"):
        raise ValueError(f"the model {model!r:.60} takes no adapter; a local one does")
    return ReleasedAdapter(data["sha256"], data["base"], folder / ADAPTER_FILE)
