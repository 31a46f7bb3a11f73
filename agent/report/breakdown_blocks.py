"""Blocks that break down a score: by metric, slice and label; repeats, retrieval, judges, calibration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from agent.prompt.fence import Fence
from agent.report import charts, wording
from agent.report.blocks import Block, ChartBlock, Column, ProseBlock, TableBlock, sentence, table, text
from agent.report.view import RunView
from agent.report.wording import SIDES, PromptNames, Sides
from agent.results.base import SideName
from agent.results.breakdown import (
    Answers,
    Calibration,
    Consistency,
    Group,
    JudgeTrust,
    LabelReport,
    MetricPart,
    Retrieval,
    Slice,
    Variety,
)
from agent.stats.figures import bracketed, chance, gain, interval, points
from agent.stats.power import SIGNIFICANT

REPLY_LETTERS = 200
MATRIX_LINES = 20
"""Maximum size of a confusion matrix."""
MOST_LABELS, MOST_CONFUSIONS = 8, 5
"""Maxima at the end of a run; `optimize show` has no limit."""


def _compared(
    sides: Sides, first: Sequence[str | Column], rows: Iterable[tuple[MetricPart | Group, Sequence[Any]]]
) -> dict[str, Any]:
    is_compared = len(sides) > 1
    columns = [*first, *(f"{name} (95 % CI) #" for _, name in sides)]
    columns += ["difference (95 % CI) #"] * is_compared
    cells = []
    for part, begin in rows:
        means = [f"{points(part.side(side).mean)}{bracketed(part.side(side).ci95)}" for side, _ in sides]
        cells.append((*begin, *means, *[gain(part.diff, part.diff_ci95)] * is_compared))
    return {"columns": columns, "rows": cells}


def metrics(parts: Sequence[MetricPart], sides: Sides) -> Iterator[Block]:
    """Yield the score by metric, unless it only repeats the overall score."""
    is_single = len(parts) == 2 and all(parts[0].side(side).mean == 1.0 for side, _ in SIDES)
    if is_single and not any(part.side(side).unscored for part in parts for side, _ in SIDES):
        return  # it says no more than the score itself
    names = (f"{part.metric} ({part.field})" if part.field else part.metric for part in parts)
    weights = (f"{part.weight:.2f}" if part.weight else "" for part in parts)
    begin = zip(parts, zip(names, weights, strict=True), strict=True)
    made = _compared(sides, ("metric", Column("weight", "number", rank=1)), begin)
    lost = [[part.side(side).unscored for side, _ in sides] for part in parts]
    if any(map(any, lost)):
        made["columns"].append("unscored #")
        made["rows"] = [(*row, " and ".join(map(str, n))) for row, n in zip(made["rows"], lost, strict=True)]
    readable = "readable: replies that parsed and respected the limits of their fields."
    yield table("By metric, on the sealed test", **made, explained=readable)


def fields(found: Sequence[MetricPart], sides: Sides, brief: bool) -> Iterator[Block]:
    """Yield the score by field of a JSON answer, the worst field first."""
    parts = sorted(found, key=lambda part: (part.winner.mean or 0.0, part.field))
    shown = parts[:MOST_LABELS] if brief else parts
    first = (Column("field", floor=12, wraps=True), "rows #")
    made = _compared(sides, first, [(part, (part.field, part.winner.n)) for part in shown])
    left = len(parts) - len(shown)
    note = f"{left} more fields with more right values" if left else ""
    explained = "Right values of each field, 0 to 100, on the rows whose label or answer has the field."
    yield table("By field of the answer, on the sealed test", **made, note=note, explained=explained)


def slices(cuts: Iterable[Slice], sides: Sides) -> Iterator[Block]:
    """Yield the score by slice of the rows, with the gap between groups."""
    for cut in cuts:
        first = (Column(cut.slice, floor=12, wraps=True), "rows #")
        made = _compared(sides, first, [(part, (part.value, part.winner.n)) for part in cut.groups])
        by_prompt = "; ".join(
            f"{name} {_gap(getattr(cut, f'{side}_gap'), getattr(cut, f'{side}_gap_p'))}" for side, name in sides
        )
        note = "" if cut.winner_gap is None else f"Largest gap between groups: {by_prompt}."
        yield table(f"By {cut.slice}", **made, note=note)


def _gap(gap: float | None, p_value: float | None) -> str:
    if gap is None or p_value is None:
        return "-"
    return f"{f'{points(gap)} points' if p_value < SIGNIFICANT else 'not significant'} ({chance(p_value)})"


def confidence(found: Calibration | None) -> Iterator[Block]:
    """Yield the reliability of confidences, and the effect of abstaining."""
    if found is None:
        return
    decides = wording.combined(found) or (f"{found.method} calibration" if found.is_calibrated else "")
    error = f"expected calibration error of its confidences {points(found.ece)} on {found.rows} test rows"
    said = ["; ".join(filter(None, (decides, error)))]
    if (left := found.abstain) is not None:
        wanted = f"{100 * left.precision:g} % precision"
        if left.below is None:
            said.append(f"no threshold reaches {wanted} on enough dev rows, so abstaining is not possible")
        else:
            threshold = f"abstaining below a confidence of {left.below:.3f}, chosen on dev for {wanted}"
            right = f"{points(left.reached or 0.0)} % of them right{bracketed(left.reached_ci95)}"
            said.append(f"{threshold}: answers {points(left.answered)} % of the test rows, {right}")
    yield text(*said, on="screen")
    if found.is_calibrated:
        biases = ", ".join(f"{label} {bias:+.2f}" for label, bias in found.bias.items())
        temperature = f", temperature {found.temperature:.2f}" if found.method != "label-free" else ""
        said.append(f"answers are calibrated ({found.method}{temperature}): {wording.cut(biases, 600)}")
    rows = [(interval(b.low, b.high), b.n, points(b.confidence), points(b.right)) for b in found.bins]
    columns = ("confidence", "rows #", "mean confidence #", "right #")
    title, note = "Right answers by confidence, on the sealed test, 0 to 100", " ".join(map(sentence, said))
    numbers = table(title, columns, rows, note=note, on="page")
    yield ChartBlock("reliability", "Right answers by confidence", partial(charts.reliability, found), numbers)


def judges(found: Iterable[JudgeTrust]) -> Iterator[Block]:
    """Yield the agreement of the judges with people."""

    def trust(judge: JudgeTrust) -> str:
        said = "trusted" if judge.trusted else "NOT TRUSTED"
        if judge.kappa is not None and judge.ci95 is not None:
            said += f", kappa {judge.kappa:.2f} ({judge.ci95[0]:.2f} to {judge.ci95[1]:.2f})"
        return said + ("" if judge.trusted else f": {judge.why}")

    rows = []
    for judge in found:
        order = f"{judge.turned} of {judge.compared} verdicts changed with the order" if judge.compared else ""
        rows.append((", ".join(judge.models), judge.metric, judge.mode, trust(judge), order))
    yield table("Judges behind the score", ("judge", "metric", "mode", "trust ~", "order ~"), rows)


def repeated(found: Consistency | None, sides: Sides) -> Iterator[Block]:
    """Yield the agreement of repeated answers."""
    if found is None or (first := found.winner or found.baseline) is None:
        return
    lines = [
        f"{name}: same answer {points(one.agreement)} % of the time, entropy {one.entropy:.2f} bits; "
        f"right every time {points(one.pass_hat_k)} %, at least once {points(one.pass_at_k)} %"
        for side, name in sides
        if (one := found.side(side))
    ]
    yield text(*lines, heading=f"repeated answers ({first.k} per row, {first.rows} test rows):")


def retrieval(found: Retrieval | None, sides: Sides) -> Iterator[Block]:
    """Yield retrieval recall, and how answers use the passages."""
    if found is None:
        return
    for side, name in sides:
        shares = found.side(side)
        of_rows = f"all of them for {points(shares.recall_all)} %, of {found.rows} rows"
        said = (
            (shares.recall, f"a relevant document retrieved for {points(shares.recall)} %, {of_rows}"),
            (
                shares.unanswerable_right,
                f"correctly not answered {points(shares.unanswerable_right)} % of {found.unanswerable_rows}",
            ),
            (
                shares.answerable_wrong,
                f"wrongly not answered {points(shares.answerable_wrong)} % of {found.answerable_rows}",
            ),
        )
        known = "; ".join(words for share, words in said if share is not None)
        yield text(f"documents, {name}: {known}" if known else "")


def variety(found: Iterable[Variety], sides: Sides) -> Iterator[Block]:
    """Yield the variety of the texts of each field."""
    yield text(
        *(
            f"variety of {row.field}, {name}: {100 * texts.distinct_2:.0f} % distinct word pairs, "
            f"{100 * texts.openings:.0f} % distinct openings"
            for row in found
            for side, name in sides
            if (texts := row.side(side)) is not None and texts.distinct_2 is not None
        )
    )


# -- answers ----------------------------------------------------------------------------------------------------------


def answers(reports: Iterable[LabelReport], names: PromptNames, brief: bool) -> Iterator[Block]:
    """Yield scores by label, and the confusion matrix."""
    for report in reports:
        yield _by_label(report, names, brief)
        support = {score.label: score.support for score in report.winner.scores}
        confused = report.winner.confused()
        said = [f"{cell.label} read as {cell.said}: {cell.rows} of {support[cell.label]}" for cell in confused]
        most = MOST_CONFUSIONS if brief else len(said)
        rest = f"{len(said) - most} more" if len(said) > most else ""
        worst = text(*said[:most], rest, heading=f"The worst confusions with {names.winner}", folded=True)
        if (made := confusion_table(report, names.winner, worst)) is not None:
            yield made


def unreadable(found: Answers | None, names: PromptNames, view: RunView | None) -> Iterator[Block]:
    """Yield the unreadable replies, some of them quoted."""
    counts = {side: found.side(side) for side, _ in names.sides} if found is not None else {}
    if not any(count.unreadable for count in counts.values()):
        return
    said = ", ".join(f"{one.unreadable} of {one.scored} with {names.side(side)}" for side, one in counts.items())
    quoted = next((side for side in reversed(counts) if counts[side].unreadable_rows), None)  # the winner first
    lines = [] if quoted is None or view is None else _quoted(view, quoted, counts[quoted].unreadable_rows)
    fenced = [f"  {line}" for line in Fence.around(lines)("\n".join(lines)).split("\n")] if lines else []
    of = names.side(quoted) if quoted else ""
    told = f"unreadable replies: {said}"
    yield text(told + f"; examples with {of}, untrusted text:" * bool(lines), *fenced, on="screen")
    yield text(told, on="page")
    heading = f"Examples with {of}: untrusted text of the model"
    yield text(*(f"row {line}" for line in lines), heading=heading, folded=True, exact=True, on="page")


def _quoted(view: RunView, side: SideName, rows: Sequence[str]) -> list[str]:
    run_id, candidate_id = view.sealed_by(side)
    outcomes = view.history.outcomes(run_id, candidate_id, "test") if view.shows_rows else []
    lines = []
    for outcome in outcomes:
        if outcome["example_id"] in rows:
            reply = wording.cut(outcome["reply"].strip() or f"(no text: {outcome['error']})", REPLY_LETTERS)
            lines.append(f"{outcome['example_id']}: {' '.join(reply.split())}")
    return lines


def _by_label(report: LabelReport, names: PromptNames, brief: bool) -> TableBlock:
    pairs = list(zip(report.baseline.scores, report.winner.scores, strict=True))
    left = len(pairs) - MOST_LABELS if brief else 0
    if left > 0:  # the winner misses most rows of the first
        missed = sorted(pairs, key=lambda pair: (not pair[1].support, pair[1].right - pair[1].support, pair[1].label))
        pairs = missed[:MOST_LABELS]
    rows = []
    for own, best in pairs:
        each = (own,) if names.is_own else (own, best)
        rows.append((best.label, best.support, *(points(o.precision) for o in each), *(points(o.recall) for o in each)))
    heads = [f"{what}, {name} #" for what in ("precision", "recall") for _, name in names.sides]
    explained = "Precision: share of rows answered with the label that have it. "
    explained += "Recall: share of rows with the label that were answered with it."
    return table(
        f"By label of {report.field}, on the sealed test",
        ("label", "rows #", *heads),
        rows,
        note=f"{left} more labels with fewer missed rows" if left > 0 else "",
        explained=explained,
    )


def confusion_table(report: LabelReport, name: str, worst: ProseBlock | None = None) -> TableBlock | None:
    """Return the winner's confusion matrix; None if all rows are right.

    With more than MATRIX_LINES labels it holds only labels with errors, the worst first. `worst` replaces it where the
    table is too wide.
    """
    cells = {(cell.label, cell.said): cell.rows for cell in report.winner.cells}
    support = {score.label: score.support for score in report.winner.scores}
    labels = [label for label in report.labels if support[label] or any((of, label) in cells for of in support)]
    shown = labels
    if len(labels) > MATRIX_LINES:
        lost = {label: support[label] - cells.get((label, label), 0) for label in labels}
        most = sorted((label for label in labels if lost[label]), key=lambda label: (-lost[label], label))
        shown = [label for label in labels if label in most[:MATRIX_LINES]]
    said = [label for label in labels if any((of, label) in cells for of in shown)]
    lines = [label for label in shown if support[label]]
    if all(label == answer for label, answer in cells if label in lines):
        return None

    def shade(label: str, answer: str | None) -> str:
        dark = -(-4 * cells.get((label, answer), 0) // support[label])
        return f"{'right' if answer == label else 'lost'}-{dark}" if dark else ""

    left = f"The labels that lost most rows; {len(labels) - len(shown)} more are left out."
    return table(
        f"Right answers ({report.field}) against the answers with {name}, in rows",
        ("right answer", *(f"{answer} #" for answer in said), "unreadable #", "all #"),
        [(label, *(cells.get((label, answer), ".") for answer in (*said, None)), support[label]) for label in lines],
        note=left if len(shown) < len(labels) else "",
        shades=tuple(("", *(shade(label, answer) for answer in (*said, None)), "") for label in lines),
        instead=worst,
    )
