"""Blocks of a run's result as text: what changed, the answers by label, replies that could not be read, the proposer,
and what to type next. A run of an older version lacks some of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.cli.common import plain, short
from agent.release.result import RunResult
from agent.release.result_details import LabelReport
from agent.report import answer_facts, change_facts
from agent.report.answer_facts import winner_name
from agent.report.excerpts import Excerpts
from agent.report.facts import points
from agent.report.next_steps import held_folder, next_steps

WIDTH = 80
PROMPT_LINES, MOST_LABELS, MOST_CONFUSIONS = 12, 8, 5
"""Shown at the end of a run; `optimize show` shows all."""
LABEL_WIDTH, MOST_MATRIX = 28, 12
_COMPARED = ("precision yours", "found", "recall yours", "found")


def absolute(result: RunResult) -> list[str]:
    """What the prompt reaches without any comparison, and that its answers hardly vary."""
    said, alike = answer_facts.in_absolute_terms(result), answer_facts.hardly_varied(result)
    return [plain(line) for line in (said and f"in absolute terms: {said}", alike and f"note: {alike}") if line]


def changes(result: RunResult) -> list[str]:
    """What differs from the user's own prompt."""
    said = change_facts.changes(result)
    return ["what changed:", *(f"  {plain(line)}" for line in said)] if said else []


def new_prompt(result: RunResult, excerpts: Excerpts | None, db_words: str) -> list[str]:
    """The first lines of the winner's prompt, and the command that shows the whole."""
    if excerpts is None or not excerpts.prompt or result.is_own:
        return []
    lines = plain(excerpts.prompt).splitlines()
    cut = [f"  {short(line, WIDTH - 4)}" for line in lines[:PROMPT_LINES]]
    left = len(lines) - PROMPT_LINES
    more = f"  ... {left} more line{'s' * (left > 1)}" if left > 0 else ""
    whole = f"the best found (whole: optimize show {result.run_id}{db_words}):"
    return [whole, *cut, *[more] * bool(more)]


# -- labels -----------------------------------------------------------------------------------------------------------


def labels(result: RunResult, whole: bool) -> list[str]:
    """Precision and recall by label, and what was read as what."""
    return [
        line
        for report in result.by_answer
        for line in (*_by_label(result, report, whole), *_confused(result, report, whole))
    ]


def _by_label(result: RunResult, report: LabelReport, whole: bool) -> list[str]:
    rows = answer_facts.label_rows(report)
    is_cut = not whole and len(rows) > MOST_LABELS
    shown = answer_facts.worst_first(rows)[:MOST_LABELS] if is_cut else rows
    width = min(LABEL_WIDTH, max(len(plain(report.field)) + 10, *(len(plain(one.label)) for _, one in shown)))
    heads = ("precision yours", "recall yours") if result.is_own else _COMPARED
    widths = [17 if "yours" in head else 8 for head in heads]
    named = "".join(f"{head:>{wide}}" for head, wide in zip(heads, widths, strict=True))
    lines = [f"{plain(f'by label of {report.field}'):<{width + 2}}{'rows':>7}{named}"]
    for own, best in shown:
        both = (own.precision, best.precision, own.recall, best.recall)
        values = (own.precision, own.recall) if result.is_own else both
        cells = "".join(f"{points(value):>{wide}}" for value, wide in zip(values, widths, strict=True))
        lines.append(f"  {short(best.label, width):<{width}}{best.support:>7}{cells}")
    return [*lines, *[f"  {len(rows) - len(shown)} more labels, of which fewer rows are missed"] * is_cut]


def _confused(result: RunResult, report: LabelReport, whole: bool) -> list[str]:
    """The confusion matrix of the winner where it fits; else, and at the end of a long one, the worst confusions."""
    said = [plain(line) for line in answer_facts.confusions(report.winner)]
    drawn = _matrix(result, report)
    if drawn:
        return ["", *drawn]
    if not said:
        return []
    most = len(said) if whole else MOST_CONFUSIONS
    left = len(said) - most
    return [
        "",
        f"worst confusions with {winner_name(result)}:",
        *(f"  {line}" for line in said[:most]),
        *[f"  {left} more"] * (left > 0),
    ]


def _matrix(result: RunResult, report: LabelReport) -> list[str]:
    """The matrix; empty where it does not fit, or every row is right."""
    made = answer_facts.matrix(report, most=MOST_MATRIX)
    if made.left_out or made.is_clean:
        return []
    columns = [plain(column) for column in made.columns]
    width = max(len(plain(label)) for label, _, _ in made.lines)
    widths = [max(len(column), 3) + 2 for column in columns]
    if 2 + width + sum(widths) > WIDTH:
        return []
    head = "".join(f"{column:>{wide}}" for column, wide in zip(columns, widths, strict=True))
    lines = [
        f"answers with {winner_name(result)}: a line for each right answer, a column for what was said",
        f"  {'':<{width}}{head}",
    ]
    for label, cells, _ in made.lines:
        counts = "".join(f"{cell.rows or '.':>{wide}}" for cell, wide in zip(cells, widths, strict=True))
        lines.append(f"  {plain(label):<{width}}{counts}")
    return lines


# -- replies, proposer, next steps ------------------------------------------------------------------------------------


def unreadable(result: RunResult, excerpts: Excerpts | None) -> list[str]:
    """How many replies could not be read, and some of them between marks that they cannot know."""
    said = answer_facts.unreadable(result)
    if not said:
        return []
    fenced = plain(excerpts.fenced()).splitlines() if excerpts else []
    quoted = f"; some with {excerpts.of}, untrusted text:" if excerpts and fenced else ""
    return [plain(f"{said}{quoted}"), *(f"  {line}" for line in fenced)]


def proposer(result: RunResult) -> list[str]:
    """What came of the proposer, in a line."""
    said = change_facts.proposer(result)
    return [plain(said)] * bool(said)


def steps(
    result: RunResult, db: Path, promoted: Mapping[str, Any] | None, excerpts: Excerpts | None, is_shown: bool
) -> list[str]:
    """What would show the gain, where the held winner lies, and what to type next; `is_shown`: by `optimize show`."""
    lines = [plain(line) for line in (change_facts.to_show(result),) if line]
    if folder := held_folder(result):
        lines.append(plain(f"the best found lies in {folder}"))
    own_function = excerpts is not None and excerpts.own_function
    words = excerpts.task_words if excerpts is not None else ""
    made = next_steps(result, db, promoted, own_function, words, excerpts.to_label if excerpts is not None else 0)
    shown = [step for step in made if not (is_shown and step.command.startswith("optimize show "))]
    width = max(len(step.what) for step in shown)
    return [*lines, *[""] * bool(lines), "next:", *(plain(f"  {step.what:<{width}}  {step.command}") for step in shown)]
