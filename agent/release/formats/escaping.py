r"""Texts as Jinja2 and as YAML that read back as the same text. Pure.

Jinja2 (and Nunjucks, which reads it the same way) gets as string literals, `{{ "{" }}`: braces that would open a tag,
`#}` (Nunjucks stumbles over it), carriage returns (Jinja makes them line feeds) and a line feed at the very end (Jinja
may drop it).
"""

from __future__ import annotations

import re

from agent.release.formats.export_format import Parts

OPENS = re.compile(r"\{(?=[{%#\r]|\n?\Z)|#(?=\})|\r")
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def jinja(parts: Parts) -> str:
    """A message as a Jinja2 template that renders its fixed text literally.

    >>> jinja(["Use {{x}} for ", ("message",)])
    'Use {{ "{" }}{x}} for {{ message }}'
    """
    text = "".join(
        f"{{{{ {part[0]} }}}}" if isinstance(part, tuple) else OPENS.sub(lambda found: _literal(found[0]), part)
        for part in parts
    )
    return f"{text[:-1]}{_literal(chr(10))}" if text.endswith("\n") else text


def _literal(char: str) -> str:
    return '{{ "' + _SHORT.get(char, char) + '" }}'


def yaml_quoted(text: str) -> str:
    r"""One line of YAML in double quotes; `---`, which could look like the end of front matter, is escaped.

    >>> print(yaml_quoted('a "b"\n---'))
    "a \"b\"\n\x2D--"
    """
    escaped = "".join(_SHORT.get(char) or (char if char.isprintable() else f"\\U{ord(char):08X}") for char in text)
    return f'"{escaped}"'.replace("---", "\\x2D--")


def yaml_scalar(text: str, indent: int) -> str:
    """A block of lines where nothing in the text needs an escape, else one quoted line."""
    lines = text.split("\n")
    if len(lines) == 1 or text != text.strip() or not all(line.isprintable() for line in lines):
        return yaml_quoted(text)
    return "|-\n" + "\n".join(" " * indent + line if line else "" for line in lines)
