"""What stands between a winner and production, read from a run's result: a sentence for each thing in the way. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

SIGNIFICANT = 0.05


def blocked_by(result: Mapping[str, Any]) -> list[str]:
    """Why the winner may not be promoted: its gain is not shown or rests on rows without a score, it is not better than
    one constant answer, a part got worse, or a judge has not earned trust.

    A result of an older version, without parts and judges, is asked about its gain only.
    """
    return [*_gain(result), *_constant(result), *_worse(result), *untrusted(result)]


def shown(lift: Mapping[str, Any]) -> int:
    """1 for a gain beyond chance, -1 for a loss, 0 where neither is shown.

    Both must say it, the test and the 95 % interval: of graded scores the test, by sign flips, also finds that the
    differences lie unevenly around 0, where their mean may be 0 all the same.
    """
    low, high = lift["ci95"]
    if not lift["p_value"] < SIGNIFICANT:
        return 0
    return int(low > 0) - int(high < 0)


def _gain(result: Mapping[str, Any]) -> Iterator[str]:
    lift = result["lift"]
    if shown(lift) <= 0:
        low, high = (100 * end for end in lift["ci95"])
        uneven = lift["p_value"] < SIGNIFICANT and low <= 0 <= high
        but = f", but the 95 % interval, {low:+.1f} to {high:+.1f}, holds 0" if uneven else ""
        told = f"{100 * lift['diff']:+.1f} points, p = {lift['p_value']:.2g} on {lift['n']} rows{but}"
        yield f"the gain is not shown: {told}"
    elif lift.get("lost") and lift["diff_if_wrong"] <= 0:
        yield (
            f"the gain may come from rows left out: {lift['lost']} that your prompt got a score on have none with it; "
            f"counted as wrong, {100 * lift['diff_if_wrong']:+.1f} points"
        )


def _constant(result: Mapping[str, Any]) -> Iterator[str]:
    """The first yardstick answers every row alike: who is not better than that has not read the rows."""
    for told in (result.get("yardsticks") or ())[:1]:
        if told["diff"] is not None and shown({"ci95": told["diff_ci95"], "p_value": told["p_value"]}) <= 0:
            alike = f"answering every row alike ({told['name']}: {100 * told['test']:.1f})"
            gained = f"{100 * told['diff']:+.1f} points, p = {told['p_value']:.2g}"
            yield f"it is not shown to be better than {alike}: {gained}"


def _worse(result: Mapping[str, Any]) -> Iterator[str]:
    """Parts and slices that lost, by Holm's step-down over all of them (1979)."""
    told = [(f"metric {_named(part)}", part) for part in result.get("metrics") or ()]
    for cut in result.get("slices") or ():
        told += [(f"slice {cut['slice']} = {group['value']}", group) for group in cut["groups"]]
    tested = sorted((part["p_value"], part["diff"], name) for name, part in told if part["p_value"] is not None)
    for place, (p_value, diff, name) in enumerate(tested):
        if p_value >= SIGNIFICANT / (len(tested) - place):
            return
        if diff < 0:
            yield f"{name} got worse: {100 * diff:+.1f} points, p = {p_value:.2g}"


def _named(part: Mapping[str, Any]) -> str:
    return f"{part['metric']} of {part['field']}" if part["field"] else str(part["metric"])


def untrusted(result: Mapping[str, Any]) -> Iterator[str]:
    """What is against the judges that the score rests on."""
    for judge in result.get("judges") or ():
        if not judge["trusted"]:
            yield f"the judge {', '.join(judge['models'])} ({judge['metric']}) is not to be trusted: {judge['why']}"
