"""The one place that proves an export: written aside, loaded by the target's library, rendered, compared byte for byte.

Knows no format by name. Nothing is put in place before every format of the command has passed.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.errors import ReleaseError, one_line
from agent.files import new_file, new_files
from agent.release.completion import DEFAULT_PARAMETERS
from agent.release.export import probe_rows, require_same, tried_rows, wanted
from agent.release.formats.export_format import Content, Format, Material, Settings, Values, settings_of
from agent.release.prompt_file import PromptRelease
from agent.release.rescore import DevRun, Rescored, release_parser, rescore


@dataclass(frozen=True, slots=True)
class VerifiedExport:
    """One format's files. `rows` were compared; `unfit`: how many more the target cannot carry, by reason."""

    format: Format
    texts: Mapping[str, Content]
    rows: int = 0
    unfit: Mapping[str, int] = field(default_factory=dict)
    library: str = ""
    """Name and version of what loaded it, "" when nothing had to be installed."""
    missing: bool = False
    """The library is not installed, so nothing was compared."""
    settings: Settings = field(default_factory=dict)
    """Model and parameters that the files hold, equal to those of the release."""
    unset: Settings = field(default_factory=dict)
    """Model and parameters of the release that the files do not hold."""
    dev: Rescored | None = None
    """The dev rows of the run through this export, where the ledger has them."""
    embeddings: str = ""
    """The provider's model without whose vectors no dev row can be rendered, so that none was scored again."""

    def notes(self) -> Iterator[str]:
        """What the user must know, a line each."""
        if self.missing:
            yield f"{self.format.name}: not verified with {self.format.library}: {self.format.install}"
            return
        if self.format.proof:
            yield f"{self.format.name}: {self.format.proof}"
            return
        with_ = f" by {self.library}" if self.library else ""
        yield f"{self.format.name}: {self.rows} hostile rows rendered{with_}, byte-equal to what was scored"
        if self.dev and self.dev.score is not None:
            more = f"; it cannot carry {self.dev.unfit} more" if self.dev.unfit else ""
            same = f"the same {self._same()}, score {100 * self.dev.score:.1f} as in the run{more}"
            yield f"{self.format.name}: {self.dev.rows} dev rows rendered{with_}, {same}"
        if self.embeddings:
            yield f"{self.format.name}: no dev rows rendered, as their vectors come from {self.embeddings}"
        if self.format.settings_note:
            yield f"{self.format.name}: {self.format.settings_note}"
        elif self.unset:
            lacks = ", ".join(f"{key} = {value}" for key, value in self.unset.items())
            yield f"{self.format.name}: does not set {lacks}; set it where you use the file"
        for reason, count in self.unfit.items():
            share = f"{count} of {self.rows + sum(self.unfit.values())} hostile rows"
            yield f"{self.format.name}: cannot carry {reason} ({share}); take it out of values first"

    def _same(self) -> str:
        """What of a call is as in the run: all of it, or the messages and what the files hold."""
        if self.format.settings_note:
            return "messages"
        *first, last = ["messages", *self.settings]
        return "requests" if not self.unset else f"{', '.join(first)} and {last}" if first else last


def verify_exports(
    formats: Sequence[Format], materials: Mapping[str, Material], *, dev: DevRun | None = None, strict: bool = False
) -> list[VerifiedExport]:
    """The files of each format, proved, with nothing written yet.

    Args:
        formats: Which.
        materials: What each is made of, by the format's name.
        dev: The run's dev rows, which each export scores again without a call.
        strict: Also refuse what could not be proved, and a target that cannot carry every value.

    Raises:
        ReleaseError: An export drifts, does not load, or (`strict`) is not proved.
    """
    exports = []
    for one in formats:
        with tempfile.TemporaryDirectory(prefix="export-") as folder:
            export = _verify(one, materials[one.name], Path(folder), dev)
        if strict and (export.missing or export.unfit):
            raise ReleaseError(f"{list(export.notes())[-1]} (--strict)")
        exports.append(export)
    return exports


def write_exports(exports: Sequence[VerifiedExport], folder: Path) -> list[Path]:
    """Writes the files of all exports into `folder`, all aside first. Raises a ReleaseError."""
    return write_files({name: text for export in exports for name, text in export.texts.items()}, folder)


def write_files(texts: Mapping[str, Content], folder: Path) -> list[Path]:
    """Writes files by name into `folder`, all aside first. Raises a ReleaseError."""
    try:
        with new_files(folder) as staged:
            _write(texts, staged)
    except OSError as error:
        raise ReleaseError(f"{folder}: cannot write the export ({error.strerror or error})") from error
    return [folder / name for name in texts]


def write_file(text: Content, path: Path) -> None:
    """Writes one file where the user wants it, whole or not at all. Raises a ReleaseError."""
    data = _encoded(path.name, text)
    try:
        with new_file(path) as file:
            file.write(data)
    except OSError as error:
        raise ReleaseError(f"{path}: cannot write the export ({error.strerror or error})") from error


def _verify(form: Format, material: Material, folder: Path, dev: DevRun | None) -> VerifiedExport:
    release = material.release
    form = form.fitting(release)
    for why in form.lacking(release):
        raise ReleaseError(f"{form.name}: {why}")
    texts = form.files(material)
    _write(texts, folder)
    library = ""
    if form.library:
        library = form.find_library(form.library)
        if not library:
            return VerifiedExport(form, texts, missing=True)
    unfit: Counter[str] = Counter()
    rows = 0
    rescored = None
    values: Values = {}
    try:
        opened = form.load(folder, release)
        render, settings = opened.render, opened.settings
        _require_same_settings(form.name, release, settings)
        if render:
            for values in tried_rows(release, probe_rows(release.inputs)):
                if reason := form.unfit(release, values):
                    unfit[reason] += 1
                    continue
                require_same(form.name, wanted(release, values), render(values), values)
                rows += 1
            if dev and not release.embeddings:
                parse = opened.parse or release_parser(release)
                rescored = rescore(form.name, release, dev, render, parse, form.unfit)
    except ReleaseError:
        raise
    except Exception as error:
        by = f" ({library})" if library else ""
        raise ReleaseError(
            f"{form.name}{by}: does not load or render with {dict(values)!a:.60}: {one_line(error, 200)}"
        ) from error
    unset = {key: value for key, value in settings_of(release).items() if key not in settings and value not in ("", [])}
    return VerifiedExport(
        form,
        texts,
        rows,
        dict(unfit),
        library,
        settings=settings,
        unset=unset,
        dev=rescored,
        embeddings=release.embeddings,
    )


def _require_same_settings(name: str, release: PromptRelease, settings: Settings) -> None:
    want = {**DEFAULT_PARAMETERS, **settings_of(release)}
    for key, value in settings.items():
        if _as_list(value) != _as_list(want.get(key)):
            raise ReleaseError(f"{name}: the files say {key} = {value!a:.60}, the release says {want.get(key)!a:.60}")


def _as_list(value: Any) -> Any:
    """One text to stop at is a list of it, too."""
    return list(value) if isinstance(value, list | tuple) else [value] if isinstance(value, str) else value


def _write(texts: Mapping[str, Content], folder: Path) -> None:
    for name, text in texts.items():
        data, place = _encoded(name, text), folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)


def _encoded(name: str, text: Content) -> bytes:
    if isinstance(text, bytes):
        return text
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ReleaseError(
            f"{name} cannot hold the lone surrogate {text[error.start]!a} "
            f"(after {text[max(0, error.start - 30) : error.start]!a}); take it out of the prompt"
        ) from None
