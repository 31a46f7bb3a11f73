"""Rules that compare an arm with a reference: verdict, reasons and figures. Pure.

`better` is for a new prompt, `not_worse` for another model or a cheaper prompt, `steady` for a prompt in production.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from agent.evaluate.breakdown import consistency, is_answer, mean_of
from agent.evaluate.evaluator import values as scored
from agent.evaluate.score_table import ScoreTable
from agent.options.run import SearchOptions
from agent.results.base import Interval, Mean, WasNow
from agent.results.breakdown import Steadiness
from agent.results.checks import Flip, FlipTest, SuiteComparison
from agent.results.run_parts import Lift, NotWorse
from agent.stats.changes import flip_p_value, moved_test
from agent.stats.figures import chance, evidence, gain, gain_interval
from agent.stats.intervals import both_scored, loss_bound, paired_difference
from agent.stats.paired_tests import PairedTest
from agent.stats.power import SIGNIFICANT, shown
from agent.types import Example, Field, Outcome, canonical

F = TypeVar("F")
ALPHA = 0.05  # false alarms of `steady` under repeat noise, at most
MOVED = 0.1  # text answers: the change of a row's score that counts as a flip
UNANSWERED_FROM = 0.2
SHOWN = 200  # characters of an answer
UNREADABLE = "(unreadable)"
ONCE = "one answer before and one now: repeat noise is unknown; ask more often with --repeats"


@dataclass(frozen=True, slots=True)
class Reason:
    """One objection to an arm, for programs and for people."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Verdict(Generic[F]):
    """The result of a rule: its `figures`, and the `reasons` against the arm."""

    figures: F
    reasons: tuple[Reason, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.reasons

    @property
    def messages(self) -> tuple[str, ...]:
        return tuple(reason.message for reason in self.reasons)


# -- better -----------------------------------------------------------------------------------------------------------


def better(table: ScoreTable, arm: str, reference: str, seed: int) -> Verdict[Lift] | None:
    """Test whether `arm` gains over the reference; return None if no row has both scores."""
    ours, theirs = ([outcome.value for outcome in table.first(each)] for each in (arm, reference))
    if not (both := both_scored(ours, theirs)):
        return None
    lost = [b for a, b in zip(ours, theirs, strict=True) if a is None and b is not None]
    found = paired_difference([a for a, _ in both], [b for _, b in both], seed)
    return gained(
        Lift(
            **dict(found),
            lost=len(lost),
            diff_if_wrong=(found.diff * len(both) - sum(lost)) / (len(both) + len(lost)),
            baseline=sum(b for _, b in both) / len(both),
            winner=sum(a for a, _ in both) / len(both),
        )
    )


def gained(lift: Lift, own: str = "your prompt") -> Verdict[Lift]:
    """Apply the rule of `better` to known figures: significant, and not because of lost rows."""
    reasons = []
    if shown(lift.ci95, lift.p_value) <= 0:
        low, high = lift.ci95
        is_uneven = lift.p_value < SIGNIFICANT and low <= 0 <= high
        but = f", but the 95 % interval, {gain_interval(lift.ci95)}, includes 0" if is_uneven else ""
        figures = f"{gain(lift.diff)} points, {chance(lift.p_value)} on {lift.n} rows{but}"
        reasons.append(Reason("gain_not_shown", f"the gain is not shown: {figures}"))
    elif lift.lost and lift.diff_if_wrong is not None and lift.diff_if_wrong <= 0:
        figures = f"{lift.lost} that {own} got a score on have none with it; counted as wrong, "
        why = f"the gain may come from rows left out: {figures}{gain(lift.diff_if_wrong)} points"
        reasons.append(Reason("gain_from_lost_rows", why))
    return Verdict(lift, tuple(reasons))


# -- not worse --------------------------------------------------------------------------------------------------------


def not_worse(table: ScoreTable, arm: str, reference: str, options: SearchOptions) -> Verdict[NotWorse] | None:
    """Test whether a larger loss than accepted is ruled out. A row without a score of `arm` counts as 0."""
    ours, theirs = ([outcome.value for outcome in table.first(each)] for each in (arm, reference))
    bound = loss_bound(ours, theirs, options.accepted_loss, options.seed)
    return None if bound is None else bounded(bound, reference)


def bounded(bound: NotWorse, reference: str) -> Verdict[NotWorse]:
    """Apply the rule of `not_worse` to known figures."""
    if bound.shown:
        return Verdict(bound)
    figures = f"{gain(bound.diff)} points on {bound.n} rows, at worst {gain(bound.low)}"
    why = f"a loss of more than {bound.accepted} against {reference} is not ruled out: {figures}"
    return Verdict(bound, (Reason("loss_not_ruled_out", why),))


# -- steady -----------------------------------------------------------------------------------------------------------

Answers = Sequence[Sequence[Outcome]]  # all answers by row


def steady(
    table: ScoreTable, arm: str, reference: str, outputs: Sequence[Field], seed: int = 0
) -> Verdict[SuiteComparison]:
    """Test whether an arm's answers changed beyond repeat noise, row by row.

    Did the score fall, and did more answers change than repeat noise explains? Each is tested at half of 5 %, by
    shuffles within rows. The check also fails if a fifth of the answered rows lost their answer.
    """
    decided = [field.name for field in outputs if field.type != "text"]
    recorded, found = table.answers(reference), table.answers(arm)
    was, now = ([answers.get(row.id, []) for row in table.rows] for answers in (recorded, found))
    pairs = [(list(filter(is_answer, a)), list(filter(is_answer, b))) for a, b in zip(was, now, strict=True)]
    flips = tuple(flip for row, sides in zip(table.rows, pairs, strict=True) if (flip := _flip(row, *sides, decided)))
    values = [(scored(before), scored(after)) for before, after in pairs]
    if decided:
        texts = [tuple([_answer(outcome, decided) for outcome in side] for side in sides) for sides in pairs]
        p_flips = flip_p_value([(a, b) for a, b in texts], lambda one, two: float(one != two), seed)
    else:
        p_flips = flip_p_value(values, lambda one, two: abs(one - two), seed)
    both = both_scored([_mean(before) for before, _ in values], [_mean(after) for _, after in values])
    difference = None
    if both:
        paired = paired_difference([b for _, b in both], [a for a, _ in both], seed)
        test = moved_test(values, seed)
        difference = paired.model_copy(update={"p_value": test.p_value, "ci95": _with_rows(test, paired.ci95)})
    repeats = WasNow(was=max(map(len, was), default=0), now=max(map(len, now), default=0))
    compared = SuiteComparison(
        gate="passed",
        why=(),
        notes=(ONCE,) * (repeats == WasNow(was=1, now=1)),
        rows=len(table.rows),
        compared=sum(bool(before and after) for before, after in pairs),
        unanswered=WasNow(was=sum(not before for before, _ in pairs), now=sum(not after for _, after in pairs)),
        repeats=repeats,
        score=WasNow(was=mean_of([a for a, _ in both]), now=mean_of([b for _, b in both])),
        difference=difference,
        flips=flips,
        flip_test=FlipTest(flipped=len(flips), p_value=p_flips, at_most=ALPHA / 2),
        readable=WasNow(was=_readable([before for before, _ in pairs]), now=_readable([after for _, after in pairs])),
        steadiness=WasNow(was=_steadiness(was), now=_steadiness(now)),
    )
    reasons = tuple(_changed(compared, was, now))
    gate = compared.model_copy(
        update={"gate": "failed" if reasons else "passed", "why": tuple(reason.message for reason in reasons)}
    )
    return Verdict(gate, reasons)


def _with_rows(test: PairedTest, ci95: Interval) -> Interval:
    """Widen the interval of a change by that over rows, unless the test contradicts it."""
    low, high = test.interval
    wider = min(low, ci95[0]), max(high, ci95[1])
    return test.interval if test.p_value < ALPHA and wider[0] <= 0 <= wider[1] else wider


def _changed(found: SuiteComparison, was: Answers, now: Answers) -> Iterator[Reason]:
    fell, test = found.difference, found.flip_test
    if fell is not None and fell.diff < 0 and fell.p_value < ALPHA:
        figures = f"{gain(fell.diff)} points on {fell.n} rows ({evidence(fell.ci95, fell.p_value)})"
        yield Reason("score_fell", f"the score fell: {figures}")
    if test.too_many:
        flipped = f"{test.flipped} of {found.compared} rows flipped, more than repeat noise explains"
        yield Reason("answers_flipped", f"{flipped} ({chance(test.p_value)})")
    had = found.rows - found.unanswered.was
    lost = sum(any(map(is_answer, a)) and not any(map(is_answer, b)) for a, b in zip(was, now, strict=True))
    if not found.compared:
        why = f"no row has an answer on both sides{_cause(now) or _cause(was)}"
        yield Reason("nothing_compared", why)
    elif lost and lost >= UNANSWERED_FROM * had:
        yield Reason("answers_missing", f"{lost} of {had} rows that had an answer got none{_cause(now)}")


def _cause(answers: Answers) -> str:
    errors = (each.prediction.error for row in answers for each in row if not is_answer(each))
    return next((f": {error}" for error in errors if error), "")


def _flip(row: Example, before: list[Outcome], after: list[Outcome], decided: list[str]) -> Flip | None:
    if not before or not after:
        return None
    one = _usual(before, decided)
    two = _usual(after, decided, _answer(one, decided))
    scores = _mean(scored(before)), _mean(scored(after))
    if decided and _answer(one, decided) == _answer(two, decided):
        return None
    if not decided and (scores[0] is None or scores[1] is None or abs(scores[0] - scores[1]) < MOVED):
        return None
    return Flip(
        row=row.id, was=_shown(one), now=_shown(two), was_score=scores[0], is_score=scores[1], expected=dict(row.labels)
    )


def _usual(outcomes: Sequence[Outcome], decided: list[str], recorded: str = "") -> Outcome:
    """Pick the most frequent answer; the recorded one breaks ties, else the first."""
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


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _readable(answers: Answers) -> Mean:
    return mean_of([float(not row[0].prediction.error) for row in answers if row])


def _steadiness(answers: Answers) -> Steadiness | None:
    whole = [row for row in answers if all(map(is_answer, row))]
    times = min(map(len, whole), default=0)
    return consistency([[row[at] for row in whole] for at in range(times)])
