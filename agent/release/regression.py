"""A released prompt now against what was recorded of it: flips, difference, format, steadiness, and a verdict; the same
as JUnit XML and as Markdown. Pure but for `require_place` and `write_text`.

The gate asks two questions of the same rows, each at half of 5 %, so that repeat noise alone fails it in at most 5 % of
all cases: did the score fall (two-sided p below 0.05 and the difference below 0), and did more answers change than
repeat noise explains (p at most 0.025)? Both p are of shuffles within rows (`stats/changes.py`). A model that answers
as it was recorded flips nothing, and passes always. Where a fifth of the rows that had an answer got none, nothing can
be result and the gate fails, too.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from agent.errors import InputError
from agent.evaluate.breakdown import consistency
from agent.release.suite import is_answer
from agent.results.base import Mean, WasNow
from agent.results.breakdown import Steadiness
from agent.results.checks import CheckResult, Difference, Flip, FlipTest, SuiteComparison
from agent.safe_file import disk_errors
from agent.safe_text import printable
from agent.stats.changes import flip_p_value, moved_p_value
from agent.stats.intervals import mean_ci, paired_difference
from agent.types import Example, Field, Outcome, canonical

ALPHA = 0.05
"""False alarms of the whole gate under repeat noise, at most."""
MOVED = 0.1
"""Where answers are texts: how far a row's score must move for the row to count as flipped."""
UNANSWERED_FROM = 0.2
SHOWN = 200  # characters of an answer
UNREADABLE = "(unreadable)"
_LINK = re.compile(r"://|www\.", re.IGNORECASE)  # what GitHub makes a link of by itself
_NOT_XML = re.compile("[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
CELL = 120  # characters of a cell in Markdown
REASON = 600  # characters of a reason there
MOST_FLIPS = 50  # in Markdown
ONCE = "one answer before and one now: how much is repeat noise cannot be told; ask more often with --repeats"

Answers = Sequence[Sequence[Outcome]]
"""Per row, what was answered each time."""


def verdict(
    rows: Sequence[Example], was: Answers, now: Answers, outputs: Sequence[Field], seed: int = 0
) -> SuiteComparison:
    """Compare the answers of now with the recorded ones, an item for each row, and decide whether the gate passes."""
    decided = [field.name for field in outputs if field.type != "text"]
    pairs = [([o for o in a if is_answer(o)], [o for o in b if is_answer(o)]) for a, b in zip(was, now, strict=True)]
    lost = sum(bool(before) and not after for before, after in pairs)
    flips = tuple(found for row, sides in zip(rows, pairs, strict=True) if (found := _flip(row, *sides, decided)))
    values = [(_values(before), _values(after)) for before, after in pairs]
    if decided:
        texts = [
            ([_answer(o, decided) for o in before], [_answer(o, decided) for o in after]) for before, after in pairs
        ]
        p_flips = flip_p_value(texts, lambda one, two: float(one != two), seed)
    else:
        p_flips = flip_p_value(values, lambda one, two: abs(one - two), seed)
    means = [(_mean(before), _mean(after)) for before, after in values]
    both = [(a, b) for a, b in means if a is not None and b is not None]
    compared = sum(bool(before and after) for before, after in pairs)
    fell = _difference(both, values, seed)
    test = FlipTest(flipped=len(flips), p_value=p_flips, at_most=ALPHA / 2)
    repeats = WasNow(was=max(map(len, was), default=0), now=max(map(len, now), default=0))
    why = []
    if fell is not None and fell.diff < 0 and fell.p_value < ALPHA:
        low, high = (100 * value for value in fell.ci95)
        figures = f"{100 * fell.diff:+.1f} points on {fell.n} rows (95 % CI {low:+.1f} to {high:+.1f}"
        why.append(f"the score fell: {figures}, p = {fell.p_value:.2g})")
    if test.too_many:
        flipped = f"{test.flipped} of {compared} rows flipped, more than repeat noise explains"
        why.append(f"{flipped} (p = {test.p_value:.2g})")
    if not both and not compared:
        why.append(f"no row has an answer on both sides, so nothing can be told{_cause(now) or _cause(was)}")
    elif lost and lost >= UNANSWERED_FROM * (had := sum(bool(before) for before, _ in pairs)):
        why.append(f"{lost} of {had} rows that had an answer got none{_cause(now)}")
    return SuiteComparison(
        gate="failed" if why else "passed",
        why=tuple(why),
        notes=(ONCE,) * (repeats == WasNow(was=1, now=1)),
        rows=len(rows),
        compared=compared,
        unanswered=WasNow(was=sum(not before for before, _ in pairs), now=sum(not after for _, after in pairs)),
        repeats=repeats,
        score=WasNow(was=mean_of([a for a, _ in both]), now=mean_of([b for _, b in both])),
        difference=fell,
        flips=flips,
        flip_test=test,
        readable=WasNow(was=_readable([b for b, _ in pairs]), now=_readable([a for _, a in pairs])),
        steadiness=WasNow(was=_steadiness(was), now=_steadiness(now)),
    )


def _cause(answers: Answers) -> str:
    errors = (each.prediction.error for row in answers for each in row if not is_answer(each))
    return next((f": {error}" for error in errors if error), "")


# -- one row ----------------------------------------------------------------------------------------------------------


def _flip(row: Example, before: list[Outcome], after: list[Outcome], decided: list[str]) -> Flip | None:
    """The row when its usual answer is another one now; where answers are texts, when its score moved."""
    if not before or not after:
        return None
    one = _usual(before, decided)
    two = _usual(after, decided, _answer(one, decided))
    scores = _mean(_values(before)), _mean(_values(after))
    if decided and _answer(one, decided) == _answer(two, decided):
        return None
    if not decided and (scores[0] is None or scores[1] is None or abs(scores[0] - scores[1]) < MOVED):
        return None
    return Flip(
        row=row.id,
        was=_shown(one),
        now=_shown(two),
        was_score=scores[0],
        is_score=scores[1],
        expected=dict(row.labels),
    )


def _usual(outcomes: Sequence[Outcome], decided: list[str], recorded: str = "") -> Outcome:
    """One with the answer that came most often; of equals the one that was recorded, else the first."""
    counts = Counter(_answer(outcome, decided) for outcome in outcomes)
    most = max(counts, key=lambda answer: (counts[answer], answer == recorded))
    return next(outcome for outcome in outcomes if _answer(outcome, decided) == most)


def _answer(outcome: Outcome, decided: list[str]) -> str:
    if outcome.prediction.error:
        return UNREADABLE
    fields = outcome.prediction.fields
    return canonical({name: fields.get(name) for name in decided} if decided else dict(fields))


def _shown(outcome: Outcome) -> str:
    if outcome.prediction.error:
        return f"{UNREADABLE} {outcome.prediction.raw[:SHOWN]}".rstrip()
    fields = outcome.prediction.fields
    text = str(next(iter(fields.values()))) if len(fields) == 1 else canonical(dict(fields))
    return text[:SHOWN]


def _values(outcomes: Sequence[Outcome]) -> list[float]:
    return [outcome.value for outcome in outcomes if outcome.value is not None]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


# -- all rows ---------------------------------------------------------------------------------------------------------


def mean_of(values: Sequence[float]) -> Mean:
    """The mean of scores with its interval."""
    if not values:
        return Mean()
    mean, low, high = mean_ci(values)
    return Mean(mean=mean, ci95=(low, high), n=len(values))


def _difference(
    both: Sequence[tuple[float, float]], samples: Sequence[tuple[list[float], list[float]]], seed: int
) -> Difference | None:
    if not both:
        return None
    found = paired_difference([b for _, b in both], [a for a, _ in both], seed)
    return Difference(
        diff=found.diff,
        ci95=found.ci95,
        p_value=moved_p_value(samples, seed),
        wins=found.wins,
        losses=found.losses,
        ties=found.ties,
        n=found.n,
    )


def _readable(sides: Sequence[Sequence[Outcome]]) -> Mean:
    """The share of replies that parse and keep their limits, by the first answer to each row."""
    return mean_of([float(not side[0].prediction.error) for side in sides if side])


def _steadiness(answers: Answers) -> Steadiness | None:
    """How equal the answers to the same row are, over the rows that were answered each time."""
    whole = [row for row in answers if all(map(is_answer, row))]
    times = min(map(len, whole), default=0)
    return consistency([[row[at] for row in whole] for at in range(times)])


# -- reports ----------------------------------------------------------------------------------------------------------


def as_junit(result: CheckResult, rows: Sequence[str]) -> str:
    """One case for each question of the gate and one for each row; a flipped row fails when the flips fail the gate."""
    flipped = {flip.row: flip for flip in result.flips}
    suite = ElementTree.Element("testsuite", name=_xml(f"{result.name} on {result.model}"))
    case = ElementTree.SubElement(suite, "testcase", classname="gate", name="the prompt still does what it did")
    if not result.passed:
        failure = ElementTree.SubElement(case, "failure", message=_xml(result.why[0]))
        failure.text = _xml("\n".join(result.why))
    for row in rows:
        case = ElementTree.SubElement(suite, "testcase", classname="rows", name=_xml(row))
        if (flip := flipped.get(row)) is None:
            continue
        words = _xml(f"was {flip.was!r}, is {flip.now!r}")
        if result.flip_test.too_many:
            ElementTree.SubElement(case, "failure", message="the answer flipped").text = words
        else:
            ElementTree.SubElement(case, "system-out").text = f"flipped, within repeat noise: {words}"
    failures = len(suite.findall("testcase/failure"))
    suite.attrib |= {"tests": str(len(rows) + 1), "failures": str(failures), "errors": "0", "skipped": "0"}
    suite.set("time", str(result.seconds))
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def as_markdown(result: CheckResult) -> str:
    """A summary such as a pull request shows."""
    found, test, score = result.difference, result.flip_test, result.score
    mark = "passed" if result.passed else "FAILED"
    lines = [
        f"## Prompt check: {mark}",
        "",
        f"{_cell(result.name)} ({result.version}) on {_cell(result.model)}",
        "",
    ]
    lines += [f"- **{_cell(why, REASON)}**" for why in result.why]
    lines += [f"- {_cell(note)}" for note in result.notes]
    lines += ["", "| | recorded | now |", "|---|---|---|"]
    lines.append(f"| model | {_cell(result.reference.model)} | {_cell(result.model)} |")
    lines.append(f"| score | {_points(score.was)} | {_points(score.now)} |")
    lines.append(f"| replies that can be read | {_points(result.readable.was)} | {_points(result.readable.now)} |")
    if found:
        low, high = (100 * value for value in found.ci95)
        lines += ["", f"Difference {100 * found.diff:+.1f} points on {found.n} rows, 95 % CI {low:+.1f} to "]
        lines[-1] += f"{high:+.1f}, p = {found.p_value:.2g}."
    lines += ["", f"Flipped: {test.flipped} of {result.compared} rows (p = {test.p_value:.2g})."]
    if result.flips:
        lines += ["", "| row | was | is | score |", "|---|---|---|---|"]
        for flip in result.flips[:MOST_FLIPS]:
            scores = f"{_percent(flip.was_score)} -> {_percent(flip.is_score)}"
            lines.append(f"| {_cell(flip.row)} | {_cell(flip.was)} | {_cell(flip.now)} | {scores} |")
        if len(result.flips) > MOST_FLIPS:
            lines += ["", f"and {len(result.flips) - MOST_FLIPS} more"]
    return "\n".join(lines) + "\n"


def require_place(path: Path, option: str) -> None:
    """Raises an InputError where `write_text` could not write, before anything is paid for. What is there stays as it
    is."""
    there = path.exists()
    if path.is_dir():
        raise InputError(f"{option} {path}: is a folder (so is an empty name); name a file")
    if there and not path.is_file():
        return  # a pipe: to open and close it would be its end for whoever reads it
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()
        if not there:
            path.resolve().unlink()
    except OSError as error:
        raise InputError(
            f"{option} {path}: cannot be written ({error.strerror or error}); name another file"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Raises a ReleaseError when the disk refuses."""
    with disk_errors(f"{path}: cannot be written", "name another file"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8", "backslashreplace"))


def _xml(text: str) -> str:
    return _NOT_XML.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def _cell(text: str, longest: int = CELL) -> str:
    """Text as it is, on one line: no character of it is read as Markdown or HTML."""
    line = " ".join(printable(text, mark=lambda char: " ").split())
    line = line if len(line) <= longest else f"{line[: longest - 1]}…"
    line = re.sub(r"([\\`*_\[\]()#|~!@])", r"\\\1", line)
    return _LINK.sub(lambda found: "".join(f"&#{ord(c)};" for c in found[0]), html.escape(line, quote=False))


def _points(side: Mean) -> str:
    if side.mean is None or side.ci95 is None:
        return "-"
    low, high = side.ci95
    return f"{100 * side.mean:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}"
