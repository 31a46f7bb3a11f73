"""The one door for HTML: Jinja templates of this folder, never a prompt or a task. Everything printed is escaped, and
control characters become visible marks.

A page's own markup lies in templates/, its looks in static/page.css.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from agent.prompt.render import label_text
from agent.report.facts import cut, dollars, duration, gain, points

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

FOLDER = files("agent.report")


def visible(value: Any) -> Any:
    """Text with its control characters as marks such as \\x1b; anything else as it is."""
    from markupsafe import Markup

    return value if not isinstance(value, str) or isinstance(value, Markup) else marked(value)


class _Marks(dict[int, int | str]):
    """For `str.translate`: each character that steers, turns or hides what stands around it, as a mark."""

    def __missing__(self, code: int) -> int | str:
        shown = chr(code) in "\n\t" or chr(code).isprintable()
        self[code] = found = code if shown else f"\\x{code:02x}"
        return found


_MARKS = _Marks()


def marked(text: str) -> str:
    """A text, or a whole page, with its control and invisible characters as marks such as \\x1b."""
    return text.translate(_MARKS)


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
    made.filters |= {
        "dollars": dollars,
        "points": points,
        "gain": gain,
        "duration": duration,
        "cut": cut,
        "text": label_text,
    }
    return made


def style() -> Markup:
    """The style sheet of all pages, ready to stand in a <style>."""
    from markupsafe import Markup

    return Markup((FOLDER / "static" / "page.css").read_text("utf-8"))


def render(template: str, **values: Any) -> str:
    return environment().get_template(template).render(**values)
