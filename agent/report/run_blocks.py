"""A finished search as sections of blocks, shared by terminal, report, web page and notebook."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from agent.ledger.connect import ledger_option
from agent.ledger.query import Row
from agent.ledger.trail import claims, refused_reply
from agent.models.recorded import note
from agent.release.result import RunResult
from agent.release.versions import is_version
from agent.report import breakdown_blocks, charts, run_tables, trial_tables, wording
from agent.report.blocks import Block, ChartBlock, Column, DiffBlock, PageSection, filled, sentence, table, text
from agent.report.next_steps import next_steps
from agent.report.prompt_texts import compared_texts, prompt_text, whole_prompt
from agent.report.terminal import lines_of
from agent.report.view import EQUAL, RunView
from agent.report.wording import PromptNames, amount, names_of
from agent.results.breakdown import RowCount
from agent.results.run_parts import (
    Carried,
    ParetoRow,
    Preflight,
    ProposerUse,
    ToShow,
    Winner,
    Yardstick,
)
from agent.safe_text import counted, plain, quoted
from agent.stats.figures import bracketed, gain, gain_interval, interval, paired_test, points, tally

SCREEN = (
    *("verdict", "result", "prompt", "counts", "yardsticks", "metrics", "fields", "labels", "unreadable replies"),
    *("slices", "retrieval", "repeated answers", "variety", "judges", "confidence", "gain", "Pareto front"),
    *("whole prompt", "spend", "released", "next"),
)
"""Sections of a screen in order."""
LONG = ("Pareto front", "slices", "variety", "repeated answers", "gain", "metrics", "yardsticks")
"""Sections that the summary of a run omits if it does not fit a screen, first to go first."""
NOT_BRIEF = ("whole prompt", "spend")
MOST_LINES = 64
PROMPT_LINES = 12
"""Maximum at the end of a run; `optimize show` has no limit."""
PROMPT_LETTERS = 12_000
"""Maximum length of a prompt compared and shown on a page."""
LINE = 76
REPLY_LETTERS = 160
"""Maximum length of an unusable reply of the proposer."""
PromptForm = Literal["", "text", "changes"]
"""How the summary of a run shows the best prompt; "" if it shows none."""
FEWEST_READ, MUCH_LESS = 5, 3
"""Minimum of answered rows, and of distinct labels per distinct answer, to report low variety."""


def screen_sections(result: RunResult, view: RunView | None = None, brief: bool = False) -> list[PageSection]:
    """Return the sections of a result for a screen, verdict first, next command last.

    `view`: its run in the ledger, for intervals and texts. `brief`: the summary at the end of a run.
    """
    names = [name for name in SCREEN if not (brief and name in NOT_BRIEF)]
    sections = {section.name: section for section in run_sections(result, view, brief, names)}
    lengths = {name: len(lines_of([section])) for name, section in sections.items()} if brief else {}
    hidden: list[str] = []
    for name in LONG:
        if sum(lengths.values()) <= MOST_LINES:
            break
        hidden += [name] * bool(lengths.pop(name, 0))
    if hidden:
        told = text(f"hidden here: {', '.join(hidden)}; optimize show has them", on="screen")
        sections["released"] = replace(sections["released"], blocks=(told, *sections["released"].blocks))
    return [section for name, section in sections.items() if name not in hidden]


def run_sections(
    result: RunResult, view: RunView | None = None, brief: bool = False, names: Iterable[str] = ()
) -> list[PageSection]:
    """Return the non-empty sections of a result as in `screen_sections`.

    `names`: by default those of a page, where an untitled section belongs to the one before.
    """
    called = names_of(result)
    own, sides = called.own, called.sides
    released = wording.released(called, result.decision == "promote", view.promoted if view else None)
    cuts = result.slices if view is None or view.shows_rows else ()
    design = f"{sides[-1][1]}: {_design(result.winner)}"
    is_short = brief and not (result.is_own or result.reference_won)
    form: PromptForm = "" if not is_short else "text" if result.references is None else "changes"
    made: Mapping[str, tuple[str, Iterable[Block]]] = {
        "verdict": ("", _verdict(result, called, released, view)),
        "result": ("Result on the sealed test", _scores(result, called, design, view)),
        "yardsticks": ("", _yardsticks(result, called.winner)),
        "metrics": ("", breakdown_blocks.metrics(result.metrics, sides)),
        "fields": ("", breakdown_blocks.fields(result.fields, sides, brief)),
        "labels": ("", breakdown_blocks.answers(result.by_answer, called, brief)),
        "unreadable replies": ("", breakdown_blocks.unreadable(result.answers, called, view)),
        "slices": ("", breakdown_blocks.slices(cuts, sides)),
        "retrieval": ("", breakdown_blocks.retrieval(result.retrieval, sides)),
        "repeated answers": ("", breakdown_blocks.repeated(result.consistency, sides)),
        "variety": ("", breakdown_blocks.variety(result.variety, sides)),
        "prompt": ("The prompt", _prompt(view, called, design, wording.changes(result, called.noun), form)),
        "whole prompt": ("", _whole_prompt(view, own)),
        "gain": ("What carried the gain", _gain(result.attribution, own)),
        "confidence": ("How sure it is, and how often it is right", breakdown_blocks.confidence(result.calibration)),
        "judges": ("Can the judges be trusted?", breakdown_blocks.judges(result.judges)),
        "rows": ("Rows that changed", run_tables.changed_rows(view) if view else ()),
        "next": ("What to do next", _next(result, view, brief)),
        "counts": ("", _counts(result)),
        "released": ("", _released(result.release.path, released, result.parameters, result.ledger_head)),
        "search": ("The search", _search(result.preflight, result.proposer, view)),
        "trials": ("", trial_tables.trial_blocks(view) if view else ()),
        "Pareto front": ("", _front(result.pareto, own, view)),
        "spend": ("What it cost", run_tables.spend(view) if view else ()),
        "provenance": ("Where this comes from", run_tables.provenance(view) if view else ()),
    }
    sections = (PageSection(name, made[name][0], filled(*made[name][1])) for name in names or made)
    return [section for section in sections if section]


# -- verdict and scores -----------------------------------------------------------------------------------------------


def _verdict(result: RunResult, names: PromptNames, released: str, view: RunView | None) -> Iterator[Block]:
    certainty, own, best = wording.certainty(result), result.sealed("baseline"), result.sealed("winner")
    yield text(f"{wording.verdict(result)}{f'  ({certainty})' if certainty else ''}", strong=True, on="screen")
    yield text(wording.meaning(names, result.lift, own, best), on="page")
    counts = result.answers.winner if result.answers else None
    absolute = in_absolute_terms(names.winner, best, counts, result.yardsticks, result.human_score)
    alike = hardly_varied(names.winner, counts) if counts else ""
    left_out = result.untested if result.decision != "promote" else None
    yield text(
        absolute and f"in absolute terms: {absolute}",
        alike and f"note: {alike}",
        unusable_replies(result.proposer, view),
        note(result.model),
        wording.untested(left_out) if left_out else "",
        to_show(result.to_show) if result.to_show else "",
        result.search_ended and f"the search ended early: {result.search_ended}",
        result.overspent and f"the run {result.overspent}",
    )
    yield text(f"Released: {released}. Path: {result.release.path}.", on="page")
    yield text(*result.held_back, heading="the best found was held back:")


def in_absolute_terms(
    name: str, score: float | None, counts: RowCount | None, yardsticks: Sequence[Yardstick], human: float | None
) -> str:
    """Return a prompt's score next to yardsticks and people; "" if it stands alone."""
    parts = [f"{wording.verb(name, 'gets')} {points(score)} of 100"]
    if counts is not None and counts.scored and (counts.right or not counts.partly):  # graded metrics rarely give 1
        parts.append(f"right on {counts.right} of {counts.scored} rows")
    others = sorted(yardsticks[1:], key=lambda one: -(one.test or 0.0))
    if said := [f"{one.name} {points(one.test)}" for one in (*yardsticks[:1], *others[:1])]:
        parts.append(f"without a language model: {', '.join(said)}")
    if human is not None:
        parts.append(f"people: {points(human)} (according to the task)")
    return "; ".join(parts) if len(parts) > 1 else ""


def hardly_varied(name: str, counts: RowCount) -> str:
    """Return that a prompt's answers vary much less than the labels. "" if not, or in older results."""
    if counts.readable < FEWEST_READ or not counts.different:
        return ""
    if counts.different_right < (2 if counts.different == 1 else MUCH_LESS * counts.different):
        return ""
    gave = "the same answer" if counts.different == 1 else f"{counts.different} different answers"
    return f"{name} gave {gave} on {counts.readable} rows (your rows have {counts.different_right})"


def unusable_replies(use: ProposerUse | None, view: RunView | None) -> str:
    """Say that most replies of the proposer were unusable, with one of them; "" otherwise."""
    if use is None or not use.refused or 2 * use.refused < use.asked:
        return ""
    told = f"note: {use.refused} of {counted(use.asked, 'reply', 'replies')} of the proposer were unusable"
    reply, why = refused_reply(view.history, view.id) if view is not None else ("", "")
    shown = f": {quoted(' '.join(reply.split()), REPLY_LETTERS)}" if reply else ""
    return f"{told}; one {why}{shown}" if why else told


def to_show(need: ToShow) -> str:
    """Return the sample size that would confirm the gain."""
    what = f"a gain of {100 * need.gain:.1f} points"
    if need.rows_needed is None:
        wants = f"{what} is too small for any number of test rows"
    elif need.rows_needed <= need.rows_tested:
        wants = f"{what} needs about {need.rows_needed:,} test rows for 80 % power; it was missed this time"
    else:
        wants = f"{what} needs about {need.rows_needed:,} test rows for 80 % power"
    if need.max_calls is None:
        return f"{wants}; there are {need.rows_there:,}: add rows to the test split"
    caps = f", and more of {' and '.join(need.other_caps)}" if need.other_caps else ""
    more = "; then add rows" if need.rows_needed is None or need.rows_needed > need.rows_there else ""
    within = f"{need.rows_tested:,} of {need.rows_there:,} were within budget"
    return f"{wants}; {within}: --max-calls {need.max_calls}{caps}{more}"


def _scores(result: RunResult, names: PromptNames, design: str, view: RunView | None) -> Iterator[Block]:
    lift, sides, intervals = result.lift, names.sides, view.sealed if view else {}
    rows: list[Sequence[Any]] = []
    for side, name in sides:
        ends = intervals[side][1:] if side in intervals else (None, None)
        rows.append((name, points(result.sealed(side)), interval(*ends), *map(points, result.dev(side))))
    columns = ("prompt", "sealed test #", "95 % CI #", "dev #", "dev, corrected #")
    draw = partial(charts.sealed, sides, intervals, lift)
    if result.is_own:
        numbers = table("Scores, 0 to 100", columns[:-1], [row[:-1] for row in rows])
        title = f"{names.own.capitalize()} on the sealed test"
        yield ChartBlock("sealed", title, draw, numbers, is_open=True)
        yield text(design, on="screen")
        return
    rows.append(("difference", gain(lift.diff), gain_interval(lift.ci95), "", ""))
    uncorrected = result.uncorrected and f"the dev score is not corrected: {result.uncorrected}"
    corrected = uncorrected or "the corrected score removes this bias on average, within 6 to 10 points"
    numbers = table(
        "Scores, 0 to 100",
        columns,
        rows,
        note=f"{tally(lift.wins, lift.losses, lift.ties)} of {lift.n} sealed rows",
        explained=f"Dev scores chose the prompt, so they are biased upwards; {corrected}. Only the sealed test counts.",
    )
    yield ChartBlock("sealed", "Both prompts on the sealed test, and their difference", draw, numbers, is_open=True)
    yield text(uncorrected, design, on="screen")
    means = ((result.baseline.test, lift.baseline), (result.winner.test, lift.winner))
    is_uneven = any(shared is not None and abs(shared - (mean or 0)) > EQUAL for mean, shared in means)
    rows_seen = result.baseline.dev_rows
    yield text(
        f"{wording.verb(names.own, 'was')} compared on {rows_seen} dev rows, which were enough" if rows_seen else "",
        wording.cheaper(result.cheaper) if result.cheaper else "",
        f"sealed test scores are over the {lift.n} rows scored for both prompts" if is_uneven else "",
    )


def _yardsticks(result: RunResult, winner: str) -> Iterator[Block]:
    yardsticks = result.yardsticks
    yield text(
        *(
            f"{one.name} scores {points(one.test)}; {winner} against it: {paired_test(one.lift)}"
            if one.lift is not None
            else one.why and f"{one.name} has no score: {one.why}"
            for one in result.references or ()
        )
    )
    if yardsticks:
        rows = [(one.name, f"{points(one.test)}{bracketed(one.ci95)}", points(one.dev)) for one in yardsticks]
        title = f"Without a language model, trained on {yardsticks[-1].trained_on} rows"
        best = wording.unbeaten(yardsticks)
        note = sentence(wording.against_yardstick(best, winner, result.winner.test, result.lift.n)) if best else ""
        yield table(title, ("method", "sealed test (95 % CI) #", "dev #"), rows, note=note)


def _gain(parts: Sequence[Carried], own: str) -> Iterator[Block]:
    rows = [(row.part, *wording.carried(row)) for row in parts]
    columns = ("part", "points #", "95 % CI #", "basis")
    note = f"Points lost if the part is replaced by that of {own}."
    numbers = table("What carried the gain", columns, rows, note=note)
    yield ChartBlock("attribution", "What each part carries", partial(charts.attribution, parts), numbers)


def _front(front: Sequence[ParetoRow], own: str, view: RunView | None) -> Iterator[Block]:
    trials = view.history.trials(view.id) if view else []
    numbers = {trial["candidate_id"]: trial["number"] for trial in trials}
    names = {id_: f"trial {number}{f', {own}' * (number == 0)}" for id_, number in numbers.items()}
    size_name, sizes = wording.sizes(front)
    rows = []
    for row, size in zip(front, sizes, strict=True):
        seconds = "-" if row.latency_s is None else f"{row.latency_s:.2f} s"
        cells = (points(row.dev), f"{size:,}", amount(row.usd_per_1000), seconds)
        rows.append((names.get(row.candidate_id, row.candidate_id), "yes" if row.chosen else "", *cells))
    columns = ("prompt", "chosen", "dev #", f"{size_name} #", "$ per 1,000 calls #", "latency #")
    title = "The Pareto front: no other prompt beats these in score, length and cost at once"
    words = ["chosen" if row.chosen else own if numbers.get(row.candidate_id) == 0 else "" for row in front]
    draw = partial(charts.pareto, front, words)
    yield ChartBlock("pareto", "Dev score against cost", draw, table(title, columns, rows))


def _design(winner: Winner) -> str:
    size = wording.size(winner.tokens_a_call, winner.prompt_tokens)
    if winner.calls_a_row:
        size += f", {winner.calls_a_row:.1f} calls a row"
    return f"{wording.design(winner)}, {size} ({winner.candidate_id})"


# -- the prompt -------------------------------------------------------------------------------------------------------


def _prompt(
    view: RunView | None, names: PromptNames, design: str, changed: Sequence[str], form: PromptForm
) -> Iterator[Block]:
    yield text(design, on="page")
    yield text(*changed, heading="what changed:")
    if view is None or view.winner is None or view.baseline is None:
        return
    old, new = compared_texts(view.baseline, view.winner)
    if form == "changes":
        yield DiffBlock(old, new, "", names.own, "best found", on="screen")
    elif form == "text":
        lines = plain(prompt_text(view.winner)).splitlines()
        left = counted(len(lines) - PROMPT_LINES, "more line")
        cut = [f"  {line if len(line) <= LINE else f'{line[: LINE - 1]}…'}" for line in lines[:PROMPT_LINES]]
        whole = f"the best found (whole: optimize show {view.id}{ledger_option(view.history.path)}):"
        yield text(*cut, f"  ... {left}" if len(lines) > PROMPT_LINES else "", heading=whole, exact=True, on="screen")
    if names.is_own:
        yield text(f"The best found is your own {names.noun}." if len(view.trials) > 1 else "", on="page")
    else:
        old, new = (wording.cut(each, PROMPT_LETTERS) for each in (old, new))
        yield DiffBlock(old, new, old_name=names.own, new_name="the best found", on="page")
        yield in_full("the best found", view.winner, folded=False)
    yield in_full(names.own, view.baseline, folded=not names.is_own)


def in_full(name: str, candidate: Row, folded: bool = True) -> Block:
    """Return a prompt for a page, under its name."""
    whole = wording.cut(whole_prompt(candidate), PROMPT_LETTERS)
    return text(whole, heading=f"{name.capitalize()} in full", exact=True, folded=folded, on="page")


def _whole_prompt(view: RunView | None, own: str) -> Iterator[Block]:
    if view is None or view.winner is None or view.baseline is None:
        return
    heading = "== the winner's prompt (examples shown below) =="
    yield text(prompt_text(view.winner), heading=heading, exact=True, on="screen")
    yield run_tables.demos(view.winner["demos"])
    texts = compared_texts(view.baseline, view.winner)
    yield DiffBlock(*texts, f"== diff to {own} ==", own, "winner", on="screen")


# -- search, cost, what to do -----------------------------------------------------------------------------------------


def _counts(result: RunResult) -> Iterator[Block]:
    yield text(
        "trials: " + ", ".join(f"{n} {state}" for state, n in result.trials.items() if n or state != "incomplete"),
        result.failed_because and f"{counted(result.trials['failed'], 'candidate')} failed: {result.failed_because}",
        wording.cost_line(result),
        run_tables.proposer(result.proposer),
        run_tables.before_search(result.preflight),
        "use --anyway to search regardless" if result.stopped_before_search else "",
        on="screen",
    )


def _search(preflight: Preflight | None, use: ProposerUse | None, view: RunView | None) -> Iterator[Block]:
    yield text(run_tables.before_search(preflight), run_tables.proposer(use), on="page")
    if view is not None and use is not None:
        yield run_tables.proposals(use, claims(view.history, view.id))


def _released(path: Path, which: str, scored_with: Mapping[str, Any], head: str) -> Iterator[Block]:
    parameters = ", ".join(f"{name}={value}" for name, value in scored_with.items())
    is_program = bool(parameters) and not is_version(path)  # its released state sets no parameters
    yield text(
        f"released ({which}): {path}",
        f"scored with {parameters}; set the same parameters in your program" if is_program else "",
        f"ledger head {head[:16]}",
        on="screen",
    )


def _next(result: RunResult, view: RunView | None, brief: bool) -> Iterator[Block]:
    folder, columns = result.held_folder, (Column(""), Column("", "code"))
    yield text(f"the best found is in {folder}" if folder else "")
    steps = next_steps(result, view)
    yield table("", columns, steps, on="page")
    if view is not None and not brief:
        steps = [(what, command) for what, command in steps if "optimize show " not in command]
    yield table("next:", columns, steps, on="screen")
