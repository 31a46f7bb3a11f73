"""The playground: prompts of a run or release on a custom input, rendered and, if allowed, sent to the model.

Rendering needs no call and no key. Questions go through the site's `PlaygroundAsker`, which has the caps; the page
reads each answer from the ledger.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from agent.errors import AgentError, InputError, ReleaseError
from agent.ledger import trail
from agent.ledger.query import History
from agent.prompt.template import label_text
from agent.release.runtime import Prompt
from agent.report.blocks import Block, Column, PageCell, group, line, listing, strong, text
from agent.report.page_blocks import Button, FormBlock, FormField
from agent.report.web import parts
from agent.report.web.page_request import PLAYGROUND, Page, PageRequest, PlaygroundAsker, Quote, Site
from agent.report.web.parts import link, named, section, value_text
from agent.report.web.tried_prompts import Tried, tried_prompts
from agent.report.wording import cut, dollars
from agent.results.rows import PlayedAnswer, PlayedResult
from agent.safe_text import counted, plain
from agent.types import Example

FIELD = "in."
"""Prefix of the form field of an input."""
MOST_LOOKED_AT = 50
"""Newest runs searched for one with a prompt to try."""
MANY = 3
"""Number of inputs from which each gets a small field."""
PICKABLE = (
    "Rows of dev and train. Sealed test rows are not offered: they cannot measure a prompt that was tuned on them."
)
NO_ROWS = "No rows to pick: the task's files are gone or have changed, or the version is of another ledger."
ENABLE = "optimize ui --allow-calls --max-calls 50 --max-cost 0.50"


def play(request: PageRequest, problem: str = "") -> Page:
    """Return the prompts with the given input, the rows to pick, and the answers."""
    tried, asker = tried_prompts(request), request.site.asker
    asked, row = _asked(request, tried), _picked(request, tried)
    fields = {name: asked.inputs.get(name, "") for name in tried.inputs} if asked else _fields(request, tried)
    is_filled = any(value.strip() for value in fields.values())
    quote = asker.quote(tried.prompts, fields) if asker and is_filled else None
    here = f"{tried.back}/play"
    many = "s" * (len(tried.prompts) > 1)
    row_name = request.arg("row")
    labels = row.labels.items() if row else ()
    right = [part for name, value in labels for part in (f" · right {name}: ", strong(value_text(value)))]
    size = {"rows": 6 if len(fields) < MANY else 3}
    inputs = [FormField(f"{FIELD}{name}", value, name, "lines", more=size) for name, value in fields.items()]
    is_off = asker is None or bool(quote and quote.problem)
    buttons = (
        Button("Ask the model", "ask", is_main=True, more={"disabled": True} if is_off else {}),
        Button(f"Only fill in the prompt{many}", "show"),
    )
    of_run = "" if "release" in tried.prompts else "run "
    model = next(iter(tried.prompts.values())).model
    sections = [
        parts.head(
            "Playground",
            line(f"{tried.of} · {model}", look="soft"),
            parts.box(f"Not asked: {problem}" if problem else "", "bad"),
            above=PageCell(f"{of_run}{tried.of}", tried.back),
        ),
        section(
            "Input",
            parts.links([PageCell("Pick a row of dev or train", "#pick")]),
            line(f"row {row_name}", *right, look="soft") if row and fields == row.inputs else None,
            FormBlock(f"{here}#prompts", (*parts.hidden(row=row_name), *inputs), buttons, is_post=True, look=""),
            _allowed(asker, quote),
        ),
        section(
            f"Prompt{many}{' with this input' * is_filled}",
            _answered_by(asked) if asked else None,
            group(
                *(_prompt(request, tried, side, fields if is_filled else {}, asked) for side in tried.prompts),
                look="pair",
            ),
            name="prompts",
        ),
        section("Pick a row", *_rows_to_pick(request, tried, here), name="pick"),
    ]
    data = {"of": tried.of, "inputs": fields, "quote": quote, "left": asker.left if asker else None, "asked": asked}
    return Page(f"Playground · {tried.of}", sections, data, status=503 if problem else 200)


def _allowed(asker: PlaygroundAsker | None, quote: Quote | None) -> Block:
    if asker is None:
        free = "Calls are off: filling in is free and asks nobody. To ask, start it with a cap: "
        return line(free, PageCell(ENABLE, tag="code"), look="soft")
    said = ""
    caps = asker.caps
    left = asker.left
    if quote:
        usd = "price not known" if quote.usd is None else dollars(quote.usd, digits=6)
        said = f"{quote.problem}. " if quote.problem else f"This input: at most {counted(quote.calls, 'call')}, {usd}. "
    calls = "" if caps.max_calls is None else f"{left.max_calls} of {caps.max_calls} calls"
    usd = "" if caps.max_cost is None else f"{dollars(left.max_cost)} of {dollars(caps.max_cost, digits=2)}"
    caps_left = ", ".join(filter(None, (calls, usd)))
    return line(f"{said}Left of the caps: {caps_left}. Each call goes into the ledger.", look="soft")


def _answered_by(asked: PlayedResult) -> Block:
    cached = f", {asked.calls['cached']} from the ledger" if asked.calls["cached"] else ""
    said = f": {counted(sum(asked.calls_made.values()), 'call')}{cached}, {dollars(asked.cost_usd, asked.unpriced, 6)}"
    return line("Answered by ", parts.run_link(asked.run_id), said, look="soft")


def _prompt(
    request: PageRequest, tried: Tried, side: str, fields: Mapping[str, str], asked: PlayedResult | None
) -> Block:
    prompt, words = tried.prompts[side], tried.names[side]
    is_filled = fields and not prompt.embeddings  # a preview asks no provider for a vector
    sent = prompt.release.fill(fields) if is_filled else prompt.release.messages
    answer = next((answer for answer in asked.asked if answer.side == side), None) if asked else None
    return group(
        line(f"{words} ", PageCell(prompt.version, tag="soft"), level=3),
        group(*_answer(request, prompt, answer), look="given") if answer else None,
        *parts.messages((message.as_dict() for message in sent), level=4),
        tag="section",
        look="answer",
        label=words,
    )


def _answer(request: PageRequest, prompt: Prompt, answer: PlayedAnswer) -> Iterator[Block]:
    number = trail.call_id(request.history, answer.call_key) if answer.call_key else None
    reply = trail.call(request.history, number, with_events=False)["reply"] if number is not None else None
    said = reply["text"] if reply else ""
    read = prompt.parse(said) if said else None
    fields, error = (read.fields, answer.error or read.error) if read else ({}, answer.error)
    yield from named(fields, tag="strong")
    if error:
        yield line(error, look="text bad")
    if said is not None:
        exact = text(said, exact=True)
        yield group(exact, tag="details", title="the whole reply", is_open=not fields)
    elif not error:
        yield line("(erased)", look="text")
    if number is not None:
        yield line(link("its call", "call", number), look="text soft")


def _rows_to_pick(request: PageRequest, tried: Tried, here: str) -> Iterator[Block]:
    yield line(PICKABLE, look="soft")
    if not tried.rows:
        yield line(NO_ROWS, look="box")
        return
    wanted = request.arg("text")
    found = [
        (f"{split}:{row.id}", row)
        for split, rows in tried.rows.items()
        for row in rows.values()
        if any(wanted.casefold() in one.casefold() for one in (f"{split}:{row.id}", *_texts(row)))
    ]
    shown, place = request.paged(found)
    place["query"] = urlencode({"text": wanted}) if wanted else ""
    yield parts.search(f"{here}#pick", wanted, "row has", f"{here}#pick")
    columns: list[Any] = [
        ("row", lambda each: PageCell(each[0], f"{here}?{urlencode({'row': each[0]})}")),
        (Column("input", "short"), lambda each: cut(" · ".join(each[1].inputs.values()), 160)),
        (Column("right answer", "break"), lambda each: cut(" · ".join(map(label_text, each[1].labels.values())), 80)),
    ]
    yield listing("Rows", columns, shown) if shown else line("No such row.")
    yield parts.pager(place, "row")


def _texts(row: Example) -> list[str]:
    return [*row.inputs.values(), *map(label_text, row.labels.values())]


def latest(request: PageRequest) -> Page:
    """Return the playground of the newest run with prompts to try, if any."""
    for run in request.history.runs()[:MOST_LOOKED_AT]:
        with suppress(InputError, ReleaseError):
            return play(replace(request, names={"run": run["id"]}))
    none = line("No prompt to try yet: ", PageCell("optimize run TASK", tag="code"), " releases the first.")
    return Page("Playground", [parts.head("Playground", none)])


def post(request: PageRequest) -> str | Page:
    """Show or ask the prompts with the form's input. The ledger is closed while a model answers."""
    if request.arg("action") != "ask":
        return play(request)
    tried = tried_prompts(request)
    fields = _fields(request, tried)
    request.history.close()
    try:
        run_id = _ask(request.site, tried, fields)
    except AgentError as error:
        with closing(History(request.site.db, verified=True)) as history:
            return play(replace(request, history=history), str(error))
    return f"{tried.back}/play?{urlencode({'asked': run_id, 'row': request.arg('row')})}#prompts"


def _ask(site: Site, tried: Tried, fields: Mapping[str, str]) -> str:
    if site.asker is None:
        raise InputError("no call is allowed here; start the web view with --allow-calls and a cap")
    if empty := [name for name in tried.inputs if not fields.get(name, "").strip()]:
        raise InputError(f"{', '.join(empty)}: empty; give each input a text")
    return site.asker.ask(tried.of, tried.prompts, fields)


def _fields(request: PageRequest, tried: Tried) -> dict[str, str]:
    # browsers send line ends as CR LF, and pages show control characters as marks: a text that equals the shown text
    # of the row is taken from the row
    row = _picked(request, tried)
    own = row.inputs if row else {}
    found = {}
    for name in tried.inputs:
        typed = request.args.get(FIELD + name)
        text = own.get(name, "") if typed is None else _lines(typed)
        found[name] = own[name] if name in own and _lines(plain(own[name])) == text else text
    return found


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _picked(request: PageRequest, tried: Tried) -> Example | None:
    split, _, row_id = request.arg("row").partition(":")
    if not row_id:
        return None
    if split == "test":
        raise InputError("rows of the sealed test are not offered; pick one of train or dev")
    row = tried.rows.get(split, {}).get(row_id)
    if row is None:
        raise InputError(f"{request.arg('row')}: no such row; pick one of train or dev")
    return row


def _asked(request: PageRequest, tried: Tried) -> PlayedResult | None:
    run_id = request.arg("asked")
    if not run_id:
        return None
    run = request.history.run(run_id)
    stored = run["result"] or {}
    if run["id"] != run_id or stored.get("kind") != PLAYGROUND or stored.get("of") != tried.of:
        raise InputError(f"{run_id}: was not asked in the playground of {tried.of}, or its result was erased")
    return PlayedResult.from_json(stored)
