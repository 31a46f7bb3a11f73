"""Charts of a run as matplotlib figures, and a figure as SVG that takes the colours of the page it stands in.

With `comparison_charts` and `checks` the only importer of matplotlib. The numbers of each chart are a table of the same
name in `run_tables`.
"""

from __future__ import annotations

import re
import warnings
from io import StringIO
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from agent.report import facts
from agent.report.blocks import plain
from agent.report.facts import carried, gain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from agent.report.view import RunView

INK, SOFT, LINE, GOOD, BAD, BASE = "#24292f", "#57606b", "#8c959f", "#1a7f38", "#cf222f", "#0969db"
"""Text, quiet text, axes; a gain, a loss, the user's own prompt. `page.css` has one of each for a dark page."""
COLOURS = {INK: "--ink", SOFT: "--soft", LINE: "--line", GOOD: "--good", BAD: "--bad", BASE: "--base"}
SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
WIDTH = 4.8
"""In inches: small, so that text can be read on a telephone."""
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
    """Dev score (0 to 100) against calls: a dot for each finished trial, a cross for each pruned one, a line for
    the best so far."""
    with styled():
        figure = canvas(WIDTH, 2.6)
        axes = figure.add_subplot()
        done = [t for t in view.trials if t["mean"] is not None]
        for state, marker, colour in (("pruned", "x", LINE), ("complete", "o", BASE)):
            group = [t for t in done if t["state"] == state]
            scores = [100 * t["mean"] for t in group]
            axes.plot([t["used"] for t in group], scores, marker, color=colour, markersize=4, label=state)
        if best := view.best:
            end = max(t["used"] for t in done)
            calls = [*(t["used"] for t in best), end]
            scores = [100 * t["mean"] for t in best]
            axes.step(calls, [*scores, scores[-1]], GOOD, where="post", label="best so far")
        axes.set(xlabel="calls", ylabel="dev score", ylim=(-2, 102), xlim=(0, None))
        if done:
            axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=3, borderaxespad=0, handletextpad=0.3)
        return figure


def sealed(view: RunView) -> Figure:
    """The prompts on the sealed test with 95 % intervals, next to their paired difference. Needs a result."""
    assert view.result is not None
    sides = facts.sides(view.result)
    with styled():
        figure = canvas(WIDTH, 1.5 if len(sides) > 1 else 1.1)
        scores, *beside = figure.subplots(1, len(sides), width_ratios=(3, 2)[: len(sides)], squeeze=False)[0]
        lift = view.result.lift
        low, high = (100 * end for end in lift.ci95)
        colour = GOOD if low > 0 else BAD if high < 0 else SOFT
        for axes in beside:
            _whisker(axes, 100 * lift.diff, low, high, -0.5, colour, gain(lift.diff))
            axes.axvline(0, color=LINE, linewidth=1)
            pad = 0.15 * max(high, 5) - 0.15 * min(low, -5)
            axes.set(xlabel="difference", xlim=(min(low, 0) - pad, max(high, 0) + pad), yticks=[])
        for height, (side, _) in enumerate(sides):
            if side in view.sealed:
                mean, low, high = (100 * value for value in view.sealed[side])
                _whisker(scores, mean, low, high, -height, BASE if side == "baseline" else colour, f"{mean:.1f}")
        scores.set_yticks([-height for height in range(len(sides))], [name for _, name in sides])
        scores.set(xlabel="score on the sealed test", xlim=(-6, 106))
        for axes in (scores, *beside):
            axes.set_ylim(-len(sides) + 0.5, 0.8)
        return figure


def pareto(view: RunView) -> Figure:
    """The front: dev score against tokens and, where calls cost something, dollars per 1,000 of them."""
    assert view.result is not None
    rows = view.result.pareto
    name, sizes = facts.sizes(rows)
    costs = [(name, [float(size) for size in sizes])]
    if any(row.usd_per_1000 for row in rows):
        costs.append(("$ per 1,000 calls", [row.usd_per_1000 or 0.0 for row in rows]))
    with styled():
        figure = canvas(WIDTH, 2.4)
        panels = figure.subplots(1, len(costs), sharey=True, squeeze=False)[0]
        for axes, (name, paid) in zip(panels, costs, strict=True):
            front = sorted(zip(paid, rows, strict=True), key=lambda pair: (pair[0], pair[1].dev))
            axes.plot([cost for cost, _ in front], [100 * row.dev for _, row in front], color=LINE, linewidth=1)
            for cost, row in front:
                own = view.baseline is not None and row.candidate_id == view.baseline["id"]
                colour = GOOD if row.chosen else BASE if own else SOFT
                axes.scatter([cost], [100 * row.dev], s=60 if row.chosen else 28, c=colour, zorder=3)
                word = "chosen" if row.chosen else view.own.name if own else ""
                axes.annotate(word, (cost, 100 * row.dev), (0, 7), textcoords="offset points", ha="center")
            axes.set(xlabel=name, ylim=(-2, 112), xlim=(0, None))
            axes.margins(x=0.15)
        panels[0].set_ylabel("dev score")
        return figure


def attribution(view: RunView) -> Figure:
    """The gain of each part of the winner in points with 95 % intervals; quiet where its sign is not known."""
    assert view.result is not None
    rows = view.result.attribution
    with styled():
        figure = canvas(WIDTH, 0.8 + 0.32 * len(rows))
        axes = figure.add_subplot()
        for height, row in enumerate(rows):
            low, high = row.ci95
            colour = SOFT if row.how == "unknown" else GOOD if row.points > 0 else BAD
            _whisker(axes, row.points, low, high, -height, colour, carried(row)[0])
        axes.axvline(0, color=LINE, linewidth=1)
        axes.set_yticks([-height for height in range(len(rows))], [plain(row.part) for row in rows])
        axes.set(xlabel="points that the part carries", ylim=(-len(rows) + 0.4, 0.8))
        return figure


def reliability(view: RunView) -> Figure:
    """Right answers against confidence on the sealed test (0 to 100), larger dots for more rows; the line is where they
    are equal. Empty without log-probabilities."""
    assert view.result is not None
    found = view.result.calibration
    with styled():
        figure = canvas(WIDTH, 2.6)
        axes = figure.add_subplot()
        axes.plot([0, 100], [0, 100], color=LINE, linewidth=1)
        for one in found.bins if found else ():
            axes.scatter([100 * one.confidence], [100 * one.right], s=24 + 160 * one.n / found.rows, c=BASE, zorder=3)  # type: ignore[union-attr]
        axes.set(xlabel="confidence", ylabel="right", xlim=(-2, 102), ylim=(-2, 102))
        return figure


def _whisker(axes: Axes, middle: float, low: float, high: float, height: float, colour: str, word: str) -> None:
    axes.plot([low, high], [height, height], color=colour, linewidth=3, alpha=0.45, solid_capstyle="round")
    axes.scatter([middle], [height], s=42, c=colour, zorder=3)
    axes.annotate(word, (middle, height), (0, 6), textcoords="offset points", ha="center", color=INK)


def svg(figure: Figure, name: str, title: str) -> str:
    """The figure as one inline <svg>, `title` for screen readers; `name`, unique on its page, keeps its ids apart."""
    target = StringIO()
    with styled():
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
    root.set("aria-label", plain(title))
    return ElementTree.tostring(root, encoding="unicode")


def _own(value: str, key: str, name: str, used: set[str]) -> str:
    """An attribute with colours as the page's variables and ids of its own."""
    if key == "id":
        return f"{name}-{value}"
    value = re.sub(r"(url\(#|^#)(?=([^)]+))", lambda m: f"{m[1]}{name}-" if m[2] in used else m[0], value)
    return re.sub(r"#[0-9a-f]{6}\b", lambda m: f"var({COLOURS[m[0]]})" if m[0] in COLOURS else m[0], value)


def canvas(width: float, height: float) -> Figure:
    """An empty figure, in inches, drawn without a window system."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure


class styled:
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
