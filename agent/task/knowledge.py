"""The folder of documents of a task, read whole: each file as a document, every problem at once.

Knows the folder and its limits; `documents.py` knows the formats.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from agent.errors import Problem, ProblemsError
from agent.shipped import canonical
from agent.task.documents import SUFFIXES, TEXTS, read_pdf
from agent.task.input_files import decode, read_bytes
from agent.task.words import listed, problem, shown
from agent.types import Document

MOST_FILES = 1_000
MOST_BYTES = 20_000_000
"""Of one file."""
MOST_LETTERS = 4_000_000
"""Of all documents together: a release holds every passage."""


def read_documents(path: str, folder: Path) -> tuple[tuple[Document, ...], str, list[Problem]]:
    """The documents of a file or folder inside a task folder, the SHA-256 over them, and what is wrong with them.

    Args:
        path: as task.toml names it.
        folder: of the task.
    """
    place, problems = folder / path, list[Problem]()
    try:
        inside = place.resolve(strict=True).is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):
        return (), "", [problem(shown(place), 1, "no such file or folder; write it, or correct path under [knowledge]")]
    if not inside:
        return (
            (),
            "",
            [problem(shown(place), 1, f"lies outside the task folder {shown(folder)}; copy it into the folder")],
        )
    files = _files(place, problems) if place.is_dir() else [place]
    root = place if place.is_dir() else place.parent
    if len(files) > MOST_FILES:
        problems.append(problem(shown(place), 1, f"holds {len(files)} files; {MOST_FILES} documents at most"))
        files = []
    elif not files and not problems:
        problems.append(problem(shown(place), 1, f"holds no documents; write some ({listed(SUFFIXES)})"))
    documents, digests, letters = list[Document](), list[tuple[str, str]](), 0
    for file in files:
        name = file.relative_to(root).as_posix()
        try:
            data = read_bytes(file, folder)
            documents.append(_document(name, data, file))
        except ProblemsError as error:
            problems += error.problems
            continue
        digests.append((name, hashlib.sha256(data).hexdigest()))
        letters += sum(len(block.text) for section in documents[-1].sections for block in section.blocks)
        if letters > MOST_LETTERS:
            what = (
                f"with this file the documents have more than {MOST_LETTERS:,} letters; a release holds them all, so "
            )
            problems.append(problem(shown(file), 1, f"{what}take fewer or shorter ones"))
            break
    digest = hashlib.sha256(canonical(digests).encode("utf-8", "surrogatepass")).hexdigest()
    return tuple(documents), digest, problems


def _files(place: Path, problems: list[Problem]) -> list[Path]:
    """The files of a folder and those below it, in the order of their names; hidden ones are left out."""
    found: list[Path] = []
    for top, folders, names in os.walk(place):  # follows no links
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            if (link := Path(top, name)).is_symlink():
                problems.append(problem(shown(link), 1, "is a link to a folder; copy the folder"))
        found += [Path(top, name) for name in sorted(names) if not name.startswith(".")]
    return sorted(found, key=lambda file: file.relative_to(place).as_posix())


def _document(name: str, data: bytes, file: Path) -> Document:
    """One file. Raises ProblemsError where it is no document."""
    where, suffix = shown(file), file.suffix.lower()
    if not name.isprintable():
        raise ProblemsError((problem(where, 1, "has a name with characters that do not show; rename it"),))
    if suffix not in SUFFIXES:
        what = f"is no document that can be read ({listed(SUFFIXES)}); take it out of the folder"
        raise ProblemsError((problem(where, 1, what),))
    if len(data) > MOST_BYTES:
        raise ProblemsError((problem(where, 1, f"is larger than {MOST_BYTES // 1_000_000} MB; cut it into parts"),))
    try:
        if suffix == ".pdf":
            sections = read_pdf(data)
        else:
            lines, problems = decode(data, where)
            if problems:
                raise ProblemsError(tuple(problems))
            sections = TEXTS[suffix]("\n".join(line or "" for line in lines))
    except ValueError as error:
        raise ProblemsError((problem(where, 1, str(error)),)) from error
    if not sections:
        raise ProblemsError((problem(where, 1, "holds no text; write it, or take the file out of the folder"),))
    return Document(name, sections)
