"""The answers of a run in words and cells: right and wrong rows, labels, confusions, unreadable replies. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.release.result import RunResult
from agent.report.facts import points, sealed_score, sides
from agent.results.base import SideName
from agent.results.breakdown import LabelReport, LabelScore, LabelSide, RowCount
from agent.results.run_parts import Yardstick

UNREADABLE = "unreadable"
IN_A_SENTENCE = {"baseline": "your prompt", "winner": "the best found"}
OF_A_MIGRATION = {"baseline": "the old model", "winner": "the new model"}
PLAIN = (2, 3, 4, 5, 10)
FEWEST_READ, MUCH_LESS = 5, 3
"""Rows with an answer, and right answers to each different one, from which answers are said to hardly vary."""
NEAR = 0.02
"""How far a plain ratio, such as 3 of 4, may lie from what it stands for."""


def in_absolute_terms(result: RunResult) -> str:
    """What the prompt that the verdict is about reaches, without any comparison, and what the yardsticks reach beside
    it; "" for an older result without either."""
    name = winner_name(result)
    counts = result.answers.winner if result.answers else None
    parts = [f"{name} gets {points(sealed_score(result, 'winner'))} of 100"]
    if counts is not None and counts.scored and (counts.right or not counts.partly):  # graded metrics rarely give 1
        parts.append(_right_rows(counts))
    if yardsticks := [f"{one.name} {points(one.test)}" for one in _yardsticks(result)]:
        parts.append(f"without a language model: {', '.join(yardsticks)}")
    if result.human_score is not None:
        parts.append(f"people: {points(result.human_score)}, as the task says")
    return "; ".join(parts) if len(parts) > 1 else ""


def hardly_varied(result: RunResult) -> str:
    """That the answers are much less varied than the right ones; "" where they are not, or an older result."""
    counts = result.answers.winner if result.answers else None
    if counts is None or counts.readable < FEWEST_READ or not _is_alike(counts):
        return ""
    gave = "the same answer" if counts.different == 1 else f"{counts.different} different answers"
    return f"{winner_name(result)} gave {gave} on {counts.readable} rows (your rows have {counts.different_right})"


def _is_alike(counts: RowCount) -> bool:
    if counts.different == 1:
        return counts.different_right > 1
    return 0 < counts.different * MUCH_LESS <= counts.different_right


def winner_name(result: RunResult) -> str:
    """What the winner is called in a sentence."""
    return side_name(result, "baseline" if result.is_own else "winner")


def side_name(result: RunResult, side: SideName) -> str:
    """What a side of a result is called in a sentence."""
    return (IN_A_SENTENCE if result.migration is None else OF_A_MIGRATION)[side]


def _right_rows(counts: RowCount) -> str:
    short = counts.scored - counts.right
    if not short:
        return f"right on all {counts.scored} rows"
    what = "short of full marks" if counts.partly else "still wrong"
    return f"{what} on {short} of {counts.scored} rows{_plainly(short, counts.scored)}"


def _plainly(part: int, whole: int) -> str:
    """The same as a ratio of small numbers: " (about 3 of 4)"; "" without a near one."""
    for of in PLAIN:
        some = round(of * part / whole)
        if 0 < some < of < whole and abs(some / of - part / whole) <= NEAR:
            return f" (about {some} of {of})"
    return ""


def _yardsticks(result: RunResult) -> list[Yardstick]:
    others = sorted(result.yardsticks[1:], key=lambda one: -(one.test or 0.0))
    return [*result.yardsticks[:1], *others[:1]]


# -- labels -----------------------------------------------------------------------------------------------------------


def label_rows(report: LabelReport) -> list[tuple[LabelScore, LabelScore]]:
    """Each label's scores with the user's own prompt and with the winner, in the task's order."""
    return list(zip(report.baseline.scores, report.winner.scores, strict=True))


def worst_first(rows: Sequence[tuple[LabelScore, LabelScore]]) -> list[tuple[LabelScore, LabelScore]]:
    """The labels of which the winner misses most rows first; those without a row last."""
    return sorted(rows, key=lambda pair: (not pair[1].support, pair[1].right - pair[1].support, pair[1].label))


def confusions(side: LabelSide) -> list[str]:
    """The confusions of a prompt, the largest first: "billing read as account: 9 of 14"."""
    support = {score.label: score.support for score in side.scores}
    return [f"{cell.label} read as {cell.said}: {cell.rows} of {support[cell.label]}" for cell in side.confused()]


@dataclass(frozen=True, slots=True)
class MatrixCell:
    """A cell: `rows`, 0 or more, and how dark it is, 0 to 4, by its part of the label's rows; whether it is right."""

    rows: int
    shade: int
    is_right: bool

    @property
    def style(self) -> str:
        """Its class in page.css."""
        return f"{'right' if self.is_right else 'lost'}-{self.shade}" if self.shade else ""


@dataclass(frozen=True, slots=True)
class Matrix:
    """A confusion matrix: a line for each label that has rows, a column for each that was said, unreadable the last."""

    field: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, tuple[MatrixCell, ...], int], ...]
    """Label, cells, and how many rows it has."""
    left_out: int = 0
    """Labels without a mistake, which have no line and no column."""

    @property
    def is_clean(self) -> bool:
        """Whether every row in it is right."""
        return all(cell.is_right or not cell.rows for _, cells, _ in self.lines for cell in cells)


def matrix(report: LabelReport, most: int = 20) -> Matrix:
    """The winner's matrix. Of more than `most` labels only those in a mistake, the worst `most` of them, get a line."""
    side = report.winner
    cells = {(cell.label, cell.said): cell.rows for cell in side.cells}
    support = {score.label: score.support for score in side.scores}
    labels = [label for label in report.labels if support[label] or any((of, label) in cells for of in support)]
    shown = labels
    if len(labels) > most:
        lost = {label: support[label] - cells.get((label, label), 0) for label in labels}
        worst = sorted((label for label in labels if lost[label]), key=lambda label: (-lost[label], label))[:most]
        shown = [label for label in labels if label in worst]
    said = [label for label in labels if any((of, label) in cells for of in shown)]
    lines = []
    for label in shown:
        if support[label]:
            row = [_cell(cells.get((label, answer), 0), support[label], answer == label) for answer in (*said, None)]
            lines.append((label, tuple(row), support[label]))
    return Matrix(report.field, (*said, UNREADABLE), tuple(lines), len(labels) - len(shown))


def _cell(rows: int, support: int, is_right: bool) -> MatrixCell:
    return MatrixCell(rows, -(-4 * rows // support), is_right)


# -- unreadable replies -----------------------------------------------------------------------------------------------


def unreadable(result: RunResult) -> str:
    """How many replies of each prompt could not be read; "" where all could, or an older result does not say."""
    if result.answers is None:
        return ""
    counts = [(side, result.answers.side(side)) for side, _ in sides(result)]
    if not any(count.unreadable for _, count in counts):
        return ""
    said = [f"{count.unreadable} of {count.scored} with {side_name(result, side)}" for side, count in counts]
    return f"unreadable replies: {', '.join(said)}"
