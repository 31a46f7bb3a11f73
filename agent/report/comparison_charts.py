"""Charts of a comparison: score against the cost of training and calls, and the losses of its trainings."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from agent.report.blocks import plain
from agent.report.charts import BAD, BASE, GOOD, INK, LINE, SOFT, WIDTH, canvas, styled
from agent.report.comparison import MILLION, THOUSAND, CostPoint, cost_points, cost_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from agent.results.customize import ComparedArm

FAMILIES = {"prompt": BASE, "tuned": GOOD, "no model": SOFT}
LABEL_POINTS = 9.0
"""Of score that the name of an arm takes in height."""
UNITS = {"$": "dollars", "hours": "hours of computing", "tokens": "tokens of calls"}


def losses(lines: Mapping[str, Sequence[float]]) -> Figure:
    """The loss of each step of a training, in nats, a line for each training by its name."""
    with styled():
        columns = 2 if max(map(len, lines)) < 22 else 1
        figure = canvas(WIDTH, 2.2 + 0.16 * -(-len(lines) // columns))
        axes = figure.add_subplot()
        styles = [(colour, dash) for dash in ("-", "--", ":") for colour in (BASE, GOOD, BAD, LINE)]
        for (name, values), (colour, dash) in zip(lines.items(), itertools.cycle(styles), strict=False):
            axes.plot(range(1, len(values) + 1), values, dash, color=colour, linewidth=1, label=plain(name))
        axes.set(xlabel="step", ylabel="loss", ylim=(0, None))
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=columns, borderaxespad=0)
        return figure


def score_against_cost(arms: Sequence[ComparedArm]) -> Figure:
    """Sealed score (0 to 100) against the cost of training and 1,000 or 1,000,000 calls, a dot for each arm with its
    95 % interval; arms that cost nothing stand at the left edge."""
    unit = cost_unit(arms)
    with styled():
        figure = canvas(WIDTH, 5.2)
        for axes, calls in zip(figure.subplots(2, 1), (THOUSAND, MILLION), strict=True):
            _draw_costs(axes, cost_points(arms, calls))
            axes.set(xlabel=f"{UNITS[unit]}, training and {calls:,} calls", ylabel="sealed test", ylim=(-4, 109))
        for family, colour in FAMILIES.items():
            figure.axes[0].plot([], [], "o", color=colour, markersize=5, label=family)
        figure.axes[0].legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=3, borderaxespad=0, handletextpad=0.3)
        return figure


def _draw_costs(axes: Axes, points: Sequence[CostPoint]) -> None:
    """The dots, with their names in a column next to the axes."""
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
    """Where names of descending scores stand, LABEL_POINTS apart and as near their scores as that allows."""
    heights: list[float] = []
    for score in scores:
        heights.append(min(score, heights[-1] - LABEL_POINTS) if heights else score)
    for at, height in enumerate(reversed(heights)):  # not below the axes
        heights[len(heights) - 1 - at] = max(height, at * LABEL_POINTS)
    return heights


def _power(value: float) -> str:
    return f"{value:,g}" if 1e-3 <= value < 1e6 else f"1e{round(math.log10(value))}"
