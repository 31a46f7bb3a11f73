"""`optimize report` and `compare`: a run as one file, and two side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from agent.errors import InputError
from agent.jobs.locations import open_history
from agent.jobs.registry import DB, Printed, job
from agent.options.kinds import File
from agent.options.option import option
from agent.options.shared import JsonOption
from agent.report.blocks import Column, DiffBlock, text
from agent.report.compare import compared_prompt, fact_lines, paired_tests, tool_differences
from agent.report.facts import paired_test
from agent.report.html import report_html, write_report
from agent.report.terminal import LOST, TIED, WON, print_table, say, say_marks, show, won_and_lost, word_diff
from agent.report.view import RunView

COLUMNS = (
    Column("what"),
    *(Column(side, floor=16, wraps=True, digests=True) for side in "AB"),
    Column("", rank=1),
)
MARKS = {WON: "green", LOST: "red", TIED: "dim"}


@job("report")
def report(
    run: str = "",
    *,
    output: File = option(
        None, "The file; - for standard output. Default: runs/RUN/report.html beside the ledger.", short="-o"
    ),
    db: Path = DB,
    form: JsonOption,
) -> Printed:
    """Write RUN (default: the latest) as one HTML file: verdict, scores, prompt, rows that changed, cost, origin.

    Of a comparison (`optimize customize`): advice, arms, score against cost, losses of the trainings.

    The file opens offline, asks no host for anything and holds no script. It shows rows, replies and prompts: whoever
    gets it reads them.
    """
    to_stdout = output == Path("-")
    if to_stdout and form.as_json:
        raise InputError("-o - prints the page and --json an object; leave out one of them")
    view = RunView(open_history(db), run)
    if to_stdout:
        return Printed(None, exact=report_html(view))
    path, size = write_report(view, output)
    wrote = [] if form.as_json else [f"wrote {path}"]
    return Printed({"run_id": view.id, "file": str(path), "bytes": size}, exact="", notes=wrote)


@job("compare")
def compare(a: Annotated[str, "A"], b: Annotated[str, "B"], *, db: Path = DB) -> Printed:
    """Compare A and B: two runs by their winners, or two trials as RUN:NUMBER.

    Shown are the options that differ, data, scores, cost and the words of both prompts. Where both were scored on the
    same rows of the same data, by the same metrics and judges, B minus A is tested pair by pair. A gain on dev is no
    proof: prompts were chosen on it.
    """
    history = open_history(db)
    sides = (compared_prompt(history, a), compared_prompt(history, b))
    lines = list(fact_lines(*sides))
    tests, why_not = paired_tests(*sides)
    first, second = sides[0].candidate, sides[1].candidate
    words = word_diff(first["instruction"], second["instruction"])
    tools = tool_differences(first, second)
    demos = [[demo["example_id"] for demo in candidate["demos"]] for candidate in (first, second)]

    def tables() -> None:
        rows = [(name, _words(one), _words(two), "" if one == two else "differs") for name, one, two in lines]
        same = frozenset(at for at, row in enumerate(rows) if not row[3])
        print_table("compared", COLUMNS, rows, quiet=same)
        for split, test in tests.items():
            say(f"B minus A on {test['n']} {split} rows: {paired_test(test)}")
            one, two = (side.outcomes[split] for side in sides)
            say_marks(won_and_lost(two[row] - one[row] for row in one if row in two), MARKS)
        if why_not:
            say(why_not)
        texts = [f"{each.what}: {word_diff(each.before, each.after)}" for each in tools]
        only = ([row for row in these if row not in others] for these, others in (demos, reversed(demos)))
        print()
        show(
            DiffBlock(first["instruction"], second["instruction"], "== the instruction, [-A-]{+B+} ==", words=True),
            text(*texts, heading="== the texts of tools, [-A-]{+B+} =="),
            text(
                *(f"examples only in {side}: {', '.join(rows)}" for side, rows in zip("AB", only, strict=True) if rows)
            ),
        )

    more = {"tools": [{"what": each.what, "a": each.before, "b": each.after} for each in tools]} if tools else {}
    found = {
        "facts": {name: {"a": one, "b": two, "same": one == two} for name, one, two in lines},
        "paired": tests,
        "not_tested": why_not,
        "instruction": {"a": first["instruction"], "b": second["instruction"], "diff": words},
        "examples": {"a": demos[0], "b": demos[1]},
        **more,
    }
    return Printed(found, tables)


def _words(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
