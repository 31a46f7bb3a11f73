"""Read files from outside within limits, refused as `file:line`; write files whole or not at all."""

from __future__ import annotations

import codecs
import errno
import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from agent.errors import AgentError, InputError, Problem, ProblemsError, ReleaseError, refuse_all
from agent.safe_data import FILE, LINE, LINES, TooMuch, more_than
from agent.safe_text import counted, problem, refused, shown

# -- writing -----------------------------------------------------------------------------------------------------------


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hex digits. Raises OSError when it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises OSError when the disk refuses."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@contextmanager
def new_files(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder; move its files, synced, into `folder` when the block ends.

    `folder` is created if missing. A block that fails leaves it unchanged. Raises OSError when the disk refuses.
    """
    import tempfile  # here, as a program that only loads a prompt starts faster without it

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as name:
        made = Path(name)
        yield made
        files = {path: folder / path.relative_to(made) for path in made.rglob("*") if path.is_file()}
        for path in files:
            with path.open("r+b") as file:
                os.fsync(file.fileno())
        if taken := [target for target in files.values() if target.is_dir()]:  # before any file is moved
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(taken[0]))
        for path, target in files.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)


@contextmanager
def new_file(path: Path, private: bool = False) -> Iterator[IO[bytes]]:
    """Write a file whole or not at all, following links. A pipe or device is written directly."""
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
        return
    target = Path(os.path.realpath(path))
    with new_files(target.parent) as made:
        new = made / target.name
        new.touch(mode=0o600 if private else 0o666)
        with new.open("wb") as file:
            yield file
        if target.exists() and not private:
            import shutil

            shutil.copymode(target, new)


def append_line(path: Path, line: bytes) -> None:
    """Append to a private file, created if missing, and sync it. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else b"\n" + line
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait for the lock of a folder, and keep others that ask for it out."""
    file = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


@contextmanager
def disk_errors(what: str, fix: str = "", kind: type[AgentError] = ReleaseError) -> Iterator[None]:
    """Convert an OSError of the block to an error of this package: `WHAT (REASON); FIX`."""
    try:
        yield
    except OSError as error:
        raise kind(f"{what} ({error.strerror or error}){fix and f'; {fix}'}") from error


# -- reading -----------------------------------------------------------------------------------------------------------

_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_UTF8_PAIR = re.compile(rb"[\xc2-\xf4][\x80-\xbf]")
_HIGH = re.compile(rb"[\x80-\xff]")
_LOOKED_AT = 4_096


def read_file(path: str | os.PathLike[str], most: int) -> bytes:
    """Read a regular file of at most `most` bytes; wait for no pipe. Raises OSError or ValueError."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("it is no regular file")
        if about.st_size > most or len(data := file.read(most + 1)) > most:
            raise ValueError(f"it is larger than {most:,} bytes")
    return data


def read_bytes(path: Path, folder: Path | None = None) -> bytes:
    """Read a regular file of at most FILE bytes, inside `folder` where given. Raises ProblemsError."""
    where = shown(path)
    try:
        real = path.resolve(strict=True)  # what was checked is what is read, though a link may move
        if folder is not None and not real.is_relative_to(folder.resolve()):
            raise refused(where, 1, f"is outside the task folder {shown(folder)}; copy it into the folder")
        if real.stat().st_size > FILE:
            raise refused(where, 1, f"has more than {FILE >> 20} MB; take fewer rows")
        return read_file(real, FILE)
    except FileNotFoundError:
        raise refused(where, 1, "no such file; write it or correct its name") from None
    except (OSError, ValueError, RuntimeError) as error:  # no permission, a loop of links, a NUL in the name
        raise refused(where, 1, f"cannot be read ({error}); check its name, size and permissions") from error


def prompt_text(prompt: str | Path) -> str:
    """Return the prompt in a file, or `prompt` itself if it is a sentence. Raises InputError."""
    text = str(prompt)
    is_sentence = re.search(r"\s|[.!?:}]$", text)
    if is_sentence and not os.path.exists(text) and not re.fullmatch(r"[^\n]*\.(txt|md)", text):
        return text
    try:
        return Path(prompt).read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(f"{text}: the prompt cannot be read ({error}); give a UTF-8 text file") from error


class OutsideFile:
    """A file from outside, or its `data`, and all `problems` found in it."""

    def __init__(self, path: Path, data: bytes | None = None, folder: Path | None = None) -> None:
        self.path, self._data, self._folder = path, data, folder
        self.where = shown(path)
        self.problems: list[Problem] = []

    @cached_property
    def data(self) -> bytes:
        """All bytes. Raises ProblemsError."""
        return read_bytes(self.path, self._folder) if self._data is None else self._data

    @property
    def suffix(self) -> str:
        return self.path.suffix.lower()

    def note(self, line: int, what: str) -> None:
        self.problems.append(problem(self.where, line, what))

    @contextmanager
    def at(self, line: int, before: str = "") -> Iterator[None]:
        """Note the block's ValueError at its `line`, after `before`, or its ProblemsError.

        A limit refuses the file.
        """
        try:
            yield
        except ProblemsError as error:
            self.problems += error.problems
        except TooMuch as error:
            raise self.refusal(line, str(error)) from None
        except ValueError as error:
            self.note(getattr(error, "line", line), f"{before}{error}")

    def refusal(self, line: int, what: str) -> ProblemsError:
        """Return the error of a file that is not read further."""
        return refused(self.where, line, what)

    def refuse_all(self) -> None:
        """Raise ProblemsError if there are problems."""
        refuse_all(self.problems)

    def refuse_most(self, most: int, what: str) -> None:
        """Raise ProblemsError with the first `most` problems and the number of further `what`."""
        if (more := len(self.problems) - most) > 0:
            rest = Problem(self.where, f"and {counted(more, f'more {what}')} with a problem")
            self.problems = [*self.problems[:most], rest]
        self.refuse_all()

    def whole(self, most: int, fix: str) -> str:
        """Return the text of a file that is parsed as a whole.

        It may have at most `most` bytes. Raises ProblemsError.
        """
        if len(self.data) > most:
            raise self.refusal(1, f"has more than {most >> 20} MB; {fix}")
        return decoded(self.data, self.where)


def as_utf8(data: bytes, where: str, asked: str | None = None) -> tuple[bytes, str]:
    """Convert text to UTF-8 from `asked` or the detected encoding; return it and the encoding.

    The name is "" for UTF-8. Raises ProblemsError.
    """
    name = asked or told(data)
    if not name:
        return data, ""
    try:
        is_utf8 = codecs.lookup(name).name in ("utf-8", "utf-8-sig")
        return (data, "") if is_utf8 else (data.decode(name).lstrip("\ufeff").encode("utf-8"), name)
    except LookupError:
        raise refused(where, 1, f"no encoding {name!r:.40}; write one such as cp1252, utf-16, latin-1") from None
    except UnicodeError as error:
        raise refused(where, 1, f"is not {name} ({str(error)[-60:]}); name another with --encoding") from None


def decode(data: bytes, where: str) -> tuple[list[str | None], list[Problem]]:
    """Split a UTF-8 file into lines, None for unreadable ones. Each kind of problem is reported once."""
    if data.startswith(_UTF16_MARKS):
        return [], [problem(where, 1, "is UTF-16; save the file as UTF-8")]
    if data.count(b"\n") > LINES:
        return [], [problem(where, LINES, str(more_than(LINES, "lines")))]
    lines: list[str | None] = []
    places_by_fix: dict[str, list[tuple[int, str]]] = {}
    for number, raw in enumerate(data.removeprefix(codecs.BOM_UTF8).split(b"\n"), start=1):
        if len(raw) > LINE:
            return [], [problem(where, number, f"the line has more than {LINE >> 20} MB; cut it into several")]
        line: str | None = None
        try:
            line = raw.removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            what = f"byte 0x{raw[error.start]:02x} is not UTF-8"
            places_by_fix.setdefault("save the file as UTF-8", []).append((number, what))
        if line is not None and "\x00" in line:
            places_by_fix.setdefault("remove it", []).append((number, "holds a NUL character"))
            line = None
        lines.append(line)
    return lines, [
        problem(where, places[0][0], f"{places[0][1]}{and_more(places, 'line')}; {fix}")
        for fix, places in places_by_fix.items()
    ]


def decoded(data: bytes, where: str) -> str:
    """Return the text of a UTF-8 file with line feeds as line ends. Raises ProblemsError."""
    lines, problems = decode(data, where)
    refuse_all(problems)
    return "\n".join(line or "" for line in lines)


def and_more(places: Sequence[Any], what: str) -> str:
    """Return how many more places there are than the first."""
    return f", and so in {len(places) - 1} more {what}{'s' * (len(places) > 2)}" * (len(places) > 1)


def told(data: bytes) -> str:
    """Detect the encoding of data that is not UTF-8: `utf-16`, `utf-16-le`, `utf-16-be`, `cp1252` or ""."""
    if data.startswith(_UTF16_MARKS):
        return "utf-16"
    first = data[:_LOOKED_AT]
    half = len(first) // 2
    if half and not len(data) % 2:
        for name, zeros, others in (("utf-16-le", first[1::2], first[::2]), ("utf-16-be", first[::2], first[1::2])):
            if zeros.count(0) > half * 0.7 and others.count(0) == 0:
                return name
    is_text = not data.isascii() and b"\0" not in data and not _is(data, "utf-8") and _is(data, "cp1252")
    # UTF-8 of which a part was damaged has mostly whole pairs
    return "cp1252" if is_text and 4 * len(_UTF8_PAIR.findall(data)) < len(_HIGH.findall(data)) else ""


def _is(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
