"""The playground: prompts of a run or release on a custom input, rendered and, if allowed, sent to the model.

Rendering needs no call and no key. Questions go through the site's `PlaygroundAsker`, which has the caps; the page
reads each answer from the ledger.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, replace
from functools import partial
from itertools import chain
from typing import Any
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from agent.errors import AgentError, InputError, ReleaseError
from agent.ledger import trail
from agent.ledger.query import History
from agent.prompt.template import label_text
from agent.release.runtime import Prompt
from agent.report import wording
from agent.report.blocks import Block, Column, PageCell, PageSection, group, line, listing, text
from agent.report.page_blocks import Button, FormBlock, FormField
from agent.report.web.page_request import PLAYGROUND, Page, PageRequest, Site
from agent.report.web.parts import link, links, messages, named, pager, section, strong, title, value_text
from agent.report.web.tried_prompts import Tried, tried_prompts
from agent.report.wording import dollars
from agent.results.rows import PlayedAnswer, PlayedResult
from agent.safe_text import plain
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


def play(request: PageRequest, problem: str = "") -> Page:
    """Return the prompts with the given input, the rows to pick, and the answers."""
    tried = tried_prompts(request)
    asked = _asked(request, tried)
    fields = asked["inputs"] if asked and asked["inputs"] else _fields(request, tried)
    is_filled = any(value.strip() for value in fields.values())
    row = _picked(request, tried)
    asker = request.site.asker
    cost = asker.quote(tried.prompts, fields) if asker and is_filled else None
    data = {
        "of": tried.of,
        "back": tried.back,
        "model": next(iter(tried.prompts.values())).model,
        "inputs": [{"name": name, "value": fields.get(name, "")} for name in tried.inputs],
        "is_filled": is_filled,
        "row": "" if row is None else f"{row[0]}:{row[1].id}",
        "is_row": row is not None and fields == row[1].inputs,
        "labels": {} if row is None else dict(row[1].labels),
        "prompts": [_shown(tried, side, fields, is_filled, asked) for side in tried.prompts],
        "asked": asked,
        "problem": problem,
        "asking": None
        if asker is None
        else {"caps": dict(asker.caps), "left": dict(asker.left), "quote": asdict(cost) if cost else None},
        "enable": "optimize ui --allow-calls --max-calls 50 --max-cost 0.50",
        "pick": _pick(request, tried),
    }
    also = f"{tried.back}/play.json?{urlencode({'row': data['row']})}"
    name = f"Playground · {tried.of}"
    return Page(name, data, partial(_play_page, data), also, status=503 if problem else 200)


def _play_page(data: Mapping[str, Any]) -> Iterator[PageSection]:
    here, prompts, asking = f"{data['back']}/play", data["prompts"], data["asking"]
    is_run, many = len(prompts) > 1 or prompts[0]["side"] != "release", "s" * (len(prompts) > 1)
    problem = line(f"Not asked: {data['problem']}", look="box bad") if data["problem"] else None
    crumb = line(PageCell(f"{'run ' * is_run}{data['of']}", data["back"]), look="crumbs")
    yield section("", crumb, title("Playground"), line(f"{data['of']} · {data['model']}", look="soft"), problem)
    labels = [
        part for name, value in data["labels"].items() for part in (f" · right {name}: ", strong(value_text(value)))
    ]
    size = {"rows": 6 if len(data["inputs"]) < MANY else 3}
    inputs = [
        FormField(f"{FIELD}{one['name']}", one["value"], one["name"], "lines", more=size) for one in data["inputs"]
    ]
    quote = asking["quote"] if asking else None
    is_off = asking is None or bool(quote and quote["problem"])
    buttons = (
        Button("Ask the model", "ask", is_main=True, more={"disabled": True} if is_off else {}),
        Button(f"Only fill in the prompt{many}", "show"),
    )
    yield section(
        "Input",
        links([PageCell("Pick a row of dev or train", "#pick")]),
        line(f"row {data['row']}", *labels, look="soft") if data["is_row"] else None,
        FormBlock(
            f"{here}#prompts", (FormField("row", data["row"], kind="hidden"), *inputs), buttons, is_post=True, look=""
        ),
        _allowed(data, asking, quote),
    )
    sides = group(*(_prompt(prompt) for prompt in prompts), look="pair")
    yield section(
        f"Prompt{many}{' with this input' * data['is_filled']}", _answered_by(data["asked"]), sides, name="prompts"
    )
    yield section("Pick a row", *_rows_to_pick(data["pick"], here), name="pick")


def _allowed(data: Mapping[str, Any], asking: Mapping[str, Any] | None, quote: Mapping[str, Any] | None) -> Block:
    if asking is None:
        free = "Calls are off: filling in is free and asks nobody. To ask, start it with a cap: "
        return line(free, PageCell(data["enable"], tag="code"), look="soft")
    said, caps, left = "", asking["caps"], asking["left"]
    if quote:
        usd = "price not known" if quote["usd"] is None else dollars(quote["usd"], digits=6)
        said = f"This input: at most {quote['calls']} call{'s' * (quote['calls'] > 1)}, {usd}. "
        said = f"{quote['problem']}. " if quote["problem"] else said
    calls = "" if caps["calls"] is None else f"{left['calls']} of {caps['calls']} calls"
    usd = "" if caps["usd"] is None else f"{dollars(left['usd'])} of {dollars(caps['usd'], digits=2)}"
    caps_left = ", ".join(filter(None, (calls, usd)))
    return line(f"{said}Left of the caps: {caps_left}. Each call goes into the ledger.", look="soft")


def _answered_by(asked: Mapping[str, Any] | None) -> Block | None:
    if not asked:
        return None
    calls = f": {asked['calls']} call{'s' * (asked['calls'] != 1)}"
    cached = f", {asked['cached']} from the ledger" if asked["cached"] else ""
    cost = dollars(asked["cost_usd"], asked["unpriced"], 6)
    return line(
        "Answered by ", link(f"run {asked['run_id']}", "run", asked["run_id"]), f"{calls}{cached}, {cost}", look="soft"
    )


def _prompt(prompt: Mapping[str, Any]) -> Block:
    answer, parts = prompt["answer"], list[Block | None]()
    if answer:
        parts += named(answer["fields"], tag="strong")
        parts.append(line(answer["error"], look="text bad") if answer["error"] else None)
        if answer["reply"] is not None:
            reply = text(answer["reply"], exact=True)
            parts.append(group(reply, tag="details", title="the whole reply", is_open=not answer["fields"]))
        elif not answer["error"]:
            parts.append(line("(erased)", look="text"))
        if answer["call"] is not None:
            parts.append(line(link("its call", "call", answer["call"]), look="text soft"))
    return group(
        line(f"{prompt['words']} ", PageCell(prompt["version"], tag="soft"), level=3),
        group(*parts, look="given") if answer else None,
        *messages(prompt["messages"], level=4),
        tag="section",
        look="answer",
        label=prompt["words"],
    )


def _rows_to_pick(pick: Mapping[str, Any], here: str) -> Iterator[Block]:
    yield line(PICKABLE, look="soft")
    if not pick["known"]:
        yield line(NO_ROWS, look="box")
        return
    search = FormField("text", pick["text"], "row has", more={"size": 24, "maxlength": 200})
    everything = (PageCell("all", f"{here}#pick"),) if pick["text"] else ()
    yield FormBlock(f"{here}#pick", (search,), (Button("Search"),), after=everything)
    columns: list[Any] = [
        ("row", lambda each: PageCell(each["row"], f"{here}?{urlencode({'row': each['row']})}")),
        (Column("input", "short"), "words"),
        (Column("right answer", "break"), "labels"),
    ]
    yield listing("Rows", columns, pick["rows"]) if pick["rows"] else line("No such row.")
    yield pager(pick["place"], "row")


def latest(request: PageRequest) -> Page:
    """Return the playground of the newest run with prompts to try; `of` is "" without one."""
    for run in request.history.runs()[:MOST_LOOKED_AT]:
        with suppress(InputError, ReleaseError):
            return play(replace(request, names={"run": run["id"]}))
    none = line("No prompt to try yet: ", PageCell("optimize run TASK", tag="code"), " releases the first.")
    data = {"of": "", "back": "", "prompts": [], "row": ""}
    return Page("Playground", data, lambda: [section("", title("Playground"), none)])


def post(site: Site, names: Mapping[str, str], form: QueryParams) -> str | Page:
    """Show the prompts with the form's input, or ask them; the ledger is closed while a model answers."""
    problem = ""
    if form.get("action") == "ask":
        with closing(History(site.db, verified=True)) as history:
            request = PageRequest(site, history, names, form)
            tried = tried_prompts(request)
            fields = _fields(request, tried)
        try:
            run_id = _ask(site, tried, fields)
        except AgentError as error:
            problem = str(error)
        else:
            return f"{tried.back}/play?{urlencode({'asked': run_id, 'row': form.get('row', '')})}#prompts"
    with closing(History(site.db, verified=True)) as history:
        return play(PageRequest(site, history, names, form), problem)


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
    own = row[1].inputs if row else {}
    found = {}
    for name in tried.inputs:
        typed = request.args.get(FIELD + name)
        text = own.get(name, "") if typed is None else _lines(typed)
        is_own = name in own and _lines(plain(own[name])) == text
        found[name] = own[name] if is_own else text
    return found


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _picked(request: PageRequest, tried: Tried) -> tuple[str, Example] | None:
    split, _, row_id = request.arg("row").partition(":")
    if not row_id:
        return None
    if split == "test":
        raise InputError("rows of the sealed test are not offered; pick one of train or dev")
    row = tried.rows.get(split, {}).get(row_id)
    if row is None:
        raise InputError(f"{request.arg('row')}: no such row; pick one of train or dev")
    return split, row


def _pick(request: PageRequest, tried: Tried) -> dict[str, Any]:
    text = request.arg("text")
    every = chain.from_iterable(((split, row) for row in rows.values()) for split, rows in tried.rows.items())
    found = [(split, row) for split, row in every if _holds(split, row, text.casefold())]
    shown, place = request.paged(found)
    place["query"] = urlencode({"text": text}) if text else ""
    return {
        "known": bool(tried.rows),
        "text": text,
        "place": place,
        "rows": [
            {
                "row": f"{split}:{row.id}",
                "words": wording.cut(" · ".join(row.inputs.values()), 160),
                "labels": wording.cut(" · ".join(map(label_text, row.labels.values())), 80),
            }
            for split, row in shown
        ],
    }


def _holds(split: str, row: Example, text: str) -> bool:
    texts = (f"{split}:{row.id}", *row.inputs.values(), *map(label_text, row.labels.values()))
    return not text or any(text in one.casefold() for one in texts)


def _shown(
    tried: Tried, side: str, fields: Mapping[str, str], is_filled: bool, asked: Mapping[str, Any] | None
) -> dict[str, Any]:
    prompt = tried.prompts[side]
    is_filled = is_filled and not prompt.embeddings  # a preview asks no provider for a vector
    sent = prompt.release.fill(fields) if is_filled else prompt.release.messages
    answers: Sequence[Mapping[str, Any]] = asked["answers"] if asked else ()
    return {
        "side": side,
        "words": tried.names[side],
        "version": prompt.version,
        "messages": [message.as_dict() for message in sent],
        "answer": next((answer for answer in answers if answer["side"] == side), None),
    }


def _asked(request: PageRequest, tried: Tried) -> dict[str, Any] | None:
    run_id = request.arg("asked")
    if not run_id:
        return None
    run = request.history.run(run_id)
    stored = run["result"] or {}
    if run["id"] != run_id or stored.get("kind") != PLAYGROUND or stored.get("of") != tried.of:
        raise InputError(f"{run_id}: was not asked in the playground of {tried.of}, or its result was erased")
    result = PlayedResult.from_json(stored)
    answers = [_answer(request, tried.prompts.get(answer.side), answer) for answer in result.asked]
    return {
        "run_id": run_id,
        "inputs": {name: result.inputs.get(name, "") for name in tried.inputs},
        "answers": answers,
        "cost_usd": result.cost_usd,
        "unpriced": result.unpriced,
        "calls": sum(result.calls_made.values()),
        "cached": result.calls["cached"],
    }


def _answer(request: PageRequest, prompt: Prompt | None, answer: PlayedAnswer) -> dict[str, Any]:
    key, error = answer.call_key, answer.error
    number = trail.call_id(request.history, key) if key else None
    reply = trail.call(request.history, number, with_events=False)["reply"] if number is not None else None
    text = reply["text"] if reply else ""
    read = prompt.parse(text) if prompt and text else None
    return {
        "side": answer.side,
        "call": number,
        "reply": text,
        "fields": dict(read.fields) if read else {},
        "error": error or (read.error if read else ""),
    }
