"""Loads a released classifier: what answers without a language model, by its alias or from its folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.errors import ReleaseError
from agent.programs import classifiers
from agent.release.aliases import Reference, releases_root, resolve
from agent.release.file_release import FileRelease, read_files

LOADER = "load_classifier"
"""The public name of the function below."""


def load_classifier(path: str | os.PathLike[str], *, root: str | os.PathLike[str] | None = None) -> Callable[..., Any]:
    """Loads a classifier that `optimize promote --arm classic` or `export --arm classic` made; trains it on its rows.

    Every byte of the folder is checked against the version; no code in it is run. Training takes a second or two, so
    load it once.

    Args:
        path: "NAME@ALIAS", "NAME@VERSION", or a folder.
        root: The folder of the releases; default: PROMPTASSAY_RELEASES, else runs/releases.

    Returns:
        The answering function: the inputs of the task by name, as text, in; the answer out: a text, a number or a JSON
        value, and of several outputs a dict.

    Raises:
        ReleaseError: One line with the file: it cannot be read, was edited, or is no classifier.

    Example:
        >>> pa.load_classifier("support_triage@production")(message="My card was stolen")  # doctest: +SKIP
    """
    reference = Reference.of(path) if isinstance(path, str) else None
    release, folder = (read_files(path), Path(path)) if reference is None else _aliased(reference, releases_root(root))
    if release.loader != LOADER:
        raise ReleaseError(f"{folder}: is {release.what}; {release.loader} loads it")
    if release.files.get("classifier.py") != Path(classifiers.__file__).read_bytes():
        logging.getLogger("agent.release").warning(
            "%s was scored with another version of Promptassay, so answers may differ; promote a run of this version",
            folder,
        )
    try:
        return classifiers.trained(*(release.files[name].decode("utf-8") for name in ("model.json", "rows.jsonl")))
    except (LookupError, TypeError, ValueError) as error:
        raise ReleaseError(
            f"{folder}: cannot be trained ({type(error).__name__}: {error}); promote the run again"
        ) from error


def _aliased(reference: Reference, root: Path) -> tuple[FileRelease, Path]:
    version = resolve(root, reference).version
    folder = root / reference.name / version
    if version.startswith("p_"):
        raise ReleaseError(f"{reference}: {version} is a prompt; load_prompt loads it")
    release = read_files(folder)
    if (release.name, release.version) != (reference.name, version):
        raise ReleaseError(
            f"{folder}: holds {release.name} {release.version}, not {reference.name} {version}; restore the folder "
            "from a copy, or promote the run again"
        )
    return release, folder
