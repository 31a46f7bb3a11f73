"""A finished search as sections of blocks, shared by terminal, report, web page and notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from agent.ledger.connect import ledger_option
from agent.ledger.trail import claims
from agent.models.recorded import note
from agent.release.result import RunResult
from agent.report import breakdown_blocks, findings, prompt_texts, run_tables, wording
from agent.report.blocks import Block, Column, DiffBlock, PageSection, filled, sentence, table, text
from agent.report.breakdown_blocks import ShownRun
from agent.report.next_steps import held_folder, next_steps
from agent.report.prompt_texts import compared_texts, whole_prompt
from agent.report.terminal import lines_of
from agent.report.view import RunView
from agent.report.wording import amount, bracketed, gain, points, promotion
from agent.safe_text import counted, plain

SCREEN = (
    *("verdict", "result", "prompt", "counts", "yardsticks", "metrics", "labels", "unreadable replies", "slices"),
    *("retrieval", "repeated answers", "variety", "judges", "confidence", "gain", "Pareto front", "whole prompt"),
    *("spend", "released", "next"),
)
"""Sections of a screen in order."""
LONG = ("Pareto front", "slices", "variety", "repeated answers", "gain", "metrics", "yardsticks")
"""Sections that the summary of a run omits if it does not fit a screen, first to go first."""
MOST_LINES = 64
PROMPT_LINES = 12
"""Maximum at the end of a run; `optimize show` has no limit."""
PROMPT_LETTERS = 12_000
"""Maximum length of a prompt compared and shown on a page."""
LINE = 76


def screen_sections(result: RunResult, view: RunView | None = None, brief: bool = False) -> list[PageSection]:
    """Return the sections of a result for a screen, verdict first, next command last.

    Args:
        view: its run in the ledger, for intervals and texts; None: the result alone.
        brief: the summary at the end of a run, without the long sections of `optimize show`.
    """
    sections = {section.name: section for section in run_sections(result, view, brief, SCREEN)}
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
    """Return the non-empty sections of a result.

    Args:
        result, view, brief: as in `screen_sections`.
        names: of the sections, in order; by default those of a page, where an untitled one belongs to the one
            before.
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
    absolute, alike = findings.in_absolute_terms(result), findings.hardly_varied(result)
    ended = result.search_ended and f"the search ended early: {result.search_ended}"
    yield text(
        absolute and f"in absolute terms: {absolute}",
        alike and f"note: {alike}",
        note(result.model),
        wording.untested(result),
        findings.to_show(result),
        ended,
        result.overspent and f"the run {result.overspent}",
    )
    promoted = run.promoted
    yield text(f"{wording.ending(result, promoted)} Path: {result.release.path}.", on="page")
    own = "the prompt of the old model" if result.migration else "your own prompt"
    heading = "the best found was held back:" if promoted else f"the best found is held back, and {own} is released:"
    yield text(*wording.held_back(result), heading=heading)


def _scores(run: ShownRun) -> Iterator[Block]:
    result, lift = run.result, run.result.lift
    intervals = run.view.sealed if run.view else {}
    rows: list[Sequence[Any]] = []
    for side, name in run.sides:
        ends = intervals[side][1:] if side in intervals else (None, None)
        sealed = points(wording.sealed_score(result, side))
        rows.append((name, sealed, run_tables.interval(*ends), *map(points, result.dev(side))))
    columns = ("prompt", "sealed test #", "95 % CI #", "dev #", "dev, corrected #")
    if result.is_own:
        numbers = table("Scores, 0 to 100", columns[:-1], [row[:-1] for row in rows])
        yield run.chart("sealed", "Your prompt on the sealed test", numbers, is_open=True)
        yield text(_design(run), on="screen")
        return
    rows.append(("difference", gain(lift.diff), wording.gain_interval(lift.ci95), "", ""))
    corrected = wording.uncorrected(result) or "the corrected score removes this bias on average, within 6 to 10 points"
    numbers = table(
        "Scores, 0 to 100",
        columns,
        rows,
        note=f"{wording.tally(lift.wins, lift.losses, lift.ties)} of {lift.n} sealed rows",
        explained=f"Dev scores chose the prompt, so they are biased upwards; {corrected}. Only the sealed test counts.",
    )
    yield run.chart("sealed", "Both prompts on the sealed test, and their difference", numbers, is_open=True)
    rows_seen = result.baseline.dev_rows
    yield text(wording.uncorrected(result), _design(run), on="screen")
    yield text(
        f"{run.baseline_words.phrase} was compared on {rows_seen} dev rows, which were enough" if rows_seen else "",
        wording.cheaper(result),
        wording.uneven(result),
    )


def _yardsticks(run: ShownRun) -> Iterator[Block]:
    if all_ := run.result.yardsticks:
        rows = [(one.name, f"{points(one.test)}{bracketed(one.ci95)}", points(one.dev)) for one in all_]
        title = f"Without a language model, trained on {all_[-1].trained_on} rows"
        note = sentence(wording.against_yardsticks(run.result))
        yield table(title, ("method", "sealed test (95 % CI) #", "dev #"), rows, note=note)


def _gain(run: ShownRun) -> Iterator[Block]:
    rows = [(row.part, *findings.carried(row)) for row in run.result.attribution]
    columns = ("part", "points #", "95 % CI #", "how it is known")
    note = f"Points lost when the part of {run.baseline_words.phrase} replaces it."
    numbers = table("What carried the gain", columns, rows, note=note)
    yield run.chart("attribution", "What each part carries", numbers)


def _front(run: ShownRun) -> Iterator[Block]:
    front = run.result.pareto
    trials = run.view.history.trials(run.view.id) if run.view else []
    numbers = {trial["candidate_id"]: trial["number"] for trial in trials}
    size_name, sizes = findings.sizes(front)
    rows = []
    for row, size in zip(front, sizes, strict=True):
        number = numbers.get(row.candidate_id)
        name = (
            row.candidate_id if number is None else f"trial {number}" + f", {run.baseline_words.name}" * (number == 0)
        )
        seconds = "-" if row.latency_s is None else f"{row.latency_s:.2f} s"
        cells = (points(row.dev), f"{size:,}", amount(row.usd_per_1000), seconds)
        rows.append((name, "yes" if row.chosen else "", *cells))
    columns = ("prompt", "chosen", "dev #", f"{size_name} #", "$ per 1,000 calls #", "latency #")
    title = "The Pareto front: nothing beats these in score, prompt length and cost"
    yield run.chart("pareto", "Dev score against cost", table(title, columns, rows))


def _design(run: ShownRun) -> str:
    winner = run.result.winner
    looks_up = f"{findings.looks_up(winner.passages)}, " if winner.passages else ""
    demos = f"{winner.n_examples} examples{findings.picked(winner.picks)}"
    design = f"{winner.technique}, {winner.format}, {demos}, {looks_up}{findings.prompt_size(run.result)}"
    return f"{run.best}: {design} ({winner.candidate_id})"


# -- the prompt -------------------------------------------------------------------------------------------------------


def _prompt(run: ShownRun) -> Iterator[Block]:
    result = run.result
    yield text(_design(run), on="page")
    yield text(wording.calibration(result), on="page")
    yield text(*findings.changes(result), heading="what changed:")
    if run.brief and run.texts.prompt and not result.is_own:
        lines = plain(run.texts.prompt).splitlines()
        left = counted(len(lines) - PROMPT_LINES, "more line")
        cut = [f"  {line if len(line) <= LINE else f'{line[: LINE - 1]}…'}" for line in lines[:PROMPT_LINES]]
        whole = f"the best found (whole: optimize show {result.run_id}{ledger_option(run.db)}):"
        yield text(*cut, f"  ... {left}" if len(lines) > PROMPT_LINES else "", heading=whole, exact=True, on="screen")
    if run.view is not None:
        yield from _prompts_of_page(run, run.view)


def _prompts_of_page(run: ShownRun, view: RunView) -> Iterator[Block]:
    own, best = view.baseline, view.winner
    assert own is not None
    assert best is not None
    whole = [wording.cut(whole_prompt(candidate), PROMPT_LETTERS) for candidate in (own, best)]
    name = view.baseline_words.name.capitalize()
    if run.result.is_own:
        stays = wording.only_scored(run.result)
        yield text("Your prompt stays." if stays else "The best found is your own prompt.", on="page")
        yield text(whole[0], heading=f"{name} in full", exact=True, on="page")
        return
    sides = [wording.cut(side, PROMPT_LETTERS) for side in compared_texts(own, best)]
    yield DiffBlock(sides[0], sides[1], old_name=view.baseline_words.short, new_name="the best found", on="page")
    yield text(whole[1], heading="The best found in full", exact=True, on="page")
    yield text(whole[0], heading=f"{name} in full", exact=True, folded=True, on="page")


def _rows(run: ShownRun) -> Iterator[Block]:
    if run.view is not None:
        yield from run_tables.changed_rows(run.view)


def _whole_prompt(run: ShownRun) -> Iterator[Block]:
    if run.brief or run.view is None or run.view.winner is None or run.view.baseline is None:
        return
    winner, own = run.view.winner, run.baseline_words
    sides = compared_texts(run.view.baseline, winner)
    heading = "== the winner's prompt (examples shown below) =="
    yield text(prompt_texts.prompt_text(winner), heading=heading, exact=True, on="screen")
    yield from run_tables.demos(winner["demos"])
    yield DiffBlock(sides[0], sides[1], f"== diff to {own.phrase} ==", own.name, "winner", on="screen")


# -- search, cost, what to do -----------------------------------------------------------------------------------------


def _counts(run: ShownRun) -> Iterator[Block]:
    result, cached, tokens = run.result, run.result.calls["cached"], run.result.tokens
    kept = " (cached replies included)" * bool(cached)
    yield text(
        "trials: " + ", ".join(f"{n} {state}" for state, n in result.trials.items() if n or state != "incomplete"),
        result.failed_because and f"{counted(result.trials['failed'], 'candidate')} failed: {result.failed_because}",
        f"calls: {', '.join(f'{role} {n}' for role, n in result.calls_made.items())}, from the ledger {cached}",
        f"cost: {tokens.prompt + tokens.completion:,} tokens{kept}, "
        f"{wording.spent(result.cost_usd, result.unpriced, result.lost_usd)}, {result.seconds:.0f} s",
        findings.proposer(result),
        _before(result),
        "use --anyway to search regardless" if wording.stopped_before_search(result) else "",
        on="screen",
    )


def _before(result: RunResult) -> str:
    said = findings.before_search(result)
    return said and f"before the search: {said}"


def _search(run: ShownRun) -> Iterator[Block]:
    yield text(_before(run.result), findings.proposer(run.result), on="page")
    if run.view is not None:
        yield run_tables.proposals(run.result, claims(run.view.history, run.view.id))


def _trials(run: ShownRun) -> Iterator[Block]:
    if run.view is not None:
        yield from run_tables.trial_blocks(run.view)


def _spend(run: ShownRun) -> Iterator[Block]:
    if run.view is not None and not run.brief:
        yield run_tables.spend(run.view)


def _provenance(run: ShownRun) -> Iterator[Block]:
    if run.view is not None:
        yield from run_tables.provenance(run.view)


def _released(run: ShownRun) -> Iterator[Block]:
    result = run.result
    promoted = run.promoted
    own = "the prompt of the old model" if result.migration else "your own prompt"
    which = "the best found" if promoted or result.decision == "promote" else own
    parameters = ", ".join(f"{name}={value}" for name, value in result.parameters.items())
    is_program = bool(parameters) and not wording.ships_prompt(result)  # its released state sets no parameters
    yield text(
        f"released ({which}{f', {promotion(promoted)}' if promoted else ''}): {result.release.path}",
        f"scored with {parameters}; set the same parameters in your program" if is_program else "",
        f"ledger head {result.ledger_head[:16]}",
        on="screen",
    )


def _next(run: ShownRun) -> Iterator[Block]:
    folder = held_folder(run.result)
    yield text(f"the best found is in {folder}" if folder else "")
    made = next_steps(run.result, run.db, run.promoted, run.texts)
    is_shown = run.view is not None and not run.brief
    for surface in ("screen", "page"):
        steps = [step for step in made if not (is_shown and surface == "screen" and "optimize show " in step.command)]
        yield table("next:" if surface == "screen" else "", (Column(""), Column("", "code")), steps, on=surface)


SECTIONS: dict[str, tuple[str, Callable[[ShownRun], Iterator[Block]]]] = {
    "verdict": ("", _verdict),
    "result": ("Result on the sealed test", _scores),
    "yardsticks": ("", _yardsticks),
    "metrics": ("", breakdown_blocks.metrics),
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
    "rows": ("Rows that changed", _rows),
    "next": ("What to do next", _next),
    "counts": ("", _counts),
    "released": ("", _released),
    "search": ("The search", _search),
    "trials": ("", _trials),
    "Pareto front": ("", _front),
    "spend": ("What it cost", _spend),
    "provenance": ("Where this comes from", _provenance),
}
"""By name the title on a page, and what fills it."""
