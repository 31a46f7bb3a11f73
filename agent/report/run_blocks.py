"""A finished search as sections of blocks, shared by terminal, report, web page and notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from agent.ledger.connect import ledger_option
from agent.ledger.query import Row
from agent.ledger.trail import claims
from agent.models.recorded import note
from agent.release.result import RunResult
from agent.release.versions import is_version
from agent.report import breakdown_blocks, run_tables, trial_tables, wording
from agent.report.blocks import Block, Column, DiffBlock, PageSection, filled, sentence, table, text
from agent.report.breakdown_blocks import ShownRun
from agent.report.next_steps import held_folder, next_steps
from agent.report.prompt_texts import compared_texts, prompt_text, whole_prompt
from agent.report.terminal import lines_of
from agent.report.view import EQUAL, RunView
from agent.report.wording import amount
from agent.results.run_parts import Change, PromptSize
from agent.safe_text import counted, listed, plain
from agent.stats.figures import bracketed, gain, gain_interval, interval, points, tally

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
FEWEST_READ, MUCH_LESS = 5, 3
"""Minimum of answered rows, and of distinct labels per distinct answer, to report low variety."""
REASONED = ("chain-of-thought", "few-shot-cot")
ABOUT_THE_SAME = 0.05
MOST_TOOLS = 8
"""Maximum number of tools named."""


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
    shown = ShownRun(result, view, brief)
    made = [(name, *SECTIONS[name]) for name in names or SECTIONS]
    return [section for name, title, of in made if (section := PageSection(name, title, filled(*of(shown))))]


# -- verdict and scores -----------------------------------------------------------------------------------------------


def _verdict(run: ShownRun) -> Iterator[Block]:
    result = run.result
    certainty = wording.certainty(result)
    yield text(f"{wording.verdict(result)}{f'  ({certainty})' if certainty else ''}", strong=True, on="screen")
    yield text(wording.meaning(result), on="page")
    absolute, alike = in_absolute_terms(result), hardly_varied(result)
    yield text(
        absolute and f"in absolute terms: {absolute}",
        alike and f"note: {alike}",
        note(result.model),
        wording.untested(result),
        to_show(result),
        result.search_ended and f"the search ended early: {result.search_ended}",
        result.overspent and f"the run {result.overspent}",
    )
    yield text(f"Released: {wording.released(result, run.promoted)}. Path: {result.release.path}.", on="page")
    yield text(*wording.held_back(result), heading="the best found was held back:")


def in_absolute_terms(result: RunResult) -> str:
    """Return the absolute score of the winner and of the yardsticks; "" in older results."""
    name = wording.winner_name(result)
    counts = result.answers.winner if result.answers else None
    parts = [f"{wording.verb(name, 'gets')} {points(wording.sealed_score(result, 'winner'))} of 100"]
    if counts is not None and counts.scored and (counts.right or not counts.partly):  # graded metrics rarely give 1
        parts.append(f"right on {counts.right} of {counts.scored} rows")
    others = sorted(result.yardsticks[1:], key=lambda one: -(one.test or 0.0))
    if yardsticks := [f"{one.name} {points(one.test)}" for one in (*result.yardsticks[:1], *others[:1])]:
        parts.append(f"without a language model: {', '.join(yardsticks)}")
    if result.human_score is not None:
        parts.append(f"people: {points(result.human_score)} (according to the task)")
    return "; ".join(parts) if len(parts) > 1 else ""


def hardly_varied(result: RunResult) -> str:
    """Return that the answers vary much less than the labels. "" if not, or in older results."""
    counts = result.answers.winner if result.answers else None
    if counts is None or counts.readable < FEWEST_READ or not counts.different:
        return ""
    if counts.different_right < (2 if counts.different == 1 else MUCH_LESS * counts.different):
        return ""
    gave = "the same answer" if counts.different == 1 else f"{counts.different} different answers"
    return (
        f"{wording.winner_name(result)} gave {gave} on {counts.readable} rows (your rows have {counts.different_right})"
    )


def to_show(result: RunResult) -> str:
    """Return the sample size that would confirm the gain; "" if that is no question."""
    need = result.to_show
    if need is None:
        return ""
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


def _scores(run: ShownRun) -> Iterator[Block]:
    result, lift = run.result, run.result.lift
    intervals = run.view.sealed if run.view else {}
    rows: list[Sequence[Any]] = []
    for side, name in run.sides:
        ends = intervals[side][1:] if side in intervals else (None, None)
        sealed = points(wording.sealed_score(result, side))
        rows.append((name, sealed, interval(*ends), *map(points, result.dev(side))))
    columns = ("prompt", "sealed test #", "95 % CI #", "dev #", "dev, corrected #")
    if result.is_own:
        numbers = table("Scores, 0 to 100", columns[:-1], [row[:-1] for row in rows])
        yield run.chart("sealed", f"{run.own.capitalize()} on the sealed test", numbers, is_open=True)
        yield text(_design(run), on="screen")
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
    yield run.chart("sealed", "Both prompts on the sealed test, and their difference", numbers, is_open=True)
    yield text(uncorrected, _design(run), on="screen")
    means = ((result.baseline.test, lift.baseline), (result.winner.test, lift.winner))
    is_uneven = any(shared is not None and abs(shared - (mean or 0)) > EQUAL for mean, shared in means)
    rows_seen = result.baseline.dev_rows
    yield text(
        f"{wording.verb(run.own, 'was')} compared on {rows_seen} dev rows, which were enough" if rows_seen else "",
        wording.cheaper(result),
        f"sealed test scores are over the {lift.n} rows scored for both prompts" if is_uneven else "",
    )


def _yardsticks(run: ShownRun) -> Iterator[Block]:
    yield text(*wording.against_references(run.result))
    if all_ := run.result.yardsticks:
        rows = [(one.name, f"{points(one.test)}{bracketed(one.ci95)}", points(one.dev)) for one in all_]
        title = f"Without a language model, trained on {all_[-1].trained_on} rows"
        note = sentence(wording.against_yardsticks(run.result))
        yield table(title, ("method", "sealed test (95 % CI) #", "dev #"), rows, note=note)


def _gain(run: ShownRun) -> Iterator[Block]:
    rows = [(row.part, *wording.carried(row)) for row in run.result.attribution]
    columns = ("part", "points #", "95 % CI #", "how it is known")
    numbers = table("What carried the gain", columns, rows, note=f"Points lost when the part of {run.own} replaces it.")
    yield run.chart("attribution", "What each part carries", numbers)


def _front(run: ShownRun) -> Iterator[Block]:
    front = run.result.pareto
    trials = run.view.history.trials(run.view.id) if run.view else []
    numbers = {trial["candidate_id"]: trial["number"] for trial in trials}
    size_name, sizes = wording.sizes(front)
    rows = []
    for row, size in zip(front, sizes, strict=True):
        number = numbers.get(row.candidate_id)
        name = row.candidate_id if number is None else f"trial {number}{f', {run.own}' * (number == 0)}"
        seconds = "-" if row.latency_s is None else f"{row.latency_s:.2f} s"
        cells = (points(row.dev), f"{size:,}", amount(row.usd_per_1000), seconds)
        rows.append((name, "yes" if row.chosen else "", *cells))
    columns = ("prompt", "chosen", "dev #", f"{size_name} #", "$ per 1,000 calls #", "latency #")
    title = "The Pareto front: nothing beats these in score, prompt length and cost"
    yield run.chart("pareto", "Dev score against cost", table(title, columns, rows))


def _design(run: ShownRun) -> str:
    winner = run.result.winner
    size = wording.size(winner.tokens_a_call, winner.prompt_tokens)
    if winner.calls_a_row:
        size += f", {winner.calls_a_row:.1f} calls a row"
    return f"{run.sides[-1][1]}: {wording.design(winner)}, {size} ({winner.candidate_id})"


# -- the prompt -------------------------------------------------------------------------------------------------------


def _prompt(run: ShownRun) -> Iterator[Block]:
    result, view = run.result, run.view
    yield text(_design(run), on="page")
    yield text(*changes(result), heading="what changed:")
    if view is None or view.winner is None or view.baseline is None:
        return
    if run.brief and result.references is not None and not (result.is_own or result.reference_won):
        yield DiffBlock(*compared_texts(view.baseline, view.winner), "", run.own, "best found", on="screen")
    elif run.brief and result.references is None and not result.is_own:
        lines = plain(prompt_text(view.winner)).splitlines()
        left = counted(len(lines) - PROMPT_LINES, "more line")
        cut = [f"  {line if len(line) <= LINE else f'{line[: LINE - 1]}…'}" for line in lines[:PROMPT_LINES]]
        whole = f"the best found (whole: optimize show {result.run_id}{ledger_option(run.db)}):"
        yield text(*cut, f"  ... {left}" if len(lines) > PROMPT_LINES else "", heading=whole, exact=True, on="screen")
    if result.is_own:
        yield text(f"The best found is your own {wording.noun(result)}." if len(view.trials) > 1 else "", on="page")
    else:
        old, new = (wording.cut(each, PROMPT_LETTERS) for each in compared_texts(view.baseline, view.winner))
        best = wording.cut(whole_prompt(view.winner), PROMPT_LETTERS)
        yield DiffBlock(old, new, old_name=run.own, new_name="the best found", on="page")
        yield text(best, heading="The best found in full", exact=True, on="page")
    yield baseline_in_full(view, view.baseline, folded=not result.is_own)


def baseline_in_full(view: RunView, baseline: Row, folded: bool = True) -> Block:
    """Return the prompt of trial 0 for a page."""
    whole = wording.cut(whole_prompt(baseline), PROMPT_LETTERS)
    return text(whole, heading=f"{view.own.capitalize()} in full", exact=True, folded=folded, on="page")


def changes(result: RunResult) -> list[str]:
    """Return what the winner changes in your prompt, a clause each. Empty if yours won, or in older results."""
    change = result.change
    if change is None:
        return []
    size = _tokens(change.baseline, change.winner)
    tools = f"tool texts changed: {', '.join(change.tools[:MOST_TOOLS])}" if change.tools else ""
    if (left := len(change.tools) - MOST_TOOLS) > 0:
        tools += f" and {left} more"
    voting = wording.combined(result.calibration) if result.calibration is not None else ""
    clauses = (_instruction(result, change), tools, *change.answer, *_new_design(change), voting, size)
    return [clause for clause in clauses if clause]


def _instruction(result: RunResult, change: Change) -> str:
    if change.winner.technique == "program" or not wording.ships_prompt(result):
        what = f"the {wording.noun(result).removesuffix('s')}s of your program changed"
        return ": ".join(filter(None, [what, listed(change.texts)])) if change.instruction else ""
    if not change.instruction:
        return "your instruction is unchanged"
    is_proposed = not change.tools and not change.answer and result.proposer is not None and result.proposer.won
    if change.keeps:
        return f"your instruction is kept; {'the proposer added text' if is_proposed else 'text was added'} to it"
    return f"your instruction is {'replaced by one that the proposer wrote' if is_proposed else 'changed'}"


def _new_design(change: Change) -> list[str]:
    was, now = change.baseline, change.winner
    before, after = was.n_examples, now.n_examples
    said = []
    if before != after:
        added = f"{after} example{'s were' if after > 1 else ' was'} added"
        fewer = f"{counted(after, 'example')} instead of {before}" if after else f"its {before} examples were taken out"
        said.append(fewer if before else added)
    if now.technique in REASONED and was.technique not in REASONED:
        said.append("it is asked to reason before it answers")
    if now.role and now.role != was.role:
        said.append("it is given a role")
    if was.format != now.format:
        said.append(f"the answers' layout is {now.format} instead of {was.format}")
    return said


def _tokens(was: PromptSize, now: PromptSize) -> str:
    said = wording.size(now.tokens_a_call, now.prompt_tokens)
    before, after = (side.tokens_a_call if now.tokens_a_call else side.prompt_tokens for side in (was, now))
    if not before:
        return said
    times = after / before
    return f"{said} instead of {before:,} ({'about the same' if abs(times - 1) <= ABOUT_THE_SAME else f'{times:.1f}x'})"


def _whole_prompt(run: ShownRun) -> Iterator[Block]:
    view = run.view
    if view is None or view.winner is None or view.baseline is None:
        return
    heading = "== the winner's prompt (examples shown below) =="
    yield text(prompt_text(view.winner), heading=heading, exact=True, on="screen")
    yield run_tables.demos(view.winner["demos"])
    sides = compared_texts(view.baseline, view.winner)
    yield DiffBlock(*sides, f"== diff to {run.own} ==", run.own, "winner", on="screen")


# -- search, cost, what to do -----------------------------------------------------------------------------------------


def _counts(run: ShownRun) -> Iterator[Block]:
    result = run.result
    yield text(
        "trials: " + ", ".join(f"{n} {state}" for state, n in result.trials.items() if n or state != "incomplete"),
        result.failed_because and f"{counted(result.trials['failed'], 'candidate')} failed: {result.failed_because}",
        wording.cost_line(result),
        run_tables.proposer(result),
        run_tables.before_search(result),
        "use --anyway to search regardless" if wording.stopped_before_search(result) else "",
        on="screen",
    )


def _search(run: ShownRun) -> Iterator[Block]:
    yield text(run_tables.before_search(run.result), run_tables.proposer(run.result), on="page")
    if run.view is not None:
        yield run_tables.proposals(run.result, claims(run.view.history, run.view.id))


def _released(run: ShownRun) -> Iterator[Block]:
    result = run.result
    parameters = ", ".join(f"{name}={value}" for name, value in result.parameters.items())
    is_program = bool(parameters) and not is_version(result.release.path)  # its released state sets no parameters
    yield text(
        f"released ({wording.released(result, run.promoted)}): {result.release.path}",
        f"scored with {parameters}; set the same parameters in your program" if is_program else "",
        f"ledger head {result.ledger_head[:16]}",
        on="screen",
    )


def _next(run: ShownRun) -> Iterator[Block]:
    folder = held_folder(run.result)
    columns = (Column(""), Column("", "code"))
    yield text(f"the best found is in {folder}" if folder else "")
    steps = next_steps(run.result, run.db, run.view)
    yield table("", columns, steps, on="page")
    if run.view is not None and not run.brief:
        steps = [(what, command) for what, command in steps if "optimize show " not in command]
    yield table("next:", columns, steps, on="screen")


def _of_view(of: Callable[[RunView], Iterator[Block]]) -> Callable[[ShownRun], Iterator[Block]]:
    return lambda run: of(run.view) if run.view is not None else iter(())


SECTIONS: dict[str, tuple[str, Callable[[ShownRun], Iterator[Block]]]] = {
    "verdict": ("", _verdict),
    "result": ("Result on the sealed test", _scores),
    "yardsticks": ("", _yardsticks),
    "metrics": ("", breakdown_blocks.metrics),
    "fields": ("", breakdown_blocks.fields),
    "labels": ("", breakdown_blocks.answers),
    "unreadable replies": ("", breakdown_blocks.unreadable),
    "slices": ("", breakdown_blocks.slices),
    "retrieval": ("", breakdown_blocks.retrieval),
    "repeated answers": ("", breakdown_blocks.repeated),
    "variety": ("", breakdown_blocks.variety),
    "prompt": ("The prompt", _prompt),
    "whole prompt": ("", _whole_prompt),
    "gain": ("What carried the gain", _gain),
    "confidence": ("How sure it is, and how often it is right", breakdown_blocks.confidence),
    "judges": ("Can the judges be trusted?", breakdown_blocks.judges),
    "rows": ("Rows that changed", _of_view(run_tables.changed_rows)),
    "next": ("What to do next", _next),
    "counts": ("", _counts),
    "released": ("", _released),
    "search": ("The search", _search),
    "trials": ("", _of_view(trial_tables.trial_blocks)),
    "Pareto front": ("", _front),
    "spend": ("What it cost", _of_view(run_tables.spend)),
    "provenance": ("Where this comes from", _of_view(run_tables.provenance)),
}
"""By name the title on a page, and what fills it."""
