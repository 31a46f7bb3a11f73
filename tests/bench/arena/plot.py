"""Test score against calls of search as an SVG: one panel a task and model, one line or dot a system. Plain text, no
library.

Colours are chosen to stand on a white and on a dark page; text and axes take the page's own by a media query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from statistics import mean

from tests.bench.arena.results import Line
from tests.bench.arena.systems import SYSTEMS

WIDTH, HEIGHT, LEFT, TOP, COLUMNS = 360, 220, 44, 30, 2
CAPTION = "Points on test against calls of search. A line is the way of a run, a dot the end of all seeds."
TICK = 200
"""Calls between two marks of the axis, which ends at the first mark behind the longest run."""
COLOURS = {
    "ours": "#d9480f",
    "ours-noproposer": "#f08c00",
    "ours-220": "#d9480f",
    "ours-300": "#d9480f",
    "ours-1500": "#d9480f",
    "random": "#1c7ed6",
    "user": "#868e96",
    "knn-prompt": "#5c940d",
    "dspy-knn": "#0b7285",
    "random-same-space": "#364fc7",
    "dspy-random": "#2f9e44",
    "dspy-random-json": "#099268",
    "dspy-mipro": "#9c36b5",
    "dspy-gepa": "#e64980",
    "random-300": "#1c7ed6",
    "dspy-random-json-300": "#099268",
    "capo": "#4263eb",
    "evoprompt": "#0c8599",
}
STYLE = (
    "text{font:11px sans-serif;fill:#24292f}.axis{stroke:#8c959f;fill:none}.grid{stroke:#8c959f;opacity:.25}"
    ".head{font-weight:600;font-size:12px}"
    "@media (prefers-color-scheme:dark){text{fill:#c9d1d9}.axis{stroke:#6e7681}}"
)


@dataclass(frozen=True, slots=True)
class Scale:
    """Where a number of calls (0 to `calls`) and a score (0 to 1) lie in a panel."""

    calls: int

    def x(self, calls: float) -> float:
        return LEFT + calls / self.calls * (WIDTH - LEFT - 20)

    def y(self, score: float) -> float:
        return TOP + (1 - score) * (HEIGHT - TOP - 36)


def chart(lines: Sequence[Line]) -> str:
    """Every task of every model that has whole results, with one key below."""
    whole = [line for line in lines if not line.get("rows") and line["system"] in SYSTEMS]
    panels: dict[tuple[str, str], list[Line]] = {}
    models = list(dict.fromkeys(line["model"] for line in whole))
    for line in sorted(whole, key=lambda line: models.index(line["model"])):
        panels.setdefault((line["model"], line["set"]), []).append(line)
    scale = Scale(max((TICK * -(-_calls(line) // TICK) for line in whole), default=0) or TICK)
    systems = [name for name in SYSTEMS if any(line["system"] == name for line in whole)]
    rows = -(-len(panels) // COLUMNS)
    key_height = 18 * (-(-max(1, len(systems)) // COLUMNS) + 1) + 16
    width, height = COLUMNS * WIDTH + 20, rows * HEIGHT + key_height + 20
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="Test score against calls of search">',
        f"<style>{STYLE}</style>",
    ]
    for number, ((model, name), drawn) in enumerate(panels.items()):
        x, y = 10 + number % COLUMNS * WIDTH, 10 + number // COLUMNS * HEIGHT
        title = f"{name}, {model.removeprefix('local/')}" if len(models) > 1 else name
        body.append(f'<g transform="translate({x},{y})">{_panel(title, drawn, scale)}</g>')
    body.append(f'<g transform="translate(10,{rows * HEIGHT + 16})">{_key(systems)}</g></svg>')
    return "\n".join(body) + "\n"


def _panel(name: str, lines: Sequence[Line], scale: Scale) -> str:
    out = [f'<text class="head" x="{LEFT}" y="18">{escape(name)}</text>']
    for percent in (0, 25, 50, 75, 100):
        y = scale.y(percent / 100)
        out.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - 20}"/>')
        out.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{percent}</text>')
    for calls in range(0, scale.calls + 1, TICK):
        out.append(f'<text x="{scale.x(calls):.1f}" y="{HEIGHT - 18}" text-anchor="middle">{calls}</text>')
    out.append(f'<path class="axis" d="M{LEFT} {scale.y(1):.1f}V{scale.y(0):.1f}H{WIDTH - 20}"/>')
    for system in SYSTEMS:
        out += _drawn([line for line in lines if line["system"] == system], scale)
    return "".join(out)


def _drawn(lines: Sequence[Line], scale: Scale) -> list[str]:
    """The way of the first seed as a thin line, the end over all seeds as a dot."""
    if not lines:
        return []
    system = lines[0]["system"]
    colour = COLOURS.get(system, "#868e96")
    end = (mean(map(_calls, lines)), mean(line["test"] for line in lines))
    out = [f'<circle cx="{scale.x(end[0]):.1f}" cy="{scale.y(end[1]):.1f}" r="4" fill="{colour}">']
    out[0] += f"<title>{escape(SYSTEMS[system].title)}: {100 * end[1]:.1f} at {end[0]:.0f} calls</title></circle>"
    for line in lines:
        if line["steps"]:
            points = " ".join(f"{scale.x(calls):.1f},{scale.y(score):.1f}" for calls, score in line["steps"])
            out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5" opacity=".7"/>')
    return out


def _calls(line: Line) -> int:
    return int(line["calls"].get("task", 0) + line["calls"].get("proposer", 0))


def _key(systems: Sequence[str]) -> str:
    out = [f'<text x="4" y="10">{CAPTION}</text>']
    for number, name in enumerate(systems):
        x, y = number % COLUMNS * WIDTH, 18 + number // COLUMNS * 18
        out.append(f'<circle cx="{x + 8}" cy="{y + 6}" r="4" fill="{COLOURS.get(name, "#868e96")}"/>')
        out.append(f'<text x="{x + 18}" y="{y + 10}">{escape(SYSTEMS[name].title)}</text>')
    return "".join(out)
