"""`optimize compare`: two runs or two trials side by side, and a paired test of their prompts on the rows of both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from agent.cli.common import SETTINGS, db_option, json_option, plain, print_json
from agent.cli.strips import LOST, TIED, WON, won_and_lost
from agent.cli.tables import Column, print_table, say, say_marks
from agent.finding import open_history
from agent.report.facts import changes

KEPT = 12  # equal words and blanks shown beside a change
COLUMNS = (Column("what"), Column("A", 0, 16, True, True), Column("B", 0, 16, True, True), Column("", 1))
MARKS = {WON: "green", LOST: "red", TIED: "dim"}


@click.command(context_settings=SETTINGS)
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@db_option
@json_option
def compare_command(a: str, b: str, db: Path, as_json: bool) -> None:
    """Compare A and B: two runs by their winners, or two trials as RUN:NUMBER.

    Shown are the options that differ, data, scores, cost and the words of both prompts. Where both were scored on the
    same rows of the same data, by the same metrics and judges, B minus A is tested pair by pair. A gain on dev is no
    proof: prompts were chosen on it.
    """
    from agent.report.compare import facts, side_of, tested

    history = open_history(db)
    sides = (side_of(history, a), side_of(history, b))
    lines = list(facts(*sides))
    tests, why_not = tested(*sides)
    first, second = sides[0].candidate, sides[1].candidate
    words = word_diff(first["instruction"], second["instruction"])
    demos = [[demo["example_id"] for demo in candidate["demos"]] for candidate in (first, second)]
    if as_json:
        table = {name: {"a": one, "b": two, "same": one == two} for name, one, two in lines}
        instruction = {"a": first["instruction"], "b": second["instruction"], "diff": words}
        shown = {"a": demos[0], "b": demos[1]}
        print_json({"facts": table, "paired": tests, "not_tested": why_not, "instruction": instruction, "demos": shown})
        return
    rows = [(name, _words(one), _words(two), "" if one == two else "differs") for name, one, two in lines]
    print_table("compared", COLUMNS, rows, quiet=lambda row: not row[3])
    for split, found in tests.items():
        low, high = found["ci95"]
        say(
            f"B minus A on {found['n']} {split} rows: {100 * found['diff']:+.1f} points (95 % CI {100 * low:+.1f} to "
            f"{100 * high:+.1f}, p = {found['p_value']:.2g}); {found['wins']} won, {found['losses']} lost, "
            f"{found['ties']} tied"
        )
        one, two = (side.outcomes[split] for side in sides)
        say_marks(won_and_lost(two[row] - one[row] for row in one if row in two), MARKS)
    if why_not:
        say(why_not)
    say("\n== the instruction, [-A-]{+B+} ==", "bold")
    click.echo(plain(words) if first["instruction"] != second["instruction"] else "(the same)")
    for name, mine, theirs in (("only in A", *demos), ("only in B", *reversed(demos))):
        if extra := [row for row in mine if row not in theirs]:
            say(f"demos {name}: {', '.join(extra)}")


def _words(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def word_diff(one: str, two: str) -> str:
    """`two` with what it lost from `one` as [-lost-] and what is new as {+new+}; long equal parts are left out."""
    marks = {"same": "{}", "gone": "[-{}-]", "new": "{{+{}+}}"}
    return "".join(marks[change.kind].format(change.text) for change in changes(one, two, KEPT))
