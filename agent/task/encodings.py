"""Tell the encoding of a text file that is not UTF-8, and make UTF-8 of it."""

from __future__ import annotations

import codecs
import re

_UTF8_PAIR = re.compile(rb"[\xc2-\xf4][\x80-\xbf]")
_HIGH = re.compile(rb"[\x80-\xff]")
_BOMS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_LOOKED_AT = 4_096


class UnknownEncoding(ValueError):
    """No encoding of this name, or text that is not in it."""


def as_utf8(data: bytes, asked: str = "") -> tuple[bytes, str]:
    """The data in UTF-8, and the name of the encoding that it was in; "" for UTF-8.

    Args:
        data: of a text file.
        asked: the encoding by its name; "" tells it from the data.

    Raises:
        UnknownEncoding: `asked` is none, or the data is not in it.
    """
    name = asked or told(data)
    if not name:
        return data, ""
    try:
        is_utf8 = codecs.lookup(name).name in ("utf-8", "utf-8-sig")
        return (data, "") if is_utf8 else (data.decode(name).lstrip("\ufeff").encode("utf-8"), name)
    except LookupError:
        raise UnknownEncoding(f"no encoding {name!r:.40}; write one such as cp1252, utf-16, latin-1") from None
    except UnicodeError as error:
        raise UnknownEncoding(f"is not {name} ({str(error)[-60:]}); name another with --encoding") from None


def told(data: bytes) -> str:
    """The encoding of data that is not UTF-8: `utf-16`, `utf-16-le`, `utf-16-be` or `cp1252`, "" for any other."""
    if name := next((name for mark, name in _BOMS if data.startswith(mark)), ""):
        return name
    first = data[:_LOOKED_AT]
    half = len(first) // 2
    if half and not len(data) % 2:
        for name, zeros, others in (("utf-16-le", first[1::2], first[::2]), ("utf-16-be", first[::2], first[1::2])):
            if zeros.count(0) > half * 0.7 and others.count(0) == 0:
                return name
    return "cp1252" if _is_cp1252(data) else ""


def _is_cp1252(data: bytes) -> bool:
    """Whether the data is text in it, and not UTF-8 of which a part was damaged."""
    if data.isascii() or b"\0" in data:
        return False
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    else:
        return False
    try:
        data.decode("cp1252")
    except UnicodeDecodeError:
        return False
    return 4 * len(_UTF8_PAIR.findall(data)) < len(_HIGH.findall(data))
