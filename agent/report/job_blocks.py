"""The results of all jobs except searches, as sections of blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.errors import InputError
from agent.report.blocks import Block, Column, PageSection, filled, listing, short, table, text
from agent.report.comparison import result_sections
from agent.report.wording import cost_line
from agent.results.base import CostedResult, Interval, Result
from agent.results.checks import AbResult, BlessResult, CheckResult, DriftLine, MonitorResult
from agent.results.customize import CustomizeResult
from agent.results.judge_calibration import CalibrationResult
from agent.results.judge_tuning import JudgeTuningResult
from agent.results.planned_run import PlannedRun
from agent.results.rows import (
    ApplyResult,
    DraftResult,
    LabellingResult,
    LabelResult,
    LearnResult,
    PlayedResult,
    ToolsResult,
)
from agent.results.transfer import TransferResult, TransferScore
from agent.safe_text import counted
from agent.stats.figures import chance, gain, gain_interval, interval, paired_test, points
from agent.stats.power import shown

SHOWN = 20
"""Maximum number of flips shown for a check."""
LABELS, LINES = 5, 8
"""Maximum of labels named for a drift, and of lines named for skipped rows."""
FIGURE = (Column(""), Column("value", "number"), Column("95 % CI, or of what"))


def sections_of(result: Result) -> list[PageSection]:
    """Return the sections of any result: its own blocks, else those made here. The last is its cost."""
    if isinstance(result, CustomizeResult):
        run = PageSection("run", "", (text(*_comparison(result), exact=True, on="screen"),))
        return [*result_sections(result), run]
    own = getattr(result, "blocks", None)
    blocks = [*(JOBS[type(result)](result) if own is None else own())]
    if isinstance(result, CostedResult) and not isinstance(result, DraftResult):
        blocks.append(text(cost_line(result) + f"; {result.overspent}" * bool(result.overspent)))
    return [PageSection("result", "Result", filled(*blocks))]


def job_result(stored: Mapping[str, Any]) -> Result:
    """Return a stored job result; raise InputError if it is of another version."""
    known: Sequence[type[Result]] = [CustomizeResult, *JOBS]
    kinds = {of.model_fields["kind"].default: of for of in known if "kind" in of.model_fields}
    kind = str(stored.get("kind"))
    if kind not in kinds:
        raise InputError(f"unknown kind of result: {kind!r:.40}; use the promptassay version that wrote it")
    return kinds[kind].from_json(stored)


def _comparison(result: CustomizeResult) -> Iterator[str]:
    if trained := result.fine_tuning:
        paid = "price unknown" if trained.usd is None else f"for ${trained.usd:.4f}"
        yield f"hosted: {trained.model} (job {trained.job}), trained {paid}"
    yield cost_line(result)
    yield f"run {result.run_id}, prompts of {result.of_run}"
    for arm in result.arms:
        if arm.path:
            yield f"{arm.arm}: {arm.path}; optimize promote {result.run_id} --arm {arm.arm}"


def _notes(notes: Sequence[str]) -> Block:
    return text(*(f"note: {note}" for note in notes))


def _planned(result: PlannedRun) -> Iterator[Block]:
    yield text(*result.lines, exact=True)


# -- released prompts -------------------------------------------------------------------------------------------------


def _check(result: CheckResult) -> Iterator[Block]:
    yield text(f"{result.name} {result.version} on {result.model}: {result.gate.upper()}", strong=True)
    yield text(*(f"  {why}" for why in result.why))
    then, test, unanswered = result.reference, result.flip_test, result.unanswered
    score = f"score: {points(result.was)} -> {points(result.now)}"
    if found := result.difference:
        score += ", " + paired_test(found, f" on {found.n} rows")
    steady = [
        f"{f'{points(side.agreement)} % equal' if side else 'unknown'} ({times} per row)"
        for (_, side), (_, times) in zip(result.steadiness, result.repeats, strict=True)
    ]
    noise = "more than repeat noise explains" if test.too_many else "within repeat noise"
    lost = f"rows without an answer: {unanswered.was} -> {unanswered.now}"
    yield text(
        f"recorded: {then.model}, {then.version} {then.created_utc[:10]} ({then.suite}): {then.reason}",
        score,
        f"readable replies: {points(result.readable.was.mean)} % -> {points(result.readable.now.mean)} %",
        f"repeated answers: {' -> '.join(steady)}",
        lost if unanswered.was or unanswered.now else "",
        f"flipped: {test.flipped} of {result.compared} rows ({chance(test.p_value)}: {noise})",
    )
    left = len(result.flips) - SHOWN
    yield listing(
        "",
        [
            (Column("row"), lambda flip: short(flip.row, 30)),
            (Column("was", floor=12), lambda flip: short(flip.was, 60)),
            (Column("is", floor=12), lambda flip: short(flip.now, 60)),
            (Column("score", "number"), lambda flip: f"{points(flip.was_score)} -> {points(flip.is_score)}"),
        ],
        result.flips[:SHOWN],
        note=f"and {left} more; --json lists all" if left > 0 else "",
    )
    yield _notes(result.notes)
    if not result.passed and result.compared:
        yield text("if the change is intended, `optimize bless` makes it the new reference")


def _bless(result: BlessResult) -> Iterator[Block]:
    rows = f"{result.rows} rows, {result.repeats} times each, {result.unanswered} without an answer"
    yield text(
        f"recorded: {result.path} ({result.suite}, before: {result.before or 'none'})",
        f"{result.name} {result.version} on {result.model}: {rows}",
        f"score: {points(result.score.mean)} (95 % CI {interval(*(result.score.ci95 or (None, None)))})",
    )


def _monitor(result: MonitorResult) -> Iterator[Block]:
    verdict = "DRIFT" if result.drift else "no drift"
    when = f", {result.start} to {result.end}" if result.start else ""
    answers = f"{verdict} in {counted(result.rows.now, 'answer')}{when}"
    yield text(f"{result.name} {result.version}: {answers}", strong=True)
    alarms = f"false alarm rate at most {100 * result.alpha:g} % per look"
    yield text(f"reference: {counted(result.rows.was, 'answer')}; {alarms}")
    rows = [_drift(test) for test in sorted(result.tests, key=lambda each: not each.alarm)]
    heads = ("", "test", "before -> now ~", "change #", "alarms from #", "p #")
    yield table("", heads, rows)
    yield _notes(result.notes)


def _drift(test: DriftLine) -> tuple[str, ...]:
    alarm = "ALARM" if test.alarm else ""
    if test.p_value is None or test.effect is None:
        return alarm, test.name, f"not testable: {test.why}", "", "", ""
    sign = -1 if test.name == "score" else 1  # of scores a fall alarms
    change = f"{sign * test.effect + 0.0:+.3f}"  # + 0.0: never -0.000
    return alarm, test.name, _before_and_now(test), change, f"{sign * test.limit:g}", f"{test.p_value:.2g}"


def _before_and_now(test: DriftLine) -> str:
    was, now = test.was, test.now
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        moved = sorted(was, key=lambda label: -abs(was[label] - now[label]))
        parts = [f"{short(label, 30)} {points(was[label])} -> {points(now[label])} %" for label in moved[:LABELS]]
        return ", ".join(parts) + (f" and {len(moved) - LABELS} more" if len(moved) > LABELS else "")
    assert not isinstance(was, Mapping)
    assert not isinstance(now, Mapping)
    is_length = test.name.startswith("length")
    return f"median {was:g} -> {now:g}" if is_length else f"{points(was)} % -> {points(now)} %"


def _ab(result: AbResult) -> Iterator[Block]:
    arms = zip((result.control, result.treatment), result.units, result.means, strict=True)
    yield text(*(f"{name}: {points(mean)} on {units} units" for name, units, mean in arms))
    evidence = f"e = {result.e_value:.3g} now, {chance(result.p_value)} at any time"
    known = f"{100 * result.confidence:g} % confidence sequence {gain_interval(result.ci)}; {evidence}"
    sides = f"{result.treatment} minus {result.control}"
    uneven = f"note: units are split unevenly (p = {result.uneven or 0:.1g} for 1:1); "
    yield text(
        f"{sides}: {gain(result.diff)} points on {result.pairs} pairs ({known})",
        f"{result.verdict}: the test may be stopped"
        if result.may_stop
        else "undecided: continue, or stop without a winner; looking costs nothing",
        f"{result.left_out} later outcomes of the same unit were ignored" if result.left_out else "",
    )
    yield _notes(result.notes)
    yield text("" if result.uneven is None else f"{uneven}if 1:1 was intended, check the bucketing first")


# -- models and judges ------------------------------------------------------------------------------------------------


def _transfer(result: TransferResult) -> Iterator[Block]:
    heads = [f"{model.model}{' (own)' if model.own else ''} #" for model in result.models]
    rows = []
    for at, one in enumerate(result.candidates):
        about = f"{one.technique}, {one.format}, {one.n_examples} examples" if one.trial else "your prompt"
        rows.append((one.trial, *(_cell(model.scores[at]) for model in result.models), short(about, 60)))
    note = "score [95 % CI] #rank; + or -: differs from your prompt (p < 0.05, Holm over all cells); "
    note += "not tested on the run's own model, whose scores chose the prompts"
    title = f"{result.task}: run {result.of_run} on {result.rows} dev rows"
    yield table(title, ("trial #", *heads, Column("prompt", floor=11)), rows, note=note)
    if result.status == "budget":
        yield text(
            "the budget ended it early; unfinished cells have no score",
            "to continue: run the same command with a larger cap, or with --limit ROWS",
        )


def _cell(score: TransferScore) -> str:
    if score.mean is None or score.ci95 is None:
        return "-"
    low, high = score.ci95
    lift = score.lift
    mark = "" if lift is None or lift.p_holm is None else ("", "+", "-")[shown(lift.ci95, lift.p_holm)]
    return f"{points(score.mean)} [{100 * low:.0f}, {100 * high:.0f}] #{score.rank}{mark}"


def _calibration(result: CalibrationResult) -> Iterator[Block]:
    trusted = "trusted" if result.trusted else "NOT TRUSTED"
    yield text(f"judge {', '.join(result.models)} ({result.mode}) on {result.labels}: {trusted}", strong=True)
    blocked = "promotion is blocked while this judge scores; override it with --override --reason WHY"
    yield text(*(f"  {why}" for why in result.why), "" if result.trusted else f"  {blocked}")
    people, quadratic = result.people, ", quadratic" * (result.mode != "pairwise")
    raters = f"alpha among {people.raters} rater{'s' * (people.raters != 1)}"

    def line(name: str, value: float | None, ci95: Interval | None, note: str = "") -> tuple[str, str, str]:
        ends = f"{ci95[0]:.2f} to {ci95[1]:.2f}" if ci95 else ""
        return name, "-" if value is None else f"{value:.2f}", ", ".join(part for part in (ends, note) if part)

    def named(name: str, key: str, note: str = "") -> tuple[str, str, str]:
        return line(name, getattr(result, key), getattr(result, f"{key}_ci95"), note)

    rows = [
        ("items with a readable verdict", f"{result.items - result.unscored} of {result.items}", ""),
        line(f"Cohen's kappa{quadratic}", result.kappa, result.ci95),
        named("Krippendorff's alpha, ordinal", "alpha"),
        named("Spearman", "spearman"),
        named("same rating as people", "agreement"),
        line(raters, people.alpha, people.alpha_ci95),
        named("same verdict in the other order", "order_consistency", f"{result.asked_in_both_orders} pairs"),
        line("the answer shown first wins", result.first_wins, None, "0.5 is fair"),
        named("same verdict on a repeated call", "self_consistency", f"{result.asked_again} times"),
        named("length and its ratings", "length_judge", "Spearman"),
        named("length and people's ratings", "length_people", "Spearman"),
        named("points for more length", "length_bias", "beyond people's"),
    ]
    yield table("agreement with people", FIGURE, rows)
    controls = [(name, f"{one.fooled} of {one.n}") for name, one in result.negative_controls.items()]
    heads = ("answer", "got a good rating #")
    yield table("non-answers that got a good rating", heads, controls)
    confusion = [(name, *row) for name, row in zip(result.scale, result.confusion, strict=True)]
    title = "people's rating (down), the judge's (across)"
    yield table(title, ("rating", *(f"{name} #" for name in result.scale)), confusion)
    early = "the budget ended it early: figures are from fewer items" if result.status == "budget" else ""
    yield text(early, *(f"unreadable: {reason[:160]}" for reason in result.reasons))


def _tuned(result: JudgeTuningResult) -> Iterator[Block]:
    sides, verdict = (result.before, result.after), "HELD BACK" if result.held else "better than today's"
    yield text(f"judge {result.model} ({result.mode}) on {result.labels}, tuned: {verdict}", strong=True)
    yield text(*(f"  {why}" for why in result.held))
    shifts = {change: f"points gained: {change}" for change in result.after.shifts}
    shifts |= {"position": "% of verdicts that depend on order"} if "position" in shifts else {}
    rows = [
        (f"Cohen's kappa{', quadratic' * (result.mode != 'pairwise')}", *(_with_ends(s.kappa, s.ci95) for s in sides)),
        ("Spearman", *(_with_ends(side.spearman, side.spearman_ci95) for side in sides)),
        ("readable verdicts", *(f"{side.items - side.unscored} of {side.items}" for side in sides)),
        ("non-answers rated good", *(f"{side.fooled} of {side.controls}" for side in sides)),
        *((name, *(gain(side.shifts[change].mean) for side in sides)) for change, name in shifts.items()),
        ("may promote prompts", *("yes" if side.trusted else "no" for side in sides)),
    ]
    title, heads = f"on {result.after.items} sealed items", ("", "today's judge", "tuned judge")
    yield table(title, [*map(Column, heads)], rows)
    gained, why = _with_ends(result.gain, result.gain_ci95, "+"), result.after.why
    yield text(f"gain of kappa: {gained}", *(f"the tuned judge may not promote prompts: {each}" for each in why))
    others = [
        (each.name, _with_ends(each.kappa, each.ci95), _with_ends(each.spearman))
        for each in (result.people, *result.yardsticks)
    ]
    yield table("without this judge", (Column(""), Column("kappa"), Column("Spearman", "number")), others)
    for group in result.disagreements:
        examples = (f"  {short(example, 110)}" for example in group.examples)
        yield text(f"{counted(group.items, 'disagreement')}: {group.name}", *examples)
    named = f'name = "judge", judge = "{result.task}@production" under [[metrics]]'
    rate = f"optimize judge rate {result.rated_run} --only {result.to_rate} --rater NAME"
    yield text(
        f"search: {result.of_run}; the tuned judge: {result.judge}",
        "" if result.held else f"use it: optimize promote {result.of_run}, then {named}",
        f"{counted(result.rated_next, 'answer')} would help most if rated: {rate}" if result.to_rate else "",
        "the budget ended it early: figures are from fewer items" if result.status == "budget" else "",
    )


def _with_ends(value: float | None, ci95: Interval | None = None, sign: str = "") -> str:
    ends = f" ({ci95[0]:{sign}.2f} to {ci95[1]:{sign}.2f})" if ci95 else ""
    return "-" if value is None else f"{value:{sign}.2f}{ends}"


# -- rows and tasks ---------------------------------------------------------------------------------------------------


def _apply(result: ApplyResult) -> Iterator[Block]:
    parts = f"{result.answered} answered, {result.unreadable} unreadable, {result.failed} failed"
    again = "; run the same command to retry failed rows" if result.failed else ""
    yield text(
        *result.notes,
        f"wrote {result.path}: {counted(result.rows, 'row')} ({parts})",
        f"{result.name} {result.version} on {result.model}",
        f"see the column error{again}" if result.unreadable or result.failed else "",
    )


def _asked(result: LabelResult) -> Iterator[Block]:
    apart = f"{result.apart} of {len(result.answers)} rows get different answers from {result.prompts} prompts"
    yield text(f"{apart} of {result.of_run}; they come first")


def _played(result: PlayedResult) -> Iterator[Block]:
    asked = (f"{each.side} {each.version}: {each.error or each.call_key}" for each in result.asked)
    yield text(f"playground of {result.of} on {result.model}", *asked)


def _draft(result: DraftResult) -> Iterator[Block]:
    missing = "(no definition drafted; write one in task.toml)"
    labels = (f"{label}: {about or missing}" for label, about in result.labels.items())
    yield text(*labels, heading=f"labels, from {result.labels_from}:")
    synthetic = f", {result.synthetic} of them synthetic" if result.synthetic else ""
    refused = f"unusable replies: {result.refused} ({'; '.join(result.why_refused)})"
    folder = Path(result.folder)
    name = folder.name if folder.parent == Path("tasks") else str(folder)
    yield text(
        f"prompt: {result.opening or '(a plain one)'}",
        f"rows without a label: {result.rows - result.confirmed}{synthetic}",
        f"rows labelled by feedback in the traces: {result.confirmed}" if result.confirmed else "",
        refused if result.refused else "",
        "the budget ended it early: the draft is incomplete" if result.status == "budget" else "",
        *result.wanted,
        cost_line(result),
        f"wrote {folder}; look at {folder / 'task.toml'}, then: optimize label {name}",
    )


def _labelling(result: LabellingResult) -> Iterator[Block]:
    counts = ", ".join(f"{label} {count}" for label, count in result.by_label.items())
    are = "is" if result.disputed == 1 else "are"
    disputed = f"{result.disputed} more {are} not used: the labellers are tied"
    yield text(
        f"{result.labelled} of {result.rows} rows are labelled ({counts})",
        disputed if result.disputed else "",
        *result.agreement,
        *result.wanted,
        f"next: {result.next}",
    )


def _learn(result: LearnResult) -> Iterator[Block]:
    verb, train = "would be taken" if result.dry_run else "taken", result.train
    yield text(
        f"{result.log}: {result.taken} of {result.rows} rows {verb} into train of {result.task} "
        f"({train.was} -> {train.now} rows)"
    )
    for each in result.left_out:
        numbers = ", ".join(map(str, each.lines[:LINES])) + (" ..." if len(each.lines) > LINES else "")
        yield text(f"skipped: {each.rows}, {each.why} (line {numbers})")
    heading = f"skipped: {result.unreadable}, not valid for the task:" if result.unreadable else ""
    yield text(heading, *(f"  {each}" for each in result.problems))
    written = (
        f"written: {result.folder}; next: optimize run {result.folder}" if result.folder else "nothing was written"
    )
    yield text(written)


def _tools(result: ToolsResult) -> Iterator[Block]:
    about = {tool.name: " ".join(tool.description.split()) for tool in result.tools}
    written = f'written: {result.file}; in task.toml: tools = "{Path(result.file).name}"' if result.file else ""
    yield text(*(f"{name}: {words or '(no description)'}" for name, words in about.items()), written)


JOBS: Mapping[type[Result], Callable[[Any], Iterator[Block]]] = {
    AbResult: _ab,
    ApplyResult: _apply,
    BlessResult: _bless,
    CalibrationResult: _calibration,
    JudgeTuningResult: _tuned,
    CheckResult: _check,
    DraftResult: _draft,
    LabelResult: _asked,
    LabellingResult: _labelling,
    LearnResult: _learn,
    MonitorResult: _monitor,
    PlannedRun: _planned,
    PlayedResult: _played,
    ToolsResult: _tools,
    TransferResult: _transfer,
}
