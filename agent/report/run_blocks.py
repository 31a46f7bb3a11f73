"""A finished search as sections of blocks: the one description that terminal, report, browser and notebook show."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from agent.ledger.connect import LEDGER, ledger_option
from agent.release.result import RunResult
from agent.report import answer_facts, change_facts, facts, run_tables
from agent.report.answer_facts import matrix, winner_name
from agent.report.blocks import (
    Block,
    ChartBlock,
    Column,
    DiffBlock,
    PageSection,
    ProseBlock,
    TableBlock,
    filled,
    plain,
    sentence,
    table,
    text,
)
from agent.report.excerpts import Excerpts, excerpts
from agent.report.facts import amount, bracketed, gain, points, promotion
from agent.report.next_steps import held_folder, next_steps
from agent.report.terminal import lines_of
from agent.report.tool_facts import compared_texts, whole_prompt
from agent.report.view import RunView
from agent.results.breakdown import LabelReport
from agent.task.words import counted

SCREEN = (
    *("verdict", "result", "prompt", "counts", "yardsticks", "metrics", "labels", "unreadable replies", "slices"),
    *(
        "retrieval",
        "repeated answers",
        "variety",
        "judges",
        "confidence",
        "gain",
        "Pareto front",
        "whole prompt",
        "spend",
    ),
    *("released", "next"),
)
"""The sections of a screen, in their order there."""
LONG = ("Pareto front", "slices", "variety", "repeated answers", "gain", "metrics", "yardsticks")
"""Left to `optimize show` where the end of a run does not fit a screen, the first to go first."""
MOST_LINES = 64
PROMPT_LINES, MOST_LABELS, MOST_CONFUSIONS = 12, 8, 5
"""Shown at the end of a run; `optimize show` shows all."""
PROMPT_LETTERS = 12_000
"""Characters of a prompt that a page compares and shows."""
LINE = 76


def screen_lines(result: RunResult, view: RunView | None = None, brief: bool = False) -> list[str]:
    """A result as the lines of a screen: the verdict first, what to type next last.

    Args:
        result: of the run.
        view: its run in the ledger, for intervals and texts; None: the result alone.
        brief: the end of a run, of which long sections are left to `optimize show`.
    """
    parts = {section.name: lines_of([section]) for section in run_sections(result, view, brief, SCREEN)}
    hidden: list[str] = []
    for name in LONG if brief else ():
        if sum(map(len, parts.values())) <= MOST_LINES:
            break
        hidden += [name] * bool(parts.pop(name, None))
    if hidden:
        parts["released"] = ["", f"hidden here: {', '.join(hidden)}; optimize show has them", *parts["released"][1:]]
    return [line for lines in parts.values() for line in lines]


def run_sections(
    result: RunResult, view: RunView | None = None, brief: bool = False, names: Iterable[str] = ()
) -> list[PageSection]:
    """The sections of a result that have content.

    Args:
        result, view, brief: as in `screen_lines`.
        names: of the sections, in their order; by default that of a page, where one without a title belongs to the one
            before.
    """
    shown = _Shown(result, view, brief)
    made = [(name, *SECTIONS[name]) for name in names or SECTIONS]
    return [section for name, title, of in made if (section := PageSection(name, title, filled(*of(shown))))]


class _Shown:
    """What the sections are made of: a result, its run in the ledger where there is one, and texts of it."""

    def __init__(self, result: RunResult, view: RunView | None, brief: bool) -> None:
        self.result, self.view, self.brief = result, view, brief
        self.texts = Excerpts() if view is None else excerpts(view.history, view.run, result)
        if view is not None and not view.shows_rows:
            self.texts = replace(self.texts, replies=(), prompt="")
        self.promoted = view.promoted if view is not None else None

    @property
    def db(self) -> Path:
        return LEDGER if self.result.ledger == Path() else self.result.ledger

    @property
    def own(self) -> facts.BaselineWords:
        return facts.baseline_words(self.result)

    @property
    def sides(self) -> Sequence[tuple[Any, str]]:
        return facts.sides(self.result)

    @property
    def best(self) -> str:
        return self.sides[-1][1]

    def chart(self, name: str, title: str, numbers: TableBlock, **more: Any) -> Block:
        """The chart of this name of `charts`; its table alone where there is no ledger."""
        if self.view is None:
            return numbers
        from agent.report import charts

        return ChartBlock(name, title, partial(getattr(charts, name), self.view), numbers, **more)


# -- verdict and scores -----------------------------------------------------------------------------------------------


def _verdict(run: _Shown) -> Iterator[Block]:
    result = run.result
    certainty = facts.certainty(result)
    yield text(f"{facts.verdict(result)}{f'  ({certainty})' if certainty else ''}", strong=True, on="screen")
    yield text(facts.meaning(result), on="page")
    absolute, alike = answer_facts.in_absolute_terms(result), answer_facts.hardly_varied(result)
    ended = result.search_ended and f"the search ended before its plan was done: {result.search_ended}"
    yield text(
        absolute and f"in absolute terms: {absolute}",
        alike and f"note: {alike}",
        facts.recorded(result),
        facts.untested(result),
        change_facts.to_show(result),
        ended,
        result.overspent and f"the run {result.overspent}",
    )
    promoted = run.promoted
    yield text(f"{facts.ending(result, promoted)} It lies in {result.release.path}.", on="page")
    own = "the prompt of the old model" if result.migration else "your own prompt"
    heading = "the best found was held back:" if promoted else f"the best found is held back, and {own} is released:"
    yield text(*facts.held_back(result), heading=heading)


def _scores(run: _Shown) -> Iterator[Block]:
    result, lift = run.result, run.result.lift
    intervals = run.view.sealed if run.view else {}
    rows: list[Sequence[Any]] = []
    for side, name in run.sides:
        ends = intervals[side][1:] if side in intervals else (None, None)
        sealed = points(facts.sealed_score(result, side))
        rows.append((name, sealed, run_tables.interval(*ends), *map(points, result.dev(side))))
    columns = ("prompt", "sealed test #", "95 % CI #", "dev #", "dev, corrected #")
    if result.is_own:
        numbers = table("Scores, 0 to 100", columns[:-1], [row[:-1] for row in rows])
        yield run.chart("sealed", "Your prompt on the sealed test", numbers, is_open=True)
        yield text(_design(run), on="screen")
        return
    rows.append(("difference", gain(lift.diff), facts.gain_interval(lift.ci95), "", ""))
    corrected = facts.uncorrected(result) or "corrected takes that out on average, give or take 6 to 10 points"
    numbers = table(
        "Scores, 0 to 100",
        columns,
        rows,
        note=f"{facts.tally(lift.wins, lift.losses, lift.ties)} of {lift.n} sealed rows",
        explained=f"Dev scores chose the prompt, so they flatter it; {corrected}. Only the sealed test counts.",
    )
    yield run.chart("sealed", "Both prompts on the sealed test, and their difference", numbers, is_open=True)
    rows_seen = result.baseline.dev_rows
    yield text(facts.uncorrected(result), _design(run), on="screen")
    yield text(
        f"{run.own.phrase} was compared on {rows_seen} dev rows, which was enough" if rows_seen else "",
        facts.cheaper(result),
        facts.uneven(result),
    )


def _yardsticks(run: _Shown) -> Iterator[Block]:
    if all_ := run.result.yardsticks:
        rows = [(one.name, f"{points(one.test)}{bracketed(one.ci95)}", points(one.dev)) for one in all_]
        title = f"Without a language model, trained on {all_[-1].trained_on} rows"
        note = sentence(facts.against_yardsticks(run.result))
        yield table(title, ("method", "sealed test (95 % CI) #", "dev #"), rows, note=note)


def _compared(run: _Shown, first: Sequence[str | Column], rows: Sequence[tuple[Any, Sequence[Any]]]) -> dict[str, Any]:
    """Columns and rows of a table with a mean of each side and their difference."""
    is_compared = len(run.sides) > 1
    columns = [*first, *(f"{name} (95 % CI) #" for _, name in run.sides)]
    columns += ["difference (95 % CI) #"] * is_compared
    cells = []
    for part, begin in rows:
        means = [f"{points(part.side(side).mean)}{bracketed(part.side(side).ci95)}" for side, _ in run.sides]
        cells.append((*begin, *means, *[gain(part.diff, part.diff_ci95)] * is_compared))
    return {"columns": columns, "rows": cells}


def _metrics(run: _Shown) -> Iterator[Block]:
    parts = facts.metric_parts(run.result)
    begin = [(part, (facts.metric_name(part), f"{part.weight:.2f}" if part.weight else "")) for part in parts]
    made = _compared(run, ("metric", Column("weight", "number", rank=1)), begin)
    lost = [[part.side(side).unscored for side, _ in run.sides] for part in parts]
    if any(map(any, lost)):
        made["columns"].append("unscored #")
        made["rows"] = [(*row, " and ".join(map(str, n))) for row, n in zip(made["rows"], lost, strict=True)]
    readable = "readable: replies that could be read and kept the limits of their fields."
    yield table("By metric, on the sealed test", **made, explained=readable)


def _slices(run: _Shown) -> Iterator[Block]:
    for cut in run.result.slices if run.view is None or run.view.shows_rows else ():
        first = (Column(cut.slice, floor=12, wraps=True), "rows #")
        made = _compared(run, first, [(part, (part.value, part.winner.n)) for part in cut.groups])
        yield table(f"By {cut.slice}", **made, note=sentence(facts.gaps(run.result, cut)))


def _gain(run: _Shown) -> Iterator[Block]:
    rows = [(row.part, *facts.carried(row)) for row in run.result.attribution]
    columns = ("part", "points #", "95 % CI #", "how it is known")
    note = f"Points that are lost with {run.own.phrase}'s part in its place."
    numbers = table("What carried the gain", columns, rows, note=note)
    yield run.chart("attribution", "What each part carries", numbers)


def _front(run: _Shown) -> Iterator[Block]:
    front = run.result.pareto
    trials = run.view.history.trials(run.view.id) if run.view else []
    numbers = {trial["candidate_id"]: trial["number"] for trial in trials}
    size_name, sizes = facts.sizes(front)
    rows = []
    for row, size in zip(front, sizes, strict=True):
        number = numbers.get(row.candidate_id)
        name = row.candidate_id if number is None else f"trial {number}" + f", {run.own.name}" * (number == 0)
        cells = (points(row.dev), f"{size:,}", amount(row.usd_per_1000), facts.latency(row.latency_s))
        rows.append((name, "yes" if row.chosen else "", *cells))
    columns = ("prompt", "chosen", "dev #", f"{size_name} #", "$ per 1,000 calls #", "latency #")
    title = "The Pareto front: nothing beats these in score, prompt length and cost"
    yield run.chart("pareto", "Dev score against cost", table(title, columns, rows))


def _confidence(run: _Shown) -> Iterator[Block]:
    found, said = run.result.calibration, facts.confidence(run.result)
    if found is None:
        return
    yield text(*said, on="screen")
    rows = [(run_tables.interval(b.low, b.high), b.n, points(b.confidence), points(b.right)) for b in found.bins]
    columns = ("confidence", "rows #", "mean confidence #", "right #")
    title, note = "Right answers by confidence, on the sealed test, 0 to 100", " ".join(map(sentence, said))
    yield run.chart("reliability", "Right answers by confidence", table(title, columns, rows, note=note, on="page"))


def _judges(run: _Shown) -> Iterator[Block]:
    rows = [
        (", ".join(judge.models), judge.metric, judge.mode, facts.judge_trust(judge), facts.judge_order(judge))
        for judge in run.result.judges
    ]
    yield table("The judges that the score rests on", ("judge", "metric", "mode", "trust ~", "order ~"), rows)


def _repeated(run: _Shown) -> Iterator[Block]:
    title, *lines = facts.steadiness(run.result) or [""]
    yield text(*lines, heading=title)


# -- answers ----------------------------------------------------------------------------------------------------------


def _answers(run: _Shown) -> Iterator[Block]:
    for report in run.result.by_answer:
        yield _by_label(run, report)
        made, said = matrix(report), answer_facts.confusions(report.winner)
        most = MOST_CONFUSIONS if run.brief else len(said)
        rest = f"{len(said) - most} more" if len(said) > most else ""
        worst = text(*said[:most], rest, heading=f"The worst confusions with {winner_name(run.result)}", folded=True)
        if not made.is_clean:
            yield _matrix(run, made, worst)


def _unreadable(run: _Shown) -> Iterator[Block]:
    if said_of := answer_facts.unreadable(run.result):
        texts = run.texts
        quoted = [f"  {line}" for line in texts.fenced().split("\n")] if texts.replies else []
        yield text(said_of + f"; some with {texts.of}, untrusted text:" * bool(quoted), *quoted, on="screen")
        quotes = [f"row {reply.row}: {reply.text}" for reply in texts.replies]
        heading = f"Some of them, with {texts.of}: text of the model, not to be trusted"
        yield text(said_of, on="page")
        yield text(*quotes, heading=heading, folded=True, exact=True, on="page")


def _by_label(run: _Shown, report: LabelReport) -> TableBlock:
    pairs = answer_facts.label_rows(report)
    left = len(pairs) - MOST_LABELS if run.brief else 0
    pairs = answer_facts.worst_first(pairs)[:MOST_LABELS] if left > 0 else pairs
    rows = []
    for own, best in pairs:
        each = (own,) if run.result.is_own else (own, best)
        rows.append((best.label, best.support, *(points(o.precision) for o in each), *(points(o.recall) for o in each)))
    heads = [f"{what}, {name} #" for what in ("precision", "recall") for _, name in run.sides]
    explained = "Precision: of the rows that were answered with the label, those where it is right. Recall: of the "
    explained += "rows whose right answer it is, those that were answered with it."
    return table(
        f"By label of {report.field}, on the sealed test",
        ("label", "rows #", *heads),
        rows,
        note=f"{left} more labels, of which fewer rows are missed" if left > 0 else "",
        explained=explained,
    )


def _matrix(run: _Shown, made: answer_facts.Matrix, worst: ProseBlock) -> TableBlock:
    shades = tuple(("", *(cell.style for cell in cells), "") for _, cells, _ in made.lines)
    title = f"Right answers ({made.field}) against the answers with {winner_name(run.result)}, in rows"
    columns = ("right answer", *(f"{column} #" for column in made.columns), "all #")
    rows = [(label, *(cell.rows or "." for cell in cells), support) for label, cells, support in made.lines]
    left = f"The labels that lost most rows; {made.left_out} more are left out." if made.left_out else ""
    return table(title, columns, rows, note=left, shades=shades, instead=worst)


def _design(run: _Shown) -> str:
    winner = run.result.winner
    looks_up = f"{facts.looks_up(winner.passages)}, " if winner.passages else ""
    demos = f"{winner.n_examples} examples{facts.picked(winner.picks)}"
    design = f"{winner.technique}, {winner.format}, {demos}, {looks_up}{facts.prompt_size(run.result)}"
    return f"{run.best}: {design} ({winner.candidate_id})"


# -- the prompt -------------------------------------------------------------------------------------------------------


def _prompt(run: _Shown) -> Iterator[Block]:
    result = run.result
    yield text(_design(run), on="page")
    yield text(facts.calibration(result), on="page")
    yield text(*change_facts.changes(result), heading="what changed:")
    if run.brief and run.texts.prompt and not result.is_own:
        lines = plain(run.texts.prompt).splitlines()
        left = counted(len(lines) - PROMPT_LINES, "more line")
        cut = [f"  {line if len(line) <= LINE else f'{line[: LINE - 1]}…'}" for line in lines[:PROMPT_LINES]]
        whole = f"the best found (whole: optimize show {result.run_id}{ledger_option(run.db)}):"
        yield text(*cut, f"  ... {left}" if len(lines) > PROMPT_LINES else "", heading=whole, exact=True, on="screen")
    if run.view is not None:
        yield from _prompts_of_page(run, run.view)


def _prompts_of_page(run: _Shown, view: RunView) -> Iterator[Block]:
    own, best = view.baseline, view.winner
    assert own is not None
    assert best is not None
    whole = [facts.cut(whole_prompt(candidate), PROMPT_LETTERS) for candidate in (own, best)]
    name = view.own.name.capitalize()
    if run.result.is_own:
        stays = facts.only_scored(run.result)
        yield text("Your prompt stays." if stays else "The best found is your own prompt.", on="page")
        yield text(whole[0], heading=f"{name} in full", exact=True, on="page")
        return
    sides = [facts.cut(side, PROMPT_LETTERS) for side in compared_texts(own, best)]
    yield DiffBlock(sides[0], sides[1], old_name=view.own.short, new_name="the best found", on="page")
    yield text(whole[1], heading="The best found in full", exact=True, on="page")
    yield text(whole[0], heading=f"{name} in full", exact=True, folded=True, on="page")


def _whole_prompt(run: _Shown) -> Iterator[Block]:
    if run.brief or run.view is None or run.view.winner is None or run.view.baseline is None:
        return
    winner, own = run.view.winner, run.own
    sides = compared_texts(run.view.baseline, winner)
    heading = "== the winner's prompt (examples shown below) =="
    yield text(facts.prompt_text(winner), heading=heading, exact=True, on="screen")
    yield run_tables.demos(winner["demos"])
    yield DiffBlock(sides[0], sides[1], f"== diff to {own.phrase} ==", own.name, "winner", on="screen")


# -- search, cost, what to do -----------------------------------------------------------------------------------------


def _counts(run: _Shown) -> Iterator[Block]:
    result, cached, tokens = run.result, run.result.calls["cached"], run.result.tokens
    kept = " (with those of replies from the ledger)" * bool(cached)
    yield text(
        "trials: " + ", ".join(f"{n} {state}" for state, n in result.trials.items() if n or state != "incomplete"),
        result.failed_because and f"{counted(result.trials['failed'], 'candidate')} failed: {result.failed_because}",
        f"calls: {', '.join(f'{role} {n}' for role, n in result.calls_made.items())}, from the ledger {cached}",
        f"cost: {tokens.prompt + tokens.completion:,} tokens{kept}, "
        f"{facts.spent(result.cost_usd, result.unpriced, result.lost_usd)}, {result.seconds:.0f} s",
        change_facts.proposer(result),
        _before(result),
        "--anyway searches all the same" if facts.stopped_before_search(result) else "",
        on="screen",
    )


def _before(result: RunResult) -> str:
    said = facts.before_search(result)
    return said and f"before the search: {said}"


def _search(run: _Shown) -> Iterator[Block]:
    yield text(_before(run.result), change_facts.proposer(run.result), on="page")
    if run.view is not None:
        yield run_tables.proposals(run.view)


def _trials(run: _Shown) -> Iterator[Block]:
    if run.view is not None:
        yield from run_tables.trial_blocks(run.view)


def _spend(run: _Shown) -> Iterator[Block]:
    if run.view is not None and not run.brief:
        yield run_tables.spend(run.view)


def _provenance(run: _Shown) -> Iterator[Block]:
    if run.view is not None:
        yield from run_tables.provenance(run.view)


def _released(run: _Shown) -> Iterator[Block]:
    result = run.result
    promoted = run.promoted
    own = "the prompt of the old model" if result.migration else "your own prompt"
    which = "the best found" if promoted or result.decision == "promote" else own
    parameters = ", ".join(f"{name}={value}" for name, value in result.parameters.items())
    is_program = bool(parameters) and not facts.ships_prompt(result)  # its released state sets no parameters
    yield text(
        f"released ({which}{f', {promotion(promoted)}' if promoted else ''}): {result.release.path}",
        f"scored with {parameters}; give the same to the model of your program" if is_program else "",
        f"ledger head {result.ledger_head[:16]}",
        on="screen",
    )


def _next(run: _Shown) -> Iterator[Block]:
    folder = held_folder(run.result)
    yield text(f"the best found lies in {folder}" if folder else "")
    texts = run.texts
    made = next_steps(run.result, run.db, run.promoted, texts.own_function, texts.task_words, texts.to_label)
    is_shown = run.view is not None and not run.brief
    for surface in ("screen", "page"):
        steps = [step for step in made if not (is_shown and surface == "screen" and "optimize show " in step.command)]
        rows = [(step.what, step.command) for step in steps]
        yield table("next:" if surface == "screen" else "", (Column(""), Column("", "code")), rows, on=surface)


def _lines(heading: str, of: Callable[[RunResult], Sequence[str]]) -> Callable[[_Shown], Iterator[Block]]:
    return lambda run: iter([text(*of(run.result), heading=heading)])


SECTIONS: dict[str, tuple[str, Callable[[_Shown], Iterator[Block]]]] = {
    "verdict": ("", _verdict),
    "result": ("Result on the sealed test", _scores),
    "yardsticks": ("", _yardsticks),
    "metrics": ("", _metrics),
    "labels": ("", _answers),
    "unreadable replies": ("", _unreadable),
    "slices": ("", _slices),
    "retrieval": ("", _lines("", facts.retrieval)),
    "repeated answers": ("", _repeated),
    "variety": ("", _lines("", facts.variety)),
    "prompt": ("The prompt", _prompt),
    "whole prompt": ("", _whole_prompt),
    "gain": ("What carried the gain", _gain),
    "confidence": ("How sure it is, and how often it is right", _confidence),
    "judges": ("Can the judges be trusted?", _judges),
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
