"""The one place that proves an export: written aside, loaded by the target's library, rendered, compared byte for byte.

Knows no format by name. Nothing is put in place before every format that was asked for has passed.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent.errors import ReleaseError
from agent.files import new_file, new_files
from agent.prompt.template import fill_messages
from agent.release.formats.base import Format, Material, Render, Told, Values
from agent.release.formats.drift import require_same, require_told, untold
from agent.release.formats.hostile import rows_for
from agent.release.rescore import DevRun, Rescored, plain_read, rescored
from agent.release.runtime import PromptRelease


@dataclass(frozen=True, slots=True)
class Made:
    """One format's files. `rows` were compared; `unfit`: how many more the target cannot carry, by reason."""

    format: Format
    texts: Mapping[str, str]
    rows: int = 0
    unfit: Mapping[str, int] = field(default_factory=dict)
    library: str = ""
    """Name and version of what loaded it, "" when nothing had to be installed."""
    missing: bool = False
    """The library is not installed, so nothing was compared."""
    told: Told = field(default_factory=dict)
    """What the files say of model and parameters: read back, and as the release says it."""
    untold: Told = field(default_factory=dict)
    """What the release says of them, and the files do not."""
    dev: Rescored | None = None
    """The dev rows of the run through this export, where the ledger has them."""

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
            told = f"the same {self._same()}, score {100 * self.dev.score:.1f} as in the run{more}"
            yield f"{self.format.name}: {self.dev.rows} dev rows rendered{with_}, {told}"
        if self.format.unsent:
            yield f"{self.format.name}: {self.format.unsent}"
        elif self.untold:
            lacks = ", ".join(f"{key} = {value}" for key, value in self.untold.items())
            yield f"{self.format.name}: does not set {lacks}; set it where you use the file"
        for reason, count in self.unfit.items():
            share = f"{count} of {self.rows + sum(self.unfit.values())} hostile rows"
            yield f"{self.format.name}: cannot carry {reason} ({share}); take it out of values first"

    def _same(self) -> str:
        """What of a call is as in the run: all of it, or the messages and what the files hold."""
        if self.format.unsent:
            return "messages"
        *first, last = ["messages", *self.told]
        told = f"{', '.join(first)} and {last}" if first else last
        return told if self.untold else "requests"


def verified(
    formats: Sequence[Format], materials: Mapping[str, Material], *, dev: DevRun | None = None, strict: bool = False
) -> list[Made]:
    """The files of each format (`materials` by its name), proved. Raises a ReleaseError on drift, and leaves nothing.

    With `dev` each is scored again on the dev rows of the run, without a call to a model. `strict` also refuses what
    could not be proved, and a target that cannot carry every value.
    """
    made = []
    for form in formats:
        with tempfile.TemporaryDirectory(prefix="export-") as folder:
            one = _one(form, materials[form.name], Path(folder), dev)
        if strict and (one.missing or one.unfit):
            raise ReleaseError(f"{list(one.notes())[-1]} (--strict)")
        made.append(one)
    return made


def put(made: Sequence[Made], folder: Path) -> list[Path]:
    """Writes the files of `made` into `folder`, all beside their places first. Raises a ReleaseError."""
    return put_folder({name: text for one in made for name, text in one.texts.items()}, folder)


def put_folder(texts: Mapping[str, str], folder: Path) -> list[Path]:
    """Writes these files into `folder`, all beside their places first. Raises a ReleaseError."""
    try:
        with new_files(folder) as beside:
            _write(texts, beside)
    except OSError as error:
        raise ReleaseError(f"{folder}: cannot write the export ({error.strerror or error})") from error
    return [folder / name for name in texts]


def put_one(text: str, path: Path) -> None:
    """Writes one file where the user wants it, whole or not at all. Raises a ReleaseError."""
    data = _encoded(path.name, text)
    try:
        with new_file(path) as file:
            file.write(data)
    except OSError as error:
        raise ReleaseError(f"{path}: cannot write the export ({error.strerror or error})") from error


def _one(form: Format, material: Material, folder: Path, dev: DevRun | None) -> Made:
    texts = form.files(material)
    _write(texts, folder)
    library = ""
    if form.library:
        library = form.finder(form.library)
        if not library:
            return Made(form, texts, missing=True)
    release = material.release
    by = f" ({library})" if library else ""
    unfit: Counter[str] = Counter()
    rows = 0
    values: Values = {}
    try:
        render = form.opened(folder, release)
        told = form.told(folder, release) if form.told else {}
        require_told(form.name, release, told)
        for values in rows_for(release) if render else ():
            if reason := form.unfit(release, values):
                unfit[reason] += 1
                continue
            want = [message.as_dict() for message in fill_messages(release.messages, values)]
            require_same(form.name, want, render(values) if render else [], values)
            rows += 1
        again = _again(form, release, folder, dev, render) if dev and render else None
    except ReleaseError:
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ReleaseError(
            f"{form.name}{by}: does not load or render with {dict(values)!a:.60}: {what:.200}"
        ) from error
    return Made(form, texts, rows, dict(unfit), library, told=told, untold=untold(release, told), dev=again)


def _again(form: Format, release: PromptRelease, folder: Path, dev: DevRun, render: Render) -> Rescored:
    read = form.reads(folder, release) if form.reads else plain_read(release)
    return rescored(form.name, release, dev, render, read, form.unfit)


def _write(texts: Mapping[str, str], folder: Path) -> None:
    for name, text in texts.items():
        data, place = _encoded(name, text), folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)


def _encoded(name: str, text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ReleaseError(
            f"{name} cannot hold the lone surrogate {text[error.start]!a} "
            f"(after {text[max(0, error.start - 30) : error.start]!a}); take it out of the prompt"
        ) from None
