"""The table of a calibration, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent.cli.common import plain
from agent.cli.errands import cost_line


def report(told: Mapping[str, Any]) -> str:
    """The calibration as a table: what was measured, the value, its interval."""
    trusted = "trusted" if told["trusted"] else "NOT TO BE TRUSTED"
    lines = ["", plain(f"judge {', '.join(told['models'])} ({told['mode']}) on {told['labels']}: {trusted}")]
    lines += [plain(f"  {why}") for why in told["why"]]
    if not told["trusted"]:
        lines.append(
            "  promotion is blocked while this judge counts, until somebody gives a reason (--override --reason)"
        )
    people = told["people"]
    rows = [
        ("items with a readable verdict", f"{told['items'] - told['unscored']} of {told['items']}", ""),
        _line("Cohen's kappa" + (", quadratic" if told["mode"] != "pairwise" else ""), told["kappa"], told["ci95"]),
        _named("Krippendorff's alpha, ordinal", told, "alpha"),
        _named("Spearman", told, "spearman"),
        _named("same rating as people", told, "agreement"),
        _line(
            f"alpha among {people['raters']} rater{'s' * (people['raters'] != 1)}",
            people["alpha"],
            people["alpha_ci95"],
        ),
        _named("same verdict in the other order", told, "order_consistency", f"{told['asked_in_both_orders']} pairs"),
        ("the answer shown first wins", _value(told["first_wins"]), "0.5 is fair"),
        _named("same verdict when asked again", told, "self_consistency", f"{told['asked_again']} times"),
        _named("length against its ratings", told, "length_judge", "Spearman"),
        _named("length against people's", told, "length_people", "Spearman"),
        _named("points for being longer", told, "length_bias", "beyond people's"),
    ]
    width = max(len(name) for name, _, _ in rows)
    lines += ["", *[f"  {name:<{width}}  {value:>8}  {note}".rstrip() for name, value, note in rows]]
    lines += ["", "  answers that are none, and how often they got a good rating:"]
    for name, control in told["negative_controls"].items():
        lines.append(f"    {name:<{width - 2}}  {control['fooled']:>4} of {control['n']}")
    lines += ["", *_table(told)]
    lines.append(cost_line(told))
    if told["status"] == "budget":
        lines.append("the budget ended it early: what was measured stands, on fewer items")
    for reason in told["reasons"]:
        lines.append(plain(f"unreadable: {reason[:160]}"))
    return "\n".join(lines)


def _value(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _line(name: str, value: float | None, ci95: Sequence[float] | None, note: str = "") -> tuple[str, str, str]:
    interval = f"{ci95[0]:.2f} to {ci95[1]:.2f}" if ci95 else ""
    return name, _value(value), ", ".join(part for part in (interval, note) if part)


def _named(name: str, told: Mapping[str, Any], key: str, note: str = "") -> tuple[str, str, str]:
    return _line(name, told[key], told[f"{key}_ci95"], note)


def _table(told: Mapping[str, Any]) -> list[str]:
    names, counts = told["scale"], told["confusion"]
    width = max(6, *[len(name) + 1 for name in names])
    head = "".join(f"{name:>{width}}" for name in names)
    lines = [f"  people's rating (down), the judge's (across)\n  {'':<{width}}{head}"]
    lines += [
        f"  {name:>{width}}" + "".join(f"{count:>{width}}" for count in row)
        for name, row in zip(names, counts, strict=True)
    ]
    return [*lines, ""]
