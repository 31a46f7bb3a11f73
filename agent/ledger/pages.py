"""Reads rows out of a SQLite file page by page, whatever else of it is lost: no header, schema or index is needed.

Knows the layout of SQLite's files ("Database File Format" in its manual) and nothing of what the rows mean. What it
finds may be damaged or left over from before: whoever uses it must know a right row from a wrong one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.ledger.log import log_path

MAGIC = b"SQLite format 3\0"
PAGE = 4096
LEAF = 13  # the kind of a table's page that holds rows
Place = tuple[int, int]
"""Number of a page, from 1, and where on it the row begins."""


class Pages:
    """The pages of a database at its last commit: those of the main file under those of its write-ahead log."""

    def __init__(self, path: Path) -> None:
        log = log_path(path)
        self._data = b"" if log.exists() and not path.exists() else path.read_bytes()
        self._size = PAGE
        if self._data.startswith(MAGIC):
            self._size = struct.unpack_from(">H", self._data, 16)[0] or PAGE
            self._size = 65536 if self._size == 1 else self._size
        self._newer = _logged(log.read_bytes()) if log.exists() else {}
        self._count = max(len(self._data) // self._size, *self._newer, 1)

    def page(self, number: int) -> bytes:
        newer = self._newer.get(number)
        return self._data[(number - 1) * self._size : number * self._size] if newer is None else newer

    def rows(self, columns: int, numbered: bool = False) -> Iterator[tuple[int, Place]]:
        """Number (rowid) and place of each row that has so many columns, page by page.

        `numbered`: only of tables whose first column is that number; the row itself has None there.
        """
        for number in range(1, self._count + 1):
            page = self.page(number)
            start = 100 if number == 1 else 0
            if len(page) != self._size or page[start] != LEAF:
                continue
            (cells,) = struct.unpack_from(">H", page, start + 3)
            for cell in range(min(cells, (self._size - start - 8) // 2)):
                (at,) = struct.unpack_from(">H", page, start + 8 + 2 * cell)
                try:
                    _, body = _varint(page, at)
                    rowid, body = _varint(page, body)
                    kinds, _ = _kinds(page, body)
                except (IndexError, ValueError):
                    continue
                if len(kinds) == columns and (not kinds[0] or not numbered):
                    yield rowid, (number, at)

    def values(self, place: Place) -> tuple[Any, ...]:
        """The row at `place`; texts as bytes. Raises ValueError when it cannot be put together."""
        try:
            record = self._record(*place)
            kinds, at = _kinds(record, 0)
            return tuple(_values(record, kinds, at))
        except (IndexError, struct.error, OverflowError) as error:
            raise ValueError(f"page {place[0]} is damaged") from error

    def _record(self, number: int, at: int) -> bytes:
        """A row's bytes: what stands on its page, and what its overflow pages hold."""
        page = self.page(number)
        length, at = _varint(page, at)
        if length > self._count * self._size:
            raise ValueError(f"page {number} is damaged")
        _, at = _varint(page, at)
        local = most = self._size - 35
        if length > most:
            least = (self._size - 12) * 32 // 255 - 23
            local = least + (length - least) % (self._size - 4)
            local = local if local <= most else least
        parts = [page[at : at + min(local, length)]]
        left = length - len(parts[0])
        if left:
            (following,) = struct.unpack_from(">I", page, at + local)
        while left:
            page = self.page(following)
            (following,) = struct.unpack_from(">I", page, 0)
            parts.append(page[4 : 4 + left])
            if len(parts[-1]) < min(left, self._size - 4):
                raise ValueError(f"page {number} is damaged")
            left -= len(parts[-1])
        return b"".join(parts)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of one to nine bytes, and where it ends."""
    value = 0
    for step in range(8):
        byte = data[at + step]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + step + 1
    return value << 8 | data[at + 8], at + 9


def _kinds(record: bytes, at: int) -> tuple[list[int], int]:
    """The kinds of a row's columns, and where their values begin."""
    length, here = _varint(record, at)
    if length > 100:  # no table of ours has so many columns
        raise ValueError("not a row")
    kinds = []
    while here < at + length:
        kind, here = _varint(record, here)
        kinds.append(kind)
    return kinds, here


def _values(record: bytes, kinds: list[int], at: int) -> Iterator[Any]:
    for kind in kinds:
        size = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)[kind] if kind < 10 else (kind - 12) // 2
        data = record[at : at + size]
        if len(data) != size or kind in (10, 11):
            raise ValueError("not a row")
        at += size
        if kind == 0:
            yield None
        elif kind < 7:
            yield int.from_bytes(data, "big", signed=True)
        elif kind == 7:
            yield struct.unpack(">d", data)[0]
        else:
            yield kind - 8 if kind < 10 else data


def _logged(log: bytes) -> dict[int, bytes]:
    """The pages in a write-ahead log, up to its last commit; SQLite's checksums say where it ends."""
    if len(log) < 32:
        return {}
    magic, _, size = struct.unpack_from(">III", log, 0)
    if magic not in (0x377F0682, 0x377F0683) or not size:
        return {}
    order = ">" if magic & 1 else "<"
    salts, frame = log[16:24], 24 + size
    sums = _checksum(log[:24], order, (0, 0))
    committed: dict[int, bytes] = {}
    waiting: dict[int, bytes] = {}
    if sums != struct.unpack_from(">II", log, 24):
        return {}
    for at in range(32, len(log) - frame + 1, frame):
        number, commits = struct.unpack_from(">II", log, at)
        sums = _checksum(log[at : at + 8] + log[at + 24 : at + frame], order, sums)
        if log[at + 8 : at + 16] != salts or sums != struct.unpack_from(">II", log, at + 16):
            break
        waiting[number] = log[at + 24 : at + frame]
        if commits:
            committed |= waiting
            waiting.clear()
    return committed


def _checksum(data: bytes, order: str, sums: tuple[int, int]) -> tuple[int, int]:
    one, two = sums
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        one = (one + even + two) & 0xFFFFFFFF
        two = (two + odd + one) & 0xFFFFFFFF
    return one, two
