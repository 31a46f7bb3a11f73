"""The metrics `tool_calls` (right tools, right arguments), `tool_choice` (F1 of tools) and `right_tool` (all or none).

An answer is a list of calls, [] if no tool fits. The order of calls does not matter. Arguments agree by type and value:
1 equals 1.0 but not "1" or true; strings ignore case, spaces and punctuation.

Source: Patil et al. 2025, "The Berkeley Function Calling Leaderboard" (single-turn AST evaluation), also for strings,
accepted values, and optional arguments (those that accept "").
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import Field as Option

from agent.metrics.calls import ABSENT, ToolCall, calls_in, excluded_in, has_accepted, names_in, require_accepted
from agent.metrics.comparison import Check, f1, missing_and_extra, short
from agent.metrics.metric_rule import Options, metric
from agent.shipped import composed
from agent.types import Field
from agent.worker import Verdict

T = TypeVar("T")
G = TypeVar("G")
MARKS = re.compile(r"""[\s,./\-_*^"'‘’“”]""")
"""Characters that are ignored in strings."""


class CallOptions(Options):
    accepted: bool = Option(
        False, description='Each argument of a label is a list of right values; "" means it may be left out.'
    )
    ordered: bool = Option(False, description="The order of the items of a list matters.")


@metric(
    "tool_calls",
    about="The right tools are called with the right arguments; [] if no tool fits.",
    types=("json",),
    options=CallOptions,
)
def tool_calls(options: CallOptions, field: Field) -> Check:
    """Score 1 if all calls can be paired with agreeing arguments, else 0."""

    def wanted_in(label: Any) -> list[ToolCall]:
        calls = calls_in(label)
        if options.accepted:
            require_accepted(calls)
        return calls

    def compare(mine: list[ToolCall], wanted: list[ToolCall]) -> Verdict:
        wrong = _wrong_tools([call.name for call in mine], [call.name for call in wanted]) or _wrong_arguments(
            mine, wanted, options
        )
        return float(not wrong), wrong

    return _check(wanted_in, calls_in, compare)


@metric("tool_choice", about="F1 of the called tools, ignoring arguments; [] if no tool fits.", types=("json",))
def tool_choice(options: Options, field: Field) -> Check:
    return _check(names_in, names_in, lambda mine, wanted: (f1(mine, wanted), _wrong_tools(mine, wanted)))


@metric(
    "right_tool",
    about='The right tools and no others are called, ignoring arguments; {"not": [TOOL]} accepts any other answer.',
    types=("json",),
    excludes=True,
)
def right_tool(options: Options, field: Field) -> Check:
    """Score 1 if exactly the right tools, or none of the excluded ones, are called."""

    def wanted_in(label: Any) -> tuple[list[str], list[str]]:
        excluded = excluded_in(label)
        return excluded, [] if excluded else names_in(label)

    def compare(mine: list[str], label: tuple[list[str], list[str]]) -> Verdict:
        called, (excluded, wanted) = [*dict.fromkeys(mine)], label
        if not excluded:
            wrong = _wrong_tools(called, [*dict.fromkeys(wanted)])
        elif wrong := ", ".join(name for name in called if name in excluded):
            wrong = f"calls {short(wrong, 200)}, which is not meant"
        return float(not wrong), wrong

    return _check(wanted_in, names_in, compare)


def _check(wanted_in: Callable[[Any], T], given_in: Callable[[Any], G], compare: Callable[[G, T], Verdict]) -> Check:
    def check(got: Any, label: Any) -> Verdict:
        try:
            wanted = wanted_in(label)
        except ValueError as error:
            return None, f"the label cannot be used: {error}"
        try:
            return compare(given_in(got), wanted)
        except ValueError as error:
            return 0.0, str(error)

    return check


def _wrong_tools(got: Sequence[str], wanted: Sequence[str]) -> str:
    if got and not wanted:
        return f"no tool fits, and the answer calls {short(', '.join(sorted(got)), 200)}"
    return "; ".join(missing_and_extra(sorted(got), sorted(wanted)))


def _wrong_arguments(got: Sequence[ToolCall], wanted: Sequence[ToolCall], options: CallOptions) -> str:
    # the pairs with the fewest differences, so that the order of calls never matters
    from scipy.optimize import linear_sum_assignment

    faults = [[_difference(mine, right, options) for right in wanted] for mine in got]
    costs = [
        [
            float(bool(fault)) if mine.name == right.name else len(got) + 1.0
            for right, fault in zip(wanted, row, strict=True)
        ]
        for mine, row in zip(got, faults, strict=True)
    ]
    pairs = zip(*linear_sum_assignment(costs), strict=True) if costs else ()
    return next((faults[mine][right] for mine, right in pairs if faults[mine][right]), "")


def _difference(got: ToolCall, wanted: ToolCall, options: CallOptions) -> str:
    if got.name != wanted.name:
        return f"expected {short(wanted.name, 60)}, got {short(got.name, 60)}"
    return next((f"{short(wanted.name, 60)}: {why}" for why in argument_faults(got, wanted, options).values()), "")


def argument_faults(got: ToolCall, wanted: ToolCall, options: CallOptions) -> dict[str, str]:
    """Return the problems of arguments by their names, for a call of the right tool."""
    names = sorted({*got.arguments, *wanted.arguments})
    whys = {name: _wrong_argument(name, got.arguments, wanted.arguments, options) for name in names}
    return {name: why for name, why in whys.items() if why}


def _wrong_argument(name: str, got: Mapping[str, Any], wanted: Mapping[str, Any], options: CallOptions) -> str:
    if name not in wanted:
        return f"{short(name, 60)} is no argument that is wanted (got {short(got[name], 60)})"
    right = wanted[name]
    if name not in got:
        is_optional = options.accepted and ABSENT in right
        return "" if is_optional else f"{short(name, 60)} is missing (expected {_shown(right, options)})"
    values = right if options.accepted else [right]
    if any(_agree(got[name], value, options) for value in values):
        return ""
    return f"{short(name, 60)}: expected {_shown(right, options)}, got {short(got[name], 60)}"


def _shown(right: Any, options: CallOptions) -> str:
    return " or ".join(short(value, 60) for value in right if value != ABSENT) if options.accepted else short(right, 60)


def _agree(got: Any, wanted: Any, options: CallOptions) -> bool:
    if isinstance(got, bool) or isinstance(wanted, bool):
        return got is wanted
    if isinstance(got, int | float) and isinstance(wanted, int | float):
        return math.isclose(got, wanted, rel_tol=1e-9, abs_tol=1e-12)
    if isinstance(got, str) and isinstance(wanted, str):
        return _plain(got) == _plain(wanted)
    if isinstance(got, list) and isinstance(wanted, list):
        return len(got) == len(wanted) and _items_agree(got, wanted, options)
    if isinstance(got, Mapping) and isinstance(wanted, Mapping):
        accepted = options.accepted and has_accepted(wanted)
        inside = options.model_copy(update={"accepted": accepted})
        return not any(_wrong_argument(name, got, wanted, inside) for name in {*got, *wanted})
    return got is None and wanted is None


def _items_agree(got: Sequence[Any], wanted: Sequence[Any], options: CallOptions) -> bool:
    if options.ordered:
        return all(_agree(mine, right, options) for mine, right in zip(got, wanted, strict=True))
    left = list(wanted)
    for mine in got:
        place = next((at for at, right in enumerate(left) if _agree(mine, right, options)), None)
        if place is None:
            return False
        del left[place]
    return True


def _plain(text: str) -> str:
    return MARKS.sub("", composed(text).casefold())
