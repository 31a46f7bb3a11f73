r"""Fixed text and inputs as a Jinja2 template that renders them literally. Nunjucks reads it the same way. Pure.

Braces that would open a tag, `#}` (Nunjucks stumbles over it), carriage returns (Jinja makes them line feeds) and a
line feed at the very end (Jinja may drop it) are written as string literals: `{{ "{" }}`.
"""

from __future__ import annotations

import re

from agent.release.formats.base import Parts

_AWKWARD = re.compile(r"\{(?=[{%#\r]|\n?\Z)|#(?=\})|\r")
_NAMES = {"{": "{", "#": "#", "\r": "\\r", "\n": "\\n"}


def literal(text: str) -> str:
    return _AWKWARD.sub(lambda found: _quoted(found[0]), text)


def jinja(parts: Parts) -> str:
    made = "".join(f"{{{{ {part[0]} }}}}" if isinstance(part, tuple) else literal(part) for part in parts)
    return f"{made[:-1]}{_quoted(chr(10))}" if made.endswith("\n") else made


def _quoted(char: str) -> str:
    return '{{ "' + _NAMES[char] + '" }}'
