"""Rows with the outcomes of two prompts: the test rows of a run, and two compared runs or trials."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any
from urllib.parse import urlencode

from agent.errors import InputError
from agent.ledger.query import is_erased
from agent.prompt.template import label_text
from agent.report import terms, wording
from agent.report.blocks import Block, Column, DiffBlock, PageCell, PageSection, cells, group, line, listing, table
from agent.report.compare import ComparedPrompt, CompareResult, compare, compared_prompt
from agent.report.page_blocks import Button, FormBlock, FormField, TermsBlock
from agent.report.prompt_texts import compared_texts
from agent.report.view import EQUAL, RowPair, RunView, row_pairs
from agent.report.web.page_request import Page, PageRequest, sql_link
from agent.report.web.parts import (
    NO_ROWS,
    PLAIN,
    address,
    box,
    change_badge,
    crumbs,
    link,
    links,
    pager,
    row_pair,
    section,
    soft,
    strong,
    title,
    value_text,
)
from agent.report.wording import chance, gain, points
from agent.types import Example, SplitName

Passes = Callable[[RowPair], bool]
Filters = Mapping[str, tuple[str, Passes]]
"""Row filters by name: label and condition."""
UNREADABLE: tuple[str, Passes] = ("failed to parse", lambda pair: bool(pair.two and pair.two["error"]))
ROW_FILTERS: Filters = {
    "all": ("all rows", lambda pair: True),
    "right": ("flipped to right", lambda pair: (pair.change or 0) > 0),
    "wrong": ("flipped to wrong", lambda pair: (pair.change or 0) < 0),
    "unreadable": UNREADABLE,
}
"""Filters of the rows of a trial."""
SEALED_FILTERS: Filters = {
    "all": ("all rows", lambda pair: True),
    "won": ("won", lambda pair: _verdict(pair) == "won"),
    "lost": ("lost", lambda pair: _verdict(pair) == "lost"),
    "tied": ("tied", lambda pair: _verdict(pair) == "tied"),
    "unscored": ("without a score", lambda pair: _verdict(pair) == "unscored"),
    "unreadable": UNREADABLE,
}
"""Filters of the sealed rows; won and lost are from the best found's view."""
SEALED = "These rows were used once, at the end. They cannot measure a prompt that was tuned on them."
LEFT_OUT = "Inputs and labels are not shown: the task's files are gone or have changed since the run."


def filtered(request: PageRequest, pairs: Sequence[RowPair], filters: Filters, text: str = "") -> dict[str, Any]:
    """Return one page of the rows that match the filter and the search text."""
    which = request.arg("rows") if request.arg("rows") in filters else "all"
    found = [pair for pair in pairs if filters[which][1](pair) and _holds(pair, text.casefold())]
    shown, place = request.paged(found)
    return {
        "shown": which,
        "text": text,
        "counts": {
            name: {"words": words, "rows": sum(map(passes, pairs))} for name, (words, passes) in filters.items()
        },
        "rows": [{**asdict(pair), "change": pair.change, "verdict": _verdict(pair)} for pair in shown],
        "place": place,
    }


def _verdict(pair: RowPair) -> str:
    # from the second prompt's view
    if pair.change is None:
        return "unscored"
    return "tied" if abs(pair.change) <= EQUAL else "won" if pair.change > 0 else "lost"


def _holds(pair: RowPair, text: str) -> bool:
    if not text:
        return True
    texts = [pair.example_id, *pair.inputs.values(), *map(label_text, pair.labels.values())]
    texts += [side["reply"] for side in (pair.one, pair.two) if side is not None]
    return any(text in one.casefold() for one in texts)


def row_blocks(data: Mapping[str, Any], here: str, sides: Sequence[str]) -> Iterator[Block | None]:
    """Yield the rows of `filtered` with links to its filters; `sides`: the names of the prompts."""
    yield _filter_links(data, f"{here}?rows=", "#rows", shows_empty=True)
    yield None if data["rows_known"] else box(NO_ROWS)
    for row in data["rows"]:
        yield row_pair(row, change_badge(row["change"]), sides)
    yield None if data["rows"] else line("No such row.")
    yield pager(data["place"], "row")


def _filter_links(data: Mapping[str, Any], start: str, end: str = "", shows_empty: bool = False) -> Block:
    shown = data["shown"]
    return links(
        PageCell(f"{each['words']} ({each['rows']})", f"{start}{name}{end}", "current" if name == shown else "")
        for name, each in data["counts"].items()
        if shows_empty or each["rows"] or name in ("all", shown)
    )


def sealed_rows(request: PageRequest, view: RunView) -> Page:
    """Return one page of the test rows that match filter and search; raise InputError without a result."""
    result = view.result
    if result is None or view.baseline is None or view.winner is None:
        raise InputError(f"{view.id}: {wording.without_result(view.run)}, so it has no sealed rows to show")
    one, two = view.baseline["id"], view.winner["id"]
    is_own = one == two and result.migration is None
    pairs, rows_known = request.cached(
        "sealed rows", view.id, lambda: (view.pairs("test", one, two), "test" in view.examples)
    )
    here = f"{address('run', view.id)}/rows"
    data = {
        "run": {name: view.run[name] for name in ("id", "task", "model")},
        "is_own": is_own,
        "names": dict(wording.sides(result)),
        "score": {side: wording.sealed_score(result, side) for side, _ in wording.sides(result)},
        "lift": wording.tally(result.lift.wins, result.lift.losses, result.lift.ties) if not is_own else "",
        "query": request.query("rows"),
        "of": len(pairs),
        **filtered(request, pairs, SEALED_FILTERS, request.arg("text")),
        "rows_known": rows_known,
        "erased": sum(any(side and is_erased(side) for side in (pair.one, pair.two)) for pair in pairs),
    }
    sql = sql_link(
        "SELECT candidate_id, example_id, value, call_key, body FROM outcomes LEFT JOIN blobs ON hash = body_hash "
        "WHERE run_id = :run AND split = 'test' ORDER BY example_id",
        run=view.id,
    )
    also = f"{here}.json?rows={data['shown']}"
    return Page(f"Sealed rows · {view.run['task']}", data, partial(_sealed_page, view, data, here), also, sql)


def _sealed_page(view: RunView, data: Mapping[str, Any], here: str) -> Iterator[PageSection]:
    scores = " · ".join(f"{data['names'][side]} {points(score)} points" for side, score in data["score"].items())
    lift = f" · {data['names']['winner']} {data['lift']}" if data["lift"] else ""
    erased = f"Texts of {data['erased']} row{'s' * (data['erased'] != 1)} are left out: they were erased from the "
    shown, query = data["shown"], data["query"]
    search = FormField("text", data["text"], "row has", more={"size": 24, "maxlength": 200})
    everything = (PageCell("all", f"{here}?rows={shown}"),) if data["text"] else ()
    yield section(
        "",
        crumbs(f"run {view.id}", "run", view.id),
        title("Sealed test rows"),
        line(f"{view.run['task']} · {view.run['model']} · {scores}{lift}", look="soft"),
        line(SEALED),
        None if data["rows_known"] else box(LEFT_OUT),
        box(f"{erased}ledger for privacy. The scores stay.") if data["erased"] else None,
        _filter_links(data, f"{here}?{query}{'&' if query else ''}rows="),
        FormBlock(here, (FormField("rows", shown, kind="hidden"), search), (Button("Search"),), after=everything),
    )
    sides = list(data["names"].values())[: 1 if data["is_own"] else 2]
    rows = [row_pair(row, _badge(row, data["is_own"]), sides) for row in data["rows"]]
    none = None if rows else line("No such row.")
    yield section("Rows", *rows, none, pager(data["place"], "row", data["of"]))


def _badge(row: Mapping[str, Any], is_own: bool) -> PageCell:
    verdict = row["verdict"]
    if verdict == "unscored":
        return PageCell("no score", tag=PLAIN)
    if is_own:
        return PageCell("")
    change = "" if verdict == "tied" else f" {gain(row['change'])}"
    return PageCell(f"{verdict}{change}", tag={"won": "good", "lost": "bad"}.get(verdict, PLAIN))


SPLITS: Sequence[SplitName] = ("test", "dev")
MOST_RUNS = 200
MOST_ROWS = 50
"""Maximum number of rows shown with different scores, largest difference first."""
HINT = "Two runs, by their best prompts, or two trials as RUN:NUMBER. Or tick two in the list of "


def compared(request: PageRequest) -> Page:
    """Return the comparison of `a` and `b`, or of the two in `pick`; without them, the candidates to pick."""
    picked = [name for name in request.args.getlist("pick") if name]
    names = [request.arg("a") or next(iter(picked), ""), request.arg("b") or next(iter(picked[1:2]), "")]
    asked: dict[str, Any] = {
        "a": names[0],
        "b": names[1],
        "known": [row["id"] for row in request.history.runs()][:MOST_RUNS],
        "problem": "",
        "notice": f"{len(picked)} were ticked; the first two are compared." if len(picked) > 2 else "",
    }
    if not all(names):
        asked["problem"] = "Only one was ticked: tick another, or name it here." if any(names) else ""
        return Page("Compare", asked, lambda: [_form(asked)])
    try:
        a, b = (compared_prompt(request.history, name) for name in names)
    except InputError as error:
        asked["problem"] = str(error)
        return Page("Compare", asked, lambda: [_form(asked)])
    found = compare(a, b)
    examples = RunView(request.history, a.run["id"]).examples if found.paired else {}
    data = {
        **asked,
        **found.to_json(),
        "sides": [_side(name, side) for name, side in zip(names, (a, b), strict=True)],
        "rows": {
            split: _rows(request, split, (a, b), examples.get(split, {})) for split in SPLITS if split in found.paired
        },
    }
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
    texts = compared_texts(a.candidate, b.candidate)
    also = f"/compare.json?{urlencode({'a': names[0], 'b': names[1]})}"
    return Page("Compare", data, partial(_page, data, found, texts), also, sql)


def _form(data: Mapping[str, Any]) -> PageSection:
    fields = [
        FormField(name, data[name], name.upper(), choices=data["known"] * (name == "a"), more=MORE)
        for name in ("a", "b")
    ]
    hint = line(HINT, PageCell("runs", "/"), ", or in a run's trials.", look="soft")
    form = FormBlock("/compare", tuple(fields), (Button("Compare"),))
    return section("", title("Compare"), form, hint, box(data["problem"], "bad"), box(data["notice"]))


MORE = {"size": 28, "list": "known", "required": True}


def _page(data: Mapping[str, Any], found: CompareResult, texts: tuple[str, str]) -> Iterator[PageSection]:
    yield _form(data)

    def score(split: str) -> Any:
        def of(side: Mapping[str, Any]) -> str:
            one = side["scores"].get(split)
            if not one:
                return soft("not asked")
            return cells(
                strong(points(one["mean"])), soft(f"{points(one['low'])} to {points(one['high'])}, {one['n']} rows")
            )

        return of

    def run(side: Mapping[str, Any]) -> str:
        trial = () if side["trial"] is None else ("trial", side["trial"])
        return cells(link(side["run"], "run", side["run"], *trial), soft(side["task"]))

    scores = listing(
        "Scores",
        [
            ("prompt", lambda side: side["what"]),
            (Column("run", "id"), run),
            ("sealed test #", score("test")),
            ("dev #", score("dev")),
        ],
        [{**side, "what": f"{name}: {side['what']}"} for name, side in zip("AB", data["sides"], strict=True)],
    )
    paired = []
    for split, test in found.paired.items():
        known = f" points (95 % CI {wording.gain_interval(test.ci95)}, {chance(test.p_value)}); "
        known += wording.tally(test.wins, test.losses, test.ties)
        proof = soft(". No proof: prompts were chosen on dev.") if split == "dev" else ""
        paired.append(line(f"B minus A on {test.n} {split} rows: ", strong(gain(test.diff)), known, proof, look="box"))
    not_tested = f"{found.not_tested[:1].upper()}{found.not_tested[1:]}." if found.not_tested else ""
    yield section("Scores", scores, *paired, box(not_tested))
    words = line("The same words.") if texts[0] == texts[1] else DiffBlock(*texts, is_short=True)
    yield section("Prompts", words, *(line(each, look="soft") for each in found.unshared))
    if data["rows"]:
        shown = [_differing(split, each, found) for split, each in data["rows"].items()]
        yield section(
            "Rows that differ",
            *(group(*each.blocks, tag="details", title=each.title, is_open=not at) for at, each in enumerate(shown)),
        )
    lines = [
        (cells(name, PageCell("" if one.same else "differs", tag=PLAIN)), value_text(one.a), value_text(one.b))
        for name, one in found.facts.items()
    ]
    side_by_side = table(
        "Everything recorded about both", ("what", Column("A", "break"), Column("B", "break")), lines, folded=True
    )
    yield section("Side by side", side_by_side, TermsBlock(terms.legend(is_compared=True)))


def _differing(split: str, each: Mapping[str, Any], found: CompareResult) -> PageSection:
    test, count = found.paired[split], len(each["rows"])
    words = f"{each['total']} of {test.n} {split} rows: {test.wins} better with B, {test.losses} better with A"
    rows = [row_pair(row, change_badge(row["change"]), ("A", "B")) for row in each["rows"]]
    more = f"The {count} largest differences; the SQL below has all rows." if each["total"] > count else ""
    return section(
        words, None if each["known"] else line(NO_ROWS, look="soft"), *rows, line(more, look="soft") if more else None
    )


def _side(name: str, side: ComparedPrompt) -> dict[str, Any]:
    # by split: mean (0 to 1), ends of its 95 % interval, number of rows
    from agent.stats.intervals import mean_ci

    means: dict[str, Any] = {}
    for split, scores in side.outcomes.items():
        if scores:
            mean, low, high = mean_ci(list(scores.values()))
            means[split] = {"mean": mean, "low": low, "high": high, "n": len(scores)}
    number = side.trial["number"] if side.trial else None
    is_own = side.result is not None and side.result.is_own
    what = wording.baseline_words(side.run).name if is_own else wording.SIDES[1][1]
    return {
        "name": name,
        "run": side.run["id"],
        "task": side.run["task"],
        "trial": number,
        "what": what if number is None else f"trial {number}",
        "scores": means,
    }


def _rows(
    request: PageRequest, split: SplitName, sides: Sequence[ComparedPrompt], known: Mapping[str, Example]
) -> dict[str, Any]:
    answers = [
        {row["example_id"]: row for row in request.history.outcomes(side.run["id"], side.candidate["id"], split)}
        for side in sides
    ]
    pairs = [pair for pair in row_pairs(known, *answers) if abs(pair.change or 0.0) > EQUAL]
    shown = sorted(pairs, key=lambda pair: -abs(pair.change or 0.0))[:MOST_ROWS]
    return {
        "rows": [{**asdict(pair), "change": pair.change} for pair in shown],
        "total": len(pairs),
        "known": bool(known),
    }
