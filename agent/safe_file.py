"""Files from outside, read within limits and named in each refusal as `file:line`; and files of ours, written whole.

The standard library's parsers take what is small and flat: `tomllib` takes time with the square of a dotted key's
parts, both run out of stack on deep nesting, and `json` takes the last of two equal keys.
"""

from __future__ import annotations

import codecs
import errno
import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any, NoReturn

from agent.errors import InputError, Problem, ProblemsError, ReleaseError, refuse_all
from agent.safe_text import counted, problem, quoted, shown

MAX_TOML = 1_000_000  # characters; at this size the slowest that is still parsed takes about a second
MAX_TOML_DEPTH = 50  # levels of tables and arrays, also in the JSON of rows, and parts of a dotted key
MAX_JSON_DEPTH = 500  # levels, well within the interpreter's stack
COLUMNS = 1_000  # columns, also of all JSON rows together
ROWS = 1_000_000
LINES = 2_000_000  # lines of a text file; a cell may span several
CELLS = 5_000_000  # cells of all rows, and values inside of JSON
CELL_TEXT = 1_000_000  # characters of one cell, or of one text inside of JSON
TEXT = 100_000_000  # characters of all cells of a workbook or Parquet file, which are packed
POSITIONS = 50_000_000  # cells of a sheet, empty ones to the left of others included
FILE = 200 * 1024 * 1024  # bytes of a file
LINE = 64 * 1024 * 1024  # bytes of a line, and of a .json file, which is read as a whole
YAML = 4 * 1024 * 1024  # bytes of a YAML file, whose reader is slow
YAML_NODES = 50_000  # names, values and lists in it
MEMORY = 1024 * 1024 * 1024  # bytes of memory of the process that reads a workbook or Parquet file

KeyPath = tuple[str | int, ...]
"""Where a key of a TOML text stands: names of tables and keys, and indices of arrays."""


class TooMuch(ValueError):
    """A file holds more than is read of one; says what and what to do."""


def more_than(most: int, what: str, fix: str = "") -> TooMuch:
    """Return the error of a limit."""
    return TooMuch(f"more than {most:,} {what}; {fix or 'take fewer'}")


def refused(where: str, line: int, what: str) -> ProblemsError:
    """Return the error of a file that is not read at all, for one problem."""
    return ProblemsError((problem(where, line, what),))


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
    """Yield a temporary folder whose files are synced and moved into `folder` (made if need be) when the block ends.

    A block that fails leaves `folder` as it was. Raises OSError when the disk refuses.
    """
    import tempfile  # here, as a program that only loads a prompt starts faster without it

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as name:
        beside = Path(name)
        yield beside
        files = {path: folder / path.relative_to(beside) for path in beside.rglob("*") if path.is_file()}
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
    """Write a file whole or not at all, through links; a pipe or device is written straight into."""
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
        return
    target = Path(os.path.realpath(path))
    with new_files(target.parent) as beside:
        new = beside / target.name
        new.touch(mode=0o600 if private else 0o666)
        with new.open("wb") as file:
            yield file
        if target.exists() and not private:
            import shutil

            shutil.copymode(target, new)


def append_line(path: Path, line: bytes) -> None:
    """Append to a private file, made if need be; the line is on the disk when this returns. Raises OSError."""
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
def disk_errors(what: str, fix: str = "") -> Iterator[None]:
    """Turn an OSError of the block into a ReleaseError: `WHAT (REASON); FIX`."""
    try:
        yield
    except OSError as error:
        raise ReleaseError(f"{what} ({error.strerror or error}){fix and f'; {fix}'}") from error


# -- reading -----------------------------------------------------------------------------------------------------------

_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_UTF8_PAIR = re.compile(rb"[\xc2-\xf4][\x80-\xbf]")
_HIGH = re.compile(rb"[\x80-\xff]")
_LOOKED_AT = 4_096


def read_file(path: str | os.PathLike[str], most: int) -> bytes:
    """Read a regular file of at most `most` bytes. Raises OSError or ValueError, and waits for no pipe or device."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is no regular file")
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"it is larger than {most:,} bytes")
    return data


def read_bytes(path: Path, folder: Path | None = None) -> bytes:
    """Read a regular file of at most FILE bytes, inside `folder` where given. Raises ProblemsError."""
    where = shown(path)
    try:
        real = path.resolve(strict=True)
        if folder is not None and not real.is_relative_to(folder.resolve()):
            raise refused(where, 1, f"lies outside the task folder {shown(folder)}; copy it into the folder")
        if not real.is_file():
            raise refused(where, 1, "is not a regular file; give a file")
        size = real.stat().st_size
        if size > FILE:
            most = f"a file may have {FILE >> 20} MB at most, so take fewer rows"
            raise refused(where, 1, f"is {size / 1024 / 1024:.0f} MB; {most}")
        return real.read_bytes()
    except FileNotFoundError:
        raise refused(where, 1, "no such file; write it or correct its name") from None
    except (OSError, ValueError, RuntimeError) as error:  # no permission, a loop of links, a NUL in the name
        raise refused(where, 1, f"cannot be read ({error}); check its name and permissions") from error


def prompt_text(prompt: str | Path) -> str:
    """Return the prompt in a file, or `prompt` itself if it is no file and has a blank. Raises InputError."""
    text = str(prompt)
    if re.search(r"\s", text) and not os.path.exists(text) and not re.fullmatch(r"[^\n]*\.(txt|md)", text):
        return text
    try:
        return Path(prompt).read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(f"{text}: the prompt cannot be read ({error}); give a UTF-8 text file") from error


class OutsideFile:
    """A file from outside, or its `data`: what it holds, and all `problems` that are found in it."""

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
        """Note a problem at a line."""
        self.problems.append(problem(self.where, line, what))

    @contextmanager
    def at(self, line: int) -> Iterator[None]:
        """Note what a block raises as ValueError (at its own `line`, if it has one) or ProblemsError.

        A limit refuses the file.
        """
        try:
            yield
        except ProblemsError as error:
            self.problems += error.problems
        except TooMuch as error:
            raise self.refusal(line, str(error)) from None
        except ValueError as error:
            self.note(getattr(error, "line", line), str(error))

    def refusal(self, line: int, what: str) -> ProblemsError:
        """Return the error of a file that is not read any further."""
        return refused(self.where, line, what)

    def refuse_all(self) -> None:
        """Raise ProblemsError with all problems, where there are some."""
        refuse_all(self.problems)

    def refuse_most(self, most: int, what: str) -> None:
        """Do the same with the first `most`, and how many more of `what` have a problem."""
        if (more := len(self.problems) - most) > 0:
            rest = Problem(self.where, f"and {counted(more, f'more {what}')} with a problem")
            self.problems = [*self.problems[:most], rest]
        self.refuse_all()

    def whole(self, most: int, fix: str) -> str:
        """Return the text of a file that is read as a whole, and so is smaller than others. Raises ProblemsError."""
        if len(self.data) > most:
            raise self.refusal(1, f"has more than {most >> 20} MB; {fix}")
        return decoded(self.data, self.where)


def as_utf8(data: bytes, where: str, asked: str | None = None) -> tuple[bytes, str]:
    """Convert text to UTF-8 from `asked` or the detected encoding; also return its name, "" for UTF-8.

    Raises ProblemsError.
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
    """Split a UTF-8 file into lines, None for unreadable ones; each kind of problem is reported once."""
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
    """Return the text of a UTF-8 file, its lines joined by line feeds. Raises ProblemsError."""
    lines, problems = decode(data, where)
    refuse_all(problems)
    return "\n".join(line or "" for line in lines)


def and_more(places: Sequence[Any], what: str) -> str:
    """Say how many more places there are than the first."""
    return f", and so in {len(places) - 1} more {what}{'s' * (len(places) > 2)}" * (len(places) > 1)


def told(data: bytes) -> str:
    """Tell the encoding of data that is not UTF-8: `utf-16`, `utf-16-le`, `utf-16-be` or `cp1252`, "" for any other."""
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


# -- JSON --------------------------------------------------------------------------------------------------------------

_UNSAFE = re.compile("[\x00\ud800-\udfff]")
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{\]}]', re.DOTALL)
_JSON_MARK = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{,]', re.DOTALL)


def parse_json(text: str | bytes, **hooks: Any) -> Any:
    """Parse JSON of at most MAX_JSON_DEPTH levels, and with no key twice in an object. Raises ValueError."""
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text), "surrogatepass")
    if text.count("[") + text.count("{") > MAX_JSON_DEPTH:
        depth = 0
        for token in _BRACKETS.finditer(text):  # before: at the end of its stack the interpreter prints of finalizers
            depth += (token[0] in "[{") - (token[0] in "]}")
            if depth > MAX_JSON_DEPTH:
                raise ValueError("JSON nested too deeply; flatten it")
    return json.loads(text, object_pairs_hook=_once, **hooks)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r:.80} stands twice; keep one")
    return made


def parse_data(text: str) -> Any:
    """Parse strict JSON of a user within all limits. Raises ValueError with a reason of one line."""
    if text.count(",") + text.count("[") + text.count("{") > CELLS:
        values = 0
        for token in _JSON_MARK.finditer(text):
            values += not token[0].startswith('"')
            if values > CELLS:
                raise more_than(CELLS, "values", "take fewer rows")
    value = parse_json(text, parse_constant=_constant, parse_float=_float, parse_int=_int)
    for part, depth in walk(value):
        if depth > MAX_TOML_DEPTH:
            raise ValueError(f"JSON nested deeper than {MAX_TOML_DEPTH} levels; flatten it")
        if isinstance(part, str) and len(part) > CELL_TEXT:
            raise more_than(CELL_TEXT, "characters in a text", "shorten it")
        if isinstance(part, str) and (bad := _UNSAFE.search(part)):
            raise ValueError(f"{quoted(bad[0])} in the text {quoted(part)} is a NUL or half a character; remove it")
    return value


def parse_cell(text: str, fix: str) -> Any:
    """Parse the JSON of a cell; a syntax error says to `fix` it."""
    try:
        return parse_data(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{quoted(text)} is not JSON: {error.msg}; {fix}") from error


def walk(value: Any) -> Iterator[tuple[Any, int]]:
    """Yield every value and key inside JSON-like data with its depth (from 1), without recursion."""
    stack = [(value, 1)]
    while stack:
        part, depth = stack.pop()
        yield part, depth
        if isinstance(part, dict):
            stack += [(key, depth) for key in part]
            stack += [(item, depth + 1) for item in part.values()]
        elif isinstance(part, list):
            stack += [(item, depth + 1) for item in part]


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON; write a finite number or null")


def _float(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"the number {quoted(text)} is too large; write a finite number")
    return value


def _int(text: str) -> int:
    if len(text) > 308:
        raise ValueError(f"a number of {len(text)} digits is too large; write a shorter one or a text")
    return int(text)


# -- TOML --------------------------------------------------------------------------------------------------------------

TOML_STRING = (  # one that is never closed goes to the end: each character is looked at once
    r'"""(?:[^"\\]|\\.|"(?!""))*+(?:"{3,5}|\Z)'
    r"|'''(?:[^']|'(?!''))*+(?:'{3,5}|\Z)"
    r'|"(?:[^"\\\n]|\\.)*+"?'
    r"|'[^'\n]*+'?"
)
_TOML_TOKEN = TOML_STRING + r"|(?P<mark>\.|[\[{]|[\]}]|[=,\n]|#[^\n]*+)"
_HIDDEN = re.compile(TOML_STRING + r"|#[^\n]*+", re.DOTALL)
_PART = re.compile(r'"((?:\\.|[^"\\])*+)"?' + r"|'([^']*+)'?" + r"|([A-Za-z0-9_-]+)")


class BadToml(ValueError):
    """A TOML text that is not valid or beyond the limits, with the `line` (from 1)."""

    def __init__(self, what: str, line: int) -> None:
        super().__init__(what)
        self.line = line


def toml_tables(text: str) -> dict[str, Any]:
    """Parse a TOML text of at most MAX_TOML characters and MAX_TOML_DEPTH levels. Raises BadToml."""
    import tomllib

    if len(text) > MAX_TOML:
        raise BadToml(f"it is longer than {MAX_TOML:,} characters", 1)
    depth = dots = 0
    for token in re.finditer(_TOML_TOKEN, text, re.DOTALL):
        if (mark := token["mark"]) is None:  # a string: perhaps a part of a key
            continue
        dots = dots + 1 if mark == "." else 0
        depth += (mark in "[{") - (mark in "]}")
        if dots >= MAX_TOML_DEPTH or depth > MAX_TOML_DEPTH:
            raise BadToml(f"it is nested deeper than {MAX_TOML_DEPTH} levels", text.count("\n", 0, token.start()) + 1)
    try:
        return tomllib.loads(text)
    except ValueError as error:  # also an integer of thousands of digits, whose line is not given
        at = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", str(error))
        if at is None:
            raise BadToml(str(error), 1) from None
        raise BadToml(str(error)[: at.start()], int(at[1] or text.rstrip().count("\n") + 1)) from None


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Parse a TOML text. Raises `ProblemsError` with one problem at its line."""
    try:
        raw = toml_tables(text)
    except BadToml as error:
        text = str(error)
        raise refused(where, error.line, f"not valid TOML: {text[:1].lower()}{text[1:]}; correct this line") from None
    if any(depth > MAX_TOML_DEPTH for _, depth in walk(raw)):
        raise refused(where, 1, f"nested deeper than {MAX_TOML_DEPTH} levels; flatten it")
    return raw


class TomlLines:
    """Line numbers (from 1) of the keys and sections of a TOML text that parses, which is scanned once for them.

    >>> TomlLines("a = 1\\n[b]\\nc = 2").of(("b", "c"))
    3
    """

    def __init__(self, text: str) -> None:
        self._text = text.replace("\r\n", "\n").split("\n")
        self._lines: dict[KeyPath, int] = {}
        section: KeyPath = ()
        counts: dict[KeyPath, int] = {}
        depth = 0
        masked = _HIDDEN.sub(lambda found: re.sub(r"[^\n]", "~", found[0]), "\n".join(self._text)).split("\n")
        for number, (line, mask) in enumerate(zip(self._text, masked, strict=True), start=1):
            bare = mask.strip()
            if depth == 0 and bare.startswith("["):
                section = _parts(line[: mask.find("]")])
                if bare.startswith("[["):
                    counts[section] = counts.get(section, -1) + 1
                    section = (*section, counts[section])
                self._note(section, number)
                continue
            if depth == 0 and "=" in mask:
                self._note((*section, *_parts(line[: mask.index("=")])), number)
            depth += sum(mask.count(c) for c in "[{") - sum(mask.count(c) for c in "]}")

    def _note(self, path: KeyPath, number: int) -> None:
        for end in range(1, len(path) + 1):
            self._lines.setdefault(path[:end], number)

    def of(self, path: KeyPath, holding: str = "") -> int:
        """Return the line of a key, or of its nearest section; with `holding`, the first line with this text."""
        known = (self._lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in self._lines)
        line = next(known, 1)
        if holding:
            return next((n for n in range(line, len(self._text) + 1) if holding in self._text[n - 1]), line)
        return line


def _parts(dotted: str) -> KeyPath:
    return tuple(found[1] or found[2] or found[3] or "" for found in _PART.finditer(dotted))
