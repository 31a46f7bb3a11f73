"""All charts as matplotlib figures, and their SVG in the colours of the page.

The only importer of matplotlib. Every chart comes with a table of its numbers.
"""

from __future__ import annotations

import itertools
import math
import re
import textwrap
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from xml.etree import ElementTree

from agent.report import wording
from agent.report.wording import carried
from agent.results.base import Interval
from agent.safe_text import plain
from agent.stats.figures import gain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from agent.report.checks import CheckPoint
    from agent.report.view import RunView
    from agent.results.breakdown import Calibration
    from agent.results.customize import ComparedArm
    from agent.results.run_parts import Carried, Lift, ParetoRow

INK, SOFT, LINE, GOOD, BAD, BASE = "#24292f", "#57606b", "#8c959f", "#1a7f38", "#cf222f", "#0969db"
"""Text, quiet text, axes, gain, loss, baseline; `page.css` has their dark variants."""
COLOURS = {INK: "--ink", SOFT: "--soft", LINE: "--line", GOOD: "--good", BAD: "--bad", BASE: "--base"}
COLOUR = re.compile("|".join(COLOURS))
SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
DRAWING = threading.RLock()
"""Only one thread draws at a time, as matplotlib's settings are global."""
WIDTH = 4.8
"""In inches; small enough for text to be readable on a phone."""
STYLE: Any = {
    "svg.fonttype": "none",
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
FAMILIES = {"prompt": BASE, "tuned": GOOD, "no model": SOFT}
LABEL_POINTS = 9.0
"""Height of an arm's name in score points."""
UNITS = {"$": "dollars", "hours": "hours of computing", "tokens": "tokens of calls"}
NAME_WIDTH, NAME_LINES = 60, 4
"""Characters per line and lines of a name in the legend of the checks."""
THOUSAND, MILLION = 1_000, 1_000_000
HOUR = 3600
Unit = Literal["$", "hours", "tokens"]


# -- a search ----------------------------------------------------------------------------------------------------------


def progress(view: RunView) -> Figure:
    """Plot dev score against calls. A dot for a finished trial, a cross for a pruned one, and the best so far."""
    with drawing(2.6) as figure:
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
            _legend(axes)
        return figure


def sealed(sides: wording.Sides, scores_of: Mapping[str, tuple[float, float, float]], lift: Lift) -> Figure:
    """Plot both prompts on the test rows and their paired difference, with 95 % intervals.

    Args:
        scores_of: mean and interval by side.
    """
    with drawing(1.5 if len(sides) > 1 else 1.1) as figure:
        scores, *others = figure.subplots(1, len(sides), width_ratios=(3, 2)[: len(sides)], squeeze=False)[0]
        low, high = (100 * end for end in lift.ci95)
        colour = GOOD if low > 0 else BAD if high < 0 else SOFT
        for axes in others:
            _whisker(axes, 100 * lift.diff, low, high, -0.5, colour, gain(lift.diff))
            axes.axvline(0, color=LINE, linewidth=1)
            pad = 0.15 * max(high, 5) - 0.15 * min(low, -5)
            axes.set(xlabel="difference", xlim=(min(low, 0) - pad, max(high, 0) + pad), yticks=[])
        for height, (side, _) in enumerate(sides):
            if side in scores_of:
                mean, low, high = (100 * value for value in scores_of[side])
                _whisker(scores, mean, low, high, -height, BASE if side == "baseline" else colour, f"{mean:.1f}")
        scores.set_yticks([-height for height in range(len(sides))], [name for _, name in sides])
        scores.set(xlabel="score on the sealed test", xlim=(-6, 106))
        for axes in (scores, *others):
            axes.set_ylim(-len(sides) + 0.5, 0.8)
        return figure


def pareto(rows: Sequence[ParetoRow], words: Sequence[str]) -> Figure:
    """Plot the Pareto front. Dev score against tokens and, if calls are paid, dollars per 1,000 calls.

    Args:
        words: what is written at each row; your own prompt has some.
    """
    name, sizes = wording.sizes(rows)
    costs = [(name, [float(size) for size in sizes])]
    if any(row.usd_per_1000 for row in rows):
        costs.append(("$ per 1,000 calls", [row.usd_per_1000 or 0.0 for row in rows]))
    with drawing(2.4) as figure:
        panels = figure.subplots(1, len(costs), sharey=True, squeeze=False)[0]
        for axes, (name, paid) in zip(panels, costs, strict=True):
            front = sorted(zip(paid, rows, words, strict=True), key=lambda each: (each[0], each[1].dev))
            axes.plot([cost for cost, *_ in front], [100 * row.dev for _, row, _ in front], color=LINE, linewidth=1)
            for cost, row, word in front:
                colour = GOOD if row.chosen else BASE if word else SOFT
                axes.scatter([cost], [100 * row.dev], s=60 if row.chosen else 28, c=colour, zorder=3)
                axes.annotate(word, (cost, 100 * row.dev), (0, 7), textcoords="offset points", ha="center")
            axes.set(xlabel=name, ylim=(-2, 112), xlim=(0, None))
            axes.margins(x=0.15)
        panels[0].set_ylabel("dev score")
        return figure


def attribution(rows: Sequence[Carried]) -> Figure:
    """Plot the gain of each part of the winner in points with 95 % intervals. Grey if its sign is unclear."""
    with drawing(0.8 + 0.32 * len(rows)) as figure:
        axes = figure.add_subplot()
        for height, row in enumerate(rows):
            low, high = row.ci95
            colour = SOFT if row.how == "unknown" else GOOD if row.points > 0 else BAD
            _whisker(axes, row.points, low, high, -height, colour, carried(row)[0])
        axes.axvline(0, color=LINE, linewidth=1)
        axes.set_yticks([-height for height in range(len(rows))], [plain(row.part) for row in rows])
        axes.set(xlabel="points that the part carries", ylim=(-len(rows) + 0.4, 0.8))
        return figure


def reliability(found: Calibration) -> Figure:
    """Plot right answers against confidence on the test rows (0 to 100)."""
    with drawing(2.6) as figure:
        axes = figure.add_subplot()
        axes.plot([0, 100], [0, 100], color=LINE, linewidth=1)
        for one in found.bins:
            size = 24 + 160 * one.n / found.rows
            axes.scatter([100 * one.confidence], [100 * one.right], s=size, c=BASE, zorder=3)
        axes.set(xlabel="confidence", ylabel="right", xlim=(-2, 102), ylim=(-2, 102))
        return figure


# -- checks and comparisons --------------------------------------------------------------------------------------------


def over_time(points: Sequence[CheckPoint]) -> Figure:
    """Plot the scores of checks over time by version and model. Crosses: failed gates, dashed: the references."""
    series: dict[str, list[CheckPoint]] = {}
    for point in points:
        if point.score is not None:
            series.setdefault(point.series, []).append(point)
    names = [
        "\n".join(textwrap.wrap(plain(name), NAME_WIDTH, max_lines=NAME_LINES, placeholder=" ...")) for name in series
    ]
    with drawing(2.4 + 0.16 * sum(name.count("\n") + 1 for name in names)) as figure:
        axes = figure.add_subplot()
        for name, of, colour in zip(names, series.values(), itertools.cycle((BASE, GOOD, INK, SOFT)), strict=False):
            times: list[Any] = [point.began for point in of]
            scores = [100 * (point.score or 0.0) for point in of]
            axes.plot(times, scores, "o-", color=colour, markersize=4, linewidth=1, label=name)
            failed = [at for at, point in enumerate(of) if point.gate != "passed"]
            axes.plot([times[at] for at in failed], [scores[at] for at in failed], "x", color=BAD, markersize=8)
            was = [math.nan if point.reference is None else 100 * point.reference for point in of]
            axes.plot(times, was, "_--", color=colour, alpha=0.6, linewidth=1, markersize=9, drawstyle="steps-mid")
        axes.set(ylabel="score on the suite", ylim=(-2, 102))
        axes.tick_params(axis="x", rotation=30)
        if series:  # outside: a long name takes no room from the plot
            figure.legend(loc="outside upper left", fontsize=8)
        return figure


def losses(lines: Mapping[str, Sequence[float]]) -> Figure:
    """Plot the loss of each step in nats, a line for each training."""
    columns = 2 if max(map(len, lines)) < 22 else 1
    with drawing(2.2 + 0.16 * -(-len(lines) // columns)) as figure:
        axes = figure.add_subplot()
        styles = [(colour, dash) for dash in ("-", "--", ":") for colour in (BASE, GOOD, BAD, LINE)]
        for (name, values), (colour, dash) in zip(lines.items(), itertools.cycle(styles), strict=False):
            axes.plot(range(1, len(values) + 1), values, dash, color=colour, linewidth=1, label=plain(name))
        axes.set(xlabel="step", ylabel="loss", ylim=(0, None))
        _legend(axes, columns)
        return figure


def score_against_cost(arms: Sequence[ComparedArm]) -> Figure:
    """Plot test score with 95 % interval against the cost of training and calls. Arms without cost: the left edge."""
    unit = cost_unit(arms)
    with drawing(5.2) as figure:
        for axes, calls in zip(figure.subplots(2, 1), (THOUSAND, MILLION), strict=True):
            _draw_costs(axes, cost_points(arms, calls))
            axes.set(xlabel=f"{UNITS[unit]}, training and {calls:,} calls", ylabel="sealed test", ylim=(-4, 109))
        for family, colour in FAMILIES.items():
            figure.axes[0].plot([], [], "o", color=colour, markersize=5, label=family)
        _legend(figure.axes[0])
        return figure


def _draw_costs(axes: Axes, points: Sequence[CostPoint]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    paid = [point.cost for point in points if point.cost > 0]
    least, most = (min(paid), max(paid)) if paid else (1.0, 1.0)
    edge = least / 10 if len(paid) < len(points) else least  # a cost of 0 has no place on a logarithmic axis
    axes.set_xscale("log")
    axes.set_xlim(edge / 3, most * 3)
    axes.xaxis.set_major_locator(LogLocator(numticks=5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _power(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    ordered = sorted(points, key=lambda one: (-one.score, -one.cost))
    for point, height in zip(ordered, _heights([100 * point.score for point in ordered]), strict=True):
        x, y, colour = point.cost or edge, 100 * point.score, FAMILIES.get(point.family, SOFT)
        axes.plot([x, x], [100 * end for end in point.ci95], color=colour, linewidth=2, alpha=0.35)
        axes.plot([x, most * 3], [y, height], color=LINE, linewidth=0.5, alpha=0.6)
        axes.scatter([x], [y], s=30, c=colour, zorder=3)
        place = (1.02, height)
        axes.annotate(plain(", ".join(point.names)), place, xycoords=("axes fraction", "data"), va="center", color=INK)


def _heights(scores: Sequence[float]) -> list[float]:
    # label positions for descending scores, at least LABEL_POINTS apart and as near the scores as possible
    heights: list[float] = []
    for score in scores:
        heights.append(min(score, heights[-1] - LABEL_POINTS) if heights else score)
    for at, height in enumerate(reversed(heights)):  # not below the axes
        heights[len(heights) - 1 - at] = max(height, at * LABEL_POINTS)
    return heights


def _power(value: float) -> str:
    return f"{value:,g}" if 1e-3 <= value < 1e6 else f"1e{round(math.log10(value))}"


class CostPoint(NamedTuple):
    """Arms with the same `score` in [0, 1] and `cost` of training and calls; `family` is that of the first."""

    names: tuple[str, ...]
    family: str
    cost: float
    score: float
    ci95: tuple[float, float]


def cost_unit(arms: Sequence[ComparedArm]) -> Unit:
    """Choose the cost unit: dollars if all are known, else hours, else tokens."""
    dollars = [(arm.usd_per_1000, arm.train_usd) for arm in arms]
    if all(None not in pair for pair in dollars) and any(any(pair) for pair in dollars):
        return "$"
    return "tokens" if any(arm.latency_s is None for arm in arms) else "hours"


def cost_points(arms: Sequence[ComparedArm], calls: int) -> list[CostPoint]:
    """Return score and cost (training and `calls` calls) of each scored arm. Equal ones are merged."""
    unit = cost_unit(arms)
    groups: dict[tuple[float, float, Interval], list[ComparedArm]] = {}
    for arm in arms:
        if arm.test is not None and arm.ci95:
            groups.setdefault((_total(arm, unit, calls), arm.test, arm.ci95), []).append(arm)
    return [
        CostPoint(tuple(arm.arm for arm in some), some[0].family, cost, score, ci95)
        for (cost, score, ci95), some in groups.items()
    ]


def _total(arm: ComparedArm, unit: Unit, calls: int) -> float:
    if unit == "$":
        return (arm.train_usd or 0.0) + (arm.usd_per_1000 or 0.0) * calls / THOUSAND
    if unit == "hours":
        return (arm.train_s + (arm.latency_s or 0.0) * calls) / HOUR
    return arm.tokens_per_call * calls


# -- any figure --------------------------------------------------------------------------------------------------------


def _legend(axes: Axes, columns: int = 3) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=columns, borderaxespad=0, handletextpad=0.3)


def _whisker(axes: Axes, middle: float, low: float, high: float, height: float, colour: str, word: str) -> None:
    axes.plot([low, high], [height, height], color=colour, linewidth=3, alpha=0.45, solid_capstyle="round")
    axes.scatter([middle], [height], s=42, c=colour, zorder=3)
    axes.annotate(word, (middle, height), (0, 6), textcoords="offset points", ha="center", color=INK)


def svg(figure: Figure, name: str, title: str) -> str:
    """Return the figure as an inline <svg>. `title` is for screen readers, `name` is unique on its page."""
    target = StringIO()
    with _styled(**{"svg.hashsalt": name}):  # the ids that are used are hashes
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    text = re.sub(r"<!DOCTYPE[^>]*>", "", target.getvalue())
    root = ElementTree.fromstring(text)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    for parent in list(root.iter()):
        for gone in ("metadata", "style"):  # the policy of our pages refuses a style sheet
            for node in parent.findall(f"{{{SVG}}}{gone}"):
                parent.remove(node)
        for key, value in list(parent.attrib.items()):
            parent.set(key, COLOUR.sub(lambda found: f"var({COLOURS[found[0]]})", value))
        if parent.get("id") not in used:
            parent.attrib.pop("id", None)
    for key in ("width", "height"):
        root.attrib.pop(key, None)
    root.attrib |= {"style": "stroke-linejoin: round", "role": "img", "class": "chart", "aria-label": plain(title)}
    return ElementTree.tostring(root, encoding="unicode")


@contextmanager
def drawing(height: float) -> Iterator[Figure]:
    """Draw on an empty figure of this height in inches. It needs no window system."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with _styled():
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure


@contextmanager
def _styled(**more: str) -> Iterator[None]:
    import matplotlib

    with DRAWING, matplotlib.rc_context(STYLE | more), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield
