"""Rows with the outcomes of two prompts: the test rows of a run, and two compared runs or trials."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from agent.errors import InputError
from agent.ledger.query import is_erased
from agent.prompt.template import label_text
from agent.report import terms, wording
from agent.report.blocks import (
    Block,
    Column,
    DiffBlock,
    PageCell,
    PageSection,
    ProseBlock,
    cells,
    group,
    line,
    listing,
    sentence,
    soft,
    strong,
)
from agent.report.compare import ComparedPrompt, CompareResult, compare, compared_prompt
from agent.report.page_blocks import Button, FormBlock, FormField, TermsBlock
from agent.report.prompt_texts import compared_texts
from agent.report.run_tables import fields
from agent.report.trial_tables import PLAIN
from agent.report.view import EQUAL, RowPair, RunView, row_pairs
from agent.report.web import parts
from agent.report.web.page_request import CachedRunView, Page, PageRequest, sql_link
from agent.report.web.parts import address, link, section
from agent.stats.figures import gain, points, tally
from agent.stats.intervals import mean_ci
from agent.types import NO_CALL, SplitName

FILTERS = {
    "all": "all rows",
    "won": "won",
    "lost": "lost",
    "tied": "tied",
    "unscored": "without a score",
    "unreadable": "failed to parse",
}
"""Filters of rows and their words; won and lost are from the second prompt's view."""
NO_ROWS = "Inputs and labels are not shown: the task's files are gone or have changed since the run."
SEALED = "These rows were used once, at the end. They cannot measure a prompt that was tuned on them."


def _verdict(pair: RowPair) -> str:
    if pair.change is None:
        return "unscored"
    return "tied" if abs(pair.change) <= EQUAL else "won" if pair.change > 0 else "lost"


def _passes(pair: RowPair, name: str) -> bool:
    is_unreadable = name == "unreadable" and pair.two is not None and bool(pair.two["error"])
    return name in ("all", _verdict(pair)) or is_unreadable


def _holds(pair: RowPair, text: str) -> bool:
    texts = [pair.example_id, *pair.inputs.values(), *map(label_text, pair.labels.values())]
    texts += [f"{side['reply']}\n{side.get('trace', '')}" for side in (pair.one, pair.two) if side is not None]
    return any(text in one.casefold() for one in texts)


def filtered(
    request: PageRequest, pairs: Sequence[RowPair], sides: Sequence[str]
) -> tuple[dict[str, Any], list[Block]]:
    """Return data and blocks of a page of the rows that match filter and search."""
    text = request.arg("text").casefold()
    name = request.arg("rows") if request.arg("rows") in FILTERS else "all"
    rows, place = request.paged([pair for pair in pairs if _passes(pair, name) and _holds(pair, text)])
    counts = {each: sum(_passes(pair, each) for pair in pairs) for each in FILTERS}
    start = "&".join(filter(None, (request.query("rows"), "rows=")))
    links = [
        PageCell(f"{words} ({counts[each]})", f"?{start}{each}#rows", "current" if each == name else "")
        for each, words in FILTERS.items()
        if counts[each] or each in ("all", name)
    ]
    blocks = [row_block(pair, sides) for pair in rows] or [line("No such row.")]
    return {"rows": rows, "place": place}, [parts.links(links), *blocks, parts.pager(place, "row", len(pairs))]


def row_block(pair: RowPair, sides: Sequence[str]) -> Block:
    """Return a row with the outcomes of one or two prompts; `sides`: their names."""
    answers = [_answer(side, name) for side, name in zip((pair.one, pair.two), sides, strict=False)]
    return group(
        line(pair.example_id, " ", _badge(pair) if len(sides) > 1 else "", level=3),
        *parts.named(pair.inputs),
        *parts.named(pair.labels, "right ", "strong"),
        group(*answers, look="pair"),
        tag="article",
        look="row",
    )


def _badge(pair: RowPair) -> PageCell:
    verdict = _verdict(pair)
    if verdict == "unscored":
        return PageCell("no score", tag=PLAIN)
    change = "" if verdict == "tied" else f" {gain(pair.change)}"
    return PageCell(f"{verdict}{change}", tag={"won": "good", "lost": "bad"}.get(verdict, PLAIN))


def _answer(one: Mapping[str, Any] | None, name: str) -> Block:
    if one is None:
        head = line(name, " ", PageCell("-", tag=PLAIN), level=4)
        return group(head, line("not asked about this row", look="soft"), look="answer")
    score = {1: "good", 0: "bad"}.get(one["value"], PLAIN)
    reasons = [(metric, reason) for metric, _, reason in one["scores"] if reason and reason != one["error"]]
    trace = one.get("trace", "")  # of an agent, whose last reply is not its answer
    said = (fields(one["fields"]) if trace else one["reply"]) or ("(no answer)" if trace else "(no reply)")
    return group(
        line(name, " ", PageCell(points(one["value"]), tag=score), level=4),
        line(said, look="text"),
        line(one["error"], look="text bad") if one["error"] else None,
        ProseBlock((trace,), heading="What was done", folded=True, exact=True) if trace else None,
        *(line(f"{metric}: {reason}", look="soft text") for metric, reason in reasons),
        line(link("its call", "call", one["call_key"]), look="soft") if one["call_key"] not in ("", NO_CALL) else None,
        look="answer",
    )


def sealed(request: PageRequest) -> Page:
    """Return a page of the test rows that match filter and search. Raises InputError without a result."""
    view = CachedRunView(request)
    result = view.result
    run = view.run
    text = request.arg("text")
    if result is None or view.baseline is None or view.winner is None:
        raise InputError(f"{view.id}: {wording.without_result(run)}, so it has no sealed rows to show")
    one, two = view.baseline["id"], view.winner["id"]
    is_own = one == two and result.migration is None
    names = dict(view.names.sides)
    pairs, is_known = request.cached(
        "sealed rows", view.id, lambda: (view.pairs("test", one, two), "test" in view.examples)
    )
    sides = list(names.values())[: 1 if is_own else 2]
    data, blocks = filtered(request, pairs, sides)
    here = f"{address('run', view.id)}/rows"
    shown = request.arg("rows") if request.arg("rows") in FILTERS else ""
    scores = [f"{name} {points(result.sealed(side))} points" for side, name in names.items()]
    if not is_own:
        scores.append(f"{names['winner']} {tally(result.lift.wins, result.lift.losses, result.lift.ties)}")
    erased = sum(any(side and is_erased(side) for side in (pair.one, pair.two)) for pair in pairs)
    told = f"Texts of {erased} row{'s' * (erased != 1)} are left out: they were erased from the ledger for privacy. "
    head = parts.head(
        "Sealed test rows",
        line(" · ".join((run["task"], run["model"], *scores)), look="soft"),
        line(SEALED),
        None if is_known else parts.box(NO_ROWS),
        parts.box(f"{told}The scores stay.") if erased else None,
        parts.search(here, text, "row has", f"{here}?rows={shown}", *parts.hidden(rows=shown)),
        above=parts.run_link(view.id),
    )
    sql = sql_link(
        "SELECT candidate_id, example_id, value, call_key, body FROM outcomes LEFT JOIN blobs ON hash = body_hash "
        "WHERE run_id = :run AND split = 'test' ORDER BY example_id",
        run=view.id,
    )
    return Page(f"Sealed rows · {run['task']}", [head, section("Rows", *blocks)], data, sql)


SPLITS: Sequence[SplitName] = ("test", "dev")
MOST_RUNS = 200
MOST_ROWS = 50
"""Maximum number of rows shown with different scores, largest difference first."""
HINT = "Two runs, by their best prompts, or two trials as RUN:NUMBER. Or tick two in the list of "


def compared(request: PageRequest) -> Page:
    """Compare `a` and `b`, or the two of `pick`; otherwise offer candidates."""
    picked = [name for name in request.args.getlist("pick") if name]
    names = [request.arg(side) or ([*picked, "", ""])[at] for at, side in enumerate("ab")]
    problem = "Only one was ticked: tick another, or name it here." if any(names) else ""
    if all(names):
        try:
            return _comparison(request, names, len(picked))
        except InputError as error:
            problem = str(error)
    return Page("Compare", [_form(request, names, len(picked), problem)])


def _form(request: PageRequest, names: Sequence[str], ticked: int, problem: str = "") -> PageSection:
    known = [row["id"] for row in request.history.runs()][:MOST_RUNS]
    more = {"size": 28, "list": "known", "required": True}
    fields = [
        FormField(side, name, side.upper(), choices=known * (side == "a"), more=more)
        for side, name in zip("ab", names, strict=True)
    ]
    hint = line(HINT, PageCell("runs", "/"), ", or in a run's trials.", look="soft")
    form = FormBlock("/compare", tuple(fields), (Button("Compare"),))
    notice = parts.box(f"{ticked} were ticked; the first two are compared.") if ticked > 2 else None
    return parts.head("Compare", form, hint, parts.box(problem, "bad"), notice)


def _comparison(request: PageRequest, names: Sequence[str], ticked: int) -> Page:
    a, b = (compared_prompt(request.history, name) for name in names)
    found = compare(a, b)
    no_proof = {"dev": ". No proof: prompts were chosen on dev."}
    tests = [parts.box(test + no_proof.get(split, "")) for split, test in found.tests.items()]
    texts = compared_texts(a.candidate, b.candidate)
    words = line("The same words.") if texts[0] == texts[1] else DiffBlock(*texts, is_short=True)
    sections = [
        _form(request, names, ticked),
        section("Scores", _scores({"A": a, "B": b}), *tests, parts.box(sentence(found.not_tested))),
        section("Prompts", words, *(line(each, look="soft") for each in found.unshared)),
        section("Rows that differ", *_differing(request, found, (a, b))),
        section(
            "Side by side",
            found.facts_table("Everything recorded about both", folded=True),
            TermsBlock(terms.legend(is_compared=True, noun=a.names.noun)),
        ),
    ]
    sql = sql_link(
        "SELECT a.split, a.example_id, a.value AS a, b.value AS b FROM outcomes a "
        "JOIN outcomes b ON b.split = a.split AND b.example_id = a.example_id "
        "WHERE a.split IN ('dev', 'test') AND a.run_id = :run_a AND a.candidate_id = :candidate_a "
        "AND b.run_id = :run_b AND b.candidate_id = :candidate_b",
        run_a=a.run["id"],
        candidate_a=a.candidate["id"],
        run_b=b.run["id"],
        candidate_b=b.candidate["id"],
    )
    return Page("Compare", sections, found.to_json(), sql)


def _scores(sides: Mapping[str, ComparedPrompt]) -> Block:

    def what(name: str) -> str:
        side = sides[name]
        if side.trial:
            return f"{name}: trial {side.trial['number']}"
        is_own = side.result is not None and side.result.is_own
        return f"{name}: {side.names.own if is_own else wording.SIDES[1][1]}"

    def run(name: str) -> str:
        run, trial = sides[name].run, sides[name].trial
        return cells(
            link(run["id"], "run", run["id"], *(("trial", trial["number"]) if trial else ())), soft(run["task"])
        )

    def score(split: str) -> Callable[[str], str]:
        def of(name: str) -> str:
            scores = sides[name].outcomes.get(split)
            if not scores:
                return soft("not asked")
            mean, low, high = mean_ci(list(scores.values()))
            return cells(strong(points(mean)), soft(f"{points(low)} to {points(high)}, {len(scores)} rows"))

        return of

    columns: list[Any] = [("prompt", what), (Column("run", "id"), run)]
    return listing("Scores", [*columns, ("sealed test #", score("test")), ("dev #", score("dev"))], sides)


def _differing(request: PageRequest, found: CompareResult, sides: Sequence[ComparedPrompt]) -> Iterator[Block]:
    examples = RunView(request.history, sides[0].run["id"]).examples if found.paired else {}
    splits = [split for split in SPLITS if split in found.paired]
    for split in splits:
        answers = [
            {row["example_id"]: row for row in request.history.outcomes(side.run["id"], side.candidate["id"], split)}
            for side in sides
        ]
        known, test = examples.get(split, {}), found.paired[split]
        pairs = [pair for pair in row_pairs(known, *answers) if abs(pair.change or 0.0) > EQUAL]
        shown = sorted(pairs, key=lambda pair: -abs(pair.change or 0.0))[:MOST_ROWS]
        words = f"{len(pairs)} of {test.n} {split} rows: {test.wins} better with B, {test.losses} better with A"
        more = f"The {MOST_ROWS} largest differences; the SQL below has all rows."
        yield group(
            None if known else line(NO_ROWS, look="soft"),
            *(row_block(pair, ("A", "B")) for pair in shown),
            line(more, look="soft") if len(pairs) > MOST_ROWS else None,
            tag="details",
            title=words,
            is_open=split == splits[0],
        )
