"""Charts of a run as matplotlib figures, and a figure as SVG that takes the colours of the page it stands in.

The only importer of matplotlib. Each chart has its numbers beside it in a table, which whoever places it prints.
"""

from __future__ import annotations

import re
import warnings
from io import StringIO
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from agent.report.view import RunView

INK, SOFT, LINE, GOOD, BAD, BASE = "#24292f", "#57606b", "#8c959f", "#1a7f38", "#cf222f", "#0969db"
"""Text, quiet text, axes; a gain, a loss, and the user's own prompt. `page.css` gives each a dark twin."""
COLOURS = {INK: "--ink", SOFT: "--soft", LINE: "--line", GOOD: "--good", BAD: "--bad", BASE: "--base"}
SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "promptassay",
    "text.parse_math": False,  # untrusted words may hold a $
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": SOFT,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": LINE,
    "grid.alpha": 0.25,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def progress(view: RunView) -> Figure:
    """Dev score (0 to 100) against paid calls: a dot for each finished trial, a cross for each pruned one, a line for
    the best so far."""
    with _styled():
        figure, axes = _figure(6.4, 3.2)
        done = [t for t in view.trials if t["mean"] is not None]
        for state, marker, colour in (("pruned", "x", LINE), ("complete", "o", BASE)):
            group = [t for t in done if t["state"] == state]
            scores = [100 * t["mean"] for t in group]
            axes.scatter([t["spent"] for t in group], scores, s=18, c=colour, marker=marker, label=state, linewidths=1)
        if best := view.best:
            end = max(t["spent"] for t in done)
            calls = [*(t["spent"] for t in best), end]
            scores = [100 * t["mean"] for t in best]
            axes.step(calls, [*scores, scores[-1]], GOOD, where="post", label="best so far")
        axes.set(xlabel="calls paid for", ylabel="dev score", ylim=(-2, 102), xlim=(0, None))
        if done:
            axes.legend(loc="upper left", ncols=3)
        return figure


def svg(figure: Figure, name: str, title: str) -> str:
    """The figure as one inline <svg>, `title` for screen readers; `name`, unique on its page, keeps its ids apart."""
    target = StringIO()
    with _styled():
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    root = ElementTree.fromstring(re.sub(r"<!DOCTYPE[^>]*>", "", target.getvalue()))
    for gone in root.findall(f"{{{SVG}}}metadata"):
        root.remove(gone)
    text = ElementTree.tostring(root, encoding="unicode")
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    for node in root.iter():
        for key, value in list(node.attrib.items()):
            if key == "id" and value not in used:
                del node.attrib[key]
            else:
                node.set(key, _own(value, key, name, used))
    for key in ("width", "height"):
        root.attrib.pop(key, None)
    root.set("role", "img")
    root.set("class", "chart")
    root.set("aria-label", title)
    return ElementTree.tostring(root, encoding="unicode")


def _own(value: str, key: str, name: str, used: set[str]) -> str:
    """An attribute with colours as the page's variables and ids of its own."""
    if key == "id":
        return f"{name}-{value}"
    value = re.sub(r"(url\(#|^#)(?=([^)]+))", lambda m: f"{m[1]}{name}-" if m[2] in used else m[0], value)
    return re.sub(r"#[0-9a-f]{6}\b", lambda m: f"var({COLOURS[m[0]]})" if m[0] in COLOURS else m[0], value)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    """One pair of axes, in inches, drawn without a window system."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.add_subplot()


class _styled:
    """Our style for what is drawn inside, and no warnings about letters that the font of the layout lacks."""

    def __enter__(self) -> None:
        import matplotlib

        self._style = matplotlib.rc_context(STYLE)
        self._quiet = warnings.catch_warnings()
        self._style.__enter__()
        self._quiet.__enter__()
        warnings.filterwarnings("ignore", message="Glyph .* missing")

    def __exit__(self, *_: object) -> None:
        self._quiet.__exit__(None, None, None)
        self._style.__exit__(None, None, None)
