"""The one door for HTML: Jinja templates of this folder, never a prompt or a task. Everything printed is escaped, and
control characters become visible marks.

A page's own markup lies in templates/, its looks in static/page.css.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = files("agent.report")


def visible(value: Any) -> Any:
    """Text with its control characters as marks such as \\x1b; anything else as it is."""
    from markupsafe import Markup

    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join(c if c in "\n\t" or c.isprintable() or c == " " else f"\\x{ord(c):02x}" for c in value)


def points(value: float | None) -> str:
    """A score of 0 to 1 as 0 to 100 with one decimal; "-" where there is none."""
    return "-" if value is None else f"{100 * value:.1f}"


def gain(value: float | None) -> str:
    """A difference of scores in points, with its sign."""
    return "-" if value is None else f"{100 * value:+.1f}"


def tojson_text(value: Any, indent: int | None = None) -> str:
    """A value as JSON for people to read."""
    return json.dumps(value, indent=indent, ensure_ascii=False)


@cache
def environment() -> Environment:
    """Our templates with escaping on for all of them; a name that is not there is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("agent.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"points": points, "gain": gain, "tojson_text": tojson_text}
    return made


def style() -> str:
    return (FOLDER / "static" / "page.css").read_text("utf-8")


def render(template: str, **values: Any) -> str:
    return environment().get_template(template).render(**values)
