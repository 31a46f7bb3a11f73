"""Text as YAML scalars that every YAML reader takes as the same text. Pure."""

from __future__ import annotations

_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def quoted(text: str) -> str:
    """One line in double quotes. `-` is written as an escape where three would look like the end of front matter."""
    made = "".join(_SHORT.get(char) or (char if char.isprintable() else f"\\U{ord(char):08X}") for char in text)
    return f'"{made}"'.replace("---", "\\x2D--")


def scalar(text: str, indent: int) -> str:
    """A block of lines where nothing in the text needs an escape, else one quoted line."""
    lines = text.split("\n")
    if len(lines) == 1 or text != text.strip() or not all(line.isprintable() for line in lines):
        return quoted(text)
    return "|-\n" + "\n".join(" " * indent + line if line else "" for line in lines)
